/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring/order.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static int membarrier(int command)
{
    return (int)syscall(SYS_membarrier, command, 0u, 0);
}

bool order_register(void)
{
    return membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0;
}

void order_sleep(bool fence)
{
    /*
     * The command was accepted at registration and cannot fail later; the fence is for a kernel
     * that breaks that.
     */
    if (fence || membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0)
        order_fence();
}

int order_grace_period(void)
{
    return membarrier(MEMBARRIER_CMD_GLOBAL) == 0 ? 0 : -errno;
}

bool order_grace_period_works(void)
{
    int commands = membarrier(MEMBARRIER_CMD_QUERY);

    return commands > 0 && (commands & MEMBARRIER_CMD_GLOBAL);
}

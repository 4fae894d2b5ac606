/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/guard.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#define GUARDED_MAX 4096

struct guarded {
    uintptr_t start; /* 0: unused */
    size_t bytes;
    volatile sig_atomic_t *lost;
};

static struct guarded table[GUARDED_MAX];

static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    const uintptr_t address = (uintptr_t)info->si_addr;

    (void)context;
    for (size_t i = 0; i < GUARDED_MAX; i++) {
        const struct guarded *guarded = &table[i];
        if (guarded->start == 0 || address - guarded->start >= guarded->bytes)
            continue;
        if (mmap((void *)guarded->start, guarded->bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            break;
        *guarded->lost = 1;
        return;
    }
    /* Not ours: the fault comes again, and ends the process as it should. */
    signal(signal_number, SIG_DFL);
}

void guard_init(void)
{
    const struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};

    sigaction(SIGBUS, &action, NULL);
}

int guard_add(void *address, size_t bytes, volatile sig_atomic_t *lost)
{
    for (size_t i = 0; i < GUARDED_MAX; i++) {
        if (table[i].start != 0)
            continue;
        table[i] = (struct guarded){.bytes = bytes, .lost = lost};
        table[i].start = (uintptr_t)address;
        return 0;
    }
    return -ENOSPC;
}

void guard_remove(const void *address)
{
    for (size_t i = 0; i < GUARDED_MAX; i++)
        if (table[i].start == (uintptr_t)address)
            table[i].start = 0;
}

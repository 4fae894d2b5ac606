/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/ringer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

static void interrupt(int signal_number)
{
    (void)signal_number; /* that write returns is all */
}

int ringer_init(struct ringer *ringer)
{
    const struct sigaction action = {.sa_handler = interrupt}; /* without SA_RESTART */
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};

    event._sigev_un._tid = gettid();
    sigaction(SIGALRM, &action, NULL);
    ringer->made = timer_create(CLOCK_MONOTONIC, &event, &ringer->watchdog) == 0;
    return ringer->made ? 0 : -errno;
}

void ringer_deinit(struct ringer *ringer)
{
    if (ringer->made)
        timer_delete(ringer->watchdog);
    ringer->made = false;
}

static void watch(const struct ringer *ringer, bool on)
{
    const struct timespec patience = {.tv_nsec = on ? RINGER_PATIENCE_MS * 1000000 : 0};
    /* Again and again, should the first signal come before write has begun to wait. */
    const struct itimerspec times = {.it_value = patience, .it_interval = patience};

    timer_settime(ringer->watchdog, 0, &times, NULL);
}

bool ringer_ring(const struct ringer *ringer, int event_fd)
{
    const uint64_t one = 1;
    int flags = fcntl(event_fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(event_fd, F_SETFL, flags | O_NONBLOCK);
    watch(ringer, true);
    ssize_t n = write(event_fd, &one, sizeof(one));
    int error = errno;
    watch(ringer, false);
    return n >= 0 || error != EINTR;
}

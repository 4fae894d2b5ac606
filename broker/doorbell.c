/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/doorbell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

static void interrupt(int signal_number)
{
    (void)signal_number; /* that write returns is all */
}

int doorbell_init(struct doorbell *doorbell)
{
    const struct sigaction action = {.sa_handler = interrupt}; /* without SA_RESTART */
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};

    event._sigev_un._tid = gettid();
    sigaction(SIGALRM, &action, NULL);
    return timer_create(CLOCK_MONOTONIC, &event, &doorbell->watchdog) < 0 ? -errno : 0;
}

void doorbell_deinit(struct doorbell *doorbell)
{
    timer_delete(doorbell->watchdog);
}

static void watch(const struct doorbell *doorbell, bool on)
{
    const struct timespec patience = {.tv_nsec = on ? DOORBELL_PATIENCE_MS * 1000000 : 0};
    /* Again and again, should the first signal come before write has begun to wait. */
    const struct itimerspec times = {.it_value = patience, .it_interval = patience};

    timer_settime(doorbell->watchdog, 0, &times, NULL);
}

static void set_nonblocking(int event_fd)
{
    int flags = fcntl(event_fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(event_fd, F_SETFL, flags | O_NONBLOCK);
}

bool doorbell_ring(const struct doorbell *doorbell, int event_fd)
{
    const uint64_t one = 1;

    set_nonblocking(event_fd);
    watch(doorbell, true);
    ssize_t n = write(event_fd, &one, sizeof(one));
    int error = errno;
    watch(doorbell, false);
    return n >= 0 || error != EINTR;
}

void doorbell_drain(const struct doorbell *doorbell, int event_fd)
{
    uint64_t count;

    set_nonblocking(event_fd);
    watch(doorbell, true);
    ssize_t n = read(event_fd, &count, sizeof(count));
    watch(doorbell, false);
    (void)n; /* nothing there, or interrupted: as well */
}

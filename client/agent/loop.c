/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

int loop_init(struct loop *loop)
{
    *loop = (struct loop){.epoll = epoll_create1(EPOLL_CLOEXEC)};
    return loop->epoll < 0 ? -errno : 0;
}

void loop_deinit(struct loop *loop)
{
    if (loop->epoll >= 0)
        close(loop->epoll);
    loop->epoll = -1;
}

int loop_add(struct loop *loop, struct loop_source *source, int fd, void (*ready)(void *context),
             void *context)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

    *source = (struct loop_source){.fd = fd, .ready = ready, .context = context};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    source->loop = loop;
    return 0;
}

void loop_remove(struct loop_source *source)
{
    if (source->loop)
        epoll_ctl(source->loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
    source->loop = NULL;
}

int loop_timer_init(struct loop *loop, struct loop_source *timer, void (*ready)(void *context),
                    void *context)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    if (fd < 0) {
        *timer = (struct loop_source){.fd = -1};
        return -errno;
    }
    int r = loop_add(loop, timer, fd, ready, context);
    if (r < 0) {
        close(fd);
        timer->fd = -1;
    }
    return r;
}

static void set_ns(struct loop_source *timer, uint64_t delay_ns)
{
    const struct itimerspec when = {.it_value = {.tv_sec = (time_t)(delay_ns / 1000000000u),
                                                 .tv_nsec = (long)(delay_ns % 1000000000u)}};

    timerfd_settime(timer->fd, 0, &when, NULL);
}

void loop_timer_set(struct loop_source *timer, uint64_t delay_ms)
{
    set_ns(timer, delay_ms ? delay_ms * 1000000u : 1u);
}

void loop_timer_stop(struct loop_source *timer)
{
    set_ns(timer, 0);
}

void loop_timer_deinit(struct loop_source *timer)
{
    if (!timer->loop)
        return;
    loop_remove(timer);
    close(timer->fd);
    timer->fd = -1;
}

/* True: there was one. */
static bool take_one(struct loop *loop, int timeout_ms, int *error)
{
    struct epoll_event event;
    int n = epoll_wait(loop->epoll, &event, 1, timeout_ms);

    if (n < 0)
        *error = errno == EINTR ? 0 : -errno;
    if (n <= 0)
        return false;
    struct loop_source *source = event.data.ptr;
    source->ready(source->context);
    return true;
}

void loop_turn(struct loop *loop, unsigned events)
{
    int error;

    while (events-- > 0 && take_one(loop, 0, &error))
        ;
}

int loop_run(struct loop *loop)
{
    int error = 0;

    while (!loop->stopped && error == 0)
        take_one(loop, -1, &error);
    return error;
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}

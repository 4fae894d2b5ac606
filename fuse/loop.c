/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "fuse/end.h"
#include "fuse/file.h"
#include "fuse/mount.h"

#define EVENTS_MAX 64
/* Requests handled before the channels get a turn. */
#define REQUESTS_PER_TURN 16

int loop_init(struct loop *loop)
{
    sigset_t signals;

    *loop = (struct loop){.epoll_fd = -1, .signal_fd = -1};
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    int r = pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (r != 0)
        return -r;
    loop->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->signal_fd < 0 || loop->epoll_fd < 0) {
        r = -errno;
        loop_deinit(loop);
    }
    return r;
}

void loop_deinit(struct loop *loop)
{
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->signal_fd >= 0)
        close(loop->signal_fd);
    free(loop->buffer.mem);
    *loop = (struct loop){.epoll_fd = -1, .signal_fd = -1};
}

int loop_watch(struct loop *loop, struct watch *watch, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};

    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    watch->fd = fd;
    return 0;
}

void loop_unwatch(struct loop *loop, struct watch *watch)
{
    if (watch->fd >= 0)
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->fd = -1;
}

static void on_signal(void *context)
{
    struct mount *mount = context;

    fuse_session_exit(mount->session);
}

static void on_requests(void *context)
{
    struct mount *mount = context;

    for (int i = 0; i < REQUESTS_PER_TURN && !fuse_session_exited(mount->session); i++) {
        int r = fuse_session_receive_buf(mount->session, &mount->loop.buffer);
        if (r == -EINTR)
            continue;
        if (r <= 0) /* nothing more; unmounted, and libfuse has marked the session; or an error,
                       tried again */
            return;
        fuse_session_process_buf(mount->session, &mount->loop.buffer);
        file_answer_interrupted(mount);
    }
}

static int turn(struct mount *mount)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(mount->loop.epoll_fd, events, EVENTS_MAX, -1);

    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->fd >= 0) /* an earlier event may have dropped it */
            watch->ready(watch->context);
    }
    ends_bury(mount);
    return 0;
}

int loop_run(struct mount *mount)
{
    struct watch requests = {.fd = -1, .ready = on_requests, .context = mount};
    struct watch signals = {.fd = -1, .ready = on_signal, .context = mount};
    int session_fd = fuse_session_fd(mount->session);
    int flags = fcntl(session_fd, F_GETFL);

    /* A request that is announced may be withdrawn before it is read. */
    if (flags < 0 || fcntl(session_fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    int r = loop_watch(&mount->loop, &requests, session_fd);
    if (r == 0)
        r = loop_watch(&mount->loop, &signals, mount->loop.signal_fd);
    while (r == 0 && !fuse_session_exited(mount->session))
        r = turn(mount);
    loop_unwatch(&mount->loop, &requests);
    loop_unwatch(&mount->loop, &signals);
    return r;
}

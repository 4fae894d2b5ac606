/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/loop.h - the loop thread: the kernel's requests, the channels' descriptors and the signals
 * that end it, in one epoll.
 */
#ifndef VCHAN_FUSE_LOOP_H
#define VCHAN_FUSE_LOOP_H

#include <fuse3/fuse_lowlevel.h>

struct mount;

struct loop {
    int epoll_fd;
    int signal_fd;          /* SIGINT, SIGTERM, SIGHUP */
    struct fuse_buf buffer; /* the request being handled */
};

/* Level-triggered. The watch is the caller's memory and outlives the batch of events in which it is
 * dropped. */
struct watch {
    int fd; /* -1: not watched */
    void (*ready)(void *context);
    void *context;
};

/* Blocks the three signals in the calling thread: call it before other threads are made. -errno. */
int loop_init(struct loop *loop);
void loop_deinit(struct loop *loop);

/* -errno */
int loop_watch(struct loop *loop, struct watch *watch, int fd);
/* Nothing if it is not watched; the descriptor may be closed already. */
void loop_unwatch(struct loop *loop, struct watch *watch);

/* Until unmounted (0), told by a signal (0), or -errno. */
int loop_run(struct mount *mount);

#endif

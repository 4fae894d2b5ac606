/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/mount.h - one mount: whose channels it shows, and who works on it.
 *
 * Threads. The loop thread owns all channels: it reads the kernel's requests in the order in which
 * they came, answers at once those it can, keeps the others in queues (fuse/end.h), and goes on
 * with them when a channel's descriptor tells. So no lock is needed for a channel, no blocked
 * operation holds a thread, and a name that was closed is free before the opening that follows is
 * looked at. The asker thread (fuse/asker.h) asks the broker what there is, for look-ups, listings
 * and statistics, which therefore delay no transfer. What both may read is constant while they
 * run.
 */
#ifndef VCHAN_FUSE_MOUNT_H
#define VCHAN_FUSE_MOUNT_H

#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <time.h>

#include "client/vchan.h"
#include "fuse/asker.h"
#include "fuse/loop.h"
#include "fuse/request.h"

struct end;
TAILQ_HEAD(end_list, end);

struct mount {
    /* Constant. */
    struct fuse_session *session;
    struct vchan_options options; /* local_domain is a number, not _FROM_ENVIRONMENT */
    bool for_all_users;           /* -o allow_other */
    uid_t owner;
    gid_t group;
    struct timespec since;

    struct asker asker;

    /* The loop thread's. */
    struct loop loop;
    struct end_list ends;
    struct end_list dead_ends;        /* freed once no event of the batch can name them */
    struct request_queue interrupted; /* by their interrupted_link */
    unsigned last_variant;            /* of a port of the own domain: fuse/names.h */
    char *copy; /* FILE_REQUEST_BYTES_MAX, for answers out of a device's memory; NULL: none yet */
};

#endif

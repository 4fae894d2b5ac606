/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/asker.h - the asker thread: answers the kernel's requests that need the broker's word, one
 * after the other, while the loop thread goes on. Requests are handed over by the loop thread.
 */
#ifndef VCHAN_FUSE_ASKER_H
#define VCHAN_FUSE_ASKER_H

#include <fuse3/fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "fuse/names.h"

struct mount;
struct job;
TAILQ_HEAD(job_list, job);

struct asker {
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    struct job_list jobs;
    bool leave;
};

/* Starts the thread. -errno. */
int asker_init(struct asker *asker, struct mount *mount);
/* Answers what is left with ENOTCONN and ends the thread. */
void asker_deinit(struct asker *asker);

/* Look-up of a domain in the root directory, by its text. */
void asker_find_domain(struct asker *asker, fuse_req_t req, const char *text);
/* Look-up of <port>.stats: is there such a channel? */
void asker_find_stats(struct asker *asker, fuse_req_t req, const struct name *name);
/* Opens a directory or a stats file: info->fh will be a struct listing or a struct stats_text. */
void asker_open(struct asker *asker, fuse_req_t req, const struct name *name,
                const struct fuse_file_info *info);

#endif

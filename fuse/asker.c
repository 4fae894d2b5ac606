/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/asker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuse/listing.h"
#include "fuse/mount.h"
#include "fuse/operations.h"
#include "fuse/stats.h"

enum job_kind { JOB_FIND_DOMAIN, JOB_FIND_STATS, JOB_OPEN };

struct job {
    TAILQ_ENTRY(job) link; /* owner: asker.jobs */
    enum job_kind kind;
    fuse_req_t req;
    struct name name;
    char text[NAMES_TEXT_BYTES];
    struct fuse_file_info info;
};

static void find_domain(const struct mount *mount, const struct job *job)
{
    struct name name;
    int r = listing_find_domain(mount, job->text, &name);

    if (r < 0)
        fuse_reply_err(job->req, -r);
    else
        operations_reply_entry(mount, job->req, &name);
}

static void find_stats(const struct mount *mount, const struct job *job)
{
    struct stats_text *text = NULL;
    int r = stats_new(mount, &job->name, &text);

    if (r < 0)
        fuse_reply_err(job->req, -r);
    else
        operations_reply_entry(mount, job->req, &job->name);
    stats_free(text);
}

static void open_snapshot(const struct mount *mount, struct job *job)
{
    bool directory = job->name.kind == NAME_ROOT || job->name.kind == NAME_DOMAIN;
    struct listing *listing = NULL;
    struct stats_text *text = NULL;
    int r =
        directory ? listing_new(mount, &job->name, &listing) : stats_new(mount, &job->name, &text);

    if (r < 0) {
        fuse_reply_err(job->req, -r);
        return;
    }
    job->info.fh = directory ? (uint64_t)(uintptr_t)listing : (uint64_t)(uintptr_t)text;
    job->info.direct_io = !directory;
    if (fuse_reply_open(job->req, &job->info) == 0)
        return;
    listing_free(listing);
    stats_free(text);
}

static void run(const struct mount *mount, struct job *job)
{
    switch (job->kind) {
    case JOB_FIND_DOMAIN:
        find_domain(mount, job);
        break;
    case JOB_FIND_STATS:
        find_stats(mount, job);
        break;
    case JOB_OPEN:
        open_snapshot(mount, job);
        break;
    }
}

/* Waits for a job. NULL: leave. */
static struct job *next_job(struct asker *asker)
{
    pthread_mutex_lock(&asker->mutex);
    while (!asker->leave && TAILQ_EMPTY(&asker->jobs))
        pthread_cond_wait(&asker->changed, &asker->mutex);
    struct job *job = asker->leave ? NULL : TAILQ_FIRST(&asker->jobs);
    if (job)
        TAILQ_REMOVE(&asker->jobs, job, link);
    pthread_mutex_unlock(&asker->mutex);
    return job;
}

static void *asker_main(void *context)
{
    struct mount *mount = context;
    struct job *job;

    while ((job = next_job(&mount->asker))) {
        run(mount, job);
        free(job);
    }
    return NULL;
}

int asker_init(struct asker *asker, struct mount *mount)
{
    *asker = (struct asker){.leave = false};
    TAILQ_INIT(&asker->jobs);
    pthread_mutex_init(&asker->mutex, NULL);
    pthread_cond_init(&asker->changed, NULL);
    return -pthread_create(&asker->thread, NULL, asker_main, mount);
}

void asker_deinit(struct asker *asker)
{
    struct job *job;

    pthread_mutex_lock(&asker->mutex);
    asker->leave = true;
    pthread_cond_signal(&asker->changed);
    pthread_mutex_unlock(&asker->mutex);
    pthread_join(asker->thread, NULL);
    while ((job = TAILQ_FIRST(&asker->jobs))) {
        TAILQ_REMOVE(&asker->jobs, job, link);
        fuse_reply_err(job->req, ENOTCONN);
        free(job);
    }
    pthread_cond_destroy(&asker->changed);
    pthread_mutex_destroy(&asker->mutex);
}

static void add(struct asker *asker, const struct job *what)
{
    struct job *job = malloc(sizeof(*job));

    if (!job) {
        fuse_reply_err(what->req, ENOMEM);
        return;
    }
    *job = *what;
    pthread_mutex_lock(&asker->mutex);
    TAILQ_INSERT_TAIL(&asker->jobs, job, link);
    pthread_cond_signal(&asker->changed);
    pthread_mutex_unlock(&asker->mutex);
}

void asker_find_domain(struct asker *asker, fuse_req_t req, const char *text)
{
    struct job job = {.kind = JOB_FIND_DOMAIN, .req = req};

    if ((size_t)snprintf(job.text, sizeof(job.text), "%s", text) >= sizeof(job.text))
        fuse_reply_err(req, ENOENT);
    else
        add(asker, &job);
}

void asker_find_stats(struct asker *asker, fuse_req_t req, const struct name *name)
{
    add(asker, &(struct job){.kind = JOB_FIND_STATS, .req = req, .name = *name});
}

void asker_open(struct asker *asker, fuse_req_t req, const struct name *name,
                const struct fuse_file_info *info)
{
    add(asker, &(struct job){.kind = JOB_OPEN, .req = req, .name = *name, .info = *info});
}

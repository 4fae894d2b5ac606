/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "broker/libvirt/task.h"

enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_ABANDONED };

struct job {
    struct job *next;      /* owner: jobs.first, in the order in which they came */
    struct job *next_done; /* owner: jobs.done */
    struct jobs *jobs;
    struct driver *driver;
    struct proto_event_hypervisor event;
    enum job_state state;
    uint64_t deadline_us;
    /* The thread's, until it is in jobs.done. */
    struct readiness_text text;
    int err;
};

struct jobs {
    sd_event *event;
    sd_event_source *timer;
    jobs_answer answer;
    void *context;
    struct job *first;
    unsigned running; /* threads */
    int done_fd;
    pthread_mutex_t lock; /* of done */
    struct job *done;
};

void jobs_say(struct proto_hypervisor_done *done, const char *text)
{
    snprintf(done->text.text, sizeof(done->text.text), "%s", text);
    done->text.length = (uint32_t)strlen(done->text.text);
}

static void answer(struct jobs *jobs, const struct job *job, int err, const char *text)
{
    struct proto_hypervisor_done done = {.request = job->event.request, .err = err};

    jobs_say(&done, text);
    if (job->event.request)
        jobs->answer(jobs->context, &done);
}

static void unlink_job(struct jobs *jobs, struct job *job)
{
    for (struct job **at = &jobs->first; *at; at = &(*at)->next)
        if (*at == job) {
            *at = job->next;
            return;
        }
}

static void job_free(struct job *job)
{
    driver_drop(job->driver);
    free(job);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void set_timer(struct jobs *jobs)
{
    const struct job *job = jobs->first;

    while (job && job->state == JOB_ABANDONED)
        job = job->next;
    if (job)
        sd_event_source_set_time(jobs->timer, job->deadline_us);
    sd_event_source_set_enabled(jobs->timer, job ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static void *run(void *context)
{
    struct job *job = context;
    struct jobs *jobs = job->jobs;

    job->err = task_run(job->driver, job->event.action, &job->event.device, &job->text);
    /* Here, and not when the job is freed: closing may wait for libvirt. */
    driver_drop(job->driver);
    job->driver = NULL;
    pthread_mutex_lock(&jobs->lock);
    job->next_done = jobs->done;
    jobs->done = job;
    pthread_mutex_unlock(&jobs->lock);
    eventfd_write(jobs->done_fd, 1);
    return NULL;
}

/* Does something older change the same domain? */
static bool must_wait(const struct jobs *jobs, const struct job *job)
{
    if (job->event.action == PROTO_HYPERVISOR_SHOW)
        return false;
    for (const struct job *other = jobs->first; other != job; other = other->next)
        if (other->event.action != PROTO_HYPERVISOR_SHOW &&
            memcmp(other->event.device.uuid, job->event.device.uuid, 16) == 0 &&
            strcmp(other->event.device.name, job->event.device.name) == 0)
            return true;
    return false;
}

static void start(struct jobs *jobs, struct job *job)
{
    pthread_t thread;
    int r = pthread_create(&thread, NULL, run, job);

    if (r == 0) {
        pthread_detach(thread);
        job->state = JOB_RUNNING;
        jobs->running++;
        return;
    }
    answer(jobs, job, -r, "vchan-libvirt cannot make a thread for that");
    unlink_job(jobs, job);
    job_free(job);
}

static void start_those_that_can(struct jobs *jobs)
{
    struct job *next;

    for (struct job *job = jobs->first; job && jobs->running < JOBS_THREADS_MAX; job = next) {
        next = job->next;
        if (job->state == JOB_QUEUED && !must_wait(jobs, job))
            start(jobs, job);
    }
    set_timer(jobs);
}

static int on_done(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    struct jobs *jobs = context;
    eventfd_t count;

    (void)source;
    (void)events;
    eventfd_read(descriptor, &count);
    pthread_mutex_lock(&jobs->lock);
    struct job *done = jobs->done;
    jobs->done = NULL;
    pthread_mutex_unlock(&jobs->lock);
    while (done) {
        struct job *job = done;
        done = job->next_done;
        if (job->state == JOB_RUNNING)
            answer(jobs, job, job->err, job->text.text);
        unlink_job(jobs, job);
        jobs->running--;
        job_free(job);
    }
    start_those_that_can(jobs);
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t time_us, void *context)
{
    struct jobs *jobs = context;
    const uint64_t now = now_us();
    struct job *next;

    (void)source;
    (void)time_us;
    for (struct job *job = jobs->first; job; job = next) {
        next = job->next;
        if (job->state == JOB_ABANDONED || job->deadline_us > now)
            continue;
        if (job->state == JOB_RUNNING) {
            answer(jobs, job, -ETIMEDOUT,
                   "libvirt has not answered within 40 s, and is waited for no longer; what was "
                   "asked may still happen. Does libvirtd hang, or this domain's QEMU?");
            job->state = JOB_ABANDONED;
        } else {
            answer(jobs, job, -ETIMEDOUT,
                   "libvirt is still busy with what was asked about this domain before");
            unlink_job(jobs, job);
            job_free(job);
        }
    }
    set_timer(jobs);
    return 0;
}

int jobs_new(sd_event *event, jobs_answer answer_to, void *context, struct jobs **out)
{
    struct jobs *jobs = calloc(1, sizeof(*jobs));

    if (!jobs)
        return -ENOMEM;
    *jobs = (struct jobs){.event = event, .answer = answer_to, .context = context};
    pthread_mutex_init(&jobs->lock, NULL);
    jobs->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = jobs->done_fd < 0 ? -errno : 0;
    if (r == 0)
        r = sd_event_add_io(event, NULL, jobs->done_fd, EPOLLIN, on_done, jobs);
    if (r >= 0)
        r = sd_event_add_time(event, &jobs->timer, CLOCK_MONOTONIC, 0, 0, on_timer, jobs);
    if (r >= 0)
        r = sd_event_source_set_enabled(jobs->timer, SD_EVENT_OFF);
    *out = jobs; /* it stays until the process ends, as the threads may */
    return r;
}

void jobs_add(struct jobs *jobs, struct driver *driver, const struct proto_event_hypervisor *event)
{
    struct job **end = &jobs->first, *job = calloc(1, sizeof(*job));

    if (!job) {
        const struct job none = {.event = *event};
        driver_drop(driver);
        answer(jobs, &none, -ENOMEM, "vchan-libvirt is out of memory");
        return;
    }
    *job = (struct job){
        .jobs = jobs,
        .driver = driver,
        .event = *event,
        .deadline_us = now_us() + JOBS_LIMIT_MS * 1000ull,
    };
    while (*end)
        end = &(*end)->next;
    *end = job;
    start_those_that_can(jobs);
}

void jobs_disown(struct jobs *jobs)
{
    for (struct job *job = jobs->first; job; job = job->next)
        job->event.request = 0; /* the broker's begin at 1 */
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/top_feed.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* For a thread to see that it is to end; one that asks a broker that hangs takes up to 5 s. */
#define END_WAIT_MS 200

struct top_feed {
    struct ctl ctl; /* a copy, for its link: the thread's */
    struct top_asker asker;
    unsigned interval_ms;
    int event_fd;
    pthread_t thread;
    pthread_mutex_t mutex;     /* of all below */
    pthread_cond_t changed;    /* stop, ended */
    struct top_sample *newest; /* not yet taken */
    bool stop, failed;
    bool ended; /* the thread has */
};

static struct timespec after_ms(unsigned time_ms)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += time_ms / 1000;
    time.tv_nsec += (long)(time_ms % 1000) * 1000000;
    if (time.tv_nsec >= 1000000000) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000;
    }
    return time;
}

/* With the mutex. */
static void publish(struct top_feed *feed, struct top_sample *sample)
{
    top_sample_free(feed->newest);
    feed->newest = sample;
    feed->failed = sample == NULL;
    eventfd_write(feed->event_fd, 1);
}

static void *run(void *context)
{
    struct top_feed *feed = context;

    pthread_mutex_lock(&feed->mutex);
    while (!feed->stop && !feed->failed) {
        pthread_mutex_unlock(&feed->mutex);
        struct top_sample *sample = top_sample_take(&feed->asker);
        const struct timespec next = after_ms(feed->interval_ms);
        pthread_mutex_lock(&feed->mutex);
        publish(feed, sample);
        while (!feed->stop && !feed->failed &&
               pthread_cond_timedwait(&feed->changed, &feed->mutex, &next) == 0) {
        }
    }
    feed->ended = true;
    pthread_cond_signal(&feed->changed);
    pthread_mutex_unlock(&feed->mutex);
    return NULL;
}

static void destroy(struct top_feed *feed)
{
    pthread_cond_destroy(&feed->changed);
    pthread_mutex_destroy(&feed->mutex);
    close(feed->event_fd);
    top_sample_free(feed->newest);
    top_asker_deinit(&feed->asker);
    broker_link_close(&feed->ctl.link);
    free(feed);
}

int top_feed_new(struct ctl *ctl, unsigned interval_ms, struct top_feed **out)
{
    struct top_feed *feed = calloc(1, sizeof(*feed));
    pthread_condattr_t monotonic;
    sigset_t all, before;

    if (!feed)
        return -ENOMEM;
    feed->ctl = *ctl;
    feed->asker.ctl = &feed->ctl;
    feed->interval_ms = interval_ms;
    feed->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (feed->event_fd < 0) {
        int r = -errno;
        free(feed);
        return r;
    }
    ctl->link.socket = -1;
    pthread_mutex_init(&feed->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&feed->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    /* Signals are the screen's: it must leave the terminal as it was. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&feed->thread, NULL, run, feed);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        destroy(feed);
    else
        *out = feed;
    return r;
}

void top_feed_free(struct top_feed *feed)
{
    const struct timespec end = after_ms(END_WAIT_MS);
    int r = 0;

    pthread_mutex_lock(&feed->mutex);
    feed->stop = true;
    pthread_cond_signal(&feed->changed);
    while (!feed->ended && r == 0)
        r = pthread_cond_timedwait(&feed->changed, &feed->mutex, &end);
    const bool ended = feed->ended;
    pthread_mutex_unlock(&feed->mutex);
    if (!ended) {
        pthread_detach(feed->thread);
        return;
    }
    pthread_join(feed->thread, NULL);
    destroy(feed);
}

int top_feed_descriptor(const struct top_feed *feed)
{
    return feed->event_fd;
}

struct top_sample *top_feed_take(struct top_feed *feed, bool *failed)
{
    eventfd_t rung;

    eventfd_read(feed->event_fd, &rung);
    pthread_mutex_lock(&feed->mutex);
    struct top_sample *sample = feed->newest;
    feed->newest = NULL;
    *failed = feed->failed;
    pthread_mutex_unlock(&feed->mutex);
    return sample;
}

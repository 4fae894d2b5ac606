/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/libvirt/follower.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "proto/guest.h"

/* A domain that is to be looked at. */
struct change {
    struct change *next;
    uint8_t uuid[16];
};

struct follower {
    const char *uri;
    int wake_fd;
    struct driver_listener listener;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    struct change *first_change, **last_change;
    bool closed;
    bool forgetful; /* a change could not be kept: look at all of them */
    struct driver *driver;
    char why[DRIVER_ERROR_BYTES]; /* there is no driver */
    struct follower_note *first_note, **last_note;
};

static void on_changed(void *context, const uint8_t uuid[16])
{
    struct follower *follower = context;
    struct change *change = malloc(sizeof(*change));

    pthread_mutex_lock(&follower->lock);
    if (change) {
        change->next = NULL;
        memcpy(change->uuid, uuid, sizeof(change->uuid));
        *follower->last_change = change;
        follower->last_change = &change->next;
    } else {
        follower->forgetful = true;
    }
    pthread_cond_signal(&follower->changed);
    pthread_mutex_unlock(&follower->lock);
}

static void on_closed(void *context)
{
    struct follower *follower = context;

    pthread_mutex_lock(&follower->lock);
    follower->closed = true;
    pthread_cond_signal(&follower->changed);
    pthread_mutex_unlock(&follower->lock);
}

/* Without memory the note is lost: the next look at all of them makes up for it. */
static void note(struct follower *follower, enum follower_kind kind,
                 const struct driver_domain *domain, const char *why)
{
    struct follower_note *entry = calloc(1, sizeof(*entry));

    pthread_mutex_lock(&follower->lock);
    if (entry) {
        entry->kind = kind;
        if (domain)
            entry->domain = *domain;
        snprintf(entry->why, sizeof(entry->why), "%s", why);
        *follower->last_note = entry;
        follower->last_note = &entry->next;
    } else {
        follower->forgetful = true;
    }
    pthread_mutex_unlock(&follower->lock);
    eventfd_write(follower->wake_fd, 1);
}

struct follower_note *follower_take(struct follower *follower)
{
    pthread_mutex_lock(&follower->lock);
    struct follower_note *notes = follower->first_note;
    follower->first_note = NULL;
    follower->last_note = &follower->first_note;
    pthread_mutex_unlock(&follower->lock);
    return notes;
}

struct driver *follower_driver(struct follower *follower, char *why)
{
    pthread_mutex_lock(&follower->lock);
    struct driver *driver = follower->driver ? driver_hold(follower->driver) : NULL;
    snprintf(why, DRIVER_ERROR_BYTES, "%s", follower->why);
    pthread_mutex_unlock(&follower->lock);
    return driver;
}

static int list_all(struct follower *follower, struct driver *driver, char *error)
{
    struct driver_domain *domains;
    size_t count;
    int r = driver_list(driver, &domains, &count, error);

    if (r < 0)
        return r;
    note(follower, FOLLOWER_CONNECTED, NULL, "");
    for (size_t i = 0; i < count; i++)
        note(follower, FOLLOWER_DOMAIN, &domains[i], "");
    note(follower, FOLLOWER_COMPLETE, NULL, "");
    free(domains);
    return 0;
}

static int look_at(struct follower *follower, struct driver *driver, const uint8_t uuid[16],
                   char *error)
{
    struct driver_domain domain;
    int r = driver_look(driver, uuid, NULL, &domain, error);

    if (r == -ENOENT) {
        domain = (struct driver_domain){.state = PROTO_HYPERVISOR_GONE};
        memcpy(domain.uuid, uuid, sizeof(domain.uuid));
        r = 0;
    }
    if (r == 0)
        note(follower, FOLLOWER_DOMAIN, &domain, "");
    return r;
}

/* The next domain to look at (free it), or NULL: the connection is lost, or *all are to be
 * listed. */
static struct change *wait_for_change(struct follower *follower, bool *all)
{
    pthread_mutex_lock(&follower->lock);
    while (!follower->first_change && !follower->closed && !follower->forgetful)
        pthread_cond_wait(&follower->changed, &follower->lock);
    struct change *change = follower->closed ? NULL : follower->first_change;
    if (change) {
        follower->first_change = change->next;
        if (!follower->first_change)
            follower->last_change = &follower->first_change;
    }
    *all = !change && !follower->closed;
    if (*all)
        follower->forgetful = false;
    pthread_mutex_unlock(&follower->lock);
    return change;
}

/* Until the connection is lost. */
static void follow(struct follower *follower, struct driver *driver, char *error)
{
    int r = list_all(follower, driver, error);

    while (r == 0) {
        bool all;
        struct change *change = wait_for_change(follower, &all);
        if (!change && !all) {
            snprintf(error, DRIVER_ERROR_BYTES,
                     "libvirtd has closed the connection, or does not "
                     "answer");
            return;
        }
        r = all ? list_all(follower, driver, error)
                : look_at(follower, driver, change->uuid, error);
        free(change);
    }
}

/* driver: NULL, and why not. */
static void publish(struct follower *follower, struct driver *driver, const char *why)
{
    pthread_mutex_lock(&follower->lock);
    follower->driver = driver;
    snprintf(follower->why, sizeof(follower->why), "%s", why);
    pthread_mutex_unlock(&follower->lock);
}

/* Before a new connection: what the last one left. */
static void forget(struct follower *follower)
{
    pthread_mutex_lock(&follower->lock);
    while (follower->first_change) {
        struct change *change = follower->first_change;
        follower->first_change = change->next;
        free(change);
    }
    follower->last_change = &follower->first_change;
    follower->closed = follower->forgetful = false;
    pthread_mutex_unlock(&follower->lock);
}

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000},
              NULL);
}

static void *run(void *context)
{
    struct follower *follower = context;
    unsigned wait_ms = FOLLOWER_PAUSE_MIN_MS;

    for (;;) {
        char error[DRIVER_ERROR_BYTES] = "";
        struct driver *driver;
        forget(follower);
        if (driver_open(follower->uri, &follower->listener, &driver, error) == 0) {
            publish(follower, driver, "");
            wait_ms = FOLLOWER_PAUSE_MIN_MS;
            follow(follower, driver, error);
            publish(follower, NULL, error);
            driver_drop(driver);
        } else {
            publish(follower, NULL, error);
        }
        note(follower, FOLLOWER_LOST, NULL, error);
        pause_ms(wait_ms);
        wait_ms = 2 * wait_ms < FOLLOWER_PAUSE_MAX_MS ? 2 * wait_ms : FOLLOWER_PAUSE_MAX_MS;
    }
    return NULL;
}

int follower_new(const char *uri, int wake_fd, struct follower **out)
{
    struct follower *follower = calloc(1, sizeof(*follower));
    pthread_t thread;

    if (!follower)
        return -ENOMEM;
    *follower = (struct follower){
        .uri = uri,
        .wake_fd = wake_fd,
        .listener = {.changed = on_changed, .closed = on_closed, .context = follower},
        .why = "it is being connected",
    };
    follower->last_change = &follower->first_change;
    follower->last_note = &follower->first_note;
    pthread_mutex_init(&follower->lock, NULL);
    pthread_cond_init(&follower->changed, NULL);
    int r = -pthread_create(&thread, NULL, run, follower);
    if (r < 0) {
        free(follower);
        return r;
    }
    pthread_detach(thread);
    *out = follower;
    return 0;
}

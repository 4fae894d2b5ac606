/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/vectors.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

void vectors_init(struct vectors *vectors, struct device *device, struct loop *loop,
                  const struct ringer *ringer)
{
    *vectors = (struct vectors){.device = device, .loop = loop, .ringer = ringer, .shared_fd = -1};
    TAILQ_INIT(&vectors->waiters);
}

static bool has_interrupts(const struct vectors *vectors)
{
    return vectors->device->backend && vectors->device->backend->set_vector;
}

static int listen_to(const struct vectors *vectors, uint32_t number, int event_fd)
{
    return has_interrupts(vectors)
               ? vectors->device->backend->set_vector(vectors->device, number, event_fd)
               : 0;
}

static void stop_sharing(struct vectors *vectors)
{
    if (vectors->shared_fd < 0)
        return;
    loop_remove(&vectors->source);
    (void)listen_to(vectors, vectors->count - 1, -1);
    close(vectors->shared_fd);
    vectors->shared_fd = -1;
}

void vectors_deinit(struct vectors *vectors)
{
    stop_sharing(vectors);
    vectors->count = 0;
}

static void on_shared(void *context)
{
    struct vectors *vectors = context;
    uint64_t count;

    if (read(vectors->shared_fd, &count, sizeof(count)) > 0)
        vectors_wake_shared(vectors);
}

int vectors_use(struct vectors *vectors, uint32_t count)
{
    stop_sharing(vectors);
    if (count > vectors->device->vectors)
        count = vectors->device->vectors;
    vectors->count = count;
    /* A single one is the mailbox's, whose owner wakes those who share it. */
    if (!has_interrupts(vectors) || count < 2)
        return 0;
    vectors->shared_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vectors->shared_fd < 0)
        return -errno;
    int r = loop_add(vectors->loop, &vectors->source, vectors->shared_fd, on_shared, vectors);
    if (r == 0)
        r = listen_to(vectors, count - 1, vectors->shared_fd);
    if (r < 0)
        stop_sharing(vectors);
    return r;
}

static int take_alone(struct vectors *vectors, uint32_t number, struct vector *vector)
{
    int r = listen_to(vectors, number, vector->event_fd);

    if (r < 0)
        return r;
    /* The broker has taken it from whoever had it. */
    if (vectors->holder[number])
        vectors->holder[number]->vectors = NULL;
    vectors->holder[number] = vector;
    return 0;
}

int vectors_take(struct vectors *vectors, uint32_t number, struct vector *vector)
{
    const bool shared = !has_interrupts(vectors) || number + 1 == vectors->count;
    int r = 0;

    *vector = (struct vector){.event_fd = -1};
    if (has_interrupts(vectors) && (number >= vectors->count || (number == 0 && !shared)))
        return -EINVAL;
    *vector = (struct vector){.number = number,
                              .shared = shared,
                              .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (vector->event_fd < 0)
        return -errno;
    if (shared)
        TAILQ_INSERT_TAIL(&vectors->waiters, vector, link);
    else
        r = take_alone(vectors, number, vector);
    if (r < 0) {
        close(vector->event_fd);
        vector->event_fd = -1;
        return r;
    }
    vector->vectors = vectors;
    return 0;
}

void vectors_give(struct vector *vector)
{
    struct vectors *vectors = vector->vectors;

    if (vectors && vector->shared) {
        TAILQ_REMOVE(&vectors->waiters, vector, link);
    } else if (vectors) {
        (void)listen_to(vectors, vector->number, -1);
        vectors->holder[vector->number] = NULL;
    }
    if (vector->event_fd >= 0)
        close(vector->event_fd);
    *vector = (struct vector){.event_fd = -1};
}

void vectors_wake(struct vector *vector)
{
    if (vector->vectors && !vector->deaf)
        vector->deaf = !ringer_ring(vector->vectors->ringer, vector->event_fd);
}

void vectors_wake_shared(struct vectors *vectors)
{
    struct vector *vector;

    TAILQ_FOREACH(vector, &vectors->waiters, link)
        vectors_wake(vector);
}

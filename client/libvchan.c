/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/libvchan.c - Qubes' interface over the native one: locks, errno, blocking, transfers.
 * Events are in client/events.h.
 */
#include "client/libvchan.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "client/events.h"
#include "client/transfer.h"
#include "client/wait.h"

#define BUFFER_SPACE_MAX 65536u

static int fail(int r)
{
    errno = -r;
    return -1;
}

static size_t at_most_int(size_t n)
{
    return n < INT_MAX ? n : INT_MAX;
}

static struct libvchan *handle_new(void)
{
    struct libvchan *ctrl = aligned_alloc(_Alignof(struct libvchan), sizeof(*ctrl));

    if (!ctrl)
        return NULL;
    memset(ctrl, 0, sizeof(*ctrl));
    pthread_mutex_init(&ctrl->reading.lock, NULL);
    pthread_mutex_init(&ctrl->writing.lock, NULL);
    ctrl->blocking = true;
    return ctrl;
}

static void handle_free(struct libvchan *ctrl)
{
    pthread_mutex_destroy(&ctrl->reading.lock);
    pthread_mutex_destroy(&ctrl->writing.lock);
    free(ctrl);
}

static struct libvchan *begin(int domain, int port, unsigned flags,
                              const struct vchan_options *options)
{
    struct libvchan *ctrl = handle_new();
    int r;

    if (!ctrl) {
        errno = ENOMEM;
        return NULL;
    }
    r = vchan_open_start(domain, port, flags, options, &ctrl->v);
    if (r < 0) {
        handle_free(ctrl);
        errno = -r;
        return NULL;
    }
    return ctrl;
}

/* 0, or -errno; -EAGAIN: not yet. */
static int finish(struct libvchan *ctrl, bool blocking)
{
    int r = vchan_open_finish(ctrl->v, blocking ? VCHAN_FOREVER : 0);

    if (r == 0)
        events_init(ctrl);
    return r;
}

static libvchan_t *init(int domain, int port, unsigned flags, const struct vchan_options *options)
{
    struct libvchan *ctrl = begin(domain, port, flags, options);
    int r;

    if (!ctrl)
        return NULL;
    r = finish(ctrl, true);
    if (r < 0) {
        libvchan_close(ctrl);
        errno = -r;
        return NULL;
    }
    return ctrl;
}

libvchan_t *libvchan_server_init(int domain, int port, size_t read_min, size_t write_min)
{
    const struct vchan_options options = {.local_domain = VCHAN_DOMAIN_FROM_ENVIRONMENT,
                                          .receive_min = read_min,
                                          .send_min = write_min};

    return init(domain, port, VCHAN_OPEN_SERVER, &options);
}

libvchan_t *libvchan_client_init(int domain, int port)
{
    return init(domain, port, VCHAN_OPEN_CLIENT, NULL);
}

libvchan_t *libvchan_client_init_async(int domain, int port, EVTCHN *watch_fd)
{
    struct libvchan *ctrl = begin(domain, port, VCHAN_OPEN_CLIENT, NULL);

    if (ctrl)
        *watch_fd = vchan_poll_fd(ctrl->v);
    return ctrl;
}

int libvchan_client_init_async_finish(libvchan_t *ctrl, bool blocking)
{
    int r = finish(ctrl, blocking);

    if (r == -EAGAIN)
        return 1;
    return r < 0 ? fail(r) : 0;
}

void libvchan_close(libvchan_t *ctrl)
{
    if (!ctrl)
        return;
    vchan_close(ctrl->v);
    handle_free(ctrl);
}

void libvchan_set_blocking(libvchan_t *ctrl, bool blocking)
{
    order_store_plain(&ctrl->blocking, blocking);
}

static bool is_blocking(const struct libvchan *ctrl)
{
    return order_load_plain(&ctrl->blocking);
}

/*
 * Blocks, with the reading turn held, until `bytes` are there or something else is up. A thread in
 * libvchan_wait that found the turn taken wants to know of every byte, so then we sleep for one.
 */
static void block_reading(struct libvchan *ctrl, size_t bytes)
{
    struct patience patience = {.timeout_ms = VCHAN_FOREVER};

    ctrl->reading.armed = false;
    if (order_load_acquire(&ctrl->reading.interest)) {
        bytes = least_step(ring_consumer_available(&ctrl->v->receiving.ring, bytes) + 1, bytes);
        events_tell(ctrl);
    }
    (void)wait_receiving(ctrl->v, bytes, &patience); /* after a signal, too, we go on */
}

static void block_writing(struct libvchan *ctrl, size_t bytes)
{
    struct patience patience = {.timeout_ms = VCHAN_FOREVER};

    ctrl->writing.armed = false;
    if (order_load_acquire(&ctrl->writing.interest)) {
        bytes = least_step(vchan_writable(ctrl->v) + 1, bytes);
        events_tell(ctrl);
    }
    (void)wait_sending(ctrl->v, bytes, &patience);
}

static void turn_begin(struct turn *turn)
{
    pthread_mutex_lock(&turn->lock);
}

/* What a write that came out short, or whole, means for the events. */
static void wrote(struct libvchan *ctrl, bool whole, uint64_t generation, bool blocked)
{
    if (whole)
        events_forget_space(ctrl);
    else
        events_want_space(ctrl, generation, ctrl->v->sending.ring.head_seen);
    if (channel_unlikely(blocked))
        events_restore(ctrl, EVENTS_WRITING);
}

int libvchan_write(libvchan_t *ctrl, const void *data, size_t size)
{
    size_t done = 0;
    ssize_t r = 0;
    bool blocked = false;

    size = at_most_int(size);
    if (size == 0)
        return 0;
    turn_begin(&ctrl->writing);
    uint64_t generation = events_generation(ctrl);
    while (done < size) {
        r = transfer_write(ctrl->v, (const char *)data + done, size - done);
        if (channel_likely(r > 0))
            done += (size_t)r;
        else if (r != -EAGAIN || !is_blocking(ctrl))
            break;
        else {
            blocked = true;
            block_writing(ctrl, 1);
        }
    }
    if (r == -EAGAIN)
        /* the stall is counted */
        (void)wait_sending(ctrl->v, 1, &(struct patience){.timeout_ms = 0});
    wrote(ctrl, done == size, generation, blocked);
    turn_end(ctrl, &ctrl->writing);
    return r < 0 && r != -EAGAIN ? fail((int)r) : (int)done;
}

int libvchan_send(libvchan_t *ctrl, const void *data, size_t size)
{
    bool blocked = false;
    int r;

    if (size == 0)
        return 0;
    if (size > INT_MAX)
        return fail(-EMSGSIZE);
    turn_begin(&ctrl->writing);
    uint64_t generation = events_generation(ctrl);
    while ((r = transfer_send(ctrl->v, data, size)) == -EAGAIN && is_blocking(ctrl)) {
        blocked = true;
        block_writing(ctrl, size);
    }
    if (r == -EAGAIN)
        /* the stall is counted */
        (void)wait_sending(ctrl->v, size, &(struct patience){.timeout_ms = 0});
    wrote(ctrl, r != -EAGAIN, generation, blocked);
    turn_end(ctrl, &ctrl->writing);
    if (r == -EAGAIN)
        return 0;
    return r < 0 ? fail(r) : (int)size;
}

/* The program was told that this is all there is. True: more has come meanwhile. */
static bool was_short(struct libvchan *ctrl)
{
    if (!events_are_watched(ctrl))
        return false;
    events_told_data(ctrl);
    events_quiet(ctrl, EVENTS_READING);
    return order_load_acquire(&channel_receiving_ring(ctrl->v)->producer.tail) != ctrl->told_tail;
}

static inline void took(struct libvchan *ctrl, bool blocked)
{
    const struct ring_consumer *ring = &ctrl->v->receiving.ring;

    if (channel_unlikely(ring->tail_seen != ring->head))
        events_left_behind(ctrl);
    if (channel_unlikely(blocked))
        events_restore(ctrl, EVENTS_READING);
}

int libvchan_read(libvchan_t *ctrl, void *data, size_t size)
{
    bool blocked = false;
    ssize_t r;

    size = at_most_int(size);
    if (size == 0)
        return 0;
    turn_begin(&ctrl->reading);
    while (channel_unlikely((r = transfer_read(ctrl->v, data, size)) == -EAGAIN)) {
        if (is_blocking(ctrl)) {
            blocked = true;
            block_reading(ctrl, 1);
        } else if (!was_short(ctrl)) {
            break;
        }
    }
    took(ctrl, blocked);
    turn_end(ctrl, &ctrl->reading);
    if (r == -EAGAIN)
        return 0;
    return r < 0 ? fail((int)r) : (int)r;
}

/* More than the ring is sure to hold: taken as it comes. */
static int receive_stream(struct libvchan *ctrl, char *data, size_t size, bool *blocked)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = transfer_read(ctrl->v, data + done, size - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (n == -EAGAIN) {
            *blocked = true;
            block_reading(ctrl, 1);
        } else {
            return (int)n;
        }
    }
    return 0;
}

int libvchan_recv(libvchan_t *ctrl, void *data, size_t size)
{
    bool blocked = false;
    int r;

    if (size == 0)
        return 0;
    if (size > INT_MAX)
        return fail(-EMSGSIZE);
    turn_begin(&ctrl->reading);
    if (channel_unlikely(size > ctrl->v->receive_min && is_blocking(ctrl))) {
        r = receive_stream(ctrl, data, size, &blocked);
    } else {
        while (channel_unlikely((r = transfer_receive(ctrl->v, data, size)) == -EAGAIN)) {
            if (is_blocking(ctrl)) {
                blocked = true;
                block_reading(ctrl, size);
            } else if (!was_short(ctrl)) {
                break;
            }
        }
    }
    if (r != -EAGAIN)
        took(ctrl, blocked);
    turn_end(ctrl, &ctrl->reading);
    if (r == -EAGAIN)
        return 0;
    return r < 0 ? fail(r) : (int)size;
}

int libvchan_data_ready(libvchan_t *ctrl)
{
    turn_begin(&ctrl->reading);
    size_t n = vchan_readable(ctrl->v);
    if (n == 0 && was_short(ctrl))
        n = vchan_readable(ctrl->v);
    turn_end(ctrl, &ctrl->reading);
    return (int)at_most_int(n);
}

int libvchan_buffer_space(libvchan_t *ctrl)
{
    struct vchan *v = ctrl->v;
    size_t limit = v->send_min > BUFFER_SPACE_MAX ? (size_t)v->send_min : BUFFER_SPACE_MAX, n;

    turn_begin(&ctrl->writing);
    uint64_t generation = events_generation(ctrl);
    uint64_t head = order_load_acquire(&channel_sending_ring(v)->consumer.head);
    n = order_load_plain(&v->sending.side.refused) ? 0
                                                   : ring_producer_promise(&v->sending.ring, limit);
    if (v->sending.ring.broken)
        channel_break(v, &v->sending.side);
    if (n < limit) {
        events_want_space(ctrl, generation, head);
        if (events_are_watched(ctrl))
            events_quiet(ctrl, EVENTS_WRITING);
    }
    turn_end(ctrl, &ctrl->writing);
    return (int)at_most_int(n);
}

int libvchan_wait(libvchan_t *ctrl)
{
    int r = events_wait(ctrl);

    return r < 0 ? fail(r) : 0;
}

EVTCHN libvchan_fd_for_select(libvchan_t *ctrl)
{
    int r = events_watch(ctrl);

    return r < 0 ? fail(r) : r;
}

int libvchan_is_open(libvchan_t *ctrl)
{
    if (events_link(ctrl) == VCHAN_WAITING && events_are_watched(ctrl))
        events_quiet(ctrl, 0);
    return (int)events_link(ctrl);
}

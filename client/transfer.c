/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/transfer.h"

#include <string.h>

#include "client/bar.h"
#include "client/wait.h"

/* A larger copy is published piece by piece, so that the other end copies at the same time. */
#define PIECE_BYTES 32768u

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int sending_failure(struct vchan *v, int r)
{
    if (v->device && r != -EAGAIN)
        bar_look_for_agent(v);
    if (v->device && channel_is_deserted(v)) {
        bar_leave_sending(v);
        r = -EPIPE;
    }
    if (order_load_plain(&v->sending.side.refused))
        return order_load_plain(&v->sending.side.refused);
    if (r == -EPROTO)
        return channel_break(v, &v->sending.side);
    return r == -EAGAIN && channel_is_deserted(v) ? -EPIPE : r;
}

/* Starts an operation, as ring_producer_reserve, for the sides' common conditions. */
static inline int reserve(struct vchan *v, size_t min, size_t max, struct ring_span *span)
{
    int r;

    if (channel_unlikely(order_load_plain(&v->sending.side.refused) ||
                         order_load_plain(&v->peer_dead) ||
                         (v->device && channel_has_lost_page(v))))
        return sending_failure(v, -EPIPE);
    r = ring_producer_reserve(&v->sending.ring, min, max, span);
    return channel_likely(r == 0) ? 0 : sending_failure(v, r);
}

static inline void commit(struct vchan *v, size_t n)
{
    if (channel_unlikely(ring_producer_commit(&v->sending.ring, n)))
        channel_ring_peer(v, &v->sending.side);
    if (channel_unlikely(v->sending.ring.stall_start_ns != 0))
        ring_producer_stall_end(&v->sending.ring);
}

ssize_t transfer_write(struct vchan *v, const void *data, size_t n)
{
    const uint8_t *from = data;
    struct ring_span span;
    size_t done = 0, piece;

    do {
        piece = least(n - done, PIECE_BYTES);
        int r = reserve(v, 1, piece, &span);
        if (channel_unlikely(r < 0))
            return done > 0 ? (ssize_t)done : r;
        memcpy(span.data, from + done, span.size);
        done += span.size;
        commit(v, span.size);
    } while (channel_unlikely(done < n && span.size == piece));
    return (ssize_t)done;
}

int transfer_send(struct vchan *v, const void *data, size_t n)
{
    struct ring_span span;
    int r = reserve(v, n, n, &span);

    if (channel_unlikely(r < 0))
        return r;
    memcpy(span.data, data, n);
    commit(v, n);
    return 0;
}

static int receiving_failure(struct vchan *v, int r)
{
    if (v->device && r != -EAGAIN && r != -EMSGSIZE) {
        bar_look_for_agent(v);
        if (channel_is_deserted(v))
            bar_leave_receiving(v);
        if (r == -ENODEV)
            r = -EPIPE;
    }
    if (order_load_plain(&v->receiving.side.refused))
        return order_load_plain(&v->receiving.side.refused);
    return r == -EPROTO ? channel_break(v, &v->receiving.side) : r;
}

/*
 * Looking for bytes may have been the step that the other end waits for, whether we sleep next or
 * ask again.
 */
static inline void pay_doorbell(struct vchan *v)
{
    if (channel_unlikely(ring_consumer_owes_doorbell(&v->receiving.ring)))
        channel_ring_peer(v, &v->receiving.side);
}

static inline int peek(struct vchan *v, size_t min, struct ring_span *span)
{
    int r;

    if (channel_unlikely(order_load_plain(&v->receiving.side.refused)))
        return receiving_failure(v, 0);
    if (channel_unlikely(v->device && channel_has_lost_page(v)))
        return receiving_failure(v, -EPIPE);
    r = ring_consumer_peek(&v->receiving.ring, min, span);
    if (channel_likely(r == 0))
        return 0;
    pay_doorbell(v);
    if (r == -EAGAIN && channel_is_deserted(v)) {
        /* Once more: what it wrote last came before its end, which we have seen now. */
        r = ring_consumer_peek(&v->receiving.ring, min, span);
        if (r == 0)
            return 0;
        if (r == -EAGAIN)
            r = -EPIPE;
    }
    return receiving_failure(v, r);
}

static inline void release(struct vchan *v, size_t n)
{
    if (channel_unlikely(ring_consumer_release(&v->receiving.ring, n)))
        channel_ring_peer(v, &v->receiving.side);
}

ssize_t transfer_read(struct vchan *v, void *data, size_t n)
{
    uint8_t *to = data;
    struct ring_span span;
    size_t done = 0, piece;

    do {
        int r = peek(v, 1, &span);
        if (channel_unlikely(r < 0))
            return done > 0 ? (ssize_t)done : r;
        piece = least(least(n - done, PIECE_BYTES), span.size);
        memcpy(to + done, span.data, piece);
        done += piece;
        release(v, piece);
    } while (channel_unlikely(done < n && span.size > piece));
    return (ssize_t)done;
}

/* The most that can be there at once, with what is there now left alone. */
static size_t receiving_capacity(const struct vchan *v)
{
    const struct ring_consumer *ring = &v->receiving.ring;
    const struct layout_geometry *geometry = &ring->shared->geometry;
    uint64_t generation = order_load_acquire(&geometry->generation);
    uint64_t size = order_load_plain(&geometry->extent[generation & 1].size);

    if (ring->switch_pending)
        return (size_t)(ring->next.base - ring->head + ring->next.size);
    return (size_t)(ring->view.size > size ? ring->view.size : size);
}

int transfer_receive(struct vchan *v, void *data, size_t n)
{
    struct ring_span span;
    int r = peek(v, n, &span);

    if (channel_likely(r == 0)) {
        memcpy(data, span.data, n);
        release(v, n);
        return 0;
    }
    if (r != -EMSGSIZE && r != -EAGAIN)
        return r;
    /*
     * Fewer are there; or they lie on both sides of a switch: then in pieces, once all are there.
     */
    if (ring_consumer_available(&v->receiving.ring, n) < n)
        return n > receiving_capacity(v) ? -EMSGSIZE : -EAGAIN;
    for (size_t done = 0; done < n;) {
        ssize_t piece = transfer_read(v, (uint8_t *)data + done, n - done);
        if (piece < 0)
            return (int)piece;
        done += (size_t)piece;
    }
    return 0;
}

ssize_t vchan_write(struct vchan *v, const void *data, size_t n, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    ssize_t done;

    if (channel_unlikely(n == 0))
        return 0;
    while (channel_unlikely((done = transfer_write(v, data, n)) == -EAGAIN)) {
        int r = wait_sending(v, 1, &patience);
        if (r < 0)
            return r;
    }
    return done;
}

ssize_t vchan_read(struct vchan *v, void *data, size_t n, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    ssize_t done;

    if (channel_unlikely(n == 0))
        return 0;
    while (channel_unlikely((done = transfer_read(v, data, n)) == -EAGAIN)) {
        int r = wait_receiving(v, 1, &patience);
        if (r < 0)
            return r;
    }
    return channel_unlikely(done == -EPIPE) ? 0 : done;
}

ssize_t vchan_send(struct vchan *v, const void *data, size_t n, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    int r;

    if (channel_unlikely(n == 0))
        return 0;
    while (channel_unlikely((r = transfer_send(v, data, n)) == -EAGAIN)) {
        r = wait_sending(v, n, &patience);
        if (r < 0)
            return r;
    }
    return channel_likely(r == 0) ? (ssize_t)n : r;
}

/*
 * How many bytes to sleep for, when n are wanted at once. Over the floor, the ring may be made too
 * small for them while we sleep; so look after every step of the other end.
 */
static size_t step_towards(struct vchan *v, size_t n)
{
    return n <= v->receive_min ? n : ring_consumer_available(&v->receiving.ring, n) + 1;
}

ssize_t vchan_receive(struct vchan *v, void *data, size_t n, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    int r;

    if (channel_unlikely(n == 0))
        return 0;
    while (channel_unlikely((r = transfer_receive(v, data, n)) == -EAGAIN)) {
        r = wait_receiving(v, step_towards(v, n), &patience);
        if (r < 0)
            return r;
    }
    return channel_likely(r == 0) ? (ssize_t)n : r;
}

int vchan_reserve(struct vchan *v, size_t min, size_t max, struct vchan_span *span, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    struct ring_span inner;
    int r;

    if (min == 0 || max < min)
        return -EINVAL;
    while (channel_unlikely((r = reserve(v, min, max, &inner)) == -EAGAIN)) {
        r = wait_sending(v, min, &patience);
        if (r < 0)
            return r;
    }
    if (channel_likely(r == 0))
        *span = (struct vchan_span){inner.data, inner.size};
    return r;
}

void vchan_commit(struct vchan *v, size_t n)
{
    commit(v, n);
}

int vchan_peek(struct vchan *v, size_t min, struct vchan_span *span, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    struct ring_span inner;
    int r;

    if (min == 0)
        return -EINVAL;
    while (channel_unlikely((r = peek(v, min, &inner)) == -EAGAIN)) {
        r = wait_receiving(v, step_towards(v, min), &patience);
        if (r < 0)
            return r;
    }
    if (channel_likely(r == 0))
        *span = (struct vchan_span){inner.data, inner.size};
    return r;
}

void vchan_release(struct vchan *v, size_t n)
{
    release(v, n);
}

int vchan_spans_are_device(const struct vchan *v)
{
    return v->device != NULL;
}

size_t vchan_readable(struct vchan *v)
{
    if (v->device && channel_is_deserted(v))
        bar_leave_receiving(v);
    if (order_load_plain(&v->receiving.side.refused))
        return 0;
    size_t n = ring_consumer_available(&v->receiving.ring, SIZE_MAX);
    pay_doorbell(v);
    if (v->receiving.ring.broken)
        channel_break(v, &v->receiving.side);
    return n;
}

size_t vchan_writable(struct vchan *v)
{
    if (v->device && channel_is_deserted(v))
        bar_leave_sending(v);
    if (order_load_plain(&v->sending.side.refused) || order_load_plain(&v->peer_dead))
        return 0;
    size_t n = ring_producer_space(&v->sending.ring);
    if (v->sending.ring.broken)
        channel_break(v, &v->sending.side);
    return n == SIZE_MAX ? 0 : n;
}

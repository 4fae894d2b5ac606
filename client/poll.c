/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/poll.c - states and conditions of the native interface, waited for or polled.
 */
#include <sys/epoll.h>
#include <unistd.h>

#include "client/bar.h"
#include "client/wait.h"
#include "ring/geometry.h"

/*
 * From shared words alone, so that any thread may ask. What is rubbish in them comes out at the
 * next transfer.
 */
static bool may_read(const struct vchan *v)
{
    const struct layout_ring *ring = channel_receiving_ring(v);

    return order_load_acquire(&ring->producer.tail) != order_load_plain(&ring->consumer.head) ||
           order_load_plain(&v->receiving.side.refused) ||
           order_load_acquire(&ring->producer_sleep.closed);
}

static bool may_write(const struct vchan *v)
{
    const struct layout_ring *ring = channel_sending_ring(v);
    uint64_t generation = order_load_acquire(&ring->geometry.generation);
    uint64_t size = order_load_plain(&ring->geometry.extent[generation & 1].size);
    uint64_t held =
        order_load_plain(&ring->producer.tail) - order_load_acquire(&ring->consumer.head);

    return held < size || order_load_plain(&v->sending.side.refused) ||
           order_load_acquire(&ring->consumer_sleep.closed);
}

unsigned vchan_state(struct vchan *v)
{
    unsigned state = 0;

    if (channel_is_gone(v))
        return VCHAN_IS_GONE | VCHAN_CAN_READ | VCHAN_CAN_WRITE;
    if (channel_is_connected(v))
        state |= VCHAN_IS_CONNECTED;
    if (may_read(v))
        state |= VCHAN_CAN_READ;
    if (may_write(v))
        state |= VCHAN_CAN_WRITE;
    return state;
}

/* The end is over: sides that are the caller's need not be called once more to let go. */
static void leave_device(struct vchan *v, unsigned wanted)
{
    if (!channel_is_deserted(v))
        return;
    if (wanted & VCHAN_CAN_READ)
        bar_leave_receiving(v);
    if (wanted & VCHAN_CAN_WRITE)
        bar_leave_sending(v);
}

/* The same, but exact for the sides among `wanted`, which are the caller's. */
static unsigned conditions(struct vchan *v, unsigned wanted)
{
    unsigned state = vchan_state(v);

    if ((state & VCHAN_IS_GONE) && v->device)
        leave_device(v, wanted);
    if (state & VCHAN_IS_GONE)
        return state;
    if (wanted & VCHAN_CAN_READ) {
        state &= ~VCHAN_CAN_READ;
        if (ring_consumer_available(&v->receiving.ring, 1) > 0 || v->receiving.ring.broken ||
            ring_consumer_ended(&v->receiving.ring) || order_load_plain(&v->receiving.side.refused))
            state |= VCHAN_CAN_READ;
    }
    if (wanted & VCHAN_CAN_WRITE) {
        state &= ~VCHAN_CAN_WRITE;
        if (ring_producer_space(&v->sending.ring) > 0 || order_load_plain(&v->sending.side.refused))
            state |= VCHAN_CAN_WRITE;
    }
    return state;
}

/*
 * Arms the wanted sides; the caller looks again afterwards. The broker tells of the rest unasked.
 */
static void arm(struct vchan *v, unsigned wanted)
{
    if (wanted & VCHAN_CAN_READ) {
        (void)ring_consumer_arm(&v->receiving.ring, 1);
        if (ring_consumer_owes_doorbell(&v->receiving.ring))
            channel_ring_peer(v, &v->receiving.side);
    }
    if (wanted & VCHAN_CAN_WRITE)
        (void)ring_producer_arm(&v->sending.ring, 1);
}

static void disarm(struct vchan *v, unsigned wanted)
{
    if (wanted & VCHAN_CAN_READ)
        ring_consumer_disarm(&v->receiving.ring);
    if (wanted & VCHAN_CAN_WRITE)
        ring_producer_disarm(&v->sending.ring);
}

struct wish {
    struct vchan *v;
    unsigned wanted;
};

static bool wish_holds(void *context)
{
    struct wish *wish = context;

    return conditions(wish->v, wish->wanted) & wish->wanted;
}

/* Which instance and window: that of a side which is the caller's; `own` when none is. */
static int *instance_for(struct vchan *v, unsigned wanted, int *own, uint32_t **window_ns)
{
    struct side *side = wanted & VCHAN_CAN_READ ? &v->receiving.side : &v->sending.side;

    *window_ns = &side->window_ns;
    return wanted & (VCHAN_CAN_READ | VCHAN_CAN_WRITE) ? &side->epoll : own;
}

static int wait_once(struct vchan *v, unsigned wanted, int *own, struct patience *patience)
{
    struct wish wish = {v, wanted};
    uint32_t no_window = 0, *window_ns;
    int *instance = instance_for(v, wanted, own, &window_ns);
    int r = 0;

    if (instance == own)
        window_ns = &no_window;
    uint64_t begun_ns = patience_now_ns();
    if (wait_spin(v, window_ns, wish_holds, &wish))
        return 0;
    arm(v, wanted);
    if (!wish_holds(&wish)) {
        r = wait_sleep(v, instance, patience);
        wait_learn(v, window_ns, begun_ns);
    }
    disarm(v, wanted);
    return r;
}

int vchan_wait(struct vchan *v, unsigned wanted, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    unsigned state;
    int own = -1, r = 0;

    while (((state = conditions(v, wanted)) & wanted) == 0 && r == 0) {
        /* Nothing of what is wanted can come any more. */
        if (state & VCHAN_IS_GONE)
            r = -EPIPE;
        else
            r = timeout_ms == 0 ? -EAGAIN : wait_once(v, wanted, &own, &patience);
    }
    if (own >= 0)
        close(own);
    return state & wanted ? (int)state : r;
}

int vchan_poll_fd(const struct vchan *v)
{
    if (!v->page)
        return v->connection.socket;
    /* Making the descriptor changes nothing that the caller can see in *v. */
    return wait_watch((struct vchan *)(uintptr_t)v);
}

unsigned vchan_poll_arm(struct vchan *v, unsigned wanted)
{
    unsigned state;

    disarm(v, wanted);
    state = conditions(v, wanted) & wanted;
    if (state)
        return state;
    (void)wait_watch(v);
    wait_consume(v);
    arm(v, wanted);
    state = conditions(v, wanted) & wanted;
    if (state)
        disarm(v, wanted);
    return state;
}

static void direction(const struct layout_ring *ring, struct vchan_direction_statistics *out)
{
    const struct layout_geometry *geometry = &ring->geometry;
    uint64_t generation = order_load_acquire(&geometry->generation);
    struct ring_sample sample;

    *out = (struct vchan_direction_statistics){
        .generation = generation,
        .size_bytes = order_load_plain(&geometry->extent[generation & 1].size),
    };
    /* While it moves, both extents hold bytes. */
    ring_sample_take(ring,
                     out->size_bytes + order_load_plain(&geometry->extent[~generation & 1].size),
                     order_load_plain(&geometry->sample_epoch), &sample);
    out->held_bytes = sample.held_bytes;
    out->bytes_written = sample.sent_bytes;
    out->bytes_read = sample.received_bytes;
    out->writes = sample.sent_operations;
    out->reads = sample.received_operations;
    out->stalls = sample.stalls;
    out->stall_ns = sample.stall_ns;
    out->writer_sleeps = sample.producer_sleeps;
    out->reader_sleeps = sample.consumer_sleeps;
    out->writer_doorbells = sample.producer_doorbells;
    out->reader_doorbells = sample.consumer_doorbells;
}

int vchan_statistics(struct vchan *v, struct vchan_statistics *out)
{
    *out = (struct vchan_statistics){
        .peer_domain = v->peer_domain, .local_domain = v->local_domain, .port = v->port};
    direction(channel_receiving_ring(v), &out->receiving);
    direction(channel_sending_ring(v), &out->sending);
    return 0;
}

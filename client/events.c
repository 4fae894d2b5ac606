/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/events.h"

#include "client/wait.h"

#define WINDOW_INITIAL_NS 50000u

void events_init(struct libvchan *ctrl)
{
    ctrl->window_ns = WINDOW_INITIAL_NS;
    order_store_plain(&ctrl->told_link, events_link(ctrl));
}

uint32_t events_link(const struct libvchan *ctrl)
{
    if (channel_is_gone(ctrl->v))
        return VCHAN_DISCONNECTED;
    return channel_is_connected(ctrl->v) ? VCHAN_CONNECTED : VCHAN_WAITING;
}

/* The link with the directions that the other end has closed. */
static uint32_t link_in_full(const struct libvchan *ctrl)
{
    uint32_t link = events_link(ctrl);

    if (order_load_acquire(&channel_receiving_ring(ctrl->v)->producer_sleep.closed))
        link |= 0x10u;
    if (order_load_acquire(&channel_sending_ring(ctrl->v)->consumer_sleep.closed))
        link |= 0x20u;
    return link;
}

static uint64_t tail_untrusted(const struct libvchan *ctrl)
{
    return order_load_acquire(&channel_receiving_ring(ctrl->v)->producer.tail);
}

static bool is_data_event(const struct libvchan *ctrl)
{
    uint64_t tail = tail_untrusted(ctrl);

    /* Looked at for a change only; what is read is checked by the ring. */
    if (tail == order_load_plain(&channel_receiving_ring(ctrl->v)->consumer.head))
        return false;
    return tail != order_load_plain(&ctrl->told_tail) || order_load_plain(&ctrl->left_behind);
}

static bool is_space_event(const struct libvchan *ctrl, uint64_t ticket)
{
    if (ticket == 0)
        return false;
    return order_load_acquire(&channel_sending_ring(ctrl->v)->consumer.head) + 1 != ticket ||
           events_generation(ctrl) != order_load_plain(&ctrl->space_generation);
}

static bool is_link_event(const struct libvchan *ctrl)
{
    return link_in_full(ctrl) != order_load_plain(&ctrl->told_link);
}

static bool is_event(void *context)
{
    const struct libvchan *ctrl = context;

    return is_data_event(ctrl) || is_space_event(ctrl, order_load_acquire(&ctrl->space_ticket)) ||
           is_link_event(ctrl);
}

static bool is_level(struct libvchan *ctrl)
{
    return is_event(ctrl) || channel_is_gone(ctrl->v);
}

/* Tells of all events there are. True: there were any. */
static bool take_events(struct libvchan *ctrl)
{
    uint64_t ticket = order_load_acquire(&ctrl->space_ticket);
    uint64_t tail = tail_untrusted(ctrl);
    uint32_t link = link_in_full(ctrl);
    bool any = is_data_event(ctrl) || link != order_load_plain(&ctrl->told_link);

    order_store_plain(&ctrl->told_tail, tail);
    order_store_plain(&ctrl->left_behind, false);
    order_store_plain(&ctrl->told_link, link);
    if (is_space_event(ctrl, ticket)) {
        /* Not if the writer has asked anew meanwhile. */
        __atomic_compare_exchange_n(&ctrl->space_ticket, &ticket, 0, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE);
        any = true;
    }
    return any;
}

static void raise_watch(struct libvchan *ctrl)
{
    if (order_load_acquire(&ctrl->v->watch) >= 0 &&
        !__atomic_exchange_n(&ctrl->raised, true, __ATOMIC_ACQ_REL))
        wait_raise(ctrl->v);
}

/*
 * `raised` is cleared after consuming, with a read-modify-write: who saw it set and so did not
 * raise has its event seen by the look that follows.
 */
static void consume_watch(struct libvchan *ctrl)
{
    wait_consume(ctrl->v);
    (void)__atomic_exchange_n(&ctrl->raised, false, __ATOMIC_ACQ_REL);
}

void events_tell(struct libvchan *ctrl)
{
    if (is_level(ctrl))
        raise_watch(ctrl);
}

/* With the reading turn: until the tail gets past what has been told. */
static void arm_reading(struct libvchan *ctrl)
{
    struct ring_consumer *ring = &ctrl->v->receiving.ring;
    struct turn *turn = &ctrl->reading;
    uint64_t told = order_load_plain(&ctrl->told_tail);
    uint64_t wanted = (told > ring->head ? told : ring->head) + 1;

    if (turn->armed && turn->armed_for == wanted && tail_untrusted(ctrl) < wanted)
        return;
    ring_consumer_disarm(ring);
    (void)ring_consumer_arm(ring, wanted - ring->head);
    if (ring_consumer_owes_doorbell(ring))
        channel_ring_peer(ctrl->v, &ctrl->v->receiving.side);
    turn->armed = true;
    turn->armed_for = wanted;
}

/*
 * With the writing turn: until the head gets past where it was when space was asked for, or the
 * ring grows.
 */
static void arm_writing(struct libvchan *ctrl)
{
    struct ring_producer *ring = &ctrl->v->sending.ring;
    struct turn *turn = &ctrl->writing;
    uint64_t ticket = order_load_plain(&ctrl->space_ticket);

    if (ticket == 0)
        return;
    if (is_space_event(ctrl, ticket)) {
        order_store_plain(&ctrl->space_ticket, 0u);
        raise_watch(ctrl);
        return;
    }
    if (turn->armed && turn->armed_for == ticket)
        return;
    ring_producer_disarm(ring);
    /* So many bytes are free in the extent in use when the head is at `ticket`: in the ring's
     * modular arithmetic, whatever we write meanwhile. */
    (void)ring_producer_arm(ring, ticket + ring->view.size - ring->tail);
    turn->armed = true;
    turn->armed_for = ticket;
}

static void arm_held(struct libvchan *ctrl, struct turn *turn)
{
    if (turn == &ctrl->reading)
        arm_reading(ctrl);
    else
        arm_writing(ctrl);
}

static void arm_side(struct libvchan *ctrl, struct turn *turn, bool held)
{
    if (held) {
        arm_held(ctrl, turn);
        return;
    }
    if (pthread_mutex_trylock(&turn->lock) != 0) {
        bool first = !__atomic_exchange_n(&turn->interest, true, __ATOMIC_SEQ_CST);
        order_sleep(ctrl->v->sending.ring.fence_sleep); /* pairs with order_look() in turn_end() */
        if (pthread_mutex_trylock(&turn->lock) != 0) {
            if (first)
                channel_wake_self(ctrl->v); /* should the holder be asleep */
            return;
        }
        order_store_plain(&turn->interest, false);
    }
    arm_held(ctrl, turn);
    turn_end(ctrl, turn);
}

static void arm_both(struct libvchan *ctrl, unsigned held)
{
    arm_side(ctrl, &ctrl->reading, held & EVENTS_READING);
    if (order_load_acquire(&ctrl->space_ticket) != 0)
        arm_side(ctrl, &ctrl->writing, held & EVENTS_WRITING);
}

void events_settle(struct libvchan *ctrl, struct turn *turn)
{
    /* Another thread has the turn by now: it will settle. */
    if (pthread_mutex_trylock(&turn->lock) != 0)
        return;
    order_store_plain(&turn->interest, false);
    arm_held(ctrl, turn);
    turn_end(ctrl, turn);
    events_tell(ctrl);
}

void events_quiet(struct libvchan *ctrl, unsigned held)
{
    uint32_t link;

    consume_watch(ctrl);
    link = link_in_full(ctrl);
    if (link != order_load_plain(&ctrl->told_link)) {
        order_store_plain(&ctrl->told_link, link);
        raise_watch(ctrl);
    }
    arm_both(ctrl, held);
    events_tell(ctrl);
}

void events_restore(struct libvchan *ctrl, unsigned held)
{
    if (!events_are_watched(ctrl) && !order_load_acquire(&ctrl->sleeping))
        return;
    arm_both(ctrl, held);
    events_tell(ctrl);
}

void events_told_data(struct libvchan *ctrl)
{
    order_store_plain(&ctrl->told_tail, ctrl->v->receiving.ring.tail_seen);
    order_store_plain(&ctrl->left_behind, false);
}

void events_left_behind(struct libvchan *ctrl)
{
    order_store_plain(&ctrl->left_behind, true);
    if (events_are_watched(ctrl))
        raise_watch(ctrl);
}

void events_want_space(struct libvchan *ctrl, uint64_t generation, uint64_t head)
{
    order_store_plain(&ctrl->space_generation, generation);
    order_store_release(&ctrl->space_ticket, head + 1);
}

int events_watch(struct libvchan *ctrl)
{
    int watch = wait_watch(ctrl->v);

    if (watch >= 0 && !__atomic_exchange_n(&ctrl->watched, true, __ATOMIC_ACQ_REL))
        raise_watch(ctrl);
    return watch;
}

/*
 * One sleep of libvchan_wait, on the public descriptor. 0: look; 1: something was written; -EINTR.
 */
static int sleep_once(struct libvchan *ctrl)
{
    struct patience patience = {.timeout_ms = VCHAN_FOREVER};
    struct vchan *v = ctrl->v;
    uint64_t begun_ns = patience_now_ns();
    int r = 0;

    /*
     * For a program that selects, readable must mean that we return. For others what is old is only
     * noise.
     */
    if (!events_are_watched(ctrl)) {
        (void)wait_watch(v);
        consume_watch(ctrl);
    }
    order_store_release(&ctrl->sleeping, true);
    arm_both(ctrl, 0);
    if (!is_level(ctrl)) {
        r = wait_sleep(v, &v->watch, &patience);
        (void)__atomic_exchange_n(&ctrl->raised, false, __ATOMIC_ACQ_REL);
        wait_learn(v, &ctrl->window_ns, begun_ns);
        r = r < 0 ? r : 1;
    }
    order_store_release(&ctrl->sleeping, false);
    return r;
}

int events_wait(struct libvchan *ctrl)
{
    int r = 0;

    for (;;) {
        if (take_events(ctrl))
            r = 1;
        if (r != 0)
            break;
        if (channel_is_gone(ctrl->v))
            return -EPIPE;
        if (events_are_watched(ctrl) || !wait_spin(ctrl->v, &ctrl->window_ns, is_event, ctrl))
            r = sleep_once(ctrl);
    }
    if (events_are_watched(ctrl))
        events_quiet(ctrl, 0);
    return r < 0 ? r : 0;
}

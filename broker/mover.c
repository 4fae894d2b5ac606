/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/mover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "broker/compaction.h"
#include "broker/limits.h"
#include "broker/move.h"
#include "ring/order.h"

#define NS_PER_MS 1000000u

/* For memory that others are giving back; and when rings are moved for it. */
#define WAIT_NS (1000ull * NS_PER_MS)
#define WAIT_ROOM_NS (5000ull * NS_PER_MS)
/*
 * Plans for a ring that was refused are not heard for so long: the next round would ask for the
 * same.
 */
#define PAUSE_NS (2000ull * NS_PER_MS)

struct asked {
    struct cds_list_head link; /* owner: mover.asked */
    struct rebalancer_message message;
    mover_done *done;
    void *data;
};

struct mover {
    struct mover_setup setup;
    struct mailbox mailbox;
    sd_event_source *mail_source;
    sd_event_source *timer;
    struct cds_list_head moves; /* of mover_move.link: in the order in which they get memory */
    struct cds_list_head asked;
    struct compaction compaction;
    uint64_t compaction_due_ns;
    struct rebalancer_message grace;
    bool grace_runs;
    bool freed;      /* memory, since those that wait for some were last tried */
    uint64_t made;   /* plain: generations published */
    uint64_t pinned; /* plain */
};

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void record_refusal(struct mover *mover, const struct channel *channel, unsigned ring,
                           uint64_t to_bytes, const char *trigger, const char *reason)
{
    struct proto_decision decision;

    move_describe(channel, ring, &decision);
    decision.outcome = PROTO_OUTCOME_REFUSED;
    decision.to_bytes = to_bytes;
    snprintf(decision.trigger, sizeof(decision.trigger), "%s", trigger);
    snprintf(decision.reason, sizeof(decision.reason), "%s", reason);
    history_add(mover->setup.history, &decision);
}

static struct mover_move *add_move(struct mover *mover, struct channel *channel, unsigned ring,
                                   uint64_t to_bytes, const char *trigger, const char *reason)
{
    struct mover_move *move = move_new(channel, ring, to_bytes, trigger, reason, clock_ns());

    if (move)
        cds_list_add_tail(&move->link, &mover->moves);
    else
        log_warning(mover->setup.log, "channel %u: no memory to resize ring %u", channel->number,
                    ring);
    return move;
}

static void drop_move(struct mover *mover, struct mover_move *move)
{
    compaction_cancel(&move->room);
    mover->freed = true;
    move_free(move);
}

static void refuse(struct mover *mover, struct mover_move *move, int error)
{
    char reason[sizeof(move->reason)];
    const char *because = error == -EDQUOT   ? "its sender's quota is exhausted"
                          : error == -ENOSPC ? "there is no room for it"
                                             : "the host is out of memory";

    snprintf(reason, sizeof(reason), "%.60s; but %s", move->reason, because);
    record_refusal(mover, move->channel, move->ring, move->to_bytes, move->trigger, reason);
    move->channel->ring[move->ring].pause_ns = clock_ns() + PAUSE_NS;
    drop_move(mover, move);
}

/* Does it give memory back soon? */
static bool is_giving(const struct mover_move *move)
{
    return move->state == MOVE_FILLING || move->state == MOVE_EMPTYING || !move_is_pinned(move);
}

static bool zone_gives(void *context, const struct zone *zone)
{
    const struct mover *mover = context;
    const struct mover_move *move;

    cds_list_for_each_entry (move, &mover->moves, link)
        if (move->channel->zone == zone && move->state != MOVE_WAITING && is_giving(move))
            return true;
    return false;
}

/* One step of a round of compaction. */
static void begin_step(void *context, const struct compaction_step *step, uint64_t round,
                       const char *reason)
{
    struct mover *mover = context;
    struct mover_move *move =
        add_move(mover, step->channel, step->ring, step->bytes, "compact", reason);
    int r = move ? move_take_at(move, step->to_offset) : 0;

    if (r < 0)
        refuse(mover, move, r);
    else if (move)
        move->for_round = round;
}

static unsigned count_steps(void *context, uint64_t round, unsigned *pinned)
{
    const struct mover *mover = context;
    const struct mover_move *move;
    unsigned count = 0;

    *pinned = 0;
    cds_list_for_each_entry (move, &mover->moves, link) {
        count += move->for_round == round;
        *pinned += move->for_round == round && move_is_pinned(move);
    }
    return count;
}

/* There is room for a waiting move now, or will be none. */
static void on_room(struct compaction_demand *demand, int error)
{
    struct mover *mover = demand->data;
    struct mover_move *move = caa_container_of(demand, struct mover_move, room);

    if (error == 0)
        error = move_take(move);
    if (error < 0)
        refuse(mover, move, error);
}

/* Moves rings together so that the extent fits. False: that cannot be done. */
static bool ask_for_room(struct mover *mover, struct mover_move *move)
{
    struct compaction_demand *room = &move->room;
    const uint64_t now_ns = clock_ns();

    if (allocator_room(move->channel->zone->allocator, move->to_bytes / LAYOUT_BLOCK_BYTES) !=
        ALLOCATOR_FRAGMENTED)
        return false;
    *room = (struct compaction_demand){
        .zone = move->channel->zone,
        .bytes = move->to_bytes,
        .until_ns = now_ns + WAIT_ROOM_NS,
        .done = on_room,
        .data = mover,
    };
    snprintf(room->reason, sizeof(room->reason), "makes room for ring %u of channel %u", move->ring,
             move->channel->number);
    return compaction_ask(&mover->compaction, room, now_ns) == 0;
}

static uint64_t deadline_ns(const struct mover_move *move)
{
    return move->room.waiting ? UINT64_MAX : move->began_ns + WAIT_NS;
}

/* Tries to get a waiting move its extent. It may be gone afterwards. */
static void try_take(struct mover *mover, struct mover_move *move, uint64_t now_ns)
{
    int r = move->room.waiting ? -EAGAIN : move_take(move);

    if (r == 0 || r == -EAGAIN)
        return;
    if ((r == -ENOSPC || r == -EDQUOT) && now_ns < deadline_ns(move) &&
        zone_gives(mover, move->channel->zone))
        return;
    if (r == -ENOSPC && ask_for_room(mover, move))
        return;
    refuse(mover, move, r);
}

/* The old extent is free. */
static void finish(struct mover *mover, struct mover_move *move, uint64_t now_ns)
{
    struct channel *channel = move->channel;
    unsigned ring = move->ring;
    uint64_t then_bytes = move->then_bytes;

    move_record_done(move, mover->setup.history, now_ns);
    drop_move(mover, move);
    if (!then_bytes && channel->ring[ring].geometry.current.size > channel->ring[ring].max_bytes)
        then_bytes = channel->ring[ring].max_bytes;
    if (then_bytes && then_bytes != channel->ring[ring].geometry.current.size)
        add_move(mover, channel, ring, then_bytes, "command", "set while it moved");
}

static void step_one(struct mover *mover, struct mover_move *move, bool retry, uint64_t now_ns,
                     uint64_t *budget_bytes)
{
    if (move->state == MOVE_WAITING && (retry || now_ns >= deadline_ns(move))) {
        try_take(mover, move, now_ns); /* and filled in the next step: it may be gone */
    } else if (move->state == MOVE_FILLING && *budget_bytes > 0) {
        int r = move_fill(move, budget_bytes);
        if (r == 1) {
            move_publish(move, mover->setup.history, now_ns);
            order_store_plain(&mover->made, mover->made + 1);
        } else if (r < 0) {
            refuse(mover, move, r);
        }
    } else if (move->state == MOVE_PUBLISHED && now_ns >= move->look_ns) {
        move_look(move, !mover->grace_runs, mover->setup.history, now_ns);
    } else if (move->state == MOVE_EMPTYING && *budget_bytes > 0) {
        if (move_empty(move, budget_bytes))
            finish(mover, move, now_ns);
    }
}

/* When there is something to do for this move. */
static uint64_t due_ns(const struct mover *mover, const struct mover_move *move)
{
    switch (move->state) {
    case MOVE_WAITING:
        return mover->freed ? 0 : deadline_ns(move);
    case MOVE_PUBLISHED:
        return move->look_ns;
    case MOVE_RECLAIMING:
        return UINT64_MAX; /* the end of the grace period is announced */
    default:
        return 0;
    }
}

/* Looks through the list after a step: sets the timer, asks for a grace period, counts. */
static int settle_step(struct mover *mover)
{
    const struct mover_move *move;
    uint64_t due = mover->compaction_due_ns, pinned = 0;
    bool reclaiming = false;

    if (mover->freed && !cds_list_empty(&mover->compaction.demands))
        due = 0;

    cds_list_for_each_entry (move, &mover->moves, link) {
        uint64_t move_due = due_ns(mover, move);
        due = move_due < due ? move_due : due;
        pinned += move_is_pinned(move);
        reclaiming |= move->state == MOVE_RECLAIMING;
    }
    order_store_plain(&mover->pinned, pinned);
    if (reclaiming && !mover->grace_runs) {
        mover->grace_runs = true;
        mover->grace.kind = REBALANCER_GRACE;
        rebalancer_post(mover->setup.rebalancer, &mover->grace);
    }
    if (due == UINT64_MAX)
        return sd_event_source_set_enabled(mover->timer, SD_EVENT_OFF);
    int r = sd_event_source_set_time(mover->timer, due / 1000);
    return r < 0 ? r : sd_event_source_set_enabled(mover->timer, SD_EVENT_ONESHOT);
}

/*
 * One iteration's work: each move one step on, as far as the bytes go that may be made present or
 * given back at once.
 */
static int step(struct mover *mover)
{
    uint64_t budget_bytes = MOVER_STEP_BYTES;
    uint64_t now_ns = clock_ns();
    struct mover_move *move, *next;
    bool retry = mover->freed;

    mover->freed = false;
    cds_list_for_each_entry_safe (move, next, &mover->moves, link)
        step_one(mover, move, retry, now_ns, &budget_bytes);
    mover->compaction_due_ns = compaction_step(&mover->compaction, now_ns);
    return settle_step(mover);
}

static int on_timer(sd_event_source *source, uint64_t now_us, void *context)
{
    (void)source;
    (void)now_us;
    return step(context);
}

/* The ring of a decision, if it is still as it was when that was made. */
static struct channel *find_ring(struct mover *mover, const struct rebalancer_decision *decision)
{
    struct channel *channel = channels_find(mover->setup.channels, decision->channel);

    if (!channel || channel->incarnation != decision->incarnation)
        return NULL;
    const struct channel_ring *ring = &channel->ring[decision->ring];
    return ring->move || ring->geometry.current.size != decision->policy.from_bytes ? NULL
                                                                                    : channel;
}

static void carry_out(struct mover *mover, const struct rebalancer_message *message)
{
    char reason[sizeof(((struct proto_decision *)0)->reason)];

    for (size_t i = 0; i < message->count; i++) {
        const struct rebalancer_decision *decision = &message->decisions[i];
        struct channel *channel = find_ring(mover, decision);
        if (!channel)
            continue;
        const struct channel_ring *ring = &channel->ring[decision->ring];
        uint64_t to_bytes = decision->policy.to_bytes;
        policy_reason_text(&decision->policy, reason, sizeof(reason));
        if (decision->policy.refused) {
            record_refusal(mover, channel, decision->ring, to_bytes, message->trigger, reason);
            continue;
        }
        /* Its program may have been promised more since, its maximum lowered. */
        if (to_bytes < limits_least_bytes(ring))
            to_bytes = limits_least_bytes(ring);
        if (to_bytes != ring->geometry.current.size && to_bytes <= ring->max_bytes &&
            clock_ns() >= ring->pause_ns)
            add_move(mover, channel, decision->ring, to_bytes, message->trigger, reason);
    }
    mover->freed = true; /* the new ones have yet to be tried */
}

static void answer(struct mover *mover, struct asked *asked)
{
    const struct rebalancer_message *message = &asked->message;
    struct proto_decision *decisions = calloc(message->count + 1, sizeof(*decisions));
    size_t count = 0;
    int error = decisions ? message->error : -ENOMEM;

    for (size_t i = 0; decisions && i < message->count; i++) {
        const struct rebalancer_decision *decision = &message->decisions[i];
        const struct channel *channel = find_ring(mover, decision);
        if (!channel)
            continue;
        struct proto_decision *item = &decisions[count++];
        move_describe(channel, decision->ring, item);
        item->time_ns = history_time_ns();
        item->outcome = decision->policy.refused ? PROTO_OUTCOME_REFUSED : PROTO_OUTCOME_PLANNED;
        item->to_bytes = decision->policy.to_bytes;
        snprintf(item->trigger, sizeof(item->trigger), "command");
        policy_reason_text(&decision->policy, item->reason, sizeof(item->reason));
    }
    asked->done(asked->data, error, decisions, count);
    if (error == 0 && !message->dry_run)
        carry_out(mover, message);
    cds_list_del(&asked->link);
    free(asked->message.decisions);
    free(asked);
    free(decisions);
}

static void end_grace(struct mover *mover)
{
    struct mover_move *move;
    uint64_t now_ns = clock_ns();

    mover->grace_runs = false;
    cds_list_for_each_entry (move, &mover->moves, link)
        if (move->state == MOVE_RECLAIMING)
            move_reclaim(move, mover->setup.history, now_ns);
}

static void take_mail(struct mover *mover)
{
    struct mailbox_letter *letter;

    mailbox_acknowledge(&mover->mailbox);
    while ((letter = mailbox_take(&mover->mailbox))) {
        struct rebalancer_message *message =
            caa_container_of(letter, struct rebalancer_message, letter);
        if (message->kind == REBALANCER_GRACE) {
            end_grace(mover);
        } else if (message->kind == REBALANCER_ASKED) {
            answer(mover, caa_container_of(message, struct asked, message));
        } else {
            carry_out(mover, message);
            free(message->decisions);
            free(message);
        }
    }
}

static int on_mail(sd_event_source *source, int fd, uint32_t events, void *context)
{
    (void)source;
    (void)fd;
    (void)events;
    take_mail(context);
    return step(context);
}

int mover_new(const struct mover_setup *setup, struct mover **out)
{
    struct mover *mover = calloc(1, sizeof(*mover));

    if (!mover)
        return -ENOMEM;
    const struct compaction_setup compaction = {
        .channels = setup->channels,
        .move = begin_step,
        .under_way = count_steps,
        .gives = zone_gives,
        .mover = mover,
    };
    mover->setup = *setup;
    compaction_init(&mover->compaction, &compaction);
    mover->compaction_due_ns = UINT64_MAX;
    CDS_INIT_LIST_HEAD(&mover->moves);
    CDS_INIT_LIST_HEAD(&mover->asked);
    int r = mailbox_init(&mover->mailbox);
    if (r == 0)
        r = sd_event_add_io(setup->event, &mover->mail_source, mover->mailbox.event_fd, EPOLLIN,
                            on_mail, mover);
    if (r >= 0)
        r = sd_event_add_time(setup->event, &mover->timer, CLOCK_MONOTONIC, 0, 100, on_timer,
                              mover);
    if (r >= 0)
        r = sd_event_source_set_enabled(mover->timer, SD_EVENT_OFF);
    if (r < 0) {
        mover_free(mover);
        return r;
    }
    *out = mover;
    return 0;
}

void mover_free(struct mover *mover)
{
    struct mover_move *move, *next_move;
    struct asked *asked, *next_asked;
    struct mailbox_letter *letter;

    if (!mover)
        return;
    while ((letter = mailbox_take(&mover->mailbox))) {
        struct rebalancer_message *message =
            caa_container_of(letter, struct rebalancer_message, letter);
        if (message->kind == REBALANCER_PLAN) {
            free(message->decisions);
            free(message);
        }
    }
    cds_list_for_each_entry_safe (asked, next_asked, &mover->asked, link) {
        free(asked->message.decisions);
        asked->message.decisions = NULL;
        asked->message.count = 0;
        asked->message.error = -ECANCELED;
        answer(mover, asked);
    }
    cds_list_for_each_entry_safe (move, next_move, &mover->moves, link)
        drop_move(mover, move);
    compaction_deinit(&mover->compaction);
    sd_event_source_unref(mover->mail_source);
    sd_event_source_unref(mover->timer);
    mailbox_deinit(&mover->mailbox);
    free(mover);
}

struct mailbox *mover_mailbox(struct mover *mover)
{
    return &mover->mailbox;
}

void mover_forget(struct mover *mover, struct channel *channel)
{
    for (unsigned ring = 0; ring < 2; ring++) {
        struct mover_move *move = channel->ring[ring].move;
        if (!move)
            continue;
        move_record_done(move, mover->setup.history, clock_ns());
        drop_move(mover, move);
    }
    mover->freed = true; /* in a moment */
    settle_step(mover);
}

/*
 * Takes memory for a command's resize at once, so that the command can be answered; or has rings
 * moved for it.
 */
static int resize(struct mover *mover, struct channel *channel, unsigned ring, uint64_t size_bytes)
{
    struct mover_move *move = channel->ring[ring].move;

    if (move && move->state != MOVE_WAITING) {
        move->then_bytes = size_bytes;
        return 0;
    }
    if (move)
        drop_move(mover, move);
    if (size_bytes == channel->ring[ring].geometry.current.size)
        return 0;
    move = add_move(mover, channel, ring, size_bytes, "command", "set by an administrator");
    if (!move)
        return -ENOMEM;
    int r = move_take(move);
    if (r == -ENOSPC && ask_for_room(mover, move))
        r = 0;
    if (r < 0)
        drop_move(mover, move);
    return r;
}

int mover_ring_set(struct mover *mover, struct channel *channel, unsigned ring,
                   const struct proto_ring_set *set, uint64_t *size_bytes)
{
    struct channel_ring *it = &channel->ring[ring];
    uint64_t promised = limits_promised_bytes(it);
    uint64_t min_bytes, max_bytes;

    int r = limits_after_set(it, set, &min_bytes, &max_bytes, size_bytes);
    if (r == 0 && ((set->fields & PROTO_SET_SIZE) || *size_bytes != it->geometry.current.size)) {
        if (*size_bytes < promised)
            *size_bytes = promised;
        r = resize(mover, channel, ring, *size_bytes);
    }
    if (r < 0)
        return r;
    it->min_bytes = min_bytes;
    it->max_bytes = max_bytes;
    if (set->fields & PROTO_SET_WEIGHT)
        it->weight = set->weight;
    channel_ring_publish(channel, ring);
    settle_step(mover);
    return 0;
}

int mover_await_room(struct mover *mover, struct compaction_demand *demand)
{
    const uint64_t now_ns = clock_ns();

    demand->until_ns = now_ns + WAIT_ROOM_NS;
    int r = compaction_ask(&mover->compaction, demand, now_ns);
    if (r == 0)
        mover->freed = true; /* there may be room by the time that the next step looks */
    settle_step(mover);
    return r;
}

int mover_rebalance(struct mover *mover, bool dry_run, mover_done *done, void *data)
{
    struct asked *asked = calloc(1, sizeof(*asked));

    if (!asked)
        return -ENOMEM;
    asked->message.kind = REBALANCER_ASKED;
    asked->message.dry_run = dry_run;
    asked->done = done;
    asked->data = data;
    cds_list_add_tail(&asked->link, &mover->asked);
    rebalancer_post(mover->setup.rebalancer, &asked->message);
    return 0;
}

struct mover_counts mover_counts(const struct mover *mover)
{
    return (struct mover_counts){
        .moves = order_load_plain(&mover->made),
        .pinned = order_load_plain(&mover->pinned),
    };
}

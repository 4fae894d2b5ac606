/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/rebalancer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "broker/rcu.h"
#include "broker/recorder.h"
#include "broker/sampler.h"
#include "ring/order.h"

#define NS_PER_MS 1000000u
#define NEVER UINT64_MAX

/*
 * From the end of a round until pressure, or doorbells, may begin the next one; and at least so
 * many times as long as the last one took, so that rounds never cost more than a small share of a
 * CPU.
 */
#define PRESSURE_GAP_NS (1u * NS_PER_MS)
#define DOORBELLS_GAP_NS (10u * NS_PER_MS)
#define GAP_ROUNDS 20u
/*
 * Whoever lacks space may have a reader that has not got going, or want more soon: we look again
 * after this, then after doubling times up to the period.
 */
#define HURRY_MS 4u

/* To the rebalancer; posted by the event loop, freed by the thread. */
struct configure {
    struct rebalancer_message message;
    const struct policy *policy;
    struct policy_config config;
};

/* To the rebalancer, likewise. */
struct record {
    struct rebalancer_message message;
    int socket;
};

struct rebalancer {
    struct mailbox inbox;
    struct mailbox *outbox;
    pthread_t thread;
    bool running; /* event loop */
    /* Words that the event loop sets and the thread takes. */
    uint32_t stop, pressure, doorbells;
    uint32_t recordings; /* the event loop adds, the thread takes off */
    /* Plain; writer: the thread. */
    uint64_t rounds, grace_periods;
    /* The thread's. */
    struct recorder *recorders[REBALANCER_RECORDERS_MAX];
    size_t recorder_count;
    struct sampler *sampler;
    const struct policy *policy;
    struct policy_config config;
    uint64_t ended_ns;                    /* the last round */
    uint64_t took_ns;                     /* that one */
    uint64_t full_ended_ns, full_took_ns; /* the last one about all rings */
    uint64_t regular_ns;                  /* the last regular round */
    uint64_t distance_ms;                 /* to the next one */
    uint64_t hurry_ms;                    /* 0: no hurry */
};

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int rebalancer_new(const struct rebalancer_setup *setup, struct rebalancer **out)
{
    struct rebalancer *rebalancer = calloc(1, sizeof(*rebalancer));

    if (!rebalancer)
        return -ENOMEM;
    int r = mailbox_init(&rebalancer->inbox);
    if (r == 0)
        r = sampler_new(setup->channels, setup->domains, setup->zones, setup->zone_count,
                        setup->channels_max, &rebalancer->sampler);
    rebalancer->policy = setup->policy;
    rebalancer->config = *setup->config;
    rebalancer->distance_ms = setup->config->period_ms;
    rebalancer->regular_ns = clock_ns();
    if (r < 0) {
        rebalancer_free(rebalancer);
        return r;
    }
    *out = rebalancer;
    return 0;
}

void rebalancer_free(struct rebalancer *rebalancer)
{
    if (!rebalancer)
        return;
    mailbox_deinit(&rebalancer->inbox);
    sampler_free(rebalancer->sampler);
    free(rebalancer);
}

static void round_done(struct rebalancer *rebalancer, uint64_t began_ns, bool pressing)
{
    rebalancer->ended_ns = clock_ns();
    rebalancer->took_ns = rebalancer->ended_ns - began_ns;
    if (!pressing) {
        rebalancer->full_ended_ns = rebalancer->ended_ns;
        rebalancer->full_took_ns = rebalancer->took_ns;
    }
}

/*
 * Asks the policy about every zone; the plans are put together, in a message of their own or in the
 * asker's. pressing: about the rings alone that lack space now.
 */
static void run_round(struct rebalancer *rebalancer, const char *trigger, bool pressing,
                      struct rebalancer_message *asked)
{
    uint64_t now_ns = clock_ns();
    bool regular = !asked && !pressing &&
                   now_ns - rebalancer->regular_ns >= rebalancer->config.period_ms * NS_PER_MS / 2;
    struct sampler_round round = {
        .now_ns = now_ns,
        .regular = regular,
        .pressure = !regular && !asked,
        .pressing = pressing,
        .thorough = asked,
        .dry_run = asked && asked->dry_run,
        .policy = rebalancer->policy,
        .config = &rebalancer->config,
        .recorders = rebalancer->recorders,
        .recorder_count = rebalancer->recorder_count,
    };
    int r = sampler_round(rebalancer->sampler, &round);
    order_store_plain(&rebalancer->rounds, rebalancer->rounds + 1);
    if (regular) {
        rebalancer->regular_ns = now_ns;
        uint64_t doubled = rebalancer->distance_ms * 2 < REBALANCER_PULSE_MS
                               ? rebalancer->distance_ms * 2
                               : REBALANCER_PULSE_MS;
        rebalancer->distance_ms = round.active || doubled < rebalancer->config.period_ms
                                      ? rebalancer->config.period_ms
                                      : doubled;
    }
    if (!asked && round.count > 0)
        asked = calloc(
            1, sizeof(*asked)); /* without memory the round is lost, and the next one tries again */
    if (asked) {
        asked->trigger = trigger;
        asked->decisions = round.decisions;
        asked->count = round.count;
        asked->error = r;
        mailbox_post(rebalancer->outbox, &asked->letter);
    } else {
        free(round.decisions);
    }
    round_done(rebalancer, now_ns, pressing);
}

static void reconfigure(struct rebalancer *rebalancer, struct rebalancer_message *message)
{
    struct configure *configure = caa_container_of(message, struct configure, message);

    rebalancer->policy = configure->policy;
    rebalancer->config = configure->config;
    rebalancer->distance_ms = configure->config.period_ms;
    free(configure);
}

static void begin_recording(struct rebalancer *rebalancer, struct rebalancer_message *message)
{
    struct record *record = caa_container_of(message, struct record, message);
    struct recorder *recorder = recorder_new(record->socket);

    free(record);
    if (recorder)
        rebalancer->recorders[rebalancer->recorder_count++] = recorder;
    else
        __atomic_fetch_sub(&rebalancer->recordings, 1, __ATOMIC_RELAXED);
}

/* Sends what can be sent; all: ends them. */
static void tend_recordings(struct rebalancer *rebalancer, bool all)
{
    for (size_t i = rebalancer->recorder_count; i-- > 0;) {
        if (recorder_flush(rebalancer->recorders[i]) && !all)
            continue;
        recorder_free(rebalancer->recorders[i]);
        rebalancer->recorders[i] = rebalancer->recorders[--rebalancer->recorder_count];
        __atomic_fetch_sub(&rebalancer->recordings, 1, __ATOMIC_RELAXED);
    }
}

/*
 * The order of the requests is kept, but one grace period serves all that were there when it began.
 */
static void serve(struct rebalancer *rebalancer)
{
    struct cds_list_head graces;
    struct rebalancer_message *message, *next;
    struct mailbox_letter *letter;

    CDS_INIT_LIST_HEAD(&graces);
    mailbox_acknowledge(&rebalancer->inbox);
    while ((letter = mailbox_take(&rebalancer->inbox))) {
        message = caa_container_of(letter, struct rebalancer_message, letter);
        if (message->kind == REBALANCER_GRACE)
            cds_list_add_tail(&message->link, &graces);
        else if (message->kind == REBALANCER_CONFIGURE)
            reconfigure(rebalancer, message);
        else if (message->kind == REBALANCER_RECORD)
            begin_recording(rebalancer, message);
        else
            run_round(rebalancer, "command", false, message);
    }
    if (cds_list_empty(&graces))
        return;
    /*
     * Where the kernel refuses, the ends fence themselves (LAYOUT_FEATURE_MARK_FENCE), and our
     * fence pairs with theirs.
     */
    if (order_grace_period() < 0)
        order_fence();
    order_store_plain(&rebalancer->grace_periods, rebalancer->grace_periods + 1);
    cds_list_for_each_entry_safe(message, next, &graces, link)
        mailbox_post(rebalancer->outbox, &message->letter);
}

static bool taken(uint32_t *word)
{
    return order_load_plain(word) != 0 && __atomic_exchange_n(word, 0, __ATOMIC_ACQ_REL) != 0;
}

/* When a round about the pressing rings may come, */
static uint64_t after_gap_ns(const struct rebalancer *rebalancer)
{
    uint64_t rest_ns = GAP_ROUNDS * (rebalancer->ended_ns == rebalancer->full_ended_ns
                                         ? 0 /* is kept by the full ones */
                                         : rebalancer->took_ns);

    return rebalancer->ended_ns + (rest_ns > PRESSURE_GAP_NS ? rest_ns : PRESSURE_GAP_NS);
}

/* and an irregular one about all of them. */
static uint64_t after_full_gap_ns(const struct rebalancer *rebalancer, uint64_t gap_ns)
{
    uint64_t rest_ns = GAP_ROUNDS * rebalancer->full_took_ns;

    return rebalancer->full_ended_ns + (rest_ns > gap_ns ? rest_ns : gap_ns);
}

/* When the next regular round, or hurried one, is due. */
static uint64_t due_ns(const struct rebalancer *rebalancer)
{
    uint64_t due = NEVER;

    if (sampler_channels(rebalancer->sampler) > 0)
        due = rebalancer->regular_ns + rebalancer->distance_ms * NS_PER_MS;
    if (rebalancer->hurry_ms) {
        uint64_t hurried = after_full_gap_ns(rebalancer, 0);
        if (hurried < rebalancer->ended_ns + rebalancer->hurry_ms * NS_PER_MS)
            hurried = rebalancer->ended_ns + rebalancer->hurry_ms * NS_PER_MS;
        due = hurried < due ? hurried : due;
    }
    return due;
}

static uint64_t next_due_ns(const struct rebalancer *rebalancer)
{
    uint64_t due = due_ns(rebalancer), told;

    if (order_load_plain(&rebalancer->pressure) && (told = after_gap_ns(rebalancer)) < due)
        due = told;
    if (order_load_plain(&rebalancer->doorbells) &&
        (told = after_full_gap_ns(rebalancer, DOORBELLS_GAP_NS)) < due)
        due = told;
    return due;
}

/* Runs a round if one is due; returns when to look again. */
static uint64_t step(struct rebalancer *rebalancer)
{
    uint64_t now_ns = clock_ns();
    bool pressure = order_load_plain(&rebalancer->pressure);
    bool doorbells = order_load_plain(&rebalancer->doorbells);

    if (pressure || doorbells)
        rebalancer->distance_ms = rebalancer->config.period_ms;
    if (pressure && now_ns >= after_gap_ns(rebalancer)) {
        taken(&rebalancer->pressure);
        rebalancer->hurry_ms = HURRY_MS;
        run_round(rebalancer, "pressure", true, NULL);
    } else if (doorbells && now_ns >= after_full_gap_ns(rebalancer, DOORBELLS_GAP_NS)) {
        taken(&rebalancer->doorbells);
        run_round(rebalancer, "doorbells", false, NULL);
    } else if (now_ns >= due_ns(rebalancer)) {
        if (rebalancer->hurry_ms > 0)
            rebalancer->hurry_ms *= 2;
        if (rebalancer->hurry_ms >= rebalancer->config.period_ms)
            rebalancer->hurry_ms = 0;
        run_round(rebalancer, rebalancer->hurry_ms ? "pressure" : "period", false, NULL);
    }
    return next_due_ns(rebalancer);
}

static void wait_until(struct rebalancer *rebalancer, uint64_t due)
{
    struct pollfd waits[1 + REBALANCER_RECORDERS_MAX] = {
        {.fd = rebalancer->inbox.event_fd, .events = POLLIN}};
    uint64_t now_ns = clock_ns();
    uint64_t ns = due > now_ns ? due - now_ns : 0;
    struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000u),
                               .tv_nsec = (long)(ns % 1000000000u)};

    for (size_t i = 0; i < rebalancer->recorder_count; i++)
        waits[i + 1] = (struct pollfd){.fd = recorder_socket(rebalancer->recorders[i]),
                                       .events = recorder_events(rebalancer->recorders[i])};
    ppoll(waits, 1 + rebalancer->recorder_count, due == NEVER ? NULL : &timeout, NULL);
    if (rebalancer->recorder_count > 0)
        tend_recordings(rebalancer, false);
}

static void *run(void *context)
{
    struct rebalancer *rebalancer = context;

    rcu_register_thread();
    for (;;) {
        serve(rebalancer);
        /* After the acknowledgement in there, which may have been for this. */
        if (order_load_acquire(&rebalancer->stop))
            break;
        wait_until(rebalancer, step(rebalancer));
    }
    tend_recordings(rebalancer, true);
    rcu_unregister_thread();
    return NULL;
}

int rebalancer_start(struct rebalancer *rebalancer, struct mailbox *outbox)
{
    rebalancer->outbox = outbox;
    int r = -pthread_create(&rebalancer->thread, NULL, run, rebalancer);
    if (r == 0)
        pthread_setname_np(rebalancer->thread, "rebalancer");
    rebalancer->running = r == 0;
    return r;
}

void rebalancer_stop(struct rebalancer *rebalancer)
{
    struct mailbox_letter *letter;

    if (rebalancer->running) {
        order_store_release(&rebalancer->stop, 1);
        eventfd_write(rebalancer->inbox.event_fd, 1);
        pthread_join(rebalancer->thread, NULL);
        rebalancer->running = false;
    }
    while ((letter = mailbox_take(&rebalancer->inbox))) {
        struct rebalancer_message *message =
            caa_container_of(letter, struct rebalancer_message, letter);
        message->error = -ECANCELED;
        if (message->kind == REBALANCER_CONFIGURE)
            reconfigure(rebalancer, message);
        else if (message->kind == REBALANCER_RECORD)
            begin_recording(rebalancer, message);
        else
            mailbox_post(rebalancer->outbox, letter);
    }
    tend_recordings(rebalancer, true);
}

static void announce(struct rebalancer *rebalancer, uint32_t *word)
{
    /* Set already: the thread has been woken for it, and has yet to take it. */
    if (__atomic_exchange_n(word, 1, __ATOMIC_ACQ_REL) == 0)
        eventfd_write(rebalancer->inbox.event_fd, 1);
}

void rebalancer_pressure(struct rebalancer *rebalancer, uint32_t channel, unsigned ring)
{
    sampler_attend(rebalancer->sampler, channel, ring);
    announce(rebalancer, &rebalancer->pressure);
}

void rebalancer_doorbells(struct rebalancer *rebalancer, uint32_t channel, unsigned ring)
{
    sampler_attend(rebalancer->sampler, channel, ring);
    announce(rebalancer, &rebalancer->doorbells);
}

int rebalancer_configure(struct rebalancer *rebalancer, const struct policy *policy,
                         const struct policy_config *config)
{
    struct configure *configure = calloc(1, sizeof(*configure));

    if (!configure)
        return -ENOMEM;
    configure->message.kind = REBALANCER_CONFIGURE;
    configure->policy = policy;
    configure->config = *config;
    rebalancer_post(rebalancer, &configure->message);
    return 0;
}

int rebalancer_record(struct rebalancer *rebalancer, int socket)
{
    struct record *record = NULL;
    int r = -EBUSY;

    if (__atomic_load_n(&rebalancer->recordings, __ATOMIC_RELAXED) < REBALANCER_RECORDERS_MAX) {
        record = calloc(1, sizeof(*record));
        r = record ? 0 : -ENOMEM;
    }
    if (r < 0) {
        close(socket);
        return r;
    }
    __atomic_fetch_add(&rebalancer->recordings, 1, __ATOMIC_RELAXED);
    record->message.kind = REBALANCER_RECORD;
    record->socket = socket;
    rebalancer_post(rebalancer, &record->message);
    return 0;
}

void rebalancer_post(struct rebalancer *rebalancer, struct rebalancer_message *message)
{
    mailbox_post(&rebalancer->inbox, &message->letter);
}

struct rebalancer_counts rebalancer_counts(const struct rebalancer *rebalancer)
{
    return (struct rebalancer_counts){
        .rounds = order_load_plain(&rebalancer->rounds),
        .grace_periods = order_load_plain(&rebalancer->grace_periods),
    };
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/pair.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/probe.h"
#include "ring/order.h"

#define VERIFY_BYTES (1u << 20)
#define VERIFY_MESSAGES_MAX 4096u
#define VERIFY_NS 2e9

/*
 * A slice is disturbed when one of the two had to wait for its CPU for more than this part of it.
 * Who sleeps waits a little after each wake-up, which is a cost of his own.
 */
#define WAITED_MAX 0.02
#define WAITED_SLEEPER_MAX 0.2

/*
 * The follower spins for so long for its next command, then naps: others may want the CPU
 * meanwhile.
 */
#define SPINS_BEFORE_NAP 100000u
#define NAP_US 50
#define NAP_MAX_US 2000

/* Other programs measure for so long, and take as long again to start. */
#define EXTERNAL_MS 150.0

enum pair_command { PAIR_OPEN, PAIR_PROBE, PAIR_SINK, PAIR_PONG, PAIR_LEAVE };

/* Shared. Leader's line, then the follower's. */
struct pair_stage {
    struct {
        uint64_t number; /* of the command; 0: none yet */
        uint32_t command;
        uint32_t subject;
        uint64_t bytes;
        uint32_t verify;
        uint8_t pad[100];
    } leader;
    struct {
        uint64_t number; /* of the last command that is done */
        uint64_t messages;
        uint64_t waited_ns;
        uint8_t pad[104];
    } follower;
    struct probe probe;
};

struct pair {
    struct subject *subjects;
    size_t subjects_count;
    struct pair_stage *stage;
    uint64_t number;
    pid_t follower;
    const int *cpus;
    struct subject_job job;
};

static void job_init(struct subject_job *job)
{
    *job = (struct subject_job){.outgoing = aligned_alloc(4096, SUBJECT_MESSAGE_MAX),
                                .incoming = aligned_alloc(4096, SUBJECT_MESSAGE_MAX)};
    if (!job->outgoing || !job->incoming)
        children_fail("out of memory");
    memset(job->outgoing, 0x5a, SUBJECT_MESSAGE_MAX);
    memset(job->incoming, 0, SUBJECT_MESSAGE_MAX);
}

static void job_deinit(struct subject_job *job)
{
    free(job->outgoing);
    free(job->incoming);
}

static void follow_one(struct pair *pair)
{
    struct pair_stage *stage = pair->stage;
    struct subject *subject = &pair->subjects[stage->leader.subject];

    pair->job.bytes = stage->leader.bytes;
    pair->job.verify = stage->leader.verify;
    switch (stage->leader.command) {
    case PAIR_OPEN:
        subject->calls->open(subject, SUBJECT_FOLLOWER);
        break;
    case PAIR_PROBE:
        probe_follow(&stage->probe);
        break;
    case PAIR_SINK:
        subject->calls->sink(subject, &pair->job);
        break;
    case PAIR_PONG:
        subject->calls->pong(subject, &pair->job);
        break;
    default:
        _exit(0);
    }
    stage->follower.messages = pair->job.messages;
    stage->follower.waited_ns = measure_waited_ns();
}

static _Noreturn void follow(struct pair *pair)
{
    struct pair_stage *stage = pair->stage;

    job_init(&pair->job);
    for (uint64_t number = 1;; number++) {
        unsigned nap_us = NAP_US;
        for (unsigned spins = 0; order_load_acquire(&stage->leader.number) != number; spins++) {
            order_relax();
            if (spins < SPINS_BEFORE_NAP)
                continue;
            usleep(nap_us);
            nap_us = nap_us * 2 < NAP_MAX_US ? nap_us * 2 : NAP_MAX_US;
        }
        follow_one(pair);
        order_store_release(&stage->follower.number, number);
    }
}

static void tell(struct pair *pair, enum pair_command command, size_t subject, size_t bytes,
                 bool verify)
{
    struct pair_stage *stage = pair->stage;

    stage->leader.command = command;
    stage->leader.subject = (uint32_t)subject;
    stage->leader.bytes = bytes;
    stage->leader.verify = verify;
    order_store_release(&stage->leader.number, ++pair->number);
}

static void wait_done(const struct pair *pair)
{
    while (order_load_acquire(&pair->stage->follower.number) != pair->number)
        order_relax();
}

struct pair *pair_new(struct subject *subjects, size_t subjects_count, const int cpus[2])
{
    struct pair *pair = calloc(1, sizeof(*pair));

    if (!pair)
        children_fail("out of memory");
    pair->subjects = subjects;
    pair->subjects_count = subjects_count;
    pair->cpus = cpus;
    pair->stage = mmap(NULL, sizeof(*pair->stage), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (pair->stage == MAP_FAILED)
        children_fail("out of memory");
    measure_ticks_per_ns();
    for (size_t i = 0; i < subjects_count; i++)
        if (subjects[i].calls->prepare)
            subjects[i].calls->prepare(&subjects[i]);
    pair->follower = children_fork("the follower", cpus[1]);
    if (pair->follower == 0)
        follow(pair);
    if (measure_pin(cpus[0]) < 0)
        children_fail("cannot run on CPU %d", cpus[0]);
    job_init(&pair->job);
    for (size_t i = 0; i < subjects_count; i++) {
        if (!subjects[i].calls->open)
            continue;
        tell(pair, PAIR_OPEN, i, 0, false);
        subjects[i].calls->open(&subjects[i], SUBJECT_LEADER);
        wait_done(pair);
    }
    return pair;
}

void pair_free(struct pair *pair)
{
    children_may_end(pair->follower);
    tell(pair, PAIR_LEAVE, 0, 0, false);
    children_wait(pair->follower);
    for (size_t i = 0; i < pair->subjects_count; i++)
        if (pair->subjects[i].calls->close)
            pair->subjects[i].calls->close(&pair->subjects[i]);
    job_deinit(&pair->job);
    munmap(pair->stage, sizeof(*pair->stage));
    free(pair);
}

/* lead: this side's call; command: the follower's. */
static void run(struct pair *pair, size_t subject,
                void (*lead)(struct subject *, struct subject_job *), enum pair_command command,
                size_t bytes)
{
    pair->job.bytes = bytes;
    tell(pair, command, subject, bytes, pair->job.verify);
    lead(&pair->subjects[subject], &pair->job);
    wait_done(pair);
    if (pair->stage->follower.messages != pair->job.messages)
        children_fail("%s: %llu messages of %zu bytes were sent, %llu arrived",
                      pair->subjects[subject].name, (unsigned long long)pair->job.messages, bytes,
                      (unsigned long long)pair->stage->follower.messages);
}

struct pair_slice pair_measure(struct pair *pair, size_t subject, enum pair_kind kind, size_t bytes,
                               double slice_ms)
{
    const struct subject_calls *calls = pair->subjects[subject].calls;

    if (calls->external)
        return (struct pair_slice){.value = calls->external(&pair->subjects[subject],
                                                            kind == PAIR_ROUND_TRIP, bytes,
                                                            EXTERNAL_MS, pair->cpus)};
    uint64_t own_ns = measure_waited_ns(), others_ns = pair->stage->follower.waited_ns;

    pair->job.verify = false;
    pair->job.messages_max = 0;
    pair->job.duration_ticks = measure_ticks_of_ns(slice_ms * 1e6);
    uint64_t start_ns = measure_now_ns();
    if (kind == PAIR_THROUGHPUT)
        run(pair, subject, calls->source, PAIR_SINK, bytes);
    else
        run(pair, subject, calls->ping, PAIR_PONG, bytes);
    double ns = (double)(measure_now_ns() - start_ns), messages = (double)pair->job.messages;
    double limit_ns = ns * (pair->subjects[subject].sleeps ? WAITED_SLEEPER_MAX : WAITED_MAX);
    return (struct pair_slice){
        .value = kind == PAIR_THROUGHPUT ? messages * (double)bytes / ns * 1e9 : ns / messages,
        .disturbed = (double)(measure_waited_ns() - own_ns) > limit_ns ||
                     (double)(pair->stage->follower.waited_ns - others_ns) > limit_ns,
    };
}

uint64_t pair_verify(struct pair *pair, size_t subject, size_t bytes)
{
    const struct subject_calls *calls = pair->subjects[subject].calls;
    uint64_t messages = VERIFY_BYTES / bytes + 3;

    if (calls->external)
        return 0;
    pair->job.verify = true;
    pair->job.messages_max = messages < VERIFY_MESSAGES_MAX ? messages : VERIFY_MESSAGES_MAX;
    pair->job.duration_ticks = measure_ticks_of_ns(VERIFY_NS);
    run(pair, subject, calls->source, PAIR_SINK, bytes);
    messages = pair->job.messages;
    run(pair, subject, calls->ping, PAIR_PONG, bytes);
    return (messages + 2 * pair->job.messages) * bytes;
}

void pair_doze(struct pair *pair, size_t subject, size_t bytes, uint64_t messages,
               unsigned pause_us, struct histogram *round_trips)
{
    pair->job.verify = false;
    pair->job.messages_max = messages;
    pair->job.pause_us = pause_us;
    pair->job.round_trips = round_trips;
    run(pair, subject, pair->subjects[subject].calls->doze, PAIR_PONG, bytes);
}

double pair_probe(struct pair *pair)
{
    tell(pair, PAIR_PROBE, 0, 0, false);
    double ns = probe_lead(&pair->stage->probe);
    wait_done(pair);
    return ns;
}

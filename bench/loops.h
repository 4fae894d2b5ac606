/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/loops.h - the loops that measure, the same for every subject.
 *
 * SUBJECT_LOOPS(name, send, receive) makes name_source, _sink, _ping, _doze and _pong out of
 *
 *     void send(struct subject *, const void *data, size_t n)
 *     void receive(struct subject *, void *data, size_t n)
 *
 * which transfer all n bytes, waiting as the subject does. They are inlined, so that a call through
 * a pointer does not level the differences between subjects at 16 bytes.
 */
#ifndef VCHAN_BENCH_LOOPS_H
#define VCHAN_BENCH_LOOPS_H

#include <string.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/subject.h"

#define LOOPS_INLINE static inline __attribute__((always_inline))

typedef void loops_send(struct subject *subject, const void *data, size_t n);
typedef void loops_receive(struct subject *subject, void *data, size_t n);

/* Small messages: the clock is read for every 64th. */
LOOPS_INLINE unsigned loops_batch(size_t bytes)
{
    return bytes <= 1024 ? 64 : bytes <= 16384 ? 8 : 1;
}

LOOPS_INLINE void loops_put_number(uint8_t *message, uint64_t number)
{
    memcpy(message, &number, sizeof(number));
}

LOOPS_INLINE uint64_t loops_number(const uint8_t *message)
{
    uint64_t number;

    memcpy(&number, message, sizeof(number));
    return number;
}

/* Different in every word of every message. */
LOOPS_INLINE uint64_t loops_word(uint64_t number, size_t offset)
{
    return (number * 131071u + offset + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline void loops_fill(uint8_t *message, size_t bytes, uint64_t number)
{
    for (size_t i = 8; i < bytes; i += 8) {
        uint64_t word = loops_word(number, i);
        memcpy(message + i, &word, sizeof(word));
    }
}

static inline void loops_check(const struct subject *subject, const uint8_t *message, size_t bytes,
                               uint64_t number)
{
    for (size_t i = 8; i < bytes; i += 8) {
        uint64_t word = loops_word(number, i);
        if (memcmp(message + i, &word, sizeof(word)) != 0)
            children_fail("%s: message %llu of %zu bytes differs at byte %zu", subject->name,
                          (unsigned long long)number, bytes, i);
    }
}

/* Is it the last? Anything but the number that is due ends the benchmark. */
LOOPS_INLINE bool loops_is_last(const struct subject *subject, const uint8_t *message, uint64_t due)
{
    uint64_t number = loops_number(message);

    if (__builtin_expect(number == due, 1))
        return false;
    if (number != (due | SUBJECT_LAST))
        children_fail("%s: message %llx came where %llx was due", subject->name,
                      (unsigned long long)number, (unsigned long long)due);
    return true;
}

LOOPS_INLINE bool loops_is_over(const struct subject_job *job, uint64_t sent, uint64_t end)
{
    return (job->messages_max && sent >= job->messages_max) || measure_ticks() >= end;
}

LOOPS_INLINE void loops_source(struct subject *subject, struct subject_job *job, loops_send *send)
{
    uint64_t end = measure_ticks() + job->duration_ticks, sent = 0;
    unsigned batch = loops_batch(job->bytes);
    bool last;

    do {
        last = loops_is_over(job, sent, end);
        for (unsigned i = last ? 1 : batch; i > 0; i--) {
            if (job->verify)
                loops_fill(job->outgoing, job->bytes, sent);
            loops_put_number(job->outgoing, last ? sent | SUBJECT_LAST : sent);
            send(subject, job->outgoing, job->bytes);
            sent++;
        }
    } while (!last);
    job->messages = sent;
}

LOOPS_INLINE void loops_sink(struct subject *subject, struct subject_job *job,
                             loops_receive *receive)
{
    uint64_t due = 0;
    bool last;

    do {
        receive(subject, job->incoming, job->bytes);
        last = loops_is_last(subject, job->incoming, due);
        if (job->verify)
            loops_check(subject, job->incoming, job->bytes, due);
        due++;
    } while (!last);
    job->messages = due;
}

LOOPS_INLINE void loops_ping(struct subject *subject, struct subject_job *job, loops_send *send,
                             loops_receive *receive)
{
    uint64_t end = measure_ticks() + job->duration_ticks, sent = 0;
    unsigned batch = loops_batch(job->bytes) / 4 + 1;
    bool last;

    do {
        last = loops_is_over(job, sent, end);
        for (unsigned i = last ? 1 : batch; i > 0; i--) {
            if (job->verify)
                loops_fill(job->outgoing, job->bytes, sent);
            loops_put_number(job->outgoing, last ? sent | SUBJECT_LAST : sent);
            send(subject, job->outgoing, job->bytes);
            receive(subject, job->incoming, job->bytes);
            if (loops_is_last(subject, job->incoming, sent) != last)
                children_fail("%s: the last message came back changed", subject->name);
            if (job->verify)
                loops_check(subject, job->incoming, job->bytes, sent);
            sent++;
        }
    } while (!last);
    job->messages = sent;
}

/* Long enough pauses for the other end to fall asleep; each round trip is timed by itself. */
LOOPS_INLINE void loops_doze(struct subject *subject, struct subject_job *job, loops_send *send,
                             loops_receive *receive)
{
    for (uint64_t sent = 0; sent < job->messages_max; sent++) {
        bool last = sent + 1 == job->messages_max;
        usleep(job->pause_us);
        uint64_t start = measure_ticks();
        loops_put_number(job->outgoing, last ? sent | SUBJECT_LAST : sent);
        send(subject, job->outgoing, job->bytes);
        receive(subject, job->incoming, job->bytes);
        histogram_add(job->round_trips, measure_ticks() - start);
        if (loops_is_last(subject, job->incoming, sent) != last)
            children_fail("%s: the last message came back changed", subject->name);
    }
    job->messages = job->messages_max;
}

LOOPS_INLINE void loops_pong(struct subject *subject, struct subject_job *job, loops_send *send,
                             loops_receive *receive)
{
    uint64_t due = 0;
    bool last;

    do {
        receive(subject, job->incoming, job->bytes);
        last = loops_is_last(subject, job->incoming, due);
        send(subject, job->incoming, job->bytes);
        due++;
    } while (!last);
    job->messages = due;
}

#define SUBJECT_LOOPS(name, send, receive) \
    static void name##_source(struct subject *subject, struct subject_job *job) \
    { \
        loops_source(subject, job, send); \
    } \
    static void name##_sink(struct subject *subject, struct subject_job *job) \
    { \
        loops_sink(subject, job, receive); \
    } \
    static void name##_ping(struct subject *subject, struct subject_job *job) \
    { \
        loops_ping(subject, job, send, receive); \
    } \
    static void name##_doze(struct subject *subject, struct subject_job *job) \
    { \
        loops_doze(subject, job, send, receive); \
    } \
    static void name##_pong(struct subject *subject, struct subject_job *job) \
    { \
        loops_pong(subject, job, send, receive); \
    }

#define SUBJECT_LOOP_CALLS(name) \
    .source = name##_source, .sink = name##_sink, .ping = name##_ping, .doze = name##_doze, \
    .pong = name##_pong

#endif

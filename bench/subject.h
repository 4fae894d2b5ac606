/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/subject.h - a way to bring bytes from one process to another and back, to be measured.
 *
 *     prepare   before the fork: what both will share
 *     open      in each of the two processes: its end of both directions
 *     source, sink, ping, doze, pong   one slice, in one of the two processes; see bench/loops.h
 *     close     in the leader
 *
 * A subject holds no pointer into the other process. Failures end the benchmark (children_fail).
 */
#ifndef VCHAN_BENCH_SUBJECT_H
#define VCHAN_BENCH_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first word of a message is its number; the last of a slice has this bit too. */
#define SUBJECT_LAST (UINT64_C(1) << 63)
#define SUBJECT_MESSAGE_MAX (1u << 20)

enum subject_side { SUBJECT_LEADER, SUBJECT_FOLLOWER };

struct histogram;
struct subject;

/* What one process does in one slice. */
struct subject_job {
    size_t bytes;                  /* of a message, 16 to SUBJECT_MESSAGE_MAX, a multiple of 8 */
    uint64_t duration_ticks;       /* the leader goes on for that long */
    uint64_t messages_max;         /* or until it has sent so many; 0: no limit */
    bool verify;                   /* fill every message anew and compare every byte */
    uint8_t *outgoing, *incoming;  /* SUBJECT_MESSAGE_MAX each, private */
    unsigned pause_us;             /* doze: before each message */
    struct histogram *round_trips; /* doze: ticks are added */
    uint64_t messages;             /* out: how many went (round trips, for ping and pong) */
};

struct subject_calls {
    void (*prepare)(struct subject *subject);
    void (*open)(struct subject *subject, enum subject_side side);
    void (*close)(struct subject *subject);
    void (*source)(struct subject *subject, struct subject_job *job); /* leader, one way */
    void (*sink)(struct subject *subject, struct subject_job *job);   /* follower */
    void (*ping)(struct subject *subject, struct subject_job *job);   /* leader, there and back */
    void (*doze)(struct subject *subject, struct subject_job *job); /* leader: ping, with pauses */
    void (*pong)(struct subject *subject, struct subject_job *job); /* follower */
    /*
     * Instead of all these: another program measures. Bytes a second, or nanoseconds a round trip;
     * NAN: it failed.
     */
    double (*external)(struct subject *subject, bool round_trip, size_t bytes, double ms,
                       const int cpus[2]);
};

struct subject {
    const char *name;
    const struct subject_calls *calls;
    size_t ring_bytes;       /* buffer space a direction; 0: the kernel's default */
    int port;                /* channels: two from here on are ours */
    const char *socket_path; /* channels: the broker's */
    bool sleeps;             /* rather than spin: then waiting for a CPU is part of what it costs */
    void *state;
};

extern const struct subject_calls subject_ring;     /* ring/, directly */
extern const struct subject_calls subject_ideal;    /* bench/ideal.h */
extern const struct subject_calls subject_vchan;    /* vchan_write, vchan_read */
extern const struct subject_calls subject_libvchan; /* libvchan_send, libvchan_recv */
extern const struct subject_calls subject_unix;     /* AF_UNIX stream */
extern const struct subject_calls subject_pipe;
extern const struct subject_calls subject_ucx_tag; /* external, see bench/ucx.h */
extern const struct subject_calls subject_ucx_stream;

#endif

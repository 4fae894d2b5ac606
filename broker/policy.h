/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/policy.h - who should have how much memory: a pure function from samples to a plan.
 *
 * No I/O, no clock, no allocation: time and memory are in the input, so a plan can be tested,
 * replayed and simulated. Linear in the number of rings. One call is about one region (one zone).
 *
 * What a policy knows of the past is in struct policy_ring, which broker/policy_track.h makes from
 * the rings' counters.
 *
 * THE DEFAULT POLICY
 *
 *   hungry    its producer stalls, and its consumer reads: it wants its size times grow_percent
 *             (pressure_percent when the producer lacks space at this moment), or what it had
 *             before it shrank not long ago, but not more than its consumer drains in horizon_ms
 *             at the best rate that it has lately shown; sixteen times that, if it has run empty
 *             within horizon_ms, as it does before a burst. Beyond cache_bytes only while growing
 *             helps: the consumer runs empty at times (a reader that is always busy has enough in
 *             front of it), and the last growth made the stalls shorter.
 *   idle      nothing has gone through it for idle_ms: it wants its floor.
 *   surplus   it has needed no more than shrink_percent of its size for calm_ms: it wants twice
 *             what it needed.
 *   unread    it holds bytes and nobody has read for unread_ms: it wants what it holds. Nothing is
 *             given to it.
 *   content   everything else: it wants what it has.
 *
 *   The floor is the minimum, and what the producer promised its program. idle_ms and calm_ms
 *   double for a ring that had to grow again soon after it shrank (policy_ring.patience), so a load
 *   that comes and goes finds its memory in place.
 *
 *   If the wishes do not fit, the dynamic threshold of Choudhury and Hahne ("Dynamic queue length
 *   thresholds for shared-memory packet switches", 1998) says what a ring may hold: alpha * weight
 *   * what stays free. Solved for all rings at once that is a level L with
 *
 *       sum of min(wish, weight * L)  +  L / alpha  =  memory that there is
 *
 *   so equals get equal, and what stays free is what one ring of alpha weights holds: a ring that
 *   moves needs its new extent before it can give up the old one. Rings above their level by more
 *   than hysteresis_percent give to those below. Idle, surplus and unread rings give sooner then,
 *   without the patience: empty ones once nothing has gone through them for four periods, and what
 *   a ring needs is what it has held lately (lately_bytes), so that the memory of a burst is there
 *   for the next one, somewhere else, a quarter of a second after it. "Lately" is longer, up to
 *   sixteen times, for a ring that has had to grow again soon to what it had been: bursts that come
 *   soon after one another find their memory in place (recall). Others give only if somebody
 *   stalls for a good part of the time; who lacks space for a moment gets what is free.
 *
 *   Nothing changes within dwell_ms of the ring's last change, but that one that grew may grow
 *   again after grow_dwell_ms.
 *
 *   A growth needs its new extent before the old one is free: the reserve lends all but a quarter
 *   of itself for that. And it needs one run of free memory (largest_free_bytes). One that would
 *   need a longer run takes what the longest holds, if that is worth a move; else one a round is
 *   planned all the same, for which the mover then moves others, and the rest wait. Shrinks may
 *   use the reserve: they give back more than they take.
 */
#ifndef VCHAN_BROKER_POLICY_H
#define VCHAN_BROKER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every field has its key in [rebalance] of vchand.conf (period-ms, ...). */
struct policy_config {
    uint64_t period_ms;          /* between two rounds, while there is traffic; 10 to 60000 */
    uint64_t notifications;      /* doorbells of an end after which there is a round; 0: never */
    uint64_t dwell_ms;           /* at least, between two changes of a ring */
    uint64_t grow_dwell_ms;      /* at least, between two growths of a ring */
    uint64_t stall_permille;     /* share of the time stalled from which a ring is hungry */
    uint64_t grow_percent;       /* 101 to 1600 */
    uint64_t pressure_percent;   /* 101 to 1600 */
    uint64_t shrink_percent;     /* 1 to 50 */
    uint64_t hysteresis_percent; /* smaller changes for the sake of fairness are not worth a move */
    uint64_t calm_ms;
    uint64_t idle_ms;
    uint64_t unread_ms;
    uint64_t horizon_ms;
    uint64_t cache_bytes;
    uint64_t alpha_percent;    /* of the dynamic threshold, for weight 100 */
    uint64_t reserve_permille; /* of the region, never given to rings: for new channels */
    uint64_t inactive_ms;      /* secure-ivshmem: idle for so long shrinks to its floor; 0: never */
    uint64_t moves_max;        /* a round; 1 to 4096 */
    uint64_t move_bytes_max;   /* a round, of new extents */
};

/* The defaults. */
void policy_config_init(struct policy_config *config);
/* NULL, or the name of the first field that is out of its range or contradicts another. */
const char *policy_config_check(const struct policy_config *config);

enum policy_reason {
    POLICY_NO_REASON,
    /* Decisions to change. */
    POLICY_STALLS,      /* grows */
    POLICY_IDLE,        /* shrinks */
    POLICY_SURPLUS,     /* shrinks */
    POLICY_UNREAD,      /* shrinks */
    POLICY_FAIR_SHARE,  /* shrinks for hungrier ones */
    POLICY_EQUAL_SHARE, /* of policy "static" */
    POLICY_ACTIVE,      /* of policy "secure-ivshmem": grows by a block */
    POLICY_FOUR_FIFTHS, /* shrinks to that, likewise */
    POLICY_INACTIVE,    /* shrinks to its floor, likewise */
    /* Decisions not to, though it wants to grow. */
    POLICY_NOT_READ,
    POLICY_AT_MAX,
    POLICY_AT_QUOTA,
    POLICY_REGION_FULL,
    POLICY_DWELLS,
    POLICY_READER_BUSY,
    POLICY_NO_HELP,    /* the last growth did not make stalls shorter */
    POLICY_LATER,      /* this round's moves, or the room for new extents, are used up */
    POLICY_FRAGMENTED, /* no free run is long enough now, and others are moved for one already */
};

/*
 * One ring, as the policy sees it. Sizes in bytes. "Interval": since the last regular round, at
 * least half a period.
 */
struct policy_ring {
    /* Who. */
    uint64_t incarnation;
    uint32_t channel;
    uint32_t ring;
    uint32_t domain; /* index of its sender in policy_input.domains */
    /* What it has and may have. */
    uint32_t weight; /* 1 to 1000 */
    uint64_t size_bytes;
    uint64_t min_bytes;
    uint64_t max_bytes;
    uint64_t promised_bytes;
    bool moving; /* its old extent is not free: it cannot change now */
    /* What it does: in this interval and in the one before. */
    uint64_t interval_ns, last_interval_ns;
    uint64_t sent_bytes, last_sent_bytes;
    uint64_t received_bytes, last_received_bytes;
    uint64_t stalls, last_stalls;
    uint64_t stall_ns, last_stall_ns;
    uint64_t sender_sleeps, receiver_sleeps; /* this interval */
    uint64_t operations;                     /* this interval, both ends */
    bool stalled;                            /* its producer lacks space now */
    /* What it has done for longer. */
    uint64_t held_bytes;
    uint64_t
        peak_bytes; /* most bytes held at once in the last calm_ms << patience, up to twice that */
    uint64_t
        lately_bytes;   /* the same in the last sixteenth of calm_ms << recall, up to twice that */
    uint64_t active_ns; /* when a byte was last seen going in or out; 0: never */
    uint64_t received_ns; /* when a byte was last seen going out; when it was opened: nothing has */
    uint64_t stalled_ns;  /* when it last stalled; 0: never */
    uint64_t drain_rate;  /* bytes a second, the best that its reader has lately shown */
    uint64_t starved_ns;  /* when its consumer was last seen to have nothing to read; 0: never */
    uint64_t changed_ns;  /* when its size last changed; when it was opened: never */
    uint64_t former_bytes;      /* what it had before it shrank lately; 0: it did not */
    bool grew;                  /* that change was a growth */
    bool judging;               /* too early to say whether that growth made the stalls shorter */
    bool no_help;               /* it did not */
    uint32_t patience;          /* 0 to POLICY_PATIENCE_MAX */
    uint32_t recall;            /* 0 to POLICY_RECALL_MAX: how long a need is remembered */
    enum policy_reason refused; /* last refusal recorded, POLICY_NO_REASON: none lately */
};

#define POLICY_PATIENCE_MAX 6u
#define POLICY_RECALL_MAX 4u

struct policy_domain {
    uint32_t domain;
    uint64_t charged_bytes;
    uint64_t quota_bytes; /* 0: none */
};

/* The caller's buffers; the policy writes what it likes into scratch. */
struct policy_scratch {
    uint64_t size_bytes;
    uint64_t wish_bytes;
    uint64_t floor_bytes;
    uint32_t weight;
    uint32_t next;
    uint8_t kind;
    uint8_t reason;
};

struct policy_input {
    uint64_t now_ns; /* CLOCK_MONOTONIC */
    uint64_t total_bytes;
    uint64_t free_bytes;
    uint64_t largest_free_bytes; /* the longest free run: no new extent can be longer now */
    const struct policy_ring *const *rings; /* those that matter now: see broker/policy_book.h */
    size_t ring_count;
    const struct policy_domain *domains;
    size_t domain_count;
    struct policy_scratch *scratch; /* ring_count many */
    uint64_t *domain_scratch;       /* domain_count many */
    bool pressure; /* an extra round, somebody lacks space: grow, and make room for that, no more */
    bool some;     /* there are others that matter: give what is free, and take from nobody */
    bool all_refusals; /* those recorded already, too */
    /* What weight 100 had a right to in the last round about all rings, 0: no limit. A round about
     * some of them cannot find that out, and one about all leaves it at *level (NULL: nowhere). */
    uint64_t level_bytes;
    uint64_t *level;
};

struct policy_decision {
    uint32_t index; /* in policy_input.rings */
    bool refused;   /* to_bytes is what it wanted */
    enum policy_reason reason;
    uint64_t from_bytes;
    uint64_t to_bytes;
    uint64_t number; /* for the sentence: per mille stalled, ms idle, bytes needed, ... as
                        policy_reason_text has it */
};

/* Refusals that a round tells of, beside the moves_max moves: so long is the caller's array. */
#define POLICY_REFUSALS_MAX 256u

/* Shrinks come before grows. Returns how many were written, at most max. */
typedef size_t policy_plan_function(const struct policy_input *input,
                                    const struct policy_config *config,
                                    struct policy_decision *decisions, size_t max);

struct policy {
    const char *name;
    policy_plan_function *plan;
    bool settles; /* it can be asked about some rings, the others count as used memory. Else it is
                     always asked about all of them */
};

#define POLICY_COUNT 3u
/* The default first. */
extern const struct policy policies[POLICY_COUNT];

/* By name; NULL: none of that name. */
const struct policy *policy_find(const char *name);
/* "default, static, ...": for messages. */
const char *policy_names(void);

policy_plan_function policy_default_plan;
policy_plan_function policy_static_plan;
policy_plan_function policy_secure_ivshmem_plan;

/*
 * For policies: writes a decision behind the *count there are, unless there are max, or it is a
 * refusal that was recorded lately.
 */
void policy_append(const struct policy_input *input, const struct policy_decision *decision,
                   struct policy_decision *decisions, size_t *count, size_t max);

bool policy_decision_equal(const struct policy_decision *a, const struct policy_decision *b);

/* "its sender stalled 41% of the time": writes a sentence, NUL-terminated, cut if it must be. */
void policy_reason_text(const struct policy_decision *decision, char *text, size_t text_bytes);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/mutation.h - bugs that the tests plant, to show that they would find them.
 *
 * MUTATED(NAME) is false everywhere but in the copies of ring/ that tests/race compiles with
 * -DRING_MUTATION=MUTATION_NAME; there the race test must fail. MUT_NAME is the same bug in the
 * model of tests/model, where spin must find it. docs/model.md has the rule that each one breaks.
 */
#ifndef VCHAN_RING_MUTATION_H
#define VCHAN_RING_MUTATION_H

enum ring_mutation {
    MUTATION_NONE,
    /* Rule 1: bytes arrive exactly once and in order. */
    MUTATION_CONSUMER_LOADS_SWITCH_FIRST, /* switch_count before tail */
    MUTATION_SWITCH_WITHOUT_FOLLOWED,     /* the producer does not wait for the consumer */
    MUTATION_TAIL_BEFORE_SWITCH,          /* tail is published before the switch it lies behind */
    MUTATION_TAIL_BEFORE_BYTES,           /* and before the bytes are there */
    /* Rule 2: no extent is reused while it is touched. */
    MUTATION_IGNORE_PRODUCER_MARK, /* the broker frees under an operation */
    MUTATION_IGNORE_HEAD,          /* and what is not read yet */
    MUTATION_MARK_CLEARED_EARLY,   /* the producer is out of the operation before it has written */
    /* Rule 3: promises stay true. */
    MUTATION_PRODUCER_IGNORES_PROMISE, /* it leaves for an extent that cannot hold it */
    MUTATION_BROKER_IGNORES_PROMISE,   /* it frees the extent that is held for a promise's sake */
    MUTATION_DECLINE_STAYS, /* for its sake, stays in an extent that is two generations old */
    /* Rule 4: killed anywhere, memory comes back and nothing is lost. */
    MUTATION_DEAD_NOT_CLEAR,        /* a dead producer's mark counts */
    MUTATION_ENDED_READ_AFTER_TAIL, /* the consumer does not look for bytes after the end */
    /* Rule 5: wake-ups are never lost. */
    MUTATION_NO_RECHECK_AFTER_ARM, /* a sleeper does not look again after arming */
    MUTATION_RECHECK_TAIL_ONLY,    /* a consumer's second look is for bytes only */
    MUTATION_NO_RING_AFTER_SWITCH, /* who waits for more bytes is not told of a switch */
};

#ifndef RING_MUTATION
#define RING_MUTATION MUTATION_NONE
#endif
#define MUTATED(name) (RING_MUTATION == MUTATION_##name)

#endif

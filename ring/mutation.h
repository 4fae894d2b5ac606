/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/mutation.h - bugs that the tests plant, to show that they would find them.
 *
 * MUTATED(NAME) is false everywhere but in the copies of ring/ that tests/race compiles with
 * -DRING_MUTATION=MUTATION_NAME; there the race test must fail. tests/model breaks the same rules
 * in the model.
 */
#ifndef VCHAN_RING_MUTATION_H
#define VCHAN_RING_MUTATION_H

enum ring_mutation {
    MUTATION_NONE,
    MUTATION_SWITCH_LOADED_FIRST,    /* the consumer loads switch_count before tail */
    MUTATION_SWITCH_WITHOUT_LEVEL,   /* the producer does not wait for the consumer to follow */
    MUTATION_RECLAIM_IGNORES_MARK,   /* the broker frees under an operation */
    MUTATION_RECLAIM_IGNORES_DATA,   /* and what is not read yet */
    /* the producer leaves for an extent that cannot hold what was promised */
    MUTATION_PROMISE_IGNORED,
    /* it stays where it is for a promise's sake, though that is two generations ago */
    MUTATION_STAYS_IN_FREED,
    MUTATION_NO_SECOND_LOOK,         /* a sleeper does not look again after arming */
    MUTATION_TAIL_BEFORE_BYTES,      /* the producer publishes before it has written */
};

#ifndef RING_MUTATION
#define RING_MUTATION MUTATION_NONE
#endif
#define MUTATED(name) (RING_MUTATION == MUTATION_##name)

#endif

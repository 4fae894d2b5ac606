/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/policy_book.h - the rings of one region, as a policy is asked about them round after
 * round.
 *
 * What a round costs is linear in the rings that have changed, and bounded. Three kinds:
 *
 *   listed    something has changed lately, or it has more than its floor. Looked at in each round;
 *             if there are more than POLICY_BOOK_ROUND_MOST, in turns of so many
 *   settled   nothing has gone through it for two intervals, and it is at its floor: there is
 *             nothing to take, and it wants nothing. Looked at in its turn, POLICY_BOOK_TURN
 *             numbers in each regular round, and when somebody says that it has changed
 *   pressing  somebody has just said that its producer lacks space: a round about these alone
 *             answers them, however many others there are
 *
 * The policy is asked about the rings that were looked at in the round and are listed. The memory
 * of the others counts as used. (A policy that does not `settle` is asked about all, and nothing
 * bounds its rounds.)
 *
 *     unknown --look--> listed <-----look: changed----- settled
 *        ^                 |  ----look: nothing new---->   |
 *        +----forget-------+-------------------------------+
 *
 * Rings are named by numbers below rings_max, which are the caller's. Pure but for its own memory:
 * time is given. One thread.
 */
#ifndef VCHAN_BROKER_POLICY_BOOK_H
#define VCHAN_BROKER_POLICY_BOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/policy.h"
#include "broker/policy_track.h"

/* Numbers whose turn it is in each regular round; four times as many when those are rare. */
#define POLICY_BOOK_TURN 4096u
/* Listed rings that a round is about, at most. */
#define POLICY_BOOK_ROUND_MOST 8192u

struct policy_book;

int policy_book_new(size_t rings_max, struct policy_book **out); /* 0, -ENOMEM */
/* NULL is ignored. */
void policy_book_free(struct policy_book *book);

struct policy_book_round {
    uint64_t now_ns;
    uint64_t total_bytes;
    uint64_t free_bytes;
    uint64_t largest_free_bytes;
    bool regular;      /* the interval ends with this round */
    bool thorough;     /* the settled ones are looked at, too */
    bool pressure;     /* see policy_input */
    bool pressing;     /* none are due: those that the caller looks at all the same are pressing */
    bool all_refusals; /* a dry run: those recorded already too, and none is remembered */
    const struct policy *policy;
    const struct policy_config *config;
    /* What was asked and answered, before anything is remembered of it; NULL: nobody wants it. */
    void (*record)(void *data, const struct policy_input *input,
                   const struct policy_decision *decisions, size_t count);
    void *record_data;
};

/*
 * Before the looks of a round. The rings to look at are then those due, and, of the numbers from
 * *first on and below *end, those that there are and that are not listed.
 */
void policy_book_begin(struct policy_book *book, const struct policy_book_round *round,
                       size_t *first, size_t *end);
/* Until the next begin. Returns how many. */
size_t policy_book_due(const struct policy_book *book, const uint32_t **numbers);
size_t policy_book_listed(const struct policy_book *book);
bool policy_book_is_listed(const struct policy_book *book, uint32_t number);

/* One look. look->domain is the domain's number. Returns what is known of the ring now. */
const struct policy_track *policy_book_look(struct policy_book *book,
                                            const struct policy_book_round *round, uint32_t number,
                                            const struct policy_look *look);
/* It has gone; may be unknown. */
void policy_book_forget(struct policy_book *book, uint32_t number);
/* What is known of it; all zero: nothing. */
const struct policy_track *policy_book_track(const struct policy_book *book, uint32_t number);

/* The domains met so far: fill in what they are charged and their quotas before each plan. */
struct policy_domain *policy_book_domains(struct policy_book *book, size_t *count);

/*
 * Asks the policy. Decisions' indices are places in what policy_book_input then gives, until the
 * next plan. Returns how many.
 */
size_t policy_book_plan(struct policy_book *book, const struct policy_book_round *round,
                        struct policy_decision *decisions, size_t max);
const struct policy_input *policy_book_input(const struct policy_book *book);
/* Of a ring of that input. */
uint32_t policy_book_input_number(const struct policy_book *book, uint32_t index);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/policy_book.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/proto.h"

#define BLOCK_BYTES 4096u
#define NO_PLACE UINT32_MAX
#define NO_SLOT UINT16_MAX

struct policy_book {
    size_t rings_max;
    struct policy_track *tracks; /* by number */
    uint32_t *places;            /* by number, in the list; NO_PLACE */
    /* The list. */
    uint32_t *numbers;
    size_t count;
    size_t next; /* place of the first whose turn it is when not all of them have it */
    /* This round: numbers whose turn it is, and what the policy is asked about. */
    uint32_t *due;
    size_t due_count;
    uint32_t *asked;
    const struct policy_ring **rings;
    size_t asked_count;
    uint32_t *stamps, stamp; /* of the last round that a ring, by number, was asked about in */
    struct policy_scratch *scratch;
    struct policy_domain *domains; /* by slot */
    uint64_t *domain_scratch;
    size_t domain_count;
    uint16_t *slots; /* by domain number */
    size_t turn;     /* the first number of the next turn */
    uint64_t regular_ns, last_regular_ns;
    uint64_t level_bytes; /* see policy_input */
    struct policy_input input;
};

int policy_book_new(size_t rings_max, struct policy_book **out)
{
    struct policy_book *book = calloc(1, sizeof(*book));
    const size_t domains = PROTO_DOMAIN_MAX + 1;

    if (!book)
        return -ENOMEM;
    *book = (struct policy_book){
        .rings_max = rings_max,
        .tracks = calloc(rings_max, sizeof(*book->tracks)),
        .places = malloc(rings_max * sizeof(*book->places)),
        .numbers = calloc(rings_max, sizeof(*book->numbers)),
        .due = calloc(rings_max, sizeof(*book->due)),
        .asked = calloc(rings_max, sizeof(*book->asked)),
        .rings = calloc(rings_max, sizeof(*book->rings)),
        .stamps = calloc(rings_max, sizeof(*book->stamps)),
        .scratch = calloc(rings_max, sizeof(*book->scratch)),
        .domains = calloc(domains, sizeof(*book->domains)),
        .domain_scratch = calloc(domains, sizeof(*book->domain_scratch)),
        .slots = malloc(domains * sizeof(*book->slots)),
    };
    if (!book->tracks || !book->places || !book->numbers || !book->due || !book->asked ||
        !book->rings || !book->stamps || !book->scratch || !book->domains ||
        !book->domain_scratch || !book->slots) {
        policy_book_free(book);
        return -ENOMEM;
    }
    memset(book->places, 0xff, rings_max * sizeof(*book->places));
    memset(book->slots, 0xff, domains * sizeof(*book->slots));
    *out = book;
    return 0;
}

void policy_book_free(struct policy_book *book)
{
    if (!book)
        return;
    free(book->tracks);
    free(book->places);
    free(book->numbers);
    free(book->due);
    free(book->asked);
    free(book->rings);
    free(book->stamps);
    free(book->scratch);
    free(book->domains);
    free(book->domain_scratch);
    free(book->slots);
    free(book);
}

static size_t turn_length(const struct policy_book *book, const struct policy_book_round *round)
{
    bool rare = book->last_regular_ns &&
                round->now_ns - book->last_regular_ns > 2000000 * round->config->period_ms;

    return rare ? 4 * POLICY_BOOK_TURN : POLICY_BOOK_TURN;
}

/* The listed ones that this round looks at: all, or as many as one may, one after the other. */
static void take_turns(struct policy_book *book, const struct policy_book_round *round)
{
    bool all = round->thorough || !round->policy->settles || book->count <= POLICY_BOOK_ROUND_MOST;
    size_t count = all ? book->count : POLICY_BOOK_ROUND_MOST;

    if (all || book->next >= book->count)
        book->next = 0;
    for (; book->due_count < count; book->due_count++) {
        book->due[book->due_count] = book->numbers[book->next];
        book->next = book->next + 1 < book->count ? book->next + 1 : 0;
    }
}

void policy_book_begin(struct policy_book *book, const struct policy_book_round *round,
                       size_t *first, size_t *end)
{
    book->due_count = book->asked_count = 0;
    book->stamp++;
    if (!round->pressing)
        take_turns(book, round);
    *first = 0;
    *end = round->thorough ? book->rings_max : 0;
    if (!round->regular)
        return;
    book->last_regular_ns = book->regular_ns;
    book->regular_ns = round->now_ns;
    if (round->thorough)
        return;
    *first = book->turn;
    *end = book->turn + turn_length(book, round);
    if (*end > book->rings_max)
        *end = book->rings_max;
    book->turn = *end == book->rings_max ? 0 : *end;
}

size_t policy_book_due(const struct policy_book *book, const uint32_t **numbers)
{
    *numbers = book->due;
    return book->due_count;
}

size_t policy_book_listed(const struct policy_book *book)
{
    return book->count;
}

bool policy_book_is_listed(const struct policy_book *book, uint32_t number)
{
    return book->places[number] != NO_PLACE;
}

const struct policy_track *policy_book_track(const struct policy_book *book, uint32_t number)
{
    return &book->tracks[number];
}

static uint32_t slot_of(struct policy_book *book, uint32_t domain)
{
    uint16_t *slot = &book->slots[domain];

    if (*slot == NO_SLOT) {
        *slot = (uint16_t)book->domain_count++;
        book->domains[*slot] = (struct policy_domain){.domain = domain};
    }
    return *slot;
}

/* The last of the list takes its place. */
static void unlist(struct policy_book *book, uint32_t number)
{
    uint32_t place = book->places[number];

    if (place == NO_PLACE)
        return;
    book->places[number] = NO_PLACE;
    if (place == --book->count)
        return;
    book->numbers[place] = book->numbers[book->count];
    book->places[book->numbers[place]] = place;
}

static bool is_quiet(const struct policy_ring *ring)
{
    return !(ring->sent_bytes | ring->last_sent_bytes | ring->received_bytes |
             ring->last_received_bytes | ring->stall_ns | ring->last_stall_ns | ring->stalls |
             ring->last_stalls) &&
           !ring->stalled && !ring->moving;
}

/* Nothing that a policy could take: not even when it holds bytes that nobody reads. */
static bool is_at_its_floor(const struct policy_ring *ring)
{
    uint64_t floor =
        ring->min_bytes > ring->promised_bytes ? ring->min_bytes : ring->promised_bytes;

    floor = (floor + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    return ring->size_bytes <= floor ||
           (ring->held_bytes > 0 && ring->size_bytes < 2 * ring->held_bytes);
}

const struct policy_track *policy_book_look(struct policy_book *book,
                                            const struct policy_book_round *round, uint32_t number,
                                            const struct policy_look *look)
{
    struct policy_track *track = &book->tracks[number];
    uint32_t *place = &book->places[number];
    bool known = track->ring.incarnation == look->incarnation;
    struct policy_look inside = *look;

    inside.domain = slot_of(book, look->domain);
    /* We did not look, but had it done much we would have been told. */
    if (known && *place == NO_PLACE)
        policy_track_skip(track, round->regular ? book->last_regular_ns : book->regular_ns);
    policy_track_look(track, &inside, round->config);
    if (known && round->policy->settles && is_quiet(&track->ring) &&
        is_at_its_floor(&track->ring) && (round->regular || *place == NO_PLACE)) {
        unlist(book, number);
        return track;
    }
    if (*place == NO_PLACE) {
        *place = (uint32_t)book->count++;
        book->numbers[*place] = number;
    }
    if (book->stamps[number] != book->stamp) {
        book->stamps[number] = book->stamp;
        book->asked[book->asked_count++] = number;
    }
    return track;
}

void policy_book_forget(struct policy_book *book, uint32_t number)
{
    unlist(book, number);
    book->tracks[number] = (struct policy_track){0};
}

struct policy_domain *policy_book_domains(struct policy_book *book, size_t *count)
{
    *count = book->domain_count;
    return book->domains;
}

static void gather(struct policy_book *book, const struct policy_book_round *round)
{
    if (!round->policy->settles) {
        memcpy(book->asked, book->numbers, book->count * sizeof(*book->asked));
        book->asked_count = book->count;
    }
    for (size_t i = 0; i < book->asked_count; i++)
        book->rings[i] = &book->tracks[book->asked[i]].ring;
}

size_t policy_book_plan(struct policy_book *book, const struct policy_book_round *round,
                        struct policy_decision *decisions, size_t max)
{
    gather(book, round);
    book->input = (struct policy_input){
        .now_ns = round->now_ns,
        .total_bytes = round->total_bytes,
        .free_bytes = round->free_bytes,
        .largest_free_bytes = round->largest_free_bytes,
        .rings = book->rings,
        .ring_count = book->asked_count,
        .domains = book->domains,
        .domain_count = book->domain_count,
        .scratch = book->scratch,
        .domain_scratch = book->domain_scratch,
        .pressure = round->pressure,
        .some = round->pressing && round->policy->settles,
        .all_refusals = round->all_refusals,
        .level_bytes = book->level_bytes,
        .level = round->all_refusals ? NULL : &book->level_bytes,
    };
    if (book->input.ring_count == 0)
        return 0;
    size_t count = round->policy->plan(&book->input, round->config, decisions, max);
    if (round->record)
        round->record(round->record_data, &book->input, decisions, count);
    for (size_t i = 0; i < count && !round->all_refusals; i++)
        policy_track_decided(&book->tracks[book->asked[decisions[i].index]], &decisions[i],
                             round->now_ns);
    return count;
}

const struct policy_input *policy_book_input(const struct policy_book *book)
{
    return &book->input;
}

uint32_t policy_book_input_number(const struct policy_book *book, uint32_t index)
{
    return book->asked[index];
}

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
    /* The list: what the policy is asked about, and whose number that is. */
    struct policy_ring *rings;
    uint32_t *numbers;
    size_t count;
    /* The pressing ones of this round. */
    struct policy_ring *pressing_rings;
    uint32_t *pressing;
    size_t pressing_count;
    struct policy_scratch *scratch;
    struct policy_domain *domains; /* by slot */
    uint64_t *domain_scratch;
    size_t domain_count;
    uint16_t *slots; /* by domain number */
    size_t turn;     /* the first number of the next turn */
    uint64_t regular_ns, last_regular_ns;
    struct policy_input input;
    const uint32_t *input_numbers;
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
        .rings = calloc(rings_max, sizeof(*book->rings)),
        .numbers = calloc(rings_max, sizeof(*book->numbers)),
        .pressing_rings = calloc(rings_max, sizeof(*book->pressing_rings)),
        .pressing = calloc(rings_max, sizeof(*book->pressing)),
        .scratch = calloc(rings_max, sizeof(*book->scratch)),
        .domains = calloc(domains, sizeof(*book->domains)),
        .domain_scratch = calloc(domains, sizeof(*book->domain_scratch)),
        .slots = malloc(domains * sizeof(*book->slots)),
    };
    if (!book->tracks || !book->places || !book->rings || !book->numbers || !book->pressing_rings ||
        !book->pressing || !book->scratch || !book->domains || !book->domain_scratch ||
        !book->slots) {
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
    free(book->rings);
    free(book->numbers);
    free(book->pressing_rings);
    free(book->pressing);
    free(book->scratch);
    free(book->domains);
    free(book->domain_scratch);
    free(book->slots);
    free(book);
}

/* When regular rounds are rare, more numbers have their turn in each. */
static size_t turn_length(const struct policy_book *book, const struct policy_book_round *round)
{
    size_t length = (book->rings_max + POLICY_BOOK_TURNS - 1) / POLICY_BOOK_TURNS;
    bool rare = book->last_regular_ns &&
                round->now_ns - book->last_regular_ns > 2000000 * round->config->period_ms;

    if (rare)
        length *= 4;
    return length > POLICY_BOOK_TURN_LEAST ? length : POLICY_BOOK_TURN_LEAST;
}

void policy_book_begin(struct policy_book *book, const struct policy_book_round *round,
                       size_t *first, size_t *end)
{
    book->pressing_count = 0;
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

size_t policy_book_listed(const struct policy_book *book)
{
    return book->count;
}

uint32_t policy_book_number(const struct policy_book *book, size_t place)
{
    return book->numbers[place];
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
    book->rings[place] = book->rings[book->count];
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
                                            const struct policy_look *look, bool pressing)
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
    book->rings[*place] = track->ring;
    if (pressing && book->pressing_count < book->rings_max)
        book->pressing[book->pressing_count++] = number;
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

static void gather_pressing(struct policy_book *book)
{
    for (size_t i = 0; i < book->pressing_count; i++)
        book->pressing_rings[i] = book->tracks[book->pressing[i]].ring;
}

size_t policy_book_plan(struct policy_book *book, const struct policy_book_round *round,
                        struct policy_decision *decisions, size_t max)
{
    bool some = round->pressing && round->policy->settles;

    if (some)
        gather_pressing(book);
    book->input_numbers = some ? book->pressing : book->numbers;
    book->input = (struct policy_input){
        .now_ns = round->now_ns,
        .total_bytes = round->total_bytes,
        .free_bytes = round->free_bytes,
        .largest_free_bytes = round->largest_free_bytes,
        .rings = some ? book->pressing_rings : book->rings,
        .ring_count = some ? book->pressing_count : book->count,
        .domains = book->domains,
        .domain_count = book->domain_count,
        .scratch = book->scratch,
        .domain_scratch = book->domain_scratch,
        .pressure = round->pressure,
        .some = some,
        .all_refusals = round->all_refusals,
    };
    if (book->input.ring_count == 0)
        return 0;
    size_t count = round->policy->plan(&book->input, round->config, decisions, max);
    for (size_t i = 0; i < count && !round->all_refusals; i++)
        policy_track_decided(&book->tracks[book->input_numbers[decisions[i].index]], &decisions[i],
                             round->now_ns);
    return count;
}

const struct policy_input *policy_book_input(const struct policy_book *book)
{
    return &book->input;
}

uint32_t policy_book_input_number(const struct policy_book *book, uint32_t index)
{
    return book->input_numbers[index];
}

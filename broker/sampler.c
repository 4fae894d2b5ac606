/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sampler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/policy_book.h"
#include "broker/rcu.h"
#include "broker/rebalancer.h"
#include "broker/recorder.h"
#include "ring/order.h"

#define RINGS 2u /* of a channel */
#define BITS 32u /* of a word of attention */

struct sampler {
    const struct channels *channels;
    const struct domains *domains;
    struct zone *const *zones;
    uint32_t zone_count;
    uint32_t channels_max;
    struct policy_book **books; /* of each zone; a ring's number: page in the zone * 2 + ring */
    /* Rings of which somebody has said that they are worth a look: by number in the broker. Any
     * thread sets bits, the rebalancer's takes them. */
    uint32_t *attention;
    uint64_t *epochs; /* of the high-water marks; by number in the broker */
    struct channel
        *channel; /* of the last look: both its rings are looked at one after the other */
};

static size_t attention_words(uint32_t channels_max)
{
    return ((size_t)channels_max * RINGS + BITS - 1) / BITS;
}

int sampler_new(const struct channels *channels, const struct domains *domains,
                struct zone *const *zones, uint32_t zone_count, uint32_t channels_max,
                struct sampler **out)
{
    struct sampler *sampler = calloc(1, sizeof(*sampler));
    int r = -ENOMEM;

    if (!sampler)
        return r;
    *sampler = (struct sampler){
        .channels = channels,
        .domains = domains,
        .zones = zones,
        .zone_count = zone_count,
        .channels_max = channels_max,
        .books = calloc(zone_count, sizeof(struct policy_book *)),
        .attention = calloc(attention_words(channels_max), sizeof(*sampler->attention)),
        .epochs = calloc((size_t)channels_max * RINGS, sizeof(*sampler->epochs)),
    };
    if (sampler->books && sampler->attention && sampler->epochs)
        r = 0;
    for (uint32_t i = 0; r == 0 && i < zone_count; i++)
        r = policy_book_new((size_t)zones[i]->region.channel_count * RINGS, &sampler->books[i]);
    if (r < 0) {
        sampler_free(sampler);
        return r;
    }
    *out = sampler;
    return 0;
}

void sampler_free(struct sampler *sampler)
{
    if (!sampler)
        return;
    for (uint32_t i = 0; sampler->books && i < sampler->zone_count; i++)
        policy_book_free(sampler->books[i]);
    free(sampler->books);
    free(sampler->attention);
    free(sampler->epochs);
    free(sampler);
}

uint32_t sampler_channels(const struct sampler *sampler)
{
    return order_load_plain(&sampler->channels->count);
}

void sampler_attend(struct sampler *sampler, uint32_t channel, unsigned ring)
{
    size_t number = (size_t)channel * RINGS + ring;

    __atomic_fetch_or(&sampler->attention[number / BITS], 1u << number % BITS, __ATOMIC_RELEASE);
}

/* What goes through all the functions of one zone's round. */
struct zone_round {
    struct sampler *sampler;
    struct sampler_round *round;
    const struct zone *zone;
    struct policy_book *book;
    struct policy_book_round plan;
};

static void fill_look(const struct zone_round *zone_round, const struct channel *channel,
                      unsigned ring, const struct channel_ring_view *view, struct policy_look *look)
{
    const struct ring_geometry geometry = {
        .shared = &channel->page->ring[ring], .current = view->current, .old = view->old};
    bool open = order_load_plain(&channel->state) != LAYOUT_CHANNEL_CLOSED;

    *look = (struct policy_look){
        .now_ns = zone_round->plan.now_ns,
        .opened_ns = channel->opened_ns,
        .incarnation = channel->incarnation,
        .channel = channel->number,
        .ring = ring,
        .domain = channel->ring[ring].sender_domain,
        .weight = view->weight,
        .size_bytes = view->current.size,
        .min_bytes = view->min_bytes,
        .max_bytes = view->max_bytes,
        .promised_bytes = ring_geometry_promised(&geometry),
        .moving = view->old.size > 0 || !open,
        .regular = zone_round->plan.regular,
    };
}

static void look_at_ring(struct zone_round *zone_round, uint32_t number, struct channel *channel)
{
    const unsigned ring = number % RINGS;
    const struct channel_ring_view *view = channel_ring_view(channel, ring);
    struct layout_ring *shared = &channel->page->ring[ring];
    uint64_t *epoch = &zone_round->sampler->epochs[(size_t)channel->number * RINGS + ring];
    const uint64_t notifications = zone_round->round->config->notifications;
    struct policy_look look;

    if (policy_book_track(zone_round->book, number)->ring.incarnation != channel->incarnation)
        *epoch = 0;
    /* New rings, and all of them after the configuration has been read again. */
    if (order_load_plain(&shared->geometry.report_every) != notifications)
        order_store_plain(&shared->geometry.report_every, (uint32_t)notifications);
    fill_look(zone_round, channel, ring, view, &look);
    ring_sample_take(shared, view->current.size + view->old.size, *epoch, &look.sample);
    const struct policy_track *track =
        policy_book_look(zone_round->book, &zone_round->plan, number, &look);
    if (order_load_plain(&channel->ring[ring].active_ns) != track->ring.active_ns)
        order_store_plain(&channel->ring[ring].active_ns, track->ring.active_ns);
    if (policy_track_active(track)) {
        zone_round->round->active = true;
        /* The ends read this line with every operation, so an idle ring's is left alone. */
        if (look.regular)
            ring_sample_epoch(shared, ++*epoch);
    }
}

/* One look at the ring of that number in the zone, if its channel is there. Under rcu_enter. */
static void look_at(struct zone_round *zone_round, uint32_t number)
{
    struct sampler *sampler = zone_round->sampler;
    uint32_t wanted = zone_round->zone->first_number + number / RINGS;

    if (!sampler->channel || sampler->channel->number != wanted)
        sampler->channel = channels_find(sampler->channels, wanted);
    if (sampler->channel)
        look_at_ring(zone_round, number, sampler->channel);
    else
        policy_book_forget(zone_round->book, number);
}

/* Those that somebody has told us of. */
static void look_at_told(struct zone_round *zone_round)
{
    const struct zone *zone = zone_round->zone;
    uint32_t *attention = zone_round->sampler->attention;
    size_t first = (size_t)zone->first_number * RINGS;
    size_t end = first + (size_t)zone->region.channel_count * RINGS;

    for (size_t word = first / BITS; word * BITS < end; word++) {
        if (order_load_plain(&attention[word]) == 0)
            continue;
        for (size_t bit = 0; bit < BITS; bit++) {
            size_t number = word * BITS + bit;
            if (number < first || number >= end)
                continue; /* another zone's */
            uint32_t mask = 1u << bit;
            if (__atomic_fetch_and(&attention[word], ~mask, __ATOMIC_ACQUIRE) & mask)
                look_at(zone_round, (uint32_t)(number - first));
        }
    }
}

static void look_at_zone(struct zone_round *zone_round)
{
    struct policy_book *book = zone_round->book;
    const uint32_t *due;
    size_t next, end;

    rcu_enter();
    zone_round->sampler->channel = NULL;
    policy_book_begin(book, &zone_round->plan, &next, &end);
    size_t count = policy_book_due(book, &due);
    for (size_t i = 0; i < count; i++)
        look_at(zone_round, due[i]);
    for (; next < end; next++)
        if (!policy_book_is_listed(book, (uint32_t)next))
            look_at(zone_round, (uint32_t)next);
    look_at_told(zone_round);
    rcu_leave();
}

/* What its domains are charged, and may be. */
static void look_at_domains(const struct zone_round *zone_round)
{
    size_t count;
    struct policy_domain *domains = policy_book_domains(zone_round->book, &count);

    rcu_enter();
    for (size_t i = 0; i < count; i++) {
        const struct domain *domain = domains_find(zone_round->sampler->domains, domains[i].domain);
        domains[i].charged_bytes = zone_held_bytes(zone_round->zone, domains[i].domain);
        domains[i].quota_bytes = domain ? order_load_plain(&domain->quota_bytes) : 0;
    }
    rcu_leave();
}

/* Appends a zone's decisions to the round's. */
static int append(const struct zone_round *zone_round, const struct policy_decision *decisions,
                  size_t count)
{
    struct sampler_round *round = zone_round->round;
    const struct policy_ring *const *rings = policy_book_input(zone_round->book)->rings;
    struct rebalancer_decision *all =
        realloc(round->decisions, (round->count + count) * sizeof(*all));

    if (!all)
        return -ENOMEM;
    round->decisions = all;
    for (size_t i = 0; i < count; i++) {
        const struct policy_ring *ring = rings[decisions[i].index];
        all[round->count++] = (struct rebalancer_decision){
            .policy = decisions[i],
            .incarnation = ring->incarnation,
            .channel = ring->channel,
            .ring = ring->ring,
        };
    }
    return 0;
}

static void tell_recorders(void *data, const struct policy_input *input,
                           const struct policy_decision *decisions, size_t count)
{
    const struct zone_round *zone_round = data;
    const struct sampler_round *round = zone_round->round;

    for (size_t i = 0; i < round->recorder_count; i++)
        recorder_round(round->recorders[i], zone_round->zone->index, round->policy, round->config,
                       input, decisions, count);
}

static int round_of_zone(struct sampler *sampler, struct sampler_round *round, uint32_t index,
                         struct policy_decision *decisions, size_t max)
{
    const struct zone *zone = sampler->zones[index];
    struct zone_round zone_round = {
        .sampler = sampler,
        .round = round,
        .zone = zone,
        .book = sampler->books[index],
        .plan = {.now_ns = round->now_ns,
                 .total_bytes = zone->region.data_bytes - order_load_plain(&zone->mailbox_bytes),
                 .free_bytes = order_load_plain(&zone->free_bytes),
                 .largest_free_bytes = order_load_plain(&zone->largest_free_bytes),
                 .regular = round->regular,
                 .thorough = round->thorough,
                 .pressure = round->pressure,
                 .pressing = round->pressing,
                 .all_refusals = round->dry_run,
                 .policy = round->policy,
                 .config = round->config,
                 .record = round->recorder_count > 0 ? tell_recorders : NULL,
                 .record_data = &zone_round},
    };

    look_at_zone(&zone_round);
    if (!decisions)
        return 0;
    look_at_domains(&zone_round);
    size_t count = policy_book_plan(zone_round.book, &zone_round.plan, decisions, max);
    return count > 0 ? append(&zone_round, decisions, count) : 0;
}

int sampler_round(struct sampler *sampler, struct sampler_round *round)
{
    size_t max = round->config->moves_max + POLICY_REFUSALS_MAX;
    struct policy_decision *decisions = malloc(max * sizeof(*decisions));
    int result = decisions ? 0 : -ENOMEM;

    round->decisions = NULL;
    round->count = 0;
    round->active = false;
    for (uint32_t zone = 0; zone < sampler->zone_count; zone++) {
        int r = round_of_zone(sampler, round, zone, decisions, max);
        result = r < 0 ? r : result;
    }
    free(decisions);
    return result;
}

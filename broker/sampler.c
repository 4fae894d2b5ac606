/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sampler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/policy_track.h"
#include "broker/rcu.h"
#include "broker/rebalancer.h"
#include "ring/order.h"

/* Refusals that a round tells of, beside its moves. */
#define REFUSALS_MAX 256u
#define NO_SLOT UINT16_MAX

/* What is remembered of a ring. */
struct watch {
    struct policy_track track;
    uint64_t epoch; /* of its high-water mark */
};

struct sampler {
    const struct channels *channels;
    const struct domains *domains;
    struct zone *const *zones;
    uint32_t zone_count;
    uint32_t channels_max;
    struct watch *watches; /* of ring r of channel n: n * 2 + r */
    /* Of one round. Those of a zone begin at that of its first channel. */
    struct policy_ring *rings;
    struct policy_scratch *scratch;
    size_t *ring_count;   /* of each zone */
    uint64_t *used_bytes; /* of each zone */
    /* Domains of one zone. */
    struct policy_domain *zone_domains;
    uint64_t *domain_scratch;
    size_t domain_count;
    uint16_t slot[PROTO_DOMAIN_MAX + 1];
};

int sampler_new(const struct channels *channels, const struct domains *domains,
                struct zone *const *zones, uint32_t zone_count, uint32_t channels_max,
                struct sampler **out)
{
    size_t rings = (size_t)channels_max * 2;
    struct sampler *sampler = calloc(1, sizeof(*sampler));

    if (!sampler)
        return -ENOMEM;
    *sampler = (struct sampler){
        .channels = channels,
        .domains = domains,
        .zones = zones,
        .zone_count = zone_count,
        .channels_max = channels_max,
        .watches = calloc(rings, sizeof(*sampler->watches)),
        .rings = calloc(rings, sizeof(*sampler->rings)),
        .scratch = calloc(rings, sizeof(*sampler->scratch)),
        .ring_count = calloc(zone_count, sizeof(*sampler->ring_count)),
        .used_bytes = calloc(zone_count, sizeof(*sampler->used_bytes)),
        .zone_domains = calloc(rings, sizeof(*sampler->zone_domains)),
        .domain_scratch = calloc(rings, sizeof(*sampler->domain_scratch)),
    };
    memset(sampler->slot, 0xff, sizeof(sampler->slot));
    *out = sampler;
    if (sampler->watches && sampler->rings && sampler->scratch && sampler->ring_count &&
        sampler->used_bytes && sampler->zone_domains && sampler->domain_scratch)
        return 0;
    sampler_free(sampler);
    *out = NULL;
    return -ENOMEM;
}

void sampler_free(struct sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->watches);
    free(sampler->rings);
    free(sampler->scratch);
    free(sampler->ring_count);
    free(sampler->used_bytes);
    free(sampler->zone_domains);
    free(sampler->domain_scratch);
    free(sampler);
}

uint32_t sampler_channels(const struct sampler *sampler)
{
    return order_load_plain(&sampler->channels->count);
}

static void look_at_ring(struct sampler *sampler, struct sampler_round *round,
                         struct channel *channel, unsigned ring)
{
    const struct channel_ring_view *view = channel_ring_view(channel, ring);
    struct watch *watch = &sampler->watches[(size_t)channel->number * 2 + ring];
    struct layout_ring *shared = &channel->page->ring[ring];
    const struct ring_geometry geometry = {
        .shared = shared, .current = view->current, .old = view->old};
    bool open = order_load_plain(&channel->state) != LAYOUT_CHANNEL_CLOSED;
    struct policy_look look = {
        .now_ns = round->now_ns,
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
        .regular = round->regular,
    };
    uint32_t zone = channel->zone->index;

    if (watch->track.ring.incarnation != channel->incarnation)
        watch->epoch = 0;
    /* New rings, and all of them after the configuration has been read again. */
    if (order_load_plain(&shared->geometry.report_every) != round->config->notifications)
        order_store_plain(&shared->geometry.report_every, (uint32_t)round->config->notifications);
    ring_sample_take(shared, view->current.size + view->old.size, watch->epoch, &look.sample);
    policy_track_look(&watch->track, &look, round->config);
    order_store_plain(&channel->ring[ring].active_ns, watch->track.ring.active_ns);
    if (policy_track_active(&watch->track)) {
        round->active = true;
        /* The ends read this line with every operation, so an idle ring's is left alone. */
        if (round->regular)
            ring_sample_epoch(shared, ++watch->epoch);
    }
    sampler->used_bytes[zone] += view->current.size + view->old.size;
    sampler->rings[channel->zone->first_number * (size_t)2 + sampler->ring_count[zone]++] =
        watch->track.ring;
}

static void look_at_all(struct sampler *sampler, struct sampler_round *round)
{
    struct cds_lfht_iter iterator;

    memset(sampler->ring_count, 0, sampler->zone_count * sizeof(*sampler->ring_count));
    memset(sampler->used_bytes, 0, sampler->zone_count * sizeof(*sampler->used_bytes));
    rcu_enter();
    for (struct channel *channel = channels_first(sampler->channels, &iterator); channel;
         channel = channels_next(sampler->channels, &iterator)) {
        /* A page whose channel goes while another takes it is met twice. */
        uint32_t zone = channel->zone->index;
        if (sampler->ring_count[zone] / 2 == channel->zone->region.channel_count)
            continue;
        for (unsigned ring = 0; ring < 2; ring++)
            look_at_ring(sampler, round, channel, ring);
    }
    rcu_leave();
}

/* Turns sender domains from numbers into indices, and counts what they hold. */
static void gather_domains(struct sampler *sampler, struct policy_ring *rings, size_t count)
{
    sampler->domain_count = 0;
    rcu_enter();
    for (size_t i = 0; i < count; i++) {
        uint32_t number = rings[i].domain;
        uint16_t *slot = &sampler->slot[number];
        if (*slot == NO_SLOT) {
            const struct domain *domain = domains_find(sampler->domains, number);
            *slot = (uint16_t)sampler->domain_count++;
            sampler->zone_domains[*slot] = (struct policy_domain){
                .domain = number,
                .quota_bytes = domain ? order_load_plain(&domain->quota_bytes) : 0,
            };
        }
        rings[i].domain = *slot;
        sampler->zone_domains[*slot].charged_bytes += rings[i].size_bytes;
    }
    rcu_leave();
    for (size_t i = 0; i < sampler->domain_count; i++)
        sampler->slot[sampler->zone_domains[i].domain] = NO_SLOT;
}

/* Appends a zone's decisions to the round's. */
static int append(struct sampler *sampler, struct sampler_round *round,
                  const struct policy_ring *rings, const struct policy_decision *decisions,
                  size_t count)
{
    struct rebalancer_decision *all =
        realloc(round->decisions, (round->count + count) * sizeof(*all));

    if (!all)
        return -ENOMEM;
    round->decisions = all;
    for (size_t i = 0; i < count; i++) {
        const struct policy_ring *ring = &rings[decisions[i].index];
        all[round->count++] = (struct rebalancer_decision){
            .policy = decisions[i],
            .incarnation = ring->incarnation,
            .channel = ring->channel,
            .ring = ring->ring,
        };
        if (!round->dry_run)
            policy_track_decided(&sampler->watches[(size_t)ring->channel * 2 + ring->ring].track,
                                 &decisions[i], round->now_ns);
    }
    return 0;
}

static int plan_zone(struct sampler *sampler, struct sampler_round *round, uint32_t index,
                     struct policy_decision *decisions, size_t max)
{
    const struct zone *zone = sampler->zones[index];
    struct policy_ring *rings = &sampler->rings[zone->first_number * (size_t)2];
    size_t count = sampler->ring_count[index];
    uint64_t used = sampler->used_bytes[index];

    gather_domains(sampler, rings, count);
    struct policy_input input = {
        .now_ns = round->now_ns,
        .total_bytes = zone->region.data_bytes,
        .free_bytes = zone->region.data_bytes > used ? zone->region.data_bytes - used : 0,
        .largest_free_bytes = zone->region.data_bytes > used ? zone->region.data_bytes - used : 0,
        .rings = rings,
        .ring_count = count,
        .domains = sampler->zone_domains,
        .domain_count = sampler->domain_count,
        .scratch = &sampler->scratch[zone->first_number * (size_t)2],
        .domain_scratch = sampler->domain_scratch,
        .pressure = round->pressure,
        .all_refusals = round->dry_run,
    };
    size_t decided = round->policy->plan(&input, round->config, decisions, max);
    return decided > 0 ? append(sampler, round, rings, decisions, decided) : 0;
}

int sampler_round(struct sampler *sampler, struct sampler_round *round)
{
    size_t max = round->config->moves_max + REFUSALS_MAX;
    struct policy_decision *decisions = malloc(max * sizeof(*decisions));
    int result = decisions ? 0 : -ENOMEM;

    round->decisions = NULL;
    round->count = 0;
    round->active = false;
    look_at_all(sampler, round);
    for (uint32_t zone = 0; decisions && zone < sampler->zone_count; zone++) {
        if (sampler->ring_count[zone] == 0)
            continue;
        int r = plan_zone(sampler, round, zone, decisions, max);
        result = r < 0 ? r : result;
    }
    free(decisions);
    return result;
}

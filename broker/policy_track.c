/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/policy_track.h"

#define NS_PER_MS 1000000u
#define NS_PER_S 1000000000u

/* So many make the smoothed rate. */
#define RATE_LOOKS 8u
/* Busy looks after which a slower consumer is known to be one. */
#define DRAIN_LOOKS 4u
/* A refusal is told again after this long, if it still holds. */
#define REFUSAL_NS (60000ull * NS_PER_MS)
/* Regular looks after a growth until it is judged: the first one still has stalls from before. */
#define JUDGE_INTERVALS 3u
/* "Lately" is at least this part of calm_ms, for a ring of no recall. */
#define LATELY_PART 16u
/* A growth so many times "lately" after a shrink shows that its need was forgotten too soon. */
#define RECALL_WAITS 4u
/* After so many periods it is seen how much it needed then. */
#define REGRET_PERIODS 2u
/* Recall goes back after so many times "lately" without that. */
#define RECALL_FORGET 32u
/* A growth so many waits after a shrink shows that the shrink was a mistake. */
#define REGRET_WAITS 4u
/* Patience goes back after so many times the wait that it makes, without another growth. */
#define PATIENCE_FORGET 64u

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Counters of an honest end only rise; those of another one may do what they like. */
static uint64_t risen(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

static uint32_t stalled_permille(const struct policy_ring *ring)
{
    uint64_t ns = ring->interval_ns + ring->last_interval_ns;

    return ns ? (uint32_t)((ring->stall_ns + ring->last_stall_ns) * 1000 / ns) : 0;
}

static void begin(struct policy_track *track, const struct policy_look *look)
{
    *track = (struct policy_track){
        .ring = {.incarnation = look->incarnation,
                 .size_bytes = look->size_bytes,
                 .received_ns = look->opened_ns,
                 .changed_ns = look->opened_ns,
                 .grew = true},
        .start_ns = look->opened_ns,
        .last_ns = look->opened_ns,
        .peak_window_ns = look->now_ns,
    };
}

static void next_interval(struct policy_track *track)
{
    struct policy_ring *ring = &track->ring;

    ring->last_interval_ns = ring->interval_ns;
    ring->last_sent_bytes = ring->sent_bytes;
    ring->last_received_bytes = ring->received_bytes;
    ring->last_stalls = ring->stalls;
    ring->last_stall_ns = ring->stall_ns;
    track->start = track->last;
    track->start_ns = track->last_ns;
    track->interval_over = false;
}

/*
 * Finished stalls, and as much of the one that is going on as we have seen; no more than there was
 * time.
 */
static uint64_t stall_time(struct policy_track *track, const struct policy_look *look)
{
    const struct ring_sample *now = &look->sample;
    uint64_t ns = risen(now->stall_ns, track->start.stall_ns);

    if (now->stalled) {
        if (!track->last.stalled || now->stalls != track->last.stalls)
            track->stall_seen_ns = look->now_ns;
        ns += look->now_ns - max_u64(track->stall_seen_ns, track->start_ns);
    }
    return ns < track->ring.interval_ns ? ns : track->ring.interval_ns;
}

/*
 * How fast the consumer can drain shows from look to look. While it has something to read all the
 * time, what it drains is what it can, also when that is less than before.
 */
static void watch_drain(struct policy_track *track, const struct policy_look *look)
{
    const struct ring_sample *now = &look->sample, *last = &track->last;
    uint64_t ns = max_u64(risen(look->now_ns, track->last_ns), NS_PER_MS);
    uint64_t rate = (uint64_t)((unsigned __int128)risen(now->received_bytes, last->received_bytes) *
                               NS_PER_S / ns);
    bool busy = last->held_bytes > 0 && now->held_bytes > 0 &&
                now->consumer_sleeps == last->consumer_sleeps;

    if (rate > track->ring.drain_rate)
        track->ring.drain_rate = rate;
    else if (busy && look->regular)
        track->ring.drain_rate -= (track->ring.drain_rate - rate) / DRAIN_LOOKS;
}

static void count(struct policy_track *track, const struct policy_look *look)
{
    struct policy_ring *ring = &track->ring;
    const struct ring_sample *now = &look->sample;
    const struct ring_sample *start = &track->start;

    watch_drain(track, look);
    ring->interval_ns = risen(look->now_ns, track->start_ns);
    ring->sent_bytes = risen(now->sent_bytes, start->sent_bytes);
    ring->received_bytes = risen(now->received_bytes, start->received_bytes);
    ring->stalls = risen(now->stalls, start->stalls);
    ring->stall_ns = stall_time(track, look);
    ring->sender_sleeps = risen(now->producer_sleeps, start->producer_sleeps);
    ring->receiver_sleeps = risen(now->consumer_sleeps, start->consumer_sleeps);
    ring->operations = risen(now->sent_operations, start->sent_operations) +
                       risen(now->received_operations, start->received_operations);
    ring->stalled = now->stalled;
    ring->held_bytes = now->held_bytes;
    if (now->sent_bytes != track->last.sent_bytes ||
        now->received_bytes != track->last.received_bytes)
        ring->active_ns = look->now_ns;
    if (now->received_bytes != track->last.received_bytes || now->held_bytes == 0)
        ring->received_ns = look->now_ns;
    if (now->stalled || ring->stalls > 0)
        ring->stalled_ns = look->now_ns;
    if (now->held_bytes == 0 || now->consumer_sleeps != track->last.consumer_sleeps)
        ring->starved_ns = look->now_ns;
}

/* Windows of this length: a need is remembered for one to two of them while others want memory. */
static uint64_t lately_ns(const struct policy_track *track, const struct policy_config *config)
{
    return config->calm_ms * NS_PER_MS / LATELY_PART << track->ring.recall;
}

/* The most of two windows each, so that it covers at least one whole one. */
static void watch_peak(struct policy_track *track, const struct policy_look *look,
                       const struct policy_config *config)
{
    uint64_t window_ns = (config->calm_ms * NS_PER_MS) << track->ring.patience;

    if (look->now_ns - track->peak_window_ns >= window_ns) {
        track->peak_before_bytes = track->peak_now_bytes;
        track->peak_now_bytes = 0;
        track->peak_window_ns = look->now_ns;
    }
    track->peak_now_bytes = max_u64(track->peak_now_bytes, look->sample.high_water_bytes);
    track->ring.peak_bytes = max_u64(track->peak_now_bytes, track->peak_before_bytes);
    if (look->now_ns - track->lately_window_ns >= lately_ns(track, config)) {
        track->lately_before_bytes = track->lately_now_bytes;
        track->lately_now_bytes = 0;
        track->lately_window_ns = look->now_ns;
    }
    track->lately_now_bytes = max_u64(track->lately_now_bytes, look->sample.high_water_bytes);
    track->ring.lately_bytes = max_u64(track->lately_now_bytes, track->lately_before_bytes);
}

static void change_patience(struct policy_track *track, const struct policy_look *look, bool more)
{
    if (more && track->ring.patience < POLICY_PATIENCE_MAX)
        track->ring.patience++;
    if (!more && track->ring.patience > 0)
        track->ring.patience--;
    track->patience_ns = look->now_ns;
}

/*
 * Bursts that come soon after one another are served best by a ring that keeps what it has, those
 * that come seldom by one that gives it away in between. Which they are shows when a ring that has
 * shrunk grows again soon, and then turns out to hold about as much as it had been able to.
 */
static void watch_recall(struct policy_track *track, const struct policy_look *look,
                         const struct policy_config *config)
{
    struct policy_ring *ring = &track->ring;
    uint64_t window_ns = lately_ns(track, config);

    track->regret_peak_bytes = max_u64(track->regret_peak_bytes, look->sample.high_water_bytes);
    if (look->size_bytes > ring->size_bytes && track->shrunk_ns &&
        look->now_ns - track->shrunk_ns < RECALL_WAITS * window_ns) {
        track->regret_ns = look->now_ns + REGRET_PERIODS * config->period_ms * NS_PER_MS;
        track->regret_from_bytes = track->shrunk_from_bytes;
        track->regret_peak_bytes = 0;
    } else if (track->regret_ns && look->now_ns >= track->regret_ns) {
        bool regretted =
            track->regret_peak_bytes <= track->regret_from_bytes + track->regret_from_bytes / 2;
        if (regretted && ring->recall < POLICY_RECALL_MAX)
            ring->recall++;
        if (regretted)
            track->recall_ns = look->now_ns;
        track->regret_ns = 0;
    } else if (ring->recall > 0 && look->now_ns - track->recall_ns > RECALL_FORGET * window_ns) {
        ring->recall--;
        track->recall_ns = look->now_ns;
    }
}

static void watch_size(struct policy_track *track, const struct policy_look *look,
                       const struct policy_config *config)
{
    struct policy_ring *ring = &track->ring;
    uint64_t wait_ns = (max_u64(config->idle_ms, config->calm_ms) * NS_PER_MS) << ring->patience;

    if (look->size_bytes > ring->size_bytes) {
        ring->grew = true;
        ring->no_help = false;
        track->stalled_permille_before = stalled_permille(ring);
        track->judge_intervals = JUDGE_INTERVALS;
        ring->judging = true;
        if (track->shrunk_ns && look->now_ns - track->shrunk_ns < REGRET_WAITS * wait_ns)
            change_patience(track, look, true);
        track->shrunk_ns = 0;
        if (look->size_bytes >= ring->former_bytes)
            ring->former_bytes = 0;
    } else if (look->size_bytes < ring->size_bytes) {
        ring->grew = ring->no_help = ring->judging = false;
        track->judge_intervals = 0;
        track->shrunk_ns = look->now_ns;
        track->shrunk_from_bytes = ring->size_bytes;
        ring->former_bytes = max_u64(ring->former_bytes, ring->size_bytes);
    } else {
        if (ring->patience > 0 && look->now_ns - track->patience_ns > PATIENCE_FORGET * wait_ns)
            change_patience(track, look, false);
        if (look->now_ns - ring->changed_ns > REGRET_WAITS * wait_ns)
            ring->former_bytes = 0;
        return;
    }
    ring->size_bytes = look->size_bytes;
    ring->changed_ns = look->now_ns;
    ring->refused = POLICY_NO_REASON;
}

/* Bytes drained a second, smoothed over the last RATE_LOOKS regular looks. */
static void smooth_rate(struct policy_track *track)
{
    const struct policy_ring *ring = &track->ring;
    uint64_t ns = max_u64(ring->interval_ns, 1);
    uint64_t now = (uint64_t)((unsigned __int128)ring->received_bytes * NS_PER_S / ns);

    if (track->rate_looks < RATE_LOOKS)
        track->rate_looks++;
    track->rate = track->rate - track->rate / track->rate_looks + now / track->rate_looks;
}

/*
 * Did the last growth make the stalls shorter by a quarter? What was found holds until the load is
 * another.
 */
static void judge(struct policy_track *track)
{
    struct policy_ring *ring = &track->ring;

    smooth_rate(track);
    if (track->judge_intervals > 0 && !ring->moving && --track->judge_intervals == 0) {
        ring->judging = false;
        ring->no_help =
            (uint64_t)stalled_permille(ring) * 4 > (uint64_t)track->stalled_permille_before * 3;
        track->judged_rate = track->rate;
    }
    if (track->rate / 2 > track->judged_rate || track->rate < track->judged_rate / 2)
        ring->no_help = false;
}

void policy_track_look(struct policy_track *track, const struct policy_look *look,
                       const struct policy_config *config)
{
    struct policy_ring *ring = &track->ring;

    if (ring->incarnation != look->incarnation)
        begin(track, look);
    else if (track->interval_over)
        next_interval(track);
    ring->channel = look->channel;
    ring->ring = look->ring;
    ring->domain = look->domain;
    ring->weight = look->weight;
    ring->min_bytes = look->min_bytes;
    ring->max_bytes = look->max_bytes;
    ring->promised_bytes = look->promised_bytes;
    ring->moving = look->moving;
    watch_recall(track, look, config);
    watch_size(track, look, config);
    count(track, look);
    watch_peak(track, look, config);
    if (look->regular)
        judge(track);
    if (ring->refused && look->now_ns - track->refused_ns > REFUSAL_NS)
        ring->refused = POLICY_NO_REASON;
    track->last = look->sample;
    track->last_ns = look->now_ns;
    track->interval_over = look->regular;
}

void policy_track_skip(struct policy_track *track, uint64_t until_ns)
{
    if (until_ns <= track->last_ns)
        return;
    track->start = track->last;
    track->start_ns = track->last_ns = until_ns;
    if (track->last.held_bytes == 0)
        track->ring.received_ns = track->ring.starved_ns = until_ns;
}

void policy_track_decided(struct policy_track *track, const struct policy_decision *decision,
                          uint64_t now_ns)
{
    if (!decision->refused)
        return;
    track->ring.refused = decision->reason;
    track->refused_ns = now_ns;
}

bool policy_track_active(const struct policy_track *track)
{
    return track->ring.sent_bytes > 0 || track->ring.received_bytes > 0;
}

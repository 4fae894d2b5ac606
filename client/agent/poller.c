/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/agent/agent.h"
#include "client/agent/guard.h"
#include "ring/memory.h"
#include "ring/order.h"

#define PAUSE_MIN_MS 1u
#define PAUSE_MAX_MS 16u
/* Quiet looks before the pause doubles. */
#define QUIET_LOOKS 100u

/* Words that grow, mixed so that no two changes cancel out (by accident). */
static uint64_t mix(uint64_t sum, uint64_t word)
{
    return (sum ^ word) * 0x9e3779b97f4a7c15ull;
}

/* All in a ring that those write who may wake the end. */
static uint64_t sum_of(const struct layout_ring *ring, bool receives)
{
    const struct layout_sleep *other = receives ? &ring->producer_sleep : &ring->consumer_sleep;
    uint64_t sum = mix(0, order_load_acquire(&ring->geometry.generation));

    sum = mix(sum, order_load_acquire(&other->closed));
    if (receives) {
        sum = mix(sum, order_load_acquire(&ring->producer.switch_count));
        return mix(sum, order_load_acquire(&ring->producer.tail));
    }
    sum = mix(sum, order_load_acquire(&ring->consumer.followed));
    return mix(sum, order_load_acquire(&ring->consumer.head));
}

/* True: the side sleeps, and should not. */
static bool look_at_side(struct polled *polled, unsigned i, bool *changed)
{
    const bool receives = i == 0;
    const struct layout_ring *ring =
        &polled->page->ring[polled->server == receives ? LAYOUT_CLIENT_SENDS : LAYOUT_SERVER_SENDS];
    const struct layout_sleep *sleep = receives ? &ring->consumer_sleep : &ring->producer_sleep;
    const uint32_t armed = order_load_acquire(&sleep->armed);
    const uint64_t sum = sum_of(ring, receives);
    const uint64_t position = receives ? order_load_acquire(&ring->producer.tail)
                                       : order_load_acquire(&ring->consumer.head);
    const bool news = sum != polled->seen[i];

    polled->seen[i] = sum;
    *changed |= news;
    if (armed == 0 || (!news && armed == polled->rung[i]))
        return false;
    if (!news && order_load_plain(&sleep->wanted) > position)
        return false;
    polled->rung[i] = armed;
    return true;
}

bool poller_look(struct polled *polled)
{
    const struct layout_channel *channel = &polled->page->channel;
    const uint64_t state = mix(mix(0, order_load_acquire(&channel->state)),
                               order_load_acquire(&channel->gone));
    bool changed = state != polled->seen_state;
    bool wake = changed;

    polled->seen_state = state;
    for (unsigned i = 0; i < 2; i++)
        wake |= look_at_side(polled, i, &changed);
    if (wake)
        vectors_wake(polled->vector);
    return changed;
}

static bool has_interrupts(const struct attachment *attachment)
{
    return attachment->device.vectors > 0;
}

static bool is_open(const struct attachment *attachment)
{
    return attachment->state == ATTACHMENT_OPEN || attachment->state == ATTACHMENT_READY;
}

static void on_timer(void *context)
{
    struct poller *poller = context;
    struct attachment *attachment;
    struct polled *polled;
    bool changed = false;
    uint64_t count;

    if (read(poller->timer.fd, &count, sizeof(count)) < 0)
        return;
    TAILQ_FOREACH(attachment, &poller->agent->attachments, link) {
        if (!is_open(attachment) || has_interrupts(attachment))
            continue;
        changed |= attachment->mailbox.state == MAILBOX_ASKED;
        mailbox_look(&attachment->mailbox);
    }
    TAILQ_FOREACH(polled, &poller->ends, link)
        changed |= poller_look(polled);
    poller->quiet = changed ? 0 : poller->quiet + 1;
    if (changed)
        poller->pause_ms = PAUSE_MIN_MS;
    else if (poller->quiet % QUIET_LOOKS == 0 && poller->pause_ms < PAUSE_MAX_MS)
        poller->pause_ms *= 2;
    poller_update(poller);
}

int poller_init(struct poller *poller, struct agent *agent)
{
    *poller = (struct poller){.agent = agent, .pause_ms = PAUSE_MIN_MS};
    TAILQ_INIT(&poller->ends);
    return loop_timer_init(&agent->loop, &poller->timer, on_timer, poller);
}

void poller_deinit(struct poller *poller)
{
    loop_timer_deinit(&poller->timer);
}

void poller_update(struct poller *poller)
{
    struct attachment *attachment;

    TAILQ_FOREACH(attachment, &poller->agent->attachments, link) {
        if (is_open(attachment) && !has_interrupts(attachment)) {
            loop_timer_set(&poller->timer, poller->pause_ms);
            return;
        }
    }
    loop_timer_stop(&poller->timer);
}

int poller_add(struct poller *poller, struct device *device, uint64_t page_offset, bool server,
               struct vector *vector, struct polled **out)
{
    struct polled *polled = calloc(1, sizeof(*polled));

    if (!polled)
        return -ENOMEM;
    *polled = (struct polled){.vector = vector, .server = server};
    int r = ring_memory_map_page(&device->memory, page_offset, &polled->page);
    if (r == 0) {
        r = guard_add(polled->page, LAYOUT_CHANNEL_PAGE_BYTES, &device->lost);
        if (r < 0)
            ring_memory_unmap_page(polled->page);
    }
    if (r < 0) {
        free(polled);
        return r;
    }
    TAILQ_INSERT_TAIL(&poller->ends, polled, link);
    poller->pause_ms = PAUSE_MIN_MS;
    *out = polled;
    return 0;
}

void poller_remove(struct poller *poller, struct polled *polled)
{
    if (!polled)
        return;
    TAILQ_REMOVE(&poller->ends, polled, link);
    guard_remove(polled->page);
    ring_memory_unmap_page(polled->page);
    free(polled);
}

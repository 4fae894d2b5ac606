/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/guest_mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/guest_bridge.h"
#include "ring/order.h"

/* Bit 63 is no channel's; the domain lies above the channel's number. */
#define COOKIE_MARK ((uint64_t)1 << 63)
#define COOKIE_DOMAIN_SHIFT 40
/* In 10 s, about one guest. */
#define LINES_A_GUEST 5

struct guest_mailbox {
    struct guest *guest;
    uint32_t request;             /* the last that was looked at; 0: none yet */
    bool wanted;                  /* and it is not answered yet */
    uint64_t due_ns;              /* no mailbox is made before */
    bool deaf;                    /* ringing the guest had to be interrupted: never again */
    struct guest_bridge *bridge;  /* NULL: there is no mailbox now */
    struct ring_extent extent[2]; /* size 0: none */
    bool page_taken;
    uint32_t slot; /* of the page, or of the last one, whose memory may be there still: */
    uint64_t incarnation;
    sd_event_source *timer;
    struct log_limit lines;
};

uint64_t guest_mailbox_cookie(uint32_t page_number, unsigned ring, uint32_t domain)
{
    return COOKIE_MARK | (uint64_t)domain << COOKIE_DOMAIN_SHIFT | zone_cookie(page_number, ring);
}

bool guest_mailbox_owns(uint64_t cookie, uint32_t *domain)
{
    *domain = (uint32_t)((cookie & ~COOKIE_MARK) >> COOKIE_DOMAIN_SHIFT);
    return cookie & COOKIE_MARK;
}

static void warn(struct guest_mailbox *mailbox, const char *what, int err)
{
    const struct guest *guest = mailbox->guest;
    uint32_t left_out;

    if (!log_limit_admits(&mailbox->lines, LINES_A_GUEST, broker_now_ns(), &left_out))
        return;
    log_warning(&guest->broker->log, "domain %u (peer %u of zone %s): %s: %s (%u lines left out)",
                guest->domain, guest->id, guest->zone->name, what, strerror(-err), left_out);
}

static struct layout_peer *peer_of(const struct guest *guest)
{
    return region_peer(&guest->zone->region, guest->id);
}

static void ring(struct guest_mailbox *mailbox)
{
    const struct guest *guest = mailbox->guest;

    if (!mailbox->deaf)
        mailbox->deaf =
            !doorbell_ring(&guest->broker->channels.doorbell, guest->event[GUEST_VECTOR_MAILBOX]);
}

/* The memory of the last one's page: by now nobody looks at it. */
static void trim_page(struct guest_mailbox *mailbox)
{
    if (mailbox->incarnation > 0)
        zone_page_trim(mailbox->guest->zone, mailbox->slot, mailbox->incarnation);
}

/* The guest may write there still; that hurts whoever has it next no more than any member of the
 * zone can. */
static void give_memory(struct guest_mailbox *mailbox)
{
    struct zone *zone = mailbox->guest->zone;

    for (unsigned i = 0; i < 2; i++) {
        if (mailbox->extent[i].size == 0)
            continue;
        order_store_plain(&zone->mailbox_bytes, zone->mailbox_bytes - mailbox->extent[i].size);
        zone_extent_give(zone, &mailbox->extent[i]);
        mailbox->extent[i] = (struct ring_extent){0};
    }
    if (mailbox->page_taken)
        zone_page_give(zone, mailbox->slot);
    mailbox->page_taken = false;
}

/* Its sessions end, and the agent sees that. */
static void end(struct guest_mailbox *mailbox)
{
    struct guest *guest = mailbox->guest;

    if (!mailbox->bridge)
        return;
    struct layout_channel *line = &region_page(&guest->zone->region, mailbox->slot)->channel;
    guest_bridge_free(mailbox->bridge);
    mailbox->bridge = NULL;
    order_store_plain(&guest->state, PROTO_GUEST_CONNECTED);
    order_store_release(&peer_of(guest)->answered, 0u);
    order_store_release(&line->gone, LAYOUT_GONE_SERVER);
    order_store_release(&line->state, LAYOUT_CHANNEL_CLOSED);
    give_memory(mailbox);
    ring(mailbox);
}

static void on_ended(struct guest *guest, int err)
{
    struct guest_mailbox *mailbox = guest->mailbox;

    if (err == -EIO)
        mailbox->deaf = true;
    if (err != -EPIPE)
        warn(mailbox,
             mailbox->deaf ? "ringing it blocks, its mailbox is closed" : "its mailbox is broken",
             err);
    end(mailbox);
}

static int take_memory(struct guest_mailbox *mailbox)
{
    const struct guest *guest = mailbox->guest;
    struct zone *zone = guest->zone;
    uint32_t slot;
    uint64_t incarnation;

    int r = zone_page_take(zone, &slot, &incarnation);
    if (r < 0)
        return r;
    trim_page(mailbox);
    mailbox->page_taken = true;
    mailbox->slot = slot;
    mailbox->incarnation = incarnation;
    for (unsigned i = 0; i < 2 && r == 0; i++) {
        r = zone_extent_take(zone, PROTO_DOMAIN_HOST, PROTO_MAILBOX_BYTES,
                             guest_mailbox_cookie(zone->first_number + slot, i, guest->domain),
                             &mailbox->extent[i]);
        order_store_plain(&zone->mailbox_bytes, zone->mailbox_bytes + mailbox->extent[i].size);
    }
    return r;
}

/* The page is zero. */
static void fill_page(const struct guest_mailbox *mailbox, struct layout_channel_page *page)
{
    const struct guest *guest = mailbox->guest;
    struct layout_channel *line = &page->channel;
    struct ring_geometry geometry;

    for (unsigned i = 0; i < 2; i++)
        ring_geometry_init(&geometry, &page->ring[i], mailbox->extent[i]);
    line->fence_sleep = 1;
    line->server_domain = PROTO_DOMAIN_HOST;
    line->client_domain = guest->domain;
    line->incarnation = mailbox->incarnation;
    line->server_doorbell = LAYOUT_PEER_HOST << 16 | GUEST_VECTOR_MAILBOX;
    line->client_doorbell = guest->id << 16 | GUEST_VECTOR_MAILBOX;
    order_store_release(&line->state, LAYOUT_CHANNEL_CONNECTED);
}

static int make(struct guest_mailbox *mailbox)
{
    struct guest *guest = mailbox->guest;
    const struct region *region = &guest->zone->region;
    struct layout_peer *peer = peer_of(guest);

    int r = take_memory(mailbox);
    if (r == 0) {
        fill_page(mailbox, region_page(region, mailbox->slot));
        r = guest_bridge_new(guest, region_page(region, mailbox->slot), mailbox->extent, on_ended,
                             &mailbox->bridge);
    }
    if (r < 0) {
        give_memory(mailbox);
        return r;
    }
    order_store_plain(&peer->domain, guest->domain);
    order_store_plain(&peer->page_offset, region_page_offset(region, mailbox->slot));
    order_store_plain(&peer->incarnation, mailbox->incarnation);
    /* Release: who sees the answer sees what it is about. */
    order_store_release(&peer->answered, mailbox->request);
    order_store_plain(&guest->mailboxes, guest->mailboxes + 1);
    ring(mailbox);
    return 0;
}

static void wait_until(struct guest_mailbox *mailbox, uint64_t due_ns)
{
    mailbox->due_ns = due_ns;
    if (sd_event_source_set_time(mailbox->timer, due_ns / 1000 + 1) < 0 ||
        sd_event_source_set_enabled(mailbox->timer, SD_EVENT_ONESHOT) < 0)
        warn(mailbox, "cannot wait to make its mailbox", -ENOMEM);
}

/* Makes it, if it is time; else the timer comes back to it. */
static void answer(struct guest_mailbox *mailbox)
{
    const uint64_t now_ns = broker_now_ns();

    if (!mailbox->wanted || mailbox->deaf)
        return;
    if (now_ns < mailbox->due_ns) {
        wait_until(mailbox, mailbox->due_ns);
        return;
    }
    int r = make(mailbox);
    mailbox->wanted = r < 0;
    mailbox->due_ns = now_ns + GUEST_MAILBOX_PAUSE_MS * 1000000ull;
    if (r < 0) {
        warn(mailbox, "there is no room for its mailbox, trying again", r);
        wait_until(mailbox, now_ns + GUEST_MAILBOX_RETRY_MS * 1000000ull);
    }
}

static int on_timer(sd_event_source *source, uint64_t now_us, void *context)
{
    (void)source;
    (void)now_us;
    answer(context);
    return 0;
}

static int mailbox_of(struct guest *guest, struct guest_mailbox **out)
{
    struct guest_mailbox *mailbox = guest->mailbox;

    if (!mailbox) {
        mailbox = calloc(1, sizeof(*mailbox));
        if (!mailbox)
            return -ENOMEM;
        mailbox->guest = guest;
        int r = sd_event_add_time(guest->broker->event, &mailbox->timer, CLOCK_MONOTONIC, 0, 1000,
                                  on_timer, mailbox);
        if (r >= 0)
            r = sd_event_source_set_enabled(mailbox->timer, SD_EVENT_OFF);
        if (r < 0) {
            sd_event_source_disable_unref(mailbox->timer);
            free(mailbox);
            return r;
        }
        guest->mailbox = mailbox;
    }
    *out = mailbox;
    return 0;
}

void guest_mailbox_look(struct guest *guest)
{
    struct guest_mailbox *mailbox;

    int r = mailbox_of(guest, &mailbox);
    if (r < 0) {
        log_warning(&guest->broker->log, "domain %u: cannot make a mailbox: %s", guest->domain,
                    strerror(-r));
        return;
    }
    /* Acquire: an agent has put its house in order before it asks. */
    const uint32_t request_untrusted = order_load_acquire(&peer_of(guest)->request);
    if (request_untrusted != 0 && request_untrusted != mailbox->request) {
        mailbox->request = request_untrusted;
        mailbox->wanted = true;
        end(mailbox);
        answer(mailbox);
        connection_free_doomed(guest->broker);
    } else if (mailbox->bridge) {
        guest_bridge_turn(mailbox->bridge);
    }
}

void guest_mailbox_free(struct guest *guest)
{
    struct guest_mailbox *mailbox = guest->mailbox;

    if (!mailbox)
        return;
    end(mailbox);
    trim_page(mailbox);
    sd_event_source_disable_unref(mailbox->timer);
    free(mailbox);
    guest->mailbox = NULL;
}

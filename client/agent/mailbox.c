/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "client/agent/guard.h"
#include "ring/order.h"

#define FRAME_BYTES_MAX (sizeof(struct proto_frame) + PROTO_MESSAGE_BYTES_MAX)
#define FRAMES_A_TURN 32
/* A doorbell can be lost: before our interrupts were enabled, or while the broker restarted. */
#define ASK_AGAIN_MS 1000u
/* Then we ask anew: a member of the zone that spoilt our request, or the answer, is not noticed
 * otherwise. */
#define RINGS_A_REQUEST 3u
/* A mailbox that ended is asked for anew, but not in a hurry: somebody may be breaking them. The
 * pause doubles with each that was not there for CHECK_MS. */
#define PAUSE_MIN_MS 100u
#define PAUSE_MAX_MS 3200u
/* Has it ended without a ring? */
#define CHECK_MS 2000u

static void guard_ring(struct mailbox *mailbox, unsigned i, const struct ring_view *view)
{
    if (mailbox->guarded[i] == view->address)
        return;
    if (mailbox->guarded[i])
        guard_remove(mailbox->guarded[i]);
    mailbox->guarded[i] = NULL;
    if (view->address &&
        guard_add(view->address, 2 * view->size, &mailbox->device->lost) == 0)
        mailbox->guarded[i] = view->address;
}

/* Again, from the loop. */
static void look_again(struct mailbox *mailbox)
{
    const uint64_t one = 1;

    /* It is non-blocking and ours alone; EAGAIN would mean that it is readable anyhow. */
    if (write(mailbox->event_fd, &one, sizeof(one)) < 0)
        return;
}

static void ask(struct mailbox *mailbox)
{
    struct layout_peer *peer = mailbox->device->peer;
    uint32_t request = mailbox->request;

    /* A number that was neither the last one nor a predecessor's. */
    while (request == 0 || request == mailbox->request ||
           request == order_load_plain(&peer->request) ||
           request == order_load_plain(&peer->answered))
        if (getrandom(&request, sizeof(request), GRND_NONBLOCK) < 0)
            request += 0x9e3779b9u;
    mailbox->request = request;
    mailbox->rung_again = 0;
    mailbox->state = MAILBOX_ASKED;
    order_store_release(&peer->request, request);
    device_ring(mailbox->device, LAYOUT_PEER_HOST, 0);
    loop_timer_set(&mailbox->timer, ASK_AGAIN_MS);
}

static void detach(struct mailbox *mailbox)
{
    guard_ring(mailbox, 0, &(struct ring_view){0});
    guard_ring(mailbox, 1, &(struct ring_view){0});
    ring_consumer_deinit(&mailbox->receiving);
    ring_producer_deinit(&mailbox->sending);
    if (mailbox->page) {
        guard_remove(mailbox->page);
        ring_memory_unmap_page(mailbox->page);
    }
    mailbox->page = NULL;
    mailbox->wants_room = false;
    mailbox->failed = NULL;
}

/* Ends it and asks for another one after a while. */
static void end(struct mailbox *mailbox, const char *why)
{
    detach(mailbox);
    mailbox->state = MAILBOX_IDLE;
    loop_timer_set(&mailbox->timer, mailbox->pause_ms);
    mailbox->pause_ms = mailbox->pause_ms < PAUSE_MAX_MS ? 2 * mailbox->pause_ms : PAUSE_MAX_MS;
    mailbox->handlers->closed(mailbox->context, why);
}

static int attach(struct mailbox *mailbox)
{
    const struct device *device = mailbox->device;
    const uint64_t offset_untrusted = order_load_plain(&device->peer->page_offset);
    const uint64_t features = device->header.features;

    mailbox->memory = device->memory;
    if (offset_untrusted < device->header.control_offset)
        return -EPROTO;
    int r = ring_memory_map_page(&mailbox->memory, offset_untrusted, &mailbox->page);
    if (r < 0)
        return r;
    r = guard_add(mailbox->page, LAYOUT_CHANNEL_PAGE_BYTES, &mailbox->device->lost);
    if (r < 0) {
        ring_memory_unmap_page(mailbox->page);
        mailbox->page = NULL;
        return r;
    }
    ring_producer_init(&mailbox->sending, mailbox->page, LAYOUT_CLIENT_SENDS, &mailbox->memory,
                       features, PROTO_MAILBOX_BYTES);
    ring_consumer_init(&mailbox->receiving, mailbox->page, LAYOUT_SERVER_SENDS, &mailbox->memory,
                       features);
    mailbox->needed = sizeof(struct proto_frame);
    return 0;
}

/* Has the broker answered? */
static void look_for_answer(struct mailbox *mailbox)
{
    /* Acquire: pairs with the broker's release of answered; the rest of the entry is before it. */
    if (order_load_acquire(&mailbox->device->peer->answered) != mailbox->request)
        return;
    int r = attach(mailbox);
    if (r < 0) {
        mailbox->state = MAILBOX_IDLE;
        loop_timer_set(&mailbox->timer, ASK_AGAIN_MS);
        return;
    }
    mailbox->state = MAILBOX_OPEN;
    loop_timer_set(&mailbox->timer, CHECK_MS);
    mailbox->handlers->opened(mailbox->context);
    look_again(mailbox);
}

static bool is_sound(const struct proto_frame *frame)
{
    if (frame->session > PROTO_SESSION_MAX)
        return false;
    switch (frame->kind) {
    case PROTO_FRAME_DATA:
        return frame->size >= sizeof(struct proto_header) && frame->size <= PROTO_MESSAGE_BYTES_MAX;
    case PROTO_FRAME_CLOSE:
        return frame->size == 0;
    default:
        return false;
    }
}

static int peek(struct mailbox *mailbox, size_t bytes, struct ring_span *span)
{
    mailbox->needed = bytes;
    int r = ring_consumer_peek(&mailbox->receiving, bytes, span);
    guard_ring(mailbox, 0, &mailbox->receiving.view);
    return r;
}

/* 0: a frame was taken; -EAGAIN: none is there. */
static int take_frame(struct mailbox *mailbox)
{
    struct proto_frame frame;
    struct ring_span span;
    int r = peek(mailbox, sizeof(frame), &span);

    if (r < 0)
        return r;
    memcpy(&frame, span.data, sizeof(frame)); /* once: it may change */
    const size_t whole = sizeof(frame) + frame.size;
    if (!is_sound(&frame)) {
        ring_consumer_release(&mailbox->receiving, 0);
        return -EPROTO;
    }
    if (span.size < whole) {
        ring_consumer_release(&mailbox->receiving, 0);
        r = peek(mailbox, whole, &span);
        if (r < 0)
            return r;
    }
    memcpy(mailbox->data, span.data + sizeof(frame), frame.size);
    mailbox->needed = sizeof(frame);
    if (ring_consumer_release(&mailbox->receiving, whole))
        device_ring(mailbox->device, LAYOUT_PEER_HOST, 0);
    mailbox->handlers->frame(mailbox->context, &frame, mailbox->data);
    return 0;
}

/* Sleeps, as far as rings are concerned, until it is rung. False: there is something already. */
static bool arm(struct mailbox *mailbox)
{
    bool sleep = ring_consumer_arm(&mailbox->receiving, mailbox->needed);

    if (ring_consumer_owes_doorbell(&mailbox->receiving))
        device_ring(mailbox->device, LAYOUT_PEER_HOST, 0);
    if (mailbox->wants_room)
        sleep &= ring_producer_arm(&mailbox->sending, FRAME_BYTES_MAX);
    return sleep;
}

static int take_frames(struct mailbox *mailbox)
{
    int r = 0;

    for (int i = 0; i < FRAMES_A_TURN && r == 0; i++) {
        r = take_frame(mailbox);
        if (mailbox->state != MAILBOX_OPEN) /* a handler has stopped it */
            return 0;
    }
    return r;
}

static void turn(struct mailbox *mailbox)
{
    ring_consumer_disarm(&mailbox->receiving);
    ring_producer_disarm(&mailbox->sending);
    int r = take_frames(mailbox);
    if (mailbox->state != MAILBOX_OPEN)
        return;
    if (order_load_acquire(&mailbox->device->peer->answered) != mailbox->request) {
        end(mailbox, "the broker has ended it");
        return;
    }
    if (mailbox->failed) {
        end(mailbox, mailbox->failed);
        return;
    }
    if ((r < 0 && r != -EAGAIN) || mailbox->sending.broken) {
        end(mailbox, r == -EPIPE ? "the broker has closed it" : "there is rubbish in it");
        return;
    }
    if (mailbox->wants_room && mailbox_has_room(mailbox)) {
        mailbox->wants_room = false;
        mailbox->handlers->room(mailbox->context);
        if (mailbox->state != MAILBOX_OPEN)
            return;
    }
    if (r == 0 || !arm(mailbox))
        look_again(mailbox);
}

void mailbox_look(struct mailbox *mailbox)
{
    if (mailbox->state == MAILBOX_ASKED)
        look_for_answer(mailbox);
    else if (mailbox->state == MAILBOX_OPEN)
        turn(mailbox);
}

static void on_event(void *context)
{
    struct mailbox *mailbox = context;
    uint64_t count;

    if (read(mailbox->event_fd, &count, sizeof(count)) < 0)
        return;
    mailbox->handlers->rung(mailbox->context);
    mailbox_look(mailbox);
}

static void on_timer(void *context)
{
    struct mailbox *mailbox = context;
    uint64_t count;

    if (read(mailbox->timer.fd, &count, sizeof(count)) < 0)
        return;
    switch (mailbox->state) {
    case MAILBOX_IDLE:
        ask(mailbox);
        break;
    case MAILBOX_ASKED:
        look_for_answer(mailbox);
        if (mailbox->state != MAILBOX_ASKED)
            break;
        if (++mailbox->rung_again >= RINGS_A_REQUEST) {
            ask(mailbox);
            break;
        }
        device_ring(mailbox->device, LAYOUT_PEER_HOST, 0);
        loop_timer_set(&mailbox->timer, ASK_AGAIN_MS);
        break;
    case MAILBOX_OPEN:
        mailbox->pause_ms = PAUSE_MIN_MS;
        loop_timer_set(&mailbox->timer, CHECK_MS);
        turn(mailbox);
        break;
    }
}

int mailbox_start(struct mailbox *mailbox, struct device *device, struct loop *loop,
                  const struct mailbox_handlers *handlers, void *context)
{
    *mailbox = (struct mailbox){.device = device,
                                .loop = loop,
                                .handlers = handlers,
                                .context = context,
                                .pause_ms = PAUSE_MIN_MS,
                                .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    int r = mailbox->event_fd < 0 ? -errno : 0;

    if (r == 0)
        r = loop_add(loop, &mailbox->event, mailbox->event_fd, on_event, mailbox);
    if (r == 0)
        r = loop_timer_init(loop, &mailbox->timer, on_timer, mailbox);
    if (r == 0 && device->backend->set_vector)
        r = device->backend->set_vector(device, 0, mailbox->event_fd);
    if (r == 0)
        ask(mailbox);
    else
        mailbox_stop(mailbox);
    return r;
}

void mailbox_stop(struct mailbox *mailbox)
{
    if (mailbox->state == MAILBOX_OPEN) {
        (void)ring_consumer_close(&mailbox->receiving);
        (void)ring_producer_close(&mailbox->sending);
        device_ring(mailbox->device, LAYOUT_PEER_HOST, 0);
        detach(mailbox);
    }
    mailbox->state = MAILBOX_IDLE;
    loop_remove(&mailbox->event);
    loop_timer_deinit(&mailbox->timer);
    if (mailbox->event_fd >= 0)
        close(mailbox->event_fd);
    mailbox->event_fd = -1;
}

void mailbox_fail(struct mailbox *mailbox, const char *why)
{
    mailbox->failed = why;
    look_again(mailbox);
}

bool mailbox_has_room(struct mailbox *mailbox)
{
    if (mailbox->state != MAILBOX_OPEN)
        return false;
    if (ring_producer_space(&mailbox->sending) >= FRAME_BYTES_MAX)
        return true;
    if (!mailbox->wants_room)
        look_again(mailbox); /* to arm */
    mailbox->wants_room = true;
    return false;
}

void mailbox_send(struct mailbox *mailbox, uint16_t kind, uint32_t session, const void *head,
                  size_t head_bytes, const void *rest, size_t rest_bytes)
{
    const struct proto_frame frame = {
        .kind = kind, .size = (uint16_t)(head_bytes + rest_bytes), .session = session};
    const size_t whole = sizeof(frame) + head_bytes + rest_bytes;
    struct ring_span span;

    if (mailbox->state != MAILBOX_OPEN)
        return;
    if (ring_producer_reserve(&mailbox->sending, whole, whole, &span) < 0) {
        /* Whoever waits for the answer to what is not sent would wait for ever. */
        mailbox_fail(mailbox, "nothing can be sent in it");
        return;
    }
    guard_ring(mailbox, 1, &mailbox->sending.view);
    memcpy(span.data, &frame, sizeof(frame));
    if (head_bytes)
        memcpy(span.data + sizeof(frame), head, head_bytes);
    if (rest_bytes)
        memcpy(span.data + sizeof(frame) + head_bytes, rest, rest_bytes);
    if (ring_producer_commit(&mailbox->sending, whole))
        device_ring(mailbox->device, LAYOUT_PEER_HOST, 0);
}

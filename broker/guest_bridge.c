/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/guest_bridge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "proto/socket.h"
#include "ring/consumer.h"
#include "ring/order.h"
#include "ring/producer.h"

/* In each direction; then others have their turn. */
#define FRAMES_A_TURN 32
/* Turns in which nothing could be done though the ring said that there was something: an honest
 * guest makes one now and then, as it writes between our two looks. */
#define FRUITLESS_TURNS_MAX 64u
#define FRAME_BYTES_MAX (sizeof(struct proto_frame) + PROTO_MESSAGE_BYTES_MAX)
#define BUCKETS 64u

static_assert(PROTO_MAILBOX_BYTES >= 2 * FRAME_BYTES_MAX, "both ends are to have some lead");

struct session {
    struct cds_list_head link; /* owner: bridge.sessions */
    uint32_t number;
    int socket;
};

struct guest_bridge {
    struct guest *guest;
    guest_bridge_ended *ended;
    struct ring_memory memory[2]; /* by ring: the extent is all of the data section */
    struct ring_producer to_guest;
    struct ring_consumer from_guest;
    struct cds_list_head sessions[BUCKETS];
    struct cds_list_head connections; /* of connection.of_guest */
    uint32_t session_count;
    int epoll;               /* the sessions' sockets */
    struct session *blocked; /* its socket has no room for the frame at the head of the ring */
    bool refusing;           /* a CLOSE for `refused` waits for room in the ring */
    uint32_t refused;
    bool full;          /* the ring has no room: sockets are not read */
    size_t needed;      /* bytes of the frame at the head of the ring, as far as is known */
    bool ring_owed;     /* the guest sleeps, and something has changed */
    bool progress;      /* in this turn */
    uint32_t fruitless; /* turns in a row */
    sd_event_source *replies;
    sd_event_source *room;                       /* NULL: none is blocked */
    int again_fd; /* an eventfd: the turn was over before the work */
    sd_event_source *again;
    uint64_t seen[(PROTO_SESSION_MAX + 1) / 64]; /* numbers that were opened */
};

static struct broker *broker_of(const struct guest_bridge *bridge)
{
    return bridge->guest->broker;
}

static bool was_seen(const struct guest_bridge *bridge, uint32_t number)
{
    return bridge->seen[number / 64] >> (number % 64) & 1;
}

static struct session *session_find(const struct guest_bridge *bridge, uint32_t number)
{
    struct session *session;

    cds_list_for_each_entry(session, &bridge->sessions[number % BUCKETS], link) {
        if (session->number == number)
            return session;
    }
    return NULL;
}

static void count_sessions(struct guest_bridge *bridge, int change)
{
    bridge->session_count += (uint32_t)change;
    order_store_plain(&bridge->guest->sessions, bridge->session_count);
}

static void session_free(struct guest_bridge *bridge, struct session *session)
{
    if (bridge->blocked == session) {
        bridge->blocked = NULL;
        bridge->room = sd_event_source_disable_unref(bridge->room);
    }
    cds_list_del(&session->link);
    close(session->socket); /* which takes it out of the epoll instance; nobody else holds it */
    free(session);
    count_sessions(bridge, -1);
}

static uint32_t sessions_max(const struct broker *broker)
{
    const uint32_t share = (uint32_t)(broker->config.connections / 8);

    return share > GUEST_BRIDGE_SESSIONS_MIN ? share : GUEST_BRIDGE_SESSIONS_MIN;
}

/* ends[0]: the bridge's; both are taken over. */
static int session_join(struct guest_bridge *bridge, uint32_t number, uint32_t pid, int ends[2])
{
    struct session *session = calloc(1, sizeof(*session));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
    struct connection *connection;

    if (!session || epoll_ctl(bridge->epoll, EPOLL_CTL_ADD, ends[0], &event) < 0) {
        free(session);
        close(ends[0]);
        close(ends[1]);
        return -ENOMEM;
    }
    session->number = number;
    session->socket = ends[0];
    cds_list_add(&session->link, &bridge->sessions[number % BUCKETS]);
    count_sessions(bridge, 1);
    /* Where there is no place for it, or it has to make place for another, the socket says so. */
    int r = connection_new_session(bridge->guest, &bridge->connections, ends[1], pid,
                                   number == PROTO_SESSION_AGENT, &connection);
    if (r < 0)
        session_free(bridge, session);
    else
        crowd_admit(connection);
    return r;
}

/* Then a CLOSE goes out, as soon as there is room. */
static void refuse(struct guest_bridge *bridge, uint32_t number)
{
    bridge->refusing = true;
    bridge->refused = number;
}

/* Two opens of one number without a close between them break the rules. */
static int take_open(struct guest_bridge *bridge, uint32_t number, const void *body)
{
    const struct broker *broker = broker_of(bridge);
    struct proto_frame_open open;
    int ends[2];

    if (session_find(bridge, number))
        return -EPROTO;
    memcpy(&open, body, sizeof(open));
    bridge->seen[number / 64] |= 1ull << (number % 64);
    if (bridge->session_count >= sessions_max(broker) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0 ||
        session_join(bridge, number, open.pid, ends) < 0)
        refuse(bridge, number);
    return 0;
}

static int on_room(sd_event_source *source, int socket, uint32_t events, void *context)
{
    struct guest_bridge *bridge = context;

    (void)source;
    (void)socket;
    (void)events;
    bridge->blocked = NULL;
    bridge->room = sd_event_source_disable_unref(bridge->room);
    guest_bridge_turn(bridge);
    return 0;
}

/* 1: its socket is full. What goes to somebody who has gone is dropped. */
static int take_data(struct guest_bridge *bridge, uint32_t number, const void *body, size_t bytes)
{
    struct session *session = session_find(bridge, number);

    if (!session)
        return was_seen(bridge, number) ? 0 : -EPROTO;
    /* Straight from the guest's memory: the kernel copies it once, and it is checked after that. */
    if (send(session->socket, body, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != EAGAIN)
        return 0;
    int r = sd_event_add_io(broker_of(bridge)->event, &bridge->room, session->socket, EPOLLOUT,
                            on_room, bridge);
    if (r < 0)
        return r;
    bridge->blocked = session;
    return 1;
}

static int take_close(struct guest_bridge *bridge, uint32_t number)
{
    struct session *session = session_find(bridge, number);

    if (session)
        session_free(bridge, session);
    return session || was_seen(bridge, number) ? 0 : -EPROTO;
}

static bool is_sound(const struct proto_frame *frame)
{
    if (frame->session > PROTO_SESSION_MAX)
        return false;
    switch (frame->kind) {
    case PROTO_FRAME_OPEN:
        return frame->size == sizeof(struct proto_frame_open);
    case PROTO_FRAME_DATA:
        return frame->size >= sizeof(struct proto_header) && frame->size <= PROTO_MESSAGE_BYTES_MAX;
    case PROTO_FRAME_CLOSE:
        return frame->size == 0;
    default:
        return false;
    }
}

static int take_frame(struct guest_bridge *bridge, const struct proto_frame *frame,
                      const uint8_t *body)
{
    switch (frame->kind) {
    case PROTO_FRAME_OPEN:
        return take_open(bridge, frame->session, body);
    case PROTO_FRAME_DATA:
        return take_data(bridge, frame->session, body, frame->size);
    default:
        return take_close(bridge, frame->session);
    }
}

/* -EAGAIN: it is not there yet. */
static int peek(struct guest_bridge *bridge, size_t bytes, struct ring_span *span)
{
    bridge->needed = bytes;
    int r = ring_consumer_peek(&bridge->from_guest, bytes, span);
    /* What is more than the ring holds, or lies in two extents, no agent has sent. */
    return r == -EMSGSIZE ? -EPROTO : r;
}

/* 0: a frame was taken. -EAGAIN: none is there; -EBUSY: it cannot be taken now. */
static int take_one(struct guest_bridge *bridge)
{
    struct proto_frame frame;
    struct ring_span span;
    int r = peek(bridge, sizeof(frame), &span);

    if (r < 0)
        return r;
    memcpy(&frame, span.data, sizeof(frame)); /* once: it may change */
    const size_t whole = sizeof(frame) + frame.size;
    if (!is_sound(&frame)) {
        r = -EPROTO;
    } else if (span.size < whole) {
        ring_consumer_release(&bridge->from_guest, 0);
        r = peek(bridge, whole, &span);
        if (r < 0)
            return r;
    }
    if (r == 0)
        r = take_frame(bridge, &frame, span.data + sizeof(frame));
    bridge->ring_owed |= ring_consumer_release(&bridge->from_guest, r == 0 ? whole : 0);
    if (r == 0)
        bridge->needed = sizeof(frame);
    return r == 1 ? -EBUSY : r;
}

/* 1: there may be more. 0: something else has to happen first. */
static int take_frames(struct guest_bridge *bridge)
{
    for (unsigned i = 0; i < FRAMES_A_TURN; i++) {
        if (bridge->blocked || bridge->refusing)
            return 0;
        int r = take_one(bridge);
        if (r == -EAGAIN || r == -EBUSY)
            return 0;
        if (r < 0)
            return r;
        bridge->progress = true;
    }
    return 1;
}

/* Room for any frame. -EAGAIN: there is none now. */
static int reserve(struct guest_bridge *bridge, struct ring_span *span)
{
    int r = ring_producer_reserve(&bridge->to_guest, FRAME_BYTES_MAX, FRAME_BYTES_MAX, span);

    return r == -EMSGSIZE ? -EPROTO : r;
}

static void commit(struct guest_bridge *bridge, struct ring_span *span, uint16_t kind,
                   uint32_t session, size_t size)
{
    const struct proto_frame frame = {.kind = kind, .size = (uint16_t)size, .session = session};

    memcpy(span->data, &frame, sizeof(frame));
    bridge->ring_owed |= ring_producer_commit(&bridge->to_guest, sizeof(frame) + size);
    bridge->progress = true;
}

/* 1: there was nothing. */
static int send_one(struct guest_bridge *bridge, struct session *session)
{
    struct proto_message message;
    struct ring_span span;
    int r = reserve(bridge, &span);

    if (r < 0)
        return r;
    r = proto_receive(session->socket, &message, MSG_DONTWAIT);
    if (r == -EAGAIN) {
        ring_producer_commit(&bridge->to_guest, 0);
        return 1;
    }
    if (r == 1) {
        const size_t bytes = sizeof(message.header) + message.header.size;
        proto_message_close(&message); /* a guest's agent attaches its own */
        memcpy(span.data + sizeof(struct proto_frame), &message.header, sizeof(message.header));
        memcpy(span.data + sizeof(struct proto_frame) + sizeof(message.header), message.body,
               message.header.size);
        commit(bridge, &span, PROTO_FRAME_DATA, session->number, bytes);
        return 0;
    }
    commit(bridge, &span, PROTO_FRAME_CLOSE, session->number, 0);
    session_free(bridge, session);
    return 0;
}

static int send_refusal(struct guest_bridge *bridge)
{
    struct ring_span span;
    int r = reserve(bridge, &span);

    if (r < 0)
        return r;
    commit(bridge, &span, PROTO_FRAME_CLOSE, bridge->refused, 0);
    bridge->refusing = false;
    return 0;
}

/* A message of each session that has one, in turn. What does not fit into this turn of ours keeps
 * the source of the epoll instance ready. */
static int send_messages(struct guest_bridge *bridge)
{
    struct epoll_event ready[FRAMES_A_TURN];
    int left = FRAMES_A_TURN, r = 0;

    while (left > 0 && r >= 0) {
        const int count = epoll_wait(bridge->epoll, ready, left, 0);
        if (count <= 0)
            break;
        for (int i = 0; i < count && r >= 0; i++)
            r = send_one(bridge, ready[i].data.ptr);
        left -= count;
    }
    return r;
}

static int send_frames(struct guest_bridge *bridge)
{
    int r = bridge->refusing ? send_refusal(bridge) : 0;

    if (r >= 0)
        r = send_messages(bridge);
    bridge->full = r == -EAGAIN;
    return r < 0 && r != -EAGAIN ? r : 0;
}

/* True: no need to, there is something already. */
static bool arm(struct guest_bridge *bridge)
{
    bool more = false;

    if (bridge->full)
        more = !ring_producer_arm(&bridge->to_guest, FRAME_BYTES_MAX);
    if (!bridge->blocked && !bridge->refusing)
        more |= !ring_consumer_arm(&bridge->from_guest, bridge->needed);
    /* Looking, to arm or before, can have made a step that the guest sleeps for. */
    bridge->ring_owed |= ring_consumer_owes_doorbell(&bridge->from_guest);
    return more;
}

/* The guest that keeps saying that there is something, and there is not, has us turn for
 * nothing. */
static int go_on(struct guest_bridge *bridge)
{
    bridge->fruitless = bridge->progress ? 0 : bridge->fruitless + 1;
    if (bridge->fruitless > FRUITLESS_TURNS_MAX)
        return -EPROTO;
    return eventfd_write(bridge->again_fd, 1) < 0 ? -errno : 0;
}

static int ring_guest(struct guest_bridge *bridge)
{
    if (!bridge->ring_owed)
        return 0;
    bridge->ring_owed = false;
    return doorbell_ring(&broker_of(bridge)->channels.doorbell,
                         bridge->guest->event[GUEST_VECTOR_MAILBOX])
               ? 0
               : -EIO;
}

static int work(struct guest_bridge *bridge)
{
    bridge->progress = false;
    ring_consumer_disarm(&bridge->from_guest);
    ring_producer_disarm(&bridge->to_guest);
    int r = send_frames(bridge);
    if (r < 0)
        return r;
    int more = take_frames(bridge);
    if (more < 0)
        return more;
    /* A refusal of this turn goes out at once, if it can. */
    if (bridge->refusing && !bridge->full) {
        r = send_frames(bridge);
        if (r < 0)
            return r;
        more |= !bridge->refusing;
    }
    r = more > 0 || arm(bridge) ? go_on(bridge) : 0;
    if (r >= 0)
        r = sd_event_source_set_enabled(bridge->replies, bridge->full ? SD_EVENT_OFF : SD_EVENT_ON);
    return r < 0 ? r : ring_guest(bridge);
}

void guest_bridge_turn(struct guest_bridge *bridge)
{
    struct broker *broker = broker_of(bridge);
    int r = work(bridge);

    if (r < 0)
        bridge->ended(bridge->guest, r);
    connection_free_doomed(broker);
}

static int on_replies(sd_event_source *source, int epoll, uint32_t events, void *context)
{
    (void)source;
    (void)epoll;
    (void)events;
    guest_bridge_turn(context);
    return 0;
}

static int on_again(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    eventfd_t count;

    (void)source;
    (void)events;
    (void)eventfd_read(descriptor, &count);
    guest_bridge_turn(context);
    return 0;
}

static int add_sources(struct guest_bridge *bridge)
{
    sd_event *event = broker_of(bridge)->event;

    bridge->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (bridge->epoll < 0)
        return -errno;
    /* sd-event has sources for this, but takes them for those that have waited longest: again and
     * again before all others. The first turn arms. */
    bridge->again_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bridge->again_fd < 0)
        return -errno;
    int r = sd_event_add_io(event, &bridge->replies, bridge->epoll, EPOLLIN, on_replies, bridge);
    if (r >= 0)
        r = sd_event_add_io(event, &bridge->again, bridge->again_fd, EPOLLIN, on_again, bridge);
    return r < 0 ? r : 0;
}

static struct ring_memory memory_of(const struct region *region, const struct ring_extent *extent)
{
    return (struct ring_memory){
        .descriptor = region->descriptor,
        .data_offset = extent->offset,
        .size_bytes = extent->offset + extent->size,
    };
}

int guest_bridge_new(struct guest *guest, struct layout_channel_page *page,
                     const struct ring_extent extent[2], guest_bridge_ended *ended,
                     struct guest_bridge **out)
{
    const struct region *region = &guest->zone->region;
    struct guest_bridge *bridge = calloc(1, sizeof(*bridge));

    if (!bridge)
        return -ENOMEM;
    bridge->guest = guest;
    bridge->ended = ended;
    bridge->epoll = bridge->again_fd = -1;
    bridge->needed = sizeof(struct proto_frame);
    CDS_INIT_LIST_HEAD(&bridge->connections);
    for (unsigned i = 0; i < BUCKETS; i++)
        CDS_INIT_LIST_HEAD(&bridge->sessions[i]);
    for (unsigned ring = 0; ring < 2; ring++)
        bridge->memory[ring] = memory_of(region, &extent[ring]);
    ring_producer_init(&bridge->to_guest, page, LAYOUT_SERVER_SENDS,
                       &bridge->memory[LAYOUT_SERVER_SENDS], region->features, PROTO_MAILBOX_BYTES);
    ring_consumer_init(&bridge->from_guest, page, LAYOUT_CLIENT_SENDS,
                       &bridge->memory[LAYOUT_CLIENT_SENDS], region->features);
    int r = add_sources(bridge);
    if (r < 0) {
        guest_bridge_free(bridge);
        return r;
    }
    *out = bridge;
    return 0;
}

void guest_bridge_free(struct guest_bridge *bridge)
{
    struct connection *connection, *next_connection;
    struct session *session, *next;

    if (!bridge)
        return;
    cds_list_for_each_entry_safe(connection, next_connection, &bridge->connections, of_guest)
        connection_doom(connection, NULL);
    for (unsigned i = 0; i < BUCKETS; i++)
        cds_list_for_each_entry_safe(session, next, &bridge->sessions[i], link)
            session_free(bridge, session);
    ring_producer_deinit(&bridge->to_guest);
    ring_consumer_deinit(&bridge->from_guest);
    sd_event_source_disable_unref(bridge->replies);
    sd_event_source_disable_unref(bridge->room);
    sd_event_source_disable_unref(bridge->again);
    if (bridge->epoll >= 0)
        close(bridge->epoll);
    if (bridge->again_fd >= 0)
        close(bridge->again_fd);
    free(bridge);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/system/fake_guest.h - a VM without a VM: speaks QEMU's ivshmem protocol to a real vchand,
 * maps the region, and plays the agent in the guest with the code of ring/.
 *
 * Everything waits at most PATIENCE_MS, for doorbells only: one that is lost fails the test.
 */
#ifndef VCHAN_TESTS_FAKE_GUEST_H
#define VCHAN_TESTS_FAKE_GUEST_H

#include "tests/system/broker_fixture.h"

#include <endian.h>

#include "proto/guest.h"
#include "ring/consumer.h"
#include "ring/producer.h"

#define FAKE_PEERS 64u
#define FAKE_VECTORS_MAX 16u
#define FAKE_STASH 64u

struct fake_frame {
    struct proto_frame head;
    uint8_t body[PROTO_MESSAGE_BYTES_MAX] __attribute__((aligned(8)));
};

struct fake_guest {
    int socket;
    unsigned vectors;
    uint32_t id;
    int memory;
    uint64_t region_bytes;
    uint8_t *region;
    int event[FAKE_PEERS][FAKE_VECTORS_MAX]; /* [own id]: it waits on; others: it rings. -1: none */
    bool late; /* QEMU's main loop does not run: no news are taken, as if it were stopped */
    /* The agent. */
    uint32_t request;
    struct ring_memory ring_memory;
    struct layout_channel_page *page;
    struct ring_producer to_broker;
    struct ring_consumer from_broker;
    uint32_t next_session;
    struct fake_frame *stash[FAKE_STASH]; /* that came while another was waited for */
    unsigned stashed;
};

/* The configuration that the tests use: two VMs. */
#define FAKE_CONFIG \
    "[guests]\nvectors = 4\n[local]\ndomains = 0-9\n" \
    "[domain web]\nid = 20\n[domain db]\nid = 21\n"
#define WEB 20u
#define DB 21u

/* One message of QEMU's protocol; *attached: -1 when it has no descriptor. False: the end. */
static inline bool ivshmem_receive(int socket, int64_t *value, int *attached)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {value, sizeof(*value)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control)};
    struct pollfd readable = {.fd = socket, .events = POLLIN};

    assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
    ssize_t n = recvmsg(socket, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return false;
    assert_int_equal(n, sizeof(*value));
    *value = (int64_t)le64toh((uint64_t)*value);
    *attached = -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header)
        memcpy(attached, CMSG_DATA(header), sizeof(*attached));
    return true;
}

static inline void fake_take_peer(struct fake_guest *guest, int64_t peer, int attached)
{
    assert_in_range(peer, 0, FAKE_PEERS - 1);
    if (attached < 0) {
        for (unsigned i = 0; i < guest->vectors && guest->event[peer][i] >= 0; i++) {
            close(guest->event[peer][i]);
            guest->event[peer][i] = -1;
        }
        return;
    }
    unsigned vector = 0;
    while (vector < guest->vectors && guest->event[peer][vector] >= 0)
        vector++;
    assert_in_range(vector, 0, guest->vectors - 1);
    guest->event[peer][vector] = attached;
}

/* What QEMU does when peers come and go. */
static inline void fake_news(struct fake_guest *guest)
{
    struct pollfd readable = {.fd = guest->socket, .events = POLLIN};
    int64_t value;
    int attached = -1;

    while (!guest->late && poll(&readable, 1, 0) == 1 &&
           ivshmem_receive(guest->socket, &value, &attached))
        fake_take_peer(guest, value, attached);
}

static inline int fake_connect(const struct broker_process *broker, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/guests/default/%s.sock",
             broker->directory, name);
    /* A broker that has just started makes these sockets after its own. */
    int left_ms = PATIENCE_MS, r;
    while ((r = connect(fd, (struct sockaddr *)&address, sizeof(address))) < 0 && left_ms-- > 0)
        usleep(1000);
    assert_int_equal(r, 0);
    return fd;
}

/* QEMU starts: the device is there, no agent yet. */
static inline void fake_attach(struct fake_guest *guest, const struct broker_process *broker,
                               const char *name, unsigned vectors)
{
    struct stat status;
    int64_t value;
    int attached = -1;

    *guest = (struct fake_guest){.vectors = vectors, .next_session = 1};
    memset(guest->event, 0xff, sizeof(guest->event));
    guest->socket = fake_connect(broker, name);
    assert_true(ivshmem_receive(guest->socket, &value, &attached));
    assert_int_equal(value, 0);
    assert_true(ivshmem_receive(guest->socket, &value, &attached));
    guest->id = (uint32_t)value;
    assert_in_range(guest->id, 1, FAKE_PEERS - 1);
    assert_true(ivshmem_receive(guest->socket, &value, &guest->memory));
    assert_int_equal(value, -1);
    assert_int_equal(fstat(guest->memory, &status), 0);
    guest->region_bytes = (uint64_t)status.st_size;
    guest->region = mmap(NULL, guest->region_bytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_NORESERVE, guest->memory, 0);
    assert_true(guest->region != MAP_FAILED);
    while (guest->event[guest->id][vectors - 1] < 0) {
        assert_true(ivshmem_receive(guest->socket, &value, &attached));
        fake_take_peer(guest, value, attached);
    }
}

static inline void fake_drop_mailbox(struct fake_guest *guest)
{
    if (guest->page) {
        ring_producer_deinit(&guest->to_broker);
        ring_consumer_deinit(&guest->from_broker);
        ring_memory_unmap_page(guest->page);
    }
    guest->page = NULL;
    while (guest->stashed > 0)
        free(guest->stash[--guest->stashed]);
}

/* The VM is gone. */
static inline void fake_detach(struct fake_guest *guest)
{
    fake_drop_mailbox(guest);
    munmap(guest->region, guest->region_bytes);
    close(guest->memory);
    close(guest->socket);
    for (unsigned peer = 0; peer < FAKE_PEERS; peer++)
        for (unsigned i = 0; i < FAKE_VECTORS_MAX; i++)
            if (guest->event[peer][i] >= 0)
                close(guest->event[peer][i]);
}

/* A store to BAR0. */
static inline void fake_ring(struct fake_guest *guest, uint32_t doorbell)
{
    const uint64_t one = 1;
    const uint32_t peer = doorbell >> 16, vector = doorbell & 0xffff;

    fake_news(guest);
    if (peer < FAKE_PEERS && vector < guest->vectors && guest->event[peer][vector] >= 0)
        assert_int_equal(write(guest->event[peer][vector], &one, sizeof(one)), sizeof(one));
}

static inline void fake_ring_broker(struct fake_guest *guest)
{
    fake_ring(guest, LAYOUT_PEER_HOST << 16 | 0);
}

static inline int fake_own_event(const struct fake_guest *guest, uint32_t vector)
{
    return guest->event[guest->id][vector];
}

static inline struct layout_region_header *fake_header(const struct fake_guest *guest)
{
    return (struct layout_region_header *)(void *)guest->region;
}

static inline struct layout_peer *fake_peer(const struct fake_guest *guest)
{
    return (struct layout_peer *)(void *)(guest->region + fake_header(guest)->peers_offset) +
           guest->id;
}

/* The agent starts: asks for a mailbox, without waiting. */
static inline void fake_agent_ask(struct fake_guest *guest)
{
    order_store_release(&fake_peer(guest)->request, ++guest->request);
    fake_ring_broker(guest);
}

static inline bool fake_mailbox_is_there(const struct fake_guest *guest)
{
    return order_load_acquire(&fake_peer(guest)->answered) == guest->request;
}

static inline void fake_await_mailbox(struct fake_guest *guest)
{
    while (!fake_mailbox_is_there(guest))
        await_wake(fake_own_event(guest, 0));
}

static inline void fake_await_no_mailbox(struct fake_guest *guest)
{
    while (fake_mailbox_is_there(guest))
        await_wake(fake_own_event(guest, 0));
}

static inline void fake_open_mailbox(struct fake_guest *guest)
{
    const struct layout_region_header *header = fake_header(guest);

    fake_drop_mailbox(guest);
    guest->ring_memory = (struct ring_memory){.descriptor = guest->memory,
                                              .size_bytes = guest->region_bytes,
                                              .data_offset = header->data_offset};
    assert_int_equal(
        ring_memory_map_page(&guest->ring_memory, fake_peer(guest)->page_offset, &guest->page), 0);
    ring_producer_init(&guest->to_broker, guest->page, LAYOUT_CLIENT_SENDS, &guest->ring_memory,
                       header->features, PROTO_MAILBOX_BYTES);
    ring_consumer_init(&guest->from_broker, guest->page, LAYOUT_SERVER_SENDS, &guest->ring_memory,
                       header->features);
}

static inline void fake_agent_connect(struct fake_guest *guest)
{
    fake_agent_ask(guest);
    fake_await_mailbox(guest);
    fake_open_mailbox(guest);
}

/* False: the ring is full now. */
static inline bool fake_try_send(struct fake_guest *guest, const struct proto_frame *head,
                                 const void *body, size_t bytes)
{
    struct ring_span span;
    const size_t size = sizeof(*head) + bytes;
    int r = ring_producer_reserve(&guest->to_broker, size, size, &span);

    if (r < 0)
        return false;
    memcpy(span.data, head, sizeof(*head));
    if (bytes > 0)
        memcpy(span.data + sizeof(*head), body, bytes);
    if (ring_producer_commit(&guest->to_broker, size))
        fake_ring_broker(guest);
    return true;
}

static inline void fake_send(struct fake_guest *guest, uint16_t kind, uint32_t session,
                             const void *body, size_t bytes)
{
    const struct proto_frame head = {.kind = kind, .size = (uint16_t)bytes, .session = session};

    while (!fake_try_send(guest, &head, body, bytes)) {
        if (ring_producer_arm(&guest->to_broker, sizeof(head) + bytes))
            await_wake(fake_own_event(guest, 0));
        ring_producer_disarm(&guest->to_broker);
    }
}

/* False: none is there, or the mailbox has ended. */
static inline bool fake_try_receive(struct fake_guest *guest, struct fake_frame *frame)
{
    struct ring_span span;

    if (ring_consumer_peek(&guest->from_broker, sizeof(frame->head), &span) < 0)
        return false;
    memcpy(&frame->head, span.data, sizeof(frame->head));
    assert_in_range(sizeof(frame->head) + frame->head.size, sizeof(frame->head), span.size);
    memcpy(frame->body, span.data + sizeof(frame->head), frame->head.size);
    if (ring_consumer_release(&guest->from_broker, sizeof(frame->head) + frame->head.size))
        fake_ring_broker(guest);
    return true;
}

static inline void fake_receive(struct fake_guest *guest, struct fake_frame *frame)
{
    while (!fake_try_receive(guest, frame)) {
        assert_true(fake_mailbox_is_there(guest));
        if (ring_consumer_arm(&guest->from_broker, sizeof(frame->head)))
            await_wake(fake_own_event(guest, 0));
        ring_consumer_disarm(&guest->from_broker);
    }
}

/* The next frame of that session; others keep. */
static inline void fake_receive_of(struct fake_guest *guest, uint32_t session,
                                   struct fake_frame *frame)
{
    for (unsigned i = 0; i < guest->stashed; i++)
        if (guest->stash[i]->head.session == session) {
            *frame = *guest->stash[i];
            free(guest->stash[i]);
            memmove(&guest->stash[i], &guest->stash[i + 1],
                    (--guest->stashed - i) * sizeof(guest->stash[0]));
            return;
        }
    for (;;) {
        fake_receive(guest, frame);
        if (frame->head.session == session)
            return;
        assert_in_range(guest->stashed, 0, FAKE_STASH - 1);
        guest->stash[guest->stashed] = malloc(sizeof(*frame));
        *guest->stash[guest->stashed++] = *frame;
    }
}

/* A program in the guest. */
struct fake_session {
    struct fake_guest *guest;
    uint32_t number;
    uint32_t seq;
};

static inline uint32_t session_send(struct fake_session *session, uint16_t id, const void *body,
                                    size_t bytes)
{
    uint8_t data[PROTO_MESSAGE_BYTES_MAX];
    const struct proto_header header = {
        .id = id, .size = (uint16_t)bytes, .seq = id & PROTO_EVENT ? 0 : ++session->seq};

    memcpy(data, &header, sizeof(header));
    if (bytes > 0)
        memcpy(data + sizeof(header), body, bytes);
    fake_send(session->guest, PROTO_FRAME_DATA, session->number, data, sizeof(header) + bytes);
    return header.seq;
}

/* False: the broker has closed it. */
static inline bool session_receive(struct fake_session *session, struct proto_message *message)
{
    struct fake_frame frame;

    message->header = (struct proto_header){0};
    fake_receive_of(session->guest, session->number, &frame);
    if (frame.head.kind == PROTO_FRAME_CLOSE)
        return false;
    assert_int_equal(frame.head.kind, PROTO_FRAME_DATA);
    memcpy(&message->header, frame.body, sizeof(message->header));
    assert_int_equal(message->header.size + sizeof(message->header), frame.head.size);
    memcpy(message->body, frame.body + sizeof(message->header), message->header.size);
    message->descriptor_count = 0;
    return true;
}

static inline int session_await(struct fake_session *session, uint16_t id, uint32_t seq,
                                struct proto_message *message)
{
    assert_true(session_receive(session, message));
    assert_int_equal(message->header.id, id);
    assert_int_equal(message->header.seq, seq);
    return reply_error(message);
}

static inline int session_call(struct fake_session *session, uint16_t id, const void *body,
                               size_t bytes, struct proto_message *message)
{
    return session_await(session, id, session_send(session, id, body, bytes), message);
}

static inline void session_open_number(struct fake_session *session, struct fake_guest *guest,
                                       uint32_t number)
{
    const struct proto_frame_open open = {.pid = 4000 + number, .uid = 1000};

    *session = (struct fake_session){.guest = guest, .number = number};
    fake_send(guest, PROTO_FRAME_OPEN, number, &open, sizeof(open));
}

static inline int session_version(struct fake_session *session)
{
    const struct proto_get_version request = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    struct proto_message message;

    return session_call(session, PROTO_GET_VERSION, &request, sizeof(request), &message);
}

static inline int session_hello(struct fake_session *session, uint32_t domain,
                                struct proto_hello_reply *reply)
{
    const struct proto_hello request = {.domain = domain, .pid = 4000 + session->number};
    struct proto_message message;
    int r = session_call(session, PROTO_HELLO, &request, sizeof(request), &message);

    if (r == 0)
        memcpy(reply, BODY_OF(&message), sizeof(*reply));
    return r;
}

/* A program that was told nothing says that it is domain 0. */
static inline void session_join(struct fake_session *session, struct fake_guest *guest)
{
    struct proto_hello_reply reply;

    session_open_number(session, guest, guest->next_session++);
    assert_int_equal(session_version(session), 0);
    assert_int_equal(session_hello(session, 0, &reply), 0);
}

static inline void session_leave(struct fake_session *session)
{
    fake_send(session->guest, PROTO_FRAME_CLOSE, session->number, NULL, 0);
}

/* The agent's own session: the guest is attached then. */
static inline void fake_agent_hello(struct fake_guest *guest, uint32_t vectors,
                                    struct proto_agent_hello_reply *reply)
{
    struct proto_agent_hello request = {.vectors = vectors, .version = "fake"};
    struct proto_hello_reply hello;
    struct proto_message message;
    struct fake_session session;

    session_open_number(&session, guest, PROTO_SESSION_AGENT);
    assert_int_equal(session_version(&session), 0);
    assert_int_equal(session_hello(&session, fake_peer(guest)->domain, &hello), 0);
    assert_int_equal(session_call(&session, PROTO_AGENT_HELLO, &request, sizeof(request), &message),
                     0);
    memcpy(reply, BODY_OF(&message), sizeof(*reply));
}

/* All of the above. */
static inline void fake_boot(struct fake_guest *guest, const struct broker_process *broker,
                             const char *name)
{
    struct proto_agent_hello_reply reply;

    fake_attach(guest, broker, name, 4);
    fake_agent_connect(guest);
    fake_agent_hello(guest, 4, &reply);
}

/* One end of a channel, in a guest or on the host. */
struct fake_end {
    struct fake_guest *guest; /* NULL: on the host */
    struct proto_channel_open_reply reply;
    struct ring_memory memory;
    struct layout_channel_page *page;
    struct ring_producer out;
    struct ring_consumer in;
    int wait_fd;
    int wake_fd;       /* host */
    uint32_t doorbell; /* guest: of the other end */
};

static inline void end_start(struct fake_end *end)
{
    const bool server = end->reply.role == PROTO_OPEN_SERVER;
    const unsigned out = server ? LAYOUT_SERVER_SENDS : LAYOUT_CLIENT_SENDS;

    assert_int_equal(ring_memory_map_page(&end->memory, end->reply.page_offset, &end->page), 0);
    end->doorbell =
        server ? end->page->channel.client_doorbell : end->page->channel.server_doorbell;
    ring_producer_init(&end->out, end->page, out, &end->memory, end->reply.features,
                       end->reply.send_min);
    ring_consumer_init(&end->in, end->page, 1 - out, &end->memory, end->reply.features);
}

static inline void end_of_session(struct fake_end *end, struct fake_guest *guest,
                                  const struct proto_message *message)
{
    *end = (struct fake_end){.guest = guest, .memory.descriptor = guest->memory, .wake_fd = -1};
    assert_int_equal(message->header.size, sizeof(struct proto_error) + sizeof(end->reply));
    memcpy(&end->reply, BODY_OF(message), sizeof(end->reply));
    end->memory.size_bytes = end->reply.region_bytes;
    end->memory.data_offset = end->reply.data_offset;
    assert_in_range(end->reply.vector, 1, guest->vectors - 1);
    end->wait_fd = fake_own_event(guest, end->reply.vector);
    end_start(end);
}

static inline void end_of_client(struct fake_end *end, const struct opened *opened)
{
    *end = (struct fake_end){.reply = opened->reply,
                             .memory = {.descriptor = opened->memory,
                                        .size_bytes = opened->reply.region_bytes,
                                        .data_offset = opened->reply.data_offset},
                             .wait_fd = opened->wait_fd,
                             .wake_fd = opened->wake_fd};
    end_start(end);
}

static inline void end_stop(struct fake_end *end)
{
    ring_producer_deinit(&end->out);
    ring_consumer_deinit(&end->in);
    ring_memory_unmap_page(end->page);
}

static inline void end_ring(struct fake_end *end)
{
    const uint64_t one = 1;

    if (end->guest)
        fake_ring(end->guest, end->doorbell);
    else
        assert_int_equal(write(end->wake_fd, &one, sizeof(one)), sizeof(one));
}

static inline void end_send(struct fake_end *end, const void *data, size_t bytes)
{
    struct ring_span span;

    assert_int_equal(ring_producer_reserve(&end->out, bytes, bytes, &span), 0);
    memcpy(span.data, data, bytes);
    if (ring_producer_commit(&end->out, bytes))
        end_ring(end);
}

/* Bytes that came, at most `bytes`; 0: the other end has gone. Sleeps on its doorbell alone. */
static inline size_t end_receive(struct fake_end *end, void *data, size_t bytes)
{
    struct ring_span span;
    int r;

    while ((r = ring_consumer_peek(&end->in, 1, &span)) == -EAGAIN) {
        if (ring_consumer_arm(&end->in, 1))
            await_wake(end->wait_fd);
        ring_consumer_disarm(&end->in);
    }
    if (r == -EPIPE)
        return 0;
    assert_int_equal(r, 0);
    if (bytes > span.size)
        bytes = span.size;
    memcpy(data, span.data, bytes);
    if (ring_consumer_release(&end->in, bytes))
        end_ring(end);
    return bytes;
}

static inline int session_open_channel(struct fake_session *session, uint32_t peer, uint32_t port,
                                       uint32_t mode, struct fake_end *end)
{
    const struct proto_channel_open request = open_request(peer, port, mode);
    struct proto_message message;
    int r = session_call(session, PROTO_CHANNEL_OPEN, &request, sizeof(request), &message);

    if (r == 0)
        end_of_session(end, session->guest, &message);
    return r;
}

static inline void session_explanation(struct fake_session *session, char text[PROTO_TEXT_BYTES])
{
    struct proto_message message;

    assert_int_equal(session_call(session, PROTO_EXPLAIN, NULL, 0, &message), 0);
    snprintf(text, PROTO_TEXT_BYTES, "%s", ((const struct proto_text *)BODY_OF(&message))->text);
}

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * proto/proto.h - the control protocol: what is said to the broker, byte for byte.
 *
 * After KVMI's wire protocol (Linux patches "VM introspection", Documentation/virt/kvm/kvmi.rst): a
 * message is a header {u16 id; u16 size; u32 seq} and `size` bytes of body, in host byte order,
 * sent in one piece. A command gets one reply with its id and seq; the reply's body begins with
 * {s32 err; u32 padding} and goes on only when err is 0 (err is a negative errno). Events have an
 * id with bit 15 and no reply.
 *
 *   client                                broker
 *     GET_VERSION {version, byte order}  ->        first of all; versions negotiate down
 *                                        <-  {version, limits}
 *     HELLO {domain, role}               ->        says who this is; sets the allow masks
 *                                        <-  {domain, name}
 *     CHANNEL_OPEN, LIST_..., ...        ->
 *
 * Rules, each with a test: padding and reserved fields are zero, else EINVAL; a size that is not
 * the command's is EINVAL; an unknown command is ENOSYS, one that this peer may not use EPERM;
 * anything but GET_VERSION and the CHECKs before its place in the handshake is EPROTO. A message
 * larger than PROTO_MESSAGE_BYTES_MAX or a seq that is not the last one's successor closes the
 * connection: the peer's state is unknown. A command may be answered later than its successors
 * (CHANNEL_OPEN as a client waits for a server); the seq says which is meant.
 *
 * On the host it runs over a SEQPACKET Unix socket: one message a packet, descriptors attached to
 * replies where the table below says so. One connection is at most one end of one channel, and
 * closing it closes that end. In a guest programs speak it with vchan-agent over such a socket,
 * which passes it on through the guest's mailbox (proto/guest.h) and attaches the descriptors.
 *
 * All structures are naturally aligned, without holes; the asserts at the end hold that.
 */
#ifndef VCHAN_PROTO_PROTO_H
#define VCHAN_PROTO_PROTO_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define PROTO_VERSION 2u
#define PROTO_VERSION_OLDEST 2u
#define PROTO_BYTE_ORDER 0x01020304u
#define PROTO_MESSAGE_BYTES_MAX 16384u /* header and body */
#define PROTO_DESCRIPTORS_MAX 3u
#define PROTO_TEXT_BYTES 4096u
#define PROTO_NAME_BYTES 64u

/* Domain numbers: Xen's, below DOMID_FIRST_RESERVED. */
#define PROTO_DOMAIN_HOST 0u
#define PROTO_DOMAIN_MAX 0x7fefu
/* Ports: 0 to INT_MAX. */
#define PROTO_PORT_MAX 0x7fffffffu

struct proto_header {
    uint16_t id;
    uint16_t size; /* of the body, bytes */
    uint32_t seq;  /* commands: 1 for the first, one more for each next one. Events: 0 */
};

struct proto_error {
    int32_t err; /* 0 or a negative errno */
    uint32_t padding;
};

/*
 * The one table of commands: id, name, request body, reply body (after proto_error), descriptors in
 * the reply, who may use it by default. The list replies hold `count` items more (see
 * proto_list_reply).
 */
#define PROTO_MAY_ANY 0x1u        /* any local socket */
#define PROTO_MAY_ADMIN 0x2u      /* those that administer the broker: domain 0 */
#define PROTO_MAY_AGENT 0x4u      /* session 0 of a guest's mailbox */
#define PROTO_MAY_HYPERVISOR 0x8u /* of domain 0: root, or the user that the broker runs as */

#define PROTO_COMMANDS(X) \
    X(1, GET_VERSION, proto_get_version, proto_get_version_reply, 0, PROTO_MAY_ANY) \
    X(2, CHECK_COMMAND, proto_check, proto_empty, 0, PROTO_MAY_ANY) \
    X(3, CHECK_EVENT, proto_check, proto_empty, 0, PROTO_MAY_ANY) \
    X(4, HELLO, proto_hello, proto_hello_reply, 0, PROTO_MAY_ANY) \
    X(5, CHANNEL_OPEN, proto_channel_open, proto_channel_open_reply, 3, PROTO_MAY_ANY) \
    X(6, CHANNEL_CLOSE, proto_empty, proto_empty, 0, PROTO_MAY_ANY) \
    X(7, EXPLAIN, proto_empty, proto_text, 0, PROTO_MAY_ANY) \
    X(8, LIST_DOMAINS, proto_list, proto_list_reply, 0, PROTO_MAY_ANY) \
    X(9, LIST_CHANNELS, proto_list, proto_list_reply, 0, PROTO_MAY_ANY) \
    X(10, LIST_RINGS, proto_list, proto_list_reply, 0, PROTO_MAY_ANY) \
    X(11, LIST_EXTENTS, proto_list, proto_list_reply, 0, PROTO_MAY_ADMIN) \
    X(12, LIST_HISTORY, proto_list, proto_list_reply, 0, PROTO_MAY_ADMIN) \
    X(13, BROKER_INFO, proto_empty, proto_broker_info, 0, PROTO_MAY_ANY) \
    X(14, REBALANCE, proto_rebalance, proto_list_reply, 0, PROTO_MAY_ADMIN) \
    X(15, RING_SET, proto_ring_set, proto_empty, 0, PROTO_MAY_ADMIN) \
    X(16, DOMAIN_SET, proto_domain_set, proto_empty, 0, PROTO_MAY_ADMIN) \
    X(17, RECORD, proto_empty, proto_record_reply, 1, PROTO_MAY_ADMIN) \
    /* proto/guest.h */ \
    X(18, AGENT_HELLO, proto_agent_hello, proto_agent_hello_reply, 0, PROTO_MAY_AGENT) \
    X(19, LIST_GUESTS, proto_list, proto_list_reply, 0, PROTO_MAY_ADMIN) \
    X(20, DOMAIN_DEVICE, proto_domain_request, proto_domain_device, 0, PROTO_MAY_ADMIN) \
    X(21, DOMAIN_ATTACH, proto_domain_request, proto_text, 0, PROTO_MAY_ADMIN) \
    X(22, DOMAIN_DETACH, proto_domain_request, proto_text, 0, PROTO_MAY_ADMIN) \
    X(23, DOMAIN_SHOW, proto_domain_request, proto_text, 0, PROTO_MAY_ADMIN) \
    X(24, HYPERVISOR_SERVE, proto_hypervisor_serve, proto_empty, 0, PROTO_MAY_HYPERVISOR) \
    X(25, HYPERVISOR_DOMAIN, proto_hypervisor_domain, proto_hypervisor_domain_reply, 0, \
      PROTO_MAY_HYPERVISOR) \
    X(26, HYPERVISOR_DONE, proto_hypervisor_done, proto_empty, 0, PROTO_MAY_HYPERVISOR)

#define PROTO_EVENT 0x8000u

/*
 * Events: id, name, body, default allow. Those with an allow go to the broker, the other comes from
 * it.
 */
#define PROTO_EVENTS(X) \
    X(0x8001, PRESSURE, proto_event_ring, PROTO_MAY_ANY)  /* my producer lacks space */ \
    X(0x8002, DOORBELLS, proto_event_ring, PROTO_MAY_ANY) /* report_every more doorbells rung */ \
    X(0x8003, BROKEN, proto_event_broken, PROTO_MAY_ANY)  /* the other end broke the rules */ \
    X(0x8004, HYPERVISOR, proto_event_hypervisor, 0)      /* asks for HYPERVISOR_DONE */

#define PROTO_ENUM_COMMAND(number, name, request, reply, descriptors, may) PROTO_##name = (number),
#define PROTO_ENUM_EVENT(number, name, body, may) PROTO_EVENT_##name = (number),
enum proto_id { PROTO_COMMANDS(PROTO_ENUM_COMMAND) PROTO_EVENTS(PROTO_ENUM_EVENT) };
#undef PROTO_ENUM_COMMAND
#undef PROTO_ENUM_EVENT

#define PROTO_COMMAND_MAX 26u
#define PROTO_EVENT_MAX 4u /* without PROTO_EVENT */

struct proto_empty {
    uint8_t none[0];
};

struct proto_get_version {
    uint32_t version; /* the newest that the client speaks */
    uint32_t byte_order;
};

struct proto_get_version_reply {
    uint32_t version; /* the newest that both speak; EPROTONOSUPPORT when there is none */
    uint32_t message_bytes_max;
    uint64_t features; /* 0 */
};

struct proto_check {
    uint16_t id;
    uint16_t padding1;
    uint32_t padding2;
};

/* proto_hello.flags */
/* registered with MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED: see ring/order.h */
#define PROTO_HELLO_BARRIER 0x1u

struct proto_hello {
    uint32_t domain; /* that this process plays (VCHAN_DOMAIN) */
    uint32_t pid;    /* checked against SO_PEERCRED where that can be; the broker's view wins */
    uint32_t flags;
    uint32_t padding;
};

struct proto_hello_reply {
    uint32_t domain;
    uint32_t padding;
    char name[PROTO_NAME_BYTES]; /* NUL-padded */
};

/* proto_channel_open.mode and proto_channel_open_reply.role */
#define PROTO_OPEN_SERVER 1u
#define PROTO_OPEN_CLIENT 2u
/* client of the peer's waiting server if there is one, else server */
#define PROTO_OPEN_RENDEZVOUS 3u

/* proto_channel_open.flags */
#define PROTO_OPEN_NONBLOCK 0x1u /* client: ENXIO at once when no server waits */

struct proto_channel_open {
    uint32_t peer_domain;
    uint32_t port;
    uint32_t mode;
    uint32_t flags;
    /* Of the opener's view; bytes. 0: the broker's default. Only the server end's wishes count for
     * the minima (rounded up to a power of two of at least a block), both ends' for the rest.
     * Maxima are rounded down to whole blocks (LAYOUT_BLOCK_BYTES), never below the minimum. */
    uint64_t receive_min;
    uint64_t send_min;
    uint64_t receive_max;
    uint64_t send_max;
    uint32_t weight; /* 1 to 1000, 0: default 100 */
    uint32_t padding;
};

/*
 * Descriptors: what the region is mapped from (the memfd; in a guest the VFIO device, or BAR2 in
 * sysfs), the eventfd this end sleeps on, the eventfd that wakes the other end. The last one is
 * missing in a guest: there a doorbell is a 32-bit store of the other end's layout_channel word
 * (server_doorbell, client_doorbell) to byte PROTO_DOORBELL_REGISTER of the page of BAR0, which is
 * mapped at doorbell_offset from the first descriptor, or from the third if there is one (sysfs has
 * a file for each BAR).
 */
#define PROTO_NO_OFFSET UINT64_MAX
#define PROTO_DOORBELL_REGISTER 12u

struct proto_channel_open_reply {
    uint32_t channel; /* number of its page */
    uint32_t role;    /* PROTO_OPEN_SERVER or PROTO_OPEN_CLIENT */
    uint64_t incarnation;
    uint64_t region_bytes;
    uint64_t page_offset; /* of the channel page */
    uint64_t data_offset; /* first byte of the data section */
    uint64_t features;    /* LAYOUT_FEATURE_* */
    uint64_t receive_min; /* what became of the wishes: the floor the rings never shrink below */
    uint64_t send_min;
    uint64_t memory_offset;   /* of the region in the first descriptor */
    uint64_t doorbell_offset; /* PROTO_NO_OFFSET: ring the third descriptor */
    uint32_t vector;          /* a guest's end: the vector that wakes it; for the agent */
    uint32_t padding;
    uint8_t zone_uuid[16]; /* of the region; for the agent */
};

struct proto_text {
    uint32_t length;
    uint32_t padding;
    char text[PROTO_TEXT_BYTES]; /* why the connection's last command failed; NUL-padded */
};

/*
 * Lists come page by page: ask with cursor 0, then with `next` until it is 0. A list that changes
 * meanwhile may miss or repeat an item, never crash or hang. One that the asker may not see whole
 * (not domain 0) shows the channels of its own domain.
 */
struct proto_list {
    uint64_t cursor;
    uint32_t channel; /* LIST_RINGS, LIST_CHANNELS: only this one; PROTO_ANY: all */
    uint32_t padding;
};
#define PROTO_ANY 0xffffffffu

struct proto_list_reply {
    uint32_t count; /* items that follow */
    uint32_t item_bytes;
    uint64_t next; /* cursor, 0 at the end */
};

/* proto_domain_info.state */
#define PROTO_DOMAIN_CONFIGURED 1u /* named in the configuration, nobody of it is connected */
#define PROTO_DOMAIN_RUNNING 2u    /* somebody is */

struct proto_domain_info {
    uint32_t domain;
    uint32_t state;
    uint32_t connections;
    uint32_t channels;
    uint32_t guests;      /* ivshmem devices that are attached: zones it is in as a VM */
    uint32_t hypervisor;  /* PROTO_HYPERVISOR_* as libvirt says, 0: unknown there */
    uint64_t bytes_held;  /* extents of the rings it sends in */
    uint64_t quota_bytes; /* 0: none */
    uint8_t uuid[16];     /* zero when it has none */
    char name[PROTO_NAME_BYTES];
};

struct proto_channel_info {
    uint32_t channel;
    uint32_t state; /* LAYOUT_CHANNEL_* */
    uint32_t server_domain;
    uint32_t client_domain;
    uint32_t port;
    uint32_t server_pid;
    uint32_t client_pid; /* 0 while waiting */
    uint32_t gone;       /* LAYOUT_GONE_* */
    int32_t reason;
    uint32_t zone;
    uint64_t incarnation;
    uint64_t age_ns;
};

/* proto_ring_info.flags */
#define PROTO_RING_STALLED 0x1u /* its producer lacks space now */
#define PROTO_RING_MOVING 0x2u  /* an old extent is not free yet */
#define PROTO_RING_PINNED 0x4u  /* and an end that stays in an operation, or a promise, keeps it */

struct proto_ring_info {
    uint32_t channel;
    uint32_t ring; /* LAYOUT_SERVER_SENDS or LAYOUT_CLIENT_SENDS */
    uint32_t sender_domain;
    uint32_t receiver_domain;
    uint32_t sender_pid;
    uint32_t receiver_pid;
    uint32_t port;
    uint32_t flags;
    uint32_t weight;
    uint32_t channel_state;
    uint64_t incarnation;
    uint64_t generation;
    uint64_t offset_bytes; /* in the data section */
    uint64_t size_bytes;
    uint64_t old_size_bytes; /* of the extent that is being drained, 0: none */
    uint64_t min_bytes;
    uint64_t max_bytes;
    uint64_t bytes_held;
    uint64_t high_water_bytes;
    uint64_t bytes_sent;
    uint64_t bytes_received;
    uint64_t operations_sent;
    uint64_t operations_received;
    uint64_t stalls;
    uint64_t stall_ns;
    uint64_t sender_doorbells;
    uint64_t receiver_doorbells;
    uint64_t sender_sleeps;
    uint64_t receiver_sleeps;
    uint64_t idle_ns; /* since the broker last saw it sent or received; UINT64_MAX: never */
    uint64_t resizes;
};

/* proto_extent_info.kind */
#define PROTO_EXTENT_FREE 0u
#define PROTO_EXTENT_RING 1u
#define PROTO_EXTENT_OLD 2u     /* an old generation's, not free yet */
#define PROTO_EXTENT_MAILBOX 3u /* of a guest's mailbox; channel is its page's number */

struct proto_extent_info {
    uint64_t offset_bytes; /* in the data section */
    uint64_t size_bytes;
    uint32_t kind;
    uint32_t channel;
    uint32_t ring;
    uint32_t owner_domain;
    uint32_t zone; /* whose data section it is in; each starts at offset 0 */
    uint32_t padding;
};

/* proto_decision.outcome */
#define PROTO_OUTCOME_PLANNED 1u   /* --dry-run */
#define PROTO_OUTCOME_PUBLISHED 2u /* the new generation is out, the old extent not yet free */
#define PROTO_OUTCOME_DONE 3u
#define PROTO_OUTCOME_REFUSED 4u /* not taken: see reason */

struct proto_decision {
    uint64_t number;  /* 1, 2, 3, ...: the cursor of LIST_HISTORY */
    uint64_t time_ns; /* CLOCK_REALTIME */
    uint32_t channel;
    uint32_t ring;
    uint32_t sender_domain;
    uint32_t receiver_domain;
    uint32_t port;
    uint32_t outcome;
    uint64_t generation; /* the new one */
    uint64_t from_offset;
    uint64_t from_bytes;
    uint64_t to_offset;
    uint64_t to_bytes;
    uint64_t took_ns; /* publication to old extent free, when DONE */
    char trigger[16]; /* "period", "pressure", "doorbells", "command", "quota", "compact" */
    char reason[104]; /* a sentence */
};

/* Bytes are sums over the zones, but for the largest free run: no ring spans two of them. */
struct proto_broker_info {
    char version[32];
    char policy[32];
    uint64_t uptime_ns;
    uint64_t region_bytes;
    uint64_t data_bytes;
    uint64_t free_bytes;
    uint64_t largest_free_bytes;     /* in any zone */
    uint64_t resident_bytes;         /* of the memfds */
    uint32_t fragmentation_permille; /* of the worst zone */
    uint32_t domains;
    uint32_t channels;
    uint32_t channels_max;
    uint32_t connections;
    uint32_t zones;
    uint64_t rounds; /* of the rebalancer */
    uint64_t moves;  /* generations published */
    uint64_t grace_periods;
    uint64_t pinned; /* rings whose old extent an end pins now */
    uint64_t opens;
    uint64_t closes;
};

#define PROTO_REBALANCE_DRY_RUN 0x1u

struct proto_rebalance {
    uint32_t flags;
    uint32_t padding;
};

/* Bits of proto_ring_set.fields */
#define PROTO_SET_MIN 0x1u
#define PROTO_SET_MAX 0x2u
#define PROTO_SET_WEIGHT 0x4u
#define PROTO_SET_SIZE 0x8u /* resize now, whatever the policy thinks (it may change it again) */

/*
 * Sizes become whole blocks (LAYOUT_BLOCK_BYTES): the minimum and the size are rounded up, the
 * maximum down. EINVAL if the size does not lie between them then, or the minimum is below what the
 * server asked for.
 */
struct proto_ring_set {
    uint32_t channel;
    uint32_t ring;
    uint64_t incarnation; /* of the channel that is meant; 0: whichever holds the page */
    uint32_t fields;
    uint32_t weight;
    uint64_t min_bytes;
    uint64_t max_bytes;
    uint64_t size_bytes;
};

struct proto_domain_set {
    uint32_t domain;
    uint32_t padding;
    uint64_t quota_bytes; /* 0: none; EINVAL when not whole blocks (LAYOUT_BLOCK_BYTES) */
};

/* Descriptor: the end of a pipe from which a trace comes, as broker/recorder.h has it. */
struct proto_record_reply {
    uint32_t format; /* version of the trace's format */
    uint32_t padding;
};

struct proto_event_ring {
    uint32_t ring; /* of the connection's channel */
    uint32_t padding;
};

struct proto_event_broken {
    uint32_t ring;
    int32_t reason; /* negative errno */
    char text[PROTO_NAME_BYTES];
};

/* What the table says about one id; NULL: no such command or event. */
struct proto_command {
    uint16_t id;
    const char *name;
    size_t request_bytes;
    size_t reply_bytes; /* after proto_error; the fixed part of lists */
    unsigned descriptors;
    unsigned may;
};

const struct proto_command *proto_command_find(unsigned id);
const struct proto_command *proto_event_find(unsigned id);

/*
 * Allow masks, one bit a command or event: those that `may` (PROTO_MAY_*) opens. An unknown id is
 * never allowed.
 */
struct proto_allow {
    uint64_t commands;
    uint64_t events;
};

struct proto_allow proto_allow_default(unsigned may);
int proto_allow_command(const struct proto_allow *allow, unsigned id); /* 0, -ENOSYS, -EPERM */
int proto_allow_event(const struct proto_allow *allow, unsigned id);   /* 0, -ENOSYS, -EPERM */
void proto_allow_deny(struct proto_allow *allow, unsigned id);

/*
 * Is body (size bytes, aligned to 8) a well-formed request of this id: right size, padding zero,
 * values in their range where the range is the protocol's (domain and port numbers, modes, flags)?
 * 0 or -EINVAL, -ENOSYS. Everything else (is the domain known, is there room) is the broker's to
 * say.
 */
int proto_request_check(unsigned id, const void *body, size_t size);
int proto_event_check(unsigned id, const void *body, size_t size);

#define PROTO_SIZE(type, size) \
    static_assert(sizeof(struct type) == (size), #type " changed its size")

PROTO_SIZE(proto_header, 8);
PROTO_SIZE(proto_error, 8);
PROTO_SIZE(proto_empty, 0);
PROTO_SIZE(proto_get_version, 8);
PROTO_SIZE(proto_get_version_reply, 16);
PROTO_SIZE(proto_check, 8);
PROTO_SIZE(proto_hello, 16);
PROTO_SIZE(proto_hello_reply, 72);
PROTO_SIZE(proto_channel_open, 56);
PROTO_SIZE(proto_channel_open_reply, 104);
PROTO_SIZE(proto_text, 4104);
PROTO_SIZE(proto_list, 16);
PROTO_SIZE(proto_list_reply, 16);
PROTO_SIZE(proto_domain_info, 120);
PROTO_SIZE(proto_channel_info, 56);
PROTO_SIZE(proto_ring_info, 208);
PROTO_SIZE(proto_extent_info, 40);
PROTO_SIZE(proto_decision, 208);
PROTO_SIZE(proto_broker_info, 184);
PROTO_SIZE(proto_rebalance, 8);
PROTO_SIZE(proto_ring_set, 48);
PROTO_SIZE(proto_domain_set, 16);
PROTO_SIZE(proto_record_reply, 8);
PROTO_SIZE(proto_event_ring, 8);
PROTO_SIZE(proto_event_broken, 72);

#endif

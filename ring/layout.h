/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/layout.h - every byte that is shared between processes and between virtual machines.
 *
 * A region is one sealed memfd (one ivshmem BAR in a guest):
 *
 *   0       peers_offset    control_offset             data_offset                 size_bytes
 *   +--------+---------------+--------------------------+--------------------------------+
 *   | header | peers, 256 B  | channel pages, 4 KiB     | extents, in 4 KiB blocks       |
 *   | 4 KiB  | each          | each, channel_count many | [ring A gen 7][ring B gen 2]...|
 *   +--------+---------------+--------------------------+--------------------------------+
 *
 * A peer is a guest's ivshmem device; its number there (IVPosition, 0 to peer_count - 1) is its
 * index here. Peer 0 is the host and its entry is unused. An entry names the guest's mailbox.
 *
 * A channel page holds what the two ends and the broker say to one another about one channel:
 *
 *   +0     channel line    writer: broker    who, state, reason
 *   +128   (spare)
 *   +256   ring 0          the server sends, the client receives
 *   +1280  ring 1          the client sends, the server receives
 *   +2304  (spare up to 4096)
 *
 * A ring is eight lines of 128 bytes (two cache lines: the adjacent one is prefetched with it), the
 * last one spare, and no line has two writers:
 *
 *   +0     geometry        writer: broker     read by both ends in every operation, rarely written
 *   +128   producer        writer: producer   polled by the consumer
 *   +256   consumer        writer: consumer   polled by the producer
 *   +384   producer status writer: producer   read by the broker only, now and then
 *   +512   consumer status writer: consumer   read by the broker only, now and then
 *   +640   producer sleep  writer: producer   read by the consumer and the broker, rarely written
 *   +768   consumer sleep  writer: consumer   read by the producer and the broker, rarely written
 *
 * Rules of the layout: little-endian, fixed-width fields, natural alignment, no pointer, size_t,
 * enum or bit-field. Positions are free-running byte counts from 0 at the opening of the channel;
 * they never wrap (2^64 bytes). Offsets are bytes from the start of the region. A field that
 * another side writes is loaded once, checked, and the copy is used. How each word is stored and
 * loaded (its ordering) is written beside it: "release" and "acquire" pair with one another;
 * "plain" is a relaxed atomic access.
 *
 * The golden-bytes test (tests/unit/test_layout.c) pins all this: any change is a new
 * LAYOUT_VERSION.
 */
#ifndef VCHAN_RING_LAYOUT_H
#define VCHAN_RING_LAYOUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAGIC 0x314e414843564d56ull /* "VMVCHAN1" read as a little-endian word */
#define LAYOUT_VERSION 2u
#define LAYOUT_BLOCK_BYTES 4096u
#define LAYOUT_LINE_BYTES 128u
#define LAYOUT_CHANNEL_PAGE_BYTES 4096u
#define LAYOUT_PEER_BYTES 256u
#define LAYOUT_PEER_HOST 0u

/*
 * The kernel refuses membarrier (nohz_full): an end marks itself with a full fence, see
 * ring/order.h.
 */
#define LAYOUT_FEATURE_MARK_FENCE 0x1u

/*
 * Page 0. Written by the broker, always the same bytes: before anybody maps it, and again for each
 * guest that comes, in case another one has overwritten it.
 */
struct layout_region_header {
    uint64_t magic;
    uint32_t version;
    uint32_t features;       /* LAYOUT_FEATURE_* */
    uint64_t size_bytes;     /* of the region: a power of two (QEMU's ivshmem wants that) */
    uint64_t control_offset; /* first channel page */
    uint64_t data_offset;    /* first extent block */
    uint32_t channel_count;  /* channel pages between control_offset and data_offset */
    uint32_t block_bytes;    /* LAYOUT_BLOCK_BYTES */
    uint8_t zone_uuid[16];
    uint64_t peers_offset; /* struct layout_peer, peer_count many */
    uint32_t peer_count;
    uint32_t reserved0;
    uint64_t reserved[6];
};

/*
 * How an agent gets its mailbox, and gets a new one after it or the broker has restarted:
 *
 *   agent   stores a new request, never 0 (release), and rings peer 0, vector 0
 *   broker  ends the old mailbox, if there is one, and all its sessions; makes a channel page and
 *           two extents; stores them here, then answered = request (release); rings vector 0
 *   agent   sees answered equal to its request (acquire): the mailbox is the channel at
 *           page_offset, whose client it is (it sends in ring 1)
 *
 * answered that differs from the agent's request later on: the mailbox has ended, the agent asks
 * anew. The frames in it: proto/guest.h.
 */
struct layout_peer {
    /* Writer: the broker. */
    uint32_t answered;    /* release / acquire; 0: there is no mailbox */
    uint32_t domain;      /* plain, ordered by answered, like all that follow */
    uint64_t page_offset; /* of the mailbox's channel page, bytes from the start of the region */
    uint64_t incarnation; /* of that page */
    uint8_t pad0[104];
    /* Writer: the guest. */
    uint32_t request; /* release / acquire */
    uint8_t pad1[124];
};

#define LAYOUT_NO_DOORBELL 0xffffffffu

/* Values of layout_channel.state. */
#define LAYOUT_CHANNEL_FREE 0u      /* nobody's */
#define LAYOUT_CHANNEL_WAITING 1u   /* the server is there, its client is not yet */
#define LAYOUT_CHANNEL_CONNECTED 2u /* both ends are there */
#define LAYOUT_CHANNEL_CLOSED 3u    /* the broker ended it: see gone and reason */

/* Bits of layout_channel.gone: ends that will not come back. */
#define LAYOUT_GONE_SERVER 0x1u
#define LAYOUT_GONE_CLIENT 0x2u

/*
 * Writer: the broker. state and gone: store release, load acquire. reason: before state becomes
 * CLOSED; client_pid: before it becomes CONNECTED; the rest before it becomes WAITING.
 */
struct layout_channel {
    uint32_t state; /* LAYOUT_CHANNEL_* */
    uint32_t gone;  /* LAYOUT_GONE_* */
    /* errno of a broken channel (EPROTO: an end broke the rules), 0 for an orderly end */
    int32_t reason;
    /* 1: the ends share no kernel, so they fence before they look at a sleeper */
    uint32_t fence_sleep;
    uint32_t server_domain;
    uint32_t client_domain;
    uint32_t port;
    uint32_t server_pid; /* in the server's own domain */
    uint32_t client_pid;
    uint32_t reserved0;
    uint64_t incarnation; /* counts the channels that this page has held */
    /*
     * What a guest stores into its device's doorbell register to wake that end: (peer << 16) |
     * vector. Before state becomes WAITING. LAYOUT_NO_DOORBELL: no guest needs to.
     */
    uint32_t server_doorbell;
    uint32_t client_doorbell;
    uint8_t pad[72];
};

/* One generation's memory. */
struct layout_extent {
    uint64_t generation; /* 0: none yet */
    /* bytes from the start of the region, whole blocks, inside the data section */
    uint64_t offset;
    uint64_t size; /* bytes, whole blocks, at least one */
};

/*
 * Writer: the broker. It fills extent[g & 1], then stores generation = g (release). The slot
 * of g - 1 keeps the extent that is still drained; generation g + 1 comes only after that one is
 * free, so two slots do.
 */
struct layout_geometry {
    uint64_t generation;            /* release / acquire */
    struct layout_extent extent[2]; /* plain, ordered by generation */
    /* plain: the consumer restarts its high-water mark when this changes */
    uint64_t sample_epoch;
    /* plain: an end tells the broker every so many doorbells; 0: never */
    uint32_t report_every;
    uint32_t reserved;
    uint8_t pad[56];
};

/* Where the producer left one generation for another. */
struct layout_switch {
    uint64_t generation; /* that it went on in; release, the rest plain */
    uint64_t position;   /* first byte that lies in it */
};

/*
 * Writer: the producer. Switch number n fills switches[n & 1], then stores switch_count = n
 * (release), then may store a larger tail (release). The consumer loads tail first and switch_count
 * after it.
 */
struct layout_producer {
    uint64_t tail;                    /* release / acquire: bytes published */
    uint64_t switch_count;            /* release / acquire */
    struct layout_switch switches[2]; /* plain, ordered by switch_count */
    uint8_t pad[80];
};

/* Writer: the consumer. */
struct layout_consumer {
    /* release / acquire: bytes taken; the space before it may be written again */
    uint64_t head;
    uint64_t followed; /* release / acquire: the last switch it has made too */
    uint8_t pad[112];
};

/*
 * Writer: that end. mark is odd while the end is in an operation: stored plain at the start, before
 * the generation is loaded, and release at the end. mark / 2 counts the operations.
 */
struct layout_producer_status {
    uint64_t mark;
    uint64_t promised;  /* position up to which its program was told that it may write */
    uint64_t stalls;    /* times it found too little space */
    uint64_t stall_ns;  /* time until there was some, finished stalls only */
    uint64_t doorbells; /* rung for the consumer */
    uint64_t sleeps;    /* times it went to sleep for space */
    uint32_t stalled;   /* 1 while it lacks space */
    uint32_t reserved;
    uint8_t pad[72];
};

struct layout_consumer_status {
    uint64_t mark;
    /* most bytes held, since sample_epoch changed, as the consumer saw it */
    uint64_t high_water_bytes;
    uint64_t high_water_epoch;
    uint64_t doorbells; /* rung for the producer */
    uint64_t sleeps;    /* times it went to sleep for data */
    uint8_t pad[88];
};

/*
 * Writer: that end. armed is 0 while it is awake, else a number that is new for each sleep; the
 * other end, having published, rings once for each number that it sees: when the position it
 * reached is at least wanted, and after a switch or following one in any case. The broker rings for
 * each generation. closed: the end makes no further operation on this ring.
 */
struct layout_sleep {
    uint64_t wanted; /* plain, ordered by armed: the position (tail or head) that ends the sleep */
    /* release / acquire, with the barrier of ring/order.h between it and the re-check */
    uint32_t armed;
    uint32_t closed; /* release / acquire */
    uint8_t pad[112];
};

struct layout_ring {
    struct layout_geometry geometry;
    struct layout_producer producer;
    struct layout_consumer consumer;
    struct layout_producer_status producer_status;
    struct layout_consumer_status consumer_status;
    struct layout_sleep producer_sleep;
    struct layout_sleep consumer_sleep;
    uint8_t pad[128];
};

/* Index in layout_channel_page.ring: who sends. */
#define LAYOUT_SERVER_SENDS 0u
#define LAYOUT_CLIENT_SENDS 1u

struct layout_channel_page {
    struct layout_channel channel;
    uint8_t pad0[128];
    struct layout_ring ring[2];
    uint8_t pad1[1792];
};

#define LAYOUT_AT(type, field, offset) \
    static_assert(offsetof(struct type, field) == (offset), #type "." #field " moved")
#define LAYOUT_SIZE(type, size) \
    static_assert(sizeof(struct type) == (size), #type " changed its size")

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the layout is little-endian");

LAYOUT_AT(layout_region_header, magic, 0);
LAYOUT_AT(layout_region_header, version, 8);
LAYOUT_AT(layout_region_header, features, 12);
LAYOUT_AT(layout_region_header, size_bytes, 16);
LAYOUT_AT(layout_region_header, control_offset, 24);
LAYOUT_AT(layout_region_header, data_offset, 32);
LAYOUT_AT(layout_region_header, channel_count, 40);
LAYOUT_AT(layout_region_header, block_bytes, 44);
LAYOUT_AT(layout_region_header, zone_uuid, 48);
LAYOUT_AT(layout_region_header, peers_offset, 64);
LAYOUT_AT(layout_region_header, peer_count, 72);
LAYOUT_AT(layout_region_header, reserved, 80);
LAYOUT_SIZE(layout_region_header, 128);

LAYOUT_AT(layout_peer, answered, 0);
LAYOUT_AT(layout_peer, domain, 4);
LAYOUT_AT(layout_peer, page_offset, 8);
LAYOUT_AT(layout_peer, incarnation, 16);
LAYOUT_AT(layout_peer, request, 128);
LAYOUT_SIZE(layout_peer, LAYOUT_PEER_BYTES);

LAYOUT_AT(layout_channel, state, 0);
LAYOUT_AT(layout_channel, gone, 4);
LAYOUT_AT(layout_channel, reason, 8);
LAYOUT_AT(layout_channel, fence_sleep, 12);
LAYOUT_AT(layout_channel, server_domain, 16);
LAYOUT_AT(layout_channel, client_domain, 20);
LAYOUT_AT(layout_channel, port, 24);
LAYOUT_AT(layout_channel, server_pid, 28);
LAYOUT_AT(layout_channel, client_pid, 32);
LAYOUT_AT(layout_channel, incarnation, 40);
LAYOUT_AT(layout_channel, server_doorbell, 48);
LAYOUT_AT(layout_channel, client_doorbell, 52);
LAYOUT_SIZE(layout_channel, 128);

LAYOUT_AT(layout_extent, generation, 0);
LAYOUT_AT(layout_extent, offset, 8);
LAYOUT_AT(layout_extent, size, 16);
LAYOUT_SIZE(layout_extent, 24);

LAYOUT_AT(layout_geometry, generation, 0);
LAYOUT_AT(layout_geometry, extent, 8);
LAYOUT_AT(layout_geometry, sample_epoch, 56);
LAYOUT_AT(layout_geometry, report_every, 64);
LAYOUT_SIZE(layout_geometry, 128);

LAYOUT_AT(layout_switch, generation, 0);
LAYOUT_AT(layout_switch, position, 8);
LAYOUT_SIZE(layout_switch, 16);

LAYOUT_AT(layout_producer, tail, 0);
LAYOUT_AT(layout_producer, switch_count, 8);
LAYOUT_AT(layout_producer, switches, 16);
LAYOUT_SIZE(layout_producer, 128);

LAYOUT_AT(layout_consumer, head, 0);
LAYOUT_AT(layout_consumer, followed, 8);
LAYOUT_SIZE(layout_consumer, 128);

LAYOUT_AT(layout_producer_status, mark, 0);
LAYOUT_AT(layout_producer_status, promised, 8);
LAYOUT_AT(layout_producer_status, stalls, 16);
LAYOUT_AT(layout_producer_status, stall_ns, 24);
LAYOUT_AT(layout_producer_status, doorbells, 32);
LAYOUT_AT(layout_producer_status, sleeps, 40);
LAYOUT_AT(layout_producer_status, stalled, 48);
LAYOUT_SIZE(layout_producer_status, 128);

LAYOUT_AT(layout_consumer_status, mark, 0);
LAYOUT_AT(layout_consumer_status, high_water_bytes, 8);
LAYOUT_AT(layout_consumer_status, high_water_epoch, 16);
LAYOUT_AT(layout_consumer_status, doorbells, 24);
LAYOUT_AT(layout_consumer_status, sleeps, 32);
LAYOUT_SIZE(layout_consumer_status, 128);

LAYOUT_AT(layout_sleep, wanted, 0);
LAYOUT_AT(layout_sleep, armed, 8);
LAYOUT_AT(layout_sleep, closed, 12);
LAYOUT_SIZE(layout_sleep, 128);

LAYOUT_AT(layout_ring, geometry, 0);
LAYOUT_AT(layout_ring, producer, 128);
LAYOUT_AT(layout_ring, consumer, 256);
LAYOUT_AT(layout_ring, producer_status, 384);
LAYOUT_AT(layout_ring, consumer_status, 512);
LAYOUT_AT(layout_ring, producer_sleep, 640);
LAYOUT_AT(layout_ring, consumer_sleep, 768);
LAYOUT_SIZE(layout_ring, 1024);

LAYOUT_AT(layout_channel_page, channel, 0);
LAYOUT_AT(layout_channel_page, ring, 256);
LAYOUT_SIZE(layout_channel_page, LAYOUT_CHANNEL_PAGE_BYTES);

#endif

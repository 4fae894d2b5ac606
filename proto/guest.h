/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * proto/guest.h - what is said between the broker, the agents in guests and the hypervisor's
 * helper.
 *
 * THE MAILBOX. A guest's mailbox is a channel (ring/layout.h: layout_peer) whose rings keep their
 * extents. It carries frames: {u16 kind; u16 size; u32 session} and `size` bytes, each published in
 * one piece. A session is a connection of the control protocol; the agent numbers them:
 *
 *   agent                                      broker
 *     OPEN session n {pid, uid of a program} ->   as if a client had connected
 *     DATA session n {header, body}          ->   a message of that client
 *                                            <-   DATA session n {header, body}
 *     CLOSE session n                        ->   the client has gone
 *                                            <-   CLOSE session n: the broker closed it, or had no
 *                                                 room for it
 *
 * A session that was closed from one side is forgotten by that side when the CLOSE goes out; what
 * the other one sent before it saw that is dropped. Session 0 is the agent's own. A frame that is
 * malformed (unknown kind, too large, DATA for a session that was never opened) breaks the mailbox:
 * all sessions end, and the agent asks for a new one.
 *
 * THE HYPERVISOR'S HELPER is a client of the broker on the host that knows the VMs. It says which
 * there are (HYPERVISOR_DOMAIN), and does what is asked of it (event HYPERVISOR, answered by
 * HYPERVISOR_DONE with the same request number). There is one at a time; a second gets EBUSY.
 */
#ifndef VCHAN_PROTO_GUEST_H
#define VCHAN_PROTO_GUEST_H

#include "proto/proto.h"

#define PROTO_FRAME_OPEN 1u
#define PROTO_FRAME_DATA 2u
#define PROTO_FRAME_CLOSE 3u
#define PROTO_SESSION_AGENT 0u
#define PROTO_SESSION_MAX 65535u
/* Each of the mailbox's two rings: a few of the largest frames. */
#define PROTO_MAILBOX_BYTES 65536u

struct proto_frame {
    uint16_t kind; /* PROTO_FRAME_* */
    uint16_t size; /* of what follows: OPEN 8, DATA 8 to PROTO_MESSAGE_BYTES_MAX, CLOSE 0 */
    uint32_t session;
};

/* Of OPEN. The guest's word: only for messages. */
struct proto_frame_open {
    uint32_t pid;
    uint32_t uid;
};

/* proto_agent_hello.flags */
#define PROTO_AGENT_POLLS 0x1u /* it has no interrupts: nobody needs to ring it */

struct proto_agent_hello {
    uint32_t vectors; /* of the device, as the guest sees it */
    uint32_t flags;
    char version[32]; /* NUL-padded; for listings */
};

struct proto_agent_hello_reply {
    uint32_t domain;
    uint32_t peer;    /* its id among the ivshmem peers */
    uint32_t vectors; /* that are in use: the lesser of the device's and the broker's */
    uint32_t padding;
    char zone[PROTO_NAME_BYTES];
};

/* proto_guest_info.state */
#define PROTO_GUEST_CONNECTED 1u /* QEMU is */
#define PROTO_GUEST_ATTACHED 2u  /* and its agent has a mailbox */

struct proto_guest_info {
    uint32_t domain;
    uint32_t zone;
    uint32_t peer;
    uint32_t state;
    uint32_t vectors;
    uint32_t flags; /* PROTO_AGENT_* */
    uint32_t sessions;
    uint32_t mailboxes; /* that its agents have asked for */
    uint64_t age_ns;
    uint32_t qemu_pid;
    uint32_t padding;
    char version[32]; /* of the agent */
    char zone_name[PROTO_NAME_BYTES];
};

/* domain: a name, a UUID, or a number, as a person types it. zone: "" is the only one it is in. */
/* DETACH although channels are open, which are closed; ATTACH although something is missing. */
#define PROTO_DOMAIN_FORCE 0x1u

struct proto_domain_request {
    char domain[PROTO_NAME_BYTES];
    char zone[PROTO_NAME_BYTES];
    uint32_t flags;
    uint32_t padding;
};

/* What a domain's ivshmem device must look like. */
struct proto_domain_device {
    uint32_t domain;
    uint32_t vectors;
    uint64_t region_bytes;
    uint8_t uuid[16]; /* of the domain; zero when it has none */
    char name[PROTO_NAME_BYTES];
    char zone[PROTO_NAME_BYTES];
    char socket[112]; /* that QEMU connects to */
};

/* Said again once all domains have been reported: those whose state the broker still does not know
 * are gone. */
struct proto_hypervisor_serve {
    char name[PROTO_NAME_BYTES]; /* "qemu:///system": for messages */
};

/* What the hypervisor says of a domain. */
#define PROTO_HYPERVISOR_DEFINED 1u /* there is a definition, it does not run */
#define PROTO_HYPERVISOR_RUNNING 2u
#define PROTO_HYPERVISOR_PAUSED 3u
#define PROTO_HYPERVISOR_GONE 4u    /* no definition any more */
#define PROTO_HYPERVISOR_UNKNOWN 5u /* the connection to it is lost; said of each domain */

struct proto_hypervisor_domain {
    uint8_t uuid[16];
    char name[PROTO_NAME_BYTES];
    uint32_t state;
    uint32_t padding;
};

struct proto_hypervisor_domain_reply {
    uint32_t domain; /* the number that this UUID has */
    uint32_t padding;
};

/* proto_event_hypervisor.action */
#define PROTO_HYPERVISOR_ATTACH 1u
#define PROTO_HYPERVISOR_DETACH 2u
#define PROTO_HYPERVISOR_SHOW 3u
#define PROTO_HYPERVISOR_ATTACH_UNCHECKED 4u /* although a check says that it will not work */

struct proto_event_hypervisor {
    uint32_t request; /* number, for HYPERVISOR_DONE */
    uint32_t action;
    struct proto_domain_device device;
};

/* text: what was done, or what is missing and how to mend it; goes to whoever asked. */
struct proto_hypervisor_done {
    uint32_t request;
    int32_t err; /* 0 or a negative errno */
    struct proto_text text;
};

PROTO_SIZE(proto_frame, 8);
PROTO_SIZE(proto_frame_open, 8);
PROTO_SIZE(proto_agent_hello, 40);
PROTO_SIZE(proto_agent_hello_reply, 80);
PROTO_SIZE(proto_guest_info, 144);
PROTO_SIZE(proto_domain_request, 136);
PROTO_SIZE(proto_domain_device, 272);
PROTO_SIZE(proto_hypervisor_serve, 64);
PROTO_SIZE(proto_hypervisor_domain, 88);
PROTO_SIZE(proto_hypervisor_domain_reply, 8);
PROTO_SIZE(proto_event_hypervisor, 280);
PROTO_SIZE(proto_hypervisor_done, 4112);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/sessions.h - the programs that are connected to the agent.
 *
 * A program speaks the control protocol on its socket (proto/proto.h); its messages go to the
 * broker as frames of a session of a mailbox, and the replies come back. On the way:
 *
 *   HELLO                 domain 0 becomes this domain's number: programs need not know it. The pid
 *                         is what the kernel says
 *   CHANNEL_OPEN's reply  gets its descriptors: the device that the region is in, an eventfd that
 *                         wakes the end
 *
 * A session talks through one attachment's mailbox; its channel may lie in another's region. When
 * there is no mailbox as a program connects, it is answered here (client/agent/local.h).
 *
 * A program is trusted with nothing. Messages that are malformed, a program that does not read its
 * replies, one user's too many connections: it is closed, the others go on. While a mailbox is full
 * no socket is read.
 */
#ifndef VCHAN_AGENT_SESSIONS_H
#define VCHAN_AGENT_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/agent/loop.h"
#include "client/agent/poller.h"
#include "client/agent/vectors.h"
#include "proto/guest.h"
#include "proto/socket.h"

struct agent;
struct attachment;

#define SESSIONS_MAX 4096u
/* Of one user that is not root. */
#define SESSIONS_USER_MAX 1024u

struct session {
    TAILQ_ENTRY(session) link; /* owner: sessions.all */
    struct sessions *sessions;
    uint32_t number;
    int socket;
    struct loop_source source;
    uint32_t pid, uid;
    struct attachment *talk;    /* whose mailbox; NULL: answered here */
    bool opened;                /* the broker has been told of it */
    struct attachment *memory;  /* of its channel; NULL: none */
    struct vector vector;       /* of its channel */
    struct polled *polled;
    const char *why;            /* we refused its last command; NULL: the broker knows */
};

struct sessions {
    struct agent *agent;
    struct loop inner;         /* the sockets of those who talk; read while there is room */
    struct loop_source source; /* of inner, in the agent's */
    struct loop_source again;  /* timer: connections could not be accepted for a while */
    struct loop_source listener;
    uint32_t count;
    uint32_t last_number;
    struct proto_message message;
    TAILQ_HEAD(, session) all;
};

/* listener: a listening, non-blocking socket; borrowed. */
int sessions_init(struct sessions *sessions, struct agent *agent, int listener);
/* Ends them all. */
void sessions_deinit(struct sessions *sessions);

/* From the broker. */
void sessions_take_frame(struct sessions *sessions, struct attachment *attachment,
                         const struct proto_frame *frame, const uint8_t *data);

/* A mailbox has room again. */
void sessions_resume(struct sessions *sessions);

/* Ends those who talk through this one; those whose channel lies in its region. */
void sessions_end_talk(struct sessions *sessions, struct attachment *attachment);
void sessions_end_memory(struct sessions *sessions, struct attachment *attachment);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/end.h - one end of a channel, and the openings that share it.
 *
 *         vchan_open_start      vchan_open_finish       the peer comes
 *     NEW ----------------> OPENING ------------> WAITING ------------> CONNECTED
 *      |                     |  ^ |                 |                     |     |
 *      | error               |  | | error           | last file           |     | the peer is gone,
 *      |                     |  +-+ (a probe's      | released            |     | what it wrote is
 *      |                     |      ENXIO, and      |                     |     | read
 *      |                     |      others wait)    |                     |     v
 *      +------> FREED <------+----------------------+---------------------+-- OVER
 *                                                   |
 *                  the channel is over, nobody came +--> LOST, and from there FREED
 *
 *     OPENING    openings wait for the broker
 *     WAITING    blocking openings wait for the peer; those with O_NONBLOCK are done, and their
 *                transfers find nothing to do
 *     CONNECTED  transfers; blocked ones wait for the ring
 *     OVER       no channel any more, the port is free again: end of file, EPIPE
 *     LOST       no channel any more, and there never was a peer: the broker has ended it, or has
 *                ended. Not the end of what somebody wrote: ENOTCONN, also for openings that wait
 *     FREED      memory only, until the turn of the loop is over
 *
 * An end has two places, reader and writer. An O_RDONLY opening takes the first, O_WRONLY the
 * second, O_RDWR both; O_RDONLY and O_WRONLY openings of one name share the name's end. So a place
 * is given once: `ended` tells which were left while the other went on. Leaving the writer's place
 * tells the peer end of file, leaving the reader's tells it EPIPE; a place that nobody has ever
 * taken tells it nothing, since somebody may still come.
 *
 * An end is `retired` when a new opening of its name gets a new end. Ends of the mount's own domain
 * are so from the start: there each opening is an end, and two of them make the channel.
 *
 * Everything is the loop thread's.
 */
#ifndef VCHAN_FUSE_END_H
#define VCHAN_FUSE_END_H

#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "client/vchan.h"
#include "fuse/loop.h"
#include "fuse/request.h"

struct mount;

enum end_state {
    END_NEW,
    END_OPENING,
    END_WAITING,
    END_CONNECTED,
    END_OVER,
    END_LOST,
    END_FREED
};

struct end {
    TAILQ_ENTRY(end) link; /* owner: mount.ends; END_FREED: mount.dead_ends */
    struct mount *mount;
    int domain;
    int port;
    enum end_state state;
    bool probe;   /* END_OPENING: it connects to a server or fails with ENXIO, it does not serve */
    bool retired; /* the name is free for another end */
    bool met_end; /* a transfer has met the end of file or EPIPE */
    bool armed;   /* the channel's descriptor may tell */
    unsigned ended; /* VCHAN_RECEIVING, VCHAN_SENDING: places that were left */
    struct vchan *channel;
    struct watch watch;
    struct file *reader; /* the same file as writer when it is O_RDWR */
    struct file *writer;
    struct request_queue opens;
    struct request_queue reads;
    struct request_queue writes;
};

/* An open file. */
struct file {
    struct end *end;
    unsigned directions; /* VCHAN_RECEIVING, VCHAN_SENDING */
    /* A program polls, when not NULL: for these conditions; and those among them that were not true
     * when it looked. */
    struct fuse_pollhandle *poll_handle;
    unsigned poll_wanted;
    unsigned poll_armed;
};

/* The name's end, NULL if it has none. */
struct end *end_find(struct mount *mount, int domain, int port);

/* With no places taken. NULL: no memory. */
struct end *end_new(struct mount *mount, int domain, int port);

/* Asks the broker. -errno: the end is as new. */
int end_start(struct end *end, bool probe);

/* Has it no channel any more? */
static inline bool end_is_past(const struct end *end)
{
    return end->state == END_OVER || end->state == END_LOST;
}

/* Directions whose place is taken. */
unsigned end_taken(const struct end *end);

/* What can be done now, VCHAN_CAN_READ and so on. */
unsigned end_conditions(const struct end *end);

/* Does all that can be done, answers it, and has the descriptor tell when there is more. May free
 * the end. */
void end_run(struct end *end);

/* The file leaves its places and is freed; the last one frees the end. Its requests have been
 * answered. */
void end_leave(struct file *file);

/* Answers everything that waits with ENOTCONN (what a write has done counts), closes the channel,
 * frees the files. */
void end_shut(struct end *end);

/* Frees the ends that were freed in this turn of the loop. */
void ends_bury(struct mount *mount);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vchan-kvm/vchan.h - the native interface: what libvchan.h cannot say.
 *
 * A channel connects two domains (0 is the host) on a port; its server end and its client end each
 * have one ring to send in. Every function returns 0 or a count, or a negative errno; none sets
 * errno.
 *
 *     struct vchan *v;
 *     int r = vchan_open(3, 5000, VCHAN_OPEN_CLIENT, NULL, &v);   // wait for domain 3's server
 *     if (r < 0)
 *             errx(1, "%s: %s", strerror(-r), vchan_explain());
 *     vchan_write(v, "hello", 5, VCHAN_FOREVER);
 *     vchan_close(v);
 *
 * Timeouts are milliseconds; 0 does not wait (-EAGAIN), VCHAN_FOREVER waits, else -ETIMEDOUT. A
 * wait that a signal handler interrupts returns -EINTR; nothing has been transferred then.
 *
 * Errors common to all transfers: -EPIPE, the other end has closed or died (and, for reading, what
 * it wrote is read; vchan_read then returns 0); -EPROTO, the other end wrote rubbish into the
 * shared memory: the channel is closed, the broker logs the reason.
 *
 * Threads: handles are independent. On one handle, one thread may use the receiving side, another
 * the sending side, and any thread vchan_state and vchan_statistics; each side is used by one
 * thread at a time (the caller's lock). vchan_wait and vchan_poll_arm belong to whichever sides
 * they ask about. vchan_close is the last call.
 *
 * A handle survives neither fork (use it in one of the two processes) nor exec.
 */
#ifndef VCHAN_KVM_VCHAN_H
#define VCHAN_KVM_VCHAN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct vchan;

#define VCHAN_FOREVER (-1)
/* VCHAN_DOMAIN, else 0: the host; in a guest, the guest */
#define VCHAN_DOMAIN_FROM_ENVIRONMENT (-1)

/* How to open; exactly one of the first three. */
#define VCHAN_OPEN_SERVER 0x1u     /* offer the port; returns at once, a client comes or not */
#define VCHAN_OPEN_CLIENT 0x2u     /* connect to a server, wait until there is one */
/* whoever comes first serves, the other connects; returns at once */
#define VCHAN_OPEN_RENDEZVOUS 0x3u
#define VCHAN_OPEN_MODE 0x3u
#define VCHAN_OPEN_NONBLOCK 0x4u /* client: -ENXIO at once when no server is there */

/* Wishes; zero-initialise, 0 means the default. Sizes in bytes. */
struct vchan_options {
    int local_domain; /* who I am; VCHAN_DOMAIN_FROM_ENVIRONMENT */
    uint32_t weight;  /* 1 to 1000 (100): share of memory against other rings */
    size_t receive_min, send_min; /* server: the rings are never smaller; power of two from 4096 */
    size_t receive_max, send_max; /* nor larger */
    const char *socket_path; /* broker's; NULL: $VCHAN_RUNTIME_DIR/vchand.sock */
};
#define VCHAN_OPTIONS_INIT {.local_domain = VCHAN_DOMAIN_FROM_ENVIRONMENT}

/*
 * Opens a channel. options may be NULL. *out is set on success only; free with vchan_close.
 * -EINVAL domain, port or flags out of range; -ENOENT no such domain, or no broker's socket;
 * -ECONNREFUSED no broker;
 * -EADDRINUSE the port has a server; -ENXIO see VCHAN_OPEN_NONBLOCK; -EHOSTDOWN the domain does not
 * run;
 * -ENOSPC region or quota exhausted; -EPERM; -EMFILE; -EINTR.
 */
int vchan_open(int peer_domain, int port, unsigned flags, const struct vchan_options *options,
               struct vchan **out);

/*
 * The same in two steps, for event loops: start sends the request, then vchan_poll_fd gets readable
 * when finish has something to do; finish returns 0 (open; vchan_poll_fd is another descriptor
 * now), -EAGAIN (not yet) or the error of vchan_open (the handle must still be closed). Until 0,
 * only vchan_open_finish, vchan_poll_fd and vchan_close may be called.
 */
int vchan_open_start(int peer_domain, int port, unsigned flags, const struct vchan_options *options,
                     struct vchan **out);
int vchan_open_finish(struct vchan *v, int timeout_ms);

/*
 * A sentence on this thread's last failed vchan_open*, the broker's own where it gave one ("" if
 * none). Valid until the next.
 */
const char *vchan_explain(void);

/*
 * Closes both directions and frees the handle. What was written is still delivered. NULL: nothing.
 */
void vchan_close(struct vchan *v);

/*
 * Ends one direction, or both, and keeps the handle: after VCHAN_SENDING the other end reads what
 * is there and then end of file; after VCHAN_RECEIVING its writes fail with EPIPE. 0 or -EINVAL.
 */
#define VCHAN_RECEIVING 0x1u
#define VCHAN_SENDING 0x2u
int vchan_shutdown(struct vchan *v, unsigned directions);

/*
 * Stream: at least one byte, at most n; n = 0 returns 0. vchan_read returns 0 at the end of file.
 */
ssize_t vchan_write(struct vchan *v, const void *data, size_t n, int timeout_ms);
ssize_t vchan_read(struct vchan *v, void *data, size_t n, int timeout_ms);

/*
 * All n bytes or none, in one piece. vchan_send: -EMSGSIZE when the ring could never hold them.
 * vchan_receive: -EPIPE when fewer are left and no more will come. Returns n.
 */
ssize_t vchan_send(struct vchan *v, const void *data, size_t n, int timeout_ms);
ssize_t vchan_receive(struct vchan *v, void *data, size_t n, int timeout_ms);

/*
 * Spans copy nothing: the caller writes into, or reads from, the ring itself.
 * vchan_reserve gives min to max contiguous bytes of space (min >= 1); after filling some,
 * vchan_commit publishes the first n (0 gives the span back). vchan_peek gives at least min bytes
 * to read, as many as lie contiguous; vchan_release takes the first n off. -EMSGSIZE: min is more
 * than the ring holds; vchan_peek also when min bytes do not lie in one piece just now (the ring is
 * being moved: take what vchan_peek(1) gives, then go on). Between the two calls the side is in an
 * operation: the broker cannot take the memory, so do not linger, and make no other call on that
 * side. Span data is shared with the other end, which may change it while you look: copy before you
 * check.
 */
struct vchan_span {
    void *data;
    size_t size;
};
int vchan_reserve(struct vchan *v, size_t min, size_t max, struct vchan_span *span, int timeout_ms);
void vchan_commit(struct vchan *v, size_t n);
int vchan_peek(struct vchan *v, size_t min, struct vchan_span *span, int timeout_ms);
void vchan_release(struct vchan *v, size_t n);

/*
 * In a guest spans are memory of a device. Programs read and write them like any other, and so do
 * read(2), write(2), send(2); but what makes the kernel take hold of pages (O_DIRECT, splice,
 * replies to FUSE) fails with EFAULT: copy first. 1: so it is for this channel; 0: not.
 */
int vchan_spans_are_device(const struct vchan *v);

/* Bytes to read now; space to write now (no promise: see libvchan_buffer_space for one). */
size_t vchan_readable(struct vchan *v);
size_t vchan_writable(struct vchan *v);

/* States and conditions, or-ed together. */
#define VCHAN_CAN_READ 0x1u  /* data, or end of file */
#define VCHAN_CAN_WRITE 0x2u /* space, or the other end is gone (EPIPE) */
#define VCHAN_IS_CONNECTED 0x4u
#define VCHAN_IS_GONE 0x8u /* the other end has closed or died; data may be left */

/*
 * What holds now, without waiting. A server without a client yet is neither connected nor gone.
 * In a guest a channel ends with its device or its agent too. It holds the device then, which
 * cannot be removed, until each side has been asked for something once more: vchan_readable and
 * vchan_writable do; what was not read stays to be read.
 */
unsigned vchan_state(struct vchan *v);

/*
 * Waits until one of the wanted conditions holds; returns all that do, or -ETIMEDOUT, -EAGAIN
 * (timeout 0), -EINTR.
 */
int vchan_wait(struct vchan *v, unsigned wanted, int timeout_ms);

/*
 * For event loops. vchan_poll_fd: becomes readable after vchan_poll_arm when one of the conditions
 * it asked for comes true; it belongs to the handle, do not read it. vchan_poll_arm returns the
 * conditions among `wanted` that hold already: then handle these; 0: the descriptor is now
 * unreadable and will tell. It cancels the arming before it. Loop: arm; if 0, poll; repeat.
 */
int vchan_poll_fd(const struct vchan *v);
unsigned vchan_poll_arm(struct vchan *v, unsigned wanted);

/* Statistics of one direction of an open channel, as the two ends and the broker publish them. */
struct vchan_direction_statistics {
    uint64_t generation; /* which extent the ring uses: one more for each resize or move */
    uint64_t size_bytes;
    uint64_t held_bytes;
    uint64_t bytes_written, bytes_read;
    uint64_t writes, reads;
    uint64_t stalls, stall_ns;             /* the writer found too little space */
    uint64_t writer_sleeps, reader_sleeps; /* gave up spinning */
    uint64_t writer_doorbells, reader_doorbells;
};
struct vchan_statistics {
    int peer_domain, local_domain, port;
    struct vchan_direction_statistics receiving, sending;
};
int vchan_statistics(struct vchan *v, struct vchan_statistics *out);

/*
 * The number of the domain that this program plays, as the broker says: in a guest programs need
 * not know it (options and VCHAN_DOMAIN say 0, "this one"). options as in vchan_open. Errors as
 * there.
 */
int vchan_local_domain(const struct vchan_options *options);

/*
 * What the broker knows, for tools: `each` is called for each channel that local_domain has an end
 * of (all channels, for domain 0 with all = 1), or each domain; a return value other than 0 ends
 * the walk and is returned. Item strings live for the call only. options as in vchan_open
 * (local_domain, socket_path).
 */
struct vchan_channel_item {
    int server_domain, client_domain, port;
    int connected; /* 0: the server waits */
    uint32_t number;
    /* index 0: what the server sends, 1: what the client sends */
    struct vchan_direction_statistics ring[2];
};
struct vchan_domain_item {
    int domain;
    const char *name; /* "" when it has none */
    int running;
};
int vchan_each_channel(const struct vchan_options *options, int all,
                       int (*each)(const struct vchan_channel_item *item, void *context),
                       void *context);
int vchan_each_domain(const struct vchan_options *options,
                      int (*each)(const struct vchan_domain_item *item, void *context),
                      void *context);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif

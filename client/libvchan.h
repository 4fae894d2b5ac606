/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvchan.h - the libvchan interface of Xen and Qubes OS, over vchan's shared-memory rings.
 *
 * Programs written for Qubes' libvchan.h compile and link unchanged:
 *     cc program.c $(pkg-config --cflags --libs vchan-kvm)
 *
 * Domains are numbers; 0 is the host. The local domain is read from VCHAN_DOMAIN (default 0) at
 * each call of an init function, so that one process can hold both ends of a channel.
 *
 * Errors: functions that return a pointer return NULL, the others a negative value, with errno set
 * truthfully (the values are given at each function). What "disconnected" means: the other end has
 * closed or died and everything that it had written has been read.
 *
 * Threads: two handles are independent of one another. On one handle, one thread may read while
 * another writes and a third waits; two threads that read (or write) the same handle take turns by
 * themselves. libvchan_close must be the last call on a handle.
 *
 * Source of the semantics: Qubes OS core-vchan-xen, vchan/libvchan.h, and Xen's tools/libs/vchan.
 */
#ifndef _LIBVCHAN_H
#define _LIBVCHAN_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef int EVTCHN;

/* What libvchan_is_open returns. */
#define VCHAN_DISCONNECTED 0 /* the other end has closed; what it wrote before may still be read */
#define VCHAN_CONNECTED 1
#define VCHAN_WAITING 2 /* a server whose client has not come yet; it may write already */

struct libvchan;
typedef struct libvchan libvchan_t;

/*
 * Offers a channel to `domain` on `port` and returns at once. read_min and write_min are the least
 * sizes of the two rings in bytes, rounded up to a power of two of at least 4096, all of it usable;
 * the broker may make the rings larger, never smaller. errno: EINVAL (domain or port out of range),
 * ENOENT (no such domain), EADDRINUSE (a server has this port for this domain already), ENOSPC
 * (region or quota is exhausted: the broker's log names who holds it), EPERM, ECONNREFUSED or
 * ENOENT (no broker), EMFILE.
 */
libvchan_t *libvchan_server_init(int domain, int port, size_t read_min, size_t write_min);

/*
 * Connects to the server of `domain` on `port`; waits until there is one.
 * errno: as libvchan_server_init, and EHOSTDOWN when the domain is not running, EINTR.
 */
libvchan_t *libvchan_client_init(int domain, int port);

/*
 * The same without waiting. *watch_fd gets readable when libvchan_client_init_async_finish has
 * something to do; it belongs to the handle. Until finish has returned 0, only finish and
 * libvchan_close may be called.
 */
libvchan_t *libvchan_client_init_async(int domain, int port, EVTCHN *watch_fd);

/*
 * 0: connected, use libvchan_fd_for_select from now on. 1: not yet, wait for watch_fd again (never
 * when blocking).
 * -1: failed (errno); the handle must still be closed.
 */
int libvchan_client_init_async_finish(libvchan_t *ctrl, bool blocking);

/*
 * Writes from data, at most size bytes. Blocking: returns size, after waiting for space as often as
 * it takes. Not blocking: 0 to size. -1: the other end is disconnected (EPIPE).
 */
int libvchan_write(libvchan_t *ctrl, const void *data, size_t size);

/*
 * Writes size bytes in one piece: the other end sees all of them or none. Returns size; not
 * blocking and too little space: 0. -1: EMSGSIZE (more than the ring can hold, ever), EPIPE.
 */
int libvchan_send(libvchan_t *ctrl, const void *data, size_t size);

/*
 * Reads 1 to size bytes. Not blocking and nothing there: 0. -1: disconnected (EPIPE) and everything
 * is read.
 */
int libvchan_read(libvchan_t *ctrl, void *data, size_t size);

/*
 * Reads exactly size bytes. Not blocking and fewer there: 0, nothing taken. -1: EPIPE when the
 * other end is gone and fewer are left; EMSGSIZE, not blocking, when size is more than the ring can
 * hold.
 */
int libvchan_recv(libvchan_t *ctrl, void *data, size_t size);

/*
 * Waits until something has happened since the last call: data came, space came after there was too
 * little, the client connected, the other end went. 0, or -1 (EPIPE: disconnected and nothing left
 * to read; EINTR).
 */
int libvchan_wait(libvchan_t *ctrl);

/*
 * Leaves the channel. What was written is still delivered; then the other end sees the
 * disconnection. NULL: nothing.
 */
void libvchan_close(libvchan_t *ctrl);

/*
 * A descriptor to select or poll for reading: readable means that libvchan_wait will not block. It
 * belongs to the handle; do not read it. A program that selects on it, then reads until
 * libvchan_data_ready returns 0, misses nothing; a partial read leaves it readable.
 */
EVTCHN libvchan_fd_for_select(libvchan_t *ctrl);

/* VCHAN_DISCONNECTED, VCHAN_CONNECTED or VCHAN_WAITING. */
int libvchan_is_open(libvchan_t *ctrl);

/* Bytes that can be read now (at most INT_MAX). With 0 the notification is armed. */
int libvchan_data_ready(libvchan_t *ctrl);

/*
 * Bytes that can be written now without waiting; stays true until something is written, even when
 * the broker shrinks the ring. At most 64 KiB or the ring's least size, whichever is larger. The
 * notification is armed.
 */
int libvchan_buffer_space(libvchan_t *ctrl);

/* Blocking is the default. */
void libvchan_set_blocking(libvchan_t *ctrl, bool blocking);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif

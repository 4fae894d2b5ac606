/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/transfer.h - bytes between the kernel and a channel's rings. Nothing here waits.
 *
 * A read is answered with a span of the ring itself: the kernel copies it to the program, nobody
 * else does. A write is copied into the ring from the buffer that the request came in.
 */
#ifndef VCHAN_FUSE_TRANSFER_H
#define VCHAN_FUSE_TRANSFER_H

#include <fuse3/fuse_lowlevel.h>
#include <sys/types.h>

#include "client/vchan.h"
#include "fuse/end.h"

/* What a read would get: 0 (span->size 0: end of file), -EAGAIN, -errno. A span of 1 or more goes
 * to transfer_give. */
int transfer_peek(struct end *end, struct vchan_span *span);

/* Answers a read of at most size bytes with the span, and takes them off. */
void transfer_give(struct file *file, fuse_req_t req, const struct vchan_span *span, size_t size);

/* Writes what there is room for; -EAGAIN when it is nothing, -errno. */
ssize_t transfer_take(struct end *end, const char *data, size_t size);

/* Go on with the end's blocked requests, as far as it goes. */
void transfer_run_reads(struct end *end);
void transfer_run_writes(struct end *end);

#endif

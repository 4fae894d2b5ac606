/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse/request.h - an operation that waits: the kernel's request, kept until it can be answered.
 *
 * A request is in one queue of an end and is answered, once, by the loop thread. Ctrl-C in the
 * program makes the kernel send an interrupt, which libfuse reports in the loop thread too, but
 * from inside calls in which the request must not be answered; so it is put on mount.interrupted
 * and answered when that call is over (file_answer_interrupted).
 */
#ifndef VCHAN_FUSE_REQUEST_H
#define VCHAN_FUSE_REQUEST_H

#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

struct file;
struct mount;
struct request;
TAILQ_HEAD(request_queue, request);

enum request_kind { REQUEST_OPEN, REQUEST_READ, REQUEST_WRITE };

struct request {
    TAILQ_ENTRY(request) link;             /* owner: *queue */
    TAILQ_ENTRY(request) interrupted_link; /* owner: mount.interrupted, while interrupted */
    struct request_queue *queue;
    struct mount *mount;
    struct file *file;
    fuse_req_t req;
    enum request_kind kind;
    bool interrupted;
    bool nonblock;      /* an opening with O_NONBLOCK */
    size_t size;        /* read: at most; write: bytes of data */
    size_t done;        /* write: bytes of data that are in the ring */
    size_t done_before; /* write: bytes of the same request that went before data */
    char data[];        /* write: what did not fit at once */
};

/* Puts a new request at the queue's end. data (size bytes, may be NULL) is copied. NULL: no memory,
 * req is unanswered. */
struct request *request_enqueue(struct request_queue *queue, enum request_kind kind,
                                struct mount *mount, struct file *file, fuse_req_t req,
                                const void *data, size_t size);

/* Takes it off and frees it; the kernel's request, which the caller then answers. */
fuse_req_t request_dequeue(struct request *request);

#endif

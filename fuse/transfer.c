/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/file.h"
#include "fuse/mount.h"

/*
 * The kernel splits a large read() into requests of up to FILE_REQUEST_BYTES_MAX (less, when the
 * program's buffer is not on a page boundary) and sends the next one when the one before was
 * answered in full. That next one could block although the program has bytes to work on already. So
 * a request that may be such a first part is answered in full only if there are more bytes, for the
 * next one; else one page less.
 */
#define PAGE_BYTES 4096u
#define WHOLE_BYTES_MAX (FILE_REQUEST_BYTES_MAX - PAGE_BYTES)

int transfer_peek(struct end *end, struct vchan_span *span)
{
    int r = -EPIPE;

    *span = (struct vchan_span){0};
    if (end->state == END_LOST)
        return -ENOTCONN;
    if (end->state != END_OVER)
        r = vchan_peek(end->channel, 1, span, 0);
    if (r != -EPIPE)
        return r;
    end->met_end = true;
    *span = (struct vchan_span){0};
    return 0;
}

/* The kernel does not take its answers out of a device's memory. NULL: no memory. */
static const char *answer_of(struct mount *mount, struct vchan *channel,
                             const struct vchan_span *span, size_t n)
{
    if (!vchan_spans_are_device(channel))
        return span->data;
    if (!mount->copy)
        mount->copy = malloc(FILE_REQUEST_BYTES_MAX);
    return mount->copy ? memcpy(mount->copy, span->data, n) : NULL;
}

void transfer_give(struct file *file, fuse_req_t req, const struct vchan_span *span, size_t size)
{
    struct vchan *channel = file->end->channel;
    size_t n = span->size < size ? span->size : size;

    if (n > FILE_REQUEST_BYTES_MAX)
        n = FILE_REQUEST_BYTES_MAX;
    if (n == 0) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    if (n == size && size > WHOLE_BYTES_MAX && vchan_readable(channel) == n)
        n = WHOLE_BYTES_MAX;
    if (n < size) /* the program may take that as "nothing is left" and wait for an edge */
        file->poll_armed |= file->poll_wanted & VCHAN_CAN_READ;
    /* When the kernel does not want the answer any more, the bytes stay. */
    const char *answer = answer_of(file->end->mount, channel, span, n);
    if (!answer)
        fuse_reply_err(req, ENOMEM);
    if (!answer || fuse_reply_buf(req, answer, n) != 0)
        n = 0;
    vchan_release(channel, n);
}

ssize_t transfer_take(struct end *end, const char *data, size_t size)
{
    ssize_t r = -EPIPE;

    if (end->state == END_WAITING) /* there is nobody yet who could get it */
        return -EAGAIN;
    if (end->state == END_LOST)
        return -ENOTCONN;
    if (end->state != END_OVER)
        r = vchan_write(end->channel, data, size, 0);
    if (r == -EPIPE)
        end->met_end = true;
    return r;
}

void transfer_run_reads(struct end *end)
{
    struct request *request;

    while ((request = TAILQ_FIRST(&end->reads))) {
        struct vchan_span span;
        int r = transfer_peek(end, &span);
        if (r == -EAGAIN)
            return;
        struct file *file = request->file;
        size_t size = request->size;
        fuse_req_t req = request_dequeue(request);
        if (r < 0)
            fuse_reply_err(req, -r);
        else
            transfer_give(file, req, &span, size);
    }
}

void transfer_run_writes(struct end *end)
{
    struct request *request;

    while ((request = TAILQ_FIRST(&end->writes))) {
        ssize_t r =
            transfer_take(end, request->data + request->done, request->size - request->done);
        if (r == -EAGAIN)
            return;
        if (r > 0)
            request->done += (size_t)r;
        size_t done = request->done_before + request->done;
        if (r > 0 && request->done < request->size)
            continue;
        fuse_req_t req = request_dequeue(request);
        if (done > 0)
            fuse_reply_write(req, done);
        else
            fuse_reply_err(req, (int)-r);
    }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

#include "fuse/end.h"
#include "fuse/mount.h"
#include "fuse/transfer.h"

static struct file *file_of(const struct fuse_file_info *info)
{
    return (struct file *)(uintptr_t)info->fh;
}

static unsigned directions_of(int flags)
{
    switch (flags & O_ACCMODE) {
    case O_RDONLY:
        return VCHAN_RECEIVING;
    case O_WRONLY:
        return VCHAN_SENDING;
    default:
        return VCHAN_RECEIVING | VCHAN_SENDING;
    }
}

/*
 * The peer has gone: a new opening is for the next peer, unless it is the first to read what this
 * one left behind.
 */
static bool is_for_next_peer(const struct end *end, unsigned directions)
{
    if (end->state != END_CONNECTED || !(end_conditions(end) & VCHAN_IS_GONE))
        return false;
    return directions != VCHAN_RECEIVING || ((end_taken(end) | end->ended) & VCHAN_RECEIVING)
           || vchan_readable(end->channel) == 0;
}

/* The end that an opening belongs to, a new one if need be. -EBUSY, -ENOMEM. */
static int find_end(struct mount *mount, const struct name *name, unsigned directions,
                    struct end **out)
{
    struct end *end = end_find(mount, name->domain, name->port);

    if (end && is_for_next_peer(end, directions)) {
        end->retired = true;
        end = NULL;
    }
    if (end && ((end_taken(end) | end->ended) & directions))
        return -EBUSY;
    *out = end ? end : end_new(mount, name->domain, name->port);
    return *out ? 0 : -ENOMEM;
}

void file_open(struct mount *mount, fuse_req_t req, const struct name *name,
               const struct fuse_file_info *info)
{
    unsigned directions = directions_of(info->flags);
    bool nonblock = (info->flags & O_NONBLOCK) != 0;
    struct file *file = calloc(1, sizeof(*file));
    struct end *end = NULL;
    struct request *request = NULL;
    int r = file ? find_end(mount, name, directions, &end) : -ENOMEM;

    if (r < 0) {
        free(file);
        fuse_reply_err(req, -r);
        return;
    }
    *file = (struct file){.end = end, .directions = directions};
    if (directions & VCHAN_RECEIVING)
        end->reader = file;
    if (directions & VCHAN_SENDING)
        end->writer = file;
    if (end->state == END_NEW)
        r = end_start(end, nonblock && directions == VCHAN_SENDING);
    if (r == 0) {
        request = request_enqueue(&end->opens, REQUEST_OPEN, mount, file, req, NULL, 0);
        r = request ? 0 : -ENOMEM;
    }
    if (r < 0) {
        fuse_reply_err(req, -r);
        end_leave(file);
        return;
    }
    request->nonblock = nonblock;
    end_run(end);
}

void file_read(fuse_req_t req, const struct fuse_file_info *info, size_t size)
{
    struct file *file = file_of(info);
    struct end *end = file->end;
    struct vchan_span span;
    int r = -EAGAIN;

    if (TAILQ_EMPTY(&end->reads))
        r = transfer_peek(end, &span);
    if (r == 0) {
        transfer_give(file, req, &span, size);
    } else if (r != -EAGAIN || (info->flags & O_NONBLOCK)) {
        file->poll_armed |= file->poll_wanted & VCHAN_CAN_READ;
        fuse_reply_err(req, -r);
    } else if (!request_enqueue(&end->reads, REQUEST_READ, end->mount, file, req, NULL, size)) {
        fuse_reply_err(req, ENOMEM);
    }
    end_run(end);
}

void file_write(fuse_req_t req, const struct fuse_file_info *info, const char *data, size_t size)
{
    struct file *file = file_of(info);
    struct end *end = file->end;
    size_t done = 0;
    ssize_t r = -EAGAIN;

    while (TAILQ_EMPTY(&end->writes) && done < size) {
        r = transfer_take(end, data + done, size - done);
        if (r <= 0)
            break;
        done += (size_t)r;
    }
    if (done < size && r == -EAGAIN && !(info->flags & O_NONBLOCK)) {
        struct request *request = request_enqueue(&end->writes, REQUEST_WRITE, end->mount, file,
                                                  req, data + done, size - done);
        if (request) {
            request->done_before = done;
            end_run(end);
            return;
        }
        r = -ENOMEM;
    }
    if (done < size)
        file->poll_armed |= file->poll_wanted & VCHAN_CAN_WRITE;
    if (done > 0)
        fuse_reply_write(req, done);
    else
        fuse_reply_err(req, (int)-r);
    end_run(end);
}

void file_poll(fuse_req_t req, const struct fuse_file_info *info, struct fuse_pollhandle *handle)
{
    struct file *file = file_of(info);
    unsigned conditions = end_conditions(file->end);
    unsigned reported = 0, wanted = VCHAN_IS_GONE;

    if (file->directions & VCHAN_RECEIVING) {
        if (info->poll_events & (POLLIN | POLLRDNORM))
            wanted |= VCHAN_CAN_READ;
        if (conditions & VCHAN_CAN_READ)
            reported |= POLLIN | POLLRDNORM;
        if (conditions & VCHAN_IS_GONE)
            reported |= POLLHUP;
    }
    if (file->directions & VCHAN_SENDING) {
        if (info->poll_events & (POLLOUT | POLLWRNORM))
            wanted |= VCHAN_CAN_WRITE;
        if (conditions & VCHAN_CAN_WRITE)
            reported |= POLLOUT | POLLWRNORM;
        if (conditions & VCHAN_IS_GONE)
            reported |= POLLERR;
    }
    if (handle) {
        /* One handle a file: telling it wakes all who poll, and those that still wait ask again. */
        if (file->poll_handle)
            fuse_pollhandle_destroy(file->poll_handle);
        file->poll_handle = handle;
        file->poll_wanted |= wanted;
        file->poll_armed |= wanted & ~conditions;
    }
    fuse_reply_poll(req, reported);
    end_run(file->end);
}

void file_release(fuse_req_t req, const struct fuse_file_info *info)
{
    end_leave(file_of(info));
    fuse_reply_err(req, 0);
}

void file_answer_interrupted(struct mount *mount)
{
    struct request *request;

    while ((request = TAILQ_FIRST(&mount->interrupted))) {
        struct file *file = request->file;
        struct end *end = file->end;
        enum request_kind kind = request->kind;

        end_run(end); /* it may just have come true */
        if (TAILQ_FIRST(&mount->interrupted) != request)
            continue;
        size_t done = kind == REQUEST_WRITE ? request->done_before + request->done : 0;
        fuse_req_t req = request_dequeue(request);
        if (done > 0)
            fuse_reply_write(req, done);
        else
            fuse_reply_err(req, EINTR);
        if (kind == REQUEST_OPEN)
            end_leave(file);
        if (end->state != END_FREED)
            end_run(end); /* fewer wait now */
    }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/end.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/mount.h"
#include "fuse/transfer.h"

/*
 * libfuse 3.14 has no name for FOPEN_STREAM, so the kernel's own structure is sent. FOPEN_NOFLUSH:
 * a flush means nothing here, and takes the inode's lock in most kernels, which a blocked write
 * holds: close() would wait for that.
 */
#define OPEN_FLAGS (FOPEN_DIRECT_IO | FOPEN_STREAM | FOPEN_NOFLUSH)

static void on_ready(void *context)
{
    struct end *end = context;

    end->armed = true; /* whatever it was: have the descriptor made unreadable again */
    end_run(end);
}

struct end *end_find(struct mount *mount, int domain, int port)
{
    struct end *end;

    TAILQ_FOREACH (end, &mount->ends, link)
        if (!end->retired && end->domain == domain && end->port == port)
            return end;
    return NULL;
}

struct end *end_new(struct mount *mount, int domain, int port)
{
    struct end *end = malloc(sizeof(*end));

    if (!end)
        return NULL;
    *end = (struct end){
        .mount = mount,
        .domain = domain,
        .port = port,
        .retired = domain == mount->options.local_domain,
        .watch = {.fd = -1, .ready = on_ready, .context = end},
    };
    TAILQ_INIT(&end->opens);
    TAILQ_INIT(&end->reads);
    TAILQ_INIT(&end->writes);
    TAILQ_INSERT_HEAD(&mount->ends, end, link);
    return end;
}

static void close_channel(struct end *end)
{
    loop_unwatch(&end->mount->loop, &end->watch);
    vchan_close(end->channel);
    end->channel = NULL;
    end->armed = false;
}

static void end_free(struct end *end)
{
    close_channel(end);
    end->state = END_FREED;
    TAILQ_REMOVE(&end->mount->ends, end, link);
    TAILQ_INSERT_TAIL(&end->mount->dead_ends, end, link);
}

void ends_bury(struct mount *mount)
{
    struct end *end;

    while ((end = TAILQ_FIRST(&mount->dead_ends))) {
        TAILQ_REMOVE(&mount->dead_ends, end, link);
        free(end);
    }
}

static void complain(const struct end *end, int error)
{
    const char *reason = vchan_explain();

    fprintf(stderr, "vchanfs: domain %d port %d: %s%s%s\n", end->domain, end->port,
            strerror(-error), *reason ? ": " : "", reason);
}

int end_start(struct end *end, bool probe)
{
    unsigned flags = probe ? VCHAN_OPEN_CLIENT | VCHAN_OPEN_NONBLOCK : VCHAN_OPEN_RENDEZVOUS;
    int r = vchan_open_start(end->domain, end->port, flags, &end->mount->options, &end->channel);

    if (r == 0) {
        r = loop_watch(&end->mount->loop, &end->watch, vchan_poll_fd(end->channel));
        if (r < 0)
            close_channel(end);
    } else {
        end->channel = NULL;
        complain(end, r);
    }
    if (r == -ENOENT) /* nothing was asked yet: it is the broker's socket that is not there */
        r = -ECONNREFUSED;
    end->probe = probe;
    end->state = r == 0 ? END_OPENING : END_NEW;
    return r;
}

unsigned end_taken(const struct end *end)
{
    return (end->reader ? VCHAN_RECEIVING : 0) | (end->writer ? VCHAN_SENDING : 0);
}

unsigned end_conditions(const struct end *end)
{
    switch (end->state) {
    case END_WAITING:
    case END_CONNECTED:
        return vchan_state(end->channel) & (end->state == END_WAITING ? ~VCHAN_CAN_WRITE : ~0u);
    case END_OVER:
    case END_LOST:
        return VCHAN_CAN_READ | VCHAN_CAN_WRITE | VCHAN_IS_GONE;
    default:
        return 0;
    }
}

/* The kernel's file is gone, or was never made. */
static void free_file(struct file *file)
{
    if (file->poll_handle)
        fuse_pollhandle_destroy(file->poll_handle);
    free(file);
}

void end_leave(struct file *file)
{
    struct end *end = file->end;
    bool had_peer = end->state == END_CONNECTED;

    if (end->reader == file)
        end->reader = NULL;
    if (end->writer == file)
        end->writer = NULL;
    if (!end->reader && !end->writer) {
        end_free(end);
    } else if (had_peer) {
        vchan_shutdown(end->channel, file->directions);
        end->ended |= file->directions;
    }
    free_file(file);
}

static void answer_open(struct request *request, int error)
{
    struct file *file = request->file;
    struct fuse_open_out out = {.fh = (uint64_t)(uintptr_t)file, .open_flags = OPEN_FLAGS};
    fuse_req_t req = request_dequeue(request);

    if (error < 0)
        fuse_reply_err(req, -error);
    if (error < 0 || fuse_reply_buf(req, (const char *)&out, sizeof(out)) != 0)
        end_leave(file);
}

/* Those that need not wait for a peer, or all when there is one. */
static void answer_opens(struct end *end)
{
    struct request *request, *next;

    for (request = TAILQ_FIRST(&end->opens); request; request = next) {
        next = TAILQ_NEXT(request, link);
        if (end->state == END_CONNECTED)
            answer_open(request, 0);
        else if (request->nonblock)
            answer_open(request, request->file->directions == VCHAN_SENDING ? -ENXIO : 0);
    }
}

/* Answers all, or those that only probed; the last one frees the end. */
static void fail_opens(struct end *end, int error, bool probes_only)
{
    struct request *request, *next;

    for (request = TAILQ_FIRST(&end->opens); request; request = next) {
        next = TAILQ_NEXT(request, link);
        if (!probes_only || (request->nonblock && request->file->directions == VCHAN_SENDING))
            answer_open(request, error);
    }
}

/* The broker has answered. False: not yet, or it failed. */
static bool finish_opening(struct end *end)
{
    int r = vchan_open_finish(end->channel, 0);

    if (r == -EAGAIN)
        return false;
    if (r == 0) {
        loop_unwatch(&end->mount->loop, &end->watch);
        r = loop_watch(&end->mount->loop, &end->watch, vchan_poll_fd(end->channel));
    }
    if (r == 0) {
        end->state = END_WAITING;
        return true;
    }
    if (!end->probe || r != -ENXIO)
        complain(end, r);
    close_channel(end);
    end->state = END_NEW;
    if (end->probe && r == -ENXIO) {
        fail_opens(end, r, true);
        if (end->state == END_FREED)
            return false;
        r = end_start(end, false); /* for those that have come since and would wait */
        if (r == 0)
            return false;
    }
    fail_opens(end, r, false);
    return false;
}

/* 1: this is the end's channel, which the end serves or, being the later one, has connected to. */
static int is_channel_of(const struct vchan_channel_item *item, void *context)
{
    const struct end *end = context;

    int local_domain = end->mount->options.local_domain;

    return item->port == end->port
           && ((item->server_domain == local_domain && item->client_domain == end->domain)
               || (item->server_domain == end->domain && item->client_domain == local_domain));
}

/*
 * Of a waiting end whose channel is over. A peer that came and went before we looked has perhaps
 * left bytes; if not, the broker still has the channel, until we close our end. Where it has not,
 * or does not answer, it was the broker that ended, though another may have taken its place by now.
 */
static bool nobody_came(struct end *end)
{
    struct vchan_statistics statistics;

    if (vchan_statistics(end->channel, &statistics) == 0
        && (statistics.receiving.bytes_written > 0 || statistics.sending.bytes_read > 0))
        return false;
    return vchan_each_channel(&end->mount->options, 0, is_channel_of, end) != 1;
}

/* The peer has come, perhaps gone already; or never will. May free the end. */
static void finish_waiting(struct end *end)
{
    unsigned conditions = vchan_state(end->channel);

    if (!(conditions & (VCHAN_IS_CONNECTED | VCHAN_IS_GONE)))
        return;
    if (!(conditions & VCHAN_IS_GONE) || !nobody_came(end)) {
        end->state = END_CONNECTED;
        return;
    }
    fprintf(stderr, "vchanfs: domain %d port %d: the broker ended before anybody came\n",
            end->domain, end->port);
    close_channel(end);
    end->state = END_LOST;
    end->retired = true;
    fail_opens(end, -ENOTCONN, false);
}

/* Nothing more can come: give the port and the memory back before the program closes its file. */
static void note_end(struct end *end)
{
    if (!end->met_end || end->state != END_CONNECTED)
        return;
    if ((vchan_state(end->channel) & VCHAN_IS_GONE) && vchan_readable(end->channel) == 0) {
        close_channel(end);
        end->state = END_OVER;
        end->retired = true;
    }
    end->met_end = false;
}

static void notify_poller(struct file *file)
{
    if (!file || !file->poll_armed)
        return;
    if (!(end_conditions(file->end) & file->poll_armed))
        return;
    fuse_lowlevel_notify_poll(file->poll_handle);
    fuse_pollhandle_destroy(file->poll_handle);
    file->poll_handle = NULL;
    file->poll_wanted = file->poll_armed = 0;
}

/* Has the descriptor tell what is waited for. False: it will; true: some of it holds already. */
static bool arm(struct end *end)
{
    unsigned wanted =
        (end->reader ? end->reader->poll_armed : 0) | (end->writer ? end->writer->poll_armed : 0);

    if (end_is_past(end))
        return false;
    if (!TAILQ_EMPTY(&end->reads))
        wanted |= VCHAN_CAN_READ;
    if (!TAILQ_EMPTY(&end->writes))
        wanted |= VCHAN_CAN_WRITE;
    if (end->state == END_WAITING && (wanted || !TAILQ_EMPTY(&end->opens)))
        wanted = (wanted & ~VCHAN_CAN_WRITE) | VCHAN_IS_CONNECTED | VCHAN_IS_GONE;
    if (!wanted && !end->armed)
        return false;
    end->armed = wanted != 0;
    return (vchan_poll_arm(end->channel, wanted) & wanted) != 0;
}

/* In a guest, whose device is being removed: it waits for us, and not for who has the file open. */
static void leave_device(const struct end *end)
{
    if (!end->channel || !(end->state == END_WAITING || end->state == END_CONNECTED) ||
        !vchan_spans_are_device(end->channel) || !(vchan_state(end->channel) & VCHAN_IS_GONE))
        return;
    (void)vchan_readable(end->channel);
    (void)vchan_writable(end->channel);
}

void end_run(struct end *end)
{
    if (end->state == END_OPENING && !finish_opening(end))
        return;
    do {
        if (end->state == END_WAITING)
            finish_waiting(end);
        if (end->state == END_FREED)
            return;
        answer_opens(end);
        if (end->state == END_FREED)
            return;
        transfer_run_reads(end);
        transfer_run_writes(end);
        note_end(end);
        if (end->state == END_OVER) {
            transfer_run_reads(end);
            transfer_run_writes(end);
        }
        notify_poller(end->reader);
        notify_poller(end->writer);
    } while (arm(end));
    leave_device(end);
}

void end_shut(struct end *end)
{
    struct file *reader = end->reader, *writer = end->writer;
    struct request *request;

    while ((request = TAILQ_FIRST(&end->reads)))
        fuse_reply_err(request_dequeue(request), ENOTCONN);
    while ((request = TAILQ_FIRST(&end->writes))) {
        size_t done = request->done_before + request->done;
        fuse_req_t req = request_dequeue(request);
        if (done > 0)
            fuse_reply_write(req, done);
        else
            fuse_reply_err(req, ENOTCONN);
    }
    while ((request = TAILQ_FIRST(&end->opens)))
        fuse_reply_err(request_dequeue(request), ENOTCONN);
    if (reader)
        free_file(reader);
    if (writer && writer != reader)
        free_file(writer);
    end_free(end);
}

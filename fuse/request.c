/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/request.h"

#include <stdlib.h>
#include <string.h>

#include "fuse/mount.h"

static void on_interrupt(fuse_req_t req, void *context)
{
    struct request *request = context;

    (void)req;
    if (!request->interrupted)
        TAILQ_INSERT_TAIL(&request->mount->interrupted, request, interrupted_link);
    request->interrupted = true;
}

struct request *request_enqueue(struct request_queue *queue, enum request_kind kind,
                                struct mount *mount, struct file *file, fuse_req_t req,
                                const void *data, size_t size)
{
    struct request *request = malloc(sizeof(*request) + (data ? size : 0));

    if (!request)
        return NULL;
    *request = (struct request){
        .queue = queue, .mount = mount, .file = file, .req = req, .kind = kind, .size = size};
    if (data)
        memcpy(request->data, data, size);
    TAILQ_INSERT_TAIL(queue, request, link);
    fuse_req_interrupt_func(req, on_interrupt, request);
    return request;
}

fuse_req_t request_dequeue(struct request *request)
{
    fuse_req_t req = request->req;

    fuse_req_interrupt_func(req, NULL, NULL);
    TAILQ_REMOVE(request->queue, request, link);
    if (request->interrupted)
        TAILQ_REMOVE(&request->mount->interrupted, request, interrupted_link);
    free(request);
    return req;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/local.h"

#include <errno.h>
#include <string.h>

void local_text(struct proto_text *text, const char *why)
{
    *text = (struct proto_text){0};
    text->length = (uint32_t)strnlen(why, sizeof(text->text) - 1);
    memcpy(text->text, why, text->length);
}

int local_answer(int socket, const struct proto_message *request, const char *why)
{
    const struct proto_get_version_reply version = {.version = PROTO_VERSION,
                                                    .message_bytes_max = PROTO_MESSAGE_BYTES_MAX};
    const uint16_t id = request->header.id;
    struct proto_text text;

    if (id & PROTO_EVENT)
        return 0;
    switch (id) {
    case PROTO_GET_VERSION:
        return proto_reply(socket, id, request->header.seq, 0, &version, sizeof(version), NULL, 0,
                           NULL, 0);
    case PROTO_EXPLAIN:
        local_text(&text, why);
        return proto_reply(socket, id, request->header.seq, 0, &text, sizeof(text), NULL, 0, NULL,
                           0);
    default:
        return proto_reply(socket, id, request->header.seq, -ENODEV, NULL, 0, NULL, 0, NULL, 0);
    }
}

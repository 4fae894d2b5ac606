/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * proto/socket.h - messages over a SEQPACKET Unix socket, descriptors attached.
 *
 * Nothing here keeps state; a descriptor may be used by one thread at a time for each direction.
 */
#ifndef VCHAN_PROTO_SOCKET_H
#define VCHAN_PROTO_SOCKET_H

#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"

/*
 * A message as it was received. Its descriptors belong to the caller (close-on-exec), who closes
 * those it does not take.
 */
struct proto_message {
    struct proto_header header;
    uint8_t body[PROTO_MESSAGE_BYTES_MAX - sizeof(struct proto_header)] __attribute__((aligned(8)));
    unsigned descriptor_count;
    int descriptors[PROTO_DESCRIPTORS_MAX];
};

/*
 * The path of the broker's socket: VCHAN_RUNTIME_DIR (default /run/vchand) with "/vchand.sock".
 * -ENAMETOOLONG when it does not fit into a sun_path.
 */
int proto_socket_path(char *path, size_t path_bytes);

/*
 * A connected socket, or -errno as connect gives it (ENOENT, ECONNREFUSED: no broker runs). NULL:
 * the path above.
 */
int proto_socket_connect(const char *path);

/*
 * Sends one message in one piece: a header, then body (body_bytes), then items (items_bytes; may be
 * NULL). Never raises SIGPIPE.
 * 0, or -errno: -EAGAIN on a non-blocking socket whose buffer is full, -EPIPE when the peer is
 * gone, -EMSGSIZE over the limit.
 */
int proto_send(int socket, uint16_t id, uint32_t seq, const void *body, size_t body_bytes,
               const void *items, size_t items_bytes, const int *descriptors,
               unsigned descriptor_count);

/*
 * A reply: like proto_send, with proto_error before the body; when err is not 0 the body and
 * descriptors are left out.
 */
int proto_reply(int socket, uint16_t id, uint32_t seq, int err, const void *body, size_t body_bytes,
                const void *items, size_t items_bytes, const int *descriptors,
                unsigned descriptor_count);

/*
 * Receives one message. 1: there is one; 0: the peer has closed; -errno: -EAGAIN on a non-blocking
 * socket, -EMSGSIZE (larger than the limit), -EBADMSG (shorter than its header says, or longer, or
 * with more descriptors than any message has), -EMFILE (this process has no room for those that
 * came). flags: MSG_DONTWAIT or 0.
 */
int proto_receive(int socket, struct proto_message *message, int flags);

/* Closes the descriptors that are left in a message. */
void proto_message_close(struct proto_message *message);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

int proto_socket_path(char *path, size_t path_bytes)
{
    const char *directory = getenv("VCHAN_RUNTIME_DIR");
    int n = snprintf(path, path_bytes, "%s/vchand.sock",
                     directory && *directory ? directory : "/run/vchand");

    if (n < 0 || (size_t)n >= path_bytes ||
        (size_t)n >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return -ENAMETOOLONG;
    return 0;
}

int proto_socket_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, r;

    if (path) {
        if (strlen(path) >= sizeof(address.sun_path))
            return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
    } else {
        r = proto_socket_path(address.sun_path, sizeof(address.sun_path));
        if (r < 0)
            return r;
    }
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    do
        r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
    while (r < 0 && errno == EINTR);
    if (r < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static int send_vector(int socket, struct iovec *parts, size_t count, const int *descriptors,
                       unsigned descriptor_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PROTO_DESCRIPTORS_MAX * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t n;

    if (descriptor_count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(descriptor_count * sizeof(int));
        struct cmsghdr *attached = CMSG_FIRSTHDR(&message);
        attached->cmsg_level = SOL_SOCKET;
        attached->cmsg_type = SCM_RIGHTS;
        attached->cmsg_len = CMSG_LEN(descriptor_count * sizeof(int));
        memcpy(CMSG_DATA(attached), descriptors, descriptor_count * sizeof(int));
    }
    do
        n = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static struct iovec part(const void *data, size_t bytes)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
}

int proto_send(int socket, uint16_t id, uint32_t seq, const void *body, size_t body_bytes,
               const void *items, size_t items_bytes, const int *descriptors,
               unsigned descriptor_count)
{
    struct proto_header header = {.id = id, .seq = seq};
    struct iovec parts[3];

    if (body_bytes + items_bytes > PROTO_MESSAGE_BYTES_MAX - sizeof(header) ||
        descriptor_count > PROTO_DESCRIPTORS_MAX)
        return -EMSGSIZE;
    header.size = (uint16_t)(body_bytes + items_bytes);
    parts[0] = part(&header, sizeof(header));
    parts[1] = part(body, body_bytes);
    parts[2] = part(items, items_bytes);
    return send_vector(socket, parts, 3, descriptors, descriptor_count);
}

int proto_reply(int socket, uint16_t id, uint32_t seq, int err, const void *body, size_t body_bytes,
                const void *items, size_t items_bytes, const int *descriptors,
                unsigned descriptor_count)
{
    struct {
        struct proto_header header;
        struct proto_error error;
    } start = {.header = {.id = id, .seq = seq}, .error = {.err = err}};
    struct iovec parts[3];

    if (err) {
        body_bytes = items_bytes = 0;
        descriptor_count = 0;
    }
    if (body_bytes + items_bytes > PROTO_MESSAGE_BYTES_MAX - sizeof(start) ||
        descriptor_count > PROTO_DESCRIPTORS_MAX)
        return -EMSGSIZE;
    start.header.size = (uint16_t)(sizeof(start.error) + body_bytes + items_bytes);
    parts[0] = part(&start, sizeof(start));
    parts[1] = part(body, body_bytes);
    parts[2] = part(items, items_bytes);
    return send_vector(socket, parts, 3, descriptors, descriptor_count);
}

/* Takes what descriptors came; returns how many did not fit (they are closed). */
static unsigned take_descriptors(struct msghdr *header, struct proto_message *message)
{
    unsigned surplus = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (message->descriptor_count < PROTO_DESCRIPTORS_MAX) {
                message->descriptors[message->descriptor_count++] = fd;
            } else {
                close(fd);
                surplus++;
            }
        }
    }
    return surplus;
}

int proto_receive(int socket, struct proto_message *message, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE((PROTO_DESCRIPTORS_MAX + 1) * sizeof(int))];
    } control;
    struct iovec parts[2] = {{&message->header, sizeof(message->header)},
                             {message->body, sizeof(message->body)}};
    struct msghdr header = {.msg_iov = parts,
                            .msg_iovlen = 2,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control)};
    ssize_t n;
    int r = 1;

    message->descriptor_count = 0;
    /* ECONNRESET, once, says that the peer left something unread; what it sent is still to come. */
    do
        n = recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0)
        return -errno;
    unsigned surplus = take_descriptors(&header, message);
    if (n == 0)
        r = 0;
    else if (header.msg_flags & MSG_TRUNC)
        r = -EMSGSIZE;
    else if ((size_t)n < sizeof(message->header) ||
             (size_t)n != sizeof(message->header) + message->header.size || surplus > 0)
        r = -EBADMSG;
    else if (header.msg_flags & MSG_CTRUNC) /* there was room for one more than any message has */
        r = -EMFILE;
    if (r <= 0)
        proto_message_close(message);
    return r;
}

void proto_message_close(struct proto_message *message)
{
    while (message->descriptor_count > 0)
        close(message->descriptors[--message->descriptor_count]);
}

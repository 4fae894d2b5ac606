/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/vm_link.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/vm_worker.h"
#include "packaging/guest/wire.h"

#define COMMAND 1u
#define RETRY_MS 50

void vm_link_host(struct vm_link *link, const char *name)
{
    int pair[2];

    *link = (struct vm_link){.name = name};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        children_fail("%s: socketpair: %s", name, strerror(errno));
    link->socket = pair[0];
    if (children_fork(name, -1) == 0) {
        dup2(pair[1], STDIN_FILENO);
        dup2(pair[1], STDOUT_FILENO);
        _exit(vm_worker_run());
    }
    close(pair[1]);
}

static void send_all(struct vm_link *link, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t n = send(link->socket, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            children_fail("%s: %s", link->name, strerror(errno));
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        }
    }
}

/* False: the other side has closed, or time is up. */
static bool receive_all(struct vm_link *link, void *bytes, size_t size, int patience_ms)
{
    uint64_t end_ns = measure_now_ns() + (uint64_t)patience_ms * 1000000;
    struct pollfd poll_one = {.fd = link->socket, .events = POLLIN};
    char *at = bytes;

    while (size > 0) {
        uint64_t now_ns = measure_now_ns();
        if (now_ns >= end_ns || poll(&poll_one, 1, (int)((end_ns - now_ns) / 1000000) + 1) <= 0)
            return false;
        ssize_t n = recv(link->socket, at, size, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            return false;
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        }
    }
    return true;
}

static void send_frame(struct vm_link *link, uint32_t command, enum guest_frame_kind kind,
                       const void *bytes, size_t size)
{
    const struct guest_frame frame = {
        .command = command, .kind = (uint16_t)kind, .size_bytes = (uint32_t)size};

    send_all(link, &frame, sizeof(frame));
    send_all(link, bytes, size);
}

/* QEMU makes the socket when it starts. */
static bool connect_to(struct vm_link *link, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        children_fail("%s: too long a path", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    link->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (link->socket < 0)
        children_fail("socket: %s", strerror(errno));
    if (connect(link->socket, (struct sockaddr *)&address, sizeof(address)) == 0)
        return true;
    close(link->socket);
    link->socket = -1;
    return false;
}

/* QEMU answers before the guest does: what is said before it listens may be lost, so say it again.
 */
static bool greet(struct vm_link *link)
{
    uint8_t nonce[GUEST_NONCE_BYTES], answer[GUEST_FRAME_BYTES_MAX];
    struct guest_frame frame;

    if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce))
        return false;
    send_frame(link, 0, GUEST_HELLO, nonce, sizeof(nonce));
    while (receive_all(link, &frame, sizeof(frame), 1000)) {
        if (frame.size_bytes > sizeof(answer) || !receive_all(link, answer, frame.size_bytes, 1000))
            return false;
        if (frame.kind == GUEST_HELLO && frame.size_bytes == sizeof(nonce) &&
            memcmp(answer, nonce, sizeof(nonce)) == 0)
            return true;
    }
    return false;
}

void vm_link_guest(struct vm_link *link, const char *name, const char *socket_path,
                   const char *command, int patience_ms)
{
    uint64_t end_ns = measure_now_ns() + (uint64_t)patience_ms * 1000000;

    *link = (struct vm_link){.name = name, .framed = true, .socket = -1};
    for (;;) {
        if (link->socket >= 0 || connect_to(link, socket_path)) {
            if (greet(link))
                break;
        } else {
            poll(NULL, 0, RETRY_MS);
        }
        if (measure_now_ns() > end_ns)
            children_fail("%s does not answer within %d s", name, patience_ms / 1000);
    }
    send_frame(link, COMMAND, GUEST_START, command, strlen(command));
}

void vm_link_say(struct vm_link *link, const char *format, ...)
{
    char line[VM_LINE_BYTES];
    va_list arguments;

    va_start(arguments, format);
    int n = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    if (n < 0 || (size_t)n >= sizeof(line) - 1)
        children_fail("%s: too long a line", link->name);
    line[n] = '\n';
    if (link->framed)
        send_frame(link, COMMAND, GUEST_INPUT, line, (size_t)n + 1);
    else
        send_all(link, line, (size_t)n + 1);
}

/* Makes link->text longer. */
static void hear_more(struct vm_link *link, int patience_ms)
{
    static char bytes[GUEST_FRAME_BYTES_MAX];
    struct guest_frame frame = {.kind = GUEST_OUTPUT, .size_bytes = 1};

    if ((link->framed && (!receive_all(link, &frame, sizeof(frame), patience_ms) ||
                          frame.size_bytes > sizeof(bytes))) ||
        !receive_all(link, bytes, frame.size_bytes, patience_ms))
        children_fail("%s says nothing more", link->name);
    if (frame.kind == GUEST_ERRORS)
        fprintf(stderr, "%s: %.*s", link->name, (int)frame.size_bytes, bytes);
    if (frame.kind == GUEST_ENDED)
        children_fail("%s: its worker has ended", link->name);
    if (frame.kind != GUEST_OUTPUT)
        return;
    if (frame.size_bytes > sizeof(link->text) - link->held)
        children_fail("%s says too much", link->name);
    memcpy(link->text + link->held, bytes, frame.size_bytes);
    link->held += frame.size_bytes;
}

void vm_link_hear(struct vm_link *link, char line[VM_LINE_BYTES], int patience_ms)
{
    char *end;

    while (!(end = memchr(link->text, '\n', link->held)))
        hear_more(link, patience_ms);
    size_t length = (size_t)(end - link->text);
    if (length >= VM_LINE_BYTES)
        children_fail("%s: too long a line", link->name);
    memcpy(line, link->text, length);
    line[length] = 0;
    link->held -= length + 1;
    memmove(link->text, end + 1, link->held);
    if (strncmp(line, "failed", 6) == 0)
        children_fail("%s: %s", link->name, line);
}

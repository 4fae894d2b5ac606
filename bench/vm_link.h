/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/vm_link.h - lines to and from a worker of `vchan-bench vm`: one in a guest, reached through
 * its port for commands (packaging/guest/wire.h), or one on the host, reached through a socket.
 *
 * Every failure, and a worker that ends or says "failed", ends the benchmark.
 */
#ifndef VCHAN_BENCH_VM_LINK_H
#define VCHAN_BENCH_VM_LINK_H

#include <stdbool.h>
#include <stddef.h>

#define VM_LINE_BYTES 512u

struct vm_link {
    const char *name; /* "guest1": for messages */
    int socket;
    bool framed;
    size_t held; /* bytes in text that no line has been made of */
    char text[128 * 1024];
};

/* Forks a worker on the host. */
void vm_link_host(struct vm_link *link, const char *name);

/*
 * Starts a worker in the guest whose QEMU has made this socket, when it answers: after its boot,
 * patience_ms at most.
 */
void vm_link_guest(struct vm_link *link, const char *name, const char *socket_path,
                   const char *command, int patience_ms);

void vm_link_say(struct vm_link *link, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The next line, without its end. */
void vm_link_hear(struct vm_link *link, char line[VM_LINE_BYTES], int patience_ms);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/listener.h - the run-time directory and the socket in it.
 *
 * With socket activation the service manager made the socket, and owns its mode; else this does, in
 * a directory that it makes where there is none. One broker serves a directory: it holds a lock on
 * vchand.pid there, which the kernel drops when it dies, so that a left-over file or socket never
 * stands in the way.
 */
#ifndef VCHAN_BROKER_LISTENER_H
#define VCHAN_BROKER_LISTENER_H

#include <stdbool.h>

#include "broker/config.h"
#include "broker/log.h"

struct listener {
    int descriptor; /* listening, non-blocking */
    int lock;       /* of the pid file; -1 with socket activation */
    bool activated;
    char *socket_path; /* NULL with socket activation */
    char *lock_path;
};

/* The run-time directory that is meant: named, or if that is NULL VCHAN_RUNTIME_DIR, else
 * /run/vchand. Not a copy. */
const char *listener_directory(const char *named);

/* directory: as for listener_directory. On failure the reason is logged. */
int listener_init(struct listener *listener, const struct config *config, const char *directory,
                  const struct log *log);

/* Removes the socket, unless the service manager made it. */
void listener_deinit(struct listener *listener);

/* Gives a socket to socket-group= with socket-mode=. 0, or -errno (the group's is logged). */
int listener_set_owner(const char *path, const struct config *config, const struct log *log);

#endif

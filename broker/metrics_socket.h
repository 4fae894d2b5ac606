/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/metrics_socket.h - where the metrics are served.
 */
#ifndef VCHAN_BROKER_METRICS_SOCKET_H
#define VCHAN_BROKER_METRICS_SOCKET_H

#include "broker/config.h"
#include "broker/log.h"

/*
 * The path of the Unix socket, as configured or beside the broker's own (listening on descriptor),
 * into path[CONFIG_PATH_BYTES]. 0; -ENOENT: none is wanted; -ENAMETOOLONG (logged).
 */
int metrics_socket_path(const struct config *config, int descriptor, const struct log *log,
                        char *path);

/*
 * A listening, non-blocking Unix socket, which who may use the broker's may use. One that a dead
 * broker left is replaced, nothing else is. The descriptor, or -errno (logged).
 */
int metrics_socket_unix(const struct config *config, const struct log *log, const char *path);

/*
 * The same for 127.0.0.1:PORT or [::1]:PORT. Any other address, which the configuration does not
 * let through either, is -EINVAL.
 */
int metrics_socket_loopback(const char *address, const struct log *log);

#endif

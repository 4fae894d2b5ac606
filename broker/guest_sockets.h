/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/guest_sockets.h - where QEMU connects: one listening socket for each domain and zone.
 *
 *   <runtime directory>/guests/<zone>/<domain>.sock
 *
 * Whoever can connect to a socket is that domain, so its mode and group are the guard; nobody else
 * may write the directories. The file has the domain's name, or its number where it has none or one
 * that is no file's (all digits, with a slash, another's). A socket is there while somebody wants
 * it: the configuration, for its domains but the host, or the hypervisor's helper. A guest that has
 * connected stays when its socket goes.
 *
 * The sockets are served before anything else that the event loop has to do, because a QEMU that
 * has connected waits with its VM stopped; a flood of connects is held back for each socket.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_GUEST_SOCKETS_H
#define VCHAN_BROKER_GUEST_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <urcu/list.h>

#include "broker/log.h"

struct broker;
struct config;
struct zone;

/* As sun_path of struct sockaddr_un, with its NUL. */
#define GUEST_SOCKET_PATH_BYTES 108u

struct guest_sockets {
    char *directory; /* <runtime directory>/guests */
    mode_t mode;
    gid_t group;                  /* (gid_t)-1: the broker's */
    struct cds_list_head sockets; /* of guest_socket.link */
    struct log_limit lines;
};

/* Before anything else: so that guest_sockets_close may be called. */
void guest_sockets_init(struct guest_sockets *sockets);

/*
 * Removes what a dead broker has left, and makes the sockets of all configured domains; one that
 * cannot be made is logged. runtime_directory: as for listener_init. 0; -EINVAL (logged): there is
 * no such group; -ENOMEM.
 */
int guest_sockets_open(struct broker *broker, const char *runtime_directory);

/* Removes all of them. */
void guest_sockets_close(struct broker *broker);

/* The configuration has been read again: makes and removes. */
void guest_sockets_reload(struct broker *broker, const struct config *config);

/*
 * The hypervisor knows this domain: makes its sockets, in all zones that it is in. Again after its
 * name has changed. 0; -ENAMETOOLONG, or what mkdir and bind gave, of the last that failed
 * (logged); the others are there.
 */
int guest_sockets_need(struct broker *broker, uint32_t domain);
/* It does not any more: removes them, unless the configuration wants them. */
void guest_sockets_drop(struct broker *broker, uint32_t domain);

/*
 * Where QEMU connects for that device, if there is such a socket or there could be: 0,
 * -ENAMETOOLONG.
 */
int guest_socket_path(const struct broker *broker, const struct zone *zone, uint32_t domain,
                      char path[GUEST_SOCKET_PATH_BYTES]);

#endif

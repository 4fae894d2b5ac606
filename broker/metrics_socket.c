/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/metrics_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/listener.h"

#define BACKLOG 32
#define NAME "metrics.sock"

int metrics_socket_path(const struct config *config, int descriptor, const struct log *log,
                        char *path)
{
    struct sockaddr_un broker = {0};
    socklen_t bytes = sizeof(broker);

    if (strcmp(config->metrics_socket, "no") == 0)
        return -ENOENT;
    if (*config->metrics_socket) {
        snprintf(path, CONFIG_PATH_BYTES, "%s", config->metrics_socket);
        return 0;
    }
    /* The service manager's socket has its path from there, ours from the run-time directory. */
    if (getsockname(descriptor, (struct sockaddr *)&broker, &bytes) < 0 ||
        broker.sun_family != AF_UNIX || broker.sun_path[0] != '/')
        return -ENOENT;
    const char *slash = strrchr(broker.sun_path, '/');
    int n = snprintf(path, CONFIG_PATH_BYTES, "%.*s" NAME, (int)(slash - broker.sun_path) + 1,
                     broker.sun_path);
    if (n > 0 && (size_t)n < CONFIG_PATH_BYTES)
        return 0;
    log_warning(log, "no metrics: the path of " NAME " beside the broker's socket is too long; "
                     "[metrics] socket= names another");
    return -ENAMETOOLONG;
}

/* May the path be bound to? What a dead broker left there is removed. */
static int make_way(const struct sockaddr_un *address)
{
    struct stat status;

    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode))
        return -EEXIST;
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return -errno;
    int r = connect(probe, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
    close(probe);
    if (r != -ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(address->sun_path) < 0 ? -errno : 0;
}

int metrics_socket_unix(const struct config *config, const struct log *log, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r = descriptor < 0 ? -errno : make_way(&address);
    if (r == 0) {
        /* Nobody may connect before the mode is right. */
        mode_t mask = umask(0777);
        r = bind(descriptor, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
        umask(mask);
    }
    if (r == 0)
        r = listener_set_owner(path, config, log);
    if (r == 0 && listen(descriptor, BACKLOG) < 0)
        r = -errno;
    if (r == 0)
        return descriptor;
    log_warning(log, "no metrics on %s: %s", path, strerror(-r));
    if (descriptor >= 0)
        close(descriptor);
    return r;
}

static int parse_address(const char *text, struct sockaddr_storage *storage, socklen_t *bytes)
{
    const char *colon = strrchr(text, ':');
    const int port = colon ? atoi(colon + 1) : 0;

    if (port < 1 || port > 65535)
        return -EINVAL;
    if (strncmp(text, "127.0.0.1:", 10) == 0) {
        struct sockaddr_in *four = (struct sockaddr_in *)storage;
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *bytes = sizeof(*four);
    } else if (strncmp(text, "[::1]:", 6) == 0) {
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)storage;
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        six->sin6_addr = in6addr_loopback;
        *bytes = sizeof(*six);
    } else {
        return -EINVAL;
    }
    return 0;
}

int metrics_socket_loopback(const char *text, const struct log *log)
{
    struct sockaddr_storage address = {0};
    socklen_t bytes;
    const int yes = 1;
    int descriptor = -1;
    int r = parse_address(text, &address, &bytes);

    if (r == 0) {
        descriptor = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        /* A port that a stopped broker had is free at once. */
        if (descriptor < 0 ||
            setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
            bind(descriptor, (const struct sockaddr *)&address, bytes) < 0 ||
            listen(descriptor, BACKLOG) < 0)
            r = -errno;
    }
    if (r == 0)
        return descriptor;
    log_warning(log, "no metrics on http://%s: %s", text, strerror(-r));
    if (descriptor >= 0)
        close(descriptor);
    return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define DIRECTORY_DEFAULT "/run/vchand"
#define BACKLOG 512

static int take_activated(struct listener *listener, const struct log *log)
{
    int count = sd_listen_fds(1);

    if (count <= 0)
        return count;
    if (count > 1 || sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, NULL, 0) <= 0) {
        log_error(log, "socket activation: one listening SEQPACKET Unix socket is expected "
                       "(ListenSequentialPacket= in the socket unit)");
        return -EINVAL;
    }
    listener->descriptor = SD_LISTEN_FDS_START;
    listener->activated = true;
    int flags = fcntl(listener->descriptor, F_GETFL);
    if (flags < 0 || fcntl(listener->descriptor, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return 1;
}

/* Who holds the lock, as they wrote it. */
static void log_holder(int lock, const char *directory, const struct log *log)
{
    char pid[32] = "";
    ssize_t n = pread(lock, pid, sizeof(pid) - 1, 0);

    if (n > 0)
        pid[strcspn(pid, "\n")] = 0;
    log_error(log, "%s: another vchand serves this directory already: pid %s", directory,
              *pid ? pid : "unknown");
}

static int take_lock(struct listener *listener, const char *directory, const struct log *log)
{
    char pid[32];

    listener->lock = open(listener->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (listener->lock < 0) {
        int r = -errno;
        log_error(log, "%s: %s", listener->lock_path, strerror(-r));
        return r;
    }
    if (flock(listener->lock, LOCK_EX | LOCK_NB) < 0) {
        int r = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
        if (r == -EADDRINUSE)
            log_holder(listener->lock, directory, log);
        else
            log_error(log, "%s: %s", listener->lock_path, strerror(-r));
        close(listener->lock);
        listener->lock = -1;
        return r;
    }
    int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    if (ftruncate(listener->lock, 0) < 0 || pwrite(listener->lock, pid, (size_t)n, 0) != n)
        log_warning(log, "%s: cannot write the pid: %s", listener->lock_path, strerror(errno));
    return 0;
}

int listener_set_owner(const char *path, const struct config *config, const struct log *log)
{
    if (*config->socket_group) {
        errno = 0;
        const struct group *group = getgrnam(config->socket_group);
        if (!group) {
            log_error(log, "socket-group: there is no group \"%s\"", config->socket_group);
            return -EINVAL;
        }
        if (chown(path, (uid_t)-1, group->gr_gid) < 0) {
            int r = -errno;
            log_error(log, "%s: cannot give it to group %s: %s", path, config->socket_group,
                      strerror(-r));
            return r;
        }
    }
    return chmod(path, (mode_t)config->socket_mode) < 0 ? -errno : 0;
}

static int make_socket(struct listener *listener, const struct config *config,
                       const struct log *log)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int r;

    if (strlen(listener->socket_path) >= sizeof(address.sun_path)) {
        log_error(log, "%s: longer than the %zu characters that the path of a socket may have",
                  listener->socket_path, sizeof(address.sun_path) - 1);
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, listener->socket_path);
    listener->descriptor = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->descriptor < 0)
        return -errno;
    unlink(listener->socket_path); /* a dead broker's: we hold the lock */
    /* Nobody may connect before the mode is right. */
    mode_t mask = umask(0777);
    r = bind(listener->descriptor, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno
                                                                                           : 0;
    umask(mask);
    if (r == 0)
        r = listener_set_owner(listener->socket_path, config, log);
    if (r == 0 && listen(listener->descriptor, BACKLOG) < 0)
        r = -errno;
    if (r < 0)
        log_error(log, "%s: %s", listener->socket_path, strerror(-r));
    return r;
}

static int make_here(struct listener *listener, const struct config *config, const char *directory,
                     const struct log *log)
{
    int r;

    if (mkdir(directory, 0755) < 0 && errno != EEXIST) {
        r = -errno;
        log_error(log,
                  "%s: cannot make the run-time directory: %s (VCHAN_RUNTIME_DIR names another)",
                  directory, strerror(-r));
        return r;
    }
    if (asprintf(&listener->lock_path, "%s/vchand.pid", directory) < 0 ||
        asprintf(&listener->socket_path, "%s/vchand.sock", directory) < 0)
        return -ENOMEM;
    r = take_lock(listener, directory, log);
    return r < 0 ? r : make_socket(listener, config, log);
}

const char *listener_directory(const char *named)
{
    const char *variable = getenv("VCHAN_RUNTIME_DIR");

    if (named)
        return named;
    return variable && *variable ? variable : DIRECTORY_DEFAULT;
}

int listener_init(struct listener *listener, const struct config *config, const char *directory,
                  const struct log *log)
{
    *listener = (struct listener){.descriptor = -1, .lock = -1};
    int r = take_activated(listener, log);
    if (r == 0)
        r = make_here(listener, config, listener_directory(directory), log);
    if (r < 0)
        listener_deinit(listener);
    return r < 0 ? r : 0;
}

void listener_deinit(struct listener *listener)
{
    /* Only who holds the lock may remove the socket: else it is another broker's. The pid file
     * stays, empty: were it removed, one broker could lock the old file and another a new one. */
    if (listener->lock >= 0) {
        unlink(listener->socket_path);
        if (ftruncate(listener->lock, 0) < 0) {
            /* Then it keeps a pid, which nobody looks at without the lock being held. */
        }
        close(listener->lock);
    }
    if (listener->descriptor >= 0)
        close(listener->descriptor);
    free(listener->socket_path);
    free(listener->lock_path);
    *listener = (struct listener){.descriptor = -1, .lock = -1};
}

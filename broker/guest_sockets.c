/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/guest_sockets.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/ivshmem.h"

#define BACKLOG 16
/* Of one socket's connects: so many in a window, one in a turn. */
#define WINDOW_US 100000u
#define CONNECTS_A_WINDOW 20u
/* After a failure to accept that we can do nothing about. */
#define ACCEPT_PAUSE_US 500000u

static_assert(GUEST_SOCKET_PATH_BYTES == sizeof(((struct sockaddr_un *)0)->sun_path),
              "what bind takes");

/* Who wants a socket. */
#define WANTED_BY_CONFIGURATION 0x1u
#define WANTED_BY_HYPERVISOR 0x2u

struct guest_socket {
    struct cds_list_head link; /* owner: guest_sockets.sockets */
    struct broker *broker;
    struct zone *zone;
    uint32_t domain;
    uint32_t wanted; /* WANTED_BY_* */
    int descriptor;
    sd_event_source *source;
    sd_event_source *again;
    char path[GUEST_SOCKET_PATH_BYTES];
};

static struct guest_socket *find(const struct guest_sockets *sockets, const struct zone *zone,
                                 uint32_t domain)
{
    struct guest_socket *socket;

    cds_list_for_each_entry(socket, &sockets->sockets,
                            link) if (socket->zone == zone &&
                                      socket->domain == domain) return socket;
    return NULL;
}

/* Could it be the name of a file, and not another domain's number? */
static bool is_file_name(const char *name)
{
    bool digits = true;

    if (name[0] == 0 || name[0] == '.')
        return false;
    for (; *name; name++) {
        if (iscntrl((unsigned char)*name) || *name == '/')
            return false;
        digits = digits && isdigit((unsigned char)*name);
    }
    return !digits;
}

static int print_path(const struct broker *broker, const struct zone *zone, const char *name,
                      char path[GUEST_SOCKET_PATH_BYTES])
{
    int n = snprintf(path, GUEST_SOCKET_PATH_BYTES, "%s/%s/%s.sock",
                     broker->guest_sockets.directory, zone->name, name);

    return n < 0 || (unsigned)n >= GUEST_SOCKET_PATH_BYTES ? -ENAMETOOLONG : 0;
}

/* What it would be, were it made now. */
static int choose_path(const struct broker *broker, const struct zone *zone, uint32_t domain,
                       char path[GUEST_SOCKET_PATH_BYTES])
{
    const struct domain *record = domains_find(&broker->domains, domain);
    const struct guest_socket *other;
    char number[16];

    snprintf(number, sizeof(number), "%u", domain);
    if (!record || !is_file_name(record->name))
        return print_path(broker, zone, number, path);
    int r = print_path(broker, zone, record->name, path);
    if (r == 0)
        cds_list_for_each_entry(other, &broker->guest_sockets.sockets,
                                link) if (other->domain != domain &&
                                          strcmp(other->path, path) ==
                                              0) return print_path(broker, zone, number, path);
    return r;
}

int guest_socket_path(const struct broker *broker, const struct zone *zone, uint32_t domain,
                      char path[GUEST_SOCKET_PATH_BYTES])
{
    const struct guest_socket *socket = find(&broker->guest_sockets, zone, domain);

    if (!socket)
        return choose_path(broker, zone, domain, path);
    memcpy(path, socket->path, GUEST_SOCKET_PATH_BYTES);
    return 0;
}

/* Ours, and nobody else may put anything into it. */
static int make_directory(const struct broker *broker, const char *path)
{
    struct stat status;
    int r = 0;

    if (mkdir(path, 0755) == 0)
        r = chmod(path, 0755) < 0 ? -errno : 0; /* whatever our umask: QEMU is another user */
    else if (errno != EEXIST)
        r = -errno;
    if (r == 0 && lstat(path, &status) < 0)
        r = -errno;
    if (r < 0) {
        log_error(&broker->log, "%s: cannot make this directory for QEMU to connect: %s", path,
                  strerror(-r));
        return r;
    }
    if (S_ISDIR(status.st_mode) && (status.st_uid == geteuid() || status.st_uid == 0) &&
        !(status.st_mode & (S_IWGRP | S_IWOTH)))
        return 0;
    log_error(&broker->log,
              "%s: it must be a directory that only its owner may write, and that is the broker's; "
              "remove it, or mend it with chown and chmod go-w",
              path);
    return -EPERM;
}

static int make_directories(const struct broker *broker, const struct zone *zone)
{
    const char *top = broker->guest_sockets.directory;
    char path[GUEST_SOCKET_PATH_BYTES];

    int r = make_directory(broker, top);
    if (r == 0 && snprintf(path, sizeof(path), "%s/%s", top, zone->name) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    return r < 0 ? r : make_directory(broker, path);
}

/* The listening socket stays readable, so without a pause the loop would spin. */
static int pause_accepting(struct guest_socket *socket, int err)
{
    struct broker *broker = socket->broker;
    uint32_t left_out;

    if (log_limit_admits(&broker->guest_sockets.lines, 10, broker_now_ns(), &left_out))
        log_warning(&broker->log,
                    "%s: cannot accept QEMU, and its VM waits: %s; trying again in %u ms",
                    socket->path, strerror(-err), ACCEPT_PAUSE_US / 1000);
    int r = sd_event_source_set_time_relative(socket->again, ACCEPT_PAUSE_US);
    if (r >= 0)
        r = sd_event_source_set_enabled(socket->again, SD_EVENT_ONESHOT);
    return r < 0 ? r : sd_event_source_set_enabled(socket->source, SD_EVENT_OFF);
}

static int on_again(sd_event_source *source, uint64_t now_us, void *context)
{
    struct guest_socket *socket = context;

    (void)source;
    (void)now_us;
    return sd_event_source_set_enabled(socket->source, SD_EVENT_ON);
}

static int on_connect(sd_event_source *source, int listening, uint32_t events, void *context)
{
    struct guest_socket *socket = context;

    (void)source;
    (void)events;
    int descriptor = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor >= 0)
        ivshmem_accept(socket->broker, socket->zone, socket->domain, descriptor);
    else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        return pause_accepting(socket, -errno);
    return 0;
}

static int bind_socket(struct guest_socket *made)
{
    const struct guest_sockets *sockets = &made->broker->guest_sockets;
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memcpy(address.sun_path, made->path, sizeof(made->path));
    made->descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made->descriptor < 0)
        return -errno;
    unlink(made->path);
    /* Nobody may connect before the mode is right. */
    mode_t mask = umask(0777);
    int r =
        bind(made->descriptor, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    umask(mask);
    if (r == 0 && sockets->group != (gid_t)-1 && chown(made->path, (uid_t)-1, sockets->group) < 0)
        r = -errno;
    if (r == 0 && chmod(made->path, sockets->mode) < 0)
        r = -errno;
    if (r == 0 && listen(made->descriptor, BACKLOG) < 0)
        r = -errno;
    return r;
}

static int watch_socket(struct guest_socket *socket)
{
    sd_event *event = socket->broker->event;

    int r =
        sd_event_add_io(event, &socket->source, socket->descriptor, EPOLLIN, on_connect, socket);
    if (r >= 0)
        r = sd_event_source_set_priority(socket->source, SD_EVENT_PRIORITY_IMPORTANT);
    if (r >= 0)
        r = sd_event_source_set_ratelimit(socket->source, WINDOW_US, CONNECTS_A_WINDOW);
    if (r >= 0)
        r = sd_event_add_time(event, &socket->again, CLOCK_MONOTONIC, 0, 0, on_again, socket);
    if (r >= 0)
        r = sd_event_source_set_enabled(socket->again, SD_EVENT_OFF);
    return r < 0 ? r : 0;
}

static void remove_socket(struct guest_socket *socket)
{
    cds_list_del(&socket->link);
    sd_event_source_disable_unref(socket->source);
    sd_event_source_disable_unref(socket->again);
    if (socket->descriptor >= 0) {
        unlink(socket->path);
        close(socket->descriptor);
    }
    free(socket);
}

static int add_socket(struct broker *broker, struct zone *zone, uint32_t domain, uint32_t wanted)
{
    struct guest_socket *socket = calloc(1, sizeof(*socket));

    if (!socket)
        return -ENOMEM;
    socket->broker = broker;
    socket->zone = zone;
    socket->domain = domain;
    socket->wanted = wanted;
    socket->descriptor = -1;
    int r = choose_path(broker, zone, domain, socket->path);
    if (r == 0)
        r = make_directories(broker, zone);
    cds_list_add_tail(&socket->link, &broker->guest_sockets.sockets);
    if (r == 0)
        r = bind_socket(socket);
    if (r == 0)
        r = watch_socket(socket);
    if (r == -ENAMETOOLONG)
        log_error(&broker->log,
                  "domain %u in zone %s: QEMU cannot connect: the path of a socket has at most %u "
                  "characters, and %s/%s/... has more; use shorter names, or a shorter run-time "
                  "directory (--runtime-dir)",
                  domain, zone->name, GUEST_SOCKET_PATH_BYTES - 1, broker->guest_sockets.directory,
                  zone->name);
    else if (r < 0)
        log_error(&broker->log, "domain %u in zone %s: QEMU cannot connect: %s: %s", domain,
                  zone->name, socket->path, strerror(-r));
    else
        log_debug(&broker->log, "domain %u in zone %s: QEMU connects to %s", domain, zone->name,
                  socket->path);
    if (r < 0)
        remove_socket(socket);
    return r;
}

/* The domain's in that zone, under the name that it has now. */
static int want_socket(struct broker *broker, struct zone *zone, uint32_t domain, uint32_t wanted)
{
    struct guest_socket *socket = find(&broker->guest_sockets, zone, domain);
    char path[GUEST_SOCKET_PATH_BYTES];

    if (socket && choose_path(broker, zone, domain, path) == 0 && strcmp(path, socket->path) == 0) {
        socket->wanted |= wanted;
        return 0;
    }
    if (socket) {
        wanted |= socket->wanted;
        remove_socket(socket);
    }
    return add_socket(broker, zone, domain, wanted);
}

static int want_sockets(struct broker *broker, uint32_t domain, uint32_t wanted)
{
    int failed = 0;

    if (domain == PROTO_DOMAIN_HOST)
        return 0;
    for (uint32_t i = 0; i < broker->zone_count; i++) {
        if (!domain_set_has(&broker->zones[i]->members, domain))
            continue;
        int r = want_socket(broker, broker->zones[i], domain, wanted);
        if (r < 0)
            failed = r;
    }
    return failed;
}

/* Those that nobody wants go. */
static void remove_unwanted(struct broker *broker)
{
    struct guest_socket *socket, *next;

    cds_list_for_each_entry_safe(socket, next, &broker->guest_sockets.sockets,
                                 link) if (socket->wanted == 0) remove_socket(socket);
}

int guest_sockets_need(struct broker *broker, uint32_t domain)
{
    return want_sockets(broker, domain, WANTED_BY_HYPERVISOR);
}

void guest_sockets_drop(struct broker *broker, uint32_t domain)
{
    struct guest_socket *socket;

    cds_list_for_each_entry(socket, &broker->guest_sockets.sockets,
                            link) if (socket->domain == domain) socket->wanted &=
        ~WANTED_BY_HYPERVISOR;
    remove_unwanted(broker);
}

void guest_sockets_reload(struct broker *broker, const struct config *config)
{
    struct guest_socket *socket;

    cds_list_for_each_entry(socket, &broker->guest_sockets.sockets, link) socket->wanted &=
        ~WANTED_BY_CONFIGURATION;
    for (size_t i = 0; i < config->domain_count; i++) {
        cds_list_for_each_entry(socket, &broker->guest_sockets.sockets,
                                link) if (socket->domain == config->domains[i].id) socket->wanted |=
            WANTED_BY_CONFIGURATION;
    }
    /* Before any is made: a name may have gone from one domain to another. */
    remove_unwanted(broker);
    for (size_t i = 0; i < config->domain_count; i++)
        want_sockets(broker, (uint32_t)config->domains[i].id, WANTED_BY_CONFIGURATION);
}

static DIR *open_directory(int parent, const char *name)
{
    int descriptor = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *stream = descriptor >= 0 ? fdopendir(descriptor) : NULL;

    if (!stream && descriptor >= 0)
        close(descriptor);
    return stream;
}

/* The sockets of one zone. */
static void remove_stale(DIR *zone)
{
    const struct dirent *entry;
    struct stat status;

    while ((entry = readdir(zone)))
        if (fstatat(dirfd(zone), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISSOCK(status.st_mode))
            unlinkat(dirfd(zone), entry->d_name, 0);
}

/* What was left by a broker that was killed: we hold its lock. */
static void remove_all_stale(const char *directory)
{
    DIR *top = open_directory(AT_FDCWD, directory);
    const struct dirent *entry;

    while (top && (entry = readdir(top))) {
        DIR *zone = entry->d_name[0] == '.' ? NULL : open_directory(dirfd(top), entry->d_name);
        if (!zone)
            continue;
        remove_stale(zone);
        closedir(zone);
        unlinkat(dirfd(top), entry->d_name, AT_REMOVEDIR); /* if nothing else is in it */
    }
    if (top)
        closedir(top);
}

static int set_guard(struct guest_sockets *sockets, const struct config *config,
                     const struct log *log)
{
    sockets->mode = (mode_t)config->guest_socket_mode;
    sockets->group = (gid_t)-1;
    if (!*config->guest_socket_group)
        return 0;
    const struct group *group = getgrnam(config->guest_socket_group);
    if (!group) {
        log_error(log, "[guests] socket-group: there is no group \"%s\"",
                  config->guest_socket_group);
        return -EINVAL;
    }
    sockets->group = group->gr_gid;
    return 0;
}

void guest_sockets_init(struct guest_sockets *sockets)
{
    *sockets = (struct guest_sockets){.group = (gid_t)-1};
    CDS_INIT_LIST_HEAD(&sockets->sockets);
}

int guest_sockets_open(struct broker *broker, const char *runtime_directory)
{
    struct guest_sockets *sockets = &broker->guest_sockets;
    const char *named = listener_directory(runtime_directory);
    char *absolute = realpath(named, NULL); /* for QEMU, which is somewhere else */

    int n = asprintf(&sockets->directory, "%s/guests", absolute ? absolute : named);
    free(absolute);
    if (n < 0) {
        sockets->directory = NULL;
        return -ENOMEM;
    }
    int r = set_guard(sockets, &broker->config, &broker->log);
    if (r < 0)
        return r;
    remove_all_stale(sockets->directory);
    guest_sockets_reload(broker, &broker->config);
    return 0;
}

void guest_sockets_close(struct broker *broker)
{
    struct guest_sockets *sockets = &broker->guest_sockets;
    struct guest_socket *socket, *next;
    char path[GUEST_SOCKET_PATH_BYTES];

    cds_list_for_each_entry_safe(socket, next, &sockets->sockets, link) remove_socket(socket);
    if (!sockets->directory)
        return;
    for (uint32_t i = 0; i < broker->zone_count; i++)
        if (snprintf(path, sizeof(path), "%s/%s", sockets->directory, broker->zones[i]->name) <
            (int)sizeof(path))
            rmdir(path);
    rmdir(sockets->directory);
    free(sockets->directory);
    sockets->directory = NULL;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/guard.h"
#include "proto/socket.h"

#define BACKLOG 128

/* -EADDRINUSE: another agent, or a broker, listens there. A socket that nobody listens on goes. */
static int remove_stale(const char *path)
{
    int fd = proto_socket_connect(path);

    if (fd >= 0) {
        close(fd);
        return -EADDRINUSE;
    }
    if (fd == -ECONNREFUSED)
        (void)unlink(path);
    return 0;
}

static int make_directory(const char *socket_path)
{
    char directory[sizeof(((struct agent *)NULL)->socket_path)];
    char *slash;

    snprintf(directory, sizeof(directory), "%s", socket_path);
    slash = strrchr(directory, '/');
    if (!slash || slash == directory)
        return 0;
    *slash = '\0';
    return mkdir(directory, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* Who may connect is settled before anybody can. */
static int bind_with_mode(int fd, const char *path, const struct agent_options *options)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mode_t before = umask(0777);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int r = bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    umask(before);
    if (r == 0 && options->socket_group != (gid_t)-1 &&
        chown(path, (uid_t)-1, options->socket_group) < 0)
        r = -errno;
    if (r == 0 && chmod(path, options->socket_mode) < 0)
        r = -errno;
    if (r == 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    return r;
}

static int listen_for_programs(struct agent *agent)
{
    int r = proto_socket_path(agent->socket_path, sizeof(agent->socket_path));

    if (r == 0)
        r = make_directory(agent->socket_path);
    if (r == 0)
        r = remove_stale(agent->socket_path);
    if (r == 0) {
        agent->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        r = agent->listener < 0 ? -errno
                                : bind_with_mode(agent->listener, agent->socket_path,
                                                 &agent->options);
    }
    if (r < 0) {
        log_write(&agent->log, LOG_ERR, "cannot listen on %s: %s%s", agent->socket_path,
                  strerror(-r),
                  r == -EADDRINUSE ? " (another agent, or a broker, does)" : "");
        agent->socket_path[0] = '\0';
    }
    return r;
}

int agent_init(struct agent *agent, const struct agent_options *options)
{
    *agent = (struct agent){.options = *options, .listener = -1, .signal_fd = -1};
    TAILQ_INIT(&agent->attachments);
    log_init(&agent->log, options->log_level);
    guard_init();
    int r = loop_init(&agent->loop);
    if (r == 0)
        r = ringer_init(&agent->ringer);
    if (r == 0)
        r = poller_init(&agent->poller, agent);
    if (r == 0)
        r = listen_for_programs(agent);
    if (r == 0)
        r = sessions_init(&agent->sessions, agent, agent->listener);
    if (r < 0)
        log_write(&agent->log, LOG_ERR, "cannot start: %s", strerror(-r));
    return r;
}

void agent_deinit(struct agent *agent)
{
    while (!TAILQ_EMPTY(&agent->attachments))
        attachment_free(TAILQ_FIRST(&agent->attachments));
    sessions_deinit(&agent->sessions);
    poller_deinit(&agent->poller);
    loop_remove(&agent->watched);
    device_watch_free(agent->watch);
    loop_remove(&agent->signals);
    if (agent->signal_fd >= 0)
        close(agent->signal_fd);
    if (agent->listener >= 0)
        close(agent->listener);
    if (agent->socket_path[0])
        (void)unlink(agent->socket_path);
    ringer_deinit(&agent->ringer);
    loop_deinit(&agent->loop);
}

static struct attachment *find(const struct agent *agent, const char *address)
{
    struct attachment *attachment;

    TAILQ_FOREACH(attachment, &agent->attachments, link)
        if (strcmp(attachment->device.address, address) == 0)
            return attachment;
    return NULL;
}

static void on_device(void *context, const char *address, bool here)
{
    struct agent *agent = context;
    struct attachment *attachment = find(agent, address);

    if (!here && attachment) {
        log_write(&agent->log, LOG_NOTICE, "device %s: it is gone", address);
        attachment_free(attachment);
    } else if (here && attachment) {
        attachment_try(attachment);
    } else if (here) {
        int r = attachment_new(agent, address, &attachment);
        if (r < 0)
            log_write(&agent->log, LOG_ERR, "device %s: %s", address, strerror(-r));
    }
}

static void on_watch(void *context)
{
    struct agent *agent = context;

    device_watch_read(agent->watch);
}

static void on_signal(void *context)
{
    struct agent *agent = context;

    loop_stop(&agent->loop);
}

static int listen_to_signals(struct agent *agent)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    agent->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (agent->signal_fd < 0)
        return -errno;
    return loop_add(&agent->loop, &agent->signals, agent->signal_fd, on_signal, agent);
}

int agent_watch(struct agent *agent)
{
    int r = listen_to_signals(agent);

    /* First listen, then look, so that none is missed. */
    if (r == 0)
        r = device_watch_new(on_device, agent, &agent->watch);
    if (r == 0)
        r = loop_add(&agent->loop, &agent->watched, device_watch_fd(agent->watch), on_watch,
                     agent);
    if (r == 0)
        r = device_watch_enumerate(agent->watch);
    if (r < 0)
        log_write(&agent->log, LOG_ERR, "cannot watch devices: %s", strerror(-r));
    else if (TAILQ_EMPTY(&agent->attachments))
        log_write(&agent->log, LOG_NOTICE,
                  "no ivshmem device is attached to this VM; waiting for one");
    return r;
}

struct attachment *agent_talks(const struct agent *agent)
{
    struct attachment *attachment;

    TAILQ_FOREACH(attachment, &agent->attachments, link)
        if (attachment->state == ATTACHMENT_READY)
            return attachment;
    return NULL;
}

const char *agent_why_not(const struct agent *agent)
{
    static char why[DEVICE_WHY_BYTES + 128];
    const struct attachment *attachment = TAILQ_FIRST(&agent->attachments);

    if (!attachment)
        return "no ivshmem device is attached to this VM: run vchanctl doctor";
    switch (attachment->state) {
    case ATTACHMENT_TRYING:
    case ATTACHMENT_IGNORED:
        snprintf(why, sizeof(why), "the ivshmem device %s cannot be used: %s: run vchanctl doctor",
                 attachment->device.address, attachment->device.why);
        return why;
    case ATTACHMENT_RETURNED:
        return "the ivshmem device is being removed";
    default:
        return "the broker has not answered through the ivshmem device yet: does vchand run on "
               "the host?";
    }
}

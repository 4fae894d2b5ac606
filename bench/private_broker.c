/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/private_broker.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/children.h"
#include "client/connection.h"
#include "proto/socket.h"

#define START_MS 10000

static void format_path(char *path, const char *directory, const char *name)
{
    if (snprintf(path, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
        children_fail("%s: too long a path", directory);
}

/* The directory that this program lies in. */
static void own_directory(char *path)
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);

    if (n < 0)
        children_fail("/proc/self/exe: %s", strerror(errno));
    path[n] = 0;
    *strrchr(path, '/') = 0;
}

static void use(struct private_broker *broker, const char *socket_path)
{
    snprintf(broker->socket_path, sizeof(broker->socket_path), "%s", socket_path);
    snprintf(broker->directory, sizeof(broker->directory), "%s", socket_path);
    char *slash = strrchr(broker->directory, '/');
    if (!slash || strcmp(slash, "/vchand.sock") != 0)
        children_fail("%s: a broker's socket is named vchand.sock, and has a directory",
                      socket_path);
    *slash = 0;
}

static void make_directory(struct private_broker *broker)
{
    /* By a broker that could not clean up. Guests' own sockets are their mode's to name. */
    static const char *const left[] = {"vchand.pid", "metrics.sock", "guests", "guests/default"};
    const char *parent = getenv("TMPDIR");
    char path[PATH_MAX];

    format_path(broker->directory, parent ? parent : "/tmp", "vchan-bench.XXXXXX");
    if (!mkdtemp(broker->directory))
        children_fail("%s: %s", broker->directory, strerror(errno));
    children_remove_at_end(broker->directory);
    format_path(broker->socket_path, broker->directory, "vchand.sock");
    children_remove_at_end(broker->socket_path);
    format_path(broker->config_path, broker->directory, "vchand.conf");
    children_remove_at_end(broker->config_path);
    for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
        format_path(path, broker->directory, left[i]);
        children_remove_at_end(path);
    }
}

static void write_config(const struct private_broker *broker, const char *text)
{
    FILE *file = fopen(broker->config_path, "we");

    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        children_fail("%s: %s", broker->config_path, strerror(errno));
}

static void start(struct private_broker *broker, const char *config)
{
    char directory[PATH_MAX], program[PATH_MAX];
    const char *const argv[] = {program,       "--config", broker->config_path,
                                "--log-level", "warning",  NULL};

    own_directory(directory);
    format_path(program, directory, "vchand");
    if (access(program, X_OK) < 0)
        children_fail("%s: %s (build vchand too, or name a running broker with --socket)", program,
                      strerror(errno));
    make_directory(broker);
    write_config(broker, config);
    setenv("VCHAN_RUNTIME_DIR", broker->directory, 1);
    broker->pid = children_spawn("the broker", -1, argv, NULL);
}

static void await_answer(const struct private_broker *broker)
{
    int r = -ENOENT;

    setenv("VCHAN_RUNTIME_DIR", broker->directory, 1);
    for (int ms = 0; ms < START_MS; ms += 10) {
        r = proto_socket_connect(broker->socket_path);
        if (r >= 0 || broker->pid == 0)
            break;
        usleep(10000);
    }
    if (r < 0)
        children_fail("%s: %s", broker->socket_path, strerror(-r));
    close(r);
}

void private_broker_start(struct private_broker *broker, const char *socket_path)
{
    *broker = (struct private_broker){0};
    if (socket_path)
        use(broker, socket_path);
    else
        start(broker, "");
    await_answer(broker);
}

void private_broker_start_configured(struct private_broker *broker, const char *config)
{
    *broker = (struct private_broker){0};
    start(broker, config);
    await_answer(broker);
}

static bool runs_policy(const struct private_broker *broker, const char *policy)
{
    struct patience patience = {.timeout_ms = START_MS};
    struct connection connection;
    struct proto_message message;
    bool runs = false;

    int r = connection_open(&connection, broker->socket_path);
    if (r == 0)
        r = connection_greet(&connection, PROTO_DOMAIN_HOST);
    if (r == 0)
        r = connection_call(&connection, PROTO_BROKER_INFO, NULL, 0, &message, &patience);
    if (r < 0)
        children_fail("the broker does not answer: %s", strerror(-r));
    const struct proto_broker_info *info = connection_body(&message);
    runs = strncmp(info->policy, policy, sizeof(info->policy)) == 0;
    proto_message_close(&message);
    connection_close(&connection);
    return runs;
}

void private_broker_reconfigure(struct private_broker *broker, const char *config,
                                const char *policy)
{
    write_config(broker, config);
    kill(broker->pid, SIGHUP);
    for (int ms = 0; !runs_policy(broker, policy); ms += 10) {
        if (ms >= START_MS)
            children_fail("the broker does not take up policy %s", policy);
        usleep(10000);
    }
}

void private_broker_stop(struct private_broker *broker)
{
    if (broker->pid == 0)
        return;
    children_may_end(broker->pid);
    kill(broker->pid, SIGTERM);
    children_wait(broker->pid);
    broker->pid = 0;
    unsetenv("VCHAN_RUNTIME_DIR");
    children_remove();
}

pid_t private_broker_pid(const struct private_broker *broker)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    if (broker->pid)
        return broker->pid;
    int fd = proto_socket_connect(broker->socket_path);
    if (fd < 0)
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        peer.pid = 0;
    close(fd);
    return peer.pid;
}

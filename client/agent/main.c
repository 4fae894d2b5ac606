/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vchan-agent - in a guest: attaches ivshmem devices and serves local programs. vchan-agent(8).
 */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/agent.h"

static const char usage[] =
    "usage: vchan-agent [OPTION]...\n"
    "In a guest: attaches the ivshmem devices of vchan and serves programs, as vchand does on the "
    "host.\n\n"
    "  --no-vfio             use devices by sysfs, without interrupts, even where VFIO is "
    "possible\n"
    "  --socket-mode MODE    of the socket, octal (default 0666)\n"
    "  --socket-group GROUP  of the socket\n"
    "  --log-level LEVEL     error, warning, notice, info, debug (default notice)\n"
    "  --help, --version\n\n"
    "The socket is $VCHAN_RUNTIME_DIR/vchand.sock (default /run/vchand/vchand.sock).\n";

enum { OPTION_NO_VFIO = 256, OPTION_MODE, OPTION_GROUP, OPTION_LEVEL, OPTION_HELP, OPTION_VERSION };

static const struct option long_options[] = {
    {"no-vfio", no_argument, NULL, OPTION_NO_VFIO},
    {"socket-mode", required_argument, NULL, OPTION_MODE},
    {"socket-group", required_argument, NULL, OPTION_GROUP},
    {"log-level", required_argument, NULL, OPTION_LEVEL},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {0},
};

static void die(const char *what, const char *word)
{
    fprintf(stderr, "vchan-agent: %s%s%s\n", what, word ? ": " : "", word ? word : "");
    exit(2);
}

static mode_t parse_mode(const char *word)
{
    char *end;
    unsigned long mode = strtoul(word, &end, 8);

    if (!*word || *end || mode > 0777)
        die("not a mode (like 0660)", word);
    return (mode_t)mode;
}

static gid_t parse_group(const char *word)
{
    const struct group *group = getgrnam(word);

    if (!group)
        die("no such group", word);
    return group->gr_gid;
}

static void parse_option(int option, struct agent_options *options)
{
    switch (option) {
    case OPTION_NO_VFIO:
        options->no_vfio = true;
        break;
    case OPTION_MODE:
        options->socket_mode = parse_mode(optarg);
        break;
    case OPTION_GROUP:
        options->socket_group = parse_group(optarg);
        break;
    case OPTION_LEVEL:
        options->log_level = log_level_parse(optarg);
        if (options->log_level < 0)
            die("not a log level", optarg);
        break;
    case OPTION_HELP:
        fputs(usage, stdout);
        exit(0);
    case OPTION_VERSION:
        puts("vchan-agent " VCHAN_VERSION);
        exit(0);
    default:
        fputs("Try 'vchan-agent --help'.\n", stderr);
        exit(2);
    }
}

/* Each program takes some descriptors. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* sd_notify(3), without libsystemd: a small guest need not have it for one datagram. */
static void notify(const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t length = path ? strlen(path) : 0;

    if (length < 2 || length > sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    close(fd);
}

int main(int argc, char **argv)
{
    struct agent_options options = {
        .socket_mode = 0666, .socket_group = (gid_t)-1, .log_level = LOG_NOTICE};
    static struct agent agent;
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(option, &options);
    if (optind < argc)
        die("unexpected word", argv[optind]);
    raise_descriptor_limit();
    int r = agent_init(&agent, &options);
    if (r == 0)
        r = agent_watch(&agent);
    if (r == 0) {
        notify("READY=1");
        r = loop_run(&agent.loop);
        notify("STOPPING=1");
    }
    agent_deinit(&agent);
    return r < 0 ? 1 : 0;
}

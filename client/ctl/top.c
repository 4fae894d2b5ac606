/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl top: who uses the memory, and what the broker just did about it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/ctl/names.h"
#include "client/ctl/top.h"

#define INTERVAL_DEFAULT_MS 1000u
#define LINES_DEFAULT 20u

static bool may_take_the_terminal(const struct ctl *ctl)
{
    const char *term = getenv("TERM");

    return !ctl->json && !(ctl->options & CTL_OPTION_PLAIN) && ctl->terminal &&
           isatty(STDIN_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* An exit code. */
static int find_domain(struct ctl *ctl, uint32_t *domain)
{
    struct names names;
    int r = names_load(&names, &ctl->link);

    if (r < 0)
        return ctl_fail(ctl, r, "cannot list the domains");
    r = names_find(&names, ctl->domain, domain);
    names_deinit(&names);
    return r < 0 ? ctl_fail(ctl, r, ctl->domain) : CTL_OK;
}

static int top_run(struct ctl *ctl, int argc, char **argv)
{
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    struct top_options options = {
        .domain = PROTO_ANY,
        .interval_ms = ctl->options & CTL_OPTION_INTERVAL ? ctl->interval_ms : INTERVAL_DEFAULT_MS,
        .count = ctl->count,
        .lines = ctl->options & CTL_OPTION_LINES ? ctl->lines : LINES_DEFAULT,
        .socket_path = ctl->socket_path,
    };
    int code;

    (void)argc;
    (void)argv;
    if (ctl->sort && top_key_parse(ctl->sort, &options.key) < 0)
        return ctl_usage("--sort=%s: it is traffic, stalls, size or held", ctl->sort);
    if (ctl->domain) {
        code = find_domain(ctl, &options.domain);
        if (code != CTL_OK)
            return code;
    }
    if (!options.socket_path)
        options.socket_path = proto_socket_path(path, sizeof(path)) < 0 ? "vchand.sock" : path;
    code = may_take_the_terminal(ctl) ? top_screen(ctl, &options) : -ENOTSUP;
    return code == -ENOTSUP ? top_plain(ctl, &options) : code;
}

const struct ctl_command top_command = {
    .name = "top",
    .arguments = "",
    .summary = "the rings by traffic, live: memory, stalls, and what moved",
    .help = "On a terminal it takes the screen over; elsewhere, with --plain, or where TERM\n"
            "is dumb, it prints a block a sample. Keys:\n"
            "\n"
            "  t s z b         sort by traffic, stalls, size, bytes held\n"
            "  r               the other way round\n"
            "  d               only one domain's rings; nothing entered: all\n"
            "  p, space        pause\n"
            "  up, down, page up, page down, home, end\n"
            "  ?, h            these keys        q  quit\n"
            "\n"
            "  SENT/S, OPS/S   bytes and operations of the sender in a second\n"
            "  STALLS/S        how often its sender lacked space; STALL%: part of the time\n"
            "  HELD, SIZE      bytes that wait to be read, and memory of the ring. *: an old\n"
            "                  extent is not free yet; !: because an end keeps it\n"
            "  SHARE           SIZE as a part of the region's memory for data\n"
            "  the bar         SIZE as = and HELD in it as #; full at what its title says\n"
            "  used, resident  what rings have of the region, and what the host spends on it\n"
            "\n"
            "At the bottom: the last decisions of the rebalancer, with their reasons, which\n"
            "only domain 0 sees. When the broker goes, top says so and waits for it.\n"
            "\n"
            "JSON: {time_ns, error, \"rings\": [as stats has them], \"decisions\": [as history\n"
            "has them]}, one object a sample and line. Rings have bytes_per_second,\n"
            "operations_per_second, stalls_per_second and stall_permille from their second\n"
            "sample on. error: an errno, 0 for none; else there are no rings. --lines: at\n"
            "most so many rings (without: 20).\n",
    .options = CTL_OPTION_PLAIN | CTL_OPTION_INTERVAL | CTL_OPTION_COUNT | CTL_OPTION_SORT |
               CTL_OPTION_DOMAIN | CTL_OPTION_LINES,
    .run = top_run,
};

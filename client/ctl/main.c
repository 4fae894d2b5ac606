/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl: the command line of the broker. Options, the table of commands, and the loop of
 * --watch. */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/help.h"
#include "client/ctl/quantity.h"

#define WIDTH_DEFAULT 80u
#define WIDTH_MAX 1000u
#define WATCH_DEFAULT_MS 1000u

const struct ctl_command *const ctl_commands[] = {
    &list_command, &domains_command, &stats_command,     &info_command, &top_command,
    &map_command,  &history_command, &rebalance_command, &set_command,  &domain_command,
    &record_command,
    &doctor_command, &version_command,
    NULL,
};

const struct ctl_command *ctl_command_find(const char *name)
{
    for (const struct ctl_command *const *c = ctl_commands; *c; c++)
        if (strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}

int ctl_domain(uint32_t *domain)
{
    const char *text = getenv("VCHAN_DOMAIN");
    uint64_t number = PROTO_DOMAIN_HOST;

    if (text && *text && quantity_parse_number(text, PROTO_DOMAIN_MAX, &number) < 0)
        return -EINVAL;
    *domain = (uint32_t)number;
    return 0;
}

int ctl_open(struct ctl *ctl)
{
    uint32_t domain;

    if (ctl_domain(&domain) < 0)
        return ctl_usage("VCHAN_DOMAIN=%s: a domain is a number from 0 to %u",
                         getenv("VCHAN_DOMAIN"), PROTO_DOMAIN_MAX);
    int r = broker_link_open(&ctl->link, ctl->socket_path, domain);
    return r < 0 ? ctl_fail(ctl, r, "the broker refuses the connection") : CTL_OK;
}

/* What the command line asks for. */
struct request {
    struct ctl ctl;
    bool help;
    bool version;
    int argc; /* the command and its arguments, in the order in which they stand */
    char **argv;
};

enum {
    OPTION_SOCKET = 256,
    OPTION_DRY_RUN,
    OPTION_OUTCOME,
    OPTION_BY,
    OPTION_PLAIN,
    OPTION_COUNT,
    OPTION_SORT,
    OPTION_DOMAIN,
    OPTION_COLOR,
    OPTION_ZONE,
    OPTION_FORCE,
    OPTION_ROOT,
    OPTION_SECONDS,
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"json", no_argument, NULL, 'j'},
    {"watch", optional_argument, NULL, 'w'},
    {"verbose", no_argument, NULL, 'v'},
    {"lines", required_argument, NULL, 'n'},
    {"follow", no_argument, NULL, 'f'},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"outcome", required_argument, NULL, OPTION_OUTCOME},
    {"by", required_argument, NULL, OPTION_BY},
    {"plain", no_argument, NULL, OPTION_PLAIN},
    {"interval", required_argument, NULL, 'i'},
    {"count", required_argument, NULL, OPTION_COUNT},
    {"sort", required_argument, NULL, OPTION_SORT},
    {"domain", required_argument, NULL, OPTION_DOMAIN},
    {"color", required_argument, NULL, OPTION_COLOR},
    {"zone", required_argument, NULL, OPTION_ZONE},
    {"force", no_argument, NULL, OPTION_FORCE},
    {"root", required_argument, NULL, OPTION_ROOT},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {0},
};

static int take_color(struct ctl *ctl, const char *when)
{
    if (strcmp(when, "auto") != 0 && strcmp(when, "always") != 0 && strcmp(when, "never") != 0)
        return ctl_usage("--color=%s: it is auto, always or never", when);
    ctl->color = when;
    return CTL_OK;
}

/* Those with an argument that must be looked at here, or is kept for the command. */
static int take_valued(struct ctl *ctl, int option, const char *argument)
{
    switch (option) {
    case OPTION_OUTCOME:
        ctl->options |= CTL_OPTION_OUTCOME;
        ctl->outcome = argument;
        break;
    case OPTION_BY:
        ctl->options |= CTL_OPTION_BY;
        ctl->by = argument;
        break;
    case OPTION_SORT:
        ctl->options |= CTL_OPTION_SORT;
        ctl->sort = argument;
        break;
    case OPTION_DOMAIN:
        ctl->options |= CTL_OPTION_DOMAIN;
        ctl->domain = argument;
        break;
    case 'i':
        ctl->options |= CTL_OPTION_INTERVAL;
        if (quantity_parse_seconds(argument, &ctl->interval_ms) < 0)
            return ctl_usage("--interval=%s: seconds from 0.05 to 86400", argument);
        break;
    case OPTION_SECONDS:
        ctl->options |= CTL_OPTION_SECONDS;
        if (quantity_parse_seconds(argument, &ctl->seconds_ms) < 0)
            return ctl_usage("--seconds=%s: seconds from 0.05 to 86400", argument);
        break;
    case OPTION_COUNT:
        ctl->options |= CTL_OPTION_COUNT;
        if (quantity_parse_number(argument, UINT64_MAX, &ctl->count) < 0 || ctl->count == 0)
            return ctl_usage("--count=%s: a number from 1", argument);
        break;
    case OPTION_ZONE:
        ctl->options |= CTL_OPTION_ZONE;
        ctl->zone = argument;
        break;
    case OPTION_ROOT:
        ctl->options |= CTL_OPTION_ROOT;
        ctl->root = argument;
        break;
    case OPTION_COLOR:
        return take_color(ctl, argument);
    default: /* getopt has said what is wrong */
        fputs("Try: vchanctl help\n", stderr);
        return CTL_USAGE;
    }
    return CTL_OK;
}

static int take_option(struct request *request, int option, char *argument)
{
    struct ctl *ctl = &request->ctl;

    switch (option) {
    case 1: /* not an option */
        request->argv[request->argc++] = argument;
        break;
    case OPTION_SOCKET:
        ctl->socket_path = argument;
        break;
    case 'j':
        ctl->json = true;
        break;
    case 'w':
        ctl->options |= CTL_OPTION_WATCH;
        ctl->watch_ms = WATCH_DEFAULT_MS;
        if (argument && quantity_parse_seconds(argument, &ctl->watch_ms) < 0)
            return ctl_usage("--watch=%s: seconds from 0.05 to 86400", argument);
        break;
    case 'v':
        ctl->options |= CTL_OPTION_VERBOSE;
        break;
    case 'n':
        ctl->options |= CTL_OPTION_LINES;
        if (quantity_parse_number(argument, UINT64_MAX, &ctl->lines) < 0)
            return ctl_usage("--lines=%s: a number, 0 for all", argument);
        break;
    case 'f':
        ctl->options |= CTL_OPTION_FOLLOW;
        break;
    case OPTION_DRY_RUN:
        ctl->options |= CTL_OPTION_DRY_RUN;
        break;
    case 'h':
        request->help = true;
        break;
    case 'V':
        request->version = true;
        break;
    case OPTION_PLAIN:
        ctl->options |= CTL_OPTION_PLAIN;
        break;
    case OPTION_FORCE:
        ctl->options |= CTL_OPTION_FORCE;
        break;
    default:
        return take_valued(ctl, option, argument);
    }
    return CTL_OK;
}

/* Options may stand before and after the command, whatever POSIXLY_CORRECT says: hence the '-'. */
static int parse(struct request *request, int argc, char **argv)
{
    int option, code = CTL_OK;

    while (code == CTL_OK &&
           (option = getopt_long(argc, argv, "-jw::vn:fi:hV", long_options, NULL)) != -1)
        code = take_option(request, option, optarg);
    while (optind < argc)
        request->argv[request->argc++] = argv[optind++]; /* behind "--" */
    return code;
}

/* The first option that was given and that the command does not take; NULL: all are fine. */
static const char *foreign_option(const struct ctl_command *command, unsigned options)
{
    static const char *const names[] = {
        "--watch", "--lines", "--follow",   "--dry-run", "--verbose", "--outcome",
        "--by",    "--plain", "--interval", "--count",   "--sort",    "--domain",
        "--zone",  "--force", "--root",     "--seconds",
    };

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (options & ~command->options & 1u << i)
            return names[i];
    return NULL;
}

static int check(const struct request *request, const struct ctl_command *command)
{
    const char *foreign = foreign_option(command, request->ctl.options);
    int arguments = request->argc - 1;

    if (foreign)
        return ctl_usage("%s does not take %s", command->name, foreign);
    if ((request->ctl.options & CTL_OPTION_WATCH) && (request->ctl.options & CTL_OPTION_FOLLOW))
        return ctl_usage("--watch and --follow exclude each other");
    if (arguments < command->arguments_min)
        return ctl_usage("%s: say what: %s", command->name, command->arguments);
    if (command->arguments_max >= 0 && arguments > command->arguments_max)
        return ctl_usage("%s: one argument too many: %s", command->name,
                         request->argv[1 + command->arguments_max]);
    return CTL_OK;
}

static unsigned terminal_width(bool terminal)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;
    uint64_t number;

    if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col < WIDTH_MAX ? size.ws_col : WIDTH_MAX;
    if (columns && quantity_parse_number(columns, WIDTH_MAX, &number) == 0 && number > 0)
        return (unsigned)number;
    return WIDTH_DEFAULT;
}

static void look_at_output(struct ctl *ctl)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

    ctl->terminal = isatty(STDOUT_FILENO);
    ctl->colour = ctl->terminal && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
    if (ctl->color && strcmp(ctl->color, "auto") != 0)
        ctl->colour = strcmp(ctl->color, "always") == 0;
    ctl->width = terminal_width(ctl->terminal);
}

/* Before each sample: a cleared screen, or a line between two blocks; JSON is an object a line
 * without either. */
static void begin_sample(struct ctl *ctl, bool first)
{
    struct timespec now;

    if (ctl->json)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    struct quantity time =
        quantity_time((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    if (ctl->terminal) {
        ctl->width = terminal_width(true);
        printf("\033[H\033[2J%s, every %u.%03u s\n\n", time.text, ctl->watch_ms / 1000,
               ctl->watch_ms % 1000);
    } else if (!first) {
        printf("---- %s\n", time.text);
    }
}

static int watch(struct ctl *ctl, const struct ctl_command *command, int argc, char **argv)
{
    const struct timespec pause = {.tv_sec = ctl->watch_ms / 1000,
                                   .tv_nsec = (long)(ctl->watch_ms % 1000) * 1000000};

    for (bool first = true;; first = false) {
        begin_sample(ctl, first);
        int code = command->run(ctl, argc, argv);
        if (code != CTL_OK || fflush(stdout) != 0)
            return code; /* output errors: main says so */
        nanosleep(&pause, NULL);
    }
}

static int run(struct request *request, const struct ctl_command *command)
{
    struct ctl *ctl = &request->ctl;
    int argc = request->argc - 1;
    char **argv = request->argv + 1;
    int code = command->offline ? CTL_OK : ctl_open(ctl);

    if (code == CTL_OK)
        code = ctl->options & CTL_OPTION_WATCH ? watch(ctl, command, argc, argv)
                                               : command->run(ctl, argc, argv);
    broker_link_close(&ctl->link);
    broker_items_deinit(&ctl->last_rings);
    return code;
}

static int help(const char *name)
{
    const struct ctl_command *command = name ? ctl_command_find(name) : NULL;

    if (command)
        help_print_command(command);
    else if (!name || strcmp(name, "help") == 0)
        help_print(stdout);
    else
        return ctl_usage("%s: no such command", name);
    return CTL_OK;
}

static int dispatch(struct request *request)
{
    const char *name = request->argc > 0 ? request->argv[0] : NULL;

    if (request->version) {
        printf("vchanctl %s\n", VCHAN_VERSION);
        return CTL_OK;
    }
    if (name && strcmp(name, "help") == 0) {
        if (request->argc > 2)
            return ctl_usage("help: one argument too many: %s", request->argv[2]);
        return help(request->argv[1]);
    }
    if (request->help)
        return help(name);
    if (!name) {
        help_print(stderr);
        return CTL_USAGE;
    }
    const struct ctl_command *command = ctl_command_find(name);
    if (!command)
        return ctl_usage("%s: no such command", name);
    int code = check(request, command);
    return code == CTL_OK ? run(request, command) : code;
}

int main(int argc, char **argv)
{
    struct request request = {.ctl = {.link = {.socket = -1}}};
    int code;

    signal(SIGPIPE, SIG_DFL); /* "| head" ends this quietly, also where the caller ignores it */
    setlocale(LC_TIME, "");
    request.argv = calloc((size_t)argc + 1, sizeof(*request.argv));
    if (!request.argv) {
        fputs("vchanctl: out of memory\n", stderr);
        return CTL_FAILED;
    }
    code = parse(&request, argc, argv);
    look_at_output(&request.ctl);
    if (code == CTL_OK)
        code = dispatch(&request);
    if ((ferror(stdout) || fflush(stdout) != 0) && code == CTL_OK) {
        fprintf(stderr, "vchanctl: cannot write the output: %s\n", strerror(errno));
        code = CTL_FAILED;
    }
    free(request.argv);
    return code;
}

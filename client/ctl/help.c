/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/help.h"

#include <string.h>

struct option_help {
    unsigned option; /* CTL_OPTION_*, 0: every command's */
    const char *text;
};

static const struct option_help option_helps[] = {
    {CTL_OPTION_WATCH,
     "  -w, --watch[=SECONDS]  again every SECONDS, from 0.05 to 86400 (without: 1);\n"
     "                         SECONDS is joined with the =\n"},
    {CTL_OPTION_VERBOSE, "  -v, --verbose          all that is known, a block each\n"},
    {CTL_OPTION_LINES, "  -n, --lines=N          at most the last N, 0 for all\n"},
    {CTL_OPTION_FOLLOW, "  -f, --follow           go on with what is new, until interrupted\n"},
    {CTL_OPTION_OUTCOME, "      --outcome=OUTCOME  published, done or refused ones only\n"},
    {CTL_OPTION_BY, "      --by=WHAT          colours by domain (as without) or by channel\n"},
    {CTL_OPTION_PLAIN, "      --plain            print lines, do not take the terminal over\n"},
    {CTL_OPTION_INTERVAL,
     "  -i, --interval=SECONDS between two samples, from 0.05 to 86400 (without: 1)\n"},
    {CTL_OPTION_COUNT, "      --count=N          end after N samples\n"},
    {CTL_OPTION_SORT, "      --sort=KEY         traffic (as without), stalls, size or held\n"},
    {CTL_OPTION_DOMAIN,
     "      --domain=DOMAIN    only rings that this domain sends or receives in\n"},
    {CTL_OPTION_DRY_RUN, "      --dry-run          change nothing\n"},
    {CTL_OPTION_ZONE,
     "      --zone=ZONE        the device of this zone, where the domain is in several\n"},
    {CTL_OPTION_FORCE,
     "      --force            although something is missing, or channels are open\n"},
    {CTL_OPTION_SECONDS, "      --seconds=SECONDS  end after so long, from 0.05 to 86400\n"},
    {CTL_OPTION_ROOT, "      --root=DIR         look at files in DIR in place of /, for tests\n"},
    {0, "  -j, --json             write JSON: sizes in bytes, times in nanoseconds\n"
        "      --color=WHEN       auto (on a terminal, as without), always or never\n"
        "      --socket=PATH      the broker's socket (default: vchand.sock in\n"
        "                         $VCHAN_RUNTIME_DIR, or in /run/vchand)\n"
        "  -h, --help             this text\n"},
};

void help_print(FILE *stream)
{
    fputs("Usage: vchanctl [--socket PATH] [--json] [--watch[=SECONDS]] COMMAND [ARGUMENT...]\n"
          "Shows and steers vchand, the broker of channels between domains.\n\nCommands:\n",
          stream);
    for (const struct ctl_command *const *c = ctl_commands; *c; c++)
        fprintf(stream, "  %-10s %s\n", (*c)->name, (*c)->summary);
    fputs("  help       this text, or that of a command: vchanctl help COMMAND\n\nOptions:\n",
          stream);
    for (size_t i = 0; i < sizeof(option_helps) / sizeof(option_helps[0]); i++)
        if (option_helps[i].option == CTL_OPTION_WATCH || option_helps[i].option == 0)
            fputs(option_helps[i].text, stream);
    fputs("  -V, --version          the version of vchanctl\n"
          "\n"
          "Domains are shown and taken by name where they have one, else by number.\n"
          "\n"
          "Environment:\n"
          "  VCHAN_RUNTIME_DIR  directory of the broker's socket\n"
          "  VCHAN_DOMAIN       the domain to ask as (default 0, which may do everything)\n"
          "  NO_COLOR           no colours on a terminal\n"
          "  COLUMNS            width for map where the output is no terminal\n"
          "\n"
          "Exit status: 0 done, 1 the broker refused or failed, 2 the command line is\n"
          "wrong, 3 no broker could be reached.\n",
          stream);
}

void help_print_command(const struct ctl_command *command)
{
    printf("Usage: vchanctl %s%s%s%s\n", command->name, command->arguments[0] ? " " : "",
           command->arguments, " [OPTION...]");
    printf("%c%s.\n\n", command->summary[0] - 'a' + 'A', command->summary + 1);
    fputs(command->help, stdout);
    fputs("\nOptions:\n", stdout);
    for (size_t i = 0; i < sizeof(option_helps) / sizeof(option_helps[0]); i++)
        if (option_helps[i].option == 0 || (command->options & option_helps[i].option))
            fputs(option_helps[i].text, stdout);
}

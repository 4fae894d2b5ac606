/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/ctl.h - what a command of vchanctl is, and what it gets.
 *
 * main.c reads the options, opens the link where the command wants one, calls run, and calls it
 * again for each sample of --watch. run prints to stdout and returns an exit code; ctl_fail prints
 * the reason of one.
 */
#ifndef VCHAN_CLIENT_CTL_CTL_H
#define VCHAN_CLIENT_CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include "client/ctl/broker_link.h"

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,    /* the broker refused or failed, or the output could not be written */
    CTL_USAGE = 2,     /* the command line is wrong; nothing was done */
    CTL_NO_BROKER = 3, /* no broker behind the socket, or none any more */
};

/* Options beyond --socket, --json, --color and --help, which every command takes. */
#define CTL_OPTION_WATCH 0x1u
#define CTL_OPTION_LINES 0x2u
#define CTL_OPTION_FOLLOW 0x4u
#define CTL_OPTION_DRY_RUN 0x8u
#define CTL_OPTION_VERBOSE 0x10u
#define CTL_OPTION_OUTCOME 0x20u
#define CTL_OPTION_BY 0x40u
#define CTL_OPTION_PLAIN 0x80u
#define CTL_OPTION_INTERVAL 0x100u
#define CTL_OPTION_COUNT 0x200u
#define CTL_OPTION_SORT 0x400u
#define CTL_OPTION_DOMAIN 0x800u
#define CTL_OPTION_ZONE 0x1000u
#define CTL_OPTION_FORCE 0x2000u
#define CTL_OPTION_ROOT 0x4000u
#define CTL_OPTION_SECONDS 0x8000u

struct ctl {
    const char *socket_path; /* NULL: the default */
    bool json;
    unsigned options;  /* CTL_OPTION_* that were given */
    unsigned watch_ms; /* with CTL_OPTION_WATCH */
    uint64_t lines;    /* with CTL_OPTION_LINES */
    const char *outcome, *by, *sort, *domain; /* with their options, else NULL; not yet checked */
    const char *zone; /* with CTL_OPTION_ZONE, else NULL */
    const char *root; /* a directory that stands for /; NULL: / */
    unsigned interval_ms;                     /* with CTL_OPTION_INTERVAL */
    uint64_t count;                           /* with CTL_OPTION_COUNT */
    unsigned seconds_ms;                      /* with CTL_OPTION_SECONDS */
    const char *color; /* auto, always, never; NULL: auto */
    bool terminal;     /* stdout is one */
    bool colour;       /* output may be coloured */
    unsigned width;    /* columns of it */
    struct broker_link link;
    struct broker_items last_rings; /* proto_ring_info of the last sample, for rates */
    uint64_t last_ns;               /* CLOCK_MONOTONIC of it; 0: there is none */
};

struct ctl_command {
    const char *name;
    const char *arguments; /* as in a synopsis, "" for none */
    const char *summary;
    const char *help; /* paragraphs, ending with a newline */
    unsigned options; /* CTL_OPTION_* that it takes */
    int arguments_min;
    int arguments_max; /* -1: any number */
    bool offline;      /* run opens the link itself, or needs none */
    int (*run)(struct ctl *ctl, int argc, char **argv);
};

extern const struct ctl_command list_command, domains_command, stats_command, info_command,
    version_command, history_command, rebalance_command, set_command, map_command, top_command,
    domain_command, record_command, doctor_command;

/* All commands but help, in the order of the help text; ends with NULL. */
extern const struct ctl_command *const ctl_commands[];

const struct ctl_command *ctl_command_find(const char *name);

/*
 * Says on stderr that `what` failed, with err (-errno), the broker's sentence if there is one, and
 * what can be done. Returns the exit code.
 */
int ctl_fail(const struct ctl *ctl, int err, const char *what);

/* Says on stderr what is wrong with the command line. Returns CTL_USAGE. */
int ctl_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Opens the link; on failure says why. An exit code. */
int ctl_open(struct ctl *ctl);

/* The domain that this process plays: VCHAN_DOMAIN, 0 without. -EINVAL when that is no domain
 * number. */
int ctl_domain(uint32_t *domain);

/* Of the memory for data, what is in rings. A broker that contradicts itself: 0. */
uint64_t ctl_used_bytes(const struct proto_broker_info *info);

#endif

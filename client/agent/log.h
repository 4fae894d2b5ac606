/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/log.h - what the agent tells its operator, on standard error.
 *
 * Into the journal a line carries its priority ("<4>..."), elsewhere a time and a word. Programs
 * can make the agent log as often as they like; what is said because of one goes through
 * log_program, which writes a few lines every ten seconds and counts the rest.
 */
#ifndef VCHAN_AGENT_LOG_H
#define VCHAN_AGENT_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

struct log {
    int level; /* LOG_ERR to LOG_DEBUG: the least important that is written */
    bool journal;
    uint64_t window_start_ns;
    uint32_t written, left_out; /* lines because of programs, in this window */
};

void log_init(struct log *log, int level);

/* "error", "warning", "notice", "info", "debug" to LOG_*; -EINVAL. */
int log_level_parse(const char *word);

void log_write(struct log *log, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void log_program(struct log *log, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif

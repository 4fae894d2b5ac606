/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/log.h - what the broker tells its operator, on standard error.
 *
 * Into the journal a line carries its priority ("<4>..."); elsewhere a time and a word. A line goes
 * out in one write, so any thread may log. A peer can make the broker log as often as it likes, so
 * what is said because of one goes through a log_limit: a few lines every ten seconds, with the
 * count of those left out.
 */
#ifndef VCHAN_BROKER_LOG_H
#define VCHAN_BROKER_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

struct log {
    int descriptor;
    int level; /* LOG_ERR to LOG_DEBUG: the least important that is written */
    bool journal;
};

struct log_limit {
    uint64_t window_start_ns;
    uint32_t written;
    uint32_t left_out;
};

/* To standard error. level: LOG_ERR, ... */
void log_init(struct log *log, int level);

/* "error", "warning", "notice", "info", "debug" to LOG_*; -EINVAL. */
int log_level_parse(const char *word);

void log_write(const struct log *log, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(log, ...) log_write((log), LOG_ERR, __VA_ARGS__)
#define log_warning(log, ...) log_write((log), LOG_WARNING, __VA_ARGS__)
#define log_notice(log, ...) log_write((log), LOG_NOTICE, __VA_ARGS__)
#define log_info(log, ...) log_write((log), LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_write((log), LOG_DEBUG, __VA_ARGS__)

/*
 * May a line be written now? So many in 10 s. *left_out: lines that were not, since the last that
 * was. One thread for each limit.
 */
bool log_limit_admits(struct log_limit *limit, uint32_t lines, uint64_t now_ns, uint32_t *left_out);

#endif

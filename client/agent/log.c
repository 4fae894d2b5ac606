/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/patience.h"

#define LINE_BYTES 1024
#define WINDOW_NS 10000000000ull
#define LINES_A_WINDOW 20u

static const char *const words[] = {
    [LOG_ERR] = "error", [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
    [LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

/* systemd says in JOURNAL_STREAM which file the journal reads. */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    uint64_t device, inode;
    struct stat status;

    return stream && sscanf(stream, "%" SCNu64 ":%" SCNu64, &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device &&
           status.st_ino == inode;
}

void log_init(struct log *log, int level)
{
    *log = (struct log){.level = level, .journal = is_journal()};
}

int log_level_parse(const char *word)
{
    for (int level = LOG_ERR; level <= LOG_DEBUG; level++)
        if (strcmp(word, words[level]) == 0)
            return level;
    return -EINVAL;
}

static size_t put_start(const struct log *log, int level, char *line, size_t bytes)
{
    struct timespec now;
    struct tm tm;
    char date[32];
    int n;

    if (log->journal) {
        n = snprintf(line, bytes, "<%d>", level);
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &tm);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        n = snprintf(line, bytes, "%s.%03ld vchan-agent %s: ", date, now.tv_nsec / 1000000,
                     words[level]);
    }
    return n < 0 ? 0 : (size_t)n;
}

static void write_line(struct log *log, int level, const char *format, va_list arguments)
{
    char line[LINE_BYTES];
    size_t start = put_start(log, level, line, sizeof(line));
    size_t used = start;
    int n = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);

    if (n > 0)
        used += (size_t)n < sizeof(line) - used - 1 ? (size_t)n : sizeof(line) - used - 2;
    /* Nothing but one line of text may come out of what others sent. */
    for (size_t i = start; i < used; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0) {
        /* Nowhere is left to say so. */
    }
}

void log_write(struct log *log, int level, const char *format, ...)
{
    va_list arguments;

    if (level > log->level)
        return;
    va_start(arguments, format);
    write_line(log, level, format, arguments);
    va_end(arguments);
}

void log_program(struct log *log, int level, const char *format, ...)
{
    uint64_t now_ns = patience_now_ns();
    va_list arguments;

    if (level > log->level)
        return;
    if (now_ns - log->window_start_ns >= WINDOW_NS) {
        uint32_t left_out = log->left_out;
        log->window_start_ns = now_ns;
        log->written = log->left_out = 0;
        if (left_out > 0)
            log_write(log, level, "%u lines about programs were left out", left_out);
    }
    if (log->written >= LINES_A_WINDOW) {
        log->left_out++;
        return;
    }
    log->written++;
    va_start(arguments, format);
    write_line(log, level, format, arguments);
    va_end(arguments);
}

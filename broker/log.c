/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 1024
#define LIMIT_WINDOW_NS 10000000000ull

static const char *const words[] = {
    [LOG_ERR] = "error", [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
    [LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

/* systemd says in JOURNAL_STREAM which file the journal reads; standard error may have been
 * redirected since. */
static bool is_journal(int descriptor)
{
    const char *stream = getenv("JOURNAL_STREAM");
    uint64_t device, inode;
    struct stat status;

    return stream && sscanf(stream, "%" SCNu64 ":%" SCNu64, &device, &inode) == 2 &&
           fstat(descriptor, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

void log_init(struct log *log, int level)
{
    log->descriptor = STDERR_FILENO;
    log->level = level;
    log->journal = is_journal(STDERR_FILENO);
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
    int n;

    if (log->journal) {
        n = snprintf(line, bytes, "<%d>", level);
    } else {
        char date[32];
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &tm);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        n = snprintf(line, bytes, "%s.%03ld vchand %s: ", date, now.tv_nsec / 1000000,
                     words[level]);
    }
    return n < 0 ? 0 : (size_t)n;
}

void log_write(const struct log *log, int level, const char *format, ...)
{
    char line[LINE_BYTES];
    va_list arguments;

    if (level > log->level)
        return;
    size_t start = put_start(log, level, line, sizeof(line));
    size_t used = start;
    va_start(arguments, format);
    int n = vsnprintf(line + used, sizeof(line) - used - 1, format, arguments);
    va_end(arguments);
    if (n > 0)
        used += (size_t)n < sizeof(line) - used - 1 ? (size_t)n : sizeof(line) - used - 2;
    /* Texts of peers are in it: nothing but one line of text may come out of them. */
    for (size_t i = start; i < used; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[used++] = '\n';
    if (write(log->descriptor, line, used) < 0) {
        /* Nowhere is left to say so. */
    }
}

bool log_limit_admits(struct log_limit *limit, uint32_t lines, uint64_t now_ns, uint32_t *left_out)
{
    if (now_ns - limit->window_start_ns >= LIMIT_WINDOW_NS) {
        limit->window_start_ns = now_ns;
        limit->written = 0;
    }
    if (limit->written >= lines) {
        limit->left_out++;
        return false;
    }
    limit->written++;
    *left_out = limit->left_out;
    limit->left_out = 0;
    return true;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A real vchand in a directory of its own, and a watchdog, for system tests.
 */
#ifndef VCHAN_TESTS_SYSTEM_VCHAND_FIXTURE_H
#define VCHAN_TESTS_SYSTEM_VCHAND_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/socket.h"

struct vchand {
    pid_t pid;
    char directory[64];
};

static struct vchand vchand;

static inline void vchand_skip(const char *why)
{
    printf("SKIP: %s\n", why);
    exit(77);
}

static inline bool vchand_answers(void)
{
    int fd = proto_socket_connect(NULL);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static inline void vchand_exec(const char *program, const char *config)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(program, "vchand", "--config", config, "--runtime-dir", vchand.directory, "--log-level",
          "error", (char *)NULL);
    perror(program);
    _exit(127);
}

/*
 * Starts it with the given lines of configuration; VCHAN_RUNTIME_DIR says where it is from now on.
 */
static inline void vchand_start(const char *configuration)
{
    const char *bin = getenv("VCHAN_BIN");
    char program[512], config[96];

    if (!bin)
        vchand_skip("VCHAN_BIN does not say where vchand is");
    snprintf(program, sizeof(program), "%s/vchand", bin);
    if (access(program, X_OK) != 0)
        vchand_skip("vchand has not been built");
    strcpy(vchand.directory, "/tmp/vchan-test-XXXXXX");
    if (!mkdtemp(vchand.directory))
        abort();
    setenv("VCHAN_RUNTIME_DIR", vchand.directory, 1);
    snprintf(config, sizeof(config), "%s/vchand.conf", vchand.directory);
    FILE *file = fopen(config, "w");
    if (!file || fputs(configuration, file) < 0 || fclose(file) != 0)
        abort();
    fflush(NULL);
    vchand.pid = fork();
    if (vchand.pid == 0)
        vchand_exec(program, config);
    for (int i = 0; i < 500 && !vchand_answers(); i++)
        usleep(10000);
    if (!vchand_answers()) {
        fprintf(stderr, "vchand does not answer\n");
        exit(1);
    }
}

static inline void vchand_kill(void)
{
    kill(vchand.pid, SIGKILL);
    waitpid(vchand.pid, NULL, 0);
    vchand.pid = 0;
}

/* Its exit status: 0 when it ended as asked and no sanitizer complained. */
static inline int vchand_stop(void)
{
    char path[512];
    int status = 0;

    if (vchand.pid > 0) {
        kill(vchand.pid, SIGTERM);
        waitpid(vchand.pid, &status, 0);
    }
    DIR *directory = opendir(vchand.directory);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        snprintf(path, sizeof(path), "%s/%s", vchand.directory, entry->d_name);
        unlink(path);
    }
    if (directory)
        closedir(directory);
    rmdir(vchand.directory);
    return status;
}

/* The domain that the next opening plays. */
static inline void as_domain(int domain)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", domain);
    setenv("VCHAN_DOMAIN", text, 1);
}

static inline void watchdog_bark(int signal_number)
{
    static const char text[] = "watchdog: a case hangs\n";

    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(3);
    abort();
}

/* From now on, this process aborts unless it is called again in time; 0: never. */
static inline void watchdog(unsigned seconds)
{
    signal(SIGALRM, watchdog_bark);
    alarm(seconds);
}

static inline double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* CPU time of the calling thread. */
static inline double thread_cpu_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline int open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* Sanitizers make everything slower: fewer rounds there. */
static inline int rounds(int n)
{
    const char *sanitize = getenv("VCHAN_SANITIZE");

    return sanitize && *sanitize ? n / 10 : n;
}

/* Position-dependent bytes, so that loss, doubling and disorder show. */
static inline uint8_t pattern(uint64_t position)
{
    return (uint8_t)((position * 2654435761u) >> 13 ^ position);
}

static inline void pattern_fill(uint8_t *data, size_t n, uint64_t position)
{
    for (size_t i = 0; i < n; i++)
        data[i] = pattern(position + i);
}

static inline bool pattern_matches(const uint8_t *data, size_t n, uint64_t position)
{
    for (size_t i = 0; i < n; i++)
        if (data[i] != pattern(position + i))
            return false;
    return true;
}

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/children.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

#define CHILDREN_MAX 32
#define PATHS_MAX 64

struct child {
    volatile pid_t pid; /* 0: free */
    const char *name;
    volatile bool may_end;
};

/*
 * Signal handlers need it, and a process has one set of children: the one thing here that is
 * global.
 */
static struct {
    pid_t owner;
    struct child children[CHILDREN_MAX];
    char paths[PATHS_MAX][PATH_MAX];
    volatile int paths_count;
} family;

/* Async-signal-safe. */
void children_remove(void)
{
    while (family.paths_count > 0) {
        const char *path = family.paths[--family.paths_count];
        if (unlink(path) < 0)
            rmdir(path);
    }
}

/* Async-signal-safe. */
static void clean_up(void)
{
    if (family.owner != getpid())
        return;
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (family.children[i].pid > 0)
            kill(family.children[i].pid, SIGKILL);
    children_remove();
}

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));

    (void)ignored;
}

static void on_child(int signal_number)
{
    int error = errno, status;

    (void)signal_number;
    for (int i = 0; i < CHILDREN_MAX; i++) {
        pid_t pid = family.children[i].pid;
        if (pid <= 0 || family.children[i].may_end || waitpid(pid, &status, WNOHANG) != pid)
            continue;
        family.children[i].pid = 0;
        say("vchan-bench: ");
        say(family.children[i].name);
        say(WIFSIGNALED(status) ? " was killed; the measurement is void\n"
                                : " has ended; the measurement is void\n");
        clean_up();
        _exit(1);
    }
    errno = error;
}

static void on_end(int signal_number)
{
    clean_up();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void children_init(void)
{
    struct sigaction child = {.sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    struct sigaction end = {.sa_handler = on_end};

    family.owner = getpid();
    sigaction(SIGCHLD, &child, NULL);
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGHUP, &end, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void block_sigchld(bool block)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static struct child *find(pid_t pid)
{
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (family.children[i].pid == pid)
            return &family.children[i];
    return NULL;
}

static void become_child(int cpu)
{
    static const int signals[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != family.owner)
        _exit(1);
    memset(family.children, 0, sizeof(family.children));
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        signal(signals[i], SIG_DFL);
    measure_pin(cpu);
}

pid_t children_fork(const char *name, int cpu)
{
    struct child *child = find(0);
    pid_t pid;

    if (!child)
        children_fail("more than %d processes", CHILDREN_MAX);
    fflush(NULL);
    block_sigchld(true); /* until it stands in the table */
    pid = fork();
    if (pid < 0)
        children_fail("fork: %s", strerror(errno));
    if (pid == 0) {
        become_child(cpu);
    } else {
        child->name = name;
        child->may_end = false;
        child->pid = pid;
    }
    block_sigchld(false);
    return pid;
}

pid_t children_spawn(const char *name, int cpu, const char *const *argv, int *output)
{
    int ends[2];

    if (output && pipe2(ends, O_CLOEXEC) < 0)
        children_fail("pipe: %s", strerror(errno));
    pid_t pid = children_fork(name, cpu);
    if (pid != 0) {
        if (output) {
            close(ends[1]);
            *output = ends[0];
        }
        return pid;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(output ? ends[1] : null, STDOUT_FILENO);
    if (output)
        dup2(ends[1], STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    fprintf(stderr, "vchan-bench: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

void children_may_end(pid_t pid)
{
    struct child *child = find(pid);

    if (child)
        child->may_end = true;
}

int children_wait(pid_t pid)
{
    struct child *child = find(pid);
    int status = 0;

    if (!child)
        return 255;
    block_sigchld(true);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    child->pid = 0;
    block_sigchld(false);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void children_end(pid_t pid)
{
    if (pid <= 0)
        return;
    block_sigchld(true);
    kill(pid, SIGKILL);
    children_wait(pid);
}

void children_remove_at_end(const char *path)
{
    if (family.paths_count == PATHS_MAX)
        children_fail("more than %d paths to remove", PATHS_MAX);
    snprintf(family.paths[family.paths_count], PATH_MAX, "%s", path);
    family.paths_count++;
}

void children_fail(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "vchan-bench: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    clean_up();
    _exit(1);
}

void children_deinit(void)
{
    for (int i = 0; i < CHILDREN_MAX; i++)
        children_end(family.children[i].pid);
    clean_up();
}

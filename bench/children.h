/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/children.h - the processes that a benchmark consists of, and what is left when it ends.
 *
 * A measurement whose other half has died would wait for ever, or be wrong. So every child that
 * ends before it was told to ends the whole benchmark, with a message and status 1; and however the
 * benchmark ends, its children (and only these) are killed and its run-time directory is removed.
 */
#ifndef VCHAN_BENCH_CHILDREN_H
#define VCHAN_BENCH_CHILDREN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Once, before the first child. */
void children_init(void);

/*
 * Forks a child that is bound to `cpu` (-1: to none) and dies with us. Returns as fork does; a
 * failure ends the benchmark. name: for messages, a constant.
 */
pid_t children_fork(const char *name, int cpu);

/*
 * The same with another program: argv[0] is looked up in PATH. output: receives the end of a pipe
 * with what it writes, standard error included; NULL: standard output is discarded.
 */
pid_t children_spawn(const char *name, int cpu, const char *const *argv, int *output);

/* From now on the child may end by itself; then children_wait must follow. */
void children_may_end(pid_t pid);

/* Waits for a child that ends by itself and returns its exit status (128 and more: a signal). */
int children_wait(pid_t pid);

/* Kills a child and waits. */
void children_end(pid_t pid);

/* Removes a file or an empty directory when the benchmark ends, what came last first. Copied. */
void children_remove_at_end(const char *path);

/* Does that now. */
void children_remove(void);

/*
 * Ends the benchmark: message on standard error, status 1. In a child: the parent sees it and ends
 * too.
 */
_Noreturn void children_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends all children and removes what is to be removed. */
void children_deinit(void);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench/private_broker.h - a broker of our own, unless we were told to use one that runs. */
#ifndef VCHAN_BENCH_PRIVATE_BROKER_H
#define VCHAN_BENCH_PRIVATE_BROKER_H

#include <limits.h>
#include <sys/types.h>

struct private_broker {
    pid_t pid; /* 0: somebody else's */
    char directory[PATH_MAX];
    char socket_path[PATH_MAX];
    char config_path[PATH_MAX];
};

/*
 * Starts the vchand that lies beside this program, with its defaults, in a new directory under
 * TMPDIR, and waits until it answers. socket_path, if not NULL, names a running one instead. Sets
 * VCHAN_RUNTIME_DIR in either case. Failures end the benchmark.
 */
void private_broker_start(struct private_broker *broker, const char *socket_path);

/* The same with this text as its configuration file; always one of our own. */
void private_broker_start_configured(struct private_broker *broker, const char *config);

/*
 * Replaces the text and has the broker read it (SIGHUP); returns when it runs that policy. policy:
 * as the text has it.
 */
void private_broker_reconfigure(struct private_broker *broker, const char *config,
                                const char *policy);

void private_broker_stop(struct private_broker *broker);

/* The broker's process, also when it is not ours: for its CPU time. 0 when it cannot be told. */
pid_t private_broker_pid(const struct private_broker *broker);

#endif

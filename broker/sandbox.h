/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/sandbox.h - gives up what a running broker does not need.
 *
 * No new privileges, and a seccomp filter that allows the system calls of the event loop and of its
 * threads and no others. A denied call means that somebody else's code runs in us: the process logs
 * its number and dies.
 */
#ifndef VCHAN_BROKER_SANDBOX_H
#define VCHAN_BROKER_SANDBOX_H

#include <stdbool.h>

#include "broker/log.h"

/*
 * After set-up, with all threads running: it holds for all of them. wanted: false to go without it,
 * as do sanitizer builds, whose run-time library calls what it likes. 0 or -errno (logged).
 */
int sandbox_enter(const struct log *log, bool wanted);

#endif

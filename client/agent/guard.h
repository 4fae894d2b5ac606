/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/guard.h - mappings of a device that may vanish while they are looked at.
 *
 * A page of a BAR gives SIGBUS when the device is gone (sysfs), and when its memory is switched
 * off, which any program that has the VFIO device can do. In a guarded mapping the fault becomes
 * zeros: the handler puts private memory in its place, and sets a word that its owner looks at.
 *
 * The table of guarded mappings is the process's, because its signal handler is. One thread.
 */
#ifndef VCHAN_AGENT_GUARD_H
#define VCHAN_AGENT_GUARD_H

#include <signal.h>
#include <stddef.h>

/* Installs the handler. */
void guard_init(void);

/* From now on; *lost becomes 1 when a fault has been replaced. -ENOSPC: too many. */
int guard_add(void *address, size_t bytes, volatile sig_atomic_t *lost);
/* Before it is unmapped; nothing if it was not added. */
void guard_remove(const void *address);

#endif

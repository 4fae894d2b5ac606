/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/holders.h - which other processes have a VFIO device open or mapped, for messages.
 */
#ifndef VCHAN_AGENT_HOLDERS_H
#define VCHAN_AGENT_HOLDERS_H

#include <stddef.h>

#define HOLDERS_TEXT_BYTES 128u

/*
 * Their number, and a text "pid 812 (cat), pid 813 (sh)", cut when it does not fit. Processes that
 * may not be looked into are passed over.
 */
unsigned holders_find(char *text, size_t bytes);

#endif

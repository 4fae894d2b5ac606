/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/uncached.h - is a device's memory mapped without a cache?
 *
 * The kernel maps BARs uncached, and a hypervisor usually overrides that, because there is memory
 * behind this one; where it does not (KVM on AMD, and on Intel with devices that do not snoop),
 * each access goes to memory and a channel is much slower. Nothing says so but the time it takes.
 */
#ifndef VCHAN_AGENT_UNCACHED_H
#define VCHAN_AGENT_UNCACHED_H

#include <stdint.h>

/* Slower than this is no noise. */
#define UNCACHED_RATIO 8u

/* How many times slower a page is read than private memory; 1: as fast, or faster. Milliseconds. */
uint32_t uncached_ratio(const volatile void *page);

#endif

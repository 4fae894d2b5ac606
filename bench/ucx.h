/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/ucx.h - UCX's shared-memory transport, measured by its own program (ucx_perftest, in
 * Debian's ucx-utils).
 *
 * Two processes of it on the same two CPUs, transport "posix" only, introduced to one another over
 * loopback. It keeps many messages under way, as a stream of ours does, and spins.
 */
#ifndef VCHAN_BENCH_UCX_H
#define VCHAN_BENCH_UCX_H

#include <stdbool.h>

/*
 * subject_ucx_tag (tag matching, what MPI uses) and subject_ucx_stream (its byte stream) are in
 * bench/subject.h.
 */
bool ucx_is_installed(void);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/vm_worker.h - the part of `vchan-bench vm` that runs in each guest, and on the host.
 *
 * A worker reads lines and writes lines. Flows are numbered by who asks; a flow is one direction of
 * one channel, seen from one end.
 *
 *   asked                                                   answered
 *   send ID PEER PORT server|client CHUNK ON_US OFF_US KIBS
 *   receive ID PEER PORT server|client VISIT_US
 *   connect                                                 connected
 *   slice MS                                                sent ID ..., received ID ...,
 *                                                           times BUCKET COUNT ..., done
 *   quit
 *
 * A sender writes CHUNK bytes at a time for ON_US, then nothing for OFF_US (0: always on), KIBS
 * KiB/s while it is on (0: as fast as it can). A receiver takes all there is, then leaves for
 * VISIT_US. What cannot be done is answered by "failed ..." and ends the worker.
 *
 * "sent" goes on with bytes, stalls, stall_ns, generations of the ring; "received" with bytes;
 * "times" with the buckets that are not empty of a histogram (bench/measure.h) of how long the
 * writes of CHUNK bytes of all its senders took, in ns.
 */
#ifndef VCHAN_BENCH_VM_WORKER_H
#define VCHAN_BENCH_VM_WORKER_H

#define VM_FLOWS_MAX 256u

/* Reads its lines from standard input until "quit" or the end. An exit status. */
int vm_worker_run(void);

#endif

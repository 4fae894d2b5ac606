/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/wait.h - spinning and sleeping.
 *
 * Theory of operation. The other end and the broker wake this end by writing its eventfd. Up to
 * three parties here want to know: a thread that sleeps for data, one that sleeps for space, and
 * whoever polls the public descriptor. Were the eventfd read by the one that wakes first, the
 * others would miss what was meant for them. So nobody ever reads it. Each party has an epoll
 * instance that watches the eventfd edge-triggered, which reports every write once to each
 * instance, whatever the count is (as mio's and tokio's wakers use it). The counter's limit of 2^64
 * is out of reach. Descriptors: an instance is made when its party first sleeps.
 *
 * A party sleeps in four steps: say so in the sleep line (arm), look again, epoll_wait, disarm. A
 * write from before the arming makes the epoll_wait return for nothing; the caller looks, and comes
 * again.
 *
 * The public descriptor (watch) is such an instance too. "Consuming" it is epoll_wait without
 * waiting: from then on it is unreadable until the next write. "Raising" it is EPOLL_CTL_MOD, which
 * reports the eventfd again.
 *
 * The instances also watch the broker's socket, edge-triggered. When the broker dies the channel
 * goes on without it; but now nobody would say that the other end died. So a pidfd of the other end
 * joins the instances, where the pid that the broker wrote into the channel's page means something
 * here (our own is right there, then both are of one pid namespace; and the ends need not fence to
 * see one another sleep, so they are of one kernel). Elsewhere the death of the other end goes
 * unnoticed until there is a broker again. A server that waits for its client counts as
 * disconnected when the broker dies: none can come. In a guest the socket is the agent's, and
 * whose agent is gone is over itself (client/bar.h).
 */
#ifndef VCHAN_CLIENT_WAIT_H
#define VCHAN_CLIENT_WAIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/channel.h"
#include "client/patience.h"

/*
 * Wait until `bytes` can be read or written, or something else is up. 0: look again; -EAGAIN (no
 * patience at all),
 * -ETIMEDOUT, -EINTR. In the side's thread.
 */
int wait_receiving(struct vchan *v, size_t bytes, struct patience *patience);
int wait_sending(struct vchan *v, size_t bytes, struct patience *patience);

/* Spins until condition(context), at most *window_ns; learned by wait_learn. True: it holds. */
bool wait_spin(const struct vchan *v, uint32_t *window_ns, bool (*condition)(void *context),
               void *context);
/*
 * The sleep after a spin in vain has ended, begun_ns is when the spin did: is a larger window worth
 * it?
 */
void wait_learn(const struct vchan *v, uint32_t *window_ns, uint64_t begun_ns);

/* Sleeps on an epoll instance, made if it is -1. 0: something was written; -ETIMEDOUT, -EINTR. */
int wait_sleep(struct vchan *v, int *epoll, struct patience *patience);

/* The public descriptor; -EMFILE, -ENFILE, -ENOMEM. New, it is readable. Any thread. */
int wait_watch(struct vchan *v);
/* The other end of the connection is gone: see above. Any thread. */
void wait_orphan(struct vchan *v);

void wait_consume(struct vchan *v);
void wait_raise(struct vchan *v);

#endif

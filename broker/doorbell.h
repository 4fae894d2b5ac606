/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/doorbell.h - waking an end that may be hostile.
 *
 * The eventfds that the ends sleep on are shared open file descriptions. An end can clear
 * O_NONBLOCK on one and write it full, and whoever rings it next sleeps in write(2). Setting the
 * flag first is not enough, for the end can clear it again in between, and there is no write to an
 * eventfd that says itself that it must not wait. So a timer watches over each write of the
 * broker's and interrupts it: the worst that such an end gets is DOORBELL_PATIENCE_MS of the event
 * loop, and a warning.
 */
#ifndef VCHAN_BROKER_DOORBELL_H
#define VCHAN_BROKER_DOORBELL_H

#include <stdbool.h>
#include <time.h>

#define DOORBELL_PATIENCE_MS 5

struct doorbell {
    timer_t watchdog; /* signals the thread that called doorbell_init */
};

/* The calling thread is the one that will ring. Installs a handler for SIGALRM. 0, -EAGAIN. */
int doorbell_init(struct doorbell *doorbell);
void doorbell_deinit(struct doorbell *doorbell);

/*
 * True: rung, or rung so often already that its count is full. False: the write had to be
 * interrupted.
 */
bool doorbell_ring(const struct doorbell *doorbell, int event_fd);

/* Takes what its count is, without waiting if that is nothing, nor longer than a ring does. */
void doorbell_drain(const struct doorbell *doorbell, int event_fd);

#endif

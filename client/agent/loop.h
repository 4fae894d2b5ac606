/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/loop.h - descriptors and timers in one epoll instance.
 *
 * One event is taken at a time, so that nobody is called back who was removed by the event before;
 * the kernel turns the ready ones round, so each has its turn. A loop is a descriptor itself and
 * can be a source in another.
 */
#ifndef VCHAN_AGENT_LOOP_H
#define VCHAN_AGENT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop {
    int epoll;
    bool stopped;
};

struct loop_source {
    struct loop *loop; /* NULL: not in one */
    int fd;
    void (*ready)(void *context);
    void *context;
};

int loop_init(struct loop *loop);
void loop_deinit(struct loop *loop);

/*
 * Calls ready when fd is readable, or hung up; level-triggered. The descriptor is borrowed. -errno.
 */
int loop_add(struct loop *loop, struct loop_source *source, int fd, void (*ready)(void *context),
             void *context);
/* Before its descriptor is closed. Nothing if it is in no loop. */
void loop_remove(struct loop_source *source);

/*
 * A timer: a source with a descriptor of its own. Set, it calls ready once after delay_ms (0: at
 * once), whatever it was set to before; deinit closes it.
 */
int loop_timer_init(struct loop *loop, struct loop_source *timer, void (*ready)(void *context),
                    void *context);
void loop_timer_set(struct loop_source *timer, uint64_t delay_ms);
void loop_timer_stop(struct loop_source *timer);
void loop_timer_deinit(struct loop_source *timer);

/* Handles at most `events` events that are there. */
void loop_turn(struct loop *loop, unsigned events);
/* Until loop_stop. 0 or -errno of epoll_wait. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/rcu.h - how the broker's threads read what the event loop writes.
 *
 * The event loop is the only writer. It publishes records with rcu_publish or by adding them to a
 * hash table, and frees them with call_rcu. Other threads read them between rcu_enter and
 * rcu_leave, load pointers with rcu_get, and keep nothing after rcu_leave. Every thread that reads
 * has called rcu_register_thread(). Single words that change in a published record (a state, a
 * counter) are stored and loaded with order_store_plain, order_load_plain and their acquire and
 * release forms of ring/order.h.
 *
 * liburcu orders with inline assembly and in a library that ThreadSanitizer does not see.
 * rcu_release and rcu_acquire tell it what liburcu guarantees: what was written before a
 * publication is seen by who finds the record, and who has left its section is done before the
 * record's free function runs. They are nothing in other builds.
 */
#ifndef VCHAN_BROKER_RCU_H
#define VCHAN_BROKER_RCU_H

#include <stdint.h>
#include <urcu.h>
#include <urcu/rculfhash.h>

#if defined(__SANITIZE_THREAD__)
#define RCU_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RCU_THREAD_SANITIZER 1
#endif
#endif

#ifdef RCU_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#define RCU_TAG \
    ((void *)(uintptr_t)&rcu_read_lock) /* an address that all files agree on, nothing more */
static inline void rcu_release(void)
{
    __tsan_release(RCU_TAG);
}
static inline void rcu_acquire(void)
{
    __tsan_acquire(RCU_TAG);
}
#else
static inline void rcu_release(void) {}
static inline void rcu_acquire(void) {}
#endif

/* Waits until all that was given to call_rcu is freed. Not inside a reader's section. */
void rcu_finish(void);

/* A reader's section; may nest. It must not wait for anything. */
static inline void rcu_enter(void)
{
    rcu_read_lock();
    rcu_acquire();
}

static inline void rcu_leave(void)
{
    rcu_release();
    rcu_read_unlock();
}

/* Loads a published pointer; after a look-up in a table, call rcu_acquire() instead. */
#define rcu_get(pointer) \
    ({ \
        __typeof__(pointer) rcu_got = rcu_dereference(pointer); \
        rcu_acquire(); \
        rcu_got; \
    })

/* Publishes a record that is complete; before adding one to a table, call rcu_release() instead. */
#define rcu_publish(pointer, value) \
    do { \
        rcu_release(); \
        rcu_assign_pointer(pointer, value); \
    } while (0)

#endif

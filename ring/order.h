/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/order.h - every access to shared words, and what it orders.
 *
 * Words. "Plain" accesses are relaxed atomics: one load or store, no order. "Acquire" and "release"
 * are C11's. Two things cannot be said with them, because a store must be visible before a later
 * load is done, which x86 and Arm do not promise without a full fence (a store waits in the store
 * buffer while the load goes ahead):
 *
 *   1. An end marks itself in an operation, then loads the generation. The broker publishes a
 *   generation, then
 *      looks at the mark.
 *   2. An end publishes a position, then looks whether the other end sleeps. The sleeper says that
 *   it sleeps,
 *      then looks at the position again.
 *
 * In both pairs one side runs millions of times a second and the other rarely, so the rare side
 * pays: it makes every CPU that may run the other side pass through a full barrier (membarrier(2)),
 * and the frequent side only keeps the compiler from reordering:
 *
 *   1. order_mark(): a compiler barrier. Pairs with order_grace_period() in the broker, which is
 *      MEMBARRIER_CMD_GLOBAL: every CPU of the host, and so every vCPU of every guest.
 *   2. order_look(): a compiler barrier. Pairs with order_sleep(), MEMBARRIER_CMD_GLOBAL_EXPEDITED,
 *   which
 *      reaches the threads of all processes on this kernel that have registered for it.
 *
 * Where the rare side cannot do that, both sides fence: LAYOUT_FEATURE_MARK_FENCE in the region's
 * header for 1 (a kernel with nohz_full refuses the command), layout_channel.fence_sleep for 2 (the
 * ends run under different kernels, or one has not registered). Source: membarrier(2),
 * kernel/sched/membarrier.c, liburcu's sys_membarrier flavour.
 */
#ifndef VCHAN_RING_ORDER_H
#define VCHAN_RING_ORDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define order_load_plain(word) __atomic_load_n((word), __ATOMIC_RELAXED)
#define order_store_plain(word, value) __atomic_store_n((word), (value), __ATOMIC_RELAXED)
#define order_load_acquire(word) __atomic_load_n((word), __ATOMIC_ACQUIRE)
#define order_store_release(word, value) __atomic_store_n((word), (value), __ATOMIC_RELEASE)

static inline void order_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Between an end's mark and its load of the generation. */
static inline void order_mark(bool fence)
{
    if (fence)
        order_fence();
    else
        atomic_signal_fence(memory_order_seq_cst);
}

/* Between an end's publication and its look at the other end's sleep line. */
static inline void order_look(bool fence)
{
    if (fence)
        order_fence();
    else
        atomic_signal_fence(memory_order_seq_cst);
}

/* Registers this process with order_sleep() of all others. False: the kernel cannot; use fences. */
bool order_register(void);

/*
 * Between a sleeper's arming and its second look. fence: the channel fences, so that a fence of our
 * own suffices. (A system call of 1 to 5 us where the other end runs, which sleeping costs ten
 * times over.)
 */
void order_sleep(bool fence);

/*
 * The broker's grace period: all CPUs pass through a full barrier between call and return; takes
 * milliseconds.
 * 0, or -errno when the kernel refuses (-EINVAL under nohz_full, -ENOSYS): then the region has
 * LAYOUT_FEATURE_MARK_FENCE and order_fence() is a grace period.
 */
int order_grace_period(void);
bool order_grace_period_works(void);

/*
 * A store to a device's register that makes the device interrupt another CPU. Release: what was
 * stored to memory is visible before the device can act on it. (On x86 the fence is only the
 * compiler's, for stores stay in order there, those to a device too.)
 */
static inline void order_store_device(volatile uint32_t *device_register, uint32_t value)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *device_register = value;
}

/* In a spin loop. */
static inline void order_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

#endif

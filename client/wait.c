/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/wait.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* At most about what a wake-up costs; to begin with, all of it. */
#define WINDOW_MAX_NS 50000u
#define WINDOW_GROW_START_NS 10000u
#define WINDOW_MIN_NS 1000u
/* Woken this soon, wake-up included: spinning longer might have done. */
#define WINDOW_QUICK_NS 200000u
#define SPINS_PER_CLOCK 16

/* Without descriptors to sleep on (EMFILE), look this often. */
#define NAP_MS 1
#define PRESSURE_INTERVAL_NS 2000000u

enum { EVENT_RUNG, EVENT_BROKER, EVENT_PEER, EVENT_KINDS };

static void add(int epoll, int descriptor, uint32_t events, uint32_t kind)
{
    struct epoll_event event = {.events = events | EPOLLET, .data.u32 = kind};

    /* EEXIST: another thread has just added the same pidfd. Nothing else can fail but memory. */
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

static void add_peer(int *epoll, int pidfd)
{
    int instance = __atomic_load_n(epoll, __ATOMIC_SEQ_CST);

    if (instance >= 0 && pidfd >= 0)
        add(instance, pidfd, EPOLLIN, EVENT_PEER);
}

/* Makes *epoll, which several threads may do at once. */
static int instance_make(struct vchan *v, int *epoll)
{
    int expected = -1;
    int fresh = epoll_create1(EPOLL_CLOEXEC);

    if (fresh < 0)
        return -errno;
    add(fresh, v->own_event, EPOLLIN, EVENT_RUNG);
    add(fresh, v->connection.socket, EPOLLRDHUP, EVENT_BROKER);
    /*
     * Sequentially consistent against wait_orphan(): it sees our instance, or we see its pidfd.
     */
    if (!__atomic_compare_exchange_n(epoll, &expected, fresh, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        close(fresh);
        return expected;
    }
    add_peer(epoll, __atomic_load_n(&v->peer_pidfd, __ATOMIC_SEQ_CST));
    return fresh;
}

void wait_orphan(struct vchan *v)
{
    const struct layout_channel *channel = &v->page->channel;
    bool server = v->role == PROTO_OPEN_SERVER;
    uint32_t own = order_load_plain(server ? &channel->server_pid : &channel->client_pid);
    uint32_t peer = order_load_plain(server ? &channel->client_pid : &channel->server_pid);

    if (__atomic_exchange_n(&v->orphaned, true, __ATOMIC_SEQ_CST))
        return;
    if (v->device) {
        order_store_release(&v->peer_dead, true);
        return;
    }
    if (own != (uint32_t)getpid() || peer == 0 || order_load_plain(&channel->fence_sleep))
        return;
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)peer, 0u);
    if (pidfd < 0) {
        if (errno == ESRCH)
            order_store_release(&v->peer_dead, true);
        return;
    }
    __atomic_store_n(&v->peer_pidfd, pidfd, __ATOMIC_SEQ_CST);
    add_peer(&v->receiving.side.epoll, pidfd);
    add_peer(&v->sending.side.epoll, pidfd);
    add_peer(&v->watch, pidfd);
}

/* Takes what an instance reports. As epoll_wait returns, but -errno. */
static int instance_wait(struct vchan *v, int epoll, int timeout_ms)
{
    struct epoll_event events[EVENT_KINDS];
    int n = epoll_wait(epoll, events, EVENT_KINDS, timeout_ms);

    if (n < 0)
        return -errno;
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == EVENT_BROKER)
            wait_orphan(v);
        else if (events[i].data.u32 == EVENT_PEER)
            order_store_release(&v->peer_dead, true);
    }
    return n;
}

int wait_sleep(struct vchan *v, int *epoll, struct patience *patience)
{
    int instance = order_load_acquire(epoll);
    int left_ms = patience_left_ms(patience);
    int r;

    if (instance < 0) {
        instance = instance_make(v, epoll);
        if (instance < 0) {
            left_ms = left_ms < 0 || left_ms > NAP_MS ? NAP_MS : left_ms;
            if (left_ms == 0)
                return -ETIMEDOUT;
            return poll(NULL, 0, left_ms) < 0 ? -errno : 0;
        }
    }
    r = instance_wait(v, instance, left_ms);
    if (r < 0)
        return r;
    return r > 0 ? 0 : -ETIMEDOUT;
}

int wait_watch(struct vchan *v)
{
    const uint64_t one = 1;
    int watch = order_load_acquire(&v->watch);

    if (watch >= 0)
        return watch;
    watch = instance_make(v, &v->watch);
    /* The count must not be 0 for wait_raise to work, and who asks anew is to look once. */
    if (watch >= 0 && write(v->own_event, &one, sizeof(one)) < 0)
        wait_raise(v); /* EAGAIN: it is not 0 */
    return watch;
}

void wait_consume(struct vchan *v)
{
    (void)instance_wait(v, order_load_acquire(&v->watch), 0);
}

void wait_raise(struct vchan *v)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = EVENT_RUNG};

    (void)epoll_ctl(order_load_acquire(&v->watch), EPOLL_CTL_MOD, v->own_event, &event);
}

/*
 * Is there a CPU for the other end to run on while we spin? Not where both are bound to the same
 * one. (Each of two ends that are bound to one CPU of their own may spin.) An end under another
 * kernel has CPUs of its own, even where we have only one.
 */
static bool spinning_makes_sense(const struct vchan *v)
{
    const struct layout_channel *channel = &v->page->channel;
    uint32_t peer = order_load_plain(v->role == PROTO_OPEN_SERVER ? &channel->client_pid
                                                                  : &channel->server_pid);
    cpu_set_t cpus, others;

    if (order_load_plain(&channel->fence_sleep))
        return true;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        return false;
    CPU_ZERO(&others);
    if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0 || peer == 0 ||
        sched_getaffinity((pid_t)peer, sizeof(others), &others) < 0)
        return true;
    CPU_OR(&cpus, &cpus, &others);
    return CPU_COUNT(&cpus) > 1;
}

bool wait_spin(const struct vchan *v, uint32_t *window_ns, bool (*condition)(void *context),
               void *context)
{
    if (*window_ns == 0)
        return false;
    uint64_t end_ns = patience_now_ns() + *window_ns;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (condition(context))
                return true;
            order_relax();
        }
    } while (patience_now_ns() < end_ns);
    if (!spinning_makes_sense(v))
        *window_ns = 0;
    return false;
}

void wait_learn(const struct vchan *v, uint32_t *window_ns, uint64_t begun_ns)
{
    uint64_t took_ns = patience_now_ns() - begun_ns;

    if (took_ns > WINDOW_QUICK_NS) {
        *window_ns = *window_ns / 2 < WINDOW_MIN_NS ? 0 : *window_ns / 2;
    } else if (*window_ns == 0) {
        if (spinning_makes_sense(v))
            *window_ns = WINDOW_GROW_START_NS;
    } else if (*window_ns < WINDOW_MAX_NS) {
        *window_ns = *window_ns * 2 < WINDOW_MAX_NS ? *window_ns * 2 : WINDOW_MAX_NS;
    }
}

/* Something other than bytes that ends a wait. */
static bool side_is_over(const struct vchan *v, const struct side *side)
{
    return order_load_plain(&side->refused) || channel_is_deserted(v);
}

struct wish {
    struct vchan *v;
    size_t bytes;
};

static bool receiving_has(void *context)
{
    struct wish *wish = context;

    return ring_consumer_available(&wish->v->receiving.ring, wish->bytes) >= wish->bytes;
}

static bool sending_has(void *context)
{
    struct wish *wish = context;

    return ring_producer_space(&wish->v->sending.ring) >= wish->bytes;
}

int wait_receiving(struct vchan *v, size_t bytes, struct patience *patience)
{
    struct side *side = &v->receiving.side;
    struct ring_consumer *ring = &v->receiving.ring;
    struct wish wish = {v, bytes};
    int r = 0;

    if (patience->timeout_ms == 0)
        return -EAGAIN;
    uint64_t begun_ns = patience_now_ns();
    if (wait_spin(v, &side->window_ns, receiving_has, &wish))
        return 0;
    bool sleep = ring_consumer_arm(ring, bytes);
    if (ring_consumer_owes_doorbell(ring))
        channel_ring_peer(v, side);
    if (sleep && !side_is_over(v, side)) {
        r = wait_sleep(v, &side->epoll, patience);
        wait_learn(v, &side->window_ns, begun_ns);
    }
    ring_consumer_disarm(ring);
    return r;
}

/* Tells the broker, but not more often than it can act. */
static void tell_pressure(struct vchan *v)
{
    struct side *side = &v->sending.side;
    const struct proto_event_ring event = {.ring = side->ring};
    uint64_t now_ns = patience_now_ns();

    if (now_ns - side->told_ns < PRESSURE_INTERVAL_NS)
        return;
    side->told_ns = now_ns;
    connection_event(&v->connection, PROTO_EVENT_PRESSURE, &event, sizeof(event));
}

int wait_sending(struct vchan *v, size_t bytes, struct patience *patience)
{
    struct side *side = &v->sending.side;
    struct ring_producer *ring = &v->sending.ring;
    struct wish wish = {v, bytes};
    int r = 0;

    bool begins = ring_producer_stall_begin(ring);
    if (patience->timeout_ms == 0) {
        if (begins)
            tell_pressure(v);
        return -EAGAIN;
    }
    uint64_t begun_ns = patience_now_ns();
    if (wait_spin(v, &side->window_ns, sending_has, &wish))
        return 0;
    tell_pressure(v);
    if (ring_producer_arm(ring, bytes) && !side_is_over(v, side)) {
        r = wait_sleep(v, &side->epoll, patience);
        wait_learn(v, &side->window_ns, begun_ns);
    }
    ring_producer_disarm(ring);
    return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/bar.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/wait.h"

/* Of BAR0 one page is mapped, though it has 256 bytes. */
#define BAR_BYTES 4096u

int bar_map(struct vchan *v, int descriptor, uint64_t offset)
{
    void *address = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor,
                         (off_t)offset);

    if (address == MAP_FAILED)
        return -errno;
    v->device = address;
    return 0;
}

void bar_unmap(struct vchan *v)
{
    if (v->device)
        munmap(v->device, BAR_BYTES);
    v->device = NULL;
}

void bar_ring(const struct vchan *v)
{
    const struct layout_channel *channel = &v->page->channel;
    /* Rubbish in it rings somebody else in vain, as any member of the zone may. */
    uint32_t doorbell = order_load_plain(v->role == PROTO_OPEN_SERVER ? &channel->client_doorbell
                                                                      : &channel->server_doorbell);
    volatile uint32_t *device_register = (volatile uint32_t *)(void *)(v->device +
                                                                       PROTO_DOORBELL_REGISTER);

    if (doorbell != LAYOUT_NO_DOORBELL)
        order_store_device(device_register, doorbell);
}

bool bar_is_revoked(const struct vchan *v)
{
    uint32_t own_bit = v->role == PROTO_OPEN_SERVER ? LAYOUT_GONE_SERVER : LAYOUT_GONE_CLIENT;

    return order_load_acquire(&v->peer_dead) || channel_has_lost_page(v) ||
           (order_load_acquire(&v->page->channel.gone) & own_bit);
}

void bar_look_for_agent(struct vchan *v)
{
    struct pollfd hung_up = {.fd = v->connection.socket, .events = POLLRDHUP};

    if (poll(&hung_up, 1, 0) == 1 && (hung_up.revents & (POLLRDHUP | POLLHUP | POLLERR)))
        wait_orphan(v);
}

/* Puts private memory in the place of a mapping; who looks meanwhile sees the one or the other. */
static void replace(void *address, size_t bytes, bool copy)
{
    void *fresh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (fresh == MAP_FAILED)
        return; /* it is held longer, that is all */
    if (copy)
        memcpy(fresh, address, bytes);
    if (mremap(fresh, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, address) == MAP_FAILED)
        munmap(fresh, bytes);
}

static void leave_shared(struct vchan *v)
{
    if (__atomic_exchange_n(&v->device_left, true, __ATOMIC_SEQ_CST))
        return;
    replace(v->page, LAYOUT_CHANNEL_PAGE_BYTES, true);
    replace(v->device, BAR_BYTES, false);
    /* The number stays taken: the other side's thread may be about to map from it. */
    (void)dup3(v->own_event, v->memory.descriptor, O_CLOEXEC);
}

/* What is left to read becomes private. False: it lies in two extents. */
static bool keep_rest(struct ring_consumer *ring)
{
    struct ring_span span;

    if (ring->switch_pending)
        return false;
    if (!ring->view.address) { /* nothing of it has been looked at yet */
        if (ring_consumer_peek(ring, 1, &span) < 0)
            return false;
        ring_consumer_release(ring, 0);
    }
    replace(ring->view.address, 2 * ring->view.size, true);
    return true;
}

void bar_leave_receiving(struct vchan *v)
{
    struct ring_consumer *ring = &v->receiving.ring;

    if (v->receiving.left)
        return;
    if (channel_has_lost_page(v) && !order_load_plain(&v->receiving.side.refused))
        order_store_plain(&v->receiving.side.refused, -EPIPE);
    if (!order_load_plain(&v->receiving.side.refused) &&
        ring_consumer_available(ring, SIZE_MAX) > 0) {
        if (!keep_rest(ring))
            return;
    } else {
        if (!order_load_plain(&v->receiving.side.refused))
            order_store_plain(&v->receiving.side.refused, -EPIPE);
        ring_consumer_deinit(ring);
    }
    v->receiving.left = true;
    leave_shared(v);
}

void bar_leave_sending(struct vchan *v)
{
    const struct layout_ring *ring = channel_receiving_ring(v);
    const bool lost = channel_has_lost_page(v);

    if (order_load_plain(&v->sending.side.refused) == 0)
        order_store_plain(&v->sending.side.refused, -EPIPE);
    if (!lost)
        ring_producer_stall_end(&v->sending.ring);
    ring_producer_deinit(&v->sending.ring);
    /* The receiving side is another thread's: only what it has published can be looked at. */
    if (lost || order_load_plain(&v->receiving.side.refused) ||
        order_load_acquire(&ring->producer.tail) == order_load_plain(&ring->consumer.head))
        leave_shared(v);
}

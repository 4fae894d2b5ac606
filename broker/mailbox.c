/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/rcu.h"

int mailbox_init(struct mailbox *mailbox)
{
    cds_wfcq_init(&mailbox->head, &mailbox->tail);
    mailbox->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return mailbox->event_fd < 0 ? -errno : 0;
}

void mailbox_deinit(struct mailbox *mailbox)
{
    cds_wfcq_destroy(&mailbox->head, &mailbox->tail);
    if (mailbox->event_fd >= 0)
        close(mailbox->event_fd);
    mailbox->event_fd = -1;
}

void mailbox_post(struct mailbox *mailbox, struct mailbox_letter *letter)
{
    rcu_release();
    cds_wfcq_node_init(&letter->node);
    /* A queue that was not empty has been announced, and its taker looks until it is empty. */
    if (!cds_wfcq_enqueue(&mailbox->head, &mailbox->tail, &letter->node))
        eventfd_write(mailbox->event_fd, 1);
}

void mailbox_acknowledge(struct mailbox *mailbox)
{
    eventfd_t count;

    eventfd_read(mailbox->event_fd, &count);
}

struct mailbox_letter *mailbox_take(struct mailbox *mailbox)
{
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&mailbox->head, &mailbox->tail);

    rcu_acquire();
    return node ? caa_container_of(node, struct mailbox_letter, node) : NULL;
}

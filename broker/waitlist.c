/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/waitlist.h"

static struct cds_list_head *bucket(struct waitlist *list, const struct channel_key *key)
{
    return &list->buckets[channel_key_hash(key) % WAITLIST_BUCKETS];
}

void waitlist_init(struct waitlist *list)
{
    for (unsigned i = 0; i < WAITLIST_BUCKETS; i++)
        CDS_INIT_LIST_HEAD(&list->buckets[i]);
}

void waitlist_add(struct waitlist *list, struct waiter *waiter, const struct channel_key *key)
{
    waiter->key = *key;
    waiter->waiting = true;
    cds_list_add_tail(&waiter->link, bucket(list, key));
}

void waitlist_remove(struct waiter *waiter)
{
    if (!waiter->waiting)
        return;
    waiter->waiting = false;
    cds_list_del(&waiter->link);
}

struct waiter *waitlist_first(struct waitlist *list, const struct channel_key *key)
{
    struct waiter *waiter;

    cds_list_for_each_entry(waiter, bucket(list, key), link)
        if (channel_key_equal(&waiter->key, key))
            return waiter;
    return NULL;
}

void waitlist_each(struct waitlist *list, void (*each)(struct waiter *waiter, void *data),
                   void *data)
{
    struct waiter *waiter, *next;

    for (unsigned i = 0; i < WAITLIST_BUCKETS; i++)
        cds_list_for_each_entry_safe(waiter, next, &list->buckets[i], link)
            each(waiter, data);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/probe.h"

#include "bench/measure.h"
#include "ring/order.h"

#define BATCHES 16u
#define BATCH_ROUNDS 250u

double probe_lead(struct probe *probe)
{
    uint64_t word = order_load_plain(&probe->there.word);
    double ns[BATCHES];

    for (unsigned batch = 0; batch < BATCHES; batch++) {
        uint64_t start_ns = measure_now_ns();
        for (unsigned i = 0; i < BATCH_ROUNDS; i++) {
            order_store_release(&probe->there.word, ++word);
            while (order_load_acquire(&probe->back.word) != word)
                ;
        }
        ns[batch] = (double)(measure_now_ns() - start_ns) / BATCH_ROUNDS;
    }
    return measure_median(ns, BATCHES);
}

void probe_follow(struct probe *probe)
{
    uint64_t word = order_load_plain(&probe->back.word);

    for (unsigned i = 0; i < BATCHES * BATCH_ROUNDS; i++) {
        word++;
        while (order_load_acquire(&probe->there.word) != word)
            ;
        order_store_release(&probe->back.word, word);
    }
}

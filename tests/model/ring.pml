/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring.pml - one ring with generations: producer, consumer, broker, and the store buffers between
 * them and memory. Run by test_model.sh in several configurations; docs/model.md says what each
 * covers. Assertions hold rules 1 to 4; a run that ends with a process stuck (a lost wake-up,
 * memory never given back) is an invalid end state, so rule 5 and the "can still reclaim" of rule 4
 * are checked by spin's search for those.
 */
#include "words.pml"
#include "producer.pml"
#include "consumer.pml"
#include "broker.pml"

init {
    atomic {
        extent[FIRST & 1] = FIRST; owner[FIRST & 1] = FIRST;
        switch_generation[0] = 1;
        run producer(); run broker();
#ifndef NO_READER
        run consumer();
#endif
        run memory(buffer_p); run memory(buffer_c); run memory(buffer_b);
#if KILLS
        run undertaker();
#endif
    }
}

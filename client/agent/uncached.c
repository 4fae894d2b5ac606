/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/uncached.h"

#include <stddef.h>

#include "client/patience.h"

#define PAGE_WORDS (4096u / sizeof(uint64_t))
#define ROUNDS 16
#define ATTEMPTS 5

/* The best of some attempts: others may have had the CPU meanwhile. */
static uint64_t read_ns(const volatile uint64_t *words)
{
    uint64_t best_ns = UINT64_MAX;

    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint64_t begun_ns = patience_now_ns();
        for (int round = 0; round < ROUNDS; round++)
            for (size_t i = 0; i < PAGE_WORDS; i++)
                (void)words[i];
        uint64_t took_ns = patience_now_ns() - begun_ns;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    return best_ns ? best_ns : 1;
}

uint32_t uncached_ratio(const volatile void *page)
{
    static const uint64_t ours[PAGE_WORDS] __attribute__((aligned(4096)));
    uint64_t ratio = read_ns(page) / read_ns(ours);

    return ratio < 1 ? 1 : ratio < UINT32_MAX ? (uint32_t)ratio : UINT32_MAX;
}

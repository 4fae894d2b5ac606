/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Allocators as pictures: one character a block, '.' free, else the extent's cookie. For tests of
 * allocator/.
 */
#ifndef VCHAN_TESTS_ALLOCATOR_PICTURE_H
#define VCHAN_TESTS_ALLOCATOR_PICTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "allocator/allocator.h"

static inline void assert_looks(const struct allocator *allocator, const char *picture)
{
    struct allocator_span span;
    char seen[128] = {0};

    for (uint64_t at = 0; !allocator_span_at(allocator, at, &span); at += span.blocks) {
        assert_true(at + span.blocks < sizeof(seen));
        memset(seen + at, span.free ? '.' : (int)span.cookie, span.blocks);
    }
    assert_string_equal(seen, picture);
}

static inline void finish(struct allocator *allocator)
{
    const char *why = NULL;

    assert_int_equal(allocator_check(allocator, &why), 0);
    allocator_free(allocator);
}

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/map.h"

#define K 1024u
#define BLOCK 4096u
#define DATA_BYTES (1024ull * K)
#define EXTENTS_MAX 64

static struct proto_extent_info extent(uint64_t block, uint64_t blocks, uint32_t kind,
                                       uint32_t channel, uint32_t ring)
{
    return (struct proto_extent_info){.offset_bytes = block * BLOCK,
                                      .size_bytes = blocks * BLOCK,
                                      .kind = kind,
                                      .channel = channel,
                                      .ring = ring};
}

/* The whole way from a list to a strip of at most cells_max characters. */
static void assert_strip(struct proto_extent_info *extents, size_t count, size_t cells_max,
                         const char *expected)
{
    uint32_t letters[EXTENTS_MAX];
    struct map_cell cells[EXTENTS_MAX * 8];
    char strip[sizeof(cells) / sizeof(cells[0]) + 1];

    count = map_order(extents, count, DATA_BYTES);
    struct map_scale scale = map_scale(extents, count, cells_max);
    assert_true(scale.cell_count <= cells_max);
    assert_int_equal(map_letters(extents, count, letters), 0);
    map_draw(extents, count, letters, &scale, cells);
    for (size_t i = 0; i < scale.cell_count; i++)
        strip[i] = cells[i].character;
    strip[scale.cell_count] = '\0';
    assert_string_equal(strip, expected);
}

static void an_empty_section_has_no_strip(void **state)
{
    struct proto_extent_info extents[] = {extent(0, 256, PROTO_EXTENT_FREE, 0, 0)};

    (void)state;
    assert_strip(extents, 1, 80, "");
}

static void a_block_is_a_character_where_there_is_room(void **state)
{
    struct proto_extent_info extents[] = {
        extent(0, 2, PROTO_EXTENT_RING, 0, 0),
        extent(2, 1, PROTO_EXTENT_FREE, 0, 0),
        extent(3, 3, PROTO_EXTENT_RING, 0, 1),
        extent(6, 250, PROTO_EXTENT_FREE, 0, 0),
    };

    (void)state;
    assert_strip(extents, 4, 80, "AA.BBB");
}

static void an_old_generation_has_its_rings_letter_in_lower_case(void **state)
{
    struct proto_extent_info extents[] = {
        extent(0, 2, PROTO_EXTENT_OLD, 7, 1),
        extent(2, 1, PROTO_EXTENT_RING, 7, 0),
        extent(3, 4, PROTO_EXTENT_RING, 7, 1),
    };

    (void)state;
    assert_strip(extents, 3, 80, "aaBAAAA");
}

static void the_order_of_the_list_does_not_matter(void **state)
{
    struct proto_extent_info extents[] = {
        extent(3, 1, PROTO_EXTENT_RING, 2, 0),
        extent(0, 1, PROTO_EXTENT_RING, 9, 0),
        extent(1, 1, PROTO_EXTENT_RING, 5, 0),
    };

    (void)state;
    assert_strip(extents, 3, 80, "AB.C");
}

static void a_cell_with_several_rings_says_so(void **state)
{
    struct proto_extent_info extents[] = {
        extent(0, 1, PROTO_EXTENT_RING, 0, 0),
        extent(1, 3, PROTO_EXTENT_RING, 0, 1),
        extent(4, 1, PROTO_EXTENT_RING, 1, 0),
    };

    (void)state;
    assert_strip(extents, 3, 3, "#BC");
}

static void a_single_used_block_never_looks_free(void **state)
{
    struct proto_extent_info extents[] = {
        extent(0, 1, PROTO_EXTENT_RING, 0, 0),
        extent(100, 1, PROTO_EXTENT_RING, 0, 1),
        extent(255, 1, PROTO_EXTENT_OLD, 0, 1),
    };

    (void)state;
    assert_strip(extents, 3, 16, "A.....B........b");
}

static void old_and_current_memory_in_one_cell_show_the_current(void **state)
{
    struct proto_extent_info extents[] = {
        extent(0, 1, PROTO_EXTENT_OLD, 0, 0),
        extent(1, 1, PROTO_EXTENT_RING, 0, 0),
    };

    (void)state;
    assert_strip(extents, 2, 1, "A");
}

static void the_27th_ring_starts_the_alphabet_again(void **state)
{
    struct proto_extent_info extents[27];

    (void)state;
    for (uint32_t i = 0; i < 27; i++)
        extents[i] = extent(i, 1, PROTO_EXTENT_RING, i, 0);
    assert_strip(extents, 27, 80, "ABCDEFGHIJKLMNOPQRSTUVWXYZA");
}

static void free_memory_is_nobodys_though_it_names_ring_0_0(void **state)
{
    struct proto_extent_info extents[] = {
        extent(0, 1, PROTO_EXTENT_RING, 0, 0),
        extent(1, 1, PROTO_EXTENT_FREE, 0, 0),
        extent(2, 1, PROTO_EXTENT_OLD, 0, 0),
    };

    (void)state;
    assert_strip(extents, 3, 80, "A.a");
}

static void what_lies_outside_the_section_is_cut_off(void **state)
{
    struct proto_extent_info extents[] = {
        extent(254, 100, PROTO_EXTENT_RING, 1, 0),
        extent(256, 1, PROTO_EXTENT_RING, 2, 0),
        {.offset_bytes = UINT64_MAX, .size_bytes = UINT64_MAX, .kind = PROTO_EXTENT_RING},
        {.offset_bytes = 0, .size_bytes = 0, .kind = PROTO_EXTENT_RING},
        {.offset_bytes = 255 * BLOCK,
         .size_bytes = UINT64_MAX,
         .kind = PROTO_EXTENT_OLD,
         .channel = 1},
    };
    size_t count = map_order(extents, 5, DATA_BYTES);

    (void)state;
    assert_int_equal(count, 2);
    assert_true(extents[0].size_bytes == 2 * BLOCK);
    assert_true(extents[1].size_bytes == BLOCK);
    assert_strip(extents, count, 1, "A");
}

static void zones_are_told_apart_and_have_their_own_figures(void **state)
{
    struct proto_extent_info extents[] = {
        extent(3, 7, PROTO_EXTENT_FREE, 0, 0),  extent(0, 2, PROTO_EXTENT_RING, 1, 0),
        extent(1, 2, PROTO_EXTENT_RING, 2, 0),  extent(0, 1, PROTO_EXTENT_FREE, 0, 0),
        extent(2, 30, PROTO_EXTENT_FREE, 0, 0),
    };
    struct map_zone first, second;

    (void)state;
    extents[0].zone = extents[2].zone = extents[3].zone = 5;
    assert_int_equal(map_order(extents, 5, DATA_BYTES), 5);
    first = map_zone(extents, 5);
    assert_int_equal(first.zone, 0);
    assert_int_equal(first.count, 2);
    assert_true(first.data_bytes == 32 * BLOCK);
    assert_true(first.free_bytes == 30 * BLOCK);
    assert_true(first.largest_free_bytes == 30 * BLOCK);
    second = map_zone(extents + first.count, 5 - first.count);
    assert_int_equal(second.zone, 5);
    assert_int_equal(second.count, 3);
    assert_true(second.data_bytes == 10 * BLOCK);
    assert_true(second.free_bytes == 8 * BLOCK);
    assert_true(second.largest_free_bytes == 7 * BLOCK);
    assert_strip(extents, first.count, 80, "AA");
    assert_strip(extents + first.count, second.count, 80, ".AA");
}

static void a_huge_section_still_fits(void **state)
{
    struct proto_extent_info extents[] = {
        {.offset_bytes = 0, .size_bytes = UINT64_MAX - BLOCK, .kind = PROTO_EXTENT_RING}};
    size_t count = map_order(extents, 1, UINT64_MAX);
    struct map_scale scale = map_scale(extents, count, 80);

    (void)state;
    assert_int_equal(count, 1);
    assert_int_equal(scale.cell_count, 64);
    assert_true(scale.cell_bytes == 1ull << 58);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_section_has_no_strip),
        cmocka_unit_test(a_block_is_a_character_where_there_is_room),
        cmocka_unit_test(an_old_generation_has_its_rings_letter_in_lower_case),
        cmocka_unit_test(the_order_of_the_list_does_not_matter),
        cmocka_unit_test(a_cell_with_several_rings_says_so),
        cmocka_unit_test(a_single_used_block_never_looks_free),
        cmocka_unit_test(old_and_current_memory_in_one_cell_show_the_current),
        cmocka_unit_test(the_27th_ring_starts_the_alphabet_again),
        cmocka_unit_test(free_memory_is_nobodys_though_it_names_ring_0_0),
        cmocka_unit_test(what_lies_outside_the_section_is_cut_off),
        cmocka_unit_test(zones_are_told_apart_and_have_their_own_figures),
        cmocka_unit_test(a_huge_section_still_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

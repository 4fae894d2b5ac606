/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of layout version 2, as two programs built at different times must agree on them. */
#include "tests/unit/ring_fixture.h"

#include "ring/layout.h"

static uint64_t word_at(const struct layout_channel_page *page, size_t offset)
{
    uint64_t word;

    memcpy(&word, (const uint8_t *)page + offset, sizeof(word));
    return word;
}

static void test_region_header_golden_bytes(void **state)
{
    static const uint8_t golden[80] = {
        'V', 'M', 'V', 'C', 'H', 'A', 'N', '1', /* magic */
        2, 0, 0, 0, 1, 0, 0, 0,                 /* version, features */
        0, 0, 0, 0x10, 0, 0, 0, 0,              /* size: 256 MiB */
        0, 0x20, 0, 0, 0, 0, 0, 0,              /* control at 8 KiB */
        0, 0x20, 0, 1, 0, 0, 0, 0,              /* data at 16 MiB + 8 KiB */
        0, 0x10, 0, 0, 0, 0x10, 0, 0,           /* 4096 channels, 4096-byte blocks */
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        0, 0x10, 0, 0, 0, 0, 0, 0,              /* peers at 4 KiB */
        16, 0, 0, 0, 0, 0, 0, 0,                /* 16 of them */
    };
    struct layout_region_header header = {
        .magic = LAYOUT_MAGIC,
        .version = LAYOUT_VERSION,
        .features = LAYOUT_FEATURE_MARK_FENCE,
        .size_bytes = 256u << 20,
        .control_offset = 8192,
        .data_offset = (16u << 20) + 8192,
        .channel_count = 4096,
        .block_bytes = LAYOUT_BLOCK_BYTES,
        .zone_uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
        .peers_offset = 4096,
        .peer_count = 16,
    };
    (void)state;
    assert_memory_equal(&header, golden, sizeof(golden));
}

/* What the code itself leaves in the page after a known history. */
static void test_channel_page_golden_words(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 2, 1);
    assert_int_equal(fixture_write(&f, 100), 100);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 2));
    assert_int_equal(fixture_write(&f, 5), 5);
    assert_int_equal(fixture_read(&f, 103), 103);
    assert_true(ring_geometry_followed(&f.geometry, &old));
    static const struct {
        size_t offset;
        uint64_t value;
    } golden[] = {
        {0, LAYOUT_CHANNEL_CONNECTED},
        {256, 2},                    /* generation */
        {264, 2}, {272, FIXTURE_DATA + 8 * 4096}, {280, 8192}, /* extent[0] */
        {288, 1}, {296, FIXTURE_DATA + 2 * 4096}, {304, 4096}, /* extent[1] */
        {384, 105}, {392, 1},        /* tail, switch_count */
        {400, 0}, {408, 0},          /* switches[0] */
        {416, 2}, {424, 100},        /* switches[1]: to generation 2 at byte 100 */
        {512, 103}, {520, 1},        /* head, followed */
        {640, 4},                    /* two operations of the producer */
        {768, 4},                    /* two of the consumer: one each side of the switch */
        {776, 105},                  /* high water */
        {896, 0}, {904, 0},          /* the producer never slept */
        {1024, 0}, {1032, 0},        /* nor did the consumer */
    };
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
        assert_int_equal(word_at(f.page, golden[i].offset), golden[i].value);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_region_header_golden_bytes),
        cmocka_unit_test(test_channel_page_golden_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

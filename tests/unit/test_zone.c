/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A zone's region, pages and extents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "broker/zone.h"

#define MIB (1024u * 1024u)
#define PAGES 8u

static struct zone *zone;

static int make(void **state)
{
    struct domain_set nobody = {0};

    (void)state;
    domain_set_add(&nobody, 3);
    return zone_new("test", 0, 100, &nobody, 2 * MIB, PAGES, 0, &zone);
}

static int drop(void **state)
{
    (void)state;
    zone_free(zone);
    return 0;
}

static void region_is_a_power_of_two_with_room_for_its_pages(void **state)
{
    const uint8_t uuid[16] = {0};
    struct region region;

    (void)state;
    assert_int_equal(region_init(&region, "x", 3 * MIB, PAGES, 0, uuid), -EINVAL);
    assert_int_equal(region_init(&region, "x", 0, PAGES, 0, uuid), -EINVAL);
    assert_int_equal(region_init(&region, "x", 1 * MIB, 1000, 0, uuid), -EINVAL);
    assert_int_equal(region_init(&region, "x", 1 * MIB, PAGES, LAYOUT_FEATURE_MARK_FENCE, uuid), 0);
    assert_int_equal(region.data_offset % 65536, 0);
    assert_true(region.data_offset >= LAYOUT_BLOCK_BYTES + PAGES * LAYOUT_CHANNEL_PAGE_BYTES);
    region_deinit(&region);
}

static void header_tells_the_regions_shape(void **state)
{
    const struct layout_region_header *header = (const void *)zone->region.control;

    (void)state;
    assert_true(header->magic == LAYOUT_MAGIC);
    assert_int_equal(header->version, LAYOUT_VERSION);
    assert_int_equal(header->size_bytes, 2 * MIB);
    assert_int_equal(header->control_offset, LAYOUT_BLOCK_BYTES + REGION_PEERS * LAYOUT_PEER_BYTES);
    assert_int_equal(header->data_offset, zone->region.data_offset);
    assert_int_equal(header->channel_count, PAGES);
    assert_int_equal(header->zone_uuid[6] >> 4, 4);
}

static void memfd_is_sealed_and_closed_on_exec(void **state)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

    (void)state;
    assert_int_equal(fcntl(zone->region.descriptor, F_GET_SEALS), seals);
    assert_int_equal(fcntl(zone->region.descriptor, F_GETFD), FD_CLOEXEC);
    assert_int_equal(ftruncate(zone->region.descriptor, 4 * MIB), -1);
}

static void host_is_a_member_of_every_zone(void **state)
{
    (void)state;
    assert_true(domain_set_has(&zone->members, 0));
    assert_true(domain_set_has(&zone->members, 3));
    assert_false(domain_set_has(&zone->members, 4));
    assert_false(domain_set_has(&zone->members, PROTO_DOMAIN_MAX + 1));
}

static void pages_rest_before_they_are_used_again(void **state)
{
    uint64_t first_incarnation, incarnation;
    uint32_t first, slot;

    (void)state;
    assert_int_equal(zone_page_take(zone, &first, &first_incarnation), 0);
    zone_page_give(zone, first);
    for (unsigned i = 1; i < PAGES; i++) {
        assert_int_equal(zone_page_take(zone, &slot, &incarnation), 0);
        assert_int_not_equal(slot, first);
    }
    assert_int_equal(zone_page_take(zone, &slot, &incarnation), 0);
    assert_int_equal(slot, first);
    assert_int_equal(incarnation, first_incarnation + 1);
    assert_int_equal(zone_page_take(zone, &slot, &incarnation), -ENOSPC);
}

static void page_of_a_new_channel_is_zero_whatever_was_in_it(void **state)
{
    static const uint8_t zero[LAYOUT_CHANNEL_PAGE_BYTES];
    uint64_t incarnation;
    uint32_t slot;

    (void)state;
    for (unsigned i = 0; i <= PAGES; i++) {
        assert_int_equal(zone_page_take(zone, &slot, &incarnation), 0);
        assert_memory_equal(region_page(&zone->region, slot), zero, sizeof(zero));
        memset(region_page(&zone->region, slot), 0xff, sizeof(zero));
        zone_page_give(zone, slot);
        memset(region_page(&zone->region, slot), 0xff,
               sizeof(zero)); /* an end that does not know yet */
    }
}

static void trimming_spares_a_page_that_was_taken_again(void **state)
{
    uint64_t old, incarnation;
    uint32_t slot;

    (void)state;
    assert_int_equal(zone_page_take(zone, &slot, &old), 0);
    const uint64_t with_page = region_resident_bytes(&zone->region);
    zone_page_give(zone, slot);
    zone_page_trim(zone, slot, old);
    assert_int_equal(region_resident_bytes(&zone->region), with_page - LAYOUT_CHANNEL_PAGE_BYTES);
    for (unsigned i = 0; i < PAGES; i++)
        assert_int_equal(zone_page_take(zone, &slot, &incarnation), 0);
    assert_int_equal(incarnation, old + 1);
    region_page(&zone->region, slot)->channel.port = 5;
    zone_page_trim(zone, slot, old);
    assert_int_equal(region_page(&zone->region, slot)->channel.port, 5);
}

static void extents_are_present_and_go_back_to_the_host(void **state)
{
    const uint64_t before = region_resident_bytes(&zone->region);
    struct ring_extent extent;

    (void)state;
    assert_int_equal(zone_extent_take(zone, 3, 65536, zone_cookie(101, 1), &extent), 0);
    assert_int_equal(extent.size, 65536);
    assert_true(extent.offset >= zone->region.data_offset);
    assert_int_equal(region_resident_bytes(&zone->region), before + 65536);
    assert_int_equal(zone_held_bytes(zone, 3), 65536);
    zone_extent_give(zone, &extent);
    assert_int_equal(region_resident_bytes(&zone->region), before);
    assert_int_equal(zone_held_bytes(zone, 3), 0);
}

static void extent_that_does_not_fit_or_is_over_quota_changes_nothing(void **state)
{
    const uint64_t before = region_resident_bytes(&zone->region);
    struct ring_extent extent;

    (void)state;
    assert_int_equal(zone_extent_take(zone, 3, 4 * MIB, 0, &extent), -ENOSPC);
    assert_int_equal(allocator_quota_set(zone->allocator, 3, 1), 0);
    assert_int_equal(zone_extent_take(zone, 3, 8192, 0, &extent), -EDQUOT);
    assert_int_equal(region_resident_bytes(&zone->region), before);
    assert_int_equal(zone_held_bytes(zone, 3), 0);
}

static void bytes_that_are_not_whole_blocks_are_refused(void **state)
{
    struct ring_extent old, next, wrong;
    const uint64_t before = region_resident_bytes(&zone->region);

    (void)state;
    assert_int_equal(zone_extent_take(zone, 3, 5000, 0, &old), -EINVAL);
    assert_int_equal(zone_extent_take(zone, 3, 100, 0, &old), -EINVAL);
    assert_int_equal(region_resident_bytes(&zone->region), before);
    assert_int_equal(zone_extent_take(zone, 3, 8192, 0, &old), 0);
    assert_int_equal(zone_extent_replace(zone, &old, 5000, &next), -EINVAL);
    const uint64_t beyond = old.offset + 65536;
    assert_int_equal(zone_extent_replace_at(zone, &old, beyond, 5000, &next), -EINVAL);
    assert_int_equal(zone_extent_replace_at(zone, &old, beyond + 1, 4096, &next), -EINVAL);
    assert_int_equal(zone_extent_replace_at(zone, &old, beyond, 4096, &next), 0);
    wrong = (struct ring_extent){.offset = next.offset, .size = 5000};
    assert_int_equal(zone_extent_give(zone, &wrong), -EINVAL);
    assert_int_equal(zone_extent_give(zone, &next), 0);
    assert_int_equal(zone_extent_give(zone, &next), -EINVAL);
    assert_int_equal(zone_held_bytes(zone, 3), 8192);
}

static void extent_that_says_too_much_does_not_reach_into_its_neighbour(void **state)
{
    struct ring_extent first, second;
    uint8_t byte = 7;

    (void)state;
    assert_int_equal(zone_extent_take(zone, 3, 4096, 0, &first), 0);
    assert_int_equal(zone_extent_take(zone, 4, 4096, 0, &second), 0);
    assert_int_equal(second.offset, first.offset + 4096);
    assert_int_equal(pwrite(zone->region.descriptor, &byte, 1, (off_t)second.offset), 1);
    first.size = 5000;
    assert_int_equal(zone_extent_give(zone, &first), -EINVAL);
    byte = 0;
    assert_int_equal(pread(zone->region.descriptor, &byte, 1, (off_t)second.offset), 1);
    assert_int_equal(byte, 7);
}

static void cookies_name_channel_and_ring(void **state)
{
    (void)state;
    assert_int_equal(zone_cookie_channel(zone_cookie(UINT32_MAX, 1)), UINT32_MAX);
    assert_int_equal(zone_cookie_ring(zone_cookie(UINT32_MAX, 1)), 1);
    assert_int_equal(zone_cookie_ring(zone_cookie(UINT32_MAX, 0)), 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(region_is_a_power_of_two_with_room_for_its_pages),
        CASE(header_tells_the_regions_shape),
        CASE(memfd_is_sealed_and_closed_on_exec),
        CASE(host_is_a_member_of_every_zone),
        CASE(pages_rest_before_they_are_used_again),
        CASE(page_of_a_new_channel_is_zero_whatever_was_in_it),
        CASE(trimming_spares_a_page_that_was_taken_again),
        CASE(extents_are_present_and_go_back_to_the_host),
        CASE(extent_that_does_not_fit_or_is_over_quota_changes_nothing),
        CASE(bytes_that_are_not_whole_blocks_are_refused),
        CASE(extent_that_says_too_much_does_not_reach_into_its_neighbour),
        CASE(cookies_name_channel_and_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

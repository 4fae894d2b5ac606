/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which regions an agent takes for ours, and what it says of others. */
#include <errno.h>

#include "tests/agent/agent_fixture.h"

static int setup(void **state)
{
    static struct fake fake;

    fake_new(&fake);
    fake_fill(&fake, &fake.device, true);
    *state = &fake;
    return 0;
}

static int teardown(void **state)
{
    struct fake *fake = *state;

    device_close(&fake->device);
    fake_free(fake);
    return 0;
}

static void a_region_is_found_with_our_place_in_it(void **state)
{
    struct fake *fake = *state;

    assert_int_equal(device_map(&fake->device), 0);
    assert_int_equal(fake->device.id, FAKE_ID);
    fake->device.peer->request = 77;
    assert_int_equal(fake_peer(fake)->request, 77);
    device_ring(&fake->device, 2, 9);
    assert_int_equal(fake->registers[DEVICE_REGISTER_DOORBELL / 4], 2 << 16 | 9);
}

static void another_memory_is_left_alone(void **state)
{
    struct fake *fake = *state;

    fake_header(fake)->magic++;
    assert_int_equal(device_map(&fake->device), -ENOTSUP);
    assert_string_equal(fake->device.why, "its memory is not a region of vchan");
}

static void another_layout_is_left_alone_and_named(void **state)
{
    struct fake *fake = *state;

    fake_header(fake)->version = LAYOUT_VERSION + 1;
    assert_int_equal(device_map(&fake->device), -ENOTSUP);
    assert_non_null(strstr(fake->device.why, "layout version"));
}

static void a_bar_that_is_no_region_is_left_alone(void **state)
{
    struct fake *fake = *state;

    fake->device.memory_bytes = 3 * 4096;
    assert_int_equal(device_map(&fake->device), -ENOTSUP);
    fake->device.memory_bytes = 0;
    device_close(&fake->device);
    fake_fill(fake, &fake->device, true);
    fake->device.memory_bytes = 4096;
    assert_int_equal(device_map(&fake->device), -ENOTSUP);
}

/* Each word of it, with each of some values: it is refused, or all that is used lies inside. */
static void a_header_that_contradicts_itself_is_refused(void **state)
{
    static const uint64_t values[] = {
        0, 1, 7, 4095, 4096, 8192, FAKE_DATA - 4096, FAKE_DATA, FAKE_BYTES - 4096, FAKE_BYTES,
        FAKE_BYTES + 4096, UINT32_MAX, INT64_MAX, UINT64_MAX - 4095, UINT64_MAX};
    struct fake *fake = *state;
    uint64_t *words = (void *)fake->region;
    unsigned refused = 0, taken = 0;

    for (size_t i = 2; i < sizeof(struct layout_region_header) / 8; i++) {
        const uint64_t before = words[i];
        for (size_t j = 0; j < sizeof(values) / sizeof(values[0]); j++) {
            words[i] = values[j];
            if (device_map(&fake->device) == 0) {
                const struct layout_region_header *h = &fake->device.header;
                assert_true(h->data_offset <= FAKE_BYTES && h->control_offset <= h->data_offset);
                assert_true(h->peers_offset + (FAKE_ID + 1) * LAYOUT_PEER_BYTES <=
                            h->control_offset);
                taken++;
            } else {
                refused++;
            }
            device_close(&fake->device);
            fake_fill(fake, &fake->device, true);
        }
        words[i] = before;
    }
    assert_true(refused > 50);
    assert_true(taken > 20);
}

static void a_number_that_is_no_peers_is_refused(void **state)
{
    struct fake *fake = *state;
    const uint32_t numbers[] = {LAYOUT_PEER_HOST, 8, 65535};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        fake->registers[DEVICE_REGISTER_POSITION / 4] = numbers[i];
        assert_int_equal(device_map(&fake->device), -EPROTO);
        device_close(&fake->device);
        fake_fill(fake, &fake->device, true);
    }
    fake->registers[DEVICE_REGISTER_POSITION / 4] = UINT32_MAX;
    assert_int_equal(device_map(&fake->device), -EAGAIN);
}

static void memory_that_vanishes_becomes_zeros(void **state)
{
    struct fake *fake = *state;

    guard_init(); /* cmocka has a handler of its own for each test */
    assert_int_equal(device_map(&fake->device), 0);
    fake_peer(fake)->answered = 5;
    assert_int_equal(order_load_plain(&fake->device.peer->answered), 5);
    assert_int_equal(ftruncate(fake->memory_fd, 0), 0);
    assert_int_equal(order_load_plain(&fake->device.peer->answered), 0);
    assert_int_equal(fake->device.lost, 1);
    assert_int_equal(ftruncate(fake->memory_fd, FAKE_BYTES), 0);
}

static void what_is_no_pci_device_is_refused_with_a_reason(void **state)
{
    struct fake *fake = *state;

    assert_true(device_open(&fake->device, "ffff:ff:1f.7", false) < 0);
    assert_true(fake->device.why[0] != '\0');
    assert_null(fake->device.backend);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_region_is_found_with_our_place_in_it),
        CASE(another_memory_is_left_alone),
        CASE(another_layout_is_left_alone_and_named),
        CASE(a_bar_that_is_no_region_is_left_alone),
        CASE(a_header_that_contradicts_itself_is_refused),
        CASE(a_number_that_is_no_peers_is_refused),
        CASE(memory_that_vanishes_becomes_zeros),
        CASE(what_is_no_pci_device_is_refused_with_a_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/doorbell.h"

#define FULL 0xfffffffffffffffeull

static void test_an_end_is_woken(void **state)
{
    struct doorbell doorbell;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    eventfd_t count;
    (void)state;
    assert_int_equal(doorbell_init(&doorbell), 0);
    assert_true(doorbell_ring(&doorbell, fd));
    assert_true(doorbell_ring(&doorbell, fd));
    assert_int_equal(eventfd_read(fd, &count), 0);
    assert_int_equal(count, 2);
    doorbell_deinit(&doorbell);
    close(fd);
}

static void test_a_full_count_that_would_block_is_made_not_to(void **state)
{
    struct doorbell doorbell;
    int fd = eventfd(0, EFD_CLOEXEC); /* blocking, as a hostile end made it */
    (void)state;
    assert_int_equal(eventfd_write(fd, FULL), 0);
    assert_int_equal(doorbell_init(&doorbell), 0);
    assert_true(doorbell_ring(&doorbell, fd));
    doorbell_deinit(&doorbell);
    close(fd);
}

struct spoiler {
    int fd;
    int stop;
};

static void *keep_it_blocking(void *argument)
{
    struct spoiler *spoiler = argument;

    while (!__atomic_load_n(&spoiler->stop, __ATOMIC_RELAXED))
        fcntl(spoiler->fd, F_SETFL, 0);
    return NULL;
}

/* Whether or not the spoiler comes in between, nobody hangs. */
static void test_who_undoes_it_in_between_cannot_hang_us(void **state)
{
    struct doorbell doorbell;
    struct spoiler spoiler = {.fd = eventfd(0, EFD_CLOEXEC)};
    pthread_t thread;
    int interrupted = 0;
    (void)state;
    assert_int_equal(eventfd_write(spoiler.fd, FULL), 0);
    assert_int_equal(doorbell_init(&doorbell), 0);
    pthread_create(&thread, NULL, keep_it_blocking, &spoiler);
    for (int i = 0; i < 300000 && interrupted < 3; i++)
        interrupted += !doorbell_ring(&doorbell, spoiler.fd);
    __atomic_store_n(&spoiler.stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    print_message("interrupted %d times\n", interrupted);
    doorbell_deinit(&doorbell);
    close(spoiler.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_end_is_woken),
        cmocka_unit_test(test_a_full_count_that_would_block_is_made_not_to),
        cmocka_unit_test(test_who_undoes_it_in_between_cannot_hang_us),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

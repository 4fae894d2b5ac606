/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vchand.conf may say, and what is said about what it may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config.h"
#include "broker/log.h"

static int read_text(struct config *config, const char *text, size_t bytes,
                     char error[CONFIG_ERROR_BYTES])
{
    FILE *stream = fmemopen((void *)(uintptr_t)text, bytes, "r");

    assert_non_null(stream);
    error[0] = 0;
    config_init(config);
    int r = config_read_stream(config, stream, "a.conf", error);
    fclose(stream);
    return r;
}

static void assert_error(const char *text, const char *expected)
{
    char error[CONFIG_ERROR_BYTES];
    struct config config;

    assert_int_equal(read_text(&config, text, strlen(text), error), -EINVAL);
    if (strstr(error, expected) != error)
        fail_msg("\"%s\" does not begin with \"%s\"", error, expected);
    config_deinit(&config);
}

static void read_right(struct config *config, const char *text)
{
    char error[CONFIG_ERROR_BYTES];

    if (read_text(config, text, strlen(text), error) != 0)
        fail_msg("%s", error);
}

static void defaults_serve_without_a_file(void **state)
{
    struct config config;

    (void)state;
    read_right(&config, "# nothing\n");
    assert_int_equal(config.region_bytes, 256 << 20);
    assert_int_equal(config_channels_for(config.channels, config.region_bytes), 4096);
    assert_int_equal(config.socket_mode, 0660);
    assert_true(config.local_enable);
    assert_true(domain_set_has(&config.local_domains, 0));
    assert_true(domain_set_has(&config.local_domains, 255));
    assert_false(domain_set_has(&config.local_domains, 256));
    assert_int_equal(config.zone_count, 0);
    assert_null(policy_config_check(&config.policy));
    config_deinit(&config);
}

static void every_kind_of_value_is_read(void **state)
{
    static const uint8_t uuid[16] = {0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x41, 0xd1,
                                     0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};
    struct config config;

    (void)state;
    read_right(&config, "[broker]\n"
                        "region-size = 64M ; a remark\n"
                        "  channels=100\n"
                        "log-level: debug\n"
                        "socket-mode = 0600\n"
                        "socket-group = staff\n"
                        "policy = static\n"
                        "sandbox = no\r\n"
                        "[local]\n"
                        "enable = yes\n"
                        "domains = 1-3, 9 11-11\n"
                        "[rebalance]\n"
                        "period-ms = 50\n"
                        "cache-bytes = 2M\n"
                        "ring-default-max = 8M\n"
                        "[domain web]\n"
                        "id = 5\n"
                        "quota = 12K\n"
                        "uuid = 6BA7B810-9dad-41d1-80b4-00c04fd430c8\n"
                        "[domain data-base.2]\n"
                        "id = 6\n"
                        "[zone shop]\n"
                        "members = 5, 6\n"
                        "region-size = 16M\n"
                        "[zone other]\n"
                        "members = 7\n");
    assert_int_equal(config.region_bytes, 64 << 20);
    assert_int_equal(config.channels, 100);
    assert_int_equal(config.log_level, LOG_DEBUG);
    assert_int_equal(config.socket_mode, 0600);
    assert_string_equal(config.socket_group, "staff");
    assert_string_equal(config.policy_name, "static");
    assert_false(config.sandbox);
    assert_false(domain_set_has(&config.local_domains, 0));
    assert_true(domain_set_has(&config.local_domains, 9));
    assert_false(domain_set_has(&config.local_domains, 10));
    assert_true(domain_set_has(&config.local_domains, 11));
    assert_int_equal(config.policy.period_ms, 50);
    assert_int_equal(config.policy.cache_bytes, 2 << 20);
    assert_int_equal(config.ring_max_bytes, 8 << 20);
    assert_int_equal(config.domain_count, 2);
    assert_string_equal(config.domains[0].name, "web");
    assert_int_equal(config.domains[0].quota_bytes, 12288);
    assert_memory_equal(config.domains[0].uuid, uuid, 16);
    assert_int_equal(config.domains[1].id, 6);
    assert_int_equal(config.zone_count, 2);
    assert_true(domain_set_has(&config.zones[0].members, 6));
    assert_int_equal(config.zones[0].region_bytes, 16 << 20);
    assert_int_equal(config.zones[1].region_bytes, 64 << 20);
    config_deinit(&config);
}

static void error_names_file_line_and_key(void **state)
{
    (void)state;
    assert_error("[broker]\n\n# x\nchanels = 5\n",
                 "a.conf:4: chanels: there is no such key in [broker]; it takes region-size");
    assert_error("[rebalance]\nperiod-ms = 5\n",
                 "a.conf:2: period-ms: \"5\" is not allowed; it takes a number from 10 to 60000");
    assert_error("[broker]\nlog-level = loud\n", "a.conf:2: log-level: \"loud\" is not allowed; it "
                                                 "takes error, warning, notice, info or debug");
}

static void unknown_section_is_an_error_even_without_keys(void **state)
{
    (void)state;
    assert_error("[brokers]\n", "a.conf:1: [brokers]: there is no such section");
    assert_error("[broker web]\n", "a.conf:1: [broker]: it takes no name");
    assert_error("[domain]\n", "a.conf:1: [domain NAME]: a name is needed");
}

static void what_is_said_twice_is_an_error(void **state)
{
    (void)state;
    assert_error("[broker]\nchannels = 5\nchannels = 5\n", "a.conf:3: channels: it is given twice");
    assert_error("[broker]\n[local]\n[broker]\n", "a.conf:3: [broker]: it is there twice");
    assert_error("[domain a]\nid=1\n[domain a]\nid=2\n",
                 "a.conf:3: [domain a]: line 1 has it already");
    assert_error("[domain a]\nid=1\n[domain b]\nid=1\n",
                 "a.conf:3: id: [domain b] has the number of [domain a]");
    assert_error("[zone a]\n[zone a]\n", "a.conf:2: [zone a]: line 1 has it already");
}

static void metrics_are_for_this_host_only(void **state)
{
    struct config config;

    (void)state;
    assert_error("[metrics]\nhttp = 0.0.0.0:9777\n",
                 "a.conf:2: http: \"0.0.0.0:9777\" is not allowed; it takes a loopback address");
    assert_error("[metrics]\nhttp = 127.0.0.1:0\n", "a.conf:2: http:");
    assert_error("[metrics]\nhttp = 127.0.0.1:65536\n", "a.conf:2: http:");
    assert_error("[metrics]\nsocket = metrics.sock\n", "a.conf:2: socket: \"metrics.sock\"");
    read_right(&config, "[metrics]\nhttp = [::1]:9777\nsocket = /run/m.sock\n");
    assert_string_equal(config.metrics_http, "[::1]:9777");
    assert_string_equal(config.metrics_socket, "/run/m.sock");
    config_deinit(&config);
}

static void guests_have_a_mailbox_vector_and_one_for_programs_at_least(void **state)
{
    struct config config;

    (void)state;
    assert_error("[guests]\nvectors = 1\n", "a.conf:2: vectors: \"1\" is not allowed");
    assert_error("[guests]\nfirst-id = 0\n", "a.conf:2: first-id: \"0\" is not allowed");
    read_right(&config, "[guests]\nvectors = 2\nsocket-group = kvm\n");
    assert_int_equal(config.guest_vectors, 2);
    assert_int_equal(config.guest_first_id, 1000);
    assert_string_equal(config.guest_socket_group, "kvm");
    config_deinit(&config);
}

static void numbers_and_sizes_out_of_range_are_errors(void **state)
{
    (void)state;
    assert_error("[broker]\nchannels = 0\n", "a.conf:2: channels: \"0\" is not allowed");
    assert_error("[broker]\nchannels = -1\n", "a.conf:2: channels: \"-1\" is not allowed");
    assert_error("[broker]\nchannels = 5x\n", "a.conf:2: channels: \"5x\" is not allowed");
    assert_error("[broker]\nchannels = 99999999999999999999\n", "a.conf:2: channels:");
    assert_error("[broker]\nregion-size = 5Q\n", "a.conf:2: region-size: \"5Q\" is not allowed");
    assert_error("[broker]\nregion-size = 5MB\n", "a.conf:2: region-size:");
    assert_error("[broker]\nregion-size = 99999999999999T\n", "a.conf:2: region-size:");
    assert_error("[broker]\nregion-size = 3M\n",
                 "a.conf:2: region-size: [broker]: it must be a power of two");
    assert_error("[broker]\nregion-size = 1M\nchannels = 4000\n",
                 "a.conf:2: channels: [broker]: that many pages");
    assert_error("[broker]\nsocket-mode = 0888\n", "a.conf:2: socket-mode:");
    assert_error("[broker]\nsandbox = perhaps\n",
                 "a.conf:2: sandbox: \"perhaps\" is not allowed; it takes yes or no");
    assert_error("[broker]\npolicy = best\n", "a.conf:2: policy: \"best\" is not allowed");
    assert_error("[domain a]\nid = 32752\n",
                 "a.conf:2: id: \"32752\" is not allowed; it takes 0 to 32751");
    assert_error("[domain a]\nquota = 4K\n", "a.conf:1: id: [domain a] must have one");
    assert_error("[domain a]\nuuid = 6ba7b810-9dad-41d1-80b4-00c04fd430c\n", "a.conf:2: uuid:");
    assert_error("[local]\ndomains = 5-3\n", "a.conf:2: domains: \"5-3\" is not allowed");
    assert_error("[local]\ndomains = 1-40000\n", "a.conf:2: domains:");
    assert_error("[local]\ndomains = 1;2 x\n[broker]\nx", "a.conf:");
}

static void rings_and_quotas_are_whole_blocks(void **state)
{
    struct config config;

    (void)state;
    assert_error("[rebalance]\nring-default-max = 5000\n",
                 "a.conf:2: ring-default-max: \"5000\" is not allowed; it takes bytes, such as "
                 "16M, in whole blocks of 4K, at least one");
    assert_error("[rebalance]\nring-default-max = 0\n", "a.conf:2: ring-default-max: \"0\"");
    assert_error("[domain a]\nid = 1\nquota = 4095\n",
                 "a.conf:3: quota: \"4095\" is not allowed; it takes bytes, such as 64M, in whole "
                 "blocks of 4K; 0 for no limit");
    read_right(&config, "[rebalance]\nring-default-max = 12K\n[domain a]\nid = 1\nquota = 4096\n");
    assert_int_equal(config.ring_max_bytes, 12288);
    assert_int_equal(config.domains[0].quota_bytes, 4096);
    config_deinit(&config);
}

static void domains_can_be_named_before_and_after_their_sections(void **state)
{
    struct config config;

    (void)state;
    read_right(&config, "[local]\ndomains = db, 9\n"
                        "[domain web]\nid = 5\n"
                        "[zone shop]\nmembers = 1-2,web db\n"
                        "[zone other]\nmembers = db\n"
                        "[domain db]\nid = 700\n");
    assert_true(domain_set_has(&config.local_domains, 700));
    assert_true(domain_set_has(&config.local_domains, 9));
    assert_false(domain_set_has(&config.local_domains, 5));
    assert_true(domain_set_has(&config.zones[0].members, 2));
    assert_true(domain_set_has(&config.zones[0].members, 5));
    assert_true(domain_set_has(&config.zones[0].members, 700));
    assert_false(domain_set_has(&config.zones[1].members, 5));
    assert_true(domain_set_has(&config.zones[1].members, 700));
    config_deinit(&config);
}

static void names_of_no_domain_are_errors(void **state)
{
    char text[128] = "[zone a]\nmembers = ";

    (void)state;
    assert_error("[zone a]\nmembers = 1, web\n[domain db]\nid = 5\n",
                 "a.conf:2: members: there is no section [domain web]");
    assert_error("[local]\ndomains = web\n",
                 "a.conf:2: domains: there is no section [domain web]");
    assert_error("[zone a]\nmembers = we/b\n", "a.conf:2: members: \"we/b\" is not allowed; it "
                                               "takes numbers, ranges and names of domains");
    assert_error("[zone a]\nmembers = -5\n", "a.conf:2: members: there is no section");
    memset(text + strlen(text), 'x', PROTO_NAME_BYTES);
    assert_error(text, "a.conf:2: members:");
}

static void zone_without_members_is_an_error(void **state)
{
    (void)state;
    assert_error("[zone a]\nregion-size = 4M\n", "a.conf:1: members: [zone a] must have some");
    assert_error("[zone b]\nmembers = 1\n[zone a]\nmembers =\n",
                 "a.conf:3: members: [zone a] must have some");
}

static void unknown_policy_is_told_before_what_comes_after_it(void **state)
{
    (void)state;
    assert_error("[broker]\npolicy = magic\nchannels = none\n",
                 "a.conf:2: policy: \"magic\" is not allowed; it takes default");
}

static void group_that_the_host_has_not_is_an_error_with_its_line(void **state)
{
    char error[CONFIG_ERROR_BYTES] = "";
    struct config config;

    (void)state;
    read_right(&config, "[broker]\nchannels = 9\nsocket-group = no-such-group\n[local]\n");
    assert_int_equal(config_check_host(&config, "a.conf", error), -ENOENT);
    assert_string_equal(error, "a.conf:3: socket-group: there is no group \"no-such-group\"");
    config_deinit(&config);
    read_right(&config, "[broker]\nsocket-group = root\n");
    assert_int_equal(config_check_host(&config, "a.conf", error), 0);
    config_deinit(&config);
    read_right(&config, "# nothing\n");
    assert_int_equal(config_check_host(&config, "a.conf", error), 0);
    config_deinit(&config);
}

static void domain_names_that_are_numbers_or_paths_are_errors(void **state)
{
    (void)state;
    assert_error("[domain 5]\nid = 5\n", "a.conf:1: [domain NAME]: a name is needed");
    assert_error("[domain a/b]\nid = 5\n", "a.conf:1: [domain NAME]: a name is needed");
    assert_error("[domain ..]\nid = 5\n", "a.conf:1: [domain NAME]: a name is needed");
}

static void lines_that_are_nothing_are_errors(void **state)
{
    char text[400], error[CONFIG_ERROR_BYTES];
    struct config config;

    (void)state;
    assert_error("channels = 5\n", "a.conf:1: channels: it stands before the first section");
    assert_error("[broker]\nrubbish\n", "a.conf:2: this is no [section]");
    assert_error("[broker\n", "a.conf:1: this is no [section]");
    memset(text, 'x', sizeof(text));
    memcpy(text, "[broker]\nsocket-group = ", 24);
    text[sizeof(text) - 1] = 0;
    assert_error(text, "a.conf:2: the line is longer than 190 characters");
    assert_int_equal(read_text(&config, "[broker]\nchan\0nels = 1\n", 23, error), -EINVAL);
    assert_string_equal(error, "a.conf:2: there is a zero byte in it");
    config_deinit(&config);
}

static void file_that_is_not_there_is_an_error_with_its_name(void **state)
{
    char error[CONFIG_ERROR_BYTES];
    struct config config;

    (void)state;
    config_init(&config);
    assert_int_equal(config_read(&config, "/nonexistent/vchand.conf", error), -ENOENT);
    assert_string_equal(error, "/nonexistent/vchand.conf: No such file or directory");
    config_deinit(&config);
}

static void packaged_example_is_right(void **state)
{
    const char *source = getenv("VCHAN_SOURCE");
    char path[512], error[CONFIG_ERROR_BYTES];
    struct config config;

    (void)state;
    if (!source) {
        print_message("SKIP: VCHAN_SOURCE does not say where the sources are\n");
        skip();
    }
    snprintf(path, sizeof(path), "%s/packaging/vchand.conf", source);
    config_init(&config);
    if (config_read(&config, path, error) != 0)
        fail_msg("%s", error);
    config_deinit(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_serve_without_a_file),
        cmocka_unit_test(every_kind_of_value_is_read),
        cmocka_unit_test(error_names_file_line_and_key),
        cmocka_unit_test(unknown_section_is_an_error_even_without_keys),
        cmocka_unit_test(what_is_said_twice_is_an_error),
        cmocka_unit_test(metrics_are_for_this_host_only),
        cmocka_unit_test(guests_have_a_mailbox_vector_and_one_for_programs_at_least),
        cmocka_unit_test(numbers_and_sizes_out_of_range_are_errors),
        cmocka_unit_test(rings_and_quotas_are_whole_blocks),
        cmocka_unit_test(domains_can_be_named_before_and_after_their_sections),
        cmocka_unit_test(names_of_no_domain_are_errors),
        cmocka_unit_test(zone_without_members_is_an_error),
        cmocka_unit_test(unknown_policy_is_told_before_what_comes_after_it),
        cmocka_unit_test(group_that_the_host_has_not_is_an_error_with_its_line),
        cmocka_unit_test(domain_names_that_are_numbers_or_paths_are_errors),
        cmocka_unit_test(lines_that_are_nothing_are_errors),
        cmocka_unit_test(file_that_is_not_there_is_an_error_with_its_name),
        cmocka_unit_test(packaged_example_is_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

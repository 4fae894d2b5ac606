/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The protocol's rules, and how the broker starts and stops: against a real vchand. */
#include "tests/system/broker_fixture.h"

static struct broker_process broker;

static int start(void **state)
{
    (void)state;
    broker_start(&broker,
                 "[broker]\nregion-size = 16M\n[domain web]\nid = 7\n[domain machine]\nid = 700\n");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    broker_stop(&broker);
    return 0;
}

static void version_is_negotiated_down(void **state)
{
    const struct proto_get_version request = {.version = 77, .byte_order = PROTO_BYTE_ORDER};
    struct proto_message message;
    struct client client;

    (void)state;
    client_connect(&client, &broker);
    assert_int_equal(client_call(&client, PROTO_GET_VERSION, &request, sizeof(request), &message),
                     0);
    const struct proto_get_version_reply *reply = BODY_OF(&message);
    assert_int_equal(reply->version, PROTO_VERSION);
    assert_int_equal(reply->message_bytes_max, PROTO_MESSAGE_BYTES_MAX);
    client_leave(&client);
}

static void foreign_byte_order_and_version_zero_are_refused(void **state)
{
    struct proto_get_version request = {.version = PROTO_VERSION, .byte_order = 0x04030201};
    struct proto_message message;
    struct client client;

    (void)state;
    client_connect(&client, &broker);
    assert_int_equal(client_call(&client, PROTO_GET_VERSION, &request, sizeof(request), &message),
                     -EPROTONOSUPPORT);
    request = (struct proto_get_version){.version = 0, .byte_order = PROTO_BYTE_ORDER};
    assert_int_equal(client_call(&client, PROTO_GET_VERSION, &request, sizeof(request), &message),
                     -EPROTONOSUPPORT);
    client_leave(&client);
}

static void commands_before_their_place_get_eproto(void **state)
{
    const struct proto_channel_open open = open_request(2, 1, PROTO_OPEN_SERVER);
    const struct proto_get_version version = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    struct proto_message message;
    struct client client;

    (void)state;
    client_connect(&client, &broker);
    assert_int_equal(client_hello(&client, 1), -EPROTO);
    assert_int_equal(client_call(&client, PROTO_CHANNEL_OPEN, &open, sizeof(open), &message),
                     -EPROTO);
    assert_int_equal(client_call(&client, PROTO_BROKER_INFO, NULL, 0, &message), -EPROTO);
    assert_int_equal(client_version(&client), 0);
    assert_int_equal(client_call(&client, PROTO_CHANNEL_OPEN, &open, sizeof(open), &message),
                     -EPROTO);
    assert_int_equal(client_hello(&client, 1), 0);
    assert_int_equal(client_hello(&client, 1), -EPROTO);
    assert_int_equal(client_call(&client, PROTO_GET_VERSION, &version, sizeof(version), &message),
                     -EPROTO);
    client_leave(&client);
}

static void checks_are_answered_in_any_state(void **state)
{
    struct proto_check check = {.id = PROTO_CHANNEL_OPEN};
    struct proto_message message;
    struct client client;

    (void)state;
    client_connect(&client, &broker);
    assert_int_equal(client_call(&client, PROTO_CHECK_COMMAND, &check, sizeof(check), &message), 0);
    check.id = 999;
    assert_int_equal(client_call(&client, PROTO_CHECK_COMMAND, &check, sizeof(check), &message),
                     -ENOSYS);
    check.id = PROTO_DOMAIN_SET;
    assert_int_equal(client_call(&client, PROTO_CHECK_COMMAND, &check, sizeof(check), &message),
                     -EPERM);
    check.id = PROTO_EVENT_PRESSURE;
    assert_int_equal(client_call(&client, PROTO_CHECK_EVENT, &check, sizeof(check), &message), 0);
    check.id = PROTO_EVENT | 99;
    assert_int_equal(client_call(&client, PROTO_CHECK_EVENT, &check, sizeof(check), &message),
                     -ENOSYS);
    check.padding2 = 1;
    assert_int_equal(client_call(&client, PROTO_CHECK_EVENT, &check, sizeof(check), &message),
                     -EINVAL);
    client_leave(&client);
}

static void hello_tells_the_name_of_a_configured_domain(void **state)
{
    const struct proto_hello request = {.domain = 7};
    struct proto_message message;
    struct client client;

    (void)state;
    client_connect(&client, &broker);
    assert_int_equal(client_version(&client), 0);
    assert_int_equal(client_call(&client, PROTO_HELLO, &request, sizeof(request), &message), 0);
    const struct proto_hello_reply *reply = BODY_OF(&message);
    assert_int_equal(reply->domain, 7);
    assert_string_equal(reply->name, "web");
    client_leave(&client);
}

static void hello_as_an_unknown_or_stopped_domain_is_refused(void **state)
{
    struct client client;

    (void)state;
    client_connect(&client, &broker);
    assert_int_equal(client_version(&client), 0);
    assert_int_equal(client_hello(&client, 999), -ENOENT);
    assert_explained(&client, "there is no domain 999");
    assert_int_equal(client_hello(&client, 700), -EHOSTDOWN);
    assert_int_equal(client_hello(&client, PROTO_DOMAIN_MAX + 1), -EINVAL);
    assert_int_equal(client_hello(&client, 1), 0);
    client_leave(&client);
}

static void unknown_commands_get_enosys_and_forbidden_ones_eperm(void **state)
{
    const struct proto_domain_set set = {.domain = 1, .quota_bytes = 4096};
    const struct proto_list list = {.channel = PROTO_ANY};
    struct proto_message message;
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    assert_int_equal(client_call(&client, 200, NULL, 0, &message), -ENOSYS);
    assert_int_equal(client_call(&client, PROTO_DOMAIN_SET, &set, sizeof(set), &message), -EPERM);
    assert_int_equal(client_call(&client, PROTO_LIST_EXTENTS, &list, sizeof(list), &message),
                     -EPERM);
    assert_explained(&client, "LIST_EXTENTS");
    client_leave(&client);
}

static void wrong_sizes_and_padding_get_einval(void **state)
{
    struct proto_channel_open open = open_request(2, 1, PROTO_OPEN_SERVER);
    struct proto_message message;
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    assert_int_equal(client_call(&client, PROTO_CHANNEL_OPEN, &open, sizeof(open) - 1, &message),
                     -EINVAL);
    assert_int_equal(client_call(&client, PROTO_CHANNEL_OPEN, NULL, 0, &message), -EINVAL);
    open.padding = 1;
    assert_int_equal(client_call(&client, PROTO_CHANNEL_OPEN, &open, sizeof(open), &message),
                     -EINVAL);
    open = open_request(2, 1, 9);
    assert_int_equal(client_call(&client, PROTO_CHANNEL_OPEN, &open, sizeof(open), &message),
                     -EINVAL);
    open = open_request(2, 0x80000000u, PROTO_OPEN_SERVER);
    assert_int_equal(client_call(&client, PROTO_CHANNEL_OPEN, &open, sizeof(open), &message),
                     -EINVAL);
    assert_int_equal(client_call(&client, PROTO_EXPLAIN, &open, 8, &message), -EINVAL);
    client_leave(&client);
}

static void descriptors_in_a_request_are_refused_and_closed(void **state)
{
    struct proto_message message;
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    const unsigned before = count_descriptors(broker.pid);
    for (int i = 0; i < 10; i++) {
        const int sent[] = {client.socket, client.socket, client.socket};
        assert_int_equal(
            proto_send(client.socket, PROTO_EXPLAIN, ++client.seq, NULL, 0, NULL, 0, sent, 3), 0);
        assert_int_equal(client_receive(&client, &message), 1);
        assert_int_equal(reply_error(&message), -EINVAL);
    }
    assert_int_equal(count_descriptors(broker.pid), before);
    client_leave(&client);
}

/* The broker closes this connection, says why, and serves the next one. */
static void assert_thrown_out(struct client *client, const char *reason)
{
    struct proto_message message;
    struct client other;
    int r;

    while ((r = client_receive(client, &message)) == 1)
        proto_message_close(&message);
    assert_int_equal(r, 0);
    client_leave(client);
    client_join(&other, &broker, 1);
    client_leave(&other);
    if (!log_has(&broker, reason))
        fail_msg("the log does not say \"%s\"", reason);
}

static void oversized_message_closes_the_connection(void **state)
{
    static uint8_t bytes[PROTO_MESSAGE_BYTES_MAX + 1000];
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    assert_int_equal(send(client.socket, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_thrown_out(&client, "over the size limit");
}

static void message_that_belies_its_header_closes_the_connection(void **state)
{
    const struct proto_header header = {.id = PROTO_EXPLAIN, .size = 100, .seq = 3};
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    assert_int_equal(send(client.socket, &header, sizeof(header), 0), sizeof(header));
    assert_thrown_out(&client, "not what its header says");
    client_join(&client, &broker, 1);
    assert_int_equal(send(client.socket, "abc", 3, 0), 3);
    assert_thrown_out(&client, "not what its header says");
}

static void message_out_of_sequence_closes_the_connection(void **state)
{
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    client.seq++;
    client_send(&client, PROTO_EXPLAIN, NULL, 0);
    assert_thrown_out(&client, "out of sequence");
}

static void malformed_event_closes_the_connection(void **state)
{
    const struct proto_event_ring event = {.ring = 9};
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    assert_int_equal(
        proto_send(client.socket, PROTO_EVENT_PRESSURE, 0, &event, sizeof(event), NULL, 0, NULL, 0),
        0);
    assert_thrown_out(&client, "malformed event");
}

static void unknown_event_and_event_without_a_channel_are_ignored(void **state)
{
    const struct proto_event_ring event = {.ring = 1};
    const struct proto_event_broken broken = {.ring = 1, .reason = -EPROTO, .text = "nothing"};
    struct proto_message message;
    struct client client;

    (void)state;
    client_join(&client, &broker, 1);
    assert_int_equal(proto_send(client.socket, PROTO_EVENT | 77, 0, NULL, 0, NULL, 0, NULL, 0), 0);
    assert_int_equal(proto_send(client.socket, PROTO_EVENT_DOORBELLS, 0, &event, sizeof(event),
                                NULL, 0, NULL, 0),
                     0);
    assert_int_equal(
        proto_send(client.socket, PROTO_EVENT_BROKEN, 0, &broken, sizeof(broken), NULL, 0, NULL, 0),
        0);
    assert_int_equal(client_call(&client, PROTO_EXPLAIN, NULL, 0, &message), 0);
    client_leave(&client);
}

static void client_that_does_not_read_its_replies_is_thrown_out(void **state)
{
    const struct proto_list list = {.channel = PROTO_ANY};
    struct client client;
    int r = 0;

    (void)state;
    client_join(&client, &broker, 0);
    for (int i = 0; i < 100000 && r == 0; i++)
        r = proto_send(client.socket, PROTO_EXPLAIN, ++client.seq, NULL, 0, NULL, 0, NULL, 0);
    assert_true(r == -EPIPE || r == -ECONNRESET);
    assert_thrown_out(&client, "does not read its replies");
    client_join(&client, &broker, 0);
    for (int i = r = 0; i < 100000 && r == 0; i++)
        r = proto_send(client.socket, PROTO_LIST_DOMAINS, ++client.seq, &list, sizeof(list), NULL,
                       0, NULL, 0);
    assert_true(r == -EPIPE || r == -ECONNRESET);
    client_leave(&client);
    client_join(&client, &broker, 0);
    client_leave(&client);
}

static void second_broker_is_refused_and_told_who_is_there(void **state)
{
    char who[64];

    (void)state;
    assert_int_equal(wait_exit(broker_spawn(&broker, NULL)), 1);
    snprintf(who, sizeof(who), "another vchand serves this directory already: pid %d",
             (int)broker.pid);
    assert_true(log_has(&broker, who));
    struct client client; /* and the first one goes on */
    client_join(&client, &broker, 1);
    client_leave(&client);
}

static void stale_socket_is_replaced_after_a_kill(void **state)
{
    struct broker_process other;
    struct client client;

    (void)state;
    broker_start(&other, NULL);
    kill(other.pid, SIGKILL);
    assert_int_equal(wait_exit(other.pid), -SIGKILL);
    other.pid = broker_spawn(&other, NULL);
    for (int waited_ms = 0; raw_connect(&other) < 0 && waited_ms < PATIENCE_MS; waited_ms += 10)
        pause_ms(10);
    client_join(&client, &other, 1);
    client_leave(&client);
    broker_stop(&other);
}

static void socket_has_the_configured_mode_and_goes_at_the_end(void **state)
{
    struct broker_process other;
    struct stat status;
    char path[128];

    (void)state;
    broker_start(&other, "[broker]\nsocket-mode = 0600\n");
    path_in(&other, "vchand.sock", path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    kill(other.pid, SIGTERM);
    assert_int_equal(wait_exit(other.pid), 0);
    assert_int_equal(access(path, F_OK), -1);
    remove_directory(other.directory);
}

static void wrong_configuration_ends_with_file_line_and_key(void **state)
{
    struct broker_process other;

    (void)state;
    snprintf(other.directory, sizeof(other.directory), "/tmp/vchan-test-XXXXXX");
    assert_non_null(mkdtemp(other.directory));
    assert_int_equal(wait_exit(broker_spawn(&other, "[broker]\n\nchanels = 5\n")), 2);
    assert_true(log_has(&other, "vchand.conf:3: chanels: there is no such key in [broker]"));
    remove_directory(other.directory);
}

static void reload_changes_names_and_quotas_and_survives_rubbish(void **state)
{
    const struct proto_hello hello = {.domain = 9};
    struct broker_process other;
    struct proto_message message;
    struct client client;
    char path[128];

    (void)state;
    broker_start(&other, "[domain old]\nid = 9\nquota = 8K\n");
    path_in(&other, "vchand.conf", path);
    write_file(path, "[domain new]\nid = 9\n");
    kill(other.pid, SIGHUP);
    for (int waited_ms = 0; !log_has(&other, "read again") && waited_ms < PATIENCE_MS;
         waited_ms += 10)
        pause_ms(10);
    client_connect(&client, &other);
    assert_int_equal(client_version(&client), 0);
    assert_int_equal(client_call(&client, PROTO_HELLO, &hello, sizeof(hello), &message), 0);
    assert_string_equal(((const struct proto_hello_reply *)BODY_OF(&message))->name, "new");
    write_file(path, "rubbish\n");
    kill(other.pid, SIGHUP);
    for (int waited_ms = 0; !log_has(&other, "going on as before") && waited_ms < PATIENCE_MS;
         waited_ms += 10)
        pause_ms(10);
    assert_int_equal(client_call(&client, PROTO_EXPLAIN, NULL, 0, &message), 0);
    client_leave(&client);
    broker_stop(&other);
}

static void connections_beyond_the_limit_are_turned_away(void **state)
{
    struct broker_process other;
    struct client clients[4];
    struct proto_message message;

    (void)state;
    broker_start(&other, "[broker]\nconnections = 3\n");
    pause_ms(50); /* until it has seen the fixture's own connection go */
    for (int i = 0; i < 3; i++)
        client_join(&clients[i], &other, 1);
    client_connect(&clients[3], &other);
    assert_int_equal(client_receive(&clients[3], &message), 0);
    client_leave(&clients[3]);
    client_leave(&clients[0]);
    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += 10) {
        client_connect(&clients[3], &other);
        if (!client_is_quiet(&clients[3], 20)) {
            client_leave(&clients[3]);
            continue;
        }
        break;
    }
    assert_int_equal(client_version(&clients[3]), 0);
    for (int i = 1; i < 4; i++)
        client_leave(&clients[i]);
    broker_stop(&other);
}

/* A socket of the service manager's, bound to a name in the broker's directory. */
static int service_socket(const struct broker_process *other, const char *name, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", other->directory, name);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void assert_notified(int notified, const char *words)
{
    struct pollfd readable = {.fd = notified, .events = POLLIN};
    char text[512];

    do {
        assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
        ssize_t n = recv(notified, text, sizeof(text) - 1, 0);
        assert_true(n >= 0);
        text[n] = 0;
    } while (!strstr(text, words));
}

static void socket_activation_watchdog_and_notices_work_in_the_sandbox(void **state)
{
    struct broker_process other;
    struct client client;
    char number[16], path[128];

    (void)state;
    snprintf(other.directory, sizeof(other.directory), "/tmp/vchan-test-XXXXXX");
    assert_non_null(mkdtemp(other.directory));
    int notified = service_socket(&other, "notify", SOCK_DGRAM);
    int listening = service_socket(&other, "vchand.sock", SOCK_SEQPACKET);
    assert_int_equal(listen(listening, 10), 0);
    write_config(&other, NULL);
    path_in(&other, "notify", path);
    other.pid = fork();
    if (other.pid == 0) {
        snprintf(number, sizeof(number), "%d", (int)getpid());
        setenv("LISTEN_PID", number, 1);
        setenv("LISTEN_FDS", "1", 1);
        setenv("NOTIFY_SOCKET", path, 1);
        setenv("WATCHDOG_PID", number, 1);
        setenv("WATCHDOG_USEC", "200000", 1);
        dup2(listening, 3);
        broker_exec(&other);
    }
    assert_notified(notified, "READY=1");
    assert_notified(notified, "WATCHDOG=1");
    client_join(&client, &other, 1);
    kill(other.pid, SIGHUP);
    assert_notified(notified, "RELOADING=1");
    assert_notified(notified, "READY=1");
    kill(other.pid, SIGTERM);
    assert_notified(notified, "STOPPING=1");
    assert_int_equal(wait_exit(other.pid), 0);
    path_in(&other, "vchand.sock", path);
    assert_int_equal(access(path, F_OK), 0); /* it is the service manager's */
    client_leave(&client);
    close(notified);
    close(listening);
    remove_directory(other.directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_is_negotiated_down),
        cmocka_unit_test(foreign_byte_order_and_version_zero_are_refused),
        cmocka_unit_test(commands_before_their_place_get_eproto),
        cmocka_unit_test(checks_are_answered_in_any_state),
        cmocka_unit_test(hello_tells_the_name_of_a_configured_domain),
        cmocka_unit_test(hello_as_an_unknown_or_stopped_domain_is_refused),
        cmocka_unit_test(unknown_commands_get_enosys_and_forbidden_ones_eperm),
        cmocka_unit_test(wrong_sizes_and_padding_get_einval),
        cmocka_unit_test(descriptors_in_a_request_are_refused_and_closed),
        cmocka_unit_test(oversized_message_closes_the_connection),
        cmocka_unit_test(message_that_belies_its_header_closes_the_connection),
        cmocka_unit_test(message_out_of_sequence_closes_the_connection),
        cmocka_unit_test(malformed_event_closes_the_connection),
        cmocka_unit_test(unknown_event_and_event_without_a_channel_are_ignored),
        cmocka_unit_test(client_that_does_not_read_its_replies_is_thrown_out),
        cmocka_unit_test(second_broker_is_refused_and_told_who_is_there),
        cmocka_unit_test(stale_socket_is_replaced_after_a_kill),
        cmocka_unit_test(socket_has_the_configured_mode_and_goes_at_the_end),
        cmocka_unit_test(wrong_configuration_ends_with_file_line_and_key),
        cmocka_unit_test(reload_changes_names_and_quotas_and_survives_rubbish),
        cmocka_unit_test(connections_beyond_the_limit_are_turned_away),
        cmocka_unit_test(socket_activation_watchdog_and_notices_work_in_the_sandbox),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}

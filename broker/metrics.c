/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The only file that knows libmicrohttpd. */
#include "broker/metrics.h"

#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/metrics_sample.h"
#include "broker/metrics_socket.h"
#include "broker/metrics_text.h"
#include "ring/order.h"

#define PATH "/metrics"
/* What a request may be long. */
#define REQUEST_BYTES_MAX 8192u
#define LISTENERS 2u

/* So many times at once the thread comes round without a millisecond between, then it rests. */
#define ROUNDS_AT_ONCE 50u
#define REST_MS 50

/* One who asks. */
struct visitor {
    int descriptor;
    uint64_t came_ns; /* 0: nobody has this place */
    bool sent_away;
};

struct metrics {
    const struct broker *broker;
    char path[CONFIG_PATH_BYTES]; /* of the Unix socket; "": there is none */
    int event_fd;                 /* rung to stop */
    uint32_t stop;                /* plain */
    pthread_t thread;
    struct MHD_Daemon *daemons[LISTENERS]; /* NULL: not served */
    /* The thread's. */
    struct visitor visitors[LISTENERS * METRICS_CONNECTIONS_MAX];
    bool left;                   /* a visitor has, since MHD_run was called */
    struct MHD_Response *answer; /* the last one; NULL: none */
    uint64_t answer_ns;          /* when it was made */
    struct MHD_Response *not_found, *not_allowed;
};

static struct MHD_Response *plain_response(const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);

    if (response) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    }
    return response;
}

static struct MHD_Response *make_answer(const struct metrics *metrics)
{
    struct MHD_Response *response = NULL;
    struct metrics_sample sample;
    char *text;
    size_t bytes;

    if (metrics_sample_take(metrics->broker, &sample) < 0)
        return NULL;
    if (metrics_render(&sample, &text, &bytes) == 0) {
        response = MHD_create_response_from_buffer(bytes, text, MHD_RESPMEM_MUST_FREE);
        if (!response)
            free(text);
    }
    metrics_sample_free(&sample);
    if (!response)
        return NULL;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, METRICS_CONTENT_TYPE);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    return response;
}

/* The last answer while it is fresh, else a new one. NULL: out of memory. */
static struct MHD_Response *fresh_answer(struct metrics *metrics)
{
    const uint64_t now_ns = broker_now_ns();

    if (metrics->answer && now_ns - metrics->answer_ns < METRICS_FRESH_MS * 1000000ull)
        return metrics->answer;
    if (metrics->answer)
        MHD_destroy_response(metrics->answer); /* who still gets it has a reference */
    metrics->answer = make_answer(metrics);
    metrics->answer_ns = now_ns;
    return metrics->answer;
}

/* The headers are there. The answer is given at once: a body is nothing we would wait for. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *body,
                                  size_t *body_bytes, void **request)
{
    struct metrics *metrics = context;
    struct MHD_Response *response;
    unsigned status = MHD_HTTP_OK;

    (void)version;
    (void)body;
    (void)body_bytes;
    (void)request;
    if (strcmp(url, PATH) != 0) {
        status = MHD_HTTP_NOT_FOUND;
        response = metrics->not_found;
    } else if (strcmp(method, MHD_HTTP_METHOD_GET) != 0) {
        status = MHD_HTTP_METHOD_NOT_ALLOWED;
        response = metrics->not_allowed;
    } else {
        response = fresh_answer(metrics);
    }
    return response ? MHD_queue_response(connection, status, response) : MHD_NO;
}

static int descriptor_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    return info ? info->connect_fd : -1;
}

/* Somebody comes or goes. There is a place for each that libmicrohttpd lets in. */
static void on_visitor(void *context, struct MHD_Connection *connection, void **place,
                       enum MHD_ConnectionNotificationCode code)
{
    struct metrics *metrics = context;

    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*place)
            *(struct visitor *)*place = (struct visitor){0};
        metrics->left = true;
        return;
    }
    for (size_t i = 0; i < sizeof(metrics->visitors) / sizeof(metrics->visitors[0]); i++) {
        struct visitor *visitor = &metrics->visitors[i];
        if (visitor->came_ns != 0)
            continue;
        *visitor =
            (struct visitor){.descriptor = descriptor_of(connection), .came_ns = broker_now_ns()};
        *place = visitor;
        return;
    }
}

/* Who keeps its connection alive byte by byte is sent away too. Returns ms to the next, -1: none.
 */
static int send_old_away(struct metrics *metrics)
{
    const uint64_t now_ns = broker_now_ns();
    int wait_ms = -1;

    for (size_t i = 0; i < sizeof(metrics->visitors) / sizeof(metrics->visitors[0]); i++) {
        struct visitor *visitor = &metrics->visitors[i];
        const uint64_t age_ms = (now_ns - visitor->came_ns) / 1000000u;
        if (visitor->came_ns == 0 || visitor->sent_away)
            continue;
        if (age_ms >= METRICS_CONNECTION_MS) {
            shutdown(visitor->descriptor, SHUT_RDWR);
            visitor->sent_away = true;
        } else if (wait_ms < 0 || (int)(METRICS_CONNECTION_MS - age_ms) < wait_ms) {
            wait_ms = (int)(METRICS_CONNECTION_MS - age_ms);
        }
    }
    return wait_ms;
}

static int earlier(int a_ms, int b_ms)
{
    return a_ms < 0 ? b_ms : b_ms < 0 || a_ms < b_ms ? a_ms : b_ms;
}

static int poll_timeout_ms(struct metrics *metrics)
{
    int wait_ms = send_old_away(metrics);

    for (size_t i = 0; i < LISTENERS; i++) {
        MHD_UNSIGNED_LONG_LONG daemon_ms;
        if (metrics->daemons[i] && MHD_get_timeout(metrics->daemons[i], &daemon_ms) == MHD_YES)
            wait_ms = earlier(wait_ms, daemon_ms > 60000 ? 60000 : (int)daemon_ms);
    }
    return wait_ms;
}

/* Where all places were taken libmicrohttpd has stopped listening. It begins again when it is next
 * called after somebody has left, and would not be: nothing happens on a socket it does not watch.
 */
static void serve_once(struct metrics *metrics, struct MHD_Daemon *daemon)
{
    do {
        metrics->left = false;
        MHD_run(daemon);
    } while (metrics->left);
}

/* A visitor for whom there is no descriptor cannot be let in, nor be sent away: its socket stays
 * ready, and the thread would go round and round. */
static void rest_if_busy(struct metrics *metrics, uint64_t *last_ns, unsigned *rounds)
{
    struct pollfd stop = {.fd = metrics->event_fd, .events = POLLIN};
    const uint64_t now_ns = broker_now_ns();

    *rounds = now_ns - *last_ns < 1000000u ? *rounds + 1 : 0;
    *last_ns = now_ns;
    if (*rounds > ROUNDS_AT_ONCE)
        poll(&stop, 1, REST_MS);
}

static void *run(void *context)
{
    struct metrics *metrics = context;
    uint64_t last_ns = 0;
    unsigned rounds = 0;
    struct pollfd waits[1 + LISTENERS] = {{.fd = metrics->event_fd, .events = POLLIN}};

    rcu_register_thread();
    for (size_t i = 0; i < LISTENERS; i++) {
        const union MHD_DaemonInfo *info =
            metrics->daemons[i] ? MHD_get_daemon_info(metrics->daemons[i], MHD_DAEMON_INFO_EPOLL_FD)
                                : NULL;
        waits[1 + i] = (struct pollfd){.fd = info ? info->epoll_fd : -1, .events = POLLIN};
    }
    while (!order_load_plain(&metrics->stop)) {
        rest_if_busy(metrics, &last_ns, &rounds);
        poll(waits, 1 + LISTENERS, poll_timeout_ms(metrics));
        for (size_t i = 0; i < LISTENERS; i++)
            if (metrics->daemons[i])
                serve_once(metrics, metrics->daemons[i]);
    }
    rcu_unregister_thread();
    return NULL;
}

/* Takes the descriptor over. NULL: it is closed. */
static struct MHD_Daemon *serve(struct metrics *metrics, int descriptor)
{
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, metrics, MHD_OPTION_LISTEN_SOCKET, descriptor,
        MHD_OPTION_CONNECTION_LIMIT, METRICS_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        METRICS_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES_MAX,
        MHD_OPTION_NOTIFY_CONNECTION, on_visitor, metrics, MHD_OPTION_END);

    if (!daemon) {
        log_warning(&metrics->broker->log, "no metrics: libmicrohttpd does not start");
        close(descriptor);
    }
    return daemon;
}

static void open_sockets(struct metrics *metrics)
{
    const struct broker *broker = metrics->broker;
    const struct config *config = &broker->config;
    int descriptor = -1;

    if (metrics_socket_path(config, broker->listener.descriptor, &broker->log, metrics->path) == 0)
        descriptor = metrics_socket_unix(config, &broker->log, metrics->path);
    if (descriptor < 0)
        metrics->path[0] = '\0';
    else
        metrics->daemons[0] = serve(metrics, descriptor);
    if (*config->metrics_http) {
        descriptor = metrics_socket_loopback(config->metrics_http, &broker->log);
        if (descriptor >= 0)
            metrics->daemons[1] = serve(metrics, descriptor);
    }
    if (metrics->daemons[0])
        log_info(&broker->log, "metrics: %s", metrics->path);
    if (metrics->daemons[1])
        log_info(&broker->log, "metrics: http://%s" PATH, config->metrics_http);
}

static void destroy(struct metrics *metrics)
{
    for (size_t i = 0; i < LISTENERS; i++)
        if (metrics->daemons[i])
            MHD_stop_daemon(metrics->daemons[i]); /* and closes its socket */
    if (metrics->answer)
        MHD_destroy_response(metrics->answer);
    if (metrics->not_found)
        MHD_destroy_response(metrics->not_found);
    if (metrics->not_allowed)
        MHD_destroy_response(metrics->not_allowed);
    if (metrics->path[0])
        unlink(metrics->path);
    if (metrics->event_fd >= 0)
        close(metrics->event_fd);
    free(metrics);
}

int metrics_new(const struct broker *broker, struct metrics **out)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));

    *out = NULL;
    if (!metrics)
        return -ENOMEM;
    metrics->broker = broker;
    metrics->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    metrics->not_found = plain_response("Try " PATH ".\n");
    metrics->not_allowed = plain_response("GET it.\n");
    int r = metrics->event_fd < 0                        ? -errno
            : metrics->not_found && metrics->not_allowed ? 0
                                                         : -ENOMEM;
    if (r == 0) {
        MHD_add_response_header(metrics->not_allowed, MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET);
        open_sockets(metrics);
        if (metrics->daemons[0] || metrics->daemons[1])
            r = -pthread_create(&metrics->thread, NULL, run, metrics);
    }
    if (r < 0 || (!metrics->daemons[0] && !metrics->daemons[1])) {
        destroy(metrics);
        return r;
    }
    pthread_setname_np(metrics->thread, "metrics");
    *out = metrics;
    return 0;
}

void metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    order_store_plain(&metrics->stop, 1);
    eventfd_write(metrics->event_fd, 1);
    pthread_join(metrics->thread, NULL);
    destroy(metrics);
}

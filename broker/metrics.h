/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/metrics.h - OpenMetrics over HTTP, for Prometheus and others: GET /metrics on a Unix
 * socket and, if configured, on a loopback address.
 *
 * A thread of its own serves them and reads what it tells under RCU (broker/metrics_sample.h); the
 * event loop takes no part. Whoever asks is not trusted: so many connections at once, each for one
 * answer and for so long; what one request costs is shared by all that come within
 * METRICS_FRESH_MS.
 */
#ifndef VCHAN_BROKER_METRICS_H
#define VCHAN_BROKER_METRICS_H

struct broker;
struct metrics;

/* At once, on each of the two sockets. */
#define METRICS_CONNECTIONS_MAX 16u
/* Without a byte going either way; and in all. */
#define METRICS_IDLE_S 5u
#define METRICS_CONNECTION_MS 20000u
/* An answer is given again for so long. */
#define METRICS_FRESH_MS 250u

/*
 * Makes the sockets that the configuration asks for and starts the thread: before the sandbox. The
 * broker's tables must outlive it. A socket that cannot be made is logged, and the broker does
 * without. *out: NULL where none is wanted or could be made. 0, -ENOMEM, or the errno of what the
 * thread needs.
 */
int metrics_new(const struct broker *broker, struct metrics **out);

/* Stops the thread, removes the socket. NULL is ignored. */
void metrics_free(struct metrics *metrics);

#endif

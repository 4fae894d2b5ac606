/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/liaison.h - vchan-libvirt: between a broker and a hypervisor, either of which may
 * go and come back.
 *
 * The main thread speaks with the broker and keeps what is known of each domain; the follower's
 * thread (follower.h) and the jobs' (jobs.h) speak with libvirt.
 */
#ifndef VCHAN_BROKER_LIBVIRT_LIAISON_H
#define VCHAN_BROKER_LIBVIRT_LIAISON_H

/* Runs until SIGTERM or SIGINT: 0, or -errno of what cannot be set up (said on standard error).
 * socket_path: NULL for the default. */
int liaison_run(const char *uri, const char *socket_path);

#endif

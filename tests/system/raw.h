/* SPDX-License-Identifier: Apache-2.0 */
/* A client without the library: the bare protocol, as hostile tests speak it. Every wait is bounded; what must not fail ends the test by CHECK(). */
#pragma once

#include <linux/userfaultfd.h>

#include "harness.h"

/* One handle. -1: that descriptor is not there. */
struct raw {
	int sock, uffd, control, memfd;
	struct pgc_open_reply reply;
	uint8_t *map;
	size_t map_len;
};

int raw_socket(void);                                              /* connected; nothing said yet */
/* Any bytes with any number of descriptors. -errno. */
int send_bytes(int sock, const void *bytes, size_t n, const int *fds, unsigned n_fds);
void send_msg(int sock, const struct pgc_msg *m, const int *fds, unsigned n_fds);
/* One message; false: the daemon hung up. Nothing at all is a failure. */
bool recv_msg(int sock, struct pgc_msg *m, int fds[3]);
struct pgc_msg hello(uint32_t role);
void raw_hello(struct raw *r, uint32_t role);
int raw_uffd(int flags);                                           /* for faults in user mode only */
void raw_close(struct raw *r);
/* Sends OPEN for a local path (descriptor `fd`) or for a URI. */
void raw_send_open(struct raw *r, int fd, const char *uri, uint32_t flags);
void raw_finish_open(struct raw *r);
void raw_open(struct raw *r, const char *name, int flags);
/* A request and its reply: the status, or -1 when the daemon hung up. */
int raw_call(struct raw *r, struct pgc_msg *m, const int *fds, unsigned n_fds);
#define MODES_SHARED (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP)
int raw_register(int uffd, void *addr, size_t len, uint64_t mode); /* -errno */
void raw_mmap(struct raw *r, size_t pages);                        /* the memfd, unknown to the daemon */
struct pgc_msg map_msg(const void *addr, size_t len, uint64_t off);
void raw_map(struct raw *r, size_t pages);
/* The daemon ends the connection; a reply before that must be an error. */
void expect_hangup(struct raw *r);
void expect_refused(int status);                                   /* an error, or the end of the connection */
int sealed_memfd(size_t size, int seals);

/* SPDX-License-Identifier: Apache-2.0 */
/* One blocking control connection to the daemon; to the next one, when it dies and another has its socket. */
#pragma once

#include "pagecached/wire.h"

struct ctl_conn {
	int fd;
	const char *path;              /* of the socket it is connected to, or that was tried last; borrowed or `found` */
	char found[108];
	struct pgc_hello_reply hello;
};

/*
 * Connects and says HELLO. `path` NULL: $PAGECACHED_SOCKET, else /run/pagecached/socket, else
 * $XDG_RUNTIME_DIR/pagecached/socket. Returns 0 or a negative errno: those of connect(2) when nobody listens there (c->path
 * says where), -EPROTO when the two sides speak different versions, -ECONNRESET when the daemon hung up.
 */
int ctl_connect(struct ctl_conn *c, const char *path);
void ctl_disconnect(struct ctl_conn *c);

/* Sends a request and waits, for as long as it takes, for its reply, which replaces it. Returns 0 or a negative errno:
 * what the daemon answered, -ECONNRESET when it hung up, -EBADMSG when the answer is no answer. */
int ctl_request(struct ctl_conn *c, struct pgc_msg *msg);

/* Sends a request for a list and calls `entry` for each reply that has one; a non-zero return of it ends the list and is returned. */
int ctl_list(struct ctl_conn *c, uint32_t type, int (*entry)(void *arg, const struct pgc_msg *reply), void *arg);
/* PGC_CTL_CHECK, whose last reply is passed on as well. */
int ctl_list_check(struct ctl_conn *c, const struct pgc_ctl_check *check, int (*entry)(void *arg, const struct pgc_msg *reply), void *arg);

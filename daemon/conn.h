/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over a connection, without blocking: the shape of wire.h, checked. Any thread. */
#pragma once

#include <stdbool.h>

#include "daemon/ring.h"

#include "pagecached/wire.h"

/*
 * Closes a descriptor that a client passed. Closing may wait for the client (FUSE flushes), so the ring does it; `ring` NULL: here and now.
 */
void conn_close_fd(struct ring *ring, int fd);

/*
 * One message. Returns 1, 0 at the end of the connection, -EAGAIN when none is there, -EPROTO for a wrong size or wrong descriptors
 * (*ret_reason says what; descriptors are closed, by `ring`), -EMFILE when its descriptors found no place here (they are closed; *ret has the message,
 * which can be refused), or another errno. fds: PGC_FDS_MAX of them, -1 where there is none.
 */
int conn_receive(struct ring *ring, int sock, struct pgc_msg *ret, int *ret_fds, unsigned *ret_n_fds, const char **ret_reason);
/* -EAGAIN: the peer does not read its replies. Descriptors stay the caller's. */
int conn_send(int sock, const struct pgc_msg *msg, const int *fds, unsigned n_fds);
/* The answer to `request`, filled but for its body. */
void conn_reply_init(struct pgc_msg *reply, const struct pgc_msg *request, int error);
/* Are all bytes of the body from `used` on zero? */
bool conn_body_is_clean(const struct pgc_msg *msg, size_t used);

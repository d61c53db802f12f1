/* SPDX-License-Identifier: Apache-2.0 */
/* Messages and descriptors of clients out of an input: mostly as they should be. */
#pragma once

#include "tests/fuzz/client.h"

#define MESSAGE_FDS 6u

/* A number that says something to the daemon: small, of whole pages, at a limit, in what `c` has mapped; or any. */
uint64_t take_u64(struct input *in, const struct client *c);
/* One that a client may send, to be closed; -1: it could not be made. */
int take_descriptor(struct input *in, struct client *c);
/* Up to MESSAGE_FDS. */
void take_descriptors(struct input *in, struct client *c, int *fds, unsigned *n);
/* A request of a handle or a control connection, with what descriptors belong to it, or others. `all`: clients whose files a control request may name. */
void take_request(struct input *in, struct client *c, const struct client *all, unsigned n_all, struct pgc_msg *ret, int *fds, unsigned *ret_n_fds);
/* The last touches, which make most of it wrong, by the bits of `how`: 1 a tag, 2 a status, 4 a byte. */
void message_spoil(struct input *in, struct client *c, uint8_t how, struct pgc_msg *m);
/* Memory that is allocated is the machine's: less of it. */
void message_bound(struct pgc_msg *m);

/* SPDX-License-Identifier: Apache-2.0 */
/* A client's requests on its handle. Runs on the worker. */
#pragma once

#include "daemon/handle.h"

/* Takes one message; its descriptors stay the caller's. NULL, or what is wrong with it: the connection has to end. */
const char *request_begin(struct handle *h, const struct pgc_msg *msg, const int *fds, unsigned n_fds);
/* What is wrong with a message, or NULL. */
const char *request_check(const struct handle *h, const struct pgc_msg *m, unsigned n_fds);
/* Answers it with an error, without beginning it. */
void request_refuse(struct handle *h, const struct pgc_msg *msg, int error);
/* The handle ends: what waits is forgotten, what runs ends without a reply. */
void request_abandon_all(struct handle *h);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a worker's descriptors is kept for the next daemon (fdstore.h), in order: a removal that could not be sent yet goes before whatever is added
 * later, and a slot, whose number is in the names, is not given to another before it is gone. Runs on the worker.
 */
#pragma once

#include "daemon/fdstore.h"
#include "daemon/worker.h"

/* As fdstore_add(); 0 also where nobody keeps any. */
int kept_add(struct worker *w, const char *name, const int *fds, unsigned n);
/* `pool`: `slot` is given back to it when that is done; NULL: no slot. */
void kept_remove(struct worker *w, const char *name, unsigned n, struct slot_pool *pool, uint32_t slot);
/* At the end of the worker: sends what is left, or lets it be. */
void kept_flush(struct worker *w);
void kept_init(struct worker *w);

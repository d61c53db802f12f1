/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that clients have locked with mlock(2): no event tells of it, and punching a page takes it out of a locked mapping, too. While a worker
 * reclaims, the kernel is asked once a second which parts of its files are locked; those are kept as if they were pinned, and read in again.
 */
#pragma once

#include "daemon/worker.h"

/* Looks, if it is time to. Called in every round. */
void locked_look(struct worker *w);
void locked_init(struct worker *w);

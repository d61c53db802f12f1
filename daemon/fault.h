/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answering page faults. The way of one: a message of a space's userfaultfd -> the segment it falls in -> the
 * file's page -> its block -> (a fill, if it is not resident) -> CONTINUE or un-protect. Runs on the file's worker.
 */
#pragma once

#include "daemon/space.h"

/* Sets the hooks of fill and writeback. Once, before workers start. */
void fault_init(void);
/* Begins to listen to a space, whose userfaultfd is configured. */
void fault_watch(struct space *s);
/* Ends that and closes the space. Faults that wait are forgotten: the client's own userfaultfd keeps them waiting. */
void fault_unwatch(struct space *s);
/* Reads what waits now, so that the space's table is up to date; faults are answered later. False: a lane is at work there, once more a little later. */
bool fault_drain_events(struct space *s);
/*
 * Maps what is resident of [addr, addr + len), without a fault; `write`: writable, counted dirty. Stops at what is not resident.
 * Returns the bytes done or a negative errno (-EAGAIN: an event waits; -ENOENT: not mapped).
 */
int64_t fault_populate(struct space *s, uint64_t addr, uint64_t len, bool write);

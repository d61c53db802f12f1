/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that come back by themselves, because nobody kept their descriptors: ATTACH. And what of a dead daemon's state waits for them. Runs on the worker.
 */
#pragma once

#include "daemon/handle.h"

/* A record of the dead daemon whose descriptors have not come: a file's, or a handle's. It waits for its client as long as that lives. -ENOMEM. */
void attach_await_file(struct worker *w, uint32_t slot);
void attach_await_handle(struct worker *w, uint32_t slot);
/* Nobody will come for that record, or nobody can: it goes, with what is kept for it. */
void attach_drop_handle(struct worker *w, uint32_t slot);
/* An ATTACH that the main thread has looked at. */
void attach_open(struct open_job *job);
/* Does an open have to wait for a client to bring the cache of that file? Then it is parked, and goes on or fails by itself. */
bool attach_park(struct open_job *job);
/* The record of the handle that an ATTACH names is its own again, if `uid` and `flags` (PGC_SAVED_*) are the record's, too. Whether there was one. */
bool attach_take_record(struct space *s, uint64_t id, uid_t uid, uint32_t flags);
/* A forked child's record is awaited no more, as its userfaultfd is there. */
void attach_child_came(struct worker *w, uint32_t slot);
/* Is a record (of a handle, or of a file) one that a client is awaited for? How many of handles are? */
bool attach_awaits(struct worker *w, uint32_t slot, bool handle);
bool attach_awaits_file(struct worker *w, uint64_t dev, uint64_t ino);
uint64_t attach_awaited_handles(struct worker *w);
/* The worker ends: what still waits is told so. */
void attach_stop(struct worker *w);
void attach_init(struct worker *w);

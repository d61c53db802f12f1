/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twin: a process that shares the daemon's table of descriptors, and nothing else of it. So what the daemon has open is open for as long as one of the two
 * lives, and the twin can do what a daemon that was killed could not:
 *
 * - A fork event brings the child's userfaultfd, and the kernel lets the fork go on in the same instant. One that the daemon did not come to keep (fdstore.h) the
 *   twin gives to the store, as "o<slot of the parent>": the next daemon makes a child of it; or, when it has a record of its own already, as "c<slot>".
 * - Where nobody keeps descriptors, it holds children's userfaultfds until their processes end, or a daemon listens on the socket again and takes them
 *   (PGC_MSG_CHILD): when the last descriptor of a userfaultfd closes, its faults read zeros. A client keeps a descriptor of its own, a forked child has none.
 *
 * All else it closes at once, and it ends when there is nothing to hold. It is told of userfaultfds in a piece of shared memory, by plain stores.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A record of saved_handles: its slot (UINT32_MAX: none) and its id, which no other ever has. */
struct twin_record { uint32_t slot; uint64_t id; };

/*
 * Makes the process. `address`: of the socket where the next daemon will listen. Main thread, before any other is started, after fdstore_init(). Returns 0 or a
 * negative errno.
 */
int twin_start(const char *address);
/* Before the daemon ends: the process ends, too, unless it has to stay for somebody. Main thread. */
void twin_stop(void);
/*
 * flock(2), exclusive; one that a dying daemon has is waited for, up to five seconds. The twin lets go of such locks before all else, so that the next daemon gets them.
 * -EWOULDBLOCK: somebody has it who lives. Main thread.
 */
int twin_lock(int fd);

/* Worker `w` is about to read events that may bring children of the space with that record, which has something mapped at `addr`. Worker thread. */
void twin_reading(unsigned w, struct twin_record r, uint64_t addr);
/* It has read them, and has told of what came. */
void twin_read(unsigned w);

/* A userfaultfd that a client holds as well. Any thread, as the two below. */
void twin_knows(int fd);
/* A child's, which nobody keeps yet. `parent`: its parent's record. `addr` was mapped there. */
void twin_child(int fd, struct twin_record parent, uint64_t addr);
/* The same, where the child has a record of its own. */
void twin_child_own(int fd, struct twin_record own, uint64_t addr);
/* And is kept under it. */
void twin_child_kept(int fd, struct twin_record own);
/*
 * One that an earlier daemon had and this one has not come to yet: kept under its own record or, `of_parent`, under its parent's. Earlier twins end as soon as the
 * daemon is ready, which may be long before that.
 */
void twin_child_passed(int fd, struct twin_record r, bool of_parent, uint64_t addr);
/* Before it is closed. */
void twin_forget(int fd);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory cgroups: which one a process is in, and the table of those that are charged for pages.
 *
 * A cgroup's id is the inode number of its folder, which is the number that BPF helpers such as
 * bpf_get_current_cgroup_id() give, too.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pagecached/maps.h"

/*
 * Finds the hierarchy that counts memory: the version 1 hierarchy with the memory controller where there is one,
 * else version 2. `proc` is "/proc" and `mountinfo` "/proc/self/mountinfo", but for tests. Returns 0; -ENOENT: no such
 * hierarchy is mounted; -ENOMEM or the error of reading. Main thread, before others start; may be called again.
 */
int cgroup_init(const char *proc, const char *mountinfo);
void cgroup_exit(void);
/*
 * -ESRCH: no such process; -ENOENT: its cgroup is not under our mount, or is gone, or cgroup_init() failed; -EINVAL:
 * pid is not positive.
 */
int cgroup_of_pid(pid_t pid, uint64_t *ret_id);
/* The same, with its path in the hierarchy as far as that is mounted here ("/" is the mount's root). -ENAMETOOLONG. */
int cgroup_of_pid_path(pid_t pid, uint64_t *ret_id, char *ret_path, size_t size);
/* Where that hierarchy is mounted, and whether it is of version 1; NULL: cgroup_init() found none. Valid till cgroup_exit(). */
const char *cgroup_mount_point(bool *ret_v1);

/*
 * The entries of the map `cgroups`, taken and put by the main thread, one reference a handle.
 *
 * `mapped`, `resident` and `dirty` are changed by workers, with cgroup_table_add(). An entry is free once it has
 * no handle and all three are 0, so a worker may add to a slot only while something of its own keeps the slot: a
 * handle that was opened with it, or a count in it that it added and has not taken back. When the last of these
 * goes, it forgets the slot.
 *
 * Slot 0 is the catch-all: for cgroups that are not known, and for all that come when every slot is taken. Its id is
 * CGROUP_OTHER. What was charged to a slot is uncharged from that slot: remember the slot, or its entry's
 * id, not the id of the process's cgroup.
 */
#define CGROUP_OTHER (~(uint64_t)0)

struct cgroup_table {
	struct pgc_cgroup_entry *entry;
	uint32_t n;
};

/* `n` entries, at least 1, all zeros. */
void cgroup_table_init(struct cgroup_table *t, struct pgc_cgroup_entry *entry, uint32_t n);
/*
 * The slot of `id`, with one handle more. Slot 0 when `id` is 0 (not known) or CGROUP_OTHER, or the table is full.
 * Main thread.
 */
uint32_t cgroup_table_take(struct cgroup_table *t, uint64_t id);
/* One handle less. Main thread, after the worker is done with the handle. */
void cgroup_table_put(struct cgroup_table *t, uint32_t slot);
/*
 * The slot of an id that cgroup_table_id() said, while the caller keeps that slot (see above); slot 0 if there is
 * none. Any thread.
 */
uint32_t cgroup_table_find(const struct cgroup_table *t, uint64_t id);
/* The id that stands in a slot which the caller keeps. Any thread. */
uint64_t cgroup_table_id(const struct cgroup_table *t, uint32_t slot);
/* Adds pages to the counters of a slot; negative numbers take away. Any thread. */
void cgroup_table_add(struct cgroup_table *t, uint32_t slot, int64_t mapped, int64_t resident, int64_t dirty);
/* The same for one counter of an entry that the caller keeps. Any thread. */
static inline void cgroup_count(pgc_u64 *counter, int64_t pages)
{
	if (pages)
		(void)__atomic_fetch_add(counter, (uint64_t)pages, __ATOMIC_RELAXED);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory is left for us: on the machine, and in our memory cgroup and all above it. Measured by reading small files of /proc and of the cgroup
 * file system, never estimated. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROOM_LEVELS_MAX 16u

struct room_level {
	char *folder;              /* of the cgroup */
};

struct memory_room {
	char *proc;                /* NULL: not open */
	bool v1;
	struct room_level level[ROOM_LEVELS_MAX]; /* our own cgroup first, up to the mount point */
	unsigned n_levels;
};

/* Bytes. */
struct room_reading {
	uint64_t lacking;          /* to be given up, until the tightest of all has some air again; 0: nothing is short */
	uint64_t to_mark;          /* what may still be taken before something is short; the smallest of all */
	uint64_t room;             /* what may be taken by someone who does not want to come near that */
	bool     tight;            /* less than a quarter of something is free or can be freed by the kernel at once */
	char     cause[256];       /* what is short, in words; "" when nothing is */
};

/*
 * `proc` is "/proc" but for tests; `mount_point`, `path` and `v1` are those of our cgroup in the memory hierarchy (NULL: there is none, only the machine
 * counts). Copies what it needs. -ENOMEM.
 */
int memory_room_open(struct memory_room *m, const char *proc, const char *mount_point, const char *path, bool v1);
void memory_room_close(struct memory_room *m);
/* What cannot be read has no say. */
void memory_room_read(const struct memory_room *m, struct room_reading *ret);

/* The sum of the counters "high", "max" and "oom" of a memory.events file, open as `fd`. -ENODATA: there are none; or the error of reading. */
int memory_room_events(int fd, uint64_t *ret);

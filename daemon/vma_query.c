/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads /proc/PID/maps (proc(5)), up to one address or all. The read waits for the process's address space, which its owner can keep busy:
 * therefore on the offload thread. May call offload.
 */
#include "daemon/vma_query.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "daemon/pagemap.h"
#include "daemon/util/util.h"

#define SHORTAGE_TRIES 1000

static int add_seg(struct vma_query *q, struct vma_seg seg)
{
	if (q->n_segs == VMA_SEGS_MAX)
		return -ENOMEM;
	if ((q->n_segs & (q->n_segs - 1)) == 0) { /* room for twice as many */
		struct vma_seg *larger = reallocarray(q->segs, q->n_segs ? q->n_segs * 2 : 1, sizeof(*larger));

		if (!larger)
			return -EAGAIN;
		q->segs = larger;
	}
	q->segs[q->n_segs++] = seg;
	return 0;
}

static bool is_shortage(int e) { return e == EMFILE || e == ENFILE || e == ENOMEM; }

/* A list that was read to its end ends early where the address space has ended meanwhile, by exit or execve: of that not even the beginning can be read any more. */
static bool has_ended(FILE *maps, char **line, size_t *size)
{
	rewind(maps);
	return getline(line, size, maps) <= 0 && (feof(maps) || errno == ESRCH);
}

int vma_query_look(struct vma_query *q)
{
	_cleanup_free_ char *line = NULL;
	char path[64], perms[5];
	size_t size = 0;
	int r = -ENOENT;
	bool read = false;
	FILE *maps;

	free(TAKE_PTR(q->segs));
	q->total = q->n_segs = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", q->pid);
	maps = fopen(path, "re");
	if (!maps)
		return errno == ENOENT ? -ESRCH : is_shortage(errno) ? -EAGAIN : -EACCES;
	while ((read = getline(&line, &size, maps) > 0)) {
		uint64_t start, end, off, ino;
		unsigned major, minor;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &start, &end, perms, &off, &major, &minor, &ino) != 7)
			continue;
		bool same = ino == q->ino && makedev(major, minor) == q->dev;

		if (q->all) {
			q->total += same ? end - start : 0;
			if (same && q->list && (r = add_seg(q, (struct vma_seg){ start, end, off, perms[3] == 's' })) < 0) {
				fclose(maps);
				return r;
			}
			continue;
		}
		if (q->addr >= end)
			continue;
		if (same && q->addr >= start) {
			q->start = start;
			q->end = end;
			q->off = off;
			q->shared = perms[3] == 's';
			r = 0;
		}
		break;
	}
	if (q->all)
		r = 0;
	if (ferror(maps))
		r = errno == ESRCH ? -ESRCH : -EACCES;
	else if (!read && !feof(maps))
		r = -EAGAIN; /* getline(3) had no memory */
	else if (!read && has_ended(maps, &line, &size))
		r = -ESRCH;
	fclose(maps);
	return r;
}

static void run(struct offload_job *job)
{
	struct vma_query *q = container_of(job, struct vma_query, job);

	q->error = q->pid > 0 ? vma_query_look(q) : -ESRCH;
	/* Out of memory or descriptors is waited out, which is what this thread may do: to take it for an answer would be wrong. */
	for (int tries = 0; q->error == -EAGAIN && tries < SHORTAGE_TRIES; tries++) {
		const struct timespec pause = { .tv_nsec = 1000000 };

		nanosleep(&pause, NULL);
		q->error = vma_query_look(q);
	}
	q->pagemap = q->want_pagemap && q->error == 0 ? pagemap_open(q->pid) : -1;
}

static void answered(struct ring_op *op, int res, uint32_t cflags)
{
	struct vma_query *q = container_of(container_of(op, struct offload_job, done), struct vma_query, job);

	q->done(q, q->error);
}

int vma_query_start(struct vma_query *q, struct ring *ring)
{
	q->job.run = run;
	q->job.done.done = answered;
	return offload_submit(ring, &q->job);
}

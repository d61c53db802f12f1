/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads /proc/PID/maps (proc(5)) up to one address. The read waits for the process's address space, which its owner can keep busy:
 * therefore on the offload thread. May call offload.
 */
#include "daemon/vma_query.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "daemon/util/util.h"

/* On the offload thread. */
static int look(struct vma_query *q)
{
	_cleanup_free_ char *line = NULL;
	char path[64], perms[5];
	size_t size = 0;
	int r = -ENOENT;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", q->pid);
	maps = fopen(path, "re");
	if (!maps)
		return errno == ENOENT ? -ESRCH : -EACCES;
	while (getline(&line, &size, maps) > 0) {
		uint64_t start, end, off, ino;
		unsigned major, minor;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &start, &end, perms, &off, &major, &minor, &ino) != 7)
			continue;
		bool same = ino == q->ino && makedev(major, minor) == q->dev;

		if (q->all) {
			q->total += same ? end - start : 0;
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
		r = -EACCES;
	fclose(maps);
	return r;
}

static void run(struct offload_job *job)
{
	struct vma_query *q = container_of(job, struct vma_query, job);

	q->error = q->pid > 0 ? look(q) : -ESRCH;

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

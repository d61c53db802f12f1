/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See space.h. Whether a space has anything mapped still, when by what was told it has not: events do not tell of all that an mremap(2) does. The kernel is asked what the process has mapped of the
 * file, which is held against what is known of all its handles. Runs on the file's worker. May call file, vma_query.
 */
#include "daemon/space.h"

#include "daemon/uffd.h"
#include "daemon/vma_query.h"

static int add_length(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	*(uint64_t *)arg += r.end - r.start;
	return 0;
}

/* What the process has mapped of the file through all of its handles, as far as we were told. */
static uint64_t known_mapped(struct file *f, pid_t pid)
{
	uint64_t total = 0;
	struct space *s;

	list_for_each(s, &f->spaces, by_file)
		if (s->pid == pid) {
			(void)file_range_set_walk(&s->maps, (struct range){ 0, ~0ull }, add_length, &total);
			total += s->window_end - s->window_start;
		}
	return total;
}

static void last_looked(struct vma_query *q, int error)
{
	struct space *s = q->owner;

	s->asking = false;
	if (!s->closed && s->maps.map.n == 0) {
		/* More than is known: an mremap has left something, here or through another handle, or a mapping is being made. */
		s->unsure = q->changes != s->changes || error == -EAGAIN || (error == 0 && q->total > known_mapped(s->file, s->pid));
		s->confirmed = !s->unsure;
		if (s->unsure)
			ring_timer_arm(&s->worker->ring, &s->worker->child_timer, SPACE_CHECK_NS);
		else if (s->changed)
			s->changed(s);
	}
	free(q);
	space_unpin(s);
}

static void confirm_later(struct space *s)
{
	s->unsure = true;
	ring_timer_arm(&s->worker->ring, &s->worker->child_timer, SPACE_CHECK_NS);
}

void space_confirm_unmapped(struct space *s)
{
	struct vma_query *q;

	if (s->asking || s->maps.map.n > 0)
		return;
	q = calloc(1, sizeof(*q));
	if (!q) {
		confirm_later(s);
		return;
	}
	*q = (struct vma_query){
		.pid = s->pid, .all = true, .dev = s->file->memfd_dev, .ino = s->file->memfd_ino,
		.changes = s->changes, .owner = s, .done = last_looked,
	};
	if (vma_query_start(q, &s->worker->ring) < 0) {
		free(q);
		confirm_later(s);
		return;
	}
	s->asking = true;
	space_pin(s);
}

void space_gone(struct space *s)
{
	if (s->gone)
		return;
	s->gone = true;
	if (s->changed)
		s->changed(s);
}

bool space_check_all(struct worker *w)
{
	struct space *s, *next;
	bool again = false;

	list_for_each_safe(s, next, &w->spaces, by_worker) {
		struct range_seg *seg = range_map_lower(&s->maps.map, 0);

		if (!s->has_handle) {
			again = true;
			if (!uffd_alive(s->uffd, seg ? seg->r.start : s->last_addr))
				space_gone(s);
		} else if (s->unsure) {
			again = true;
			space_confirm_unmapped(s);
		}
	}
	return again;
}

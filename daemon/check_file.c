/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What there is of a file beside its pages: sizes, its records for the next daemon, handles, references, and what its clients have mapped. All but the last is
 * compared in one round; of references and mappings copies are made in that round, which an offload thread compares and holds against /proc/PID/maps.
 */
#include <string.h>
#include <sys/stat.h>

#include "daemon/check.h"
#include "daemon/check_look.h"
#include "daemon/handle.h"
#include "daemon/saved.h"

#define MAPS_MAX 65536u              /* of all clients: more are not compared */

struct file_step {
	struct check *c;
	struct file *f;
	unsigned tries;
	uint64_t changes;          /* maps_changes when the copies were made */
	struct check_maps maps;
};

/* --- at once --- */

static void check_sizes(struct check *c, struct file *f)
{
	uint64_t shown = __atomic_load_n(&f->control->size, __ATOMIC_RELAXED);
	struct stat st;

	if (f->e->size != f->size)
		check_differs(c, PGC_DIFFERS_SIZE, f, 0, 0, f->e->size, f->size);
	if (shown != f->size)
		check_differs(c, PGC_DIFFERS_SIZE, f, 0, 0, shown, f->size);
	if (f->control->stat_seq % 2 == 0 && f->control->shown.size != f->size)
		check_differs(c, PGC_DIFFERS_SIZE, f, 0, 0, f->control->shown.size, f->size);
	if (fstat(f->memfd, &st) < 0 || (uint64_t)st.st_size != file_memory_size(f, f->size))
		check_differs(c, PGC_DIFFERS_SIZE, f, 0, 0, (uint64_t)st.st_size, file_memory_size(f, f->size));
}

/* A write into the memory alone leaves the record as it is: the store still has that version. */
static bool version_as_saved(const struct file *f)
{
	const struct pgc_saved_file *s = f->saved;
	const struct file_version *v = &f->version;

	if (!v->valid)
		return !s->version_valid || list_empty(&f->writes);
	return s->version_valid && (s->version_size == v->size && s->version_blocks == v->blocks && s->version_mtime.sec == (uint64_t)v->mtime.tv_sec &&
			     s->version_mtime.nsec == (uint32_t)v->mtime.tv_nsec && s->version_ctime.sec == (uint64_t)v->ctime.tv_sec &&
			     s->version_ctime.nsec == (uint32_t)v->ctime.tv_nsec);
}

static void check_record(struct check *c, struct file *f)
{
	const struct pgc_saved_file *s = f->saved;
	bool wanted = false;
	struct space *space;

	/* It is put into use before the first of its handles is. */
	list_for_each(space, &f->spaces, by_file)
		wanted |= space->saved && space->saved->file;
	if (s->file == 0 && !wanted)
		return;
	if (!saved_check_file(s, f->slot) || s->dev != f->dev || s->ino != f->ino || s->memfd_dev != f->memfd_dev || s->memfd_ino != f->memfd_ino ||
	    s->errseq != f->errseq || !version_as_saved(f))
		check_differs(c, PGC_DIFFERS_FILE_RECORD, f, f->slot, f->slot + 1, 0, 0);
}

static void check_handle_record(struct check *c, const struct file *f, const struct space *s)
{
	const struct pgc_saved_handle *r = s->saved;
	const struct handle *h = s->has_handle ? s->owner : NULL;
	uint32_t rights = PGC_SAVED_READABLE | PGC_SAVED_WRITABLE | PGC_SAVED_CHILD;
	uint32_t own = (!h || h->readable ? PGC_SAVED_READABLE : 0) | ((h ? h->writable : s->writable) ? PGC_SAVED_WRITABLE : 0) |
		       (s->has_handle ? 0 : PGC_SAVED_CHILD);

	if (!r || (r->file == 0 && !s->kept) || (s->has_handle && !h))
		return; /* it is not there yet, or is ending */
	if (!saved_check_handle(r) || r->file != f->slot || r->id != s->id || (r->flags & rights) != own)
		check_row(c, &(struct pgc_ctl_check_reply){
			.kind = PGC_DIFFERS_HANDLE_RECORD, .file = f->slot, .pid = s->pid, .start = s->saved_slot, .end = s->saved_slot + 1,
		});
}

static void check_handles(struct check *c, struct file *f)
{
	uint64_t handles = 0, mappings = 0;
	struct space *s;

	list_for_each(s, &f->spaces, by_file) {
		handles++;
		mappings += s->maps.map.n;
		check_handle_record(c, f, s);
	}
	if (f->e->handles != handles || f->n_handles != handles)
		check_differs(c, PGC_DIFFERS_HANDLES, f, 0, 0, f->e->handles, handles);
	if (f->e->mappings != mappings || f->n_mappings != mappings)
		check_differs(c, PGC_DIFFERS_HANDLES, f, 0, 0, f->e->mappings, mappings);
}

/* Entries of `mappings`, unless they are to be brought up to date in the next round. */
static void check_shown_mappings(struct check *c, struct file *f)
{
	if (!list_empty(&f->publish.link))
		return;
	for (size_t i = 0; i < f->refs.map.n; i++) {
		const struct range_seg *s = &f->refs.map.seg[i];
		const struct pgc_mapping_entry *e = i < f->n_ref_slots ? &f->worker->state->mappings[f->ref_slots[i]] : NULL;

		if (!e) {
			if (!f->worker->no_slots_logged) /* else the map is full */
				check_differs(c, PGC_DIFFERS_MAPPINGS, f, s->r.start, s->r.end, 0, s->v.a);
		} else if (e->file != f->slot || e->start != s->r.start || e->end != s->r.end || e->refs != s->v.a || e->cgroup != s->v.b) {
			check_differs(c, PGC_DIFFERS_MAPPINGS, f, s->r.start, s->r.end, e->refs, s->v.a);
		}
	}
	for (size_t i = 0; i < f->refs.map.n; i++) {
		const struct range_seg *s = &f->refs.map.seg[i];

		check_count(c, PGC_COUNT_CGROUP, 0, s->v.b, (uint64_t[4]){ 0, 0, (s->r.end - s->r.start) / PAGE_SIZE_, 0 });
	}
}

/* --- copies --- */

static int by_pid(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return x < y ? -1 : x > y;
}

struct copying { struct check_maps *m; const struct space *s; };

static int copy_segment(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	struct copying *k = arg;

	k->m->known[k->m->n_known++] = (struct check_map){ k->s->pid, attr & SEG_SHARED, r.start, r.end, off, false };
	return 0;
}

static void free_copies(struct check_maps *m)
{
	free(m->known);
	free(m->refs);
	free(m->pids);
	m->known = NULL;
	m->refs = NULL;
	m->pids = NULL;
	m->n_known = m->n_refs = m->n_pids = 0;
}

/* May the mappings of this process be held against the table? */
static bool may_ask(const struct file *f, pid_t pid)
{
	const struct space *s;

	list_for_each(s, &f->spaces, by_file)
		if (s->pid == pid && (s->restoring || s->blind || s->gone || s->unsure))
			return false;
	return pid > 0;
}

static int copy(struct file_step *s)
{
	struct check_maps *m = &s->maps;
	struct file *f = s->f;
	struct space *space;
	size_t n = 0;

	m->known = calloc(MAX(f->n_mappings + 2 * f->n_handles, 1u), sizeof(*m->known));
	m->refs = calloc(MAX(f->refs.map.n, (size_t)1), sizeof(*m->refs));
	m->pids = calloc(MAX(f->n_handles, 1u), sizeof(*m->pids));
	if (!m->known || !m->refs || !m->pids)
		return -ENOMEM;
	m->dev = f->memfd_dev;
	m->ino = f->memfd_ino;
	for (size_t i = 0; i < f->refs.map.n; i++)
		m->refs[m->n_refs++] = (struct check_refs){ f->refs.map.seg[i].r, (uint32_t)f->refs.map.seg[i].v.a };
	list_for_each(space, &f->spaces, by_file) {
		(void)file_range_set_walk(&space->maps, (struct range){ 0, ~0ull }, copy_segment, &(struct copying){ m, space });
		if (space->window_end > space->window_start)
			m->known[m->n_known++] = (struct check_map){ space->pid, false, space->window_start, space->window_end, 0, true };
		if (space_window_whole(space) > space->window_end - space->window_start)
			m->known[m->n_known++] = (struct check_map){ space->pid, false, space->window_end, space->window_start + space_window_whole(space), 0, true };
		if (may_ask(f, space->pid))
			m->pids[m->n_pids++] = space->pid;
		else
			s->c->end.skipped += space->maps.map.n;
	}
	if (m->n_pids > 0)
		qsort(m->pids, m->n_pids, sizeof(*m->pids), by_pid);
	for (size_t i = 0; i < m->n_pids; i++)
		if (n == 0 || m->pids[n - 1] != m->pids[i])
			m->pids[n++] = m->pids[i];
	m->n_pids = n;
	s->changes = f->maps_changes;
	return 0;
}

static void step_done(struct file_step *s)
{
	struct check *c = s->c;

	free_copies(&s->maps);
	check_release(c, s->f);
	free(s);
	c->done(c);
}

static void compared(struct ring_op *op, int res, uint32_t cflags);

static void compare(struct file_step *s)
{
	uint64_t skipped = s->c->end.skipped;
	int r;

	free_copies(&s->maps);
	r = copy(s);
	if (s->tries++ > 0)
		s->c->end.skipped = skipped; /* they have been counted */
	s->maps.job.done.done = compared;
	if (r == 0)
		r = check_maps_start(&s->maps, &s->f->worker->ring);
	if (r < 0) {
		s->c->error = r;
		step_done(s);
	}
}

static void compared(struct ring_op *op, int res, uint32_t cflags)
{
	struct file_step *s = container_of(container_of(op, struct offload_job, done), struct file_step, maps.job);
	struct check_maps *m = &s->maps;
	bool settled = true;
	struct space *space;

	if (m->of_maps)
		list_for_each(space, &s->f->spaces, by_file) {
			settled &= !uffd_is_changing(space->uffd); /* else what was looked at may be newer than what can be read now */
			fault_drain_events(space);
		}
	settled &= s->changes == s->f->maps_changes;
	if (m->of_maps && !settled) {
		if (s->tries < CHECK_TRIES) {
			compare(s);
			return;
		}
		s->c->end.busy++;
	}
	s->c->error = m->error;
	for (size_t i = 0; i < m->n_rows; i++) {
		m->row[i].file = s->f->slot;
		if (m->row[i].kind == PGC_DIFFERS_REFERENCES || settled)
			check_row(s->c, &m->row[i]);
	}
	s->c->end.unlisted += m->unlisted;
	s->c->end.skipped += m->skipped;
	step_done(s);
}

void check_file(struct check *c, struct file *f)
{
	struct file_step *s;

	check_sizes(c, f);
	check_record(c, f);
	check_handles(c, f);
	check_shown_mappings(c, f);
	if (f->n_mappings > MAPS_MAX || f->e->mappings != f->n_mappings) {
		c->end.skipped += f->n_mappings;
		c->done(c);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		c->error = -ENOMEM;
		c->done(c);
		return;
	}
	s->c = c;
	s->f = f;
	check_hold(c, f);
	compare(s);
}

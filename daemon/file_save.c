/* SPDX-License-Identifier: Apache-2.0 */
/* See file_save.h. May call file, kept, saved. */
#include "daemon/file_save.h"

#include <string.h>

#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/saved.h"

_Static_assert(sizeof(struct pgc_times) <= sizeof(((struct pgc_saved_file *)0)->times), "room for the times");

static struct pgc_saved_time to_saved(struct timespec t) { return (struct pgc_saved_time){ (uint64_t)t.tv_sec, (uint32_t)t.tv_nsec, 0 }; }
static struct timespec from_saved(struct pgc_saved_time t) { return (struct timespec){ (time_t)t.sec, (long)t.nsec }; }

void file_save(struct file *f)
{
	struct pgc_saved_file *s = f->saved;

	if (s->file)
		return;
	s->dev = f->dev;
	s->ino = f->ino;
	s->memfd_dev = f->memfd_dev;
	s->memfd_ino = f->memfd_ino;
	s->retain = f->retain;
	s->warm_start = f->warm_start;
	s->readahead_max = f->readahead_max;
	file_save_version(f);
	file_save_times(f);
	file_save_errors(f);
	file_save_ranges(f);
	saved_seal_file(s, f->slot);
}

/* The store is closed, or about to be: so are what copies of its descriptors are kept. */
void file_save_no_store(struct file *f)
{
	char name[FDSTORE_NAME_MAX];

	if (f->n_kept_fds > 0)
		kept_remove(f->worker, fdstore_name(name, 's', f->slot), f->n_kept_fds, NULL, 0);
	f->n_kept_fds = 0;
}

/* Those of the store that are not kept yet. */
static int keep_store(struct file *f)
{
	int fds[ELEMENTSOF(f->kept_fds)], fresh[ELEMENTSOF(f->kept_fds)];
	unsigned n = f->store && f->store->ops->descriptors ? f->store->ops->descriptors(f->store, fds, ELEMENTSOF(fds)) : 0, m = 0;
	char name[FDSTORE_NAME_MAX];
	int r;

	for (unsigned i = 0; i < n; i++) {
		bool known = false;

		for (unsigned k = 0; k < f->n_kept_fds; k++)
			known |= f->kept_fds[k] == fds[i];
		if (!known && f->n_kept_fds + m < ELEMENTSOF(f->kept_fds))
			fresh[m++] = fds[i];
	}
	r = m > 0 ? kept_add(f->worker, fdstore_name(name, 's', f->slot), fresh, m) : 0;
	if (r < 0)
		return r;
	for (unsigned i = 0; i < m; i++)
		f->kept_fds[f->n_kept_fds++] = fresh[i];
	return 0;
}

int file_keep(struct file *f)
{
	char name[FDSTORE_NAME_MAX];
	int r;

	/* The store first: a file whose clients had brought its memory has a record already, and is nothing without one. */
	r = keep_store(f);
	if (r < 0)
		return r;
	kill_point("file.store_kept");
	if (!f->memory_kept) {
		r = kept_add(f->worker, fdstore_name(name, 'f', f->slot), (int[]){ f->memfd, f->control_fd }, 2);
		if (r < 0)
			return r;
		f->memory_kept = true;
	}
	if (f->tracked.fd >= 0 && !f->tracked.kept) {
		r = kept_add(f->worker, fdstore_name(name, 't', f->slot), (int[]){ f->tracked.fd }, 1);
		if (r < 0)
			return r;
		f->tracked.kept = true;
	}
	if (f->written.fd >= 0 && !f->written.kept) {
		r = kept_add(f->worker, fdstore_name(name, 'w', f->slot), (int[]){ f->written.fd }, 1);
		if (r < 0)
			return r;
		f->written.kept = true;
	}
	kill_point("file.kept");
	file_save(f);
	return 0;
}

void file_save_end(struct file *f) { saved_clear(f->saved); }

void file_save_version(struct file *f)
{
	struct pgc_saved_file *s = f->saved;

	s->version_valid = 0;
	crash_order();
	if (!f->version.valid)
		return;
	s->version_size = f->version.size;
	s->version_blocks = f->version.blocks;
	s->version_mtime = to_saved(f->version.mtime);
	s->version_ctime = to_saved(f->version.ctime);
	crash_order();
	s->version_valid = 1;
}

void file_save_times(struct file *f)
{
	f->saved->times_valid = 0;
	crash_order();
	memcpy(f->saved->times, &f->times, sizeof(f->times));
	crash_order();
	f->saved->times_valid = 1;
}

void file_save_errors(struct file *f)
{
	f->saved->errseq_code = f->errseq_code;
	f->saved->last_error = f->last_error;
	crash_order();
	f->saved->errseq = f->errseq;
}

struct cover { struct pgc_saved_range *range; uint32_t n; };

/* More than there is room for: the last one covers the rest. */
static int add_cover(void *arg, struct range r, bool keep)
{
	struct cover *c = arg;

	if (c->n > 0 && (c->n == PGC_SAVED_RANGES || c->range[c->n - 1].end == r.start))
		c->range[c->n - 1].end = r.end;
	else
		c->range[c->n++] = (struct pgc_saved_range){ r.start, r.end };
	return 0;
}

static uint32_t cover(const struct dirty_set *d, struct pgc_saved_range *range)
{
	struct pgc_saved_range made[PGC_SAVED_RANGES];
	struct cover c = { made, 0 };

	(void)dirty_set_walk(d, (struct range){ 0, ~0ull }, add_cover, &c);
	memcpy(range, made, c.n * sizeof(*range));
	return c.n;
}

void file_save_ranges(struct file *f)
{
	struct pgc_saved_file *s = f->saved;

	/* In the middle of it fewer count: what is resident of `kept` shows in the blocks, too. */
	s->n_kept = s->n_pins = 0;
	crash_order();
	uint32_t kept = cover(&f->kept, s->kept), pins = cover(&f->pins, s->pins);

	crash_order();
	s->n_kept = kept;
	s->n_pins = pins;
}

void file_save_poisoned(struct file *f, uint64_t page)
{
	struct pgc_saved_file *s = f->saved;

	s->poisoned[s->n_poisoned % PGC_SAVED_POISONED] = page;
	crash_order();
	s->n_poisoned++;
}

void file_save_op(struct file *f, unsigned kind, int mode, uint64_t handle, uint64_t tag, uint64_t off, uint64_t len)
{
	struct pgc_saved_op *o = &f->saved->op;

	o->kind = 0;
	crash_order();
	o->mode = (uint32_t)mode;
	o->handle = handle;
	o->tag = tag;
	o->off = off;
	o->len = len;
	o->size = f->size;
	crash_order();
	o->kind = kind + 1;
	crash_order();
}

void file_save_op_end(struct file *f)
{
	crash_order();
	f->saved->op.kind = 0;
}

void file_hold_writes(struct file *f, bool hold)
{
	f->hold_writes = hold;
	f->saved->moving = hold;
	crash_order();
}

static int load_set(struct dirty_set *d, const struct pgc_saved_range *range, uint32_t n, uint64_t *ret_bytes)
{
	*ret_bytes = 0;
	for (uint32_t i = 0; i < MIN(n, (uint32_t)PGC_SAVED_RANGES); i++) {
		struct range r = { range[i].start, range[i].end };
		int e;

		if (r.start >= r.end || r.end > INT64_MAX || !is_aligned(r.start | r.end, PAGE_SIZE_))
			continue;
		e = dirty_set_mark_dirty(d, r, true);
		if (e < 0)
			return e;
		*ret_bytes += r.end - r.start;
	}
	return 0;
}

/* What is no bool is no record of ours. */
static void load_times(struct file *f)
{
	static const size_t flags[] = {
		offsetof(struct pgc_times, known), offsetof(struct pgc_times, pending), offsetof(struct pgc_times, moved),
	};

	for (size_t i = 0; i < ELEMENTSOF(flags); i++)
		if (f->saved->times[flags[i]] > 1)
			return;
	memcpy(&f->times, f->saved->times, sizeof(f->times));
}

int file_load(struct file *f)
{
	const struct pgc_saved_file *s = f->saved;
	uint64_t pinned;
	int e;

	f->retain = s->retain == RETAIN_MAPPED ? RETAIN_MAPPED : RETAIN_LRU;
	f->warm_start = s->warm_start != 0;
	f->readahead_max = s->readahead_max;
	if (s->version_valid == 1)
		f->version = (struct file_version){ true, s->version_size, s->version_blocks, from_saved(s->version_mtime),
						    from_saved(s->version_ctime) };
	if (s->times_valid == 1)
		load_times(f);
	f->hold_writes = s->moving == 1;
	f->errseq = s->errseq;
	f->errseq_code = s->errseq_code < 0 ? s->errseq_code : 0;
	f->last_error = s->last_error < 0 ? s->last_error : 0;
	e = load_set(&f->kept, s->kept, s->n_kept, &f->kept_bytes);
	if (e == 0)
		e = load_set(&f->pins, s->pins, s->n_pins, &pinned);
	if (e < 0) { /* none of it was counted */
		dirty_set_free(&f->kept);
		dirty_set_init(&f->kept);
		dirty_set_free(&f->pins);
		dirty_set_init(&f->pins);
		f->kept_bytes = 0;
		return e;
	}
	f->worker->kept_bytes += f->kept_bytes;
	atomic_fetch_add_explicit(&f->worker->budget->pinned, pinned / PAGE_SIZE_, memory_order_relaxed);
	return 0;
}

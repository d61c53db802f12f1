/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker whose loop the test turns by hand, with one file over a store that records what it is asked and fails as it is told.
 */
#pragma once

#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "daemon/fill.h"
#include "daemon/ops.h"
#include "daemon/proc_fd.h"
#include "daemon/reclaim.h"
#include "daemon/writeback.h"

#define PAGE 4096ull
#define STORE_MAX (4ull << 20)

struct recorded { char what; uint64_t off, len; }; /* what: r, w, s (sync), t (truncate), f (fallocate), h (is_hole) */

struct rig_store {
	struct store s;
	char *data;
	uint64_t size;
	struct recorded log[4096];
	unsigned n;
	int write_error, read_error, sync_error, truncate_error, fallocate_error; /* negative errno, 0: none */
	uint64_t error_page;       /* the errors of read and write are of transfers that touch this page; ~0: of all */
	uint64_t short_max;        /* 0: whole transfers */
	uint64_t size_max;         /* of a file in its file system; 0: no limit */
	bool write_nothing;        /* writes accept 0 bytes */
	struct timespec mtime, ctime; /* the store's, which only tests and restore move */
	unsigned restores, restores_at_sync;
	bool never_restores;       /* as where that is not allowed */
	uint64_t hole_from, hole_to; /* bytes that the store says are a hole; all else is data, up to its size */
	bool no_seek;              /* it cannot tell */
	bool held;                 /* operations wait until rig_release() */
	struct store_op *waiting[256];
	unsigned n_waiting;
};

struct rig {
	struct worker w;
	struct state state;
	struct config config;
	struct budget budget;
	struct uffd_caps caps;
	struct rig_store store;
	struct file *f;
};

static inline void rig_op_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct store_op *so = container_of(op, struct store_op, ring);

	so->done(so, so->result);
}

/* Looks at the store are never held. */
static inline void rig_submit_at_once(struct rig_store *s, struct store_op *op)
{
	op->ring.done = rig_op_done;
	io_uring_prep_nop(ring_sqe(s->s.ring, &op->ring));
}

static inline void rig_submit(struct rig_store *s, struct store_op *op)
{
	op->ring.done = rig_op_done;
	if (s->held)
		s->waiting[s->n_waiting++] = op;
	else
		io_uring_prep_nop(ring_sqe(s->s.ring, &op->ring));
}

static inline void rig_release(struct rig *rig)
{
	struct rig_store *s = &rig->store;

	s->held = false;
	for (unsigned i = 0; i < s->n_waiting; i++)
		io_uring_prep_nop(ring_sqe(s->s.ring, &s->waiting[i]->ring));
	s->n_waiting = 0;
}

static inline bool rig_fails(const struct rig_store *s, uint64_t off, uint64_t len)
{
	return s->error_page == ~0ull || (s->error_page * PAGE < off + len && (s->error_page + 1) * PAGE > off);
}

static inline struct rig_store *rig_record(struct store *store, char what, uint64_t off, uint64_t len)
{
	struct rig_store *s = container_of(store, struct rig_store, s);

	assert_in_range(s->n, 0, ELEMENTSOF(s->log) - 1);
	s->log[s->n++] = (struct recorded){ what, off, len };
	return s;
}

static inline void rig_stat(struct store *store, struct store_op *op, struct store_stat *ret)
{
	struct rig_store *s = container_of(store, struct rig_store, s);

	*ret = (struct store_stat){ .dev = 1, .ino = 1, .size = s->size, .blocks = (s->size + 511) / 512, .nlink = 1,
				    .mtime = s->mtime, .ctime = s->ctime };
	op->result = 0;
	rig_submit_at_once(s, op);
}

static inline void rig_read(struct store *store, struct store_op *op, void *buf, size_t len, uint64_t off)
{
	struct rig_store *s = rig_record(store, 'r', off, len);

	len = off >= s->size ? 0 : MIN(len, s->size - off);
	if (s->short_max)
		len = MIN(len, s->short_max);
	if (s->read_error && rig_fails(s, off, len)) {
		op->result = s->read_error;
	} else {
		memcpy(buf, s->data + off, len);
		op->result = (ssize_t)len;
	}
	rig_submit(s, op);
}

static inline void rig_write(struct store *store, struct store_op *op, const void *buf, size_t len, uint64_t off)
{
	struct rig_store *s = rig_record(store, 'w', off, len);

	if (s->short_max)
		len = MIN(len, s->short_max);
	if (s->write_error && rig_fails(s, off, len)) {
		op->result = s->write_error;
	} else if (s->write_nothing) {
		op->result = 0;
	} else {
		memcpy(s->data + off, buf, len);
		s->size = MAX(s->size, off + len);
		op->result = (ssize_t)len;
	}
	rig_submit(s, op);
}

static inline void rig_sync(struct store *store, struct store_op *op, bool data_only)
{
	struct rig_store *s = rig_record(store, 's', 0, 0);

	s->restores_at_sync = s->restores;
	op->result = s->sync_error;
	rig_submit(s, op);
}

static inline void rig_truncate(struct store *store, struct store_op *op, uint64_t size)
{
	struct rig_store *s = rig_record(store, 't', size, 0);

	op->result = s->truncate_error;
	if (op->result == 0) {
		if (size < s->size)
			memset(s->data + size, 0, s->size - size);
		s->size = size;
	}
	rig_submit(s, op);
}

static inline void rig_fallocate(struct store *store, struct store_op *op, int mode, uint64_t off, uint64_t len)
{
	struct rig_store *s = rig_record(store, 'f', off, len);

	if (s->size_max && off + len > s->size_max) {
		op->result = -EFBIG;
		rig_submit(s, op);
		return;
	}
	if (s->fallocate_error || (mode & FALLOC_FL_COLLAPSE_RANGE)) {
		op->result = s->fallocate_error ? s->fallocate_error : -EOPNOTSUPP;
		rig_submit(s, op);
		return;
	}
	if (off < s->size)
		memset(s->data + off, 0, MIN(len, s->size - off));
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		s->size = MAX(s->size, off + len);
	op->result = 0;
	rig_submit(s, op);
}

static inline void rig_is_hole(struct store *store, struct store_op *op, uint64_t off, uint64_t len)
{
	struct rig_store *s = rig_record(store, 'h', off, len);

	op->result = 1;
	rig_submit(s, op);
}

static inline void rig_restore(struct store *store, struct store_op *op, struct store_restore *r)
{
	struct rig_store *s = container_of(store, struct rig_store, s);

	s->restores++;
	r->found = (struct store_stat){ .dev = 1, .ino = 1, .size = s->size, .nlink = 1, .mtime = s->mtime, .ctime = s->ctime };
	r->after = r->found;
	if (!s->never_restores) {
		s->ctime.tv_sec++;
		s->mtime = r->to;
		r->after.mtime = s->mtime;
		r->after.ctime = s->ctime;
	}
	op->result = 0;
	rig_submit_at_once(s, op);
}

static inline void rig_seek(struct store *store, struct store_op *op, int whence, uint64_t off)
{
	struct rig_store *s = rig_record(store, 'l', off, (uint64_t)whence);
	bool in_hole = off >= s->hole_from && off < s->hole_to;

	if (s->no_seek)
		op->result = -EOPNOTSUPP;
	else if (off >= s->size)
		op->result = -ENXIO;
	else if (whence == SEEK_DATA)
		op->result = !in_hole ? (ssize_t)off : s->hole_to < s->size ? (ssize_t)s->hole_to : -ENXIO;
	else
		op->result = in_hole ? (ssize_t)off : (ssize_t)(off < s->hole_from ? s->hole_from : s->size);
	rig_submit(s, op);
}

static inline void rig_close(struct store *store) {}

static const struct store_ops rig_store_ops = {
	"rig", rig_stat, rig_read, rig_write, rig_sync, rig_truncate, rig_fallocate, rig_restore, rig_seek, rig_is_hole, NULL, rig_close,
};

/*
 * A file of `size` bytes, byte n of which is n / 4096 + 1 in the store; `memory` pages of budget, so many percent of it for the
 * second-chance buffer.
 */
static inline struct rig *rig_new_second(uint64_t size, uint64_t memory, unsigned second_chance)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct store_stat st = { .size = size, .blocks = (size + 511) / 512, .nlink = 1 };

	assert_non_null(rig);
	assert_int_equal(proc_fd_init(), 0);
	assert_int_equal(state_open(&rig->state, &(struct state_params){ .bpffs = "", .workers = 1, .files = 8, .blocks = 512,
								       .mappings = 64, .cgroups = 4 }), 0);
	rig->config.second_chance = second_chance;
	rig->budget.dirty_expire_ms = 3600000;
	rig->budget.max = rig->budget.memory_max = memory;
	rig->w = (struct worker){
		.n_workers = 1, .all = &rig->w, .config = &rig->config, .caps = &rig->caps, .state = &rig->state, .budget = &rig->budget,
	};
	assert_int_equal(worker_init(&rig->w), 0);
	rig->store.s = (struct store){ .ops = &rig_store_ops, .ring = &rig->w.ring, .writable = true };
	rig->store.error_page = ~0ull;
	rig->store.size = size;
	rig->store.data = mmap(NULL, STORE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(rig->store.data, MAP_FAILED);
	for (uint64_t i = 0; i < size; i++)
		rig->store.data[i] = (char)(i / PAGE + 1);
	assert_int_equal(file_new(&rig->f, &rig->w, 1, 1, 0, "rig", false), 0);
	ops_file_init(rig->f);
	rig->f->store = &rig->store.s;
	assert_int_equal(file_opened(rig->f, &st, rig->f->moves), 0);
	rig->f->requests = 1; /* the test's own: it stays */
	return rig;
}

static inline struct rig *rig_new(uint64_t size, uint64_t memory) { return rig_new_second(size, memory, 0); }

/* Pages charged for what is cached, without the daemon's own tables. */
static inline uint64_t rig_used(struct rig *rig) { return rig->budget.used - rig->budget.tables; }

static inline void rig_free(struct rig *rig)
{
	rig->f->store = NULL;
	rig->f->requests = 0;
	file_free(rig->f);
	assert_int_equal(rig_used(rig), worker_domain(&rig->w)->second_touched); /* a little is kept for the next */
	worker_free(&rig->w);
	state_close(&rig->state);
	munmap(rig->store.data, STORE_MAX);
	free(rig);
}

/* Turns the loop until *flag, or for `ms` when flag is NULL. Fails after five seconds. */
static inline void rig_run(struct rig *rig, const bool *flag, unsigned ms)
{
	uint64_t start = now_ns();

	while (flag ? !*flag : now_ns() - start < ms * 1000000ull) {
		worker_round(&rig->w, false);
		assert_true(now_ns() - start < 5000000000ull);
	}
}

/* Makes `n` pages from `first` on resident, with the store's bytes. */
static inline void rig_fill(struct rig *rig, uint64_t first, uint64_t n)
{
	assert_int_equal(fill_start(rig->f, first, n, n, NULL, 0), 0);
	while (!list_empty(&rig->f->fills))
		worker_round(&rig->w, true);
}

/* As a client that stores `value` over page `page`, which is resident. */
static inline void rig_store_page(struct rig *rig, uint64_t page, char value)
{
	struct block *b = block_tree_find(&rig->f->blocks, page / PGC_BLOCK_PAGES);
	char buf[PAGE];

	memset(buf, value, sizeof(buf));
	assert_int_equal(pwrite(rig->f->memfd, buf, MIN(PAGE, rig->f->size - page * PAGE), (off_t)(page * PAGE)),
			 MIN(PAGE, rig->f->size - page * PAGE));
	block_set_dirty(b, 1ull << (page % PGC_BLOCK_PAGES));
}

static inline bool rig_dirty(struct rig *rig, uint64_t page)
{
	struct block *b = block_tree_find(&rig->f->blocks, page / PGC_BLOCK_PAGES);

	return b && (b->e->dirty & (1ull << (page % PGC_BLOCK_PAGES)));
}

static inline bool rig_resident(struct rig *rig, uint64_t page)
{
	struct block *b = block_tree_find(&rig->f->blocks, page / PGC_BLOCK_PAGES);

	return b && (b->e->resident & (1ull << (page % PGC_BLOCK_PAGES)));
}

static inline unsigned rig_count(const struct rig *rig, char what)
{
	unsigned n = 0;

	for (unsigned i = 0; i < rig->store.n; i++)
		n += rig->store.log[i].what == what;
	return n;
}

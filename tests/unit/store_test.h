/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of stores share: an operation at a time, waited for. Included after cmocka.h. */
#pragma once

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/offload.h"
#include "daemon/store/store.h"
#include "daemon/util/util.h"

struct wait_op {
	struct store_op op;
	unsigned calls;
	ssize_t result;
};

static inline void wait_op_done(struct store_op *op, ssize_t result)
{
	struct wait_op *w = container_of(op, struct wait_op, op);

	w->calls++;
	w->result = result;
}

/* Runs the store's ring until `w` is done; checks that it was not done before the ring ran. */
static inline ssize_t wait_for(struct store *s, struct wait_op *w)
{
	uint64_t end = now_ns() + 10000000000ull;

	while (w->calls == 0) {
		assert_true(now_ns() < end);
		assert_true(ring_run(s->ring, true, 64) >= 0);
	}
	assert_int_equal(w->calls, 1);
	return w->result;
}

#define WAIT_OP(s, call, ...) ({ \
	struct wait_op _w = { .op.done = wait_op_done }; \
	(s)->ops->call((s), &_w.op, ##__VA_ARGS__); \
	assert_int_equal(_w.calls, 0); \
	wait_for((s), &_w); })

static inline ssize_t store_read(struct store *s, void *buf, size_t len, uint64_t off) { return WAIT_OP(s, read, buf, len, off); }
static inline ssize_t store_write(struct store *s, const void *buf, size_t len, uint64_t off) { return WAIT_OP(s, write, buf, len, off); }
static inline ssize_t store_sync(struct store *s) { return WAIT_OP(s, sync, false); }
static inline ssize_t store_truncate(struct store *s, uint64_t size) { return WAIT_OP(s, truncate, size); }
static inline ssize_t store_fallocate(struct store *s, int mode, uint64_t off, uint64_t len) { return WAIT_OP(s, fallocate, mode, off, len); }
static inline ssize_t store_is_hole(struct store *s, uint64_t off, uint64_t len) { return WAIT_OP(s, is_hole, off, len); }
static inline ssize_t store_restore_of(struct store *s, struct store_restore *r) { return WAIT_OP(s, restore, r); }
static inline ssize_t store_seek(struct store *s, int whence, uint64_t off) { return WAIT_OP(s, seek, whence, off); }
static inline ssize_t store_stat_of(struct store *s, struct store_stat *ret) { return WAIT_OP(s, stat, ret); }

/* Page-aligned memory with a pattern that tells its offsets apart. */
static inline char *pages(size_t len, unsigned seed)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(seed + i * 7 + (i >> 8) * 13 + 1);
	return p;
}

static inline void assert_zeros(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(p[i], 0);
}

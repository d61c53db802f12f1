/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See bounded_model.h. A unit's bytes are words that are made from file, unit, generation and place, so that a page of another file, another
 * place or another time is told from the right one, and the last two are named.
 */
#include "bounded_model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define WORDS       (UNIT / 8)
#define GENERATIONS 4096u          /* how far back a difference is explained */

struct model *model;
int self = -1;

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void *shared_zeros(uint64_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int model_new(uint64_t seed, int files, int procs, uint64_t cap)
{
	pthread_rwlockattr_t a;

	model = shared_zeros(sizeof(*model));
	if (!model)
		return -ENOMEM;
	model->seed = seed;
	model->files = files;
	model->procs = procs;
	model->cap = cap;
	pthread_rwlockattr_init(&a);
	pthread_rwlockattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (int i = 0; i < files; i++) {
		struct model_file *f = &model->file[i];

		f->units = shared_zeros(cap / UNIT * sizeof(*f->units));
		if (!f->units)
			return -ENOMEM;
		atomic_store(&f->size, cap);
		pthread_rwlock_init(&f->lock, &a);
		for (unsigned s = 0; s < STRIPES; s++)
			pthread_rwlock_init(&f->page[s], &a);
	}
	pthread_rwlockattr_destroy(&a);
	return 0;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

void unit_fill(uint8_t *buf, int file, uint64_t unit, uint32_t state)
{
	uint64_t base = mix((uint64_t)(file + 1) << 56 ^ unit << 24 ^ mix(state)), word;

	if (!state || state & MODEL_ZERO) {
		memset(buf, 0, UNIT);
		return;
	}
	for (uint64_t i = 0; i < WORDS; i++) {
		word = base + i * 0x9e3779b97f4a7c15ull;
		memcpy(buf + i * 8, &word, 8);
	}
}

/* The stripes of a range in ascending order: where the range wraps around, what comes after the end is first. */
static unsigned stripes_of(uint64_t off, uint64_t len, unsigned ret[SPAN_MAX + 1])
{
	uint64_t first = off / PAGE, last = (off + len - 1) / PAGE;
	unsigned n = 0;

	for (uint64_t p = first; p <= last; p++)
		if (p % STRIPES < first % STRIPES)
			ret[n++] = (unsigned)(p % STRIPES);
	for (uint64_t p = first; p <= last; p++)
		if (p % STRIPES >= first % STRIPES)
			ret[n++] = (unsigned)(p % STRIPES);
	return n;
}

void model_lock(int file, uint64_t off, uint64_t len, bool exclusive)
{
	struct model_file *f = &model->file[file];
	unsigned stripe[SPAN_MAX + 1], n = stripes_of(off, len, stripe);

	pthread_rwlock_rdlock(&f->lock);
	for (unsigned i = 0; i < n; i++)
		if (exclusive)
			pthread_rwlock_wrlock(&f->page[stripe[i]]);
		else
			pthread_rwlock_rdlock(&f->page[stripe[i]]);
}

void model_unlock(int file, uint64_t off, uint64_t len)
{
	struct model_file *f = &model->file[file];
	unsigned stripe[SPAN_MAX + 1], n = stripes_of(off, len, stripe);

	for (unsigned i = 0; i < n; i++)
		pthread_rwlock_unlock(&f->page[stripe[i]]);
	pthread_rwlock_unlock(&f->lock);
}

void model_lock_file(int file)
{
	pthread_rwlock_wrlock(&model->file[file].lock);
}

void model_unlock_file(int file)
{
	pthread_rwlock_unlock(&model->file[file].lock);
}

static uint32_t state_next(uint32_t state)
{
	return ((state & ~MODEL_ZERO) + 1) & ~MODEL_ZERO;
}

void model_next(int file, uint64_t off, uint64_t len, uint8_t *buf)
{
	struct model_file *f = &model->file[file];

	for (uint64_t u = off / UNIT; u < (off + len) / UNIT; u++, buf += UNIT)
		unit_fill(buf, file, u, state_next(atomic_load_explicit(&f->units[u], memory_order_relaxed)));
}

void model_stored(int file, uint64_t off, uint64_t len)
{
	struct model_file *f = &model->file[file];

	for (uint64_t u = off / UNIT; u < (off + len) / UNIT; u++) {
		uint32_t state = atomic_load_explicit(&f->units[u], memory_order_relaxed);

		atomic_store_explicit(&f->units[u], state_next(state), memory_order_relaxed);
	}
}

void model_resize(int file, uint64_t size)
{
	struct model_file *f = &model->file[file];
	uint64_t old = atomic_load(&f->size);

	for (uint64_t u = size / UNIT; u < old / UNIT; u++) {
		uint32_t state = atomic_load_explicit(&f->units[u], memory_order_relaxed);

		if (state && !(state & MODEL_ZERO))
			atomic_store_explicit(&f->units[u], state | MODEL_ZERO, memory_order_relaxed);
	}
	atomic_store(&f->size, size);
}

/* What else the bytes of a unit could be. */
static const char *explain(int file, uint64_t unit, uint32_t state, const uint8_t *got)
{
	static char text[96];
	uint8_t other[UNIT];
	uint32_t now = state & ~MODEL_ZERO;

	unit_fill(other, file, unit, MODEL_ZERO);
	if (!memcmp(got, other, UNIT))
		return "zeros";
	for (uint32_t g = now; g && g + GENERATIONS > now; g--) {
		unit_fill(other, file, unit, g);
		if (memcmp(got, other, UNIT))
			continue;
		snprintf(text, sizeof(text), "the bytes of generation %u", g);
		return text;
	}
	return "bytes of another place, or torn";
}

void model_check(int file, uint64_t off, uint64_t len, const uint8_t *got, const char *what)
{
	struct model_file *f = &model->file[file];
	uint8_t want[UNIT];

	for (uint64_t u = off / UNIT; u < (off + len) / UNIT; u++, got += UNIT) {
		uint32_t state = atomic_load_explicit(&f->units[u], memory_order_relaxed);

		unit_fill(want, file, u, state);
		if (memcmp(got, want, UNIT))
			fail("%s: file %d at byte %llu (page %llu) has %s; it should have %s %u; size %llu", what, file,
				(unsigned long long)(u * UNIT), (unsigned long long)(u / UNITS), explain(file, u, state, got),
				!state || state & MODEL_ZERO ? "zeros after generation" : "generation", state & ~MODEL_ZERO,
				(unsigned long long)atomic_load(&f->size));
	}
}

void fail(const char *format, ...)
{
	int none = 0;
	va_list ap;

	if (atomic_compare_exchange_strong(&model->failed, &none, 1)) {
		char line[1024];
		int n = snprintf(line, sizeof(line), "FAILED: seed %llu, process %d (pid %d): ", (unsigned long long)model->seed,
			self, (int)getpid());

		va_start(ap, format);
		vsnprintf(line + n, sizeof(line) - (size_t)n, format, ap);
		va_end(ap);
		fprintf(stderr, "\n%s\n", line);
	}
	_exit(3);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared model of the exerciser: see exerciser_model.h.
 *
 * Locks: one word a page. A holder of any page of a file may rely on the file's size, because a size changes only with
 * all pages held for writing. Taking in ascending order excludes deadlock within a file; a second file or range is only
 * ever tried. Waiting is polling: a dead holder's bits are cleared by the supervisor, so no wake-up could be relied on.
 */
#include "exerciser_model.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct model *model;
int self;

static const char *const op_names[OP_COUNT] = {
	[OP_NONE] = "none", [OP_LOAD] = "load", [OP_STORE] = "store", [OP_SYSCALL_LOAD] = "syscall-load",
	[OP_SYSCALL_STORE] = "syscall-store", [OP_SIGBUS] = "sigbus", [OP_TAIL_STORE] = "tail-store",
	[OP_PREAD] = "pread", [OP_PWRITE] = "pwrite", [OP_PWRITE_MAPPED] = "pwrite-mapped",
	[OP_PREAD_MAPPED] = "pread-mapped", [OP_APPEND] = "append", [OP_TRUNCATE] = "truncate", [OP_PUNCH] = "punch",
	[OP_FALLOCATE] = "fallocate", [OP_MMAP] = "mmap", [OP_MUNMAP] = "munmap", [OP_MUNMAP_PART] = "munmap-part",
	[OP_MREMAP_SHRINK] = "mremap-shrink", [OP_MREMAP_GROW] = "mremap-grow", [OP_MREMAP_MOVE] = "mremap-move",
	[OP_MREMAP_DUP] = "mremap-dup", [OP_MSYNC] = "msync", [OP_FSYNC] = "fsync", [OP_FDATASYNC] = "fdatasync",
	[OP_DONTNEED] = "dontneed", [OP_WILLNEED] = "willneed", [OP_FADVISE] = "fadvise", [OP_FSTAT] = "fstat",
	[OP_FORK] = "fork", [OP_REOPEN] = "reopen", [OP_DROP] = "drop", [OP_KILL] = "kill", [OP_STORM] = "storm",
	[OP_VERIFY] = "verify", [OP_CHECK] = "check",
};

const char *op_name(int op)
{
	return op >= 0 && op < OP_COUNT && op_names[op] ? op_names[op] : "?";
}

int op_by_name(const char *name, size_t len)
{
	for (int i = 1; i < OP_COUNT; i++)
		if (op_names[i] && strlen(op_names[i]) == len && !memcmp(op_names[i], name, len))
			return i;
	return -EINVAL;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

int model_new(uint64_t seed, int procs, int files)
{
	/* From a page to some MiB, so that both collisions within a block and scans over blocks are frequent. */
	static const uint64_t caps[] = { 1 << 20, 64 << 10, MODEL_FILE_MAX, 512 << 10 };
	size_t size = sizeof(struct model) + (size_t)files * sizeof(struct model_file);

	model = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (model == MAP_FAILED)
		return -errno;
	model->seed = seed;
	model->procs = procs;
	model->files = files;
	for (int i = 0; i < files; i++)
		model->file[i].cap = caps[i % (int)(sizeof(caps) / sizeof(caps[0]))];
	return 0;
}

/*
 * A stamp is a one-to-one scrambling of (process, operation number): every byte of it differs between operations, and a
 * wrong word found in a file tells who wrote it and when.
 */
#define MUL_A 0xbf58476d1ce4e5b9ull
#define MUL_B 0x94d049bb133111ebull

static uint64_t stamp_scramble(uint64_t x)
{
	x ^= x >> 30;
	x *= MUL_A;
	x ^= x >> 27;
	x *= MUL_B;
	return x ^ x >> 31;
}

static uint64_t multiplicative_inverse(uint64_t a)
{
	uint64_t x = a;  /* right in the low 3 bits; each step doubles them */

	for (int i = 0; i < 5; i++)
		x *= 2 - a * x;
	return x;
}

static uint64_t unshift(uint64_t y, int by)
{
	uint64_t x = y;

	for (int i = 0; i < 64 / by + 1; i++)
		x = y ^ x >> by;
	return x;
}

static uint64_t stamp_unscramble(uint64_t x)
{
	x = unshift(x, 31) * multiplicative_inverse(MUL_B);
	x = unshift(x, 27) * multiplicative_inverse(MUL_A);
	return unshift(x, 30);
}

uint64_t stamp_new(void)
{
	return stamp_scramble((uint64_t)(self + 1) << 48 | atomic_load(&model->slots[self].opno));
}

uint8_t stamp_byte(uint64_t off, uint64_t stamp)
{
	return (uint8_t)(stamp >> (off & 7) * 8);
}

void stamp_fill(uint8_t *buf, uint64_t off, uint64_t len, uint64_t stamp)
{
	uint64_t i = 0;

	for (; i < len && (off + i) & 7; i++)
		buf[i] = stamp_byte(off + i, stamp);
	for (; i + 8 <= len; i += 8)
		memcpy(buf + i, &stamp, 8);
	for (; i < len; i++)
		buf[i] = stamp_byte(off + i, stamp);
}

/* Says who wrote the eight bytes at `p`, at whatever alignment they were written (an append has its own). */
static bool stamp_explain(char *out, size_t size, const uint8_t *p)
{
	uint64_t word;

	memcpy(&word, p, 8);
	if (!word) {
		snprintf(out, size, "zeros");
		return true;
	}
	for (int turn = 0; turn < 64; turn += 8) {
		uint64_t plain = stamp_unscramble(turn ? word << turn | word >> (64 - turn) : word);

		if (plain >> 48 && plain >> 48 <= MODEL_SLOTS_MAX && !(plain >> 40 & 0xff)) {
			snprintf(out, size, "written by process %d in its operation %llu", (int)(plain >> 48) - 1,
				(unsigned long long)(plain & 0xffffffffffull));
			return true;
		}
	}
	return false;
}

static void wait_a_moment(unsigned *spins)
{
	struct timespec t = { .tv_nsec = 30000 };

	if ((*spins)++ < 4)
		sched_yield();
	else
		nanosleep(&t, NULL);
}

static bool page_trylock(_Atomic uint64_t *word, bool exclusive)
{
	uint64_t old = atomic_load(word);

	for (;;) {
		if (exclusive ? old != 0 : old >> 32 != 0)
			return false;
		/* Pairs with the release by model_unlock() of whoever held it before. */
		if (atomic_compare_exchange_weak(word, &old,
			    exclusive ? (uint64_t)(self + 1) << 32 : old | 1ull << self))
			return true;
	}
}

static void page_unlock(_Atomic uint64_t *word, int who)
{
	uint64_t old = atomic_load(word), new;

	do {
		new = old & ~(1ull << who);
		if (old >> 32 == (uint64_t)(who + 1))
			new = 0;
	} while (!atomic_compare_exchange_weak(word, &old, new));
}

static bool stop_wanted(void)
{
	return atomic_load(&model->failed) != 0;
}

void model_lock(struct model_file *f, uint64_t off, uint64_t len, bool exclusive)
{
	for (uint64_t p = off / MODEL_PAGE; p <= (off + len - 1) / MODEL_PAGE; p++) {
		unsigned spins = 0;

		while (!page_trylock(&f->lock[p], exclusive)) {
			if (stop_wanted())
				_exit(3);
			wait_a_moment(&spins);
		}
		if (exclusive)
			atomic_fetch_add(&f->touched[p], 1);
	}
}

bool model_trylock(struct model_file *f, uint64_t off, uint64_t len, bool exclusive)
{
	for (uint64_t p = off / MODEL_PAGE; p <= (off + len - 1) / MODEL_PAGE; p++) {
		if (!page_trylock(&f->lock[p], exclusive)) {
			if (p > off / MODEL_PAGE)
				model_unlock(f, off, p * MODEL_PAGE - off);
			return false;
		}
		if (exclusive)
			atomic_fetch_add(&f->touched[p], 1);
	}
	return true;
}

void model_unlock(struct model_file *f, uint64_t off, uint64_t len)
{
	for (uint64_t p = off / MODEL_PAGE; p <= (off + len - 1) / MODEL_PAGE; p++)
		page_unlock(&f->lock[p], self);
}

void model_unlock_dead(int slot)
{
	for (int i = 0; i < model->files; i++)
		for (uint64_t p = 0; p < model->file[i].cap / MODEL_PAGE; p++)
			page_unlock(&model->file[i].lock[p], slot);
}

void model_touch(struct model_file *f)
{
	for (uint64_t p = 0; p < f->cap / MODEL_PAGE; p++)
		atomic_fetch_add(&f->touched[p], 1);
}

void model_sync_begin(struct model_sync *s, struct model_file *f, uint64_t off, uint64_t len)
{
	uint64_t end = off + len < f->cap ? off + len : f->cap;

	s->file = f;
	s->first = off / MODEL_PAGE;
	s->n = end > off ? (end + MODEL_PAGE - 1) / MODEL_PAGE - s->first : 0;
	for (uint64_t i = 0; i < s->n; i++) {
		/* In this order: who takes the lock after the first look makes the number another one. */
		s->touched[i] = atomic_load(&f->touched[s->first + i]);
		s->whole[i] = atomic_load(&f->lock[s->first + i]) >> 32 == 0;
	}
}

void model_sync_done(const struct model_sync *s)
{
	for (uint64_t i = 0; i < s->n; i++) {
		_Atomic uint32_t *synced = &s->file->synced[s->first + i];
		uint32_t old = atomic_load(synced);

		while (s->whole[i] && (int32_t)(s->touched[i] - old) > 0 && !atomic_compare_exchange_weak(synced, &old, s->touched[i]))
			;
	}
}

bool model_page_synced(const struct model_file *f, uint64_t page, uint32_t *ret_touched)
{
	*ret_touched = atomic_load(&f->touched[page]);
	return atomic_load(&f->lock[page]) >> 32 == 0 && atomic_load(&f->synced[page]) == *ret_touched;
}

void intent_begin(enum op kind, int file, uint64_t off, uint64_t len, uint64_t stamp, uint64_t old_size,
	uint64_t new_size)
{
	struct intent *i = &model->slots[self].intent;

	i->file = file;
	i->off = off;
	i->len = len;
	i->stamp = stamp;
	i->old_size = old_size;
	i->new_size = new_size;
	atomic_store(&i->kind, kind);  /* the supervisor reads the rest only where it sees this */
}

void intent_end(void)
{
	atomic_store(&model->slots[self].intent.kind, OP_NONE);
}

void model_write(struct model_file *f, uint64_t off, const uint8_t *buf, uint64_t len)
{
	memcpy(f->bytes + off, buf, len);
	if (off + len > atomic_load(&f->size))
		atomic_store(&f->size, off + len);
}

void model_zero(struct model_file *f, uint64_t off, uint64_t len)
{
	memset(f->bytes + off, 0, len);
}

void model_resize(struct model_file *f, uint64_t size)
{
	uint64_t old = atomic_load(&f->size);

	if (size < old) {
		memset(f->bytes + size, 0, old - size);
		for (uint64_t p = (size + MODEL_PAGE - 1) / MODEL_PAGE; p < f->cap / MODEL_PAGE; p++)
			atomic_fetch_add(&f->cut[p], 1);
	}
	atomic_store(&f->size, size);
}

struct history *history_begin(enum op op, int file, uint64_t off, uint64_t len, const void *addr)
{
	struct slot *s = &model->slots[self];
	uint64_t n = atomic_load(&s->history_n);
	struct history *h = &s->history[n % MODEL_HISTORY];

	*h = (struct history){ .t_ns = now_ns(), .opno = atomic_load(&s->opno), .op = op, .file = file, .off = off,
		.len = len, .addr = (uintptr_t)addr, .result = LONG_MIN };
	atomic_store(&s->history_n, n + 1);
	return h;
}

void history_end(struct history *h, long result)
{
	h->result = result;
	if (h->op < OP_STORM)
		atomic_fetch_add(&model->ops, 1);
	atomic_fetch_add(&model->count[h->op], 1);
	atomic_fetch_add(&model->beat, 1);
}

struct history_line {
	const struct history *h;
	int slot;
};

static int history_order(const void *a, const void *b)
{
	const struct history_line *x = a, *y = b;

	return (x->h->t_ns > y->h->t_ns) - (x->h->t_ns < y->h->t_ns);
}

static void history_print(const struct history_line *lines, size_t n, uint64_t end, int file, uint64_t page)
{
	for (size_t i = 0; i < n; i++) {
		const struct history *h = lines[i].h;
		bool hit = h->file == file && page <= (h->off + h->len) / MODEL_PAGE && h->off / MODEL_PAGE <= page;

		if (file >= 0 && !hit && h->op != OP_DROP && h->op != OP_KILL)
			continue;
		fprintf(stderr, "  -%10.6f s  process %2d operation %llu %-13s file %d offset %llu length %llu",
			(double)(end - h->t_ns) / 1e9, lines[i].slot, (unsigned long long)h->opno, op_name(h->op),
			h->file, (unsigned long long)h->off, (unsigned long long)h->len);
		if (h->addr)
			fprintf(stderr, " at %#llx", (unsigned long long)h->addr);
		if (h->result == LONG_MIN)
			fprintf(stderr, " (under way)");
		else if (h->result < 0)
			fprintf(stderr, " = %ld", h->result);
		fputc('\n', stderr);
	}
}

void history_dump(void)
{
	static struct history_line lines[MODEL_SLOTS_MAX * MODEL_HISTORY];
	size_t n = 0;
	int file = atomic_load(&model->fail_file) - 1;
	uint64_t off = atomic_load(&model->fail_off), end = now_ns();

	for (int s = 0; s < MODEL_SLOTS_MAX; s++)
		for (int i = 0; i < MODEL_HISTORY; i++)
			if (model->slots[s].history[i].op != OP_NONE)
				lines[n++] = (struct history_line){ &model->slots[s].history[i], s };
	qsort(lines, n, sizeof(lines[0]), history_order);
	if (file >= 0 && off != UINT64_MAX) {
		fprintf(stderr, "operations on page %llu of file %d, as far as remembered:\n",
			(unsigned long long)(off / MODEL_PAGE), file);
		history_print(lines, n, end, file, off / MODEL_PAGE);
	}
	fprintf(stderr, "last operations of each process:\n");
	history_print(lines, n, end, -1, 0);
}

void fail_at(int file, uint64_t off, const char *fmt, ...)
{
	int none = 0;
	va_list ap;

	if (atomic_compare_exchange_strong(&model->failed, &none, self + 1)) {
		const struct slot *s = &model->slots[self];
		char line[1024];
		int n;

		atomic_store(&model->fail_off, off);
		atomic_store(&model->fail_file, file + 1);
		n = snprintf(line, sizeof(line), "\nFAILED: seed %llu, process %d (pid %d), operation %llu: ",
			(unsigned long long)model->seed, self, (int)getpid(), (unsigned long long)s->opno);
		va_start(ap, fmt);
		vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
		va_end(ap);
		fprintf(stderr, "%s\n", line);
	}
	_exit(3);
}

static void explain_at(char *out, size_t size, const uint8_t *buf, uint64_t off, uint64_t at, uint64_t len)
{
	uint64_t word = (off + at) / 8 * 8;  /* of the file */

	/* The word at fault may be of two writers; then the next one tells. */
	snprintf(out, size, "of nobody known");
	for (int i = 0; i < 2; i++, word += 8)
		if (word >= off && word - off + 8 <= len && stamp_explain(out, size, buf + (word - off)))
			return;
}

void expect_bytes(int file, uint64_t off, const uint8_t *got, const uint8_t *want, uint64_t len, const char *what,
	const uint8_t *again)
{
	char got_says[80], want_says[80];
	uint64_t i = 0, bad = 0;

	atomic_fetch_add(&model->compared, len);
	if (!memcmp(got, want, len))
		return;
	while (got[i] == want[i])
		i++;
	for (uint64_t j = i; j < len; j++)
		bad += got[j] != want[j];
	explain_at(got_says, sizeof(got_says), got, off, i, len);
	explain_at(want_says, sizeof(want_says), want, off, i, len);
	fail_at(file, off + i, "%s: file %d (%s) differs at byte %llu (page %llu + %llu): has %02x (%s), should be %02x (%s); "
		"%llu of the %llu bytes from %llu differ; size %llu%s", what, file, model->file[file].path,
		(unsigned long long)(off + i), (unsigned long long)((off + i) / MODEL_PAGE),
		(unsigned long long)((off + i) % MODEL_PAGE), got[i], got_says, want[i], want_says,
		(unsigned long long)bad, (unsigned long long)len, (unsigned long long)off,
		(unsigned long long)atomic_load(&model->file[file].size),
		!again ? "" : again[i] == want[i] ? "; read again it is right" : "; read again it is still wrong");
}

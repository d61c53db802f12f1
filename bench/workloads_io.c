/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads that call pread and pwrite: `n` bytes at a time, at offsets in random order, each timed alone. What comes in is compared, outside of the time. What goes
 * out differs from what was there, is looked for in the store after fsync, and is put back at the end. And one that reads past all caches.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

#define CHUNK      (1ull << 20)
#define SECONDS    0.3          /* at most */
#define WARM_OPS   100000u
#define COLD_OPS   4000u
#define WARM_RANGE (256ull << 20) /* bytes of the file that are in the cache first */
#define LARGE      (256ull << 20) /* bytes, at most, of calls of more than a page */
#define CLOCK_LOOKS 10000u
#define STAMP      0x50777269746573ull
#define DIRECT     (256ull << 10) /* bytes */
#define DEPTHS     { 4, 8, 16, 32 }
#define DEPTH_MAX  32u

struct io {
	struct run *r;
	const struct workload *w;
	struct subject s;
	uint32_t *order, slots, ops, done;
	uint64_t *buf;
};

/* One in each page of the file, or in each stretch of n bytes where these are more. */
static uint64_t io_offset(const struct io *io, uint32_t i)
{
	uint64_t slot = io->order[i % io->slots], n = io->w->n;

	return n >= PAGE ? slot * n : slot * PAGE + bench_mix(slot) % (PAGE / n) * n;
}

static void io_read(struct io *io, uint64_t off, uint64_t n)
{
	ssize_t got = contestants[io->s.who].pread(&io->s, io->buf, n, off);

	if (got != (ssize_t)n)
		die("%s: pread at %" PRIu64 ": %zd", contestants[io->s.who].name, off, got);
}

static void io_write(struct io *io, uint64_t off, uint64_t n)
{
	ssize_t put = contestants[io->s.who].pwrite(&io->s, io->buf, n, off);

	if (put != (ssize_t)n)
		die("%s: pwrite at %" PRIu64 ": %zd", contestants[io->s.who].name, off, put);
}

static void io_fill(struct io *io, uint64_t off, uint64_t n, uint64_t change)
{
	for (uint64_t i = 0; i < n / 8; i++)
		io->buf[i] = bench_word(off + i * 8) ^ change;
}

static void io_compare(const struct io *io, uint64_t off, uint64_t n, uint64_t change)
{
	for (uint64_t i = 0; i < n / 8; i++)
		if (io->buf[i] != (bench_word(off + i * 8) ^ change))
			die("%s by %s: wrong bytes at %" PRIu64, io->w->name, contestants[io->s.who].name, off + i * 8);
}

static void io_begin(struct io *io, struct run *r, const struct workload *w)
{
	uint64_t range = w->cold ? r->size : MIN_OF(r->range, WARM_RANGE), stretch = w->n > PAGE ? w->n : PAGE;

	*io = (struct io){ .r = r, .w = w, .slots = (uint32_t)(range / stretch) };
	io->ops = w->n > PAGE ? (uint32_t)(LARGE / w->n) : w->cold ? COLD_OPS : WARM_OPS;
	if (w->cold)
		io->ops = MIN_OF(io->ops, io->slots);
	io->order = bench_shuffled(io->slots, r->number);
	io->buf = aligned_alloc(PAGE, CHUNK);
	if (!io->buf)
		die("out of memory");
	memset(io->buf, 0, CHUNK);
	subject_open(&io->s, r->who, r->path);
	for (uint64_t off = 0; !w->cold && off < range; off += CHUNK) {
		io_read(io, off, CHUNK);
		io_compare(io, off, CHUNK, 0);
	}
}

/* What looking at the clock adds to a time, ns: as much as a read of a few bytes. */
static double clock_cost(void)
{
	uint64_t from = now_ns(), to = from;

	for (unsigned i = 0; i < CLOCK_LOOKS; i++)
		to = now_ns();
	return (double)(to - from) / CLOCK_LOOKS;
}

static void io_end(struct io *io, uint64_t spent)
{
	double each = (double)spent / io->done;

	io->r->value = (each - MIN_OF(clock_cost(), each / 2)) / 1e3;
	free(io->order);
	free(io->buf);
}

void run_pread(struct run *r, const struct workload *w)
{
	uint64_t spent = 0, end, limit = (uint64_t)(1e9 * MIN_OF(r->seconds, SECONDS));
	struct io io;

	io_begin(&io, r, w);
	end = now_ns() + limit;
	for (; io.done < io.ops && now_ns() < end; io.done++) {
		uint64_t off = io_offset(&io, io.done), from = now_ns(), took;

		io_read(&io, off, w->n);
		took = now_ns() - from;
		spent += took;
		hist_add(&r->hist, took);
		io_compare(&io, off, w->n, 0);
	}
	io_end(&io, spent);
}

void run_pwrite(struct run *r, const struct workload *w)
{
	uint64_t spent = 0, end, limit = (uint64_t)(1e9 * MIN_OF(r->seconds, SECONDS));
	uint32_t different;
	struct io io;

	io_begin(&io, r, w);
	end = now_ns() + limit;
	for (; io.done < io.ops && now_ns() < end; io.done++) {
		uint64_t off = io_offset(&io, io.done), from, took;

		io_fill(&io, off, w->n, STAMP);
		from = now_ns();
		io_write(&io, off, w->n);
		took = now_ns() - from;
		spent += took;
		hist_add(&r->hist, took);
	}
	subject_sync(&io.s);
	different = MIN_OF(io.done, io.slots);
	for (uint32_t i = 0; i < different; i += different / CHECKS_MAX + 1) {
		uint64_t off = io_offset(&io, i);

		io_read(&io, off, w->n);
		io_compare(&io, off, w->n, STAMP);
		run_check(r, off + w->n - 8, bench_word(off + w->n - 8) ^ STAMP);
	}
	run_checks(r);
	for (uint32_t i = 0; i < different; i++) {
		io_fill(&io, io_offset(&io, i), w->n, 0);
		io_write(&io, io_offset(&io, i), w->n);
	}
	subject_sync(&io.s);
	io_end(&io, spent);
}

/* ---- past all caches ---- */

struct direct {
	struct io_uring ring;
	int fd;
	uint64_t off[DEPTH_MAX];   /* what each buffer is read from */
	uint8_t *buf;
};

static void direct_begin(struct direct *d, unsigned i, uint64_t off)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);

	d->off[i] = off;
	io_uring_prep_read(sqe, d->fd, d->buf + i * DIRECT, DIRECT, off);
	io_uring_sqe_set_data64(sqe, i);
	io_uring_submit(&d->ring);
}

/* Returns whose. */
static unsigned direct_wait(struct direct *d)
{
	struct io_uring_cqe *cqe;
	uint64_t word;
	unsigned i;
	int r = io_uring_wait_cqe(&d->ring, &cqe);

	if (r < 0 || cqe->res != (int)DIRECT)
		die("a direct read: %s", strerror(r < 0 ? -r : cqe->res < 0 ? -cqe->res : EIO));
	i = (unsigned)io_uring_cqe_get_data64(cqe);
	io_uring_cqe_seen(&d->ring, cqe);
	for (uint64_t at = 0; at < DIRECT; at += PAGE) {
		memcpy(&word, d->buf + i * DIRECT + at, 8);
		if (word != bench_word(d->off[i] + at))
			die("wrong bytes at %" PRIu64, d->off[i] + at);
	}
	return i;
}

/* [from, end), whole reads; bytes a second. */
static double direct_read(struct direct *d, uint64_t from, uint64_t end, unsigned depth)
{
	uint64_t next = from;
	unsigned busy = 0;
	double start = bench_now();

	for (; busy < depth && next < end; next += DIRECT)
		direct_begin(d, busy++, next);
	while (busy > 0) {
		unsigned i = direct_wait(d);

		busy--;
		if (next >= end)
			continue;
		direct_begin(d, i, next);
		next += DIRECT;
		busy++;
	}
	return (double)(end - from) / (bench_now() - start);
}

/* Each depth has a part of the file of its own. */
void run_direct_sequential(struct run *r, const struct workload *w)
{
	static const unsigned depths[] = DEPTHS;
	struct direct d = { .fd = open(r->path, O_RDONLY | O_DIRECT | O_CLOEXEC) };
	uint64_t part = r->size / ELEMS(depths) / DIRECT * DIRECT;

	if (d.fd < 0)
		die("%s: %s", r->path, strerror(errno));
	d.buf = aligned_alloc(2 << 20, DEPTH_MAX * DIRECT);
	if (!d.buf || io_uring_queue_init(DEPTH_MAX, &d.ring, 0) < 0)
		die("%s: no memory, or no ring", w->name);
	memset(d.buf, 0, DEPTH_MAX * DIRECT);
	for (unsigned i = 0; i < ELEMS(depths); i++) {
		double speed = direct_read(&d, i * part, (i + 1) * part, depths[i]) / 1e6;

		r->value = speed > r->value ? speed : r->value;
	}
	io_uring_queue_exit(&d.ring);
	close(d.fd);
	free(d.buf);
}

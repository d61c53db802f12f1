/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few buffers for each worker, two huge pages of memory where the system gives one. A direct read of 256 KiB into the memfd itself has the kernel fault 64 pages in,
 * one by one, and the device gets an address for each of them. Into a buffer that is there already it has one address, and pwrite(2) makes the memfd's
 * pages in less than half the time that faulting them takes, without zeroing them first.
 *
 * That is most of the work of a large read, so where there are processors for it another thread does it, as long as nobody waits for the pages. Not with pwrite(2): a
 * write makes longer what was truncated meanwhile. UFFDIO_COPY takes the same time, and two of them hold no lock against each other. For that a piece of the memfd is
 * mapped, and registered with a userfaultfd of our own, from the first of the copies that are under way there until the last one has ended: no longer, as a mapping
 * keeps the file's memory.
 *
 * The memory is taken with the first such read, only where it is little beside the limit, is charged as a table, and stays.
 * Runs on the worker. May call budget, offload and uffd.
 */
#include "daemon/staging.h"

#include <assert.h>
#include <sys/mman.h>

#include "daemon/uffd.h"
#include "daemon/worker.h"

#define ALL_BYTES (STAGING_BUFFER * STAGING_BUFFERS)
#define VIEW_PAGES  512u             /* where it begins is a multiple of that; what begins in it may end behind it */
#define VIEW_BYTES  (VIEW_PAGES * PAGE_SIZE_ + STAGING_BUFFER)
#define LITTLE    64u                /* of the limit on memory, the buffers of all workers are at most this part */

static bool staging_make(struct worker *w)
{
	uint64_t pages = ALL_BYTES / PAGE_SIZE_;
	char *p, *aligned;

	if (atomic_load_explicit(&w->budget->memory_max, memory_order_relaxed) / LITTLE < pages * w->n_workers)
		return false;
	p = mmap(NULL, 2 * ALL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return false;
	/* Huge pages begin at multiples of their size. */
	aligned = (char *)align_up((uintptr_t)p, ALL_BYTES);
	if (aligned > p)
		(void)munmap(p, (size_t)(aligned - p));
	(void)munmap(aligned + ALL_BYTES, (size_t)(p + ALL_BYTES - aligned));
	(void)madvise(aligned, ALL_BYTES, MADV_HUGEPAGE);
	budget_charge_tables(w, (int64_t)pages);
	w->staging = (struct staging){ .memory = aligned, .uffd = w->alone || !offload_is_running() ? -1 : uffd_new_own() };
	while (w->staging.n_unused < STAGING_BUFFERS) {
		w->staging.unused[w->staging.n_unused] = (uint8_t)w->staging.n_unused;
		w->staging.n_unused++;
	}
	return true;
}

char *staging_take(struct worker *w)
{
	struct staging *s = &w->staging;

	if ((!s->memory && !staging_make(w)) || s->n_unused == 0)
		return NULL;
	return s->memory + s->unused[--s->n_unused] * STAGING_BUFFER;
}

void staging_give(struct worker *w, char *buffer)
{
	struct staging *s = &w->staging;

	assert(s->n_unused < STAGING_BUFFERS);
	s->unused[s->n_unused++] = (uint8_t)((size_t)(buffer - s->memory) / STAGING_BUFFER);
}

/* --- copies on another thread --- */

static bool view_map(struct staging_view *v, int uffd, int memfd, uint64_t first)
{
	char *p = mmap(NULL, VIEW_BYTES, PROT_READ, MAP_SHARED, memfd, (off_t)(first * PAGE_SIZE_));

	if (p == MAP_FAILED)
		return false;
	if (uffd_register_missing(uffd, (uintptr_t)p, VIEW_BYTES) < 0) {
		(void)munmap(p, VIEW_BYTES);
		return false;
	}
	(void)madvise(p, VIEW_BYTES, MADV_RANDOM); /* else the kernel notes at the end that each page was used */
	*v = (struct staging_view){ .memfd = memfd, .first = first, .addr = p };
	return true;
}

/* NULL: there is no more room for one. */
static struct staging_view *view_take(struct staging *s, int memfd, uint64_t page)
{
	struct staging_view *unused = NULL;
	uint64_t first = align_down(page, VIEW_PAGES);

	for (struct staging_view *v = s->view; v < s->view + STAGING_VIEWS; v++) {
		if (v->users == 0) {
			unused = v;
		} else if (v->memfd == memfd && v->first == first) {
			v->users++;
			return v;
		}
	}
	if (!unused || !view_map(unused, s->uffd, memfd, first))
		return NULL;
	unused->users = 1;
	return unused;
}

static void view_put(struct staging_view *v)
{
	if (--v->users == 0)
		(void)munmap(v->addr, VIEW_BYTES);
}

static void copy_run(struct offload_job *job)
{
	struct staging_copy *c = container_of(job, struct staging_copy, job);

	c->error = uffd_copy(c->uffd, (uintptr_t)c->to, c->from, c->len);
}

bool staging_copy_begin(struct worker *w, struct staging_copy *c, int memfd, uint64_t first, uint64_t n, const char *buffer,
			void (*done)(struct ring_op *op, int res, uint32_t cflags))
{
	struct staging *s = &w->staging;
	struct staging_view *v = s->uffd >= 0 && s->copies < STAGING_COPIES ? view_take(s, memfd, first) : NULL;

	if (!v)
		return false;
	*c = (struct staging_copy){
		.job = { .run = copy_run, .done = { done }, .key = (uintptr_t)s }, /* one after the other: two at a time take the processors from worker and client */
		.view = v, .uffd = s->uffd, .to = v->addr + (first - v->first) * PAGE_SIZE_, .from = buffer, .len = n * PAGE_SIZE_,
	};
	if (offload_submit(&w->ring, &c->job) < 0) {
		view_put(v);
		return false;
	}
	s->copies++;
	ring_flush(&w->ring);
	return true;
}

int staging_copy_end(struct worker *w, struct staging_copy *c)
{
	w->staging.copies--;
	view_put(c->view);
	return c->error;
}

void staging_free(struct worker *w)
{
	if (!w->staging.memory || w->staging.n_unused < STAGING_BUFFERS)
		return;
	(void)munmap(w->staging.memory, ALL_BYTES);
	if (w->staging.uffd >= 0)
		close(w->staging.uffd);
	budget_charge_tables(w, -(int64_t)(ALL_BYTES / PAGE_SIZE_));
	w->staging = (struct staging){ 0 };
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few buffers for each worker, two huge pages of memory where the system gives one. A direct read of 256 KiB into the memfd itself has the kernel fault 64 pages in,
 * one by one, and the device gets an address for each of them. Into a buffer that is there already it has one address, and pwrite(2) makes the memfd's
 * pages in less than half the time that faulting them takes, without zeroing them first.
 *
 * The memory is taken with the first such read, only where it is little beside the limit, is charged as a table, and stays.
 * Runs on the worker. May call budget.
 */
#include "daemon/staging.h"

#include <assert.h>
#include <sys/mman.h>

#include "daemon/worker.h"

#define ALL_BYTES (STAGING_BUFFER * STAGING_BUFFERS)
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
	w->staging = (struct staging){ .memory = aligned };
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

void staging_free(struct worker *w)
{
	if (!w->staging.memory || w->staging.n_unused < STAGING_BUFFERS)
		return;
	(void)munmap(w->staging.memory, ALL_BYTES);
	budget_charge_tables(w, -(int64_t)(ALL_BYTES / PAGE_SIZE_));
	w->staging = (struct staging){ 0 };
}

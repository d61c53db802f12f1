/* SPDX-License-Identifier: Apache-2.0 */
/* See around.h. */
#include "daemon/around.h"

#include <fcntl.h>

#include "daemon/huge.h"

#define AROUND         64u       /* pages, a block: a random access brings those that it lies among, and maps them */
#define DENSITY_MAX    5u        /* times that this is doubled, where much of the file is here */
#define MAP_DENSE      512u      /* pages mapped then by one CONTINUE: a page table's; some 40 us of work */
#define MAP_SEQUENTIAL 2048u     /* in a stream: some 160 us of work */
#define MAP_HUGE       (256 * HUGE_PAGES) /* which is as much work */

/*
 * How much of the file is here, from 0 to DENSITY_MAX (an eighth or more). The more, the likelier the next accesses are to want what is not: who touches all of it at random waits
 * for fewer reads and has fewer faults, and for others the whole file is the most that is read in vain.
 */
static unsigned density(const struct file *f)
{
	return MIN(63 - (unsigned)__builtin_clzll(1 + f->e->resident * 256 / MAX(file_pages(f), 1)), DENSITY_MAX);
}

uint64_t around_read(const struct space *s, uint64_t addr)
{
	bool may = worker_has_plenty(s->worker, s->toucher.domain, AROUND) && !s->noreuse && !s->file->huge && !s->file->barrier.active && !space_in_window(s, addr);

	return may ? AROUND : 0;
}

uint64_t around_wide(const struct space *s)
{
	uint64_t pages = (uint64_t)AROUND << density(s->file);

	while (pages > s->file->readahead_max / PAGE_SIZE_ && pages > AROUND)
		pages /= 2;
	return worker_has_plenty(s->worker, s->toucher.domain, pages) ? pages : 0;
}

/* Where memory is short a fault tells the policy what is used, and what is mapped with another page tells nothing. */
static bool maps_much(const struct space *s)
{
	return s->readahead.advice == POSIX_FADV_NORMAL && density(s->file) == DENSITY_MAX && worker_has_plenty(s->worker, s->toucher.domain, MAP_DENSE);
}

/* A marker is for what comes behind it, which may all be here already. */
static void huge_mapped(struct file *f, const struct readahead_plan *plan, uint64_t page, uint64_t above, uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t max = MIN(above, MAP_HUGE), run = plan ? file_resident_run(f, page, max) : 0;

	*ret_from = page;
	*ret_to = page + (run < max ? MAX(MIN(run, align_down(MAX(plan ? plan->map_to : page, page), HUGE_PAGES) - page), HUGE_PAGES) : run);
}

void around_mapped(const struct space *s, const struct readahead_plan *plan, uint64_t page, uint64_t below, uint64_t above, uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t most = MAP_SEQUENTIAL;
	struct file *f = s->file;

	if (f->huge) {
		huge_mapped(f, plan, page, above, ret_from, ret_to);
		return;
	}
	*ret_from = page;
	*ret_to = page + 1;
	if (!plan)
		return;
	if (!plan->stream) {
		most = maps_much(s) ? MAP_DENSE : AROUND;
		below = MIN(below, page % most);
		if (most == MAP_DENSE)
			above = MIN(above, most - page % most);
		if (plan->around_to > 0)
			most = AROUND - page % AROUND;
	}
	if (plan->map_to > page + 1)
		*ret_to = page + file_resident_run(f, page, MIN(MIN(above, most), plan->map_to - page));
	if (plan->map_from < page)
		*ret_from = page - file_resident_below(f, page, MIN(MIN(below, most), page - plan->map_from));
}

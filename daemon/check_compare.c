/* SPDX-License-Identifier: Apache-2.0 */
/* See check_compare.h. */
#include "daemon/check_compare.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/util/util.h"

static int by_address(const void *a, const void *b)
{
	const struct check_map *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

void check_maps_sort(struct check_map *m, size_t n)
{
	if (n > 0)
		qsort(m, n, sizeof(*m), by_address);
}

/* Do both say the same of addresses that both cover? */
static bool same(const struct check_map *a, const struct check_map *b) { return a->start - a->off == b->start - b->off; }

/* Parts of `a` that no element of b covers; with `alike` only where it says the same. Both ascending. */
static void uncovered(const struct check_map *a, const struct check_map *b, size_t n_b, size_t *from, bool alike,
		      void (*part)(void *arg, struct range r), void *arg)
{
	uint64_t at = a->start;

	while (*from < n_b && b[*from].end <= a->start)
		(*from)++;
	for (size_t i = *from; i < n_b && b[i].start < a->end && at < a->end; i++) {
		/* What is known as not tracked may be private; but what is shared must be tracked. */
		if (alike && (!same(a, &b[i]) || (b[i].tracked && !a->tracked)))
			continue;
		if (b[i].start > at)
			part(arg, (struct range){ at, b[i].start });
		at = MAX(at, b[i].end);
	}
	if (at < a->end)
		part(arg, (struct range){ at, a->end });
}

void check_maps_compare(const struct check_map *known, size_t n_known, const struct check_map *kernel, size_t n_kernel,
			void (*gone)(void *arg, struct range addresses), void (*unknown)(void *arg, struct range addresses), void *arg)
{
	size_t from = 0;

	/* Of a window's end no event tells, and its handle is about to say so. */
	for (size_t i = 0; i < n_known; i++)
		if (!known[i].window)
			uncovered(&known[i], kernel, n_kernel, &from, true, gone, arg);
	from = 0;
	for (size_t i = 0; i < n_kernel; i++)
		uncovered(&kernel[i], known, n_known, &from, false, unknown, arg);
}

/* --- references --- */

struct edge { uint64_t at; int mappings, refs; };

static int by_place(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

int check_refs_compare(const struct check_map *known, size_t n_known, const struct check_refs *refs, size_t n_refs,
		       void (*differs)(void *arg, struct range bytes, uint32_t shown, uint32_t counted), void *arg)
{
	size_t n = 0, total = 2 * (n_known + n_refs);
	_cleanup_free_ struct edge *e = calloc(MAX(total, (size_t)1), sizeof(*e));
	int64_t mappings = 0, shown = 0;

	if (!e)
		return -ENOMEM;
	for (size_t i = 0; i < n_known; i++) {
		if (known[i].window)
			continue;
		e[n++] = (struct edge){ known[i].off, 1, 0 };
		e[n++] = (struct edge){ known[i].off + (known[i].end - known[i].start), -1, 0 };
	}
	for (size_t i = 0; i < n_refs; i++) {
		e[n++] = (struct edge){ refs[i].r.start, 0, (int)refs[i].refs };
		e[n++] = (struct edge){ refs[i].r.end, 0, -(int)refs[i].refs };
	}
	qsort(e, n, sizeof(*e), by_place);
	for (size_t i = 0; i < n;) {
		uint64_t at = e[i].at;

		for (; i < n && e[i].at == at; i++) {
			mappings += e[i].mappings;
			shown += e[i].refs;
		}
		if (mappings != shown && i < n)
			differs(arg, (struct range){ at, e[i].at }, (uint32_t)shown, (uint32_t)mappings);
	}
	return 0;
}

/* --- bits --- */

uint64_t check_bits_wrong(const struct check_bits *b)
{
	uint64_t wrong = (b->dirty | b->writeback | b->keep | b->ahead | b->pinned) & ~b->resident; /* all of these are subsets of it */

	wrong |= b->keep & ~(b->dirty | b->writeback);
	wrong |= (b->filling | b->second) & b->resident;
	wrong |= b->filling & b->second;
	wrong |= b->shown & (~b->resident | b->ahead);
	wrong |= b->beyond & (b->resident | b->second);
	return wrong;
}

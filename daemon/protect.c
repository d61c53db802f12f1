/* SPDX-License-Identifier: Apache-2.0 */
/* See protect.h. May call fault, space, track, uffd. */
#include "daemon/protect.h"

#include "daemon/fault.h"
#include "daemon/kill_point.h"
#include "daemon/track.h"

/* Protects [lo, hi) of the addresses, page by page where the range is not one registered piece. */
static int protect_range(struct space *s, uint64_t addr, uint64_t len)
{
	int r = uffd_protect(s->uffd, addr, len, true, false);

	if (r != -ENOENT)
		return r;
	for (uint64_t a = addr; a < addr + len; a += PAGE_SIZE_) {
		r = uffd_protect(s->uffd, a, PAGE_SIZE_, true, false);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

struct protect { struct space *s; uint64_t from, to; };

static int protect_segment(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	struct protect *p = arg;
	uint64_t lo = MAX(off, p->from), hi = MIN(off + (r.end - r.start), p->to);

	if (!(attr & SEG_SHARED) || lo >= hi)
		return 0;
	return protect_range(p->s, r.start + (lo - off), hi - lo);
}

static int protect_space(struct space *s, uint64_t first, uint64_t n)
{
	struct protect p = { s, first * PAGE_SIZE_, (first + n) * PAGE_SIZE_ };
	int r = -EAGAIN;

	for (int tries = 0; tries < 2 && r == -EAGAIN; tries++) {
		if (tries)
			fault_drain_events(s); /* changes the table, so the walk starts again */
		r = file_range_set_walk(&s->maps, (struct range){ 0, ~0ull }, protect_segment, &p);
	}
	if (r == -ESRCH)
		return 0; /* it cannot store any more; its end is noticed elsewhere */
	if (r < 0)
		return -EAGAIN;
	/* Write-outs ascend, so the superset is cut from below as they go. */
	if (first <= s->unprotected_lo)
		s->unprotected_lo = MIN(MAX(first + n, s->unprotected_lo), s->unprotected_hi);
	else if (first + n >= s->unprotected_hi)
		s->unprotected_hi = MAX(first, s->unprotected_lo);
	return 0;
}

int protect_pages(struct file *f, uint64_t first, uint64_t n)
{
	struct space *s;
	int r = f->awaited > 0 ? -EPERM : track_may_clean(f, first, n);

	/* Draining a space's events may add a forked child at the end of the list, which has its turn too; nothing is removed. */
	list_for_each(s, &f->spaces, by_file) {
		int e;

		if (tracker_on(&s->tracker)) /* what it has stored to has been looked for, and is protected again as far as it was found */
			continue;
		if (s->blind || ((s->restoring || space_expects_move(s)) && r == 0))
			r = s->blind ? -EPERM : -EAGAIN;
		if (s->blind || s->restoring || s->unprotected_lo >= s->unprotected_hi || first >= s->unprotected_hi ||
		    first + n <= s->unprotected_lo)
			continue;
		e = protect_space(s, first, n);
		kill_point("writeback.protecting");
		if (e < 0) {
			s->worker->stats->ioctl_retries++;
			r = r == -EPERM ? r : e;
		}
	}
	return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See check_look.h. On offload threads but for the two that start it. */
#include "daemon/check_look.h"

#include <string.h>

#include "daemon/pagemap.h"
#include "daemon/util/util.h"
#include "daemon/vma_query.h"

#define OFFLOAD_KEY (~0ull)          /* of no device: faults that ask for a mapping do not wait behind this */
#define ENTRIES     512u

/* Of an entry of pagemap. */
#define PM_UFFD_WP  (1ull << 57)
#define PM_FILE     (1ull << 61)     /* not a private copy */
#define PM_PRESENT  (1ull << 63)

/* Entries of `n` pages (at most ENTRIES) from `addr` on; how many there are. */
static size_t read_entries(int fd, uint64_t addr, size_t n, uint64_t entry[ENTRIES])
{
	ssize_t r = pread(fd, entry, n * sizeof(*entry), (off_t)(addr / PAGE_SIZE_ * sizeof(*entry)));

	return r < 0 ? 0 : (size_t)r / sizeof(*entry);
}

/* --- pages --- */

static bool bit_of(const uint64_t bits[CHECK_LOOK_BLOCKS], uint64_t at) { return bits[at / 64] >> (at % 64) & 1; }

static void add_found(struct check_look *l, const struct check_part *part, bool writable, uint64_t page)
{
	struct check_found *last = l->n_found ? &l->found[l->n_found - 1] : NULL;

	if (last && last->part == part && last->writable == writable && last->first + last->n == page)
		last->n++;
	else if (l->n_found < CHECK_FOUND_MAX)
		l->found[l->n_found++] = (struct check_found){ part, writable, page, 1 };
}

static void look_at_page(struct check_look *l, const struct check_part *p, uint64_t page, uint64_t entry)
{
	if (!(entry & PM_PRESENT) || !(entry & PM_FILE))
		return;
	if (!bit_of(l->resident, page - l->first)) {
		add_found(l, p, false, page);
	} else if (p->async) {
		if (p->tracked && !bit_of(l->async_mapped, page - l->first))
			add_found(l, p, true, page);
	} else if (p->tracked && !(entry & PM_UFFD_WP) &&
		 (!bit_of(l->writable, page - l->first) || page < p->writable_from || page >= p->writable_to)) {
		add_found(l, p, true, page);
	}
}

static void look_at_part(struct check_look *l, const struct check_part *p, int fd)
{
	uint64_t entry[ENTRIES], done = 0;

	while (done < p->n) {
		size_t n = read_entries(fd, p->addr + done * PAGE_SIZE_, MIN(p->n - done, ENTRIES), entry);

		if (n == 0)
			return; /* the process is gone */
		for (size_t i = 0; i < n; i++)
			look_at_page(l, p, p->first + done + i, entry[i]);
		done += n;
	}
}

static void run_look(struct offload_job *job)
{
	struct check_look *l = container_of(job, struct check_look, job);
	pid_t pid = 0;
	int fd = -1;

	for (size_t i = 0; i < l->n_parts; i++) {
		if (l->part[i].pid != pid) {
			cleanup_close(&fd);
			pid = l->part[i].pid;
			fd = pagemap_open(pid);
		}
		if (fd >= 0)
			look_at_part(l, &l->part[i], fd);
		else if (fd != -ESRCH) /* else it has ended */
			l->skipped++;
	}
	cleanup_close(&fd);
}

int check_look_start(struct check_look *l, struct ring *ring)
{
	l->n_found = 0;
	l->job.run = run_look;
	l->job.key = OFFLOAD_KEY;
	return offload_submit(ring, &l->job);
}

/* --- mappings --- */

struct comparing { struct check_maps *m; pid_t pid; };

static void add_row(struct check_maps *m, const struct pgc_ctl_check_reply *row)
{
	if (m->n_rows < ELEMENTSOF(m->row))
		m->row[m->n_rows++] = *row;
	else
		m->unlisted++;
}

static void map_gone(void *arg, struct range r)
{
	struct comparing *c = arg;

	c->m->of_maps = true;
	add_row(c->m, &(struct pgc_ctl_check_reply){ .kind = PGC_DIFFERS_GONE, .pid = c->pid, .start = r.start, .end = r.end });
}

/* An mremap can make one longer without a word, so what nobody has touched is no difference. */
static bool anything_present(pid_t pid, struct range r)
{
	uint64_t entry[ENTRIES];
	_cleanup_close_ int fd = pagemap_open(pid);

	for (uint64_t at = r.start; fd >= 0 && at < r.end;) {
		size_t n = read_entries(fd, at, MIN((r.end - at) / PAGE_SIZE_, ENTRIES), entry);

		if (n == 0)
			return false;
		for (size_t i = 0; i < n; i++)
			if ((entry[i] & PM_PRESENT) && (entry[i] & PM_FILE))
				return true;
		at += n * PAGE_SIZE_;
	}
	return false;
}

static void map_unknown(void *arg, struct range r)
{
	struct comparing *c = arg;

	if (!anything_present(c->pid, r))
		return;
	c->m->of_maps = true;
	add_row(c->m, &(struct pgc_ctl_check_reply){ .kind = PGC_DIFFERS_UNTRACKED, .pid = c->pid, .start = r.start, .end = r.end });
}

static void refs_differ(void *arg, struct range r, uint32_t shown, uint32_t counted)
{
	add_row(arg, &(struct pgc_ctl_check_reply){
		.kind = PGC_DIFFERS_REFERENCES, .start = r.start, .end = r.end, .found = shown, .expected = counted,
	});
}

static int look_at_process(struct check_maps *m, pid_t pid)
{
	struct vma_query q = { .pid = pid, .all = true, .list = true, .dev = m->dev, .ino = m->ino };
	struct comparing c = { m, pid };
	size_t from = 0, to;
	struct check_map *kernel;
	int r = vma_query_look(&q);

	while (from < m->n_known && m->known[from].pid != pid)
		from++;
	for (to = from; to < m->n_known && m->known[to].pid == pid;)
		to++;
	kernel = r < 0 ? NULL : calloc(MAX(q.n_segs, (size_t)1), sizeof(*kernel));
	if (kernel) {
		for (size_t i = 0; i < q.n_segs; i++)
			kernel[i] = (struct check_map){ pid, q.segs[i].shared, q.segs[i].start, q.segs[i].end, q.segs[i].off };
		check_maps_compare(m->known + from, to - from, kernel, q.n_segs, map_gone, map_unknown, &c);
		free(kernel);
	} else if (r != -ESRCH) {
		m->skipped++;
	}
	free(q.segs);
	return r < 0 ? 0 : kernel ? 0 : -ENOMEM;
}

static void run_maps(struct offload_job *job)
{
	struct check_maps *m = container_of(job, struct check_maps, job);

	m->error = check_refs_compare(m->known, m->n_known, m->refs, m->n_refs, refs_differ, m);
	check_maps_sort(m->known, m->n_known);
	for (size_t i = 0; i < m->n_pids && m->error == 0; i++)
		m->error = look_at_process(m, m->pids[i]);
}

int check_maps_start(struct check_maps *m, struct ring *ring)
{
	m->n_rows = 0;
	m->unlisted = m->skipped = 0;
	m->of_maps = false;
	m->job.run = run_maps;
	m->job.key = OFFLOAD_KEY;
	return offload_submit(ring, &m->job);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look: the processes and files of the worker's spaces are written down, the offload thread reads /proc/PID/status of each process (VmLck says
 * whether anything is locked at all) and, where that is so, /proc/PID/smaps, and the worker takes over what it found (proc(5)).
 * A process that cannot be looked at has nothing locked, as far as the daemon knows.
 * Runs on the worker but for what is marked. May call space, fill, file and offload.
 */
#include "daemon/locked.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "daemon/log.h"
#include "daemon/offload.h"
#include "daemon/space.h"

#define LOOK_NS    1000000000ull
#define RANGES_MAX 65536u            /* in one look */
#define READ_IN    8192u             /* pages that are read in after one look */

struct asked { pid_t pid; uint64_t dev, ino, file_dev, file_ino; };
struct found { uint64_t file_dev, file_ino; struct range r; };

struct look {
	struct offload_job job;
	struct worker *worker;
	struct asked *asked;
	size_t n_asked;
	struct found *found;
	size_t n_found, allocated;
};

/* --- on the offload thread --- */

static bool locks_anything(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmLck: %llu", &kib) == 1)
			break;
	fclose(f);
	return kib > 0;
}

static void add_found(struct look *l, const struct asked *a, uint64_t start, uint64_t end)
{
	if (l->n_found == RANGES_MAX)
		return;
	if (l->n_found == l->allocated) {
		size_t n = l->allocated ? l->allocated * 2 : 16;
		struct found *more = reallocarray(l->found, n, sizeof(*more));

		if (!more)
			return;
		l->found = more;
		l->allocated = n;
	}
	l->found[l->n_found++] = (struct found){ a->file_dev, a->file_ino, { start, end } };
}

/* `of`: those asked for the same process, `n` of them. */
static void read_smaps(struct look *l, const struct asked *of, size_t n)
{
	uint64_t start = 0, end = 0, off = 0, ino = 0, dev = 0;
	_cleanup_free_ char *line = NULL;
	char path[64], perms[5];
	size_t size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)of->pid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (getline(&line, &size, f) > 0) {
		uint64_t s, e, o, i;
		unsigned major, minor;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &s, &e, perms, &o, &major, &minor, &i) == 7) {
			start = s;
			end = e;
			off = o;
			ino = i;
			dev = makedev(major, minor);
		} else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " lo")) {
			for (size_t k = 0; k < n; k++)
				if (of[k].ino == ino && of[k].dev == dev) {
					add_found(l, &of[k], off, off + (end - start));
					break;
				}
		}
	}
	fclose(f);
}

static void run(struct offload_job *job)
{
	struct look *l = container_of(job, struct look, job);

	for (size_t i = 0, n; i < l->n_asked; i += n) {
		for (n = 1; i + n < l->n_asked && l->asked[i + n].pid == l->asked[i].pid;)
			n++;
		if (locks_anything(l->asked[i].pid))
			read_smaps(l, &l->asked[i], n);
	}
}

/* --- on the worker --- */

static int by_file(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->file_dev != y->file_dev)
		return x->file_dev < y->file_dev ? -1 : 1;
	return x->file_ino < y->file_ino ? -1 : x->file_ino > y->file_ino;
}

static int by_pid(const void *a, const void *b)
{
	pid_t x = ((const struct asked *)a)->pid, y = ((const struct asked *)b)->pid;

	return x < y ? -1 : x > y;
}

struct reading { struct file *file; uint64_t left; bool more; };

/* What was dropped before it was known comes back, at the expense of others: so much at a look, and what found no room at the next. */
static int read_in(void *arg, struct range r, bool keep)
{
	struct reading *rd = arg;
	struct file *f = rd->file;
	uint64_t page = r.start / PAGE_SIZE_, end = MIN(page_up(r.end), file_pages(f));

	if (f->state != FILE_READY)
		return 0;
	while (page < end) {
		struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
		unsigned from = (unsigned)(page % PGC_BLOCK_PAGES);
		uint64_t here = b ? b->e->resident | b->filling : 0, n = bits_run(here, from);

		if (n > 0) {
			page += n;
			continue;
		}
		n = MIN(bits_run(~here, from), end - page);
		if (rd->left < n || fill_start(f, page, n, n, NULL, POLICY_CALL) < 0) {
			rd->more = true;
			return 1;
		}
		rd->left -= n;
		page += n;
	}
	return 0;
}

static void take_over(struct worker *w, struct file *f, const struct found *found, size_t n, struct reading *rd)
{
	struct dirty_set set;

	dirty_set_init(&set);
	for (size_t i = 0; i < n; i++)
		(void)dirty_set_mark_dirty(&set, found[i].r, false);
	if (n == 0 && f->locked.map.n == 0)
		return;
	if (!file_set_locked(f, &set) && !f->lock_logged) {
		f->lock_logged = true;
		log_at(LOG_LEVEL_WARNING, f->e->name, 0, "more is locked in memory than may be pinned (pin_max): it can be given up");
	}
	rd->file = f;
	dirty_set_walk(&f->locked, (struct range){ 0, ~0ull }, read_in, rd);
}

static void looked(struct ring_op *op, int res, uint32_t cflags)
{
	struct look *l = container_of(container_of(op, struct offload_job, done), struct look, job);
	struct worker *w = l->worker;
	struct reading rd = { .left = READ_IN };
	struct file *f;

	w->looking = false;
	if (l->n_found)
		qsort(l->found, l->n_found, sizeof(*l->found), by_file);
	list_for_each(f, &w->all_files, by_worker) {
		struct found key = { .file_dev = f->dev, .file_ino = f->ino };
		size_t from = 0, n = 0;

		while (from < l->n_found && by_file(&l->found[from], &key) < 0)
			from++;
		while (from + n < l->n_found && by_file(&l->found[from + n], &key) == 0)
			n++;
		take_over(w, f, n > 0 ? l->found + from : NULL, n, &rd);
	}
	w->look_again |= rd.more;
	if (rd.more && !w->draining && !w->stopped)
		ring_timer_arm(&w->ring, &w->lock_timer, LOOK_NS);
	free(l->found);
	free(l->asked);
	free(l);
}

static void look(struct worker *w)
{
	struct look *l = calloc(1, sizeof(*l));
	struct space *s;
	size_t n = 0;

	list_for_each(s, &w->spaces, by_worker)
		n++;
	if (l)
		l->asked = calloc(MAX(n, (size_t)1), sizeof(*l->asked));
	if (!l || !l->asked) {
		free(l);
		return; /* the next time */
	}
	l->worker = w;
	list_for_each(s, &w->spaces, by_worker)
		if (s->pid > 0 && s->maps.map.n > 0)
			l->asked[l->n_asked++] = (struct asked){
				s->pid, s->file->memfd_dev, s->file->memfd_ino, s->file->dev, s->file->ino,
			};
	qsort(l->asked, l->n_asked, sizeof(*l->asked), by_pid);
	l->job.run = run;
	l->job.done.done = looked;
	if (offload_submit(&w->ring, &l->job) < 0) {
		free(l->asked);
		free(l);
		return;
	}
	w->looking = true;
}

/*
 * Grows as room is made or looked for: on this worker, and, while something is held here for clients, on any, since what is held does
 * not go by itself, whoever needs the room.
 */
static uint64_t pressure(const struct worker *w)
{
	uint64_t n = w->stats->reclaimed;

	for (unsigned i = 0; w->locked_files > 0 && i < w->n_workers; i++) {
		const struct pgc_stats_entry *s = w->all[i].stats;

		/* The others' counts are read as anyone reads them: a moment old does no harm. */
		n += __atomic_load_n(&s->reclaimed, __ATOMIC_RELAXED) + __atomic_load_n(&s->direct_reclaims, __ATOMIC_RELAXED);
	}
	return n;
}

static void look_again(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, lock_timer);
	uint64_t now = pressure(w);

	if (!w->looking && (now != w->pressure_at_look || w->look_again)) {
		w->pressure_at_look = now;
		w->look_again = false;
		look(w);
		ring_timer_arm(&w->ring, t, LOOK_NS);
	}
}

void locked_look(struct worker *w)
{
	if (w->lock_timer.armed || w->looking || w->stopped || w->draining || (list_empty(&w->spaces) && w->locked_files == 0))
		return;
	if (pressure(w) != w->pressure_at_look)
		look_again(&w->lock_timer);
}

void locked_init(struct worker *w) { ring_timer_init(&w->lock_timer, look_again); }

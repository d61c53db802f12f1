/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warm starts: see warm.h. Records are written and read by jobs of the offload thread; what is in a record is only a hint, so all that a wrong one can do
 * is to have the wrong pages read.
 *
 * A prefetch goes through its record in ascending order, a few large reads at a time, and is the least of all work:
 *   - it takes no step while the worker has other fills under way, or while anyone waits for room;
 *   - it takes free memory and free block slots only, leaves a margin of both, and ends where there is no more: it never makes anything go;
 *   - it ends when the file goes idle, and leaves the record as it was then if it had not come to the end of it.
 * Jobs belong to the worker that made them; a file points to the job that reads its record (warm_job), and that job to the file, until either is gone.
 * Files whose pages go with their last unmap (retain=mapped) have no records: what they were told to keep is nothing.
 * Runs on the file's worker; job_run() on the offload thread. May call file, fill, offload, warm_dir and warm_record.
 */
#include "daemon/warm.h"

#include <string.h>

#include "daemon/fill.h"
#include "daemon/huge.h"
#include "daemon/log.h"
#include "daemon/offload.h"
#include "daemon/warm_dir.h"

#define READ_PAGES    256            /* 1 MiB a read */
#define READS_MAX     4              /* in flight, of all prefetches of a worker */
#define STEP_NS       1000000ull
#define GIVE_WAY_NS   10000000ull
#define SLOTS_MARGIN  64u            /* block slots that stay free */
#define FILE_MIN      32             /* pages: what is smaller is read in as fast as its record, and files that come and go are such */
#define JOBS_MAX      1024u          /* of one worker on the offload thread */
#define BYTES_MAX     ((size_t)8 << 20) /* of one worker: of records that wait to be written, and again of those that are read in */
#define STOP_NS       2000000000ull

enum job_kind {
	JOB_READ,
	JOB_WRITE,
	JOB_WRITE_FIRST,           /* only if there is no good record yet */
};

struct warm_job {
	struct offload_job job;
	struct worker *worker;
	enum job_kind kind;
	struct file *file;         /* JOB_READ: whose record it is; NULL: it has gone meanwhile */
	struct toucher toucher;
	struct warm_record record; /* to be written, or what the file is like now */
	struct warm_record found;
	size_t cost;
	int result;
};

struct prefetch {
	struct list link;          /* worker->prefetches */
	struct file *file;
	struct toucher toucher;
	uint64_t cgroup_id;
	struct warm_record record;
	size_t cost;
	uint64_t next;             /* page: below it all was asked for */
	struct { uint64_t first, n; } asked[READS_MAX]; /* the last reads, to know their fills by */
	unsigned reads;
	uint64_t pages;            /* asked for */
};

static struct warm_dir dir;            /* the offload thread's, after warm_init() */
static _Atomic uint64_t stop_at;       /* ns: jobs that begin later do nothing. Relaxed: a number of its own */

/* Pages of b that are worth reading in again: those in use for long, or, while there was room for all, all. */
static uint64_t warm_hot_pages(const struct block *b)
{
	uint64_t hot = 0, first = block_first(b);

	if (b->file->worker->stats->reclaimed == 0 || b->file->huge)
		return b->e->resident & block_mask(b, 0, page_up(b->file->size));
	for (uint64_t left = b->e->resident & ~b->pinned; left; left &= left - 1)
		if (policy_is_hot(b->domain->policy, file_key(b->file, first + (unsigned)__builtin_ctzll(left))))
			hot |= left & -left;
	return hot | b->pinned;
}

/* --- jobs --- */

static void describe(const struct file *f, struct warm_record *ret)
{
	warm_record_init(ret);
	ret->dev = f->dev;
	ret->ino = f->ino;
	memcpy(ret->name, f->e->name, sizeof(ret->name));
	ret->name[sizeof(ret->name) - 1] = 0;
	ret->size = f->version.size;
	ret->mtime = f->version.mtime;
	ret->ctime = f->version.ctime;
}

/* On the offload thread. */
static void job_run(struct offload_job *oj)
{
	struct warm_job *job = container_of(oj, struct warm_job, job);
	uint64_t end = atomic_load_explicit(&stop_at, memory_order_relaxed);

	if (end && now_ns() > end) {
		job->result = -ETIMEDOUT;
	} else if (job->kind == JOB_READ) {
		job->result = warm_dir_read(&dir, &job->record, &job->found);
	} else if (job->kind == JOB_WRITE_FIRST && warm_dir_read(&dir, &job->record, &job->found) == 0) {
		job->result = -EEXIST;
	} else {
		job->record.written = (int64_t)time(NULL);
		job->result = warm_dir_write(&dir, &job->record);
	}
}

static void prefetch_begin(struct warm_job *job);

static void job_free(struct warm_job *job)
{
	job->worker->warm_jobs--;
	job->worker->warm_bytes -= job->cost;
	if (job->file)
		job->file->warm_job = NULL;
	warm_record_free(&job->record);
	warm_record_free(&job->found);
	free(job);
}

static void job_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct warm_job *job = container_of(container_of(op, struct offload_job, done), struct warm_job, job);

	if (job->file) {
		job->file->warm_pages = 0;
		if (job->result == 0)
			prefetch_begin(job);
	}
	job_free(job);
}

/* Takes the record over. */
static struct warm_job *job_start(struct worker *w, struct warm_record *record, enum job_kind kind)
{
	struct warm_job *job = calloc(1, sizeof(*job));

	if (!job) {
		warm_record_free(record);
		return NULL;
	}
	job->job.run = job_run;
	job->job.done.done = job_done;
	job->worker = w;
	job->kind = kind;
	job->record = *record;
	warm_record_init(&job->found);
	job->cost = sizeof(*job) + record->room * sizeof(*record->runs);
	w->warm_jobs++;
	w->warm_bytes += job->cost;
	if (offload_submit(&w->ring, &job->job) < 0) {
		job_free(job);
		return NULL;
	}
	return job;
}

/* --- writing records --- */

/* A number that differs, as good as always, when the record does. */
static uint64_t digest(const struct warm_record *r)
{
	uint64_t h = r->size ^ (uint64_t)r->mtime.tv_nsec << 32 ^ (uint64_t)r->ctime.tv_nsec ^ (uint64_t)r->ctime.tv_sec << 20;

	for (uint32_t i = 0; i < r->n; i++) {
		h = (h ^ r->runs[i].index) * 0x9e3779b97f4a7c15ull;
		h = (h ^ (h >> 32) ^ r->runs[i].pages) * 0xc2b2ae3d27d4eb4full;
		h = (h ^ (h >> 29) ^ r->runs[i].blocks) * 0x9e3779b97f4a7c15ull;
	}
	return h | 1; /* 0 is no record */
}

static bool wants_record(const struct file *f)
{
	return dir.path && f->warm_start && file_pages(f) >= FILE_MIN && f->retain != RETAIN_MAPPED && !f->unlinked && f->version.valid;
}

static void write_record(struct file *f)
{
	struct warm_record r;
	enum job_kind kind;
	uint64_t sum, pages;

	if (!wants_record(f) || f->e->resident == 0)
		return;
	describe(f, &r);
	/* The old record says what the prefetch has not come to yet. */
	if (f->prefetch && !warm_record_mismatch(&f->prefetch->record, &r))
		return;
	for (struct block *b = block_tree_next(&f->blocks, 0, false); b; b = block_tree_next(&f->blocks, b->e->index + 1, false))
		if (warm_record_add(&r, b->e->index, warm_hot_pages(b)) < 0)
			break; /* what there is so far is worth keeping */
	sum = digest(&r);
	pages = warm_record_pages(&r);
	if (r.n == 0 || sum == f->warm_sum) {
		warm_record_free(&r);
		return;
	}
	/* While the old record is being read it is not known what it says: if it is good, it says what is to be read in. */
	kind = f->warm_job ? JOB_WRITE_FIRST : JOB_WRITE;
	if (job_start(f->worker, &r, kind) && kind == JOB_WRITE) {
		f->warm_pages = pages;
		f->warm_sum = sum;
	}
}

/* --- reading them in --- */

static void prefetch_end(struct prefetch *p, const char *why)
{
	p->file->worker->prefetch_bytes -= p->cost;
	log_at(LOG_LEVEL_DEBUG, p->file->e->name, 0, "prefetch of hot pages ends, %llu asked for in %u reads: %s",
	       (unsigned long long)p->pages, p->reads, why);
	p->file->prefetch = NULL;
	list_remove(&p->link);
	warm_record_free(&p->record);
	free(p);
}

static void prefetch_begin(struct warm_job *job)
{
	size_t cost = sizeof(struct prefetch) + job->found.room * sizeof(*job->found.runs);
	struct worker *w = job->worker;
	struct prefetch *p = NULL;

	/* A client that opens very many files at once has some of them start cold. */
	if (w->prefetch_bytes + cost <= BYTES_MAX)
		p = calloc(1, sizeof(*p));
	if (!p)
		return;
	w->prefetch_bytes += cost;
	p->cost = cost;
	p->file = job->file;
	p->file->warm_pages = warm_record_pages(&job->found);
	p->file->prefetch = p;
	p->toucher = job->toucher;
	p->cgroup_id = job->toucher.cgroup ? job->toucher.cgroup->id : 0;
	p->record = job->found;
	warm_record_init(&job->found);
	list_append(&w->prefetches, &p->link);
	log_at(LOG_LEVEL_DEBUG, p->file->e->name, 0, "prefetch of %llu hot pages begins",
	       (unsigned long long)p->file->warm_pages);
	ring_timer_arm(&w->ring, &w->prefetch_timer, STEP_NS);
}

/* How many fills of its reads are under way. */
static unsigned own_fills(const struct prefetch *p)
{
	unsigned n = 0;
	struct fill *fill;

	list_for_each(fill, &p->file->fills, link)
		for (unsigned i = 0; i < READS_MAX; i++)
			if (fill->first >= p->asked[i].first && fill->first + fill->n <= p->asked[i].first + p->asked[i].n) {
				n++;
				break;
			}
	return n;
}

static bool is_room(struct worker *w, uint64_t pages)
{
	return worker_has_plenty(w, NULL, pages) && w->block_slots.n_free >= pages / PGC_BLOCK_PAGES + 2 + SLOTS_MARGIN;
}

/* Asks for the next of its pages. Returns whether it did; it may have ended. */
static bool prefetch_step(struct prefetch *p)
{
	struct file *f = p->file;
	uint64_t first, n;

	if (f->n_handles == 0 || !f->store || f->state != FILE_READY || f->barrier.active)
		return false;
	if (!warm_record_next(&p->record, p->next, READ_PAGES, &first, &n) || first >= file_pages(f)) {
		prefetch_end(p, "all of them");
		return false;
	}
	if (f->huge) { /* what is read is whole ones */
		n = align_up(first + n, HUGE_PAGES) - align_down(first, HUGE_PAGES);
		first = align_down(first, HUGE_PAGES);
	}
	if (!is_room(f->worker, n)) {
		prefetch_end(p, "there is no more free memory");
		return false;
	}
	p->asked[p->reads % READS_MAX].first = first;
	p->asked[p->reads % READS_MAX].n = n;
	p->reads++;
	p->pages += n;
	p->next = first + n;
	/* The entry is another cgroup's once its own has no handle and no page left. */
	if (p->toucher.cgroup && p->toucher.cgroup->id != p->cgroup_id)
		p->toucher.cgroup = NULL;
	(void)fill_start(f, first, n, 0, &p->toucher, POLICY_AHEAD);
	return true;
}

static void prefetch_expired(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, prefetch_timer);
	struct prefetch *p, *next;
	unsigned own = 0;
	bool busy;

	list_for_each(p, &w->prefetches, link)
		own += own_fills(p);
	busy = w->fills_in_flight > own || !list_empty(&w->no_room) || w->draining;
	if (!busy)
		list_for_each_safe(p, next, &w->prefetches, link) {
			if (own >= READS_MAX)
				break;
			if (!prefetch_step(p))
				continue;
			own++;
			list_remove(&p->link); /* its turn is over */
			list_append(&w->prefetches, &p->link);
		}
	if (!list_empty(&w->prefetches) && !w->draining)
		ring_timer_arm(&w->ring, t, busy ? GIVE_WAY_NS : STEP_NS);
}

/* --- what files go through --- */

/* Nothing of the file may point here any more. */
static void detach(struct file *f, const char *why)
{
	if (f->warm_job) {
		f->warm_job->file = NULL;
		f->warm_job = NULL;
	}
	if (f->prefetch)
		prefetch_end(f->prefetch, why);
}

static void file_goes_idle(struct file *f)
{
	if (f->worker->warm_bytes < BYTES_MAX && f->worker->warm_jobs < JOBS_MAX)
		write_record(f);
	detach(f, "the file is closed");
	f->warm_looked = false;
}

void warm_opened(struct file *f, const struct toucher *who)
{
	struct warm_record now;

	/* Not by the number of handles: two may be made before the first is ready, as when one of a daemon before comes back beside a new one. */
	if (f->warm_looked)
		return;
	f->warm_looked = true;
	if (!wants_record(f) || f->warm_job || f->prefetch || f->worker->draining || f->worker->warm_jobs >= JOBS_MAX)
		return;
	/* What was hot when it was closed is still here. */
	if (f->e->resident > 0 && f->e->resident >= f->warm_pages)
		return;
	describe(f, &now);
	f->warm_job = job_start(f->worker, &now, JOB_READ);
	if (f->warm_job) {
		f->warm_pages = UINT64_MAX; /* not known yet */
		f->warm_job->file = f;
		f->warm_job->toucher = *who;
	}
}

static void wait_for_jobs(struct worker *w, unsigned n, size_t bytes, uint64_t until)
{
	while ((w->warm_jobs > n || w->warm_bytes > bytes) && now_ns() < until)
		ring_run(&w->ring, true, 16); /* the timer ends the last wait */
}

void warm_stop(struct worker *w)
{
	uint64_t until = now_ns() + STOP_NS;
	struct file *f;

	if (!dir.path)
		return;
	if (atomic_load_explicit(&stop_at, memory_order_relaxed) < until)
		atomic_store_explicit(&stop_at, until, memory_order_relaxed);
	ring_timer_arm(&w->ring, &w->stop_timer, STOP_NS);
	list_for_each(f, &w->all_files, by_worker) {
		wait_for_jobs(w, ~0u, BYTES_MAX, until);
		if (f->state == FILE_READY && f->e->dirty == 0 && now_ns() < until)
			write_record(f);
		detach(f, "the daemon stops");
	}
	wait_for_jobs(w, 0, 0, until);
}

static void stop_expired(struct ring_timer *t) {}

void warm_worker_init(struct worker *w)
{
	list_init(&w->prefetches);
	ring_timer_init(&w->prefetch_timer, prefetch_expired);
	ring_timer_init(&w->stop_timer, stop_expired);
}

void warm_init(const char *state_dir)
{
	warm_dir_init(&dir, state_dir);
	file_idle_hook = file_goes_idle;
}

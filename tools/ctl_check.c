// SPDX-License-Identifier: Apache-2.0
/*
 * The daemon compares a bounded piece at a time and remembers nothing in between: this goes through all of it. A step that finds something is asked for again a
 * little later, twice, and only what it says each time is a difference. Counts of many steps are of one moment only where nothing changes meanwhile: a count is
 * wrong only if the daemon says that nothing has changed between the first step and the last.
 */
#include "tools/ctl_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AGAIN_MS       20u
#define LOOKS          3u
#define ROUNDS         5u            /* of counting */
#define BUSY_TRIES     500u
#define PROGRESS_MS    500u

struct rows {
	struct pgc_ctl_check_reply *mem;
	size_t n, allocated;
	struct pgc_ctl_check_reply end;
};

/* A count: as found in the blocks, and as the daemon shows it. */
struct count {
	const char *what;
	uint64_t id;                   /* of a file, worker or cgroup */
	uint64_t counted, shown;
};

struct counts { struct count *mem; size_t n, allocated; };

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void pause_ms(uint64_t ms)
{
	nanosleep(&(struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 }, NULL);
}

/* Room for one more of `size` bytes. */
static int grow(void **mem, size_t n, size_t *allocated, size_t size)
{
	size_t more = *allocated ? *allocated * 2 : 64;
	void *larger;

	if (n < *allocated)
		return 0;
	larger = reallocarray(*mem, more, size);
	if (!larger)
		return -ENOMEM;
	*mem = larger;
	*allocated = more;
	return 0;
}

/* --- one step --- */

static int add_row(void *arg, const struct pgc_msg *reply)
{
	struct rows *rows = arg;
	int r;

	if (!reply->ctl_check_reply.more) {
		rows->end = reply->ctl_check_reply;
		return 0;
	}
	r = grow((void **)&rows->mem, rows->n, &rows->allocated, sizeof(*rows->mem));
	if (r == 0)
		rows->mem[rows->n++] = reply->ctl_check_reply;
	return r;
}

static int ask(struct ctl_check *c, const struct pgc_ctl_check *request, struct rows *rows)
{
	int r;

	for (unsigned i = 0;; i++) {
		rows->n = 0;
		r = ctl_list_check(c->conn, request, add_row, rows);
		if (r != -EBUSY || i == BUSY_TRIES)
			return r;
		pause_ms(AGAIN_MS);
	}
}

static bool is_difference(const struct pgc_ctl_check_reply *row) { return row->kind < PGC_COUNT_FILE; }

/* What of `row` is said by `again`, too. */
static bool both_say(struct pgc_ctl_check_reply *row, const struct pgc_ctl_check_reply *again)
{
	uint64_t start = row->start > again->start ? row->start : again->start, end = row->end < again->end ? row->end : again->end;

	if (row->kind != again->kind || row->file != again->file || row->pid != again->pid)
		return false;
	if (row->start == row->end)
		return again->start == again->end && row->found == again->found && row->expected == again->expected;
	if (start >= end)
		return false;
	row->start = start;
	row->end = end;
	row->found = again->found;
	row->expected = again->expected;
	return true;
}

/* `rows` becomes what both have. */
static int keep_common(struct rows *rows, const struct rows *again)
{
	struct rows common = { 0 };
	int r = 0;

	for (size_t i = 0; i < rows->n && r == 0; i++)
		for (size_t k = 0; k < again->n && r == 0; k++) {
			struct pgc_ctl_check_reply row = rows->mem[i];

			if (!is_difference(&row) || !both_say(&row, &again->mem[k]))
				continue;
			r = grow((void **)&common.mem, common.n, &common.allocated, sizeof(*common.mem));
			if (r == 0)
				common.mem[common.n++] = row;
		}
	free(rows->mem);
	rows->mem = common.mem;
	rows->n = common.n;
	rows->allocated = common.allocated;
	return r;
}

static int keep(struct ctl_check *c, const struct pgc_ctl_check_reply *row, const char *what, const struct pgc_ctl_file_reply *file)
{
	int r = grow((void **)&c->differences, c->n, &c->allocated, sizeof(*c->differences));
	struct ctl_difference *d;

	if (r < 0)
		return r;
	d = &c->differences[c->n++];
	*d = (struct ctl_difference){ .row = *row, .what = what };
	if (file) {
		memcpy(d->name, file->name, sizeof(d->name));
		d->dev = file->dev;
		d->ino = file->ino;
	}
	return 0;
}

static size_t differences_in(const struct rows *rows)
{
	size_t n = 0;

	for (size_t i = 0; i < rows->n; i++)
		n += is_difference(&rows->mem[i]);
	return n;
}

static const struct pgc_ctl_file_reply *file_of(const struct pgc_ctl_file_reply *files, size_t n, uint32_t slot)
{
	for (size_t i = 0; i < n; i++)
		if (files[i].file == slot)
			return &files[i];
	return NULL;
}

/* A step whose first answer is in `rows`, which keep its counts: asks again for what differs. */
static int confirm(struct ctl_check *c, const struct pgc_ctl_check *request, const struct rows *first, const struct pgc_ctl_file_reply *files,
		   size_t n_files)
{
	struct rows rows = { 0 }, again = { 0 };
	int r = 0;

	for (size_t i = 0; i < first->n && r == 0; i++) {
		r = grow((void **)&rows.mem, rows.n, &rows.allocated, sizeof(*rows.mem));
		if (r == 0 && is_difference(&first->mem[i]))
			rows.mem[rows.n++] = first->mem[i];
	}
	for (unsigned i = 1; i < LOOKS && rows.n > 0 && r == 0; i++) {
		pause_ms(AGAIN_MS);
		r = ask(c, request, &again);
		if (r == 0)
			r = keep_common(&rows, &again);
	}
	for (size_t i = 0; i < rows.n && r == 0; i++)
		r = keep(c, &rows.mem[i], NULL, file_of(files, n_files, rows.mem[i].file));
	free(rows.mem);
	free(again.mem);
	return r == -ENOENT ? 0 : r; /* it went away meanwhile */
}

/* --- counts --- */

static int count_add(struct counts *counts, const char *what, uint64_t id, uint64_t counted, uint64_t shown)
{
	int r;

	for (size_t i = counts->n; i-- > 0;)
		if (counts->mem[i].id == id && strcmp(counts->mem[i].what, what) == 0) {
			counts->mem[i].counted += counted;
			counts->mem[i].shown += shown;
			return 0;
		}
	r = grow((void **)&counts->mem, counts->n, &counts->allocated, sizeof(*counts->mem));
	if (r == 0)
		counts->mem[counts->n++] = (struct count){ what, id, counted, shown };
	return r;
}

static int take_count(struct counts *counts, const struct pgc_ctl_check_reply *row)
{
	static const struct { uint32_t kind; bool shown; const char *what[4]; } kinds[] = {
		{ PGC_COUNT_FILE, false, { "resident", "dirty", "writeback", "keep" } },
		{ PGC_SHOWN_FILE, true, { "resident", "dirty", "writeback", "keep" } },
		{ PGC_COUNT_CGROUP, false, { "cgroup resident", "cgroup dirty", "cgroup mapped" } },
		{ PGC_COUNT_WORKER, false, { "worker resident", "worker dirty", "worker writeback", "worker keep" } },
		{ PGC_SHOWN_WORKER, true, { "worker resident", "worker dirty", "worker writeback", "worker keep" } },
		{ PGC_COUNT_WORKER_USE, false, { "worker charged", "worker blocks", "worker mappings", "worker handle records" } },
		{ PGC_SHOWN_WORKER_USE, true, { "worker charged", "worker blocks", "worker mappings", "worker handle records" } },
		{ PGC_COUNT_BUDGET, false, { "memory used", "all dirty" } },
	};
	int r = 0;

	if (row->kind == PGC_COUNT_CGROUP && row->start == 0)
		return 0; /* of nobody that is known */
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].kind != row->kind)
			continue;
		for (int k = 0; k < 4 && kinds[i].what[k] && r == 0; k++)
			r = count_add(counts, kinds[i].what[k], row->file ? row->file : row->start,
				      kinds[i].shown ? 0 : row->count[k], kinds[i].shown ? row->count[k] : 0);
	}
	return r;
}

static int take_counts(struct counts *counts, const struct rows *rows)
{
	int r = 0;

	for (size_t i = 0; i < rows->n && r == 0; i++)
		r = is_difference(&rows->mem[i]) ? 0 : take_count(counts, &rows->mem[i]);
	return r;
}

static int show_cgroup(void *arg, const struct pgc_msg *reply)
{
	const struct pgc_ctl_cgroup_reply *g = &reply->ctl_cgroup_reply;
	int r;

	if (g->is_user)
		return 0;
	r = count_add(arg, "cgroup resident", g->id, 0, g->resident);
	r = r ?: count_add(arg, "cgroup dirty", g->id, 0, g->dirty);
	return r ?: count_add(arg, "cgroup mapped", g->id, 0, g->mapped);
}

static int show_budget(struct ctl_check *c, struct counts *counts)
{
	struct pgc_msg m = { .type = PGC_CTL_MEMORY };
	int r = ctl_request(c->conn, &m);

	r = r ?: count_add(counts, "memory used", 0, m.ctl_memory_reply.tables / PGC_PAGE_SIZE, m.ctl_memory_reply.memory_used / PGC_PAGE_SIZE);
	return r ?: count_add(counts, "all dirty", 0, 0, m.ctl_memory_reply.dirty);
}

/* What of a round is of one moment: the tables of each worker; all of it. */
struct round { unsigned workers; bool *whole, all; uint64_t *before; };

/* The moment of each worker: its last step, which counts nothing. */
static int look_at_moments(struct ctl_check *c, struct round *round, bool again)
{
	struct rows rows = { 0 };
	int r = 0;

	for (unsigned i = 0; i < round->workers && r == 0; i++) {
		r = ask(c, &(struct pgc_ctl_check){ .step = PGC_CHECK_WORKER, .worker = i, .from = UINT32_MAX * 8ull }, &rows);
		if (again)
			round->all &= rows.end.moment == round->before[i];
		else
			round->before[i] = rows.end.moment;
	}
	free(rows.mem);
	return r;
}

static int step_through(struct ctl_check *c, struct pgc_ctl_check request, const struct pgc_ctl_file_reply *files, size_t n_files,
			struct counts *counts, bool report, bool *ret_whole);

static int count_round(struct ctl_check *c, struct round *round, const struct pgc_ctl_file_reply *files, size_t n, struct counts *counts, bool first)
{
	int r = look_at_moments(c, round, false);

	counts->n = 0;
	round->all = true;
	for (size_t i = 0; i < n && r == 0; i++)
		r = step_through(c, (struct pgc_ctl_check){ .dev = files[i].dev, .ino = files[i].ino, .step = PGC_CHECK_FILE }, files, n, counts, first,
				 NULL);
	for (unsigned i = 0; i < round->workers && r == 0; i++)
		r = step_through(c, (struct pgc_ctl_check){ .step = PGC_CHECK_WORKER, .worker = i }, files, n, counts, first, &round->whole[i]);
	r = r ?: ctl_list(c->conn, PGC_CTL_CGROUPS, show_cgroup, counts);
	r = r ?: show_budget(c, counts);
	return r ?: look_at_moments(c, round, true);
}

static bool of_one_moment(const struct round *round, const struct count *k, const struct pgc_ctl_file_reply *files, size_t n)
{
	const struct pgc_ctl_file_reply *f;

	if (strncmp(k->what, "worker", 6) == 0)
		return k->id < round->workers && round->whole[k->id];
	if (strchr(k->what, ' '))
		return round->all;
	f = file_of(files, n, (uint32_t)k->id);
	return f && f->worker < round->workers && round->whole[f->worker];
}

/* Keeps those that are off. *ret_open: how many seem to be, but are not of one moment. */
static int judge_counts(struct ctl_check *c, const struct round *round, const struct counts *counts, const struct pgc_ctl_file_reply *files, size_t n,
			size_t *ret_open)
{
	int r = 0;

	*ret_open = 0;
	for (size_t i = 0; i < counts->n && r == 0; i++) {
		const struct count *k = &counts->mem[i];
		struct pgc_ctl_check_reply row = { .kind = PGC_COUNT_FILE, .start = k->id, .found = k->shown, .expected = k->counted };
		bool known = false;

		if (k->counted == k->shown)
			continue;
		for (size_t j = 0; j < c->n; j++)
			known |= c->differences[j].what && strcmp(c->differences[j].what, k->what) == 0 && c->differences[j].row.start == k->id;
		if (known)
			continue;
		if (of_one_moment(round, k, files, n))
			r = keep(c, &row, k->what, strchr(k->what, ' ') ? NULL : file_of(files, n, (uint32_t)k->id));
		else
			++*ret_open;
	}
	return r;
}

static int check_counts(struct ctl_check *c, unsigned workers, const struct pgc_ctl_file_reply *files, size_t n)
{
	struct round round = { .workers = workers, .whole = calloc(workers, sizeof(bool)), .before = calloc(workers, sizeof(uint64_t)) };
	struct counts counts = { 0 };
	size_t open = 1;
	int r = round.whole && round.before ? 0 : -ENOMEM;

	for (unsigned i = 0; i < ROUNDS && open > 0 && r == 0; i++) {
		if (i > 0)
			pause_ms(AGAIN_MS);
		r = count_round(c, &round, files, n, &counts, i == 0);
		r = r ?: judge_counts(c, &round, &counts, files, n, &open);
	}
	c->busy += r == 0 ? open : 0;
	free(counts.mem);
	free(round.whole);
	free(round.before);
	return r;
}

/* --- all of it --- */

static void progress(struct ctl_check *c, const char *what)
{
	static uint64_t told;

	if (!c->progress || now_ms() - told < PROGRESS_MS)
		return;
	told = now_ms();
	fprintf(stderr, "\r\033[K%" PRIu64 " pages, %" PRIu64 " read; %zu differences; %.40s", c->pages, c->content_pages, c->n, what);
}

/* So many pages have been read since `began`. */
static void hold_rate(const struct ctl_check *c, uint64_t pages, uint64_t began)
{
	uint64_t due = c->rate ? (uint64_t)((double)pages * PGC_PAGE_SIZE * 1000 / (double)c->rate) : 0, took = now_ms() - began;

	if (due > took)
		pause_ms(due - took);
}

/*
 * From request.from on to the end. Counts are added to `counts`; differences are kept with `report`. *ret_whole (may be NULL): all was of one moment.
 */
static int step_through(struct ctl_check *c, struct pgc_ctl_check request, const struct pgc_ctl_file_reply *files, size_t n_files,
			struct counts *counts, bool report, bool *ret_whole)
{
	uint64_t began = now_ms(), before = c->content_pages, moment = 0;
	bool whole = true, first = true;
	bool content = request.step == PGC_CHECK_CONTENT;
	struct rows rows = { 0 };
	int r = 0;

	do {
		r = ask(c, &request, &rows);
		if (r < 0)
			break;
		moment = first ? rows.end.moment : moment;
		whole &= rows.end.moment == moment;
		first = false;
		if (counts)
			r = take_counts(counts, &rows);
		if (report) {
			*(content ? &c->content_pages : &c->pages) += rows.end.pages;
			c->skipped += rows.end.skipped;
			c->busy += rows.end.busy;
			c->unlisted += rows.end.unlisted;
			if (r == 0 && differences_in(&rows) > 0)
				r = confirm(c, &request, &rows, files, n_files);
		}
		if (content)
			hold_rate(c, c->content_pages - before, began);
		if (report)
			progress(c, content ? "content" : "");
		request.from = rows.end.next;
	} while (r == 0 && rows.end.next != PGC_CHECK_END);
	free(rows.mem);
	if (ret_whole)
		*ret_whole = whole;
	return r == -ENOENT ? 0 : r;
}

int ctl_check(struct ctl_check *c, const struct pgc_ctl_file_reply *files, size_t n, bool all)
{
	struct pgc_msg status = { .type = PGC_CTL_STATUS };
	struct pgc_ctl_file_reply *live = calloc(n + 1, sizeof(*live));
	int r = live ? ctl_request(c->conn, &status) : -ENOMEM;

	for (size_t i = 0; i < n && r == 0; i++) {
		struct pgc_ctl_check request = { .dev = files[i].dev, .ino = files[i].ino, .step = PGC_CHECK_FILE };
		struct rows rows = { 0 };

		r = ask(c, &request, &rows);
		free(rows.mem);
		if (r == -ENOENT) { /* it is gone, or waits for a client of a daemon that is */
			r = 0;
			continue;
		}
		live[c->files++] = files[i];
		for (unsigned step = PGC_CHECK_PAGES; step <= PGC_CHECK_CONTENT && r == 0; step++) {
			request.step = step;
			if ((step != PGC_CHECK_CONTENT || c->content) && (step != PGC_CHECK_FILE || !all)) /* else with the counts */
				r = step_through(c, request, files, n, NULL, true, NULL);
		}
	}
	if (r == 0 && all)
		r = check_counts(c, status.ctl_status_reply.workers, live, c->files);
	free(live);
	if (c->progress)
		fputs("\r\033[K", stderr);
	return r;
}

void ctl_check_free(struct ctl_check *c)
{
	free(c->differences);
	c->differences = NULL;
	c->n = c->allocated = 0;
}

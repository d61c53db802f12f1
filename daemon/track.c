/* SPDX-License-Identifier: Apache-2.0 */
/* See track.h. May call file, block, window, pagemap, uffd. */
#include "daemon/track.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "daemon/fdstore.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/pagemap.h"
#include "daemon/saved.h"
#include "daemon/uffd.h"
#include "daemon/window.h"
#include "daemon/written.h"

#define WORDS_A_PAGE (PAGE_SIZE_ / sizeof(uint64_t))
#define ROW_SHIFT    34              /* bytes of the memfd for one tracker: 512 TiB of file */
#define SPAN         32u             /* blocks that are looked at in one go */
#define REGIONS      256u            /* that one call tells of */
#define TURN_NS      50000ull
#define SHED_BLOCKS  8u
#define PUT_TRIES    100u
#define ROOM_NS      1000000ull
#define LOOKS_FIRST  256u            /* pages that are looked at before they are punched, after one that had been stored to */

void tracker_init(struct tracker *t)
{
	*t = (struct tracker){ .uffd = -1, .pagemap = -1 };
	list_init(&t->by_file);
}

/* --- bits --- */

static void *map_words(const struct file *f, uint32_t row, uint64_t words)
{
	return mmap(NULL, words * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, f->tracked.fd, (off_t)row << ROW_SHIFT);
}

static void unmap_words(struct tracker *t)
{
	if (t->word)
		munmap(t->word, t->words * sizeof(uint64_t));
	free(t->count);
	t->word = NULL;
	t->count = NULL;
	t->words = 0;
}

/* Makes them reach `blocks` blocks. */
static int reach(struct tracker *t, uint64_t blocks)
{
	uint64_t words = align_up(blocks, WORDS_A_PAGE), had = t->words / WORDS_A_PAGE, *word;
	uint32_t *count;

	if (words <= t->words)
		return 0;
	count = reallocarray(t->count, words / WORDS_A_PAGE, sizeof(*count));
	if (!count)
		return -ENOMEM;
	memset(count + had, 0, (words / WORDS_A_PAGE - had) * sizeof(*count));
	t->count = count;
	word = map_words(t->file, t->row, words);
	if (word == MAP_FAILED)
		return -ENOMEM;
	if (t->word)
		munmap(t->word, t->words * sizeof(uint64_t));
	t->word = word;
	t->words = words;
	return 0;
}

static void count_pages(struct tracker *t, uint64_t index, int64_t n)
{
	struct budget *g = t->file->worker->budget;
	uint32_t *count = &t->count[index / WORDS_A_PAGE];
	bool had = *count > 0, looked = t->pages > 0;

	*count = (uint32_t)((int64_t)*count + n);
	t->pages = (uint64_t)((int64_t)t->pages + n);
	if (!looked)
		file_stat_hide(t->file); /* its times may not be right from here on, until somebody looks */
	else if (t->pages == 0)
		worker_queue(t->file->worker, &t->file->stat_task);
	atomic_fetch_add_explicit(&g->tracked, (uint64_t)n, memory_order_relaxed);
	atomic_fetch_add_explicit(&g->tracked_by[t->toucher->client], (uint64_t)n, memory_order_relaxed);
	if (had == (*count > 0))
		return;
	budget_charge_tables(t->file->worker, had ? -1 : 1);
	if (had)
		(void)fallocate(t->file->tracked.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)(((uint64_t)t->row << ROW_SHIFT) + align_down(index, WORDS_A_PAGE) * sizeof(uint64_t)), (off_t)PAGE_SIZE_);
}

static uint64_t get_word(const struct tracker *t, uint64_t index)
{
	return index < t->words && t->count[index / WORDS_A_PAGE] > 0 ? t->word[index] : 0;
}

static void put_word(struct tracker *t, uint64_t index, uint64_t pages)
{
	uint64_t had = get_word(t, index);

	if (had == pages)
		return;
	t->word[index] = pages;
	count_pages(t, index, (int64_t)__builtin_popcountll(pages) - __builtin_popcountll(had));
}

/* The first block from `index` on of which something is mapped; UINT64_MAX: none. */
static uint64_t next_word(const struct tracker *t, uint64_t index)
{
	while (index < t->words) {
		if (t->count[index / WORDS_A_PAGE] == 0)
			index = align_down(index, WORDS_A_PAGE) + WORDS_A_PAGE;
		else if (t->word[index])
			return index;
		else
			index++;
	}
	return UINT64_MAX;
}

int track_set(struct tracker *t, uint64_t page, uint64_t n, struct track_before *ret_before)
{
	struct worker *w = t->file->worker;
	uint64_t end = page + n, *before = ret_before->word;
	int r = reach(t, MAX((end + PGC_BLOCK_PAGES - 1) / PGC_BLOCK_PAGES, (file_pages(t->file) + PGC_BLOCK_PAGES - 1) / PGC_BLOCK_PAGES));

	if (r < 0)
		return r;
	assert(n <= TRACK_SET_MAX);
	ret_before->index = page / PGC_BLOCK_PAGES;
	for (uint64_t i = page / PGC_BLOCK_PAGES; i * PGC_BLOCK_PAGES < end; i++) {
		*before++ = get_word(t, i);
		put_word(t, i, get_word(t, i) | block_part(i, page, end));
	}
	if (!w->track_timer.armed)
		ring_timer_arm(&w->ring, &w->track_timer, TRACK_NS);
	return 0;
}

void track_unset(struct tracker *t, uint64_t page, uint64_t n, const struct track_before *before)
{
	uint64_t end = page + n;

	for (uint64_t i = page / PGC_BLOCK_PAGES; i * PGC_BLOCK_PAGES < end; i++)
		put_word(t, i, get_word(t, i) & (before->word[i - before->index] | ~block_part(i, page, end)));
}

static void clear(struct tracker *t, uint64_t page, uint64_t n)
{
	uint64_t end = page + n;

	for (uint64_t i = page / PGC_BLOCK_PAGES; t->pages > 0 && i * PGC_BLOCK_PAGES < end; i++)
		put_word(t, i, get_word(t, i) & ~block_part(i, page, end));
}

bool track_any(const struct tracker *t, uint64_t page, uint64_t n)
{
	for (uint64_t i = page / PGC_BLOCK_PAGES; t->pages > 0 && i * PGC_BLOCK_PAGES < page + n; i++)
		if (get_word(t, i) & block_part(i, page, page + n))
			return true;
	return false;
}

uint64_t track_mapped(const struct file *f, uint64_t index)
{
	uint64_t pages = 0;
	struct tracker *t;

	list_for_each(t, &f->trackers, by_file)
		pages |= get_word(t, index);
	return pages;
}

void track_punched(struct file *f, uint64_t first, uint64_t n)
{
	struct tracker *t;

	list_for_each(t, &f->trackers, by_file)
		if (t->pages > 0)
			clear(t, first, MIN(n, t->words * PGC_BLOCK_PAGES - MIN(first, t->words * PGC_BLOCK_PAGES)));
}

bool track_any_pages(const struct file *f)
{
	struct tracker *t;

	list_for_each(t, &f->trackers, by_file)
		if (t->pages > 0)
			return true;
	return false;
}

bool track_needed(const struct file *f) { return track_any_pages(f) || written_on(f); }

/* --- trackers --- */

static int take_row(struct file *f, uint32_t *ret)
{
	struct tracked *k = &f->tracked;
	uint64_t *rows;

	for (uint32_t i = 0; i < k->n_rows; i++)
		if (~k->rows[i]) {
			unsigned bit = (unsigned)__builtin_ctzll(~k->rows[i]);

			k->rows[i] |= 1ull << bit;
			*ret = i * 64 + bit;
			return 0;
		}
	rows = reallocarray(k->rows, k->n_rows + 1, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	k->rows = rows;
	k->rows[k->n_rows] = 1;
	*ret = k->n_rows++ * 64;
	return 0;
}

static int use_row(struct file *f, uint32_t row)
{
	struct tracked *k = &f->tracked;

	if (row / 64 >= k->n_rows) {
		uint64_t *rows = reallocarray(k->rows, row / 64 + 1, sizeof(*rows));

		if (!rows)
			return -ENOMEM;
		memset(rows + k->n_rows, 0, (row / 64 + 1 - k->n_rows) * sizeof(*rows));
		k->rows = rows;
		k->n_rows = row / 64 + 1;
	}
	k->rows[row / 64] |= 1ull << (row % 64);
	return 0;
}

static void give_row(struct file *f, uint32_t row)
{
	(void)fallocate(f->tracked.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)row << ROW_SHIFT, (off_t)1 << ROW_SHIFT);
	f->tracked.rows[row / 64] &= ~(1ull << (row % 64));
}

/* The memfd has rows up to that one; what it has behind it stays. */
static int make_rows(struct file *f, uint32_t row)
{
	off_t size = (off_t)((uint64_t)row + 1) << ROW_SHIFT;
	struct tracked *k = &f->tracked;
	struct stat st;

	if (k->fd < 0)
		k->fd = memfd_create("pagecached-tracked", MFD_CLOEXEC);
	if (k->fd < 0 || fchmod(k->fd, 0400) < 0 || fstat(k->fd, &st) < 0)
		return -errno;
	return st.st_size < size && ftruncate(k->fd, size) < 0 ? -errno : 0;
}

static int set_up(struct tracker *t, struct file *f, const struct toucher *toucher, int uffd, uint32_t row)
{
	int r = make_rows(f, row);

	if (r < 0)
		return r;
	t->file = f;
	t->toucher = toucher;
	t->uffd = uffd;
	t->row = row;
	f->saved->tracked = 1;
	list_append(&f->trackers, &t->by_file);
	return 0;
}

int track_begin(struct tracker *t, struct file *f, const struct toucher *toucher, int uffd)
{
	uint32_t row;
	int r = take_row(f, &row);

	return r < 0 ? r : set_up(t, f, toucher, uffd, row);
}

/* Counts what a row has that is there already. */
static int read_row(struct tracker *t)
{
	uint64_t from = (uint64_t)t->row << ROW_SHIFT, end = from + (1ull << ROW_SHIFT), last = from;
	off_t at = (off_t)from;
	int r;

	while ((at = lseek(t->file->tracked.fd, at, SEEK_DATA)) >= 0 && (uint64_t)at < end) {
		last = align_down((uint64_t)at, PAGE_SIZE_) + PAGE_SIZE_;
		at = (off_t)last;
	}
	r = reach(t, (last - from) / sizeof(uint64_t));
	for (uint64_t i = 0; r == 0 && i < t->words; i++) {
		off_t data = lseek(t->file->tracked.fd, (off_t)(from + i * sizeof(uint64_t)), SEEK_DATA);

		if (data < 0 || (uint64_t)data >= from + t->words * sizeof(uint64_t))
			break;
		i = ((uint64_t)data - from) / sizeof(uint64_t);
		if (t->word[i])
			count_pages(t, i, __builtin_popcountll(t->word[i]));
	}
	return r;
}

/* Nothing is known of it: all that is here counts. */
static int take_all(struct tracker *t)
{
	int r = 0;

	for (struct block *b = block_tree_next(&t->file->blocks, 0, false); r == 0 && b; b = block_tree_next(&t->file->blocks, b->e->index + 1, false)) {
		r = reach(t, b->e->index + 1);
		if (r == 0)
			put_word(t, b->e->index, b->e->resident);
	}
	return r;
}

int track_adopt(struct tracker *t, struct file *f, const struct toucher *toucher, int uffd, uint32_t row)
{
	bool fresh = row == UINT32_MAX;
	int r = fresh ? take_row(f, &row) : use_row(f, row);

	if (r == 0)
		r = set_up(t, f, toucher, uffd, row);
	if (r == 0)
		r = fresh ? take_all(t) : read_row(t);
	if (r == 0 && t->pages > 0 && !f->worker->track_timer.armed)
		ring_timer_arm(&f->worker->ring, &f->worker->track_timer, TRACK_NS);
	return r;
}

/* --- looking --- */

/* What is found of a span of blocks. */
struct look {
	struct tracker *t;
	uint64_t index;            /* of its first block */
	uint64_t from, to;         /* pages that matter */
	bool take;                 /* protect what is written */
	uint64_t covered[SPAN], written[SPAN], unclean[SPAN], present[SPAN];
};

static void add_bits(const struct look *l, uint64_t *words, uint64_t from, uint64_t to)
{
	for (uint64_t i = from / PGC_BLOCK_PAGES; i * PGC_BLOCK_PAGES < to; i++)
		words[i - l->index] |= block_part(i, from, to);
}

static void look_at_piece(void *arg, uint64_t addr, uint64_t page, uint64_t n)
{
	struct look *l = arg;
	uint64_t from = MAX(page, l->from), to = MIN(page + n, l->to), start, end, at, seen;
	struct pagemap_region region[REGIONS];
	int k = 0;

	if (from >= to)
		return;
	start = addr + (from - page) * PAGE_SIZE_;
	end = start + (to - from) * PAGE_SIZE_;
#define PAGE_OF(a) (from + ((a) - start) / PAGE_SIZE_)
	add_bits(l, l->covered, from, to);
	for (at = start; l->take && at < end && k >= 0;) {
		k = pagemap_take_written(l->t->pagemap, &at, end, region, REGIONS);
		for (int i = 0; i < k; i++)
			add_bits(l, l->written, PAGE_OF(region[i].start), PAGE_OF(region[i].end));
	}
	for (at = seen = start, k = 0; at < end && k >= 0;) {
		k = pagemap_find_clean(l->t->pagemap, &at, end, region, REGIONS);
		for (int i = 0; i < k; i++) {
			add_bits(l, l->unclean, PAGE_OF(seen), PAGE_OF(region[i].start));
			if (region[i].categories & PAGEMAP_PRESENT)
				add_bits(l, l->present, PAGE_OF(region[i].start), PAGE_OF(region[i].end));
			seen = region[i].end;
		}
	}
	add_bits(l, l->unclean, PAGE_OF(seen), to);
#undef PAGE_OF
}

/* The span from block `index` on, of which `from` and `to` leave a part. Only what lies between the first and the last page that counts is looked at. */
static void look(struct look *l, struct tracker *t, uint64_t index, uint64_t from, uint64_t to, bool take)
{
	*l = (struct look){ .t = t, .index = index, .take = take, .from = UINT64_MAX };
	for (uint64_t i = index; i < index + SPAN; i++) {
		uint64_t pages = get_word(t, i) & block_part(i, from, to);

		if (!pages)
			continue;
		l->from = MIN(l->from, i * PGC_BLOCK_PAGES + (unsigned)__builtin_ctzll(pages));
		l->to = i * PGC_BLOCK_PAGES + 64 - (unsigned)__builtin_clzll(pages);
	}
	if (l->from < l->to && tracker_sees(t))
		t->pieces(t, l->from, l->to, look_at_piece, l);
}

static uint64_t not_clean(const struct look *l, uint64_t i) { return l->written[i] | l->unclean[i] | ~l->covered[i]; }

static void mark_written(struct tracker *t, uint64_t index, uint64_t pages)
{
	struct block *b = pages ? block_tree_find(&t->file->blocks, index) : NULL;

	pages &= b ? b->e->resident & ~b->e->dirty : 0;
	if (!pages)
		return;
	block_dirtied_by(b, t->toucher);
	block_set_dirty(b, pages);
	kill_point("track.dirty_set");
	file_changed(t->file);
}

void track_remapped(struct tracker *t, uint64_t page, uint64_t n, const struct track_before *before)
{
	uint64_t index = page / PGC_BLOCK_PAGES, end = (page + n - 1) / PGC_BLOCK_PAGES + 1;
	bool any = false;

	for (uint64_t i = index; i < end && !any; i++)
		any = before->word[i - index] & block_part(i, page, page + n);
	for (; any && index < end; index += SPAN) {
		struct look l;

		look(&l, t, index, page, page + n, false);
		for (uint64_t i = index; i < MIN(index + SPAN, end); i++)
			mark_written(t, i, before->word[i - before->index] & block_part(i, page, page + n) & not_clean(&l, i - index));
	}
}

/* Pages that are neither protected nor found with a store leave no trace of the next one: a marker. They are dirty by now. */
static void protect_piece(void *arg, uint64_t addr, uint64_t page, uint64_t n)
{
	struct look *l = arg;
	uint64_t from = MAX(page, l->from), to = MIN(page + n, l->to);

	for (uint64_t p = from; p < to; p++) {
		uint64_t i = p / PGC_BLOCK_PAGES - l->index, run = 0;

		while (p + run < to && (p + run) / PGC_BLOCK_PAGES - l->index == i && (l->unclean[i] & get_word(l->t, l->index + i) & 1ull << ((p + run) % PGC_BLOCK_PAGES)))
			run++;
		if (run > 0)
			(void)uffd_protect(l->t->uffd, addr + (p - page) * PAGE_SIZE_, run * PAGE_SIZE_, true, false);
		p += run > 0 ? run - 1 : 0;
	}
}

static void scan_span(struct tracker *t, uint64_t index, uint64_t from, uint64_t to)
{
	struct file *f = t->file;
	uint64_t unclean = 0;
	struct look l;

	f->saved->scan_to = to;
	crash_order();
	f->saved->scan_from = from; /* the protection goes before the bits come */
	crash_order();
	look(&l, t, index, from, to, true);
	kill_point("track.taken");
	for (uint64_t i = 0; i < SPAN; i++) {
		uint64_t mapped = get_word(t, index + i), pages = mapped & block_part(index + i, from, to);

		if (!pages)
			continue;
		mark_written(t, index + i, (pages & not_clean(&l, i)) | l.written[i]);
		if (!tracker_sees(t))
			continue;
		unclean |= l.unclean[i] & l.covered[i] & pages;
		put_word(t, index + i, (mapped & ~pages) | (pages & l.covered[i] & (l.written[i] | l.unclean[i] | l.present[i])));
	}
	kill_point("track.marked");
	if (unclean)
		t->pieces(t, l.from, l.to, protect_piece, &l);
	crash_order();
	f->saved->scan_from = f->saved->scan_to = 0;
}

uint64_t track_scan(struct file *f, uint64_t from, uint64_t to)
{
	uint64_t begun = now_ns();
	struct tracker *t;

	written_take(f, from, to);
	while (from < to) {
		uint64_t next = UINT64_MAX, end;

		list_for_each(t, &f->trackers, by_file)
			if (t->pages > 0 && !t->waits)
				next = MIN(next, next_word(t, from / PGC_BLOCK_PAGES));
		if (next == UINT64_MAX || next * PGC_BLOCK_PAGES >= to)
			return to;
		from = MAX(from, next * PGC_BLOCK_PAGES);
		end = MIN(to, (next + SPAN) * PGC_BLOCK_PAGES);
		list_for_each(t, &f->trackers, by_file)
			if (t->pages > 0 && !t->waits && next_word(t, next) < next + SPAN)
				scan_span(t, next, from, end);
		from = end;
		if (now_ns() - begun > TURN_NS)
			break;
	}
	return MIN(from, to);
}

void track_lost(struct file *f)
{
	for (struct block *b = block_tree_next(&f->blocks, 0, false); b; b = block_tree_next(&f->blocks, b->e->index + 1, false))
		block_set_dirty(b, b->e->resident);
}

uint64_t track_was_busy(const struct file *f, uint64_t index)
{
	const struct pgc_saved_file *s = f->saved;

	return (s->scan_from < s->scan_to ? block_part(index, s->scan_from, s->scan_to) : 0) | track_was_dropping(f, index);
}

uint64_t track_was_dropping(const struct file *f, uint64_t index)
{
	const struct pgc_saved_file *s = f->saved;

	return block_part(index, s->drop_from, s->drop_from + MIN(s->drop_n, PGC_BLOCK_PAGES));
}

int track_may_clean(const struct file *f, uint64_t first, uint64_t n)
{
	struct tracker *t;
	int r = 0;

	list_for_each(t, &f->trackers, by_file)
		if (!tracker_sees(t) && track_any(t, first, n))
			r = !t->waits || r == -EPERM ? -EPERM : -EAGAIN;
	return r;
}

bool track_waits(const struct file *f)
{
	struct tracker *t;

	list_for_each(t, &f->trackers, by_file)
		if (t->waits && t->pages > 0)
			return true;
	return false;
}

/* --- the end of a mapping, of a tracker --- */

static void look_what_is_mapped(void *arg, uint64_t addr, uint64_t page, uint64_t n)
{
	struct look *l = arg;

	add_bits(l, l->covered, MAX(page, l->from), MIN(page + n, l->to));
}

void track_unmapped(struct tracker *t, uint64_t from, uint64_t to)
{
	if (t->pages == 0)
		return;
	for (uint64_t index = next_word(t, from / PGC_BLOCK_PAGES); index < t->words && index * PGC_BLOCK_PAGES < to; index = next_word(t, index + SPAN)) {
		struct look l = { .t = t, .index = index, .from = MAX(from, index * PGC_BLOCK_PAGES), .to = MIN(to, (index + SPAN) * PGC_BLOCK_PAGES) };

		t->pieces(t, l.from, l.to, look_what_is_mapped, &l);
		for (uint64_t i = 0; i < SPAN; i++) {
			uint64_t mapped = get_word(t, index + i), pages = mapped & block_part(index + i, from, to);

			mark_written(t, index + i, pages);
			kill_point("track.unmapped_marked");
			if (pages & ~l.covered[i])
				put_word(t, index + i, mapped & ~(pages & ~l.covered[i]));
		}
	}
}

static void no_pieces(struct tracker *t, uint64_t from, uint64_t to, track_piece fn, void *arg) {}

void track_end(struct tracker *t)
{
	if (!tracker_on(t))
		return;
	t->pieces = no_pieces;
	track_unmapped(t, 0, t->words * PGC_BLOCK_PAGES);
	assert(t->pages == 0);
	list_remove(&t->by_file);
	unmap_words(t);
	give_row(t->file, t->row);
	if (t->pagemap >= 0)
		close(t->pagemap);
	t->pagemap = -1;
}

void track_file_free(struct file *f)
{
	if (f->tracked.fd >= 0)
		close(f->tracked.fd);
	free(f->tracked.rows);
	f->tracked = (struct tracked){ .fd = -1 };
}

/* --- dropping pages without losing a store --- */

static int make_pipe(int ret[2])
{
	if (pipe2(ret, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	(void)fcntl(ret[1], F_SETPIPE_SZ, PGC_BLOCK_SIZE); /* it may have less: then fewer go at a time */
	return 0;
}

int track_worker_init(struct worker *w)
{
	int r = w->drop_pipe[0] >= 0 ? 0 : make_pipe(w->drop_pipe);

	if (r < 0)
		return r;
	w->drop_sink = open("/dev/null", O_WRONLY | O_CLOEXEC);
	return w->drop_sink < 0 ? -errno : 0;
}

void track_worker_free(struct worker *w)
{
	int *fds[] = { &w->drop_pipe[0], &w->drop_pipe[1], &w->drop_sink };

	for (size_t i = 0; i < ELEMENTSOF(fds); i++)
		if (*fds[i] >= 0)
			close(take_fd(fds[i]));
}

/* Whatever the pipe still has. */
void track_empty_pipe(struct worker *w)
{
	while (splice(w->drop_pipe[0], NULL, w->drop_sink, NULL, PGC_BLOCK_SIZE, SPLICE_F_NONBLOCK) > 0)
		;
}

/* The next `bytes` of the pipe go. */
static void skip(struct worker *w, size_t bytes)
{
	if (bytes > 0)
		(void)splice(w->drop_pipe[0], NULL, w->drop_sink, NULL, bytes, SPLICE_F_NONBLOCK);
}

/* The next page of the pipe goes back to where it was; it is out of the pipe once it is there, since the daemon may die in between. */
static bool put_page_back(struct file *f, uint64_t page)
{
	off_t at = (off_t)(page * PAGE_SIZE_);
	size_t left = file_bytes_in(f, page, 1), rest = PAGE_SIZE_ - left;

	for (unsigned i = 0; i < PUT_TRIES && left > 0; i++) {
		ssize_t n = splice(f->worker->drop_pipe[0], NULL, f->memfd, &at, left, SPLICE_F_NONBLOCK);

		left -= (size_t)MAX(n, 0);
	}
	kill_point("track.page_put_back");
	skip(f->worker, left + rest);
	if (left == 0)
		return true;
	log_at(LOG_LEVEL_ERROR, f->e->name, 0, "page %llu was written while it was given up, and there is no memory to put it back: it is lost",
	       (unsigned long long)page);
	file_record_error(f, -EIO);
	return false;
}

/* The bits for pages [first, first + n), the lowest for `first`. */
static uint64_t bits_of(const struct tracker *t, uint64_t first, unsigned n)
{
	unsigned shift = (unsigned)(first % PGC_BLOCK_PAGES);
	uint64_t index = first / PGC_BLOCK_PAGES, bits = get_word(t, index) >> shift;

	if (shift + n > PGC_BLOCK_PAGES)
		bits |= get_word(t, index + 1) << (PGC_BLOCK_PAGES - shift);
	return bits & bits_range(0, n);
}

/* A word of bits for pages [first, first + n), the lowest for `first`: of what is mapped, what is not clean. */
static uint64_t find_unclean(struct tracker *t, uint64_t first, unsigned n, uint64_t *ret_mapped)
{
	uint64_t index = first / PGC_BLOCK_PAGES, unclean[2];
	unsigned shift = (unsigned)(first % PGC_BLOCK_PAGES);
	struct look l;

	look(&l, t, index, first, first + n, false);
	for (unsigned i = 0; i < 2; i++)
		unclean[i] = get_word(t, index + i) & block_part(index + i, first, first + n) & (tracker_sees(t) ? not_clean(&l, i) : ~0ull);
	*ret_mapped = bits_of(t, first, n);
	return unclean[0] >> shift | (shift ? unclean[1] << (64 - shift) : 0);
}

/* Of pages [first, first + n): those that somebody has mapped to store to. *ret_seen: whoever has can be looked at. */
static uint64_t mapped_among(const struct file *f, uint64_t first, unsigned n, bool *ret_seen)
{
	uint64_t all = 0, bits;
	struct tracker *t;

	*ret_seen = true;
	list_for_each(t, &f->trackers, by_file) {
		bits = t->pages > 0 ? bits_of(t, first, n) : 0;
		*ret_seen &= !bits || tracker_sees(t);
		all |= bits;
	}
	return all;
}

/* Of pages [first, first + n): those that somebody has mapped to store to, and of these, in *ret_unclean, those that may have been written; they are dirty now. */
static uint64_t look_at_all(struct file *f, uint64_t first, unsigned n, uint64_t *ret_unclean)
{
	uint64_t all = 0, mapped, unclean;
	struct tracker *t;

	*ret_unclean = written_among(f, first, n);
	list_for_each(t, &f->trackers, by_file) {
		if (t->pages == 0)
			continue;
		unclean = find_unclean(t, first, n, &mapped);
		all |= mapped;
		*ret_unclean |= unclean;
		for (; unclean && !t->waits; unclean &= unclean - 1) {
			uint64_t page = first + (unsigned)__builtin_ctzll(unclean);

			mark_written(t, page / PGC_BLOCK_PAGES, 1ull << (page % PGC_BLOCK_PAGES));
		}
	}
	return all;
}

static void note_drop(struct file *f, uint64_t first, unsigned n)
{
	f->saved->drop_n = 0;
	crash_order();
	f->saved->drop_from = first;
	crash_order();
	f->saved->drop_n = n;
	crash_order();
}

/* The next page of the pipe goes, into copy->to[i] if that is wanted. Whatever fails, the one behind it is the next then. */
static void take_page(struct worker *w, struct track_copy *copy, unsigned i)
{
	ssize_t got = copy ? read(w->drop_pipe[0], copy->to[i].iov_base, PAGE_SIZE_) : 0;

	if (got == (ssize_t)PAGE_SIZE_)
		copy->done |= 1ull << i;
	else
		skip(w, PAGE_SIZE_ - (size_t)MAX(got, 0));
	kill_point("track.page_taken");
}

/*
 * Pages that somebody has mapped, perhaps clean a moment ago, their references in the pipe. Which of them stay: those that were stored to, or (`back`) all; and
 * which of them are clean no more. The first is number `at` of `copy`.
 */
static uint64_t punch_held(struct file *f, uint64_t first, unsigned n, bool back, struct track_copy *copy, unsigned at, int *ret)
{
	uint64_t stay, written;

	note_drop(f, first, n);
	kill_point("track.dropping");
	*ret = file_punch_only(f, first, n);
	kill_point("track.punched");
	if (*ret < 0)
		return bits_range(0, n);
	(void)look_at_all(f, first, n, &written);
	stay = back ? bits_range(0, n) : written;
	track_punched(f, first, n);
	for (unsigned i = 0; i < n && (copy || stay >> i); i++) {
		if (stay & (1ull << i))
			(void)put_page_back(f, first + i);
		else
			take_page(f->worker, copy, at + i);
		kill_point("track.put_back");
	}
	if (written)
		f->tracked.look_first = LOOKS_FIRST;
	f->worker->stats->put_back += (uint64_t)__builtin_popcountll(written);
	return stay;
}

/* Pages [first, first + n), of one block and mapped somewhere: takes references to as many as the pipe has room for, and punches them. *ret_held: how many; 0: none. */
static uint64_t hold_and_punch(struct file *f, uint64_t first, unsigned n, bool back, struct track_copy *copy, unsigned at, unsigned *ret_held, int *ret)
{
	struct block *b = block_tree_find(&f->blocks, first / PGC_BLOCK_PAGES);
	struct iovec iov = { b->addr + first % PGC_BLOCK_PAGES * PAGE_SIZE_, n * PAGE_SIZE_ };
	ssize_t bytes = vmsplice(f->worker->drop_pipe[1], &iov, 1, SPLICE_F_NONBLOCK);
	uint64_t stay = 0;

	kill_point("track.held");
	*ret_held = bytes > 0 ? (unsigned)((uint64_t)bytes / PAGE_SIZE_) : 0;
	if (*ret_held > 0) {
		stay = punch_held(f, first, *ret_held, back, copy, at, ret);
		f->saved->drop_n = 0;
		crash_order();
		kill_point("track.drop_over");
	}
	/* With copies every page was taken out one by one. */
	if (!copy || *ret < 0 || bytes != (ssize_t)(*ret_held * PAGE_SIZE_))
		track_empty_pipe(f->worker);
	return stay;
}

/* Nobody has these mapped to store to. */
static int copy_and_punch(struct file *f, uint64_t first, unsigned n, struct track_copy *copy, unsigned at)
{
	if (copy && preadv(f->memfd, copy->to + at, (int)n, (off_t)(first * PAGE_SIZE_)) >= (ssize_t)file_bytes_in(f, first, n))
		copy->done |= bits_range(at, n);
	kill_point("track.copied");
	return file_punch(f, first, n);
}

/*
 * What is known to have been written needs not be punched and put back. Where that is rare, to look before costs more than it saves; but where nobody keeps the
 * pipe, what was written before is not to be in it.
 */
static uint64_t look_before(struct file *f, uint64_t first, unsigned n, uint64_t *ret_stay)
{
	uint64_t mapped;
	bool seen;

	if (f->tracked.look_first == 0 && f->memory_kept && fdstore_active()) {
		mapped = mapped_among(f, first, n, &seen);
		if (seen) {
			*ret_stay = written_among(f, first, n);
			return mapped;
		}
	}
	f->tracked.look_first -= MIN(f->tracked.look_first, n);
	return look_at_all(f, first, n, ret_stay);
}

int track_punch(struct file *f, uint64_t first, unsigned n, struct track_copy *copy, uint64_t *ret_stay)
{
	uint64_t mapped, stay, left;
	int r = 0;

	*ret_stay = 0;
	if (!track_needed(f))
		return copy_and_punch(f, first, n, copy, 0);
	mapped = look_before(f, first, n, &stay);
	for (left = bits_range(0, n) & ~stay; left;) {
		unsigned from = (unsigned)__builtin_ctzll(left), held = bits_run(left, from);

		held = MIN(held, (unsigned)(PGC_BLOCK_PAGES - (first + from) % PGC_BLOCK_PAGES));
		if (mapped & bits_range(from, held)) {
			stay |= hold_and_punch(f, first + from, held, false, copy, from, &held, &r) << from;
			if (held == 0) { /* a client has cut the memfd, or there is no memory */
				r = -EAGAIN;
				stay |= left;
				break;
			}
		} else {
			r = copy_and_punch(f, first + from, held, copy, from);
			stay |= r < 0 ? bits_range(from, held) : 0;
		}
		left &= ~bits_range(from, held);
	}
	*ret_stay = stay;
	return stay == bits_range(0, n) && r < 0 ? r : 0;
}

bool track_revoke(struct file *f, bool all, uint64_t *cursor)
{
	uint64_t next = UINT64_MAX, unclean, mapped, left;
	struct block *b;
	struct tracker *t;
	int r;

	list_for_each(t, &f->trackers, by_file)
		next = MIN(next, next_word(t, *cursor));
	if (next == UINT64_MAX)
		return false;
	*cursor = next + 1;
	mapped = look_at_all(f, next * PGC_BLOCK_PAGES, PGC_BLOCK_PAGES, &unclean);
	window_hide(f, next * PGC_BLOCK_PAGES, PGC_BLOCK_PAGES);
	b = block_tree_find(&f->blocks, next);
	for (left = b ? mapped & b->e->resident & (all ? ~b->e->writeback : ~(unclean | b->e->dirty | b->e->writeback)) : 0; left;) {
		unsigned from = (unsigned)__builtin_ctzll(left), held = bits_run(left, from);

		(void)hold_and_punch(f, next * PGC_BLOCK_PAGES + from, held, true, NULL, 0, &held, &r);
		if (held == 0)
			break;
		left &= ~bits_range(from, held);
	}
	if (b)
		window_show(b);
	return true;
}

void track_put_back(struct file *f)
{
	struct worker *w = f->worker;
	unsigned n = MIN(f->saved->drop_n, PGC_BLOCK_PAGES), left;
	uint64_t first = f->saved->drop_from;
	int bytes = 0;

	if (n == 0 || ioctl(w->drop_pipe[0], FIONREAD, &bytes) < 0)
		return;
	left = MIN((unsigned)bytes / PGC_PAGE_SIZE, n); /* the last ones of them */
	for (unsigned i = n - left; i < n && first + i < file_pages(f); i++) {
		off_t at = (off_t)((first + i) * PAGE_SIZE_);

		if (lseek(f->memfd, at, SEEK_DATA) == at)
			skip(w, PAGE_SIZE_);
		else if (!put_page_back(f, first + i))
			break;
		kill_point("track.restoring");
	}
}

/* --- bounds --- */

bool track_is_over_limit(const struct file *f)
{
	struct budget *g = f->worker->budget;
	struct tracker *t;

	list_for_each(t, &f->trackers, by_file)
		if (t->pages > 0 && (file_is_stuck(f) || !budget_may_dirty(g, t->toucher->client, t->toucher->user)))
			return true;
	return written_on(f) && f->control->must_ask;
}

/*
 * The counter is of all whose processes have the same hash, and a page that one has mapped twice is in it twice. Counted here: what this worker knows of the process, of
 * each file no more than is here; and all that other workers have.
 */
static bool has_room_counted(const struct tracker *t, uint64_t tracked, uint64_t max)
{
	uint64_t own = 0, hash = 0;
	const struct tracker *o;
	struct file *f;

	list_for_each(f, &t->file->worker->all_files, by_worker) {
		uint64_t here = 0;

		list_for_each(o, &f->trackers, by_file) {
			hash += o->toucher->client == t->toucher->client ? o->pages : 0;
			here += o->pid == t->pid ? o->pages : 0;
		}
		own += MIN(here, f->e->resident);
	}
	return own + tracked - MIN(hash, tracked) < max;
}

bool track_has_room(struct tracker *t)
{
	struct budget *g = t->file->worker->budget;
	uint64_t tracked = atomic_load_explicit(&g->tracked_by[t->toucher->client], memory_order_relaxed), max = budget_track_max(g), now;

	/* Of a few its client has the rest elsewhere: it may go on here, and gives up what it has there as it goes on there. */
	if (t->pages < SHED_BLOCKS * PGC_BLOCK_PAGES || tracked < max)
		return true;
	now = now_ns();
	if (now < t->room_until)
		return true;
	if (!has_room_counted(t, tracked, max))
		return false;
	t->room_until = now + ROOM_NS;
	return true;
}

bool track_may_map(struct tracker *t)
{
	if (track_has_room(t))
		return true;
	for (unsigned i = 0; i < SHED_BLOCKS; i++) {
		uint64_t index = next_word(t, t->shed_cursor);
		struct block *b = index == UINT64_MAX ? NULL : block_tree_find(&t->file->blocks, index);

		t->shed_cursor = index == UINT64_MAX ? 0 : index + 1;
		if (b)
			(void)block_drop_clean(b, get_word(t, index));
	}
	return track_has_room(t);
}

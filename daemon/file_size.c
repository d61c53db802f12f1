/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes of a file, its memfd, its entry and its control page, and the counter that clients look at. See file.h.
 *
 * The memfd has the file's size, but for a moment after a cut while a client copies from what lies behind it (window.h), for whom that would be SIGBUS: then it is punched,
 * and who touches it otherwise has SIGBUS from us (poison.h).
 * Runs on the file's worker. May call window, block and util.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/file.h"
#include "daemon/huge.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/reclaim.h"
#include "daemon/track.h"
#include "daemon/window.h"

#define CUT_LATER_NS 2000000ull        /* to look again whether somebody reads behind the end */

static void set_size_fields(struct file *f, uint64_t size)
{
	file_stat_hide(f);
	if (size >= f->uncut)
		f->uncut = 0;
	f->size = size;
	f->e->size = size;
	kill_point("size.entry_set");
	__atomic_store_n(&f->control->size, size, __ATOMIC_RELEASE);
}

void file_grown(struct file *f, uint64_t size)
{
	if (size > f->size)
		set_size_fields(f, size);
}

void file_bump_seq(struct file *f)
{
	/* Before the punch: a client that reads what the punch left sees the new number (its acquire load comes after its read). */
	__atomic_store_n(&f->control->seq, f->control->seq + 1, __ATOMIC_SEQ_CST);
}

void file_zero_tail(struct file *f, uint64_t from)
{
	uint64_t end = align_up(from, PAGE_SIZE_);
	struct block *b = end > from ? block_tree_find(&f->blocks, from >> BLOCK_SHIFT) : NULL;

	if (b && b->second) /* without its tail, since the file still ends there */
		reclaim_restore(b, block_mask(b, from / PAGE_SIZE_, from / PAGE_SIZE_ + 1), POLICY_CALL);
	if (end > from)
		(void)fallocate(f->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(end - from));
}

static void cut_later(struct file *f);

/* In the page that holds the new end, too: a writer that has found the old one may write it whole. */
static bool end_is_used(struct file *f) { return window_is_read(f, f->size / PAGE_SIZE_); }

static void cut_expired(struct ring_timer *t)
{
	struct file *f = container_of(t, struct file, cut_timer);

	f->timers--;
	if (f->uncut > 0 && end_is_used(f)) {
		cut_later(f);
		return;
	}
	if (f->uncut > 0)
		(void)!ftruncate(f->memfd, (off_t)file_memory_size(f, f->size));
	f->uncut = 0;
	kill_point("size.cut");
	f->worker->room_made = true; /* who has touched what is gone waits in no_room */
	file_maybe_idle(f);
}

static void cut_later(struct file *f)
{
	if (f->cut_timer.armed)
		return; /* the file has grown over what was uncut, and is cut again */
	f->timers++;
	ring_timer_init(&f->cut_timer, cut_expired);
	ring_timer_arm(&f->worker->ring, &f->cut_timer, CUT_LATER_NS);
}

/* The file's size is less than it was: cuts the memfd, at once or as soon as nobody reads there. */
static int cut(struct file *f, uint64_t old_size)
{
	if (!end_is_used(f) && f->uncut == 0)
		return ftruncate(f->memfd, (off_t)file_memory_size(f, f->size)) < 0 ? -errno : 0;
	/* The same to everybody who does not read there just now. */
	if (fallocate(f->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)f->size,
		      (off_t)(align_up(MAX(old_size, f->uncut), PAGE_SIZE_) - f->size)) < 0)
		return -errno;
	cut_later(f);
	f->uncut = MAX(f->uncut, old_size);
	return 0;
}

int file_set_size(struct file *f, uint64_t size)
{
	uint64_t first = page_up(size), old = f->size;
	bool shrink = size < old;
	int r;

	if (size > INT64_MAX)
		return -EFBIG;
	file_stat_hide(f);
	if (f->huge && size != old)
		huge_forget_from(f, MIN(size, old) / PAGE_SIZE_); /* one that holds the end is read again, with what the store has there now */
	if (shrink) {
		/* Nobody begins to read behind it from here on. */
		__atomic_store_n(&f->control->size, size, __ATOMIC_RELEASE);
		window_hide(f, first, file_pages(f) - first);
	} else if (size > old && !f->huge) {
		/* Stores past the end went into this page; they are not in the file. */
		file_zero_tail(f, old);
	}
	kill_point("size.seq_grown");
	f->size = size;
	r = shrink ? cut(f, old) : ftruncate(f->memfd, (off_t)file_memory_size(f, MAX(size, f->uncut))) < 0 ? -errno : 0;
	if (r < 0) {
		set_size_fields(f, old);
		return r;
	}
	kill_point("size.memfd_set");
	if (shrink) {
		struct block *b = block_tree_next(&f->blocks, size / PAGE_SIZE_ / PGC_BLOCK_PAGES, false), *next;

		for (; b; b = next) {
			uint64_t index = b->e->index;

			block_forget(b, block_mask(b, first, ~0ull) & ~b->filling);
			block_forget_second(b, block_mask(b, size / PAGE_SIZE_, ~0ull)); /* the last page has a tail now */
			block_maybe_free(b);
			next = block_tree_next(&f->blocks, index + 1, false);
		}
		track_punched(f, first, UINT64_MAX);
		f->fill_gen++;
	}
	kill_point("size.blocks_dropped");
	set_size_fields(f, size);
	return 0;
}

void file_heal(struct file *f)
{
	uint64_t size = file_memory_size(f, MAX(f->size, f->uncut));
	struct stat st;

	if (fstat(f->memfd, &st) < 0 || (uint64_t)st.st_size == size)
		return;
	log_at(LOG_LEVEL_WARNING, f->e->name, 0, "a client changed the size of the cache to %lld bytes: put back to %llu",
	       (long long)st.st_size, (unsigned long long)size);
	file_bump_seq(f);
	(void)!ftruncate(f->memfd, (off_t)size);
}

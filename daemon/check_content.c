/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clean pages of one block against the store: read anew into memory of our own, so that neither the cache nor (with O_DIRECT) the kernel's is filled, and compared
 * with what the memfd, or the second-chance buffer, has. What becomes dirty meanwhile is not compared; where a write-out has begun meanwhile what differs is read
 * once more, since it may be what that has written.
 */
#include <string.h>
#include <sys/mman.h>

#include "daemon/check.h"
#include "daemon/domain.h"
#include "daemon/policy.h"
#include "daemon/track.h"

struct content_step {
	struct check *c;
	struct file *f;
	uint64_t index, pages;     /* block; those of it that were clean at the begin */
	uint64_t first, len, moved; /* bytes that are read */
	uint64_t writes, fills;    /* write_seq and fill_gen at the begin */
	unsigned tries;
	struct store_op op;
	struct task again;
	char *store, *cache;       /* a block each */
};

static uint64_t clean_pages(const struct block *b)
{
	return (b->e->resident & ~(b->e->dirty | b->e->writeback | b->e->keep)) | b->second;
}

static void step_done(struct content_step *s)
{
	struct check *c = s->c;

	check_release(c, s->f);
	munmap(s->store, 2 * PGC_BLOCK_SIZE);
	list_remove(&s->again.link);
	free(s);
	c->done(c);
}

static void read_store(struct content_step *s);

/* The cache's bytes of a page. False: it has not got them. */
static bool read_page(struct content_step *s, struct block *b, unsigned bit, char *to)
{
	uint64_t page = block_first(b) + bit;
	size_t want = (size_t)MIN(PAGE_SIZE_, s->f->size - page * PAGE_SIZE_);
	uint32_t slot;

	if (!(b->second & (1ull << bit)))
		return pread(s->f->memfd, to, want, (off_t)(page * PAGE_SIZE_)) == (ssize_t)want;
	slot = policy_slot(b->domain->policy, file_key(s->f, page));
	if (slot == POLICY_NO_SLOT)
		return false;
	memcpy(to, domain_slot(b->domain, slot), want);
	return true;
}

/* Of the pages that were clean all the time: those that differ. */
static uint64_t differing(struct content_step *s, struct block *b)
{
	uint64_t left = s->pages & clean_pages(b), differ = 0;

	for (; left; left &= left - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(left);
		uint64_t at = (block_first(b) + bit) * PAGE_SIZE_;

		if (at >= s->f->size || at < s->first || at >= s->first + s->len)
			continue;
		if (!read_page(s, b, bit, s->cache) ||
		    memcmp(s->cache, s->store + (at - s->first), (size_t)MIN(PAGE_SIZE_, s->f->size - at)) != 0)
			differ |= left & -left;
	}
	return differ;
}

static void again(struct task *t)
{
	struct content_step *s = container_of(t, struct content_step, again);

	read_store(s);
}

static void compare(struct content_step *s)
{
	struct block *b = block_tree_find(&s->f->blocks, s->index);
	uint64_t differ = b ? differing(s, b) : 0, first = s->index * PGC_BLOCK_PAGES;

	if (differ && track_needed(s->f)) { /* stored to, and not known to be yet */
		(void)track_scan(s->f, first, first + PGC_BLOCK_PAGES);
		b = block_tree_find(&s->f->blocks, s->index);
		differ &= b ? clean_pages(b) : 0;
	}
	if (differ && (s->writes != s->f->write_seq || s->fills != s->f->fill_gen || s->f->barrier.active)) {
		if (++s->tries < CHECK_TRIES) {
			worker_retry(s->f->worker, &s->again);
			return;
		}
		s->c->end.busy += (uint64_t)__builtin_popcountll(differ);
		differ = 0;
	}
	s->c->end.pages += b ? (uint64_t)__builtin_popcountll(s->pages & clean_pages(b)) : 0;
	while (differ) {
		unsigned from = (unsigned)__builtin_ctzll(differ), n = bits_run(differ, from);

		check_differs(s->c, PGC_DIFFERS_CONTENT, s->f, first + from, first + from + n, 0, 0);
		differ &= ~bits_range(from, n);
	}
	step_done(s);
}

static void submit(struct content_step *s);

static void read_done(struct store_op *op, ssize_t result)
{
	struct content_step *s = container_of(op, struct content_step, op);
	uint64_t before = s->moved;

	if (result < 0) {
		if ((result == -EAGAIN || result == -EINTR) && ++s->tries < CHECK_TRIES) {
			worker_retry(s->f->worker, &s->again);
			return;
		}
		s->c->end.skipped += (uint64_t)__builtin_popcountll(s->pages);
		step_done(s);
		return;
	}
	s->moved += (uint64_t)result;
	if (result > 0 && s->moved < s->len) {
		/* A short read goes on at the page boundary below where it stopped, as direct I/O asks for. */
		if (align_down(s->moved, PAGE_SIZE_) > before)
			s->moved = align_down(s->moved, PAGE_SIZE_);
		else
			goto end; /* less than a page: it is the end of the store */
		submit(s);
		return;
	}
end:
	/* What the store does not have reads as zeros. */
	memset(s->store + s->moved, 0, (size_t)(PGC_BLOCK_SIZE - s->moved));
	compare(s);
}

static void submit(struct content_step *s)
{
	struct store *store = s->f->store;

	s->op.done = read_done;
	store->ops->read(store, &s->op, s->store + s->moved, (size_t)(s->len - s->moved), s->first + s->moved);
}

static void read_store(struct content_step *s)
{
	struct file *f = s->f;
	struct block *b = block_tree_find(&f->blocks, s->index);
	unsigned from, to;

	s->pages = b ? clean_pages(b) : 0;
	s->writes = f->write_seq;
	s->fills = f->fill_gen;
	s->moved = 0;
	if (!s->pages || !f->store || f->state != FILE_READY || f->hold_writes) {
		/* Without a store (nobody has it open) there is nothing to compare with. */
		s->c->end.skipped += (uint64_t)__builtin_popcountll(s->pages);
		step_done(s);
		return;
	}
	from = (unsigned)__builtin_ctzll(s->pages);
	to = 64 - (unsigned)__builtin_clzll(s->pages);
	s->first = (s->index * PGC_BLOCK_PAGES + from) * PAGE_SIZE_;
	s->len = (to - from) * PAGE_SIZE_;
	submit(s);
}

void check_content(struct check *c, struct file *f)
{
	struct block *b = block_tree_next(&f->blocks, c->request.from / PGC_BLOCK_PAGES, false), *next;
	struct content_step *s = b ? calloc(1, sizeof(*s)) : NULL;
	char *mem = s ? mmap(NULL, 2 * PGC_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;

	if (!b || mem == MAP_FAILED) {
		free(s);
		c->error = b ? -ENOMEM : 0;
		c->done(c);
		return;
	}
	s->c = c;
	s->f = f;
	s->index = b->e->index;
	s->store = mem;
	s->cache = mem + PGC_BLOCK_SIZE;
	s->again.run = again;
	list_init(&s->again.link);
	next = block_tree_next(&f->blocks, s->index + 1, false);
	if (next)
		c->end.next = block_first(next);
	check_hold(c, f);
	read_store(s);
}

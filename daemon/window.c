/* SPDX-License-Identifier: Apache-2.0 */
/* See window.h. */
#include "daemon/window.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/proc_fd.h"
#include "daemon/written.h"

#define BITS_SHARE   64u               /* of the budget: what the bits of one file may take */
#define BITS_ALL     16u               /* those of all files */
#define TOUCHED_TURN 32u               /* handles that are asked in one go */
#define WORDS_TURN   32u               /* words of one handle that are looked at in one go, or a few more: some 50 us */
#define WORDS_ALL    128u              /* those of all */

/* --- the life page --- */

static int life_fd = -1;

static int make_life_page(pthread_mutex_t **ret)
{
	_cleanup_close_ int fd = memfd_create("pagecached-life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (fd < 0 || ftruncate(fd, PAGE_SIZE_) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	p = mmap(NULL, PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	life_fd = proc_fd_reopen(fd, O_RDONLY);
	if (life_fd < 0 || fchmod(fd, 0400) < 0) {
		munmap(p, PAGE_SIZE_);
		return life_fd < 0 ? life_fd : -errno;
	}
	*ret = p;
	return 0;
}

int window_global_init(void)
{
	/* glibc keeps the thread's list of robust futexes, and the word is the mutex's first. */
	_Static_assert(offsetof(pthread_mutex_t, __data.__lock) == 0, "the futex comes first");
	pthread_mutexattr_t a;
	pthread_mutex_t *m = NULL;
	int r = make_life_page(&m);

	if (r < 0)
		return r;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	r = -pthread_mutex_init(m, &a);
	pthread_mutexattr_destroy(&a);
	if (r == 0)
		r = -pthread_mutex_lock(m);
	if (r < 0) {
		close(life_fd);
		life_fd = -1;
	}
	return r;
}

int window_life(void) { return life_fd; }

/* --- bits --- */

static uint64_t bytes_of(uint64_t blocks) { return align_up(blocks * sizeof(uint64_t), PAGE_SIZE_); }

int window_make_bits(const char *name, mode_t mode)
{
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	return fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0 || fchmod(fd, mode) < 0 ? -errno : take_fd(&fd);
}

void window_charge(struct file *f, int64_t pages)
{
	atomic_fetch_add_explicit(&f->worker->budget->shown, (uint64_t)pages, memory_order_relaxed);
	budget_charge_tables(f->worker, pages);
}

/* Is there so much of the budget left for them? Several workers may ask at once: each file's part is small. */
bool window_may_charge(const struct file *f, uint64_t pages)
{
	const struct budget *b = f->worker->budget;

	return atomic_load_explicit(&b->shown, memory_order_relaxed) + pages <= atomic_load_explicit(&b->max, memory_order_relaxed) / BITS_ALL;
}

/* Makes the bits reach `blocks` blocks, as far as the budget allows: it must hold them all, since a client makes them real by looking. */
static int grow_bits(struct file *f, uint64_t blocks)
{
	uint64_t max = atomic_load_explicit(&f->worker->budget->max, memory_order_relaxed) / BITS_SHARE * PAGE_SIZE_ / sizeof(uint64_t);
	uint64_t had = bytes_of(f->shown.blocks), from = f->shown.blocks, bytes;
	void *p;
	int r;

	bytes = bytes_of(MIN(blocks, max));
	if (bytes <= had || !window_may_charge(f, (bytes - had) / PAGE_SIZE_))
		return f->shown.blocks > 0 ? 0 : -ENOSPC;
	if (f->shown.blocks == 0) {
		r = window_make_bits("pagecached-shown", 0400);
		if (r < 0)
			return r;
		f->shown.fd = r;
	}
	p = ftruncate(f->shown.fd, (off_t)bytes) < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->shown.fd, 0);
	if (p == MAP_FAILED) {
		r = -errno;
		if (f->shown.blocks == 0)
			window_free(f);
		return r;
	}
	if (f->shown.word)
		munmap(f->shown.word, had);
	f->shown.word = p;
	f->shown.blocks = bytes / sizeof(uint64_t);
	window_charge(f, (int64_t)((bytes - had) / PAGE_SIZE_));
	for (struct block *b = block_tree_next(&f->blocks, from, false); b && b->e->index < f->shown.blocks;
	     b = block_tree_next(&f->blocks, b->e->index + 1, false))
		window_show(b);
	return 0;
}

void window_free(struct file *f)
{
	if (f->shown.word) {
		/* One whose connection was ended may still look. */
		(void)fallocate(f->shown.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes_of(f->shown.blocks));
		munmap(f->shown.word, bytes_of(f->shown.blocks));
		window_charge(f, -(int64_t)(bytes_of(f->shown.blocks) / PAGE_SIZE_));
	}
	if (f->shown.fd >= 0)
		close(f->shown.fd);
	f->shown = (struct shown){ .fd = -1 };
}

void window_hide(struct file *f, uint64_t first, uint64_t n)
{
	uint64_t end = MIN(first + n, f->shown.blocks * PGC_BLOCK_PAGES);

	for (uint64_t p = first; p < end; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		unsigned from = (unsigned)(p % PGC_BLOCK_PAGES);
		uint64_t *word = &f->shown.word[p / PGC_BLOCK_PAGES];

		__atomic_store_n(word, *word & ~bits_range(from, (unsigned)MIN(end - p, (uint64_t)PGC_BLOCK_PAGES - from)), __ATOMIC_RELEASE);
	}
	file_bump_seq(f);
}

/* --- readers --- */

void window_readers_init(struct window_readers *r, const bool *noreuse, const struct toucher *toucher)
{
	*r = (struct window_readers){ .noreuse = noreuse, .toucher = toucher };
	list_init(&r->by_file);
	list_init(&r->by_worker);
}

/* A memfd of the client's, of just that size for good. */
static void *map_fixed_size(int fd, uint64_t size, int prot)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW) || fstat(fd, &st) < 0 || (uint64_t)st.st_size != size)
		return NULL;
	p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static void free_unread(struct file *f)
{
	if (!list_empty(&f->readers))
		return;
	written_end(f);
	window_free(f);
}

static void end(struct window_readers *r)
{
	list_remove(&r->by_file);
	list_remove(&r->by_worker);
	if (r->slot) {
		uint64_t len = r->blocks * PGC_BLOCK_SIZE;

		if (r->writes)
			written_left(r->file, r->slot);
		__atomic_store_n(&r->touched[PGC_TOUCHED_END(len)], 1, __ATOMIC_RELEASE);
		munmap(r->touched, PGC_TOUCHED_SIZE(len));
		munmap((void *)r->slot, PAGE_SIZE_);
	}
	window_readers_init(r, r->noreuse, r->toucher);
}

int window_open(struct window_readers *r, struct file *f, bool writes, const int fds[2], uint64_t len, int ret_fds[2], uint64_t *ret_blocks)
{
	const struct pgc_reader_slot *slot;
	uint64_t *touched;
	int e;

	if (life_fd < 0 || f->huge) /* the kernel would map 2 MiB of which a part is still being read */
		return -EOPNOTSUPP;
	if (len == 0 || len > PGC_WINDOW_MAX || len % PGC_BLOCK_SIZE)
		return -EINVAL;
	slot = map_fixed_size(fds[0], PAGE_SIZE_, PROT_READ);
	touched = slot ? map_fixed_size(fds[1], PGC_TOUCHED_SIZE(len), PROT_READ | PROT_WRITE) : NULL;
	e = touched ? grow_bits(f, len / PGC_BLOCK_SIZE) : -EINVAL;
	if (e == 0 && writes)
		e = written_reach(f, f->shown.blocks);
	if (e == 0 && writes)
		e = file_keep(f);
	ret_fds[0] = e == 0 ? proc_fd_reopen(f->shown.fd, O_RDONLY) : -1; /* nobody opens it for more */
	if (e == 0 && ret_fds[0] < 0)
		e = ret_fds[0];
	if (e < 0) {
		if (slot)
			munmap((void *)slot, PAGE_SIZE_);
		if (touched)
			munmap(touched, PGC_TOUCHED_SIZE(len));
		free_unread(f);
		return e;
	}
	(void)mlock(slot, PAGE_SIZE_); /* so that a look does not wait for a disk, where that is allowed */
	end(r);
	r->file = f;
	r->slot = slot;
	r->touched = touched;
	r->blocks = len / PGC_BLOCK_SIZE;
	r->writes = writes;
	list_append(&f->readers, &r->by_file);
	list_append(&f->worker->readers, &r->by_worker);
	kill_point("window.opened");
	ret_fds[1] = life_fd;
	*ret_blocks = f->shown.blocks;
	written_limit(f);
	file_stat_hide(f); /* what is written so shows when somebody asks */
	return 0;
}

void window_close(struct window_readers *r)
{
	struct file *f = r->file;

	end(r);
	if (f)
		free_unread(f);
}

bool window_is_read(struct file *f, uint64_t page)
{
	struct window_readers *r;

	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* a reader takes its slot and then looks at size and bits, we the other way round */
	list_for_each(r, &f->readers, by_file)
		for (unsigned i = 0; i < PGC_READER_SLOTS; i++)
			if ((__atomic_load_n(&r->slot[i].end, __ATOMIC_ACQUIRE) & ~PGC_SLOT_WRITES) > page)
				return true;
	return false;
}

/* --- what was read --- */

static uint64_t take_word(uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED) ? __atomic_exchange_n(word, 0, __ATOMIC_ACQUIRE) : 0;
}

/* The words that `bits` name, the first of which is `index`. Returns how many. */
static unsigned touched_words(struct window_readers *r, uint64_t index, uint64_t bits)
{
	unsigned n = 0;

	for (; bits; bits &= bits - 1, n++) {
		uint64_t i = index + (unsigned)__builtin_ctzll(bits), pages = i < r->blocks ? take_word(&r->touched[i]) : 0;
		struct block *b = pages && !*r->noreuse ? block_tree_find(&r->file->blocks, i) : NULL;

		if (b)
			block_touched(b, pages & ~b->ahead, POLICY_CALL);
	}
	return n;
}

/* What is left has its turn later. */
static unsigned touched_some(struct window_readers *r)
{
	uint64_t all = PGC_TOUCHED_WORDS(r->blocks);
	unsigned n = 0;

	for (uint64_t i = 0; i < all && n < WORDS_TURN; i++) {
		n += touched_words(r, r->next * 64, take_word(&r->touched[r->blocks + r->next]));
		r->next = (r->next + 1) % all;
	}
	return n;
}

void window_touched(struct window_readers *r)
{
	if (r->slot)
		(void)touched_some(r);
}

void window_touched_all(struct worker *w)
{
	struct window_readers *r, *first = NULL;

	for (unsigned i = 0, words = 0; i < TOUCHED_TURN && words < WORDS_ALL && (r = list_first(&w->readers, struct window_readers, by_worker)) && r != first; i++) {
		first = first ? first : r;
		words += touched_some(r);
		list_remove(&r->by_worker);
		list_append(&w->readers, &r->by_worker);
	}
}

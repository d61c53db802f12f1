/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and writes that ask nobody. A handle that reads or writes often gets a window: the file mapped from its beginning on, and from the daemon a bit for each page that says whether
 * it may be read there (wire.h: WINDOW). A read takes a slot, which keeps what it is about to read from being cut off; sees that the daemon lives, and that size
 * and bits allow it; copies; and looks at the file's seq and the daemon's life once more. If anything is different the bytes do not count, and the daemon is asked as
 * ever. A page that went meanwhile is missing in the mapping, which the handle's userfaultfd serves: the copy never ends in a signal.
 *
 * A handle that may store has the file mapped once more behind that, shared and registered for nothing. A write takes a slot, which keeps the page from being dropped, sees
 * that it may be written without asking, copies, sets the page's bit for the daemon, whose next look finds it, before and after that, and looks at the daemon's life once more. If that has ended, or asking
 * is wanted now, the daemon is asked for the same write again.
 *
 * Bytes go through a buffer on the stack: the program's may lie where a store waits long, or for this file, and a slot is held for as short as can be.
 * A thread that leaves the copy by longjmp(3) out of a signal handler never gives its slot back. That costs the slot, and no more.
 *
 * Invariant: the slots are the handle's for good. What is the handle's window when somebody has a slot stays mapped until that is given back.
 * Any thread. Calls file and conn.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "libclient/internal.h"

#define READS_FIRST   16             /* reads and writes that ask, before a handle gets a window */
#define READS_AGAIN   1024           /* until it is tried again, when it could not be had */
#define LEN_MIN       (16ull << 20)
#define LEN_ROUND     ((uint64_t)PGC_BLOCK_SIZE * (PGC_PAGE_SIZE / sizeof(uint64_t))) /* bits of whole pages */
#define COPY          4096u          /* bytes at a time */
#define UNUSED_TRIES  1000u
#define ASK_PAGES     1024           /* that were not written before, until a write asks: the daemon has it wait where there is too much dirty */

struct window {
	const struct pgc_control_page *control;
	const uint32_t *life;
	const uint64_t *shown;
	uint64_t *touched;
	uint64_t blocks;           /* words of both */
	const char *data;
	uint64_t len;              /* of data, bytes */
	uint64_t *written;         /* a page of bits, then a word a block; NULL: it writes nothing so */
	bool keeps_data;           /* the next one has it */
	struct window *older;      /* could not be freed yet: somebody may be in it */
};

static void *map_shared(int fd, uint64_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_SHARED, fd, 0);

	if (p != MAP_FAILED && madvise(p, len, MADV_DONTFORK) == 0)
		return p;
	if (p != MAP_FAILED)
		munmap(p, len);
	return NULL;
}

static uint64_t shown_len(uint64_t blocks) { return (blocks * sizeof(uint64_t) + PAGE_MASK_) & ~PAGE_MASK_; }

static bool may_write(const struct pgc_file *f) { return f->accmode == O_RDWR; }
static uint64_t whole_len(const struct pgc_file *f, uint64_t len) { return may_write(f) ? len * 2 : len; }

/* Addresses of windows, which are no mappings of the program's. Under lib.lock. */
static struct range { uintptr_t addr; uint64_t len; } *known;
static unsigned n_known;

bool window_is_at(uintptr_t addr)
{
	for (unsigned i = 0; i < n_known; i++)
		if (addr - known[i].addr < known[i].len)
			return true;
	return false;
}

static void forget_range(const char *data)
{
	bool own = fork_lock_lib();

	for (unsigned i = 0; i < n_known; i++)
		if (known[i].addr == (uintptr_t)data)
			known[i--] = known[--n_known];
	fork_unlock_lib(own);
}

/* mmap(2), and nobody takes it for something else. */
static char *map_known(int memfd, uint64_t len, bool writes)
{
	uint64_t whole = writes ? len * 2 : len;
	bool own = fork_lock_lib();
	struct range *larger = realloc(known, (n_known + 1) * sizeof(*known));
	char *p = MAP_FAILED;

	if (larger) {
		known = larger;
		p = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE, memfd, 0);
	}
	if (p != MAP_FAILED && writes && mmap(p + len, len, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, memfd, 0) == MAP_FAILED) {
		munmap(p, whole);
		p = MAP_FAILED;
	}
	if (p != MAP_FAILED)
		known[n_known++] = (struct range){ (uintptr_t)p, whole };
	fork_unlock_lib(own);
	return p == MAP_FAILED ? NULL : p;
}

/* Without the event that munmap(2) of a registered range makes, which somebody would have to read. */
static void unmap_data(struct pgc_file *f, const char *data, uint64_t len)
{
	struct uffdio_range range = { .start = (uintptr_t)data, .len = len };

	(void)mprotect((void *)data, len, PROT_NONE);
	if (ioctl(f->uffd, UFFDIO_UNREGISTER, &range) == 0 && munmap((void *)data, whole_len(f, len)) == 0)
		forget_range(data);
}

static void window_free(struct pgc_file *f, struct window *w)
{
	if (w->life)
		munmap((void *)w->life, PGC_PAGE_SIZE);
	if (w->shown)
		munmap((void *)w->shown, shown_len(w->blocks));
	if (w->touched)
		munmap(w->touched, PGC_TOUCHED_SIZE(w->len));
	if (w->written)
		munmap(w->written, PGC_WRITTEN_SIZE(w->blocks));
	if (w->data && !w->keeps_data)
		unmap_data(f, w->data, w->len);
	free(w);
}

/* After the handle has got another window, or none: is nobody in those that it had? */
static bool are_unused(const struct pgc_file *f)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (unsigned i = 0; f->slots && i < PGC_READER_SLOTS; i++)
		if (__atomic_load_n(&f->slots[i].end, __ATOMIC_ACQUIRE) != 0)
			return false;
	return true;
}

/* --- making it --- */

/* Not accessible yet. A locked process would have all of it read in. */
static char *map_data(struct pgc_file *f, uint64_t len)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	uint64_t whole = whole_len(f, len);
	char *p = map_known(f->memfd, len, may_write(f));

	if (!p)
		return NULL;
	reg.range = (struct uffdio_range){ .start = (uintptr_t)p, .len = len };
	if (munlock(p, whole) == 0 && madvise(p, whole, MADV_DONTFORK) == 0 && ioctl(f->uffd, UFFDIO_REGISTER, &reg) == 0) {
		(void)madvise(p, whole, MADV_DONTDUMP);
		return p;
	}
	munmap(p, whole);
	forget_range(p);
	return NULL;
}

/* With window_lock: the slots, before the first window. */
static int make_slots(struct pgc_file *f)
{
	struct pgc_reader_slot *slots;
	bool own;

	if (f->slots)
		return 0;
	if (f->slots_fd < 0) {
		own = fork_lock_lib(); /* so that a child finds it, to close it */
		f->slots_fd = fd_keep(MAX(sealed_memfd("pagecached-readers", PGC_PAGE_SIZE), -1));
		fork_unlock_lib(own);
	}
	slots = f->slots_fd < 0 ? NULL : map_shared(f->slots_fd, PGC_PAGE_SIZE, PROT_READ | PROT_WRITE);
	__atomic_store_n(&f->slots, slots, __ATOMIC_RELEASE);
	return slots ? 0 : -ENOMEM;
}

/* All that is the client's, before the daemon is told. `old`: what there is, or NULL. */
static int prepare(struct pgc_file *f, struct window *w, const struct window *old, int *ret_touched)
{
	uint64_t size = __atomic_load_n(&f->control->size, __ATOMIC_ACQUIRE);
	int r = make_slots(f);

	if (r < 0)
		return r;
	w->control = f->control;
	if (old && size <= old->len) {
		w->data = old->data;
		w->len = old->len;
	} else {
		w->len = MIN(MAX(size <= PGC_WINDOW_MAX ? size * 2 : PGC_WINDOW_MAX, LEN_MIN), PGC_WINDOW_MAX);
		w->len = (w->len + LEN_ROUND - 1) & ~(LEN_ROUND - 1);
		w->data = map_data(f, w->len);
		if (!w->data)
			return -ENOMEM;
	}
	*ret_touched = sealed_memfd("pagecached-touched", PGC_TOUCHED_SIZE(w->len));
	if (*ret_touched < 0)
		return *ret_touched;
	w->touched = map_shared(*ret_touched, PGC_TOUCHED_SIZE(w->len), PROT_READ | PROT_WRITE);
	return w->touched ? 0 : -ENOMEM;
}

static int announce(struct pgc_file *f, struct window *w, int touched)
{
	struct pgc_msg m = { .type = PGC_MSG_WINDOW };
	_cleanup_close_ int shown = -1, life = -1, written = -1;
	int fds[2] = { f->slots_fd, touched };
	int got[PGC_FDS_MAX], r;

	m.window = (struct pgc_window){ .addr = (uintptr_t)w->data, .len = w->len };
	/* The call that this is part of has been answered: it does not wait for another daemon. */
	r = conn_request(&f->conn, &m, fds, 2, got, may_write(f) ? 3 : 2);
	if (r < 0)
		return r;
	shown = got[0];
	life = got[1];
	written = may_write(f) ? got[2] : -1;
	w->blocks = MIN(m.window_reply.blocks, w->len / PGC_BLOCK_SIZE);
	if (w->blocks == 0)
		return -EPROTO;
	w->shown = map_shared(shown, shown_len(w->blocks), PROT_READ);
	w->life = map_shared(life, PGC_PAGE_SIZE, PROT_READ);
	if (written >= 0)
		w->written = map_shared(written, PGC_WRITTEN_SIZE(w->blocks), PROT_READ | PROT_WRITE);
	return w->shown && w->life && (w->written || written < 0) ? 0 : -ENOMEM;
}

/* With window_lock: what was replaced and is in no thread's hands any more. */
static void free_older(struct pgc_file *f, struct window *w)
{
	struct window *o, *older;

	if (!are_unused(f))
		return;
	for (o = w->older, w->older = NULL; o; o = older) {
		older = o->older;
		window_free(f, o);
	}
}

static int window_make(struct pgc_file *f)
{
	struct window *w = calloc(1, sizeof(*w)), *old = f->window;
	_cleanup_close_ int touched = -1;
	struct rlimit limit;
	int r;

	if (!w)
		return -ENOMEM;
	/* Where address space is short it is the program's. */
	r = getrlimit(RLIMIT_AS, &limit) < 0 || limit.rlim_cur != RLIM_INFINITY ? -EOPNOTSUPP : prepare(f, w, old, &touched);
	if (r == 0)
		r = announce(f, w, touched);
	if (r == 0 && mprotect((void *)w->data, w->len, PROT_READ) < 0)
		r = -errno;
	if (r == 0 && w->written && mprotect((void *)(w->data + w->len), w->len, PROT_READ | PROT_WRITE) < 0)
		r = -errno;
	if (r < 0) {
		w->keeps_data = old && w->data == old->data;
		window_free(f, w);
		return r;
	}
	w->older = old;
	if (old)
		old->keeps_data = w->data == old->data;
	__atomic_store_n(&f->window_addr, (uintptr_t)w->data, __ATOMIC_RELAXED);
	__atomic_store_n(&f->window_len, w->len, __ATOMIC_RELAXED);
	__atomic_store_n(&f->window, w, __ATOMIC_SEQ_CST);
	free_older(f, w);
	return 0;
}

/* The daemon is, or has ended the handle. */
static bool is_dead(const struct window *w)
{
	return (__atomic_load_n(w->life, __ATOMIC_ACQUIRE) & PGC_LIFE_DIED) || __atomic_load_n(&w->touched[PGC_TOUCHED_END(w->len)], __ATOMIC_RELAXED) != 0;
}

void window_asked(struct pgc_file *f)
{
	const struct window *w = __atomic_load_n(&f->window, __ATOMIC_ACQUIRE);
	int n = __atomic_add_fetch(&f->reads_asked, 1, __ATOMIC_RELAXED);

	if (f->huge || n < READS_FIRST || (w && !is_dead(w) && __atomic_load_n(&f->control->size, __ATOMIC_RELAXED) <= w->len))
		return;
	if (pthread_mutex_trylock(&f->window_lock) != 0)
		return;
	if (f->window == w)
		/* A failure costs no more than what a window saves. */
		__atomic_store_n(&f->reads_asked, window_make(f) < 0 ? READS_FIRST - READS_AGAIN : 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&f->window_lock);
}

bool window_end(struct pgc_file *f)
{
	struct window *w, *older;
	bool had;

	pthread_mutex_lock(&f->window_lock);
	w = f->window;
	had = w;
	__atomic_store_n(&f->window, NULL, __ATOMIC_SEQ_CST);
	__atomic_store_n(&f->window_len, 0, __ATOMIC_RELAXED);
	/* A program that reads while it closes is wrong, and must not crash for that. */
	for (unsigned i = 0; w && i < UNUSED_TRIES && !are_unused(f); i++)
		sched_yield();
	for (; w && are_unused(f); w = older) {
		older = w->older;
		window_free(f, w);
	}
	pthread_mutex_unlock(&f->window_lock);
	return had;
}

void window_forked(struct pgc_file *f)
{
	/* None of it was inherited but the records. */
	for (struct window *w = f->window, *older; w; w = older) {
		older = w->older;
		free(w);
	}
	f->window = NULL;
	f->slots = NULL;
	close_fd(&f->slots_fd);
	f->window_addr = 0;
	f->window_len = 0;
	f->reads_asked = 0;
	f->writes_unasked = 0;
	n_known = 0;
	pthread_mutex_init(&f->window_lock, NULL);
}

/* --- reading --- */

/* A slot that no other thread has, from the one on that this thread had last. */
static struct pgc_reader_slot *take_slot(struct pgc_reader_slot *slots, uint64_t end)
{
	static unsigned threads;
	static _Thread_local unsigned own;

	if (own == 0)
		own = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < PGC_READER_SLOTS; i++) {
		struct pgc_reader_slot *s = &slots[(own + i) % PGC_READER_SLOTS];
		uint64_t none = 0;

		/* Before size and bits are looked at: the daemon changes them, and looks at the slots then. */
		if (__atomic_compare_exchange_n(&s->end, &none, end, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
			return s;
	}
	return NULL;
}

static bool are_shown(const struct window *w, uint64_t first, uint64_t end)
{
	for (uint64_t p = first; p < end; p++)
		if (p / PGC_BLOCK_PAGES >= w->blocks ||
		    !(__atomic_load_n(&w->shown[p / PGC_BLOCK_PAGES], __ATOMIC_ACQUIRE) >> (p % PGC_BLOCK_PAGES) & 1))
			return false;
	return true;
}

/* For the daemon's policy, which does not see it otherwise. Most often it is known already. */
static void note_touched(const struct window *w, uint64_t page)
{
	uint64_t i = page / PGC_BLOCK_PAGES, bit = 1ull << (page % PGC_BLOCK_PAGES), *summary = &w->touched[w->len / PGC_BLOCK_SIZE + i / 64];

	if (!(__atomic_load_n(&w->touched[i], __ATOMIC_RELAXED) & bit))
		__atomic_fetch_or(&w->touched[i], bit, __ATOMIC_RELAXED);
	if (!(__atomic_load_n(summary, __ATOMIC_RELAXED) >> (i % 64) & 1))
		__atomic_fetch_or(summary, 1ull << (i % 64), __ATOMIC_RELEASE);
}

/* memcpy(3) itself: where the compiler sees that it is not much it puts a string instruction in its place, which is slow for little. */
static inline void copy(void *to, const void *from, size_t n)
{
	__asm__("" : "+r"(n));
	memcpy(to, from, n);
}

/* At most COPY bytes into `to`, with a slot. -EAGAIN: ask the daemon. */
static ssize_t copy_out(const struct pgc_file *f, char *to, uint64_t n, uint64_t off)
{
	const struct window *w = __atomic_load_n(&f->window, __ATOMIC_SEQ_CST);
	uint64_t seq, size;

	if (!w || is_dead(w) || off > w->len - n)
		return -EAGAIN;
	seq = __atomic_load_n(&w->control->seq, __ATOMIC_ACQUIRE);
	size = __atomic_load_n(&w->control->size, __ATOMIC_ACQUIRE);
	if (off >= size)
		return 0;
	n = MIN(n, size - off);
	if (!are_shown(w, off / PGC_PAGE_SIZE, (off + n + PAGE_MASK_) / PGC_PAGE_SIZE))
		return -EAGAIN;
	copy(to, w->data + off, n);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (__atomic_load_n(&w->control->seq, __ATOMIC_ACQUIRE) != seq || is_dead(w))
		return -EAGAIN;
	note_touched(w, off / PGC_PAGE_SIZE);
	if ((off + n - 1) / PGC_PAGE_SIZE != off / PGC_PAGE_SIZE)
		note_touched(w, (off + n - 1) / PGC_PAGE_SIZE);
	return (ssize_t)n;
}

ssize_t window_read(struct pgc_file *f, char *buf, uint64_t n, uint64_t off)
{
	struct pgc_reader_slot *slots = __atomic_load_n(&f->slots, __ATOMIC_ACQUIRE);
	uint64_t done = 0;

	/* What is large the kernel copies. */
	if (!slots || fork_unseen() || n > PGC_READ_MAX || off > PGC_WINDOW_MAX)
		return -EAGAIN;
	while (done < n) {
		uint64_t at = off + done, part = MIN(n - done, (uint64_t)COPY);
		struct pgc_reader_slot *s;
		char bytes[COPY];
		ssize_t k;

		s = take_slot(slots, (at + part + PAGE_MASK_) / PGC_PAGE_SIZE);
		if (!s)
			return done > 0 ? (ssize_t)done : -EAGAIN;
		k = copy_out(f, bytes, part, at);
		__atomic_store_n(&s->end, 0, __ATOMIC_RELEASE);
		if (k < 0)
			return done > 0 ? (ssize_t)done : k;
		copy(buf + done, bytes, (size_t)k);
		done += (uint64_t)k;
		if ((uint64_t)k < part)
			break;
	}
	return (ssize_t)done;
}

/* --- writing --- */

/* For the daemon, in the order in which it does not look: the word always, since whoever finds a bit set cannot know whether it was taken already. */
static bool note_written(const struct window *w, uint64_t page)
{
	uint64_t i = page / PGC_BLOCK_PAGES, bit = 1ull << (page % PGC_BLOCK_PAGES), *span = &w->written[i / PGC_WRITTEN_SPAN / 64];
	uint64_t span_bit = 1ull << (i / PGC_WRITTEN_SPAN % 64);
	bool again = __atomic_fetch_or(&w->written[PGC_PAGE_SIZE / sizeof(uint64_t) + i], bit, __ATOMIC_SEQ_CST) & bit;

	if (!(__atomic_load_n(span, __ATOMIC_SEQ_CST) & span_bit))
		__atomic_fetch_or(span, span_bit, __ATOMIC_SEQ_CST);
	return !again;
}

/* Asking is wanted, or nobody is there. */
static bool must_ask(const struct window *w)
{
	return is_dead(w) || __atomic_load_n(&w->control->must_ask, __ATOMIC_SEQ_CST) != 0;
}

/*
 * A whole page goes by a system call: most often the window has it in no page table yet, and the fault would take longer. From a buffer of ours, as the kernel holds the memfd's
 * lock meanwhile, which the daemon needs. It may exceed an end of file that a next daemon has moved meanwhile, which the live one does not while a slot names the page.
 */
static bool put(const struct pgc_file *f, const struct window *w, const char *from, uint64_t n, uint64_t off)
{
	if (n == PGC_PAGE_SIZE)
		return pwrite(f->memfd, from, n, (off_t)off) == (ssize_t)n; /* else the daemon is asked, and says what is wrong */
	copy((char *)w->data + w->len + off, from, n);
	return true;
}

/* Of one page, with a slot. 0, or -EAGAIN: ask the daemon. */
static int copy_in(struct pgc_file *f, const char *from, uint64_t n, uint64_t off)
{
	const struct window *w = __atomic_load_n(&f->window, __ATOMIC_SEQ_CST);
	uint64_t page = off / PGC_PAGE_SIZE;
	bool done;

	if (!w || !w->written || off > w->len - n || must_ask(w) || off + n > __atomic_load_n(&w->control->size, __ATOMIC_SEQ_CST) || !are_shown(w, page, page + 1))
		return -EAGAIN;
	if (__atomic_load_n(&f->writes_unasked, __ATOMIC_RELAXED) >= ASK_PAGES)
		return -EAGAIN;
	if (note_written(w, page)) /* before: who sees the bytes is to see that the file has changed */
		__atomic_fetch_add(&f->writes_unasked, 1, __ATOMIC_RELAXED);
	done = put(f, w, from, n, off);
	(void)note_written(w, page); /* it may have been taken meanwhile */
	if (!done || must_ask(w))
		return -EAGAIN;
	note_touched(w, page);
	return 0;
}

ssize_t window_write(struct pgc_file *f, const char *buf, uint64_t n, uint64_t off)
{
	struct pgc_reader_slot *slots = __atomic_load_n(&f->slots, __ATOMIC_ACQUIRE);
	uint64_t done = 0;

	if (!slots || !may_write(f) || fork_unseen() || off > PGC_WINDOW_MAX)
		return -EAGAIN;
	while (done < n) {
		uint64_t at = off + done, part = MIN(n - done, PGC_PAGE_SIZE - at % PGC_PAGE_SIZE);
		struct pgc_reader_slot *s;
		char bytes[PGC_PAGE_SIZE];
		int r;

		copy(bytes, buf + done, part);
		s = take_slot(slots, (at / PGC_PAGE_SIZE + 1) | PGC_SLOT_WRITES);
		if (!s)
			return done > 0 ? (ssize_t)done : -EAGAIN;
		r = copy_in(f, bytes, part, at);
		__atomic_store_n(&s->end, 0, __ATOMIC_RELEASE);
		if (r < 0)
			return done > 0 ? (ssize_t)done : r;
		done += part;
	}
	return (ssize_t)done;
}

static bool has_no_bits(const struct window *w)
{
	if (!w || !w->written || is_dead(w))
		return false;
	for (uint64_t i = 0; i < PGC_WINDOW_MAX / PGC_BLOCK_SIZE / PGC_WRITTEN_SPAN / 64; i++)
		if (__atomic_load_n(&w->written[i], __ATOMIC_ACQUIRE) != 0)
			return false;
	return true;
}

bool window_has_no_writes(struct pgc_file *f)
{
	struct pgc_reader_slot *slots = __atomic_load_n(&f->slots, __ATOMIC_ACQUIRE), *s = slots ? take_slot(slots, 1) : NULL;
	bool none;

	if (!s)
		return false;
	none = has_no_bits(__atomic_load_n(&f->window, __ATOMIC_SEQ_CST));
	__atomic_store_n(&s->end, 0, __ATOMIC_RELEASE);
	return none;
}

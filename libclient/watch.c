/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher: a thread of the library's own, which does what a thread that waits in a page fault cannot, and what a program that makes no calls does not. It sleeps
 * until the daemon hangs up on a handle; then it hands the handle over to the next daemon (file_attach_try()), again and again until one comes, since others may wait
 * for the memory that it has; or until orphan_timeout has passed: then whoever waits gets SIGBUS.
 *
 * There is one a process, made with the first handle and made anew in a forked child with the first that is its own. All signals are blocked on it; it holds
 * lib.lock for moments only and reads from no socket. Where it cannot be made, calls still connect anew by themselves.
 *
 * A second one, made when a handle is given up, reads the events of such handles from then on: munmap, mremap and fork wait for that, and a fork does so with lib.lock
 * held. So it has userfaultfds of its own (duplicates, to the end of the process) and takes no lock.
 *
 * May call file, vma and conn.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

#include "libclient/internal.h"

#ifndef UFFDIO_POISON /* Linux 6.6 */
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#define STACK_SIZE   (128u << 10)
#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 500

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool running;
static int bell = -1;              /* eventfd: the handles to watch have changed */
static int drained = -1;           /* epoll: userfaultfds of handles that were given up; made on the watcher */
static int empty = -1;             /* what stands for their mappings, also in a forked child; made on the watcher, once, as is what follows */
static dev_t empty_dev;            /* atomic: relaxed, before empty_ino */
static ino_t empty_ino;            /* atomic: 0, there is none yet */

/* Its signals are those of its maker. */
static bool start_thread(void *(*run)(void *arg), int fd)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool started;

	if (pthread_attr_init(&attr) != 0)
		return false;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	started = pthread_create(&thread, &attr, run, (void *)(intptr_t)fd) == 0;
	pthread_attr_destroy(&attr);
	return started;
}

/* --- without hope --- */

/* A fault on these pages gets SIGBUS from now on; those that are mapped stay. */
static void poison(int uffd, uintptr_t start, uintptr_t end, uintptr_t unit)
{
	while (start < end) {
		struct uffdio_poison p = { .range = { .start = start, .len = end - start } };

		if (ioctl(uffd, UFFDIO_POISON, &p) == 0)
			return;
		if (p.updated > 0)
			start += (uintptr_t)p.updated;
		else if (errno == EAGAIN)
			sched_yield();
		else if (errno == EEXIST)
			start += unit;
		else
			return;
	}
}

/* Events that threads of ours wait in (munmap, mremap, fork) are over when somebody has read them. */
static void read_events(int uffd)
{
	struct uffd_msg m[16];
	ssize_t n;

	/* A forked child's userfaultfd is kept: with its last descriptor closed the child would see zeros. */
	while ((n = read(uffd, m, sizeof(m))) > 0)
		for (size_t i = 0; i < (size_t)n / sizeof(*m); i++)
			if (m[i].event == UFFD_EVENT_FORK)
				(void)fd_keep((int)m[i].arg.fork.ufd);
}

static void *drain(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct epoll_event e;

	if (fd_hooks.thread)
		fd_hooks.thread();
	prctl(PR_SET_NAME, "pgc-drain");
	for (;;) {
		if (epoll_wait(fd, &e, 1, -1) != 1)
			continue;
		if (e.events & EPOLLIN)
			read_events(e.data.fd);
		else
			epoll_ctl(fd, EPOLL_CTL_DEL, e.data.fd, NULL);
	}
	return NULL;
}

static void drain_from_now_on(int uffd)
{
	int fd;

	if (drained < 0) {
		drained = fd_keep(epoll_create1(EPOLL_CLOEXEC));
		if (drained < 0 || !start_thread(drain, drained)) {
			close_fd(&drained);
			return;
		}
	}
	fd = fd_keep(fcntl(uffd, F_DUPFD_CLOEXEC, 0));
	if (fd >= 0 && epoll_ctl(drained, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN, .data.fd = fd }) < 0)
		close_fd(&fd);
}

/* Another handle's mapping of the same file must go on. Asking for less than it has leaves a mapping as it is. */
static bool is_anothers(const struct pgc_file *f, const struct vma *v)
{
	struct uffdio_register reg = {
		.range = { .start = v->start, .len = v->end - v->start },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	return ioctl(f->uffd, UFFDIO_REGISTER, &reg) < 0 && errno == EBUSY;
}

/* The window's second half, which nobody touches any more, and which is registered for nothing. */
static bool is_for_writes(const struct pgc_file *f, const struct vma *v)
{
	uintptr_t data = __atomic_load_n(&f->window_addr, __ATOMIC_RELAXED);
	uint64_t len = __atomic_load_n(&f->window_len, __ATOMIC_RELAXED);

	return v->shared && v->start - data >= len && v->start - data < 2 * len;
}

bool watch_has_replaced(dev_t dev, ino_t ino)
{
	ino_t mine = __atomic_load_n(&empty_ino, __ATOMIC_ACQUIRE);

	return mine != 0 && ino == mine && dev == __atomic_load_n(&empty_dev, __ATOMIC_RELAXED);
}

/* A file that has no pages and never will, made when it is needed: whoever touches a mapping of it gets SIGBUS. */
static int empty_file(void)
{
	struct stat st;

	if (empty >= 0) /* a program may close what is not its own, and have another file by that number */
		return fstat(empty, &st) == 0 && watch_has_replaced(st.st_dev, st.st_ino) ? empty : -1;
	empty = fd_keep(memfd_create("pagecached-gone", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	if (empty >= 0 && (fcntl(empty, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0 || fstat(empty, &st) < 0))
		close_fd(&empty);
	if (empty >= 0) {
		__atomic_store_n(&empty_dev, st.st_dev, __ATOMIC_RELAXED);
		__atomic_store_n(&empty_ino, st.st_ino, __ATOMIC_RELEASE);
	}
	return empty;
}

/*
 * A mapping that can be stored to. Nobody would write a store out: none may be taken, also where a page is mapped, and it gets SIGBUS. The kernel has no page that can be read
 * and says SIGBUS to stores, so a file that has none at all takes the mapping's place, at one blow: no thread meets a gap or a zero. False: it could not be done.
 */
static bool replace(const struct pgc_file *f, const struct vma *v)
{
	struct uffdio_writeprotect all = { .range = { .start = v->start, .len = v->end - v->start }, .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	if (drained < 0 || empty_file() < 0)
		return false;
	/* The old mapping's end is an event, which somebody has to read. That it is still ours the kernel says with this: it protects nothing else. */
	while (ioctl(f->uffd, UFFDIO_WRITEPROTECT, &all) < 0)
		if (errno != EAGAIN)
			return errno == ENOENT; /* it is gone meanwhile */
		else
			sched_yield();
	return mmap((void *)v->start, v->end - v->start, v->prot, MAP_SHARED | MAP_FIXED, empty, 0) != MAP_FAILED;
}

static void give_up(struct pgc_file *f)
{
	struct vma_iter it;
	struct vma v;

	if (!__atomic_load_n(&f->mapped, __ATOMIC_RELAXED))
		return; /* nobody waits but in calls */
	drain_from_now_on(f->uffd);
	if (vma_open(&it) < 0)
		return;
	while (vma_next(&it, &v) > 0) {
		struct uffdio_range range = { .start = v.start, .len = v.end - v.start };

		if (v.ino != f->mem_ino || v.dev != f->mem_dev || is_for_writes(f, &v) || is_anothers(f, &v))
			continue;
		/* Elsewhere what is mapped can be read on. */
		if (!v.shared || !(v.prot & PROT_WRITE)) {
			poison(f->uffd, v.start, v.end, f->huge ? HUGE_MASK + 1 : PGC_PAGE_SIZE);
		} else if (!replace(f, &v)) {
			mprotect((void *)v.start, v.end - v.start, v.prot & ~PROT_WRITE);
			poison(f->uffd, v.start, v.end, f->huge ? HUGE_MASK + 1 : PGC_PAGE_SIZE);
		}
		ioctl(f->uffd, UFFDIO_WAKE, &range);
	}
	vma_close(&it);
}

/* --- the thread --- */

struct watched { struct pgc_file *f; uint64_t since; bool over; };

/* The watcher's own. Not of malloc(3), which waits while a thread forks that waits for us. */
static uint64_t first_room[512];
static struct { void *at; size_t size; } room = { first_room, sizeof(first_room) };

static void *make_room(size_t n, size_t size)
{
	size_t want = ((n + 1) * size + PGC_PAGE_SIZE - 1) / PGC_PAGE_SIZE * PGC_PAGE_SIZE;
	void *p;

	if (want > room.size) {
		p = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return NULL;
		if (room.at != first_room)
			munmap(room.at, room.size);
		room.at = p;
		room.size = want;
	}
	memset(room.at, 0, (n + 1) * size);
	return room.at;
}

static size_t count_files(void)
{
	size_t n = 0;

	for (const struct pgc_file *f = lib.files; f; f = f->next)
		n++;
	return n;
}

/* Handles with a connection, each kept alive by `watched`. NULL: out of memory. */
static struct watched *take_all(size_t *ret_n)
{
	bool own = fork_lock_lib();
	struct watched *w = make_room(count_files(), sizeof(*w));
	size_t n = 0;

	for (struct pgc_file *f = lib.files; f && w; f = f->next)
		if (!f->opening && f->uffd >= 0 && !__atomic_load_n(&f->stale, __ATOMIC_RELAXED) &&
		    !f->given_up && !f->ended) {
			f->watched++;
			w[n++].f = f;
		}
	fork_unlock_lib(own);
	*ret_n = n;
	return w;
}

static bool is_mapped(const struct pgc_file *f)
{
	struct vma_iter it;
	struct vma v;
	bool mapped = false;

	if (vma_open(&it) < 0)
		return true;
	while (!mapped && vma_next(&it, &v) > 0)
		mapped = v.ino == f->mem_ino && v.dev == f->mem_dev;
	vma_close(&it);
	return mapped;
}

/* One try for each whose daemon is gone. Whether some are left. */
static bool attach_all(struct watched *w, size_t n)
{
	bool left = false;

	for (size_t i = 0; i < n; i++) {
		struct pgc_file *f = w[i].f;
		int r;

		if (w[i].over || !conn_hung_up(&f->conn))
			continue;
		if (__atomic_load_n(&f->closed, __ATOMIC_RELAXED) && (conn_ended(&f->conn) || (!file_is_awaited(f) && !is_mapped(f)))) {
			f->ended = w[i].over = true; /* the daemon hangs up at the last unmap of a closed handle: file_reap() */
			continue;
		}
		if (w[i].since == 0)
			w[i].since = clock_ms();
		r = file_attach_try(f);
		if (r == -EAGAIN && (f->orphan_ms == 0 || clock_ms() - w[i].since < f->orphan_ms)) {
			left = true;
			continue;
		}
		if (r < 0) {
			f->given_up = true;
			give_up(f);
		}
		w[i].over = true;
	}
	return left;
}

static void put_all(struct watched *w, size_t n)
{
	bool own = fork_lock_lib();

	for (size_t i = 0; i < n; i++)
		w[i].f->watched--;
	if (own)
		file_reap_locked();
	else
		fork_unlock_lib(own);
}

/* Until something happens to the sockets of `w`, or the bell rings. Nobody is kept alive meanwhile: numbers only. */
static void wait_for_change(int own_bell)
{
	bool own = fork_lock_lib();
	struct pollfd *p = make_room(count_files(), sizeof(*p));
	size_t k = 1;
	uint64_t rung;

	for (struct pgc_file *f = lib.files; f && p; f = f->next)
		if (!f->opening && !f->given_up && !f->ended && f->conn.fd >= 0)
			p[k++] = (struct pollfd){ .fd = f->conn.fd };
	fork_unlock_lib(own);
	if (!p) {
		nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
		return;
	}
	p[0] = (struct pollfd){ .fd = own_bell, .events = POLLIN };
	if (poll(p, k, -1) > 0 && p[0].revents)
		(void)!read(own_bell, &rung, sizeof(rung));
}

static void *watch(void *arg)
{
	int own_bell = (int)(intptr_t)arg;

	if (fd_hooks.thread)
		fd_hooks.thread();
	prctl(PR_SET_NAME, "pgc-watch");
	for (;;) {
		unsigned pause = PAUSE_MIN_MS;
		struct watched *w;
		size_t n;

		wait_for_change(own_bell);
		w = take_all(&n);
		while (w && attach_all(w, n)) {
			nanosleep(&(struct timespec){ .tv_nsec = (long)pause * 1000000 }, NULL);
			pause = MIN(pause * 2, PAUSE_MAX_MS);
		}
		put_all(w, w ? n : 0);
	}
	return NULL;
}

void watch_changed(void)
{
	static const uint64_t one = 1;
	sigset_t all, before;

	if (fork_is_remaking())
		return; /* it is made at the end of that */
	pthread_mutex_lock(&lock);
	if (running) {
		(void)!write(bell, &one, sizeof(one));
	} else {
		bell = fd_keep(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		running = bell >= 0 && start_thread(watch, bell);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (!running)
			close_fd(&bell);
	}
	pthread_mutex_unlock(&lock);
}

void watch_fork(int phase)
{
	if (phase < 0) {
		pthread_mutex_lock(&lock);
	} else if (phase == 0) {
		pthread_mutex_unlock(&lock);
	} else {
		pthread_mutex_init(&lock, NULL);
		running = false;
		close_fd(&bell);
		close_fd(&drained);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The random-operations exerciser: several processes map, store, load, read, write, truncate, punch, sync, remap, fork and
 * die on a few files, against the model of exerciser_model.h.
 *
 * Three kinds of processes. The supervisor (this program) never calls the library: it forks, watches, kills, and decides.
 * Workers do the operations; each draws them from a generator of its own, seeded by (seed, worker, incarnation). Checkers are forked by
 * the supervisor for one task (settle what a killed worker left, compare the files at the end of an epoch) and see everything afresh.
 *
 * Operations that touch the same pages are ordered by the model's page locks, so every load has one right answer. What needs no order
 * (mapping, syncing, dropping) takes no lock and runs against everything else. In a storm, after each epoch, processes store to
 * bytes of their own in shared pages, and append, without any lock.
 *
 * With --kills the daemon runs under its keeper, and dies again and again (exerciser_crash.h). With --inject its calls and its store fail (exerciser_inject.h):
 * what changes nothing is tried again; a change that failed has left each byte as it was or as it was to be.
 *
 * `--backend kernel` runs the same on plain files, mmap(2) and so on: the reference, and a test of this program.
 * `--backend preload` makes the same plain calls under the preload library: this program starts the daemon and runs itself again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "exerciser_crash.h"
#include "exerciser_inject.h"
#include "exerciser_model.h"
#include "pagecached.h"
#include "pagecached/wire.h"

#define HANDLES_PER_FILE 2
#define MAPPINGS_MAX     14
#define IO_MAX           (256u << 10)
#define STALL_SECONDS    60
#define ELEMS(x)         (sizeof(x) / sizeof((x)[0]))

static struct options {
	uint64_t seed, ops, epoch, memory; /* memory: MiB */
	int procs, files;
	unsigned duration;         /* seconds, 0: no limit */
	unsigned kills, kill_every, kill_total, kill_points; /* of the daemon: how many, ms, of 100: with its keeper, at a kill point */
	bool kernel;               /* plain calls: --backend kernel, and */
	bool preload;              /* --backend preload */
	bool kernel_faults;        /* system calls may take buffers in mappings */
	bool keep_files, quiet;
	const char *inject;        /* what fails in the daemon */
	const char *daemon, *socket, *dir, *library;
} options = { .ops = 1000000, .epoch = 50000, .memory = 1024, .procs = 6, .files = 4, .kernel_faults = true, .kill_every = 150 };

static char work_dir[256], socket_path[300];
static pid_t daemon_pid;

static bool rng_one_in(uint64_t n);

/* ---- the calls under test, on pagecached or on the kernel ---- */

struct handle {
	struct pgc_file *f;
	int fd, append_fd;         /* kernel backend */
	int file;
	bool open, writable;
};

static int open_once(struct handle *h, int file, bool writable)
{
	const char *path = model->file[file].path;
	int r = 0;

	*h = (struct handle){ .fd = -1, .append_fd = -1, .file = file, .writable = writable };
	if (options.kernel) {
		h->fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		if (writable)
			h->append_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
		r = h->fd < 0 || (writable && h->append_fd < 0) ? -errno : 0;
	} else {
		/* Where the keeper dies as well there is no socket for a moment, which an open does not wait for; nor does it for ever for others' memory. */
		for (int tries = 0; tries < 3000; tries++) {
			r = pgc_open(&h->f, path, writable ? O_RDWR : O_RDONLY, 0);
			if ((r != -ECONNREFUSED && r != -EAGAIN) || options.kill_total == 0)
				break;
			usleep(10000);
		}
	}
	h->open = r == 0;
	return r;
}

static int api_open(struct handle *h, int file, bool writable)
{
	uint64_t since = 0;
	int r;

	do
		r = open_once(h, file, writable);
	while (r && inject_again(r, &since));
	return r;
}

static int api_close(struct handle *h)
{
	h->open = false;
	if (!options.kernel)
		return pgc_close(h->f);
	if (h->append_fd >= 0)
		close(h->append_fd);
	return close(h->fd) ? -errno : 0;
}

static void *api_mmap(struct handle *h, size_t len, int prot, int flags, uint64_t off)
{
	uint64_t since = 0;
	void *p;

	if (options.kernel)
		return mmap(NULL, len, prot, flags, h->fd, (off_t)off);
	do
		p = pgc_mmap(h->f, NULL, len, prot, flags, (off_t)off);
	while (p == MAP_FAILED && inject_again(-errno, &since));
	return p;
}

static int api_munmap(void *addr, size_t len, bool plain)
{
	if (options.kernel || plain)
		return munmap(addr, len) ? -errno : 0;
	return pgc_munmap(addr, len);
}

static int api_msync(void *addr, size_t len, int flags)
{
	uint64_t since = 0;
	int r;

	if (options.kernel)
		return msync(addr, len, flags) ? -errno : 0;
	do
		r = pgc_msync(addr, len, flags);
	while (r && inject_again(r, &since));
	return r;
}

static int api_madvise(void *addr, size_t len, int advice, bool plain)
{
	uint64_t since = 0;
	int r;

	do
		r = options.kernel || plain ? (madvise(addr, len, advice) ? -errno : 0) : pgc_madvise(addr, len, advice);
	while (r && inject_again(r, &since));
	return r;
}

static int api_fadvise(struct handle *h, uint64_t off, uint64_t len, int advice)
{
	uint64_t since = 0;
	int r;

	if (options.kernel)
		return -posix_fadvise(h->fd, (off_t)off, (off_t)len, advice);
	do
		r = pgc_fadvise(h->f, (off_t)off, (off_t)len, advice);
	while (r && inject_again(r, &since));
	return r;
}

static ssize_t preadv_once(struct handle *h, const struct iovec *iov, int n, uint64_t off)
{
	ssize_t r;

	if (!options.kernel)
		return n == 1 ? pgc_pread(h->f, iov->iov_base, iov->iov_len, (off_t)off) : pgc_preadv(h->f, iov, n, (off_t)off);
	if (options.preload && n == 1 && rng_one_in(3))
		r = lseek(h->fd, (off_t)off, SEEK_SET) < 0 ? -1 : read(h->fd, iov->iov_base, iov->iov_len);
	else
		r = preadv(h->fd, iov, n, (off_t)off);
	return r < 0 ? -errno : r;
}

static uint64_t iov_length(const struct iovec *iov, int n)
{
	uint64_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

/* A short read may be that of an error behind it, or of the file's end. */
static ssize_t api_preadv(struct handle *h, const struct iovec *iov, int n, uint64_t off)
{
	uint64_t since = 0, size;
	ssize_t r;

	do {
		r = preadv_once(h, iov, n, off);
		size = atomic_load(&model->file[h->file].size);
	} while (injecting() && (uint64_t)r != iov_length(iov, n) && !(r >= 0 && off + (uint64_t)r >= size) &&
		 inject_again(r < 0 ? r : -EIO, &since));
	return r;
}

static ssize_t api_pwritev(struct handle *h, const struct iovec *iov, int n, uint64_t off)
{
	ssize_t r;

	if (!options.kernel)
		return n == 1 ? pgc_pwrite(h->f, iov->iov_base, iov->iov_len, (off_t)off) : pgc_pwritev(h->f, iov, n, (off_t)off);
	if (options.preload && n == 1 && rng_one_in(3))
		r = lseek(h->fd, (off_t)off, SEEK_SET) < 0 ? -1 : write(h->fd, iov->iov_base, iov->iov_len);
	else
		r = pwritev(h->fd, iov, n, (off_t)off);
	return r < 0 ? -errno : r;
}

static ssize_t api_append(struct handle *h, const void *buf, size_t n, uint64_t *ret_off)
{
	off_t off = 0;
	ssize_t r;

	if (options.kernel) {
		r = write(h->append_fd, buf, n);
		off = lseek(h->append_fd, 0, SEEK_CUR) - r;
		r = r < 0 ? -errno : r;
	} else
		r = pgc_append(h->f, buf, n, &off);
	*ret_off = (uint64_t)off;
	return r;
}

static int api_sync(struct handle *h, bool data)
{
	uint64_t since = 0;
	int r;

	if (options.kernel)
		return (data ? fdatasync(h->fd) : fsync(h->fd)) ? -errno : 0;
	do
		r = data ? pgc_fdatasync(h->f) : pgc_fsync(h->f);
	while (r && inject_again(r, &since));
	return r;
}

static int api_ftruncate(struct handle *h, uint64_t size)
{
	return options.kernel ? (ftruncate(h->fd, (off_t)size) ? -errno : 0) : pgc_ftruncate(h->f, (off_t)size);
}

static int api_fallocate(struct handle *h, int mode, uint64_t off, uint64_t len)
{
	if (options.kernel)
		return fallocate(h->fd, mode, (off_t)off, (off_t)len) ? -errno : 0;
	return pgc_fallocate(h->f, mode, (off_t)off, (off_t)len);
}

static int api_fstat(struct handle *h, struct stat *st)
{
	uint64_t since = 0;
	int r;

	if (options.kernel)
		return fstat(h->fd, st) ? -errno : 0;
	do
		r = pgc_fstat(h->f, st);
	while (r && inject_again(r, &since));
	return r;
}

/* Drops the clean pages of one file. */
static int api_drop(struct handle *h)
{
	static int control = -1;
	static pid_t owner;
	struct pgc_msg m = { .type = PGC_MSG_HELLO, .tag = 1,
		.hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL } };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;

	if (options.kernel && !options.preload)
		return -posix_fadvise(h->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (control < 0 || owner != getpid()) {
		control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		owner = getpid();
		memcpy(a.sun_path, socket_path, strnlen(socket_path, sizeof(a.sun_path) - 1));
		if (control < 0 || connect(control, (struct sockaddr *)&a, sizeof(a)) || send(control, &m, sizeof(m), 0) != sizeof(m) ||
		    recv(control, &m, sizeof(m), 0) != sizeof(m) || m.status) {
			close(control);
			control = -1;
			return options.kills || options.inject ? 0 : -EPROTO;
		}
	}
	if (stat(model->file[h->file].path, &st))
		return -errno;
	m = (struct pgc_msg){ .type = PGC_CTL_DROP, .tag = 2, .ctl_file = { .dev = st.st_dev, .ino = st.st_ino } };
	if (send(control, &m, sizeof(m), MSG_NOSIGNAL) != sizeof(m) || recv(control, &m, sizeof(m), 0) != sizeof(m)) {
		close(control);
		control = -1;
		return options.kills || options.inject ? 0 : -EPROTO; /* the daemon has died */
	}
	if (m.status == EAGAIN && options.kill_total)
		return 0; /* the client that has the file's memory is still to come */
	return m.status == ENOENT || inject_expects(-(long)m.status) ? 0 : -(int)m.status;
}

/* ---- a worker's own state ---- */

struct cow {                       /* a page that a private mapping stored to */
	uint32_t cut;              /* the file page's count of truncations then */
	uint32_t valid;            /* bytes known: what was inside the file then */
	uint8_t  bytes[MODEL_PAGE];
};

struct mapping {
	uint8_t    *addr;          /* NULL: empty */
	uint64_t    pages, off;    /* length in pages, file offset in bytes */
	int         file;
	bool        shared, writable, by_reader; /* by_reader: made through a read-only handle */
	struct cow **cow;          /* private: one a page */
};

static struct handle handles[MODEL_FILES_MAX][HANDLES_PER_FILE];
static struct mapping mappings[MAPPINGS_MAX];
static uint8_t *io_buf, *io_buf2;
static int scratch_fd = -1;
static uint64_t rng_state;
static bool in_child;              /* forked by a worker */

static uint64_t rng(void)
{
	uint64_t x = rng_state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t rng_below(uint64_t n)
{
	return n ? rng() % n : 0;
}

static bool rng_one_in(uint64_t n)
{
	return rng_below(n) == 0;
}

/* Lengths: mostly small, of every order of magnitude. */
static uint64_t rng_length(uint64_t max)
{
	uint64_t order = rng_one_in(100) ? 18 : rng_one_in(4) ? 14 : 12, n = 1 + rng_below(1ull << rng_below(order + 1));

	return n < max ? n : max;
}

static sigjmp_buf bus_jump;
static volatile sig_atomic_t bus_armed;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!bus_armed)
		fail_at(-1, UINT64_MAX, "signal %d at %p outside of any access", sig, info->si_addr);
	bus_armed = 0;
	siglongjmp(bus_jump, 1);
}

/* Copies, one side being mapped memory. False: SIGBUS. */
static bool access_once(void *dst, const void *src, size_t n)
{
	if (sigsetjmp(bus_jump, 0))
		return false;
	bus_armed = 1;
	memcpy(dst, src, n);
	bus_armed = 0;
	return true;
}

/* The same inside the file, where SIGBUS is for a page that could not be read: it is read again some time after. */
static bool access_copy(void *dst, const void *src, size_t n)
{
	uint64_t since = 0;
	bool good;

	do
		good = access_once(dst, src, n);
	while (!good && inject_again(-EIO, &since));
	return good;
}

static struct mapping *mapping_random(bool want_any)
{
	for (int tries = 0; tries < 4; tries++) {
		struct mapping *m = &mappings[rng_below(MAPPINGS_MAX)];

		if (m->addr)
			return m;
	}
	for (int i = 0; want_any && i < MAPPINGS_MAX; i++)
		if (mappings[i].addr)
			return &mappings[i];
	return NULL;
}

static struct mapping *mapping_free_slot(void)
{
	for (int i = 0; i < MAPPINGS_MAX; i++)
		if (!mappings[i].addr)
			return &mappings[i];
	return NULL;
}

static void cow_drop(struct mapping *m, uint64_t from, uint64_t pages)
{
	for (uint64_t p = from; m->cow && p < from + pages; p++) {
		free(m->cow[p]);
		m->cow[p] = NULL;
	}
}

static void cow_resize(struct mapping *m, uint64_t pages)
{
	if (m->shared)
		return;
	m->cow = realloc(m->cow, pages * sizeof(m->cow[0]));
	if (!m->cow)
		fail_at(-1, UINT64_MAX, "out of memory");
	for (uint64_t p = m->pages; p < pages; p++)
		m->cow[p] = NULL;
}

static void mapping_forget(struct mapping *m)
{
	cow_drop(m, 0, m->pages);
	free(m->cow);
	*m = (struct mapping){ 0 };
}

/* A part [ret_from, ret_from + ret_n) of the mapping that lies inside the file; false: there is none. Needs no lock, but holds only with one. */
static bool mapping_pick(const struct mapping *m, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t size = atomic_load(&model->file[m->file].size), end = m->off + m->pages * MODEL_PAGE, len;

	end = end < size ? end : size;
	if (end <= m->off)
		return false;
	len = rng_length(end - m->off);
	*ret_off = m->off + rng_below(end - m->off - len + 1);
	*ret_len = len;
	return true;
}

/* With the range locked: is it still inside the file? */
static bool inside(const struct model_file *f, uint64_t off, uint64_t len)
{
	return off + len <= atomic_load(&f->size);
}

/* With the page locked: the private copy that is in force, or NULL. */
static struct cow *cow_get(struct mapping *m, uint64_t page)
{
	struct cow *c = m->cow ? m->cow[page] : NULL;

	if (c && c->cut != atomic_load(&model->file[m->file].cut[m->off / MODEL_PAGE + page])) {
		free(c);
		c = m->cow[page] = NULL;
	}
	return c;
}

static void mapping_compare(struct mapping *m, uint64_t off, uint64_t len, const uint8_t *got, const char *what)
{
	struct model_file *f = &model->file[m->file];
	uint8_t again[MODEL_PAGE];

	for (uint64_t at = off; at < off + len;) {
		uint64_t in = at % MODEL_PAGE, n = MODEL_PAGE - in, page = (at - m->off) / MODEL_PAGE;
		struct cow *c = cow_get(m, page);
		const uint8_t *want = c ? c->bytes + in : f->bytes + at;
		uint64_t known;

		n = n < off + len - at ? n : off + len - at;
		known = c && c->valid < in + n ? (c->valid > in ? c->valid - in : 0) : n;
		atomic_fetch_add(&model->compared, known);
		if (memcmp(got + (at - off), want, known)) {
			if (!access_copy(again, m->addr + (at - m->off), n))
				memset(again, 0xee, n);
			expect_bytes(m->file, at, got + (at - off), want, known, what, again);
		}
		at += n;
	}
}

static const char *mapping_what(const struct mapping *m, const char *how)
{
	static char text[96];

	snprintf(text, sizeof(text), "%s %s%s mapping%s", how, m->shared ? "shared" : "private", m->writable ? "" : " read-only",
		m->by_reader ? " of a read-only handle" : "");
	return text;
}

static ssize_t scratch_io(bool store, void *mapped, size_t n)
{
	uint64_t since = 0;
	ssize_t r;

	if (scratch_fd < 0)
		scratch_fd = memfd_create("exerciser", MFD_CLOEXEC);
	do {
		r = store ? pread(scratch_fd, mapped, n, 0) : pwrite(scratch_fd, mapped, n, 0);
		r = r < 0 ? -errno : r;
	} while (r != (ssize_t)n && inject_again(r < 0 ? r : -EFAULT, &since));
	return r;
}

/* Lock held, inside the file: reads the mapped bytes in one of several ways and compares. */
static void load_checked(struct mapping *m, uint64_t off, uint64_t len, bool by_syscall)
{
	uint8_t *p = m->addr + (off - m->off);
	ssize_t r;

	if (by_syscall) {
		r = scratch_io(false, p, len);
		if (r != (ssize_t)len || pread(scratch_fd, io_buf, len, 0) != (ssize_t)len)
			fail_at(m->file, off, "%s: a system call that reads %" PRIu64 " bytes of it at %p gave %zd",
				mapping_what(m, "load from"), len, (void *)p, r);
	} else if (!access_copy(io_buf, p, len))
		fail_at(m->file, off, "%s: SIGBUS within bytes %" PRIu64 " + %" PRIu64 " at %p, inside the file", mapping_what(m, "load from"),
			off, len, (void *)p);
	mapping_compare(m, off, len, io_buf, mapping_what(m, "load from"));
}

static void do_load(enum op op, struct mapping *m)
{
	uint64_t off, len;
	struct model_file *f;
	struct history *h;

	if (!m || !mapping_pick(m, &off, &len))
		return;
	f = &model->file[m->file];
	h = history_begin(op, m->file, off, len, m->addr + (off - m->off));
	model_lock(f, off, len, false);
	if (inside(f, off, len))
		load_checked(m, off, len, op == OP_SYSCALL_LOAD);
	model_unlock(f, off, len);
	history_end(h, 0);
}

static void store_private(struct mapping *m, uint64_t off, uint64_t len, const uint8_t *buf, bool by_syscall)
{
	struct model_file *f = &model->file[m->file];
	uint64_t first = (off - m->off) / MODEL_PAGE, last = (off + len - 1 - m->off) / MODEL_PAGE;
	uint8_t *p = m->addr + (off - m->off);

	for (uint64_t page = first; page <= last; page++) {
		uint64_t at = m->off + page * MODEL_PAGE, left = atomic_load(&f->size) - at;
		struct cow *c = cow_get(m, page);

		if (!c) {
			c = m->cow[page] = malloc(sizeof(*c));
			if (!c)
				fail_at(-1, UINT64_MAX, "out of memory");
			c->cut = atomic_load(&f->cut[at / MODEL_PAGE]);
			c->valid = left < MODEL_PAGE ? (uint32_t)left : MODEL_PAGE;
			memcpy(c->bytes, f->bytes + at, MODEL_PAGE);
		}
	}
	if (by_syscall ? scratch_io(true, p, len) != (ssize_t)len : !access_copy(p, buf, len))
		fail_at(m->file, off, "%s: SIGBUS or EFAULT within bytes %" PRIu64 " + %" PRIu64 ", inside the file",
			mapping_what(m, "store to"), off, len);
	for (uint64_t i = 0; i < len; i++)
		m->cow[(off + i - m->off) / MODEL_PAGE]->bytes[(off + i) % MODEL_PAGE] = buf[i];
}

static void do_store(enum op op, struct mapping *m)
{
	bool by_syscall = op == OP_SYSCALL_STORE;
	uint64_t off, len, stamp = stamp_new();
	struct model_file *f;
	struct history *h;

	if (!m || !m->writable || !mapping_pick(m, &off, &len))
		return;
	f = &model->file[m->file];
	stamp_fill(io_buf, off, len, stamp);
	if (by_syscall) {
		(void)scratch_io(false, io_buf, 0);
		if (pwrite(scratch_fd, io_buf, len, 0) != (ssize_t)len)
			fail_at(-1, UINT64_MAX, "scratch memfd: %s", strerror(errno));
	}
	h = history_begin(op, m->file, off, len, m->addr + (off - m->off));
	model_lock(f, off, len, m->shared);
	if (!inside(f, off, len))
		;
	else if (!m->shared)
		store_private(m, off, len, io_buf, by_syscall);
	else {
		uint8_t *p = m->addr + (off - m->off);

		intent_begin(op, m->file, off, len, stamp, 0, 0);
		if (by_syscall ? scratch_io(true, p, len) != (ssize_t)len : !access_copy(p, io_buf, len))
			fail_at(m->file, off, "%s: SIGBUS or EFAULT within bytes %" PRIu64 " + %" PRIu64 ", inside the file",
				mapping_what(m, "store to"), off, len);
		model_write(f, off, io_buf, len);
		intent_end();
	}
	model_unlock(f, off, len);
	history_end(h, 0);
}

/* Past the last page of the file there is SIGBUS, for loads and stores, shared and private. */
static void do_sigbus(struct mapping *m)
{
	struct model_file *f;
	struct history *h;
	uint64_t past, off;
	bool store;
	uint8_t byte = 1;

	if (!m)
		return;
	f = &model->file[m->file];
	past = (atomic_load(&f->size) + MODEL_PAGE - 1) / MODEL_PAGE * MODEL_PAGE;
	past = past > m->off ? past : m->off;
	if (past >= m->off + m->pages * MODEL_PAGE)
		return;
	off = past + rng_below(m->off + m->pages * MODEL_PAGE - past);
	store = m->writable && rng_one_in(2);
	if (off >= f->cap)
		off = off % MODEL_PAGE + f->cap - MODEL_PAGE;
	if (off < past)
		return;
	h = history_begin(OP_SIGBUS, m->file, off, 1, m->addr + (off - m->off));
	model_lock(f, off, 1, true);
	if (off / MODEL_PAGE >= (atomic_load(&f->size) + MODEL_PAGE - 1) / MODEL_PAGE) {
		uint8_t *p = m->addr + (off - m->off);

		if (store ? access_once(p, &byte, 1) : access_once(&byte, p, 1))
			fail_at(m->file, off, "%s at byte %" PRIu64 ", past the last page of a file of %" PRIu64 " bytes, raised no SIGBUS",
				mapping_what(m, store ? "store to" : "load from"), off, (uint64_t)atomic_load(&f->size));
	}
	model_unlock(f, off, 1);
	history_end(h, 0);
}

/* Stores past the end in the last page: never in the file, and gone when it grows. */
static void do_tail_store(struct mapping *m)
{
	struct model_file *f;
	struct history *h;
	uint64_t size;
	uint8_t junk = 0xa5;

	if (!m || !m->shared || !m->writable)
		return;
	f = &model->file[m->file];
	size = atomic_load(&f->size);
	if (size % MODEL_PAGE == 0 || size < m->off || size >= m->off + m->pages * MODEL_PAGE)
		return;
	h = history_begin(OP_TAIL_STORE, m->file, size, 1, m->addr + (size - m->off));
	model_lock(f, size, 1, true);
	if (atomic_load(&f->size) == size && !access_copy(m->addr + (size - m->off), &junk, 1))
		fail_at(m->file, size, "%s: SIGBUS in the last page of the file", mapping_what(m, "store to"));
	model_unlock(f, size, 1);
	history_end(h, 0);
}

/* Splits a buffer into one to three pieces. */
static int split_iov(struct iovec iov[3], uint8_t *buf, uint64_t len)
{
	uint64_t a, b;

	iov[0] = (struct iovec){ buf, len };
	if (len < 3 || !rng_one_in(5))
		return 1;
	a = 1 + rng_below(len - 2);
	b = a + 1 + rng_below(len - a - 1);
	iov[0] = (struct iovec){ buf, a };
	iov[1] = (struct iovec){ buf + a, b - a };
	iov[2] = (struct iovec){ buf + b, len - b };
	return 3;
}

static struct handle *handle_random(int file, bool writable)
{
	struct handle *h = &handles[file][writable ? 0 : rng_below(HANDLES_PER_FILE)];

	return h->open ? h : &handles[file][0];
}

static void pread_checked(struct handle *fh, uint64_t off, uint64_t len)
{
	struct model_file *f = &model->file[fh->file];
	struct iovec iov[3];
	uint64_t size = atomic_load(&f->size), want = off >= size ? 0 : size - off;
	uint8_t *again = NULL;
	ssize_t r;

	want = want < len ? want : len;
	memset(io_buf, 0xcc, len);
	r = api_preadv(fh, iov, split_iov(iov, io_buf, len), off);
	if (r != (ssize_t)want)
		fail_at(fh->file, off, "pread of %" PRIu64 " bytes at %" PRIu64 " gave %zd, not %" PRIu64 " (file %d, size %" PRIu64 ")", len, off, r,
			want, fh->file, size);
	atomic_fetch_add(&model->compared, want);
	if (memcmp(io_buf, f->bytes + off, want)) {
		iov[0] = (struct iovec){ io_buf2, want };
		again = api_preadv(fh, iov, 1, off) == (ssize_t)want ? io_buf2 : NULL;
		expect_bytes(fh->file, off, io_buf, f->bytes + off, want, "pread", again);
	}
}

static void do_pread(int file)
{
	struct handle *fh = handle_random(file, false);
	struct model_file *f = &model->file[file];
	uint64_t size = atomic_load(&f->size), off, len = rng_length(IO_MAX);
	struct history *h;

	off = rng_below(rng_one_in(20) ? f->cap : size + 1);
	len = len < f->cap - off ? len : f->cap - off;
	if (!len)
		return;
	h = history_begin(OP_PREAD, file, off, len, NULL);
	model_lock(f, off, len, false);
	pread_checked(fh, off, len);
	model_unlock(f, off, len);
	history_end(h, 0);
}

/*
 * A change has failed, or was done in part. With --inject that may be, and then each byte of [off, off + len) is as before or as it was to be (`want`; NULL:
 * zero), and so is the size: the model takes what there is. False: it may not be. The range, or the whole file, is locked.
 */
static bool settle_failure(struct handle *fh, ssize_t r, uint64_t off, uint64_t len, const uint8_t *want, uint64_t new_size, const char *what)
{
	struct model_file *f = &model->file[fh->file];
	uint64_t size = atomic_load(&f->size), end, now;
	struct iovec iov;
	struct stat st;

	if (!injecting() || (r < 0 && !inject_expects(r)))
		return false;
	if (api_fstat(fh, &st))
		return false;
	now = (uint64_t)st.st_size;
	if (now != size && (want ? now < size || now > new_size : now != new_size))
		fail_at(fh->file, now, "%s failed (%zd); now the size is %" PRIu64 ", it was %" PRIu64 " and was to be %" PRIu64, what, r, now, size, new_size);
	if (now != size)
		model_resize(f, now);
	end = off + len < now ? off + len : now;
	for (uint64_t at = off; at < end; at += MODEL_PAGE) {
		static uint8_t page[MODEL_PAGE];
		uint64_t n = end - at < MODEL_PAGE ? end - at : MODEL_PAGE;

		iov = (struct iovec){ page, n };
		if (api_preadv(fh, &iov, 1, at) != (ssize_t)n)
			return false;
		for (uint64_t i = 0; i < n; i++)
			if (page[i] != f->bytes[at + i] && page[i] != (want ? want[at - off + i] : 0))
				fail_at(fh->file, at + i, "%s of %" PRIu64 " + %" PRIu64 " failed (%zd); byte %" PRIu64 " is %02x, neither the old %02x nor the new %02x",
					what, off, len, r, at + i, page[i], f->bytes[at + i], want ? want[at - off + i] : 0);
		memcpy(f->bytes + at, page, n);
	}
	return true;
}

/* Locks what a change of [off, off + len) needs: the pages, or the whole file when the size may change. */
static bool lock_change(struct model_file *f, uint64_t off, uint64_t len, bool *ret_whole)
{
	*ret_whole = !inside(f, off, len);
	if (*ret_whole)
		model_lock(f, 0, f->cap, true);
	else
		model_lock(f, off, len, true);
	if (*ret_whole || inside(f, off, len))
		return true;
	model_unlock(f, off, len);
	return false;
}

static void do_pwrite(int file)
{
	struct handle *fh = handle_random(file, true);
	struct model_file *f = &model->file[file];
	uint64_t size = atomic_load(&f->size), off, len = rng_length(IO_MAX), stamp = stamp_new();
	struct iovec iov[3];
	struct history *h;
	bool whole;
	ssize_t r;

	off = rng_below(rng_one_in(30) ? f->cap : size + 1);
	len = len < f->cap - off ? len : f->cap - off;
	if (off + len > size && !rng_one_in(10))
		len = size - (off < size ? off : size);
	if (!len)
		return;
	stamp_fill(io_buf, off, len, stamp);
	h = history_begin(OP_PWRITE, file, off, len, NULL);
	if (lock_change(f, off, len, &whole)) {
		size = atomic_load(&f->size);
		intent_begin(OP_PWRITE, file, off, len, stamp, size, size > off + len ? size : off + len);
		r = api_pwritev(fh, iov, split_iov(iov, io_buf, len), off);
		if (r != (ssize_t)len && settle_failure(fh, r, off, len, io_buf, size > off + len ? size : off + len, "pwrite"))
			;
		else if (r != (ssize_t)len)
			fail_at(file, off, "pwrite of %" PRIu64 " bytes at %" PRIu64 " gave %zd (file %d, size %" PRIu64 ")", len, off, r, file, size);
		else
			model_write(f, off, io_buf, len);
		intent_end();
		model_unlock(f, whole ? 0 : off, whole ? f->cap : len);
	}
	history_end(h, 0);
}

/* pread into a shared mapping, or pwrite from one: of the same file as often as of another. */
static void do_io_mapped(enum op op, struct mapping *m)
{
	struct handle *fh;
	struct model_file *f, *mf;
	uint64_t moff, len, off, size;
	struct history *h;
	struct iovec iov;
	ssize_t r;

	if (!m || !m->shared || !m->writable || !mapping_pick(m, &moff, &len))
		return;
	len = len < 16384 ? len : 16384;
	fh = handle_random(rng_one_in(2) ? m->file : (int)rng_below((uint64_t)model->files), true);
	f = &model->file[fh->file];
	mf = &model->file[m->file];
	size = atomic_load(&f->size);
	if (size < len)
		return;
	off = rng_below(size - len + 1);
	/* What overlaps, or shares a page, has no one right answer. */
	if (f == mf && off / MODEL_PAGE <= (moff + len - 1) / MODEL_PAGE && moff / MODEL_PAGE <= (off + len - 1) / MODEL_PAGE)
		return;
	h = history_begin(op, fh->file, off, len, m->addr + (moff - m->off));
	if (model_trylock(f, off, len, op == OP_PWRITE_MAPPED)) {
		if (model_trylock(mf, moff, len, op == OP_PREAD_MAPPED)) {
			if (inside(f, off, len) && inside(mf, moff, len)) {
				iov = (struct iovec){ m->addr + (moff - m->off), len };
				/* The intent has no stamp for copied bytes: a kill settles them by what the store says. */
				if (op == OP_PWRITE_MAPPED)
					intent_begin(op, fh->file, off, len, 0, size, size);
				else
					intent_begin(op, m->file, moff, len, 0, size, size);
				r = op == OP_PWRITE_MAPPED ? api_pwritev(fh, &iov, 1, off) : api_preadv(fh, &iov, 1, off);
				if (r != (ssize_t)len && op == OP_PWRITE_MAPPED && settle_failure(fh, r, off, len, mf->bytes + moff, size, op_name(op)))
					;
				else if (r != (ssize_t)len)
					fail_at(fh->file, off, "%s of %" PRIu64 " bytes at %" PRIu64 " of file %d, buffer mapped from %" PRIu64
						" of file %d, gave %zd", op_name(op), len, off, fh->file, moff, m->file, r);
				else if (op == OP_PWRITE_MAPPED)
					memcpy(f->bytes + off, mf->bytes + moff, len);
				else
					memcpy(mf->bytes + moff, f->bytes + off, len);
				intent_end();
			}
			model_unlock(mf, moff, len);
		}
		model_unlock(f, off, len);
	}
	history_end(h, 0);
}

static void do_append(int file)
{
	struct handle *fh = handle_random(file, true);
	struct model_file *f = &model->file[file];
	uint64_t len = rng_length(64 << 10), size, off = 0, stamp = stamp_new();
	struct history *h = history_begin(OP_APPEND, file, atomic_load(&f->size), len, NULL);
	ssize_t r;

	model_lock(f, 0, f->cap, true);
	size = atomic_load(&f->size);
	if (len <= f->cap - size) {
		stamp_fill(io_buf, size, len, stamp);
		intent_begin(OP_APPEND, file, size, len, stamp, size, size + len);
		r = api_append(fh, io_buf, len, &off);
		if (r < 0 && settle_failure(fh, r, size, len, io_buf, size + len, "append"))
			;
		else if (r != (ssize_t)len || off != size)
			fail_at(file, size, "append of %" PRIu64 " bytes to file %d of size %" PRIu64 " gave %zd, at %" PRIu64, len, file, size, r, off);
		else
			model_write(f, size, io_buf, len);
		intent_end();
	}
	model_unlock(f, 0, f->cap);
	history_end(h, 0);
}

static void do_truncate(int file)
{
	struct handle *fh = handle_random(file, true);
	struct model_file *f = &model->file[file];
	uint64_t size = rng_one_in(12) ? 0 : rng_below(f->cap + 1), old;
	struct history *h;
	int r;

	if (rng_one_in(3))
		size = size / MODEL_PAGE * MODEL_PAGE;
	if (rng_one_in(2))         /* else files would be half empty on average */
		size = f->cap - size / 8;
	h = history_begin(OP_TRUNCATE, file, size, 0, NULL);
	model_lock(f, 0, f->cap, true);
	old = atomic_load(&f->size);
	intent_begin(OP_TRUNCATE, file, 0, 0, 0, old, size);
	r = api_ftruncate(fh, size);
	if (r && settle_failure(fh, r, 0, 0, NULL, size, "ftruncate"))
		;
	else if (r)
		fail_at(file, size, "ftruncate of file %d from %" PRIu64 " to %" PRIu64 " gave %d", file, old, size, r);
	else
		model_resize(f, size);
	intent_end();
	model_unlock(f, 0, f->cap);
	history_end(h, r);
}

static void do_fallocate(enum op op, int file)
{
	struct handle *fh = handle_random(file, true);
	struct model_file *f = &model->file[file];
	int mode = op == OP_PUNCH ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : rng_one_in(2) ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE :
		rng_one_in(2) ? FALLOC_FL_KEEP_SIZE : 0;
	uint64_t off = rng_below(f->cap - 1), len = rng_length(f->cap - off), size, end, zeroed, grown;
	struct history *h;
	bool whole = mode == 0;
	int r;

	if (rng_one_in(2)) {       /* whole pages */
		off = off / MODEL_PAGE * MODEL_PAGE;
		len = (len + MODEL_PAGE - 1) / MODEL_PAGE * MODEL_PAGE;
	}
	h = history_begin(op, file, off, len, NULL);
	model_lock(f, whole ? 0 : off, whole ? f->cap : len, true);
	size = atomic_load(&f->size);
	end = off + len < size ? off + len : size;
	zeroed = mode & ~FALLOC_FL_KEEP_SIZE && off < end ? end - off : 0;
	grown = whole && off + len > size ? off + len : size;
	intent_begin(op, file, off, zeroed, 0, size, grown);
	r = api_fallocate(fh, mode, off, len);
	if (r && settle_failure(fh, r, off, zeroed, NULL, grown, "fallocate"))
		;
	else if (r && !(r == -EOPNOTSUPP && mode & FALLOC_FL_ZERO_RANGE))
		fail_at(file, off, "fallocate mode %d of %" PRIu64 " + %" PRIu64 " of file %d, size %" PRIu64 ", gave %d", mode, off, len, file, size, r);
	if (!r && zeroed)
		model_zero(f, off, zeroed);
	if (!r && grown > size)
		model_resize(f, grown);
	intent_end();
	model_unlock(f, whole ? 0 : off, whole ? f->cap : len);
	history_end(h, r);
}

static void do_mmap(void)
{
	struct mapping *m = mapping_free_slot();
	int file = (int)rng_below((uint64_t)model->files);
	struct handle *fh = handle_random(file, !rng_one_in(4));
	struct model_file *f = &model->file[file];
	uint64_t pages = f->cap / MODEL_PAGE, first, n;
	bool shared = !rng_one_in(4), write;
	int flags, prot;
	struct history *h;
	void *p;

	if (!m || !fh->open)
		return;
	write = !rng_one_in(5) && (fh->writable || !shared);
	first = rng_one_in(2) ? 0 : rng_below(pages);
	n = 1 + rng_below(rng_one_in(3) ? pages - first : (pages - first) / 8 + 1);
	flags = shared ? MAP_SHARED : MAP_PRIVATE;
	/* The kernel populates a writable private mapping with copies made there and then; the model could not know of them. */
	if (rng_one_in(8) && (shared || !write))
		flags |= MAP_POPULATE;
	prot = PROT_READ | (write ? PROT_WRITE : 0);
	h = history_begin(OP_MMAP, file, first * MODEL_PAGE, n * MODEL_PAGE, NULL);
	p = api_mmap(fh, n * MODEL_PAGE, prot, flags, first * MODEL_PAGE);
	if (p == MAP_FAILED)
		fail_at(file, first * MODEL_PAGE, "mmap of %" PRIu64 " pages of file %d, prot %d, flags %#x: %s", n, file, prot, flags, strerror(errno));
	h->addr = (uintptr_t)p;
	*m = (struct mapping){ .addr = p, .off = first * MODEL_PAGE, .file = file, .shared = shared, .writable = write,
		.by_reader = !fh->writable };
	cow_resize(m, n);
	m->pages = n;
	history_end(h, 0);
}

static void do_munmap(struct mapping *m)
{
	bool plain = rng_one_in(2);
	struct history *h;
	int r;

	if (!m)
		return;
	h = history_begin(OP_MUNMAP, m->file, m->off, m->pages * MODEL_PAGE, m->addr);
	r = api_munmap(m->addr, m->pages * MODEL_PAGE, plain);
	if (r)
		fail_at(m->file, m->off, "%s of %p gave %d", plain ? "munmap" : "pgc_munmap", (void *)m->addr, r);
	mapping_forget(m);
	history_end(h, r);
}

/* Cuts pages out of the head, the middle or the end; what is left behind the cut becomes a mapping of its own. */
static void do_munmap_part(struct mapping *m)
{
	struct mapping *rest = mapping_free_slot();
	uint64_t from, n, behind;
	struct history *h;
	int r;

	if (!m || m->pages < 3 || !rest)
		return;
	from = rng_one_in(3) ? 0 : 1 + rng_below(m->pages - 2);
	n = 1 + rng_below(m->pages - from - (from == 0));
	behind = m->pages - from - n;
	h = history_begin(OP_MUNMAP_PART, m->file, m->off + from * MODEL_PAGE, n * MODEL_PAGE, m->addr + from * MODEL_PAGE);
	r = api_munmap(m->addr + from * MODEL_PAGE, n * MODEL_PAGE, rng_one_in(2));
	if (r)
		fail_at(m->file, m->off, "munmap of a part gave %d", r);
	cow_drop(m, from, n);
	if (behind) {
		*rest = (struct mapping){ .addr = m->addr + (from + n) * MODEL_PAGE, .off = m->off + (from + n) * MODEL_PAGE, .file = m->file,
			.shared = m->shared, .writable = m->writable, .by_reader = m->by_reader };
		cow_resize(rest, behind);
		rest->pages = behind;
		for (uint64_t p = 0; m->cow && p < behind; p++)
			rest->cow[p] = m->cow[from + n + p];
	}
	m->pages = from;
	if (!from) {
		free(m->cow);
		*m = (struct mapping){ 0 };
	}
	history_end(h, r);
}

static void do_mremap(enum op op, struct mapping *m)
{
	struct mapping *copy = NULL;
	uint64_t pages, cap;
	int flags = MREMAP_MAYMOVE;
	void *where = NULL, *p;
	struct history *h;

	if (!m)
		return;
	cap = model->file[m->file].cap / MODEL_PAGE;
	pages = m->pages;
	if (op == OP_MREMAP_SHRINK) {
		if (pages < 2)
			return;
		pages = 1 + rng_below(pages - 1);
	} else if (op == OP_MREMAP_GROW) {
		if (m->off / MODEL_PAGE + pages >= cap)
			return;
		pages += 1 + rng_below(cap - m->off / MODEL_PAGE - pages);
	} else {
		if (op == OP_MREMAP_DUP) {
			copy = mapping_free_slot();
			/* The kernel duplicates shared mappings only; a read-only handle's is private underneath. */
			if (!copy || !m->shared || (m->by_reader && (!options.kernel || options.preload)))
				return;
		}
		if (op == OP_MREMAP_MOVE || rng_one_in(2)) {
			where = mmap(NULL, pages * MODEL_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			flags |= MREMAP_FIXED;
		}
	}
	h = history_begin(op, m->file, m->off, pages * MODEL_PAGE, m->addr);
	p = mremap(m->addr, copy ? 0 : m->pages * MODEL_PAGE, pages * MODEL_PAGE, flags, where);
	if (p == MAP_FAILED)
		fail_at(m->file, m->off, "%s from %" PRIu64 " to %" PRIu64 " pages: %s", op_name(op), m->pages, pages, strerror(errno));
	if (copy)
		*copy = (struct mapping){ .addr = p, .pages = pages, .off = m->off, .file = m->file, .shared = true, .writable = m->writable,
			.by_reader = m->by_reader };
	else {
		if (pages < m->pages)
			cow_drop(m, pages, m->pages - pages);
		cow_resize(m, pages);
		m->addr = p;
		m->pages = pages;
	}
	history_end(h, 0);
}

#define STORE_PATH (sizeof(work_dir) + 64)
/* A name that no pattern matches: `plain` is a link to the folder itself. */
static void store_path(const struct model_file *f, char ret[STORE_PATH])
{
	snprintf(ret, STORE_PATH, "%s%s%s", work_dir, options.preload ? "/plain" : "", strrchr(f->path, '/'));
}

/* With the range locked and synced: a reader of the store that knows nothing of the cache sees the bytes. */
static void store_compare(int file, uint64_t off, uint64_t len, const char *what)
{
	struct model_file *f = &model->file[file];
	char path[STORE_PATH];
	uint64_t done = 0;
	int fd;

	store_path(f, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail_at(file, off, "open %s: %s", f->path, strerror(errno));
	while (done < len) {
		ssize_t r = pread(fd, io_buf2, len - done < IO_MAX ? len - done : IO_MAX, (off_t)(off + done));

		if (r <= 0)
			fail_at(file, off + done, "%s: read(2) of the store at %" PRIu64 " gave %zd; the file should have %" PRIu64 " bytes", what,
				off + done, r, (uint64_t)atomic_load(&f->size));
		expect_bytes(file, off + done, io_buf2, f->bytes + off + done, (uint64_t)r, what, NULL);
		done += (uint64_t)r;
	}
	close(fd);
}

static void do_msync(struct mapping *m)
{
	uint64_t from, n, off, len, size;
	struct model_file *f;
	bool check = rng_one_in(4), sync = check || rng_one_in(3);
	struct model_sync covered;
	struct history *h;
	int r;

	if (!m)
		return;
	f = &model->file[m->file];
	from = rng_below(m->pages);
	n = 1 + rng_below(rng_one_in(4) ? m->pages - from : (m->pages - from) / 16 + 1);
	off = m->off + from * MODEL_PAGE;
	len = n * MODEL_PAGE;
	check = check && m->shared && off + len <= f->cap && n <= 16;
	h = history_begin(OP_MSYNC, m->file, off, len, m->addr + (off - m->off));
	if (check)
		model_lock(f, off, len, false);
	model_sync_begin(&covered, f, off, len);
	r = api_msync(m->addr + from * MODEL_PAGE, len, sync ? MS_SYNC : MS_ASYNC);
	if (r)
		fail_at(m->file, off, "msync(%s) of %" PRIu64 " + %" PRIu64 " of file %d gave %d", sync ? "MS_SYNC" : "MS_ASYNC", off, len, m->file, r);
	if (sync && m->shared)
		model_sync_done(&covered);
	if (check) {
		size = atomic_load(&f->size);
		if (off < size)
			store_compare(m->file, off, off + len < size ? len : size - off, mapping_what(m, "after msync(MS_SYNC) of a"));
		model_unlock(f, off, len);
	}
	history_end(h, r);
}

static void do_sync(enum op op, int file)
{
	struct handle *fh = handle_random(file, true);
	struct model_file *f = &model->file[file];
	struct history *h = history_begin(op, file, 0, 0, NULL);
	uint64_t off = 0, len = 0;
	bool check = rng_one_in(3);
	struct model_sync covered;
	int r;

	if (check) {
		off = rng_below(f->cap / MODEL_PAGE) * MODEL_PAGE;
		len = f->cap - off < 16 * MODEL_PAGE ? f->cap - off : 16 * MODEL_PAGE;
		model_lock(f, off, len, false);
	}
	model_sync_begin(&covered, f, 0, f->cap);
	r = api_sync(fh, op == OP_FDATASYNC);
	if (r)
		fail_at(file, UINT64_MAX, "%s of file %d gave %d", op_name(op), file, r);
	model_sync_done(&covered);
	if (check) {
		uint64_t size = atomic_load(&f->size);

		if (off < size)
			store_compare(file, off, off + len < size ? len : size - off, op == OP_FSYNC ? "after fsync" : "after fdatasync");
		model_unlock(f, off, len);
	}
	history_end(h, r);
}

static void do_madvise(enum op op, struct mapping *m)
{
	uint64_t from, n;
	struct history *h;
	int r;

	if (!m)
		return;
	from = rng_below(m->pages);
	n = 1 + rng_below(m->pages - from);
	h = history_begin(op, m->file, m->off + from * MODEL_PAGE, n * MODEL_PAGE, m->addr + from * MODEL_PAGE);
	r = api_madvise(m->addr + from * MODEL_PAGE, n * MODEL_PAGE, op == OP_DONTNEED ? MADV_DONTNEED : MADV_WILLNEED, rng_one_in(2));
	if (r)
		fail_at(m->file, m->off, "madvise(%s) gave %d", op_name(op), r);
	if (op == OP_DONTNEED)
		cow_drop(m, from, n);
	history_end(h, r);
}

static void do_fadvise(int file)
{
	static const int advices[] = { POSIX_FADV_NORMAL, POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM, POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED };
	struct handle *fh = handle_random(file, false);
	uint64_t cap = model->file[file].cap, off = rng_below(cap), len = rng_below(cap - off);
	int advice = advices[rng_below(ELEMS(advices))], r;
	struct history *h = history_begin(OP_FADVISE, file, off, len, NULL);

	r = api_fadvise(fh, off, len, advice);
	if (r)
		fail_at(file, off, "fadvise %d of %" PRIu64 " + %" PRIu64 " gave %d", advice, off, len, r);
	history_end(h, r);
}

static void do_fstat(int file)
{
	struct handle *fh = handle_random(file, false);
	struct model_file *f = &model->file[file];
	struct history *h = history_begin(OP_FSTAT, file, 0, 1, NULL);
	struct stat st;
	int r;

	model_lock(f, 0, 1, false);
	r = api_fstat(fh, &st);
	if (r || (uint64_t)st.st_size != atomic_load(&f->size))
		fail_at(file, UINT64_MAX, "fstat gave %d, size %lld; the file should have %" PRIu64 " bytes", r, (long long)st.st_size,
			(uint64_t)atomic_load(&f->size));
	model_unlock(f, 0, 1);
	history_end(h, r);
}

static void child_body(int parent_slot, pid_t parent)
{
	in_child = true;
	self = MODEL_PROCS_MAX + parent_slot;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	atomic_store(&model->slots[self].pid, getpid());
	scratch_fd = -1;           /* the parent's own */
	for (int i = 0; i < 6 && !atomic_load(&model->failed); i++) {
		int file = (int)rng_below((uint64_t)model->files);

		atomic_fetch_add(&model->slots[self].opno, 1);
		switch (rng_below(6)) {
		case 0: do_pread(file); break;
		case 1: do_pwrite(file); break;
		case 2: case 3: do_store(OP_STORE, mapping_random(true)); break;
		default: do_load(OP_LOAD, mapping_random(true)); break;
		}
	}
	atomic_store(&model->slots[self].pid, 0);
	_exit(0);
}

static void do_fork(void)
{
	struct history *h = history_begin(OP_FORK, -1, 0, 0, NULL);
	pid_t me = getpid(), pid;
	int status;

	pid = fork();
	if (pid == 0)
		child_body(self, me);
	if (pid < 0)
		fail_at(-1, UINT64_MAX, "fork: %s", strerror(errno));
	do_store(OP_STORE, mapping_random(true));
	do_load(OP_LOAD, mapping_random(true));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			fail_at(-1, UINT64_MAX, "waitpid: %s", strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_at(-1, UINT64_MAX, "a forked child ended with status %#x", (unsigned)status);
	history_end(h, 0);
}

static void open_handle(int file, int which)
{
	/* The first is writable always, the second as it comes. */
	int r = api_open(&handles[file][which], file, which == 0 || rng_one_in(2));

	if (r)
		fail_at(file, UINT64_MAX, "open of %s gave %d", model->file[file].path, r);
}

/* Mappings outlive their handle. */
static void do_reopen(int file)
{
	int which = (int)rng_below(HANDLES_PER_FILE), r = 0;
	struct history *h = history_begin(OP_REOPEN, file, 0, 0, NULL);

	if (handles[file][which].open)
		r = api_close(&handles[file][which]);
	if (r)
		fail_at(file, UINT64_MAX, "close gave %d", r);
	open_handle(file, which);
	history_end(h, r);
}

static void do_drop(int file)
{
	struct history *h = history_begin(OP_DROP, file, 0, 0, NULL);
	int r = api_drop(&handles[file][0]);

	if (r)
		fail_at(file, UINT64_MAX, "drop gave %d", r);
	history_end(h, r);
}

static void do_kill(void)
{
	struct history *h = history_begin(OP_KILL, -1, 0, 0, NULL);
	int none = 0;

	atomic_compare_exchange_strong(&model->kill_request, &none, 1 + (int)rng_below((uint64_t)model->procs));
	history_end(h, 0);
}

static struct weight {
	enum op op;
	unsigned weight;
} weights[] = {
	{ OP_LOAD, 3400 }, { OP_STORE, 2900 }, { OP_SYSCALL_LOAD, 150 }, { OP_SYSCALL_STORE, 150 }, { OP_SIGBUS, 60 }, { OP_TAIL_STORE, 300 },
	{ OP_PREAD, 1100 }, { OP_PWRITE, 900 }, { OP_PWRITE_MAPPED, 60 }, { OP_PREAD_MAPPED, 60 }, { OP_APPEND, 60 }, { OP_TRUNCATE, 60 },
	{ OP_PUNCH, 60 }, { OP_FALLOCATE, 30 }, { OP_MMAP, 220 }, { OP_MUNMAP, 110 }, { OP_MUNMAP_PART, 50 }, { OP_MREMAP_SHRINK, 25 },
	{ OP_MREMAP_GROW, 25 }, { OP_MREMAP_MOVE, 25 }, { OP_MREMAP_DUP, 8 }, { OP_MSYNC, 50 }, { OP_FSYNC, 16 }, { OP_FDATASYNC, 16 },
	{ OP_DONTNEED, 120 }, { OP_WILLNEED, 20 }, { OP_FADVISE, 20 }, { OP_FSTAT, 40 }, { OP_FORK, 25 }, { OP_REOPEN, 40 }, { OP_DROP, 20 },
	{ OP_KILL, 2 },
};
static unsigned weight_sum;

static enum op op_choose(void)
{
	unsigned at = (unsigned)rng_below(weight_sum);

	for (size_t i = 0; i < ELEMS(weights); i++) {
		if (at < weights[i].weight)
			return weights[i].op;
		at -= weights[i].weight;
	}
	return OP_LOAD;
}

static void worker_operation(void)
{
	int file = (int)rng_below((uint64_t)model->files);
	enum op op = op_choose();

	atomic_fetch_add(&model->slots[self].opno, 1);
	switch (op) {
	case OP_LOAD: case OP_SYSCALL_LOAD: do_load(op, mapping_random(false)); break;
	case OP_STORE: case OP_SYSCALL_STORE: do_store(op, mapping_random(false)); break;
	case OP_SIGBUS: do_sigbus(mapping_random(false)); break;
	case OP_TAIL_STORE: do_tail_store(mapping_random(false)); break;
	case OP_PREAD: do_pread(file); break;
	case OP_PWRITE: do_pwrite(file); break;
	case OP_PWRITE_MAPPED: case OP_PREAD_MAPPED: do_io_mapped(op, mapping_random(false)); break;
	case OP_APPEND: do_append(file); break;
	case OP_TRUNCATE: do_truncate(file); break;
	case OP_PUNCH: case OP_FALLOCATE: do_fallocate(op, file); break;
	case OP_MMAP: do_mmap(); break;
	case OP_MUNMAP: do_munmap(mapping_random(false)); break;
	case OP_MUNMAP_PART: do_munmap_part(mapping_random(false)); break;
	case OP_MREMAP_SHRINK: case OP_MREMAP_GROW: case OP_MREMAP_MOVE: case OP_MREMAP_DUP: do_mremap(op, mapping_random(false)); break;
	case OP_MSYNC: do_msync(mapping_random(false)); break;
	case OP_FSYNC: case OP_FDATASYNC: do_sync(op, file); break;
	case OP_DONTNEED: case OP_WILLNEED: do_madvise(op, mapping_random(false)); break;
	case OP_FADVISE: do_fadvise(file); break;
	case OP_FSTAT: do_fstat(file); break;
	case OP_FORK: do_fork(); break;
	case OP_REOPEN: do_reopen(file); break;
	case OP_DROP: do_drop(file); break;
	case OP_KILL: do_kill(); break;
	default: break;
	}
}

/* Every byte of every mapping, at rest. */
static void worker_verify(void)
{
	struct history *h = history_begin(OP_VERIFY, -1, 0, 0, NULL);

	for (int i = 0; i < MAPPINGS_MAX; i++) {
		struct mapping *m = &mappings[i];
		uint64_t size, end;

		if (!m->addr)
			continue;
		size = atomic_load(&model->file[m->file].size);
		end = m->off + m->pages * MODEL_PAGE;
		end = end < size ? end : size;
		for (uint64_t off = m->off; off < end; off += IO_MAX)
			load_checked(m, off, end - off < IO_MAX ? end - off : IO_MAX, false);
		atomic_fetch_add(&model->beat, 1);
	}
	history_end(h, 0);
}

#define STORM_STORES  400
#define STORM_APPENDS 20

/*
 * No locks here. Stores: byte (or 8-byte word, in every other storm) number n belongs to process n modulo their number, so
 * that neighbours are stored to at the same time by all. Appends: each gets a place of its own, untorn.
 */
static void worker_storm(void)
{
	uint64_t storm = atomic_load(&model->storm), unit = storm & 1 ? 8 : 1;
	int file = (int)(storm % (uint64_t)model->files), other = (file + 1) % model->files;
	struct model_file *f = &model->file[file];
	uint64_t size = atomic_load(&f->size), units = size / unit / (uint64_t)model->procs;
	struct history *h = history_begin(OP_STORM, file, 0, size, NULL);
	struct handle fh;
	uint8_t *p;
	int r = api_open(&fh, file, true);

	if (r)
		fail_at(file, UINT64_MAX, "open gave %d", r);
	p = api_mmap(&fh, f->cap, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	if (p == MAP_FAILED)
		fail_at(file, UINT64_MAX, "mmap for a storm: %s", strerror(errno));
	model_touch(f);
	model_touch(&model->file[other]);
	for (int i = 0; i < STORM_STORES && units; i++) {
		/* Half of them on a few pages, where all meet. */
		uint64_t u = rng_below(i & 1 && units > 2000 / unit ? 2000 / unit : units);
		uint64_t off = (u * (uint64_t)model->procs + (uint64_t)self) * unit, stamp = stamp_new();
		uint8_t bytes[8], back[8];

		atomic_fetch_add(&model->slots[self].opno, 1);
		stamp_fill(bytes, off, unit, stamp);
		if (!access_copy(p + off, bytes, unit) || !access_copy(back, p + off, unit))
			fail_at(file, off, "storm: SIGBUS at byte %" PRIu64 ", size %" PRIu64, off, size);
		memcpy(f->bytes + off, bytes, unit);
		expect_bytes(file, off, back, bytes, unit, "storm: a byte of my own, just stored", NULL);
		if (rng_one_in(60))
			r = api_madvise(p, f->cap, MADV_DONTNEED, true);
		else if (rng_one_in(60))
			r = api_msync(p, f->cap, rng_one_in(4) ? MS_SYNC : MS_ASYNC);
		else if (rng_one_in(100))
			r = api_drop(&fh);
		if (r)
			fail_at(file, UINT64_MAX, "storm: madvise, msync or drop gave %d", r);
	}
	r = api_munmap(p, f->cap, storm & 2);
	if (r || (r = api_close(&fh)))
		fail_at(file, UINT64_MAX, "storm: munmap or close gave %d", r);

	f = &model->file[other];
	for (int i = 0; i < STORM_APPENDS; i++) {
		uint64_t off = 0, len = 1 + rng_below(MODEL_PAGE / 8), end, old;
		ssize_t n;

		if (atomic_load(&f->size) + (uint64_t)model->procs * STORM_APPENDS * MODEL_PAGE / 8 > f->cap && model->files < 2)
			break;     /* one file only: there was no room to make */
		atomic_fetch_add(&model->slots[self].opno, 1);
		stamp_fill(io_buf, 0, len, stamp_new());
		n = api_append(&handles[other][0], io_buf, len, &off);
		if (n != (ssize_t)len || off + len > f->cap)
			fail_at(other, off, "storm: append of %" PRIu64 " bytes gave %zd, at %" PRIu64, len, n, off);
		memcpy(f->bytes + off, io_buf, len);
		end = off + len;
		for (old = atomic_load(&f->size); old < end;)
			if (atomic_compare_exchange_weak(&f->size, &old, end))
				break;
	}
	history_end(h, 0);
}

static void process_setup(void)
{
	struct sigaction a = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGBUS, &a, NULL);
	signal(SIGPIPE, SIG_IGN);
	io_buf = malloc(IO_MAX);
	io_buf2 = malloc(IO_MAX);
	if (!io_buf || !io_buf2)
		fail_at(-1, UINT64_MAX, "out of memory");
}

static void worker(int slot, uint32_t incarnation)
{
	struct slot *s = &model->slots[slot];
	uint64_t dealt = 0;

	self = slot;
	rng_state = model->seed ^ (uint64_t)slot << 32 ^ (uint64_t)incarnation << 48;
	rng();
	setpgid(0, 0);
	process_setup();
	for (int i = 0; i < model->files; i++)
		open_handle(i, 0);
	for (;;) {
		uint64_t word = atomic_load(&model->phase);

		if (atomic_load(&model->failed))
			_exit(3);
		if ((word & 15) == PHASE_RUN) {
			worker_operation();
			continue;
		}
		if (word == dealt) {
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
			continue;
		}
		switch (word & 15) {
		case PHASE_VERIFY: worker_verify(); break;
		case PHASE_STORM: worker_storm(); break;
		case PHASE_EXIT:
			/* One half closes everything, the other just goes. */
			for (int i = 0; slot & 1 && i < MAPPINGS_MAX; i++)
				do_munmap(mappings[i].addr ? &mappings[i] : NULL);
			for (int i = 0; slot & 1 && i < model->files; i++)
				for (int j = 0; j < HANDLES_PER_FILE; j++)
					if (handles[i][j].open && api_close(&handles[i][j]))
						fail_at(i, UINT64_MAX, "close at the end failed");
			_exit(0);
		default: break;
		}
		dealt = word;
		atomic_store(&s->ack, word);
	}
}

/* ---- checkers ---- */

static void checker_read(struct handle *fh, uint64_t off, uint64_t len)
{
	struct iovec iov = { io_buf, len };
	ssize_t r = api_preadv(fh, &iov, 1, off);

	if (r != (ssize_t)len)
		fail_at(fh->file, off, "check: pread of %" PRIu64 " + %" PRIu64 " gave %zd", off, len, r);
}

/*
 * What a killed process left in the middle: each byte is as before or as it was to be, the size likewise. The model takes what there is.
 * Its locks are still held, so nobody else has been there since.
 */
static void check_settle(int slot)
{
	struct intent *i = &model->slots[slot].intent;
	struct model_file *f = &model->file[i->file];
	int kind = atomic_load(&i->kind), r;
	uint64_t size, end;
	struct handle fh;
	struct stat st;

	if (kind == OP_NONE)
		return;
	r = api_open(&fh, i->file, true);
	if (r)
		fail_at(i->file, UINT64_MAX, "settle: open gave %d", r);
	/* Changes of a file run in order of arrival: after this one, which changes nothing, the dead process's own is done. */
	r = api_fallocate(&fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1ull << 30, MODEL_PAGE);
	if (!r)
		r = api_fstat(&fh, &st);
	if (r)
		fail_at(i->file, UINT64_MAX, "settle: fallocate or fstat gave %d", r);
	size = (uint64_t)st.st_size;
	if (kind == OP_TRUNCATE || kind == OP_APPEND || kind == OP_PWRITE || kind == OP_FALLOCATE) {
		uint64_t low = i->old_size < i->new_size ? i->old_size : i->new_size, high = i->old_size ^ i->new_size ^ low;

		if (kind == OP_PWRITE || kind == OP_APPEND ? size < low || size > high : size != low && size != high)
			fail_at(i->file, size, "settle: process %d was killed in %s of file %d from size %" PRIu64 " to %" PRIu64 "; now it is %" PRIu64,
				slot, op_name(kind), i->file, i->old_size, i->new_size, size);
		model_resize(f, size);
	} else if (size != atomic_load(&f->size))
		fail_at(i->file, size, "settle: process %d was killed in %s; the size is %" PRIu64 ", not %" PRIu64, slot, op_name(kind), size,
			(uint64_t)atomic_load(&f->size));
	end = i->off + i->len < size ? i->off + i->len : size;
	for (uint64_t off = i->off; off < end; off += IO_MAX) {
		uint64_t n = end - off < IO_MAX ? end - off : IO_MAX;

		checker_read(&fh, off, n);
		for (uint64_t b = 0; b < n; b++) {
			uint8_t want = i->stamp ? stamp_byte(off + b, i->stamp) : 0;

			if (kind != OP_PWRITE_MAPPED && kind != OP_PREAD_MAPPED && io_buf[b] != f->bytes[off + b] && io_buf[b] != want)
				fail_at(i->file, off + b, "settle: process %d was killed in %s of %" PRIu64 " + %" PRIu64 "; byte %" PRIu64
					" is %02x, neither the old %02x nor the new %02x", slot, op_name(kind), i->off, i->len, off + b, io_buf[b],
					f->bytes[off + b], want);
		}
		memcpy(f->bytes + off, io_buf, n);
	}
	api_close(&fh);
	atomic_store(&i->kind, OP_NONE);
}

static void check_file(int file)
{
	struct model_file *f = &model->file[file];
	uint64_t size = atomic_load(&f->size);
	struct history *h = history_begin(OP_CHECK, file, 0, size, NULL);
	struct handle fh;
	struct model_sync covered;
	struct stat st;
	int r = api_open(&fh, file, true);

	if (r)
		fail_at(file, UINT64_MAX, "check: open gave %d", r);
	model_sync_begin(&covered, f, 0, f->cap);
	r = api_sync(&fh, false);
	if (r)
		fail_at(file, UINT64_MAX, "check: fsync gave %d", r);
	model_sync_done(&covered);
	if (api_fstat(&fh, &st) || (uint64_t)st.st_size != size)
		fail_at(file, size, "check: fstat says %lld bytes, not %" PRIu64, (long long)st.st_size, size);
	if (stat(f->path, &st) || (uint64_t)st.st_size != size)
		fail_at(file, size, "check: the store has %lld bytes after fsync, not %" PRIu64, (long long)st.st_size, size);
	store_compare(file, 0, size, "check: the store after fsync");
	for (uint64_t off = 0; off < size; off += IO_MAX) {
		uint64_t n = size - off < IO_MAX ? size - off : IO_MAX;

		checker_read(&fh, off, n);
		expect_bytes(file, off, io_buf, f->bytes + off, n, "check: pread", NULL);
	}
	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE && size; flags++) {
		uint8_t *p = api_mmap(&fh, size, PROT_READ, flags, 0);

		if (p == MAP_FAILED)
			fail_at(file, 0, "check: mmap: %s", strerror(errno));
		for (uint64_t off = 0; off < size; off += IO_MAX) {
			uint64_t n = size - off < IO_MAX ? size - off : IO_MAX;

			if (!access_copy(io_buf, p + off, n))
				fail_at(file, off, "check: SIGBUS inside the file");
			expect_bytes(file, off, io_buf, f->bytes + off, n, flags == MAP_SHARED ? "check: fresh shared mapping" :
				"check: fresh private mapping", p + off);
		}
		if (api_munmap(p, size, false))
			fail_at(file, 0, "check: munmap failed");
	}
	r = api_close(&fh);
	if (r)
		fail_at(file, UINT64_MAX, "check: close gave %d", r);
	history_end(h, 0);
}

static void check_all(int unused)
{
	(void)unused;
	for (int i = 0; i < model->files; i++)
		check_file(i);
}

/* Makes room for a storm: something to store to, and space for the appends. */
static void check_prepare_storm(int storm)
{
	int file = storm % model->files, other = (file + 1) % model->files;
	struct handle fh;

	for (int i = 0; i < 2; i++) {
		struct model_file *f = &model->file[i ? other : file];
		uint64_t size = atomic_load(&f->size), want = size;

		if (!i && size < f->cap / 4)
			want = f->cap / 2 + 1234;
		if (i && other != file && size + (uint64_t)model->procs * STORM_APPENDS * MODEL_PAGE / 8 > f->cap)
			want = 777;
		if (want == size)
			continue;
		model_touch(f);    /* before: the daemon may die in between, and then the store is looked at */
		if (api_open(&fh, i ? other : file, true) || api_ftruncate(&fh, want) || api_close(&fh))
			fail_at(i ? other : file, UINT64_MAX, "prepare: open, ftruncate or close failed");
		model_resize(f, want);
	}
}

/* After the daemon's end: what it wrote without being asked. */
static void check_store_only(int unused)
{
	(void)unused;
	for (int i = 0; i < model->files; i++) {
		struct model_file *f = &model->file[i];
		char path[STORE_PATH];
		struct stat st;

		store_path(f, path);
		if (stat(path, &st) || (uint64_t)st.st_size != atomic_load(&f->size))
			fail_at(i, UINT64_MAX, "at the end the store has %lld bytes, not %" PRIu64, (long long)st.st_size,
				(uint64_t)atomic_load(&f->size));
		store_compare(i, 0, (uint64_t)st.st_size, "the store at the end");
	}
}

/* ---- the supervisor ---- */

static struct timespec started;
static uint64_t watch_beat;
static double watch_since;

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)(t.tv_sec - started.tv_sec) + (double)(t.tv_nsec - started.tv_nsec) / 1e9;
}

static void nap(long ns)
{
	nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
}

static void print_proc(pid_t pid, const char *name)
{
	char path[64], text[1024];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n > 0)
		fprintf(stderr, "    %s: %.*s%s", name, (int)n, text, text[n - 1] == '\n' ? "" : "\n");
}

static void dump_state(void)
{
	fprintf(stderr, "state of each process:\n");
	for (int i = 0; i < MODEL_SLOTS_MAX; i++) {
		const struct slot *s = &model->slots[i];
		pid_t pid = atomic_load(&s->pid);
		int kind = atomic_load(&s->intent.kind);

		if (!pid)
			continue;
		fprintf(stderr, "  process %d (pid %d, incarnation %u) operation %" PRIu64 ", changing: %s\n", i, (int)pid, s->incarnation,
			(uint64_t)atomic_load(&s->opno), op_name(kind));
		if (kind)
			fprintf(stderr, "    file %d offset %" PRIu64 " length %" PRIu64 " size %" PRIu64 " -> %" PRIu64 "\n", s->intent.file,
				s->intent.off, s->intent.len, s->intent.old_size, s->intent.new_size);
		print_proc(pid, "wchan");
		print_proc(pid, "syscall");
		print_proc(pid, "stack");
	}
}

static void kill_all(void)
{
	for (int i = 0; i < MODEL_SLOTS_MAX; i++) {
		pid_t pid = atomic_exchange(&model->slots[i].pid, 0);

		if (pid > 0)
			kill(i < MODEL_PROCS_MAX ? -pid : pid, SIGKILL);
	}
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static void print_tail(const char *path, long max)
{
	FILE *f = fopen(path, "re");
	int c;

	if (!f)
		return;
	fseek(f, 0, SEEK_END);
	fseek(f, ftell(f) > max ? -max : -ftell(f), SEEK_END);
	fprintf(stderr, "end of %s:\n", path);
	while ((c = getc(f)) != EOF)
		putc(c, stderr);
	fclose(f);
}

static void give_up(void) __attribute__((noreturn));
static void give_up(void)
{
	char log[300];

	snprintf(log, sizeof(log), "%s/daemon.log", work_dir);

	dump_state();              /* while they are where they are */
	nap(200000000);            /* the others notice and stop; what they did last is in the history */
	history_dump();
	kill_all();
	if (daemon_pid > 0) {
		int status;

		if (waitpid(daemon_pid, &status, WNOHANG) == daemon_pid)
			fprintf(stderr, "the daemon had ended by itself, status %#x\n", (unsigned)status);
		kill(daemon_pid, SIGABRT);  /* a sanitizer or a core may tell more; then it is gone in any case */
		nap(300000000);
		kill(daemon_pid, SIGKILL);
		waitpid(daemon_pid, NULL, 0);
		print_tail(log, 6000);
	}
	if (options.kills) {
		crash_tell_deaths(stderr);
		crash_kill();
		print_tail(log, 6000);
	}
	fprintf(stderr, "seed %" PRIu64 ", files kept in %s\n", model->seed, work_dir);
	exit(1);
}

static void supervisor_fail(const char *what, int slot, int status)
{
	/* Whoever waits for a lock ends when it sees `failed`: so that is set after they were looked at. */
	if (!atomic_load(&model->failed)) {
		fprintf(stderr, "\nFAILED: seed %" PRIu64 ": %s (process %d, status %#x)\n", model->seed, what, slot, (unsigned)status);
		dump_state();
		atomic_store(&model->failed, 100);
	}
	give_up();
}

static void spawn_worker(int slot)
{
	struct slot *s = &model->slots[slot];
	pid_t pid;

	s->incarnation++;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		worker(slot, s->incarnation);
	if (pid < 0)
		supervisor_fail("fork failed", slot, errno);
	setpgid(pid, pid);
	atomic_store(&s->pid, pid);
	inject_switch(true);
}

/* No progress for a minute, a failure or a process that ended by itself: the end. */
static void watch(void)
{
	uint64_t beat = atomic_load(&model->beat);
	int status;
	pid_t pid;

	if (atomic_load(&model->failed))
		give_up();
	if (beat != watch_beat) {
		watch_beat = beat;
		watch_since = seconds();
	} else if (seconds() - watch_since > STALL_SECONDS)
		supervisor_fail("no progress for a minute", -1, 0);
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == daemon_pid || (options.kills && pid == crash_keeper()))
			supervisor_fail("the daemon has ended", -1, status);
		for (int i = 0; i < model->procs; i++)
			if (atomic_load(&model->slots[i].pid) == pid)
				supervisor_fail("a process has ended", i, status);
	}
}

static void check_run(void (*fn)(int), int arg)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		self = MODEL_SLOTS_MAX - 1;
		process_setup();
		fn(arg);
		_exit(0);
	}
	atomic_store(&model->slots[MODEL_SLOTS_MAX - 1].pid, pid);
	while (waitpid(pid, &status, WNOHANG) != pid) {
		uint64_t beat = atomic_load(&model->beat);

		if (beat != watch_beat) {
			watch_beat = beat;
			watch_since = seconds();
		} else if (seconds() - watch_since > STALL_SECONDS)
			supervisor_fail("a check makes no progress", -1, 0);
		if (options.kills)
			crash_poll(false);
		nap(500000);
	}
	atomic_store(&model->slots[MODEL_SLOTS_MAX - 1].pid, 0);
	if (status || atomic_load(&model->failed))
		supervisor_fail("a check ended badly", -1, status);
}

static void wait_stopped(pid_t pid)
{
	char path[64], text[256];
	double end = seconds() + 2;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	while (seconds() < end) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
		const char *state;

		if (fd >= 0)
			close(fd);
		if (n <= 0)
			return;
		text[n] = '\0';
		state = strrchr(text, ')');
		if (!state || state[2] == 'T' || state[2] == 'Z')
			return;
		nap(200000);
	}
}

/* Duplicates of a stopped process's sockets. */
static size_t sockets_take(pid_t pid, int *fds, size_t max)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	char path[64], link[64];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (pidfd >= 0 && d && n < max && (e = readdir(d))) {
		ssize_t len = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		if (len < 8 || memcmp(link, "socket:", 7))
			continue;
		fds[n] = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
		if (fds[n] >= 0)
			n++;
	}
	if (d)
		closedir(d);
	if (pidfd >= 0)
		close(pidfd);
	return n;
}

static bool in_request(int slot)
{
	int kind = atomic_load(&model->slots[slot].intent.kind);

	return kind != OP_NONE && kind != OP_STORE && kind != OP_SYSCALL_STORE && kind != OP_PREAD_MAPPED;
}

/*
 * SIGKILL in the middle of whatever it does. A request that the process has sent may still run in the daemon: then the supervisor keeps the
 * sockets, says that no more will come, and waits for the daemon to hang up; what was sent has arrived by then.
 */
static void do_kill_worker(int slot)
{
	pid_t pid = atomic_load(&model->slots[slot].pid), child;
	int child_slot = MODEL_PROCS_MAX + slot, fds[128], slots[2] = { slot, child_slot };
	size_t n = 0;

	inject_switch(false);
	kill(-pid, SIGSTOP);
	wait_stopped(pid);
	child = atomic_load(&model->slots[child_slot].pid);
	if (child)
		wait_stopped(child);
	if ((!options.kernel || options.preload) && (in_request(slot) || in_request(child_slot))) {
		n = sockets_take(pid, fds, ELEMS(fds));
		if (child)
			n += sockets_take(child, fds + n, ELEMS(fds) - n);
	}
	kill(-pid, SIGKILL);
	waitpid(pid, NULL, 0);     /* first the leader: then its children are ours */
	while (waitpid(-pid, NULL, 0) > 0)
		;
	for (size_t i = 0; i < n; i++) {
		struct pollfd p = { .fd = fds[i] };

		shutdown(fds[i], SHUT_WR);
		if (poll(&p, 1, 20000) <= 0)
			supervisor_fail("the daemon does not hang up on a dead process", slot, 0);
		close(fds[i]);
	}
	for (int i = 0; i < 2; i++) {
		atomic_store(&model->slots[slots[i]].pid, 0);
		if (atomic_load(&model->slots[slots[i]].intent.kind) != OP_NONE)
			check_run(check_settle, slots[i]);
		model_unlock_dead(slots[i]);
	}
	spawn_worker(slot);
}

static void phase_set(enum phase phase)
{
	static uint64_t generation;
	uint64_t word = ++generation << 4 | (uint64_t)phase;

	inject_switch(phase == PHASE_RUN);
	atomic_store(&model->phase, word);
	if (phase == PHASE_RUN)
		return;
	for (int i = 0; i < model->procs; i++)
		while (phase != PHASE_EXIT && atomic_load(&model->slots[i].ack) != word) {
			watch();
			if (options.kills)
				crash_poll(false);
			nap(300000);
		}
}

/* All at rest: compare everything; then a storm; compare again. */
static void epoch_end(int epoch)
{
	phase_set(PHASE_PAUSE);
	check_run(check_all, 0);
	phase_set(PHASE_VERIFY);
	check_run(check_prepare_storm, epoch);
	atomic_store(&model->storm, (uint64_t)epoch);
	phase_set(PHASE_STORM);
	check_run(check_all, 0);
	phase_set(PHASE_VERIFY);
}

static void progress(int epoch, bool last)
{
	uint64_t ops = atomic_load(&model->ops);

	if (options.quiet || (!isatty(2) && !last))
		return;
	fprintf(stderr, "epoch %d: %" PRIu64 " operations, %.1f s, %.0f a second\n", epoch, ops, seconds(), (double)ops / seconds());
}

static void finish(void)
{
	phase_set(PHASE_EXIT);
	for (int i = 0; i < model->procs; i++) {
		pid_t pid = atomic_load(&model->slots[i].pid);
		int status;

		while (waitpid(pid, &status, WNOHANG) == 0) {
			if (atomic_load(&model->failed))
				give_up();
			if (seconds() - watch_since > 2 * STALL_SECONDS)
				supervisor_fail("a process does not end", i, 0);
			nap(1000000);
		}
		atomic_store(&model->slots[i].pid, 0);
		if (status)
			supervisor_fail("a process ended badly", i, status);
	}
}

/* ---- the daemon ---- */

/* False: it does not answer. */
static bool daemon_status(struct pgc_ctl_status_reply *ret)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct pgc_msg m = { .type = PGC_MSG_HELLO, .tag = 1,
		.hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL } };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool ok;

	memcpy(a.sun_path, socket_path, strnlen(socket_path, sizeof(a.sun_path) - 1));
	ok = !connect(fd, (struct sockaddr *)&a, sizeof(a)) && send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m) &&
		recv(fd, &m, sizeof(m), 0) == sizeof(m) && m.status == 0;
	m = (struct pgc_msg){ .type = PGC_CTL_STATUS, .tag = 2 };
	ok = ok && send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m) && recv(fd, &m, sizeof(m), 0) == sizeof(m) && m.status == 0;
	close(fd);
	if (ok)
		*ret = m.ctl_status_reply;
	return ok;
}

/* The daemon's state against what it stands for, by "pagecachectl check" ($PAGECACHECTL_BIN; without it nobody looks). */
static void state_check(void)
{
	const char *ctl = getenv("PAGECACHECTL_BIN");
	int status = 0;
	pid_t pid;

	if (options.kernel && !options.preload)
		return;
	if (!ctl || options.socket)
		return;
	pid = fork();
	if (pid == 0) {
		unsetenv("LD_PRELOAD");
		dup2(2, 1);
		execl(ctl, ctl, "--socket", socket_path, "check", "--content", "--rate", "0", NULL);
		_exit(127);
	}
	for (int i = 0; waitpid(pid, &status, WNOHANG) == 0; i++) {
		if (i > 12000)
			supervisor_fail("pagecachectl check does not end", -1, 0);
		nap(5000000);
	}
	if (status)
		supervisor_fail("pagecachectl check found something", -1, status);
}

static void crash_fail(const char *what) { supervisor_fail(what, -1, 0); }
static void crash_pause(void) { nap(500000); }

static bool crash_answers(void)
{
	struct pgc_ctl_status_reply unused;

	return daemon_status(&unused);
}

/* Every byte of every file as a new handle reads it, and of every mapping. Nothing is synced: what is dirty is to stay dirty over many deaths. */
static void check_bytes(int unused)
{
	(void)unused;
	for (int i = 0; i < model->files; i++) {
		struct model_file *f = &model->file[i];
		uint64_t size = atomic_load(&f->size);
		struct history *h = history_begin(OP_CHECK, i, 0, size, NULL);
		struct handle fh;
		struct stat st;

		int r = api_open(&fh, i, false);

		if (r)
			fail_at(i, UINT64_MAX, "after a death: open gave %d", r);
		if (api_fstat(&fh, &st) || (uint64_t)st.st_size != size)
			fail_at(i, size, "after a death: fstat says %lld bytes, not %" PRIu64, (long long)st.st_size, size);
		for (uint64_t off = 0; off < size; off += IO_MAX) {
			uint64_t n = size - off < IO_MAX ? size - off : IO_MAX;

			checker_read(&fh, off, n);
			expect_bytes(i, off, io_buf, f->bytes + off, n, "after a death: pread", NULL);
		}
		if (api_close(&fh))
			fail_at(i, UINT64_MAX, "after a death: close failed");
		history_end(h, 0);
	}
}

static void crash_check(void)
{
	phase_set(PHASE_PAUSE);
	check_run(check_bytes, 0);
	phase_set(PHASE_VERIFY);
	phase_set(PHASE_RUN);
}

static void keeper_run(const char *config, const char *state, const char *log)
{
	static const char *argv[12];
	static struct crash c;
	size_t n = 0;

	argv[n++] = options.daemon;
	argv[n++] = "--keep";
	argv[n++] = "--config";
	argv[n++] = strdup(config);
	argv[n++] = "--socket";
	argv[n++] = socket_path;
	argv[n++] = "--state-dir";
	argv[n++] = strdup(state);
	argv[n++] = "--bpffs";
	argv[n++] = "none";
	c = (struct crash){
		.kills = options.kills, .every_ms = options.kill_every, .total = options.kill_total, .points = options.kill_points,
		.seed = options.seed, .program = options.daemon, .argv = argv, .dir = work_dir, .log = strdup(log),
		.fail = crash_fail, .answers = crash_answers, .check = crash_check, .pause = crash_pause,
	};
	crash_begin(&c);
}

static void daemon_run(void)
{
	const char *tracking = getenv("PGC_TEST_TRACKING"); /* as in harness.h */
	char config[300], log[300], state[300];
	struct pgc_ctl_status_reply unused;
	int status;
	FILE *f;

	snprintf(config, sizeof(config), "%s/pagecached.conf", work_dir);
	snprintf(log, sizeof(log), "%s/daemon.log", work_dir);
	snprintf(state, sizeof(state), "%s/state", work_dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", work_dir);
	if (options.inject && inject_prepare(work_dir, options.inject, options.seed)) {
		fprintf(stderr, "exerciser: the file for failures cannot be written: %s\n", strerror(errno));
		exit(2);
	}
	f = fopen(config, "we");
	/* Written out soon and all the time; several workers; no pins, as several of these may run at once. */
	if (!f || mkdir(state, 0700) || fprintf(f, "[daemon]\ndirty_expire = 200ms\nworkers = 3\nmemory_max = %" PRIu64 "M\n", options.memory) < 0 ||
	    (tracking && fprintf(f, "write_tracking = %s\n", tracking) < 0) ||
	    (getenv("PGC_TEST_LANES") && fprintf(f, "lanes = %s\ntest_stores = yes\n", getenv("PGC_TEST_LANES")) < 0) || fclose(f)) {
		fprintf(stderr, "exerciser: %s: %s\n", config, strerror(errno));
		exit(2);
	}
	if (options.kills) {
		keeper_run(config, state, log);
		return;
	}
	daemon_pid = fork();
	if (daemon_pid == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
			_exit(126);
		execl(options.daemon, options.daemon, "--config", config, "--socket", socket_path, "--state-dir", state, "--bpffs", "none", NULL);
		dprintf(2, "exerciser: %s: %s\n", options.daemon, strerror(errno));
		_exit(127);
	}
	for (int i = 0; !daemon_status(&unused); i++) {
		if (waitpid(daemon_pid, &status, WNOHANG) || i > 4000) {
			print_tail(log, 6000);
			fprintf(stderr, "exerciser: the daemon %s did not start; files kept in %s\n", options.daemon, work_dir);
			kill(daemon_pid, SIGKILL);
			exit(2);
		}
		nap(5000000);
	}
}

/* What a daemon says when it ends in a way that nobody asked for. */
static void log_check(void)
{
	static const char *const reports[] = { "Sanitizer", "runtime error:", "Assertion" };
	char log[300], line[1024];
	bool injected = false;
	FILE *f;

	snprintf(log, sizeof(log), "%s/daemon.log", work_dir);
	f = fopen(log, "re");
	while (f && fgets(line, sizeof(line), f)) {
		const char *what = strstr(line, "injected (");

		if (what)
			fprintf(stderr, "exerciser: %s", what);
		injected |= what != NULL;
		for (size_t i = 0; i < ELEMS(reports); i++)
			if (strstr(line, reports[i]))
				supervisor_fail("the daemon's log has a report of a mistake", -1, 0);
	}
	if (f)
		fclose(f);
	if (options.inject && !injected)
		supervisor_fail("failures are wanted, but this daemon has none (-Dfailure_injection=true)", -1, 0);
}

static void keeper_end(void)
{
	struct crash_counts n;
	int status;

	crash_end(&n);
	status = crash_stop();
	if (status)
		supervisor_fail("the keeper does not end, or ended badly", -1, status);
	log_check();
	fprintf(stderr, "exerciser: the daemon died %u times: %u at kill points (%u of %u names), %u with its keeper, %u right after the one before; "
		"then a daemon answered after %u ms (median), %u ms at most\n"
		"exerciser: %" PRIu64 " MiB compared with the model, %" PRIu64 " MiB that were synced found in the store while there was no daemon\n",
		n.deaths, n.at_points, n.points_hit, n.points_known, n.total, n.double_deaths, n.pause_median_ms, n.pause_max_ms,
		(uint64_t)atomic_load(&model->compared) >> 20, n.synced_bytes >> 20);
	if (n.at_points > 0) {
		fprintf(stderr, "exerciser: at kill points:");
		crash_tell_points(stderr);
	}
}

static void daemon_end(void)
{
	struct pgc_ctl_status_reply s;
	int status = 0;

	if (!daemon_status(&s))
		supervisor_fail("the daemon does not answer", -1, 0);
	fprintf(stderr, "exerciser: the daemon answered %" PRIu64 " faults, filled %" PRIu64 " times, wrote out %" PRIu64 " times\n", s.faults,
		s.fills, s.writeouts);
	if (!s.faults || !s.fills || !s.writeouts)
		supervisor_fail("the daemon had nothing to do", -1, 0);
	kill(daemon_pid, SIGTERM);
	for (int i = 0; waitpid(daemon_pid, &status, WNOHANG) == 0; i++) {
		if (i > 6000)
			supervisor_fail("the daemon does not end on SIGTERM", -1, 0);
		nap(5000000);
	}
	daemon_pid = 0;
	if (status)
		supervisor_fail("the daemon ended badly", -1, status);
	log_check();
}

static void remove_files(void)
{
	static const char *const names[] = { "daemon.log", "kill-point", "plain", "library.so", "pagecached.conf", "socket", "socket.lock" };
	char path[600];

	for (int i = 0; i < model->files; i++)
		unlink(model->file[i].path);
	for (size_t i = 0; i < ELEMS(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", work_dir, names[i]);
		unlink(path);
	}
	inject_remove();
	snprintf(path, sizeof(path), "rm -rf '%s/state'", work_dir);
	if (system(path) || rmdir(work_dir))
		fprintf(stderr, "exerciser: %s is left\n", work_dir);
}

static void work_dir_make(void)
{
	const char *tmp = options.dir ? options.dir : getenv("TMPDIR");

	snprintf(work_dir, sizeof(work_dir), "%s/pagecached-exerciser-XXXXXX", tmp && *tmp == '/' ? tmp : "/var/tmp");
	if (!mkdtemp(work_dir)) {
		fprintf(stderr, "exerciser: %s: %s\n", work_dir, strerror(errno));
		exit(2);
	}
}

static void files_make(void)
{
	self = MODEL_SLOTS_MAX - 1;
	rng_state = model->seed;
	for (int i = 0; i < model->files; i++) {
		struct model_file *f = &model->file[i];
		uint64_t size = rng_below(f->cap + 1);
		int fd;

		snprintf(f->path, sizeof(f->path), "%s/file%d", work_dir, i);
		fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		stamp_fill(f->bytes, 0, size, stamp_new());
		if (fd < 0 || pwrite(fd, f->bytes, size, 0) != (ssize_t)size || fsync(fd)) {
			fprintf(stderr, "exerciser: %s: %s\n", f->path, strerror(errno));
			exit(2);
		}
		close(fd);
		atomic_store(&f->size, size);
	}
}

/*
 * Starts the daemon and becomes this program once more, under the library, with the daemon as its child. The second time it only looks up what
 * the first has made.
 */
static void preload_begin(char **argv)
{
	const char *dir = getenv("EXERCISER_DIR"), *pid = getenv("EXERCISER_DAEMON");
	char text[400];

	if (dir && pid) {
		snprintf(work_dir, sizeof(work_dir), "%s", dir);
		snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
		daemon_pid = (pid_t)atoi(pid);
		return;
	}
	work_dir_make();
	snprintf(text, sizeof(text), "%s/plain", work_dir);
	if (symlink(".", text)) {
		fprintf(stderr, "exerciser: %s: %s\n", text, strerror(errno));
		exit(2);
	}
	daemon_run();
	snprintf(text, sizeof(text), "%d", (int)daemon_pid);
	setenv("EXERCISER_DIR", work_dir, 1);
	setenv("EXERCISER_DAEMON", text, 1);
	snprintf(text, sizeof(text), "%s/file*", work_dir);
	setenv("PAGECACHED_PATHS", text, 1);
	setenv("PAGECACHED_SOCKET", socket_path, 1);
	/* The loader takes LD_PRELOAD apart at spaces and colons. */
	snprintf(text, sizeof(text), "%s/library.so", work_dir);
	if (symlink(options.library, text)) {
		fprintf(stderr, "exerciser: %s: %s\n", text, strerror(errno));
		exit(2);
	}
	setenv("LD_PRELOAD", text, 1);
	execv("/proc/self/exe", argv);
	fprintf(stderr, "exerciser: cannot run itself: %s\n", strerror(errno));
	exit(2);
}

/* Else it would be the kernel that is tested. */
static void preload_check(void)
{
	char link[64], target[64] = "";
	int fd = open(model->file[0].path, O_RDONLY | O_CLOEXEC);

	/* What the kernel says, by a name that the library does not know. */
	snprintf(link, sizeof(link), "/proc/thread-self/root/proc/self/fd/%d", fd);
	if (readlink(link, target, sizeof(target) - 1) < 0 || !strstr(target, "memfd:pagecached-file")) {
		fprintf(stderr, "exerciser: %s is not a file of the preload library\n", model->file[0].path);
		exit(2);
	}
	close(fd);
}

/* Sets the weights of the named operations to 0, or of all others. */
static void weights_select(const char *list, bool only)
{
	bool named[OP_COUNT] = { false };

	while (*list) {
		size_t n = strcspn(list, ",");
		int op = op_by_name(list, n);

		if (op < 0) {
			fprintf(stderr, "exerciser: no operation \"%.*s\"\n", (int)n, list);
			exit(2);
		}
		named[op] = true;
		list += n + (list[n] == ',');
	}
	for (size_t i = 0; i < ELEMS(weights); i++)
		if (named[weights[i].op] != only)
			weights[i].weight = 0;
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: exerciser [OPTION]...\n"
		"Random operations of several processes on a few files, against a model.\n\n"
		"  --seed S           the same operations again (default: random, printed)\n"
		"  --ops N            operations over all processes (default 1000000)\n"
		"  --procs P          processes, 1 to %d (default 6)\n"
		"  --files F          files, 1 to %d (default 4)\n"
		"  --duration SEC     end after this time even so\n"
		"  --memory MIB       memory_max of the daemon that is started (default 1024)\n"
		"  --kills N          the daemon is killed so often; then no --ops limits the run\n"
		"  --kill-every MS    on average (default 150)\n"
		"  --kill-total P     of 100 kills: its keeper, too; --kill-points P: at a kill point of a test build\n"
		"  --inject WHAT      this fails in the daemon, a test build: as $PGC_INJECT\n"
		"  --epoch N          operations between full comparisons (default 50000)\n"
		"  --without LIST     leave these operations out; --only LIST: do only these\n"
		"  --backend B        pagecached (default), kernel: the same on plain files, or preload: on plain files under the preload library\n"
		"  --library PATH     the preload library (default $PAGECACHED_PRELOAD)\n"
		"  --daemon PATH      start this daemon (default $PAGECACHED_BIN)\n"
		"  --socket PATH      use a running one instead\n"
		"  --dir DIR          files go here (default $TMPDIR or /var/tmp)\n"
		"  --keep             keep the files in any case; --quiet: no progress\n"
		"Operations:", MODEL_PROCS_MAX - 1, MODEL_FILES_MAX);
	for (size_t i = 0; i < ELEMS(weights); i++)
		fprintf(out, " %s", op_name(weights[i].op));
	fputc('\n', out);
}

static uint64_t number(const char *name, const char *text, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || *end || end == text || v < min || v > max) {
		fprintf(stderr, "exerciser: --%s %s: a number from %" PRIu64 " to %" PRIu64 " is wanted\n", name, text, min, max);
		exit(2);
	}
	return v;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' }, { "ops", 1, NULL, 'o' }, { "procs", 1, NULL, 'p' }, { "files", 1, NULL, 'f' },
		{ "duration", 1, NULL, 't' }, { "epoch", 1, NULL, 'e' }, { "memory", 1, NULL, 'm' }, { "without", 1, NULL, 'w' }, { "only", 1, NULL, 'y' },
		{ "backend", 1, NULL, 'b' }, { "daemon", 1, NULL, 'd' }, { "socket", 1, NULL, 'S' }, { "dir", 1, NULL, 'D' },
		{ "kills", 1, NULL, 'K' }, { "kill-every", 1, NULL, 'E' }, { "kill-total", 1, NULL, 'T' }, { "kill-points", 1, NULL, 'P' },
		{ "library", 1, NULL, 'l' }, { "inject", 1, NULL, 'i' }, { "keep", 0, NULL, 'k' }, { "quiet", 0, NULL, 'q' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	int c;

	if (getrandom(&options.seed, sizeof(options.seed), 0) != sizeof(options.seed))
		options.seed = (uint64_t)time(NULL);
	options.seed >>= 32;
	options.daemon = getenv("PAGECACHED_BIN");
	options.library = getenv("PAGECACHED_PRELOAD");
	options.kernel_faults = geteuid() == 0;
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 's': options.seed = number("seed", optarg, 0, UINT64_MAX); break;
		case 'o': options.ops = number("ops", optarg, 1, UINT64_MAX); break;
		case 'p': options.procs = (int)number("procs", optarg, 1, MODEL_PROCS_MAX - 1); break;
		case 'f': options.files = (int)number("files", optarg, 1, MODEL_FILES_MAX); break;
		case 't': options.duration = (unsigned)number("duration", optarg, 1, 1000000); break;
		case 'm': options.memory = number("memory", optarg, 1, 1 << 20); break;
		case 'K': options.kills = (unsigned)number("kills", optarg, 1, 100000); break;
		case 'E': options.kill_every = (unsigned)number("kill-every", optarg, 1, 100000); break;
		case 'T': options.kill_total = (unsigned)number("kill-total", optarg, 0, 100); break;
		case 'P': options.kill_points = (unsigned)number("kill-points", optarg, 0, 100); break;
		case 'e': options.epoch = number("epoch", optarg, 1, UINT64_MAX); break;
		case 'w': weights_select(optarg, false); break;
		case 'y': weights_select(optarg, true); break;
		case 'd': options.daemon = optarg; break;
		case 'S': options.socket = optarg; break;
		case 'D': options.dir = optarg; break;
		case 'i': options.inject = optarg; break;
		case 'l': options.library = optarg; break;
		case 'k': options.keep_files = true; break;
		case 'q': options.quiet = true; break;
		case 'b':
			if (strcmp(optarg, "kernel") && strcmp(optarg, "pagecached") && strcmp(optarg, "preload")) {
				fprintf(stderr, "exerciser: --backend %s: pagecached, kernel or preload\n", optarg);
				exit(2);
			}
			options.preload = !strcmp(optarg, "preload");
			options.kernel = options.preload || !strcmp(optarg, "kernel");
			break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	if (optind < argc || (!options.kernel && !options.daemon && !options.socket)) {
		fprintf(stderr, "exerciser: %s\n", optind < argc ? "no arguments are wanted" : "--daemon or --socket is wanted");
		exit(2);
	}
	if (options.preload && (!options.daemon || !options.library || options.socket)) {
		fprintf(stderr, "exerciser: --backend preload wants --daemon and --library\n");
		exit(2);
	}
	if (options.kills && (options.kernel || options.socket)) {
		fprintf(stderr, "exerciser: --kills wants a daemon that is started here, and the backend pagecached\n");
		exit(2);
	}
	if (options.inject && (options.kernel || options.socket)) {
		fprintf(stderr, "exerciser: --inject wants a daemon that is started here, and the backend pagecached\n");
		exit(2);
	}
	if (options.kills)
		options.ops = UINT64_MAX / 2;
	if (!options.kernel_faults)
		for (size_t i = 0; i < ELEMS(weights); i++)
			if (weights[i].op == OP_SYSCALL_LOAD || weights[i].op == OP_SYSCALL_STORE)
				weights[i].weight = 0;
	for (size_t i = 0; i < ELEMS(weights); i++)
		weight_sum += weights[i].weight;
	if (!weight_sum) {
		fprintf(stderr, "exerciser: no operation is left\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	int epoch = 0;

	parse(argc, argv);
	clock_gettime(CLOCK_MONOTONIC, &started);
	if (options.preload)
		preload_begin(argv);
	else
		work_dir_make();
	fprintf(stderr, "exerciser: --seed %" PRIu64 " --ops %" PRIu64 " --procs %d --files %d --epoch %" PRIu64 "%s\n", options.seed, options.ops,
		options.procs, options.files, options.epoch, options.preload ? " --backend preload" : options.kernel ? " --backend kernel" : "");
	if (model_new(options.seed, options.procs, options.files)) {
		fprintf(stderr, "exerciser: no memory for the model\n");
		return 2;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	files_make();
	if (options.preload)
		preload_check();
	else if (options.socket)
		snprintf(socket_path, sizeof(socket_path), "%s", options.socket);
	else if (!options.kernel)
		daemon_run();
	setenv("PAGECACHED_SOCKET", socket_path, 1);
	for (int i = 0; i < options.procs; i++)
		spawn_worker(i);
	for (;;) {
		uint64_t ops = atomic_load(&model->ops);
		bool late = options.duration && seconds() > options.duration;
		int victim;

		watch();
		late |= options.kills && crash_poll(true);
		if (ops >= options.ops || late || ops >= (uint64_t)(epoch + 1) * options.epoch) {
			epoch_end(epoch);
			atomic_store(&model->kill_request, 0);
			progress(++epoch, ops >= options.ops || late);
			if (ops >= options.ops || late) {
				state_check();
				break;
			}
			phase_set(PHASE_RUN);
		}
		victim = atomic_exchange(&model->kill_request, 0);
		if (victim)
			do_kill_worker(victim - 1);
		nap(1000000);
	}
	/* Once more without a check, so that something is left for the end to write. */
	{
		uint64_t until = atomic_load(&model->ops) + (options.kills ? 1000 : options.ops / 100) + 100;

		phase_set(PHASE_RUN);
		while (atomic_load(&model->ops) < until) {
			watch();
			nap(1000000);
		}
	}
	phase_set(PHASE_PAUSE);
	finish();
	if (options.kills)
		keeper_end();
	if (daemon_pid > 0)
		daemon_end();
	if (!options.socket)
		check_run(check_store_only, 0);
	fprintf(stderr, "exerciser: %" PRIu64 " operations in %.1f s without a difference:", (uint64_t)atomic_load(&model->ops), seconds());
	for (int i = 1; i < OP_COUNT; i++)
		if (atomic_load(&model->count[i]))
			fprintf(stderr, " %s %" PRIu64, op_name(i), (uint64_t)atomic_load(&model->count[i]));
	fputc('\n', stderr);
	if (options.keep_files)
		fprintf(stderr, "exerciser: files kept in %s\n", work_dir);
	else
		remove_files();
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handle: open, close, size, sync.
 *
 * Lifetime of a struct pgc_file:
 *
 *   opening   in lib.files so that a forked child finds and closes its descriptors; one thread uses it
 *   open      handed out
 *   stale     in a forked child, no connection yet; the first request makes one (orthogonal to open and closed)
 *   closed    pgc_close() was called and mappings are left: socket and userfaultfd stay, since the last descriptor
 *             of a userfaultfd must not close while a range is registered with it (faults would read zeros). The
 *             daemon hangs up when the last mapping goes, /proc/self/maps confirms it, file_reap() frees
 *
 * Descriptors of the file itself are kept to the end of the handle, because closing any of them drops the POSIX record
 * locks that the process holds on it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>

#include "libclient/internal.h"
#include "version.h"

struct fd_hooks fd_hooks;

struct lib lib = { .lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER };

int fd_keep(int fd)
{
	int moved;

	if (fd < 0 || !fd_hooks.made)
		return fd;
	/* Where there is no number left from `base` on, the one it has must do. */
	moved = fd >= fd_hooks.base ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, fd_hooks.base);
	if (moved >= 0)
		close_fd(&fd);
	else
		moved = fd;
	fd_hooks.made(moved);
	return moved;
}

#define RETRY_MIN_MS 10
#define RETRY_MAX_MS 500
#define OPEN_PATIENCE_MS 30000 /* for daemons that die while they open; several may, one after the other */

int file_wait(struct waiting *w, unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 }, NULL);
	if (fd_hooks.signals && fd_hooks.signals(true) < 0)
		w->interrupted = true;
	return w->interrupted && clock_ms() - w->since >= INTERRUPT_MS ? -EINTR : 0;
}

void file_not_waited(struct waiting *w, uint64_t from)
{
	w->since += clock_ms() - from;
}

static void file_link(struct pgc_file *f)
{
	pthread_mutex_lock(&lib.lock);
	f->next = lib.files;
	f->prev = &lib.files;
	if (f->next)
		f->next->prev = &f->next;
	lib.files = f;
	pthread_mutex_unlock(&lib.lock);
}

static void file_unlink(struct pgc_file *f)
{
	*f->prev = f->next;
	if (f->next)
		f->next->prev = f->prev;
}

static void file_init_locks(struct pgc_file *f)
{
	pthread_mutex_init(&f->connect_lock, NULL);
	pthread_mutex_init(&f->window_lock, NULL);
	pthread_mutex_init(&f->xfer_lock, NULL);
	pthread_cond_init(&f->xfer_free, NULL);
}

static struct pgc_file *file_new(int accmode, int sync_flags)
{
	struct pgc_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	conn_init(&f->conn);
	file_init_locks(f);
	f->accmode = accmode;
	f->sync_flags = sync_flags;
	f->buffered = f->direct = f->memfd = f->uffd = f->xfer_fd = f->next_fd = f->slots_fd = -1;
	f->opening = f->stale = true;
	file_link(f);
	return f;
}

void file_destroy(struct pgc_file *f)
{
	window_end(f);
	if (f->slots)
		munmap(f->slots, PGC_PAGE_SIZE);
	close_fd(&f->slots_fd);
	/* The watcher may be polling it, and would keep it open. A forked child has closed what is its parent's. */
	if (f->conn.fd >= 0)
		(void)shutdown(f->conn.fd, SHUT_RDWR);
	conn_destroy(&f->conn);
	close_fd(&f->uffd);
	close_fd(&f->memfd);
	close_fd(&f->xfer_fd);
	close_fd(&f->direct);
	close_fd(&f->buffered);
	if (f->control)
		munmap((void *)f->control, PGC_PAGE_SIZE);
	if (f->life)
		munmap((void *)f->life, PGC_PAGE_SIZE);
	pthread_mutex_destroy(&f->connect_lock);
	pthread_mutex_destroy(&f->window_lock);
	pthread_mutex_destroy(&f->xfer_lock);
	pthread_cond_destroy(&f->xfer_free);
	free(f);
}

static void file_abandon(struct pgc_file *f)
{
	pthread_mutex_lock(&lib.lock);
	file_unlink(f);
	pthread_mutex_unlock(&lib.lock);
	file_destroy(f);
}

/* Socket and userfaultfd are made under lib.lock, so that a child forked meanwhile finds them in the handle. */
static int file_make_socket(struct pgc_file *f)
{
	int fd;

	pthread_mutex_lock(&lib.lock);
	fd = conn_socket();
	f->conn.fd = MAX(fd, -1);
	pthread_mutex_unlock(&lib.lock);
	return MIN(fd, 0);
}

static int file_make_uffd(struct pgc_file *f, int dev, bool *ret_kernel)
{
	int fd = -1, r = 0;

	pthread_mutex_lock(&lib.lock);
	if (dev >= 0)
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	*ret_kernel = fd >= 0;
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd < 0)
		r = -errno;
	f->uffd = fd_keep(fd);
	pthread_mutex_unlock(&lib.lock);
	return r;
}

static void file_disconnect(struct pgc_file *f)
{
	pthread_mutex_lock(&lib.lock);
	close_fd(&f->conn.fd);
	close_fd(&f->uffd);
	pthread_mutex_unlock(&lib.lock);
	conn_destroy(&f->conn);
	conn_init(&f->conn);
}

static int file_map_control(struct pgc_file *f, int fd)
{
	/* Before any of it is read: what tells of the end of another daemon does not count for it. */
	__atomic_add_fetch(&f->controls, 1, __ATOMIC_SEQ_CST);
	/* In a forked child the new page takes the place of the inherited one at once, whoever reads it. */
	void *p = mmap((void *)f->control, PGC_PAGE_SIZE, PROT_READ, MAP_SHARED | (f->control ? MAP_FIXED : 0), fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	f->control = p;
	return 0;
}

uint64_t file_orphan_ms(uint64_t daemons)
{
	const char *e = secure_getenv("PAGECACHED_ORPHAN_TIMEOUT");
	char *end;
	double s;

	if (!e || !*e)
		return daemons;
	s = strtod(e, &end);
	return *end || !(s >= 0) || s > 1e9 ? daemons : (uint64_t)(s * 1000);
}

/* All of an ATTACH but the userfaultfd. Returns how many descriptors it brings besides. */
static int attach_message(const struct pgc_file *f, struct pgc_msg *m, int *fds)
{
	int n = 0;

	m->attach = (struct pgc_attach){
		.file_dev = f->file_dev, .file_ino = f->file_ino, .handle = f->handle, .flags = (uint32_t)f->accmode, .has_direct = f->direct >= 0,
		.attach = f->control && __atomic_load_n(&f->control->stopped, __ATOMIC_ACQUIRE) ? PGC_ATTACH_CLEAN : 0,
		.kernel_faults = !!(file_flags(f) & PGC_HANDLE_KERNEL_FAULTS),
		.window_len = __atomic_load_n(&f->window_len, __ATOMIC_RELAXED),
	};
	m->attach.window_addr = m->attach.window_len > 0 ? __atomic_load_n(&f->window_addr, __ATOMIC_RELAXED) : 0;
	memcpy(m->attach.uri, f->uri, MIN(sizeof(m->attach.uri), sizeof(f->uri)) - 1);
	if (f->memfd >= 0)
		fds[n++] = f->memfd;
	if (f->buffered >= 0)
		fds[n++] = f->buffered;
	if (f->direct >= 0)
		fds[n++] = f->direct;
	return n;
}

/*
 * What OPEN and CLONE want, and what comes back. In a child a handle with a memfd is cloned, another one opened again.
 */
static int file_shake(struct pgc_file *f)
{
	int fds[PGC_FDS_MAX], got[PGC_FDS_MAX], n = 0, r;
	_cleanup_close_ int dev = -1, control = -1, memfd = -1;
	bool clone = f->memfd >= 0, attach = clone && f->no_clone, kernel = false;
	struct pgc_msg m = { .type = attach ? PGC_MSG_ATTACH : clone ? PGC_MSG_CLONE : PGC_MSG_OPEN };
	struct statfs fs;
	struct stat st;

	f->conn.single = f->opening;
	r = file_make_socket(f);
	if (r == 0)
		r = conn_dial(f->conn.fd);
	if (r == 0)
		r = conn_hello(&f->conn, f->accmode == O_RDWR, &dev);
	if (r == 0)
		r = file_make_uffd(f, dev, &kernel);
	if (r < 0)
		return r;

	fds[n++] = f->uffd;
	if (attach) {
		n += attach_message(f, &m, fds + n);
		m.attach.handle = 0; /* a new one */
		m.attach.kernel_faults = kernel;
	} else if (clone) {
		m.clone.file_dev = f->file_dev;
		m.clone.file_ino = f->file_ino;
		m.clone.flags = (uint32_t)f->accmode;
		fds[n++] = f->memfd;
	} else {
		m.open.flags = (uint32_t)f->accmode;
		m.open.has_direct = f->direct >= 0;
		memcpy(m.open.uri, f->uri, sizeof(f->uri));
		if (f->buffered >= 0)
			fds[n++] = f->buffered;
		if (f->direct >= 0)
			fds[n++] = f->direct;
	}
	r = conn_request(&f->conn, &m, fds, n, got, clone || f->accmode == O_WRONLY ? 1 : 2);
	if (r < 0)
		return r;
	control = got[0];
	memfd = got[1];
	r = file_map_control(f, control);
	if (r < 0)
		return r;
	if (memfd >= 0) {
		if (fstat(memfd, &st) < 0 || fstatfs(memfd, &fs) < 0)
			return -errno;
		pthread_mutex_lock(&lib.lock);
		f->huge = fs.f_type == HUGETLBFS_MAGIC;
		f->mem_dev = st.st_dev;
		f->mem_ino = st.st_ino;
		f->memfd = fd_keep(take_fd(&memfd));
		pthread_mutex_unlock(&lib.lock);
	}
	f->file_dev = m.open_reply.file_dev;
	f->file_ino = m.open_reply.file_ino;
	f->handle = m.open_reply.handle;
	f->orphan_ms = file_orphan_ms(m.open_reply.orphan_timeout_ms);
	if (!kernel)
		m.open_reply.flags &= ~PGC_HANDLE_KERNEL_FAULTS;
	__atomic_store_n(&f->handle_flags, m.open_reply.flags, __ATOMIC_RELAXED);
	__atomic_store_n(&f->mapped, false, __ATOMIC_RELAXED);
	f->given_up = f->ended = false; /* as its parent's was */
	f->lost = 0;
	f->conn.single = false;
	__atomic_store_n(&f->stale, false, __ATOMIC_RELEASE);
	return 0;
}

/*
 * No daemon yet, or one that died again, or not all of our fellows have come; or the daemon, this process or the disk has no room or fails just now, and giving up
 * would make of that the end of all mappings.
 */
static bool worth_waiting(int r)
{
	static const int passing[] = {
		ENOENT, ECONNREFUSED, ECONNRESET, EAGAIN, ESHUTDOWN, EPIPE, EMFILE, ENFILE, ENOMEM, ENOBUFS, EINTR, EIO, ENOSPC, EDQUOT,
	};

	for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
		if (r == -passing[i])
			return true;
	return false;
}

int file_connect(struct pgc_file *f)
{
	struct waiting w = { .since = clock_ms() };
	uint64_t from;
	int r = 0;

	if (fork_unseen())
		fork_late();
	if (!__atomic_load_n(&f->stale, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&f->connect_lock);
	while (f->stale) {
		from = clock_ms();
		r = file_shake(f);
		if (r == 0)
			break;
		file_not_waited(&w, from);
		file_disconnect(f);
		if (f->memfd >= 0) { /* in a forked child: as with a connection that died */
			if (r == -ESTALE && !f->no_clone) {
				f->no_clone = true; /* the daemon that knew it is gone */
				continue;
			}
			if (!worth_waiting(r) || (f->orphan_ms && clock_ms() - w.since >= f->orphan_ms))
				break;
		} else if ((r != -ECONNRESET && r != -EAGAIN) || clock_ms() - w.since >= OPEN_PATIENCE_MS) {
			break; /* else a daemon died in between; the next one is about to come */
		}
		pthread_mutex_unlock(&f->connect_lock);
		r = file_wait(&w, RETRY_MIN_MS);
		pthread_mutex_lock(&f->connect_lock);
		if (r < 0 && f->stale)
			break;
		r = 0;
	}
	pthread_mutex_unlock(&f->connect_lock);
	return r;
}

/* Over a connection of its own: until it is done nobody else may send anything. */
static int attach_over(struct pgc_file *f, struct conn *c)
{
	struct pgc_msg m = { .type = PGC_MSG_ATTACH };
	int fds[PGC_FDS_MAX], got[PGC_FDS_MAX], n = 0, r;
	_cleanup_close_ int dev = -1, control = -1;

	r = conn_dial(c->fd);
	if (r == 0)
		r = conn_hello(c, f->accmode == O_RDWR, &dev);
	if (r < 0)
		return r;
	fds[n++] = f->uffd;
	n += attach_message(f, &m, fds + n);
	r = conn_request(c, &m, fds, n, got, 1);
	if (r < 0)
		return r;
	control = got[0];
	r = file_map_control(f, control);
	if (r < 0)
		return r;
	f->handle = m.open_reply.handle;
	if (f->xfer_fd >= 0) {
		struct pgc_msg x = { .type = PGC_MSG_XFER };

		r = conn_request(c, &x, &f->xfer_fd, 1, NULL, 0);
	}
	return r;
}

/* As file_make_socket(), but this may be the watcher, during a fork. */
static int attach_socket(struct pgc_file *f)
{
	bool own = fork_lock_lib();
	int fd = conn_socket();

	f->next_fd = MAX(fd, -1);
	fork_unlock_lib(own);
	return MIN(fd, 0);
}

static int attach_once(struct pgc_file *f)
{
	struct conn c;
	bool own;
	int r;

	r = attach_socket(f);
	if (r < 0)
		return r;
	conn_init(&c);
	c.fd = f->next_fd;
	r = attach_over(f, &c);
	c.fd = -1;
	conn_destroy(&c);
	if (r == 0)
		conn_empty(&f->conn);
	own = fork_lock_lib();
	if (r == 0)
		conn_renew(&f->conn, take_fd(&f->next_fd), f->xfer_fd);
	else
		close_fd(&f->next_fd);
	fork_unlock_lib(own);
	if (r == 0 && __atomic_load_n(&f->closed, __ATOMIC_RELAXED) && !fork_is_remaking())
		file_send_close(f);
	return r;
}

/* With connect_lock. */
static int attach_step(struct pgc_file *f)
{
	int r;

	if (f->lost || !conn_hung_up(&f->conn))
		return f->lost; /* another thread was here */
	conn_kill(&f->conn);
	r = attach_once(f);
	if (r == 0)
		return 0;
	if (worth_waiting(r))
		return -EAGAIN;
	f->lost = r;
	return r;
}

int file_attach_try(struct pgc_file *f)
{
	int r;

	if (pthread_mutex_trylock(&f->connect_lock) != 0)
		return -EAGAIN; /* somebody is at it */
	r = attach_step(f);
	pthread_mutex_unlock(&f->connect_lock);
	return r;
}

int file_attach(struct pgc_file *f, bool may_end)
{
	struct waiting w = { .since = clock_ms() };
	unsigned pause = RETRY_MIN_MS;
	int r;

	for (;;) {
		pthread_mutex_lock(&f->connect_lock);
		r = attach_step(f);
		pthread_mutex_unlock(&f->connect_lock);
		if (r != -EAGAIN)
			return r;
		if (f->orphan_ms && clock_ms() - w.since >= f->orphan_ms)
			return -ETIMEDOUT;
		if (file_wait(&w, pause) < 0 && may_end)
			return -EINTR;
		pause = MIN(pause * 2, RETRY_MAX_MS);
	}
}

/* The dead daemon may have carried it out, and the program may ask for it once more: of an append that would make two. */
static bool may_be_asked_twice(const struct pgc_msg *m)
{
	return m->type != PGC_MSG_WRITE || !(m->write.flags & PGC_WRITE_APPEND);
}

int file_request(struct pgc_file *f, struct pgc_msg *msg, const int *fds, int n_fds) { return file_request_fds(f, msg, fds, n_fds, NULL, 0); }

int file_request_fds(struct pgc_file *f, struct pgc_msg *msg, const int *fds, int n_fds, int *ret_fds, int want)
{
	bool stale = __atomic_load_n(&f->stale, __ATOMIC_RELAXED);
	int r = file_connect(f);

	if (r < 0)
		return r;
	if (stale)
		watch_changed(); /* of a forked child; one that is being opened is not looked at */
	for (;;) {
		r = conn_request(&f->conn, msg, fds, n_fds, ret_fds, want);
		if (r != -ECONNRESET || fork_unseen())
			return r;
		r = file_attach(f, may_be_asked_twice(msg));
		if (r < 0)
			return r == -ETIMEDOUT ? -ECONNRESET : r;
		watch_changed(); /* it may be waiting for the old socket */
		if (msg->tag)
			msg->status = PGC_REQUEST_AGAIN; /* the dead daemon may have carried it out */
	}
}

void file_put(struct pgc_file *f)
{
	pthread_mutex_lock(&lib.lock);
	if (--f->busy == 0)
		pthread_cond_broadcast(&lib.idle);
	pthread_mutex_unlock(&lib.lock);
}

static bool memfd_is_mapped(const struct pgc_file *f)
{
	for (size_t i = 0; i < lib.n_map; i++)
		if (lib.map[i].f->mem_ino == f->mem_ino && lib.map[i].f->mem_dev == f->mem_dev)
			return true;
	return false;
}

bool file_is_awaited(struct pgc_file *f)
{
	return !__atomic_load_n(&f->stale, __ATOMIC_RELAXED) && !f->given_up && !f->ended && !f->lost && conn_hung_up(&f->conn) && !conn_ended(&f->conn) &&
	       !(f->control && __atomic_load_n(&f->control->stopped, __ATOMIC_ACQUIRE));
}

/*
 * Whether nothing of a closed handle is mapped any more. The daemon says so by hanging up, but a daemon that died
 * hangs up as well; the table may be out of date; and /proc/self/maps does not tell the handles of one file apart. So
 * it is either certain from the last, or two must agree. One that a daemon's death left behind is handed to the next
 * one first: what was stored may be nowhere else.
 */
static bool file_is_gone(struct pgc_file *f, bool *resynced)
{
	bool mapped = __atomic_load_n(&f->mapped, __ATOMIC_RELAXED), hung_up;

	if (file_is_awaited(f))
		return false;
	if (!mapped && f->maps == 0)
		return true;
	hung_up = !mapped || conn_hung_up(&f->conn);
	if (f->maps > 0 && !hung_up)
		return false;
	if (!*resynced && !table_resync())
		return hung_up && f->maps == 0;
	*resynced = true;
	return f->maps == 0 && (hung_up || !memfd_is_mapped(f));
}

void file_reap(void)
{
	pthread_mutex_lock(&lib.lock);
	file_reap_locked();
}

void file_reap_locked(void)
{
	struct pgc_file *gone = NULL, *f, *next;
	bool resynced = false;

	for (f = lib.files; f; f = next) {
		next = f->next;
		if (!f->closed || f->busy > 0 || f->watched > 0 || !file_is_gone(f, &resynced))
			continue;
		file_unlink(f);
		f->next = gone;
		gone = f;
	}
	pthread_mutex_unlock(&lib.lock);
	for (f = gone; f; f = next) {
		next = f->next;
		file_destroy(f);
	}
}

void file_forked(struct pgc_file *f)
{
	/*
	 * The socket is the parent's: closed, never shut down and never written to. The userfaultfd serves the parent
	 * only.
	 */
	close_fd(&f->conn.fd);
	close_fd(&f->next_fd);
	close_fd(&f->uffd);
	close_fd(&f->xfer_fd);
	conn_init(&f->conn);
	file_init_locks(f);
	window_forked(f);
	f->xfer_used = 0;
	f->busy = f->watched = 0;
	f->mapped = false;
	__atomic_store_n(&f->stale, true, __ATOMIC_RELEASE);
}

bool file_is_uri(const char *s)
{
	if (*s < 'a' || *s > 'z')
		return false;
	while ((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == '+' || *s == '.' || *s == '-')
		s++;
	return *s == ':';
}

/* A description of our own of what `fd` stands for. */
static int reopen(int fd, int flags)
{
	char path[40];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = open(path, flags | O_CLOEXEC | O_NOCTTY);
	return r < 0 ? -errno : fd_keep(r);
}

static int check_kind(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? 0 : -EINVAL;
}

/* Takes `buffered`, a description of the library's own. */
static int open_handle(struct pgc_file **ret, int buffered, const char *uri, int accmode, int flags, bool direct)
{
	struct pgc_file *f;
	int r;

	fork_init();
	file_reap();
	f = file_new(accmode, flags & O_SYNC);
	if (!f) {
		close_fd(&buffered);
		return -ENOMEM;
	}
	f->buffered = buffered;
	if (buffered >= 0 && direct) {
		r = reopen(buffered, (fcntl(buffered, F_GETFL) & O_ACCMODE) | O_DIRECT);
		f->direct = r < 0 ? -1 : r;
	}
	if (uri)
		strcpy(f->uri, uri);
	r = file_connect(f);
	if (r == 0 && (flags & O_TRUNC) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL)) {
		struct pgc_msg m = { .type = PGC_MSG_TRUNCATE };
		r = file_request(f, &m, NULL, 0);
	}
	if (r < 0) {
		file_abandon(f);
		return r;
	}
	pthread_mutex_lock(&lib.lock);
	f->opening = false;
	pthread_mutex_unlock(&lib.lock);
	watch_changed();
	*ret = f;
	return 0;
}

/* open(2) with what the daemon can use of the flags. A description that may read as well lets it fill partial pages. */
static int open_path(const char *path, int flags, mode_t mode)
{
	int keep = flags & ~(O_ACCMODE | O_TRUNC | O_APPEND | O_DIRECT | O_SYNC | O_DSYNC | O_ASYNC | O_NONBLOCK);
	int acc = flags & O_ACCMODE;
	int try[2] = { acc == O_WRONLY ? O_RDWR : acc, acc }, fd = -1, r;

	for (int i = 0; i < 2; i++) {
		/* O_NONBLOCK: a FIFO, which is refused below, must not hang. A file under a lease is waited for. */
		fd = open(path, keep | try[i] | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
		if (fd < 0 && errno == EWOULDBLOCK)
			fd = open(path, keep | try[i] | O_CLOEXEC | O_NOCTTY, mode);
		if (fd >= 0 || errno != EACCES)
			break;
	}
	if (fd < 0)
		return -errno;
	r = check_kind(fd);
	if (r == 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd_keep(fd);
}

PGC_PUBLIC int pgc_open(struct pgc_file **ret, const char *path_or_uri, int flags, mode_t mode)
{
	NO_CANCEL;
	int acc = flags & O_ACCMODE, fd;

	if (!ret || !path_or_uri)
		return -EFAULT;
	if (flags & O_PATH)
		return -EBADF;
	if (acc != O_RDONLY && acc != O_WRONLY && acc != O_RDWR)
		return -EINVAL;
	if ((flags & O_TRUNC) && acc == O_RDONLY)
		return -EINVAL;
	if (file_is_uri(path_or_uri)) {
		if (strlen(path_or_uri) >= sizeof(((struct pgc_file *)0)->uri))
			return -ENAMETOOLONG;
		if (flags & O_DIRECTORY)
			return -ENOTDIR;
		if ((flags & O_CREAT) && (flags & O_EXCL))
			return -EINVAL;
		return open_handle(ret, -1, path_or_uri, acc, flags, false);
	}
	fd = open_path(path_or_uri, flags, mode);
	return fd < 0 ? fd : open_handle(ret, fd, NULL, acc, flags, true);
}

PGC_PUBLIC int pgc_fdopen(struct pgc_file **ret, int fd)
{
	NO_CANCEL;
	bool direct = true;
	int flags, acc, own, r;

	if (!ret)
		return -EFAULT;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return -errno;
	if (flags & O_PATH)
		return -EBADF;
	r = check_kind(fd);
	if (r < 0)
		return r;
	acc = flags & O_ACCMODE;
	if (acc == 3)
		return -EINVAL;
	own = reopen(fd, acc == O_WRONLY ? O_RDWR : acc);
	if (own < 0 && acc == O_WRONLY)
		own = reopen(fd, acc);
	if (own < 0) {
		/*
		 * The description itself is as good, unless a write with it goes elsewhere than it says, or must be
		 * aligned.
		 */
		if (own == -EMFILE || own == -ENFILE || own == -ENOMEM || (flags & O_DIRECT) ||
		    ((flags & O_APPEND) && acc != O_RDONLY))
			return own;
		own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (own < 0)
			return -errno;
		own = fd_keep(own);
		direct = false;
	}
	return open_handle(ret, own, NULL, acc, flags & O_SYNC, direct);
}

void file_send_close(struct pgc_file *f)
{
	struct pgc_msg m = { .type = PGC_MSG_CLOSE };

	/* Whatever the answer, the handle is closed: with a dead daemon it lives on until the next one has it, and nothing is mapped. */
	if (__atomic_load_n(&f->mapped, __ATOMIC_RELAXED))
		conn_request(&f->conn, &m, NULL, 0, NULL, 0);
}

PGC_PUBLIC int pgc_close(struct pgc_file *f)
{
	NO_CANCEL;
	bool lives_on;

	if (!f)
		return -EBADF;
	/* Calls that found the handle by an address may be sending what is not allowed after CLOSE. */
	pthread_mutex_lock(&lib.lock);
	f->closed = true;
	while (f->busy > 0)
		pthread_cond_wait(&lib.idle, &lib.lock);
	f->busy = 1;
	lives_on = f->maps > 0;
	pthread_mutex_unlock(&lib.lock);
	if (window_end(f) && lives_on && !__atomic_load_n(&f->mapped, __ATOMIC_RELAXED)) {
		struct pgc_msg m = { .type = PGC_MSG_WINDOW };

		conn_request(&f->conn, &m, NULL, 0, NULL, 0); /* its mappings are a child's, so CLOSE is not said */
	}
	file_send_close(f);
	file_put(f);
	file_reap();
	return 0;
}

PGC_PUBLIC int pgc_ftruncate(struct pgc_file *f, off_t size)
{
	NO_CANCEL;
	struct pgc_msg m = { .type = PGC_MSG_TRUNCATE };

	if (!f)
		return -EBADF;
	if (size < 0 || f->accmode == O_RDONLY)
		return -EINVAL;
	m.truncate.size = (uint64_t)size;
	return file_request(f, &m, NULL, 0);
}

PGC_PUBLIC int pgc_fallocate(struct pgc_file *f, int mode, off_t off, off_t len)
{
	NO_CANCEL;
	struct pgc_msg m = { .type = PGC_MSG_FALLOCATE };

	if (!f)
		return -EBADF;
	if (off < 0 || len <= 0)
		return -EINVAL;
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (f->accmode == O_RDONLY)
		return -EBADF;
	if (len > INT64_MAX - off)
		return -EFBIG;
	m.fallocate = (struct pgc_fallocate){ .off = (uint64_t)off, .len = (uint64_t)len, .mode = mode };
	return file_request(f, &m, NULL, 0);
}

PGC_PUBLIC int pgc_seek(struct pgc_file *f, off_t off, int whence, off_t *ret)
{
	NO_CANCEL;
	struct pgc_msg m = { .type = PGC_MSG_SEEK };
	int r;

	if (!f)
		return -EBADF;
	if (!ret)
		return -EFAULT;
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (off < 0)
		return -ENXIO;
	m.seek = (struct pgc_seek){ .off = (uint64_t)off, .whence = (uint32_t)whence };
	r = file_request(f, &m, NULL, 0);
	if (r < 0)
		return r;
	if (m.seek_reply.off < (uint64_t)off || m.seek_reply.off > INT64_MAX)
		return -EPROTO;
	*ret = (off_t)m.seek_reply.off;
	return 0;
}

PGC_PUBLIC int pgc_fadvise(struct pgc_file *f, off_t off, off_t len, int advice)
{
	NO_CANCEL;
	struct pgc_msg m = { .type = PGC_MSG_FADVISE };

	if (!f)
		return -EBADF;
	if (off < 0 || len < 0)
		return -EINVAL;
	m.fadvise = (struct pgc_fadvise){
		.off = (uint64_t)off, .len = (uint64_t)MIN(len, INT64_MAX - off), .advice = advice,
	};
	switch (advice) {
	case POSIX_FADV_NORMAL:
	case POSIX_FADV_RANDOM:
	case POSIX_FADV_SEQUENTIAL:
	case POSIX_FADV_WILLNEED:
	case POSIX_FADV_DONTNEED:
	case POSIX_FADV_NOREUSE:
		return file_request(f, &m, NULL, 0);
	default:
		return -EINVAL;
	}
}

PGC_PUBLIC int pgc_keep(struct pgc_file *f, off_t off, off_t len, bool on)
{
	NO_CANCEL;
	struct pgc_msg m = { .type = PGC_MSG_KEEP };
	uint64_t start, end;

	if (!f)
		return -EBADF;
	if (off < 0 || len <= 0 || len > INT64_MAX - 2 * (off_t)PGC_PAGE_SIZE - off)
		return -EINVAL;
	if (f->accmode == O_RDONLY)
		return -EBADF;
	start = (uint64_t)off & ~PAGE_MASK_;
	end = ((uint64_t)off + (uint64_t)len + PAGE_MASK_) & ~PAGE_MASK_;
	m.keep = (struct pgc_keep){ .off = start, .len = end - start, .on = on };
	return file_request(f, &m, NULL, 0);
}

PGC_PUBLIC const char *pgc_version(void)
{
	return PGC_VERSION;
}

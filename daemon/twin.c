/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See twin.h. The process is single-threaded and has a copy of the daemon's memory as it was at the start; what changes is in `shared`.
 *
 * Invariant: a userfaultfd whose mark is NONE has just been read, or just been received, or is about to be closed. Which of them has just been read its description
 * tells (uffd_is_new_child()): addresses alone do not, as processes that one has forked have other things mapped where it has that file. Of which space it is a child
 * the kernel says: it serves one of its mappings. A mark goes from NONE to CHILD or OWN to KEPT, and back to NONE before the number is closed. What was passed to the
 * daemon begins at KEPT or KEPT_CHILD.
 * May call: conn, fdstore, uffd, log, util.
 */
#include "daemon/twin.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/conn.h"
#include "daemon/fdstore.h"
#include "daemon/saved.h"
#include "daemon/uffd.h"
#include "daemon/util/util.h"
#include "pagecached/wire.h"

#define CHECK_MS    100
#define WORKERS_MAX 1024u
#define FDS_MAX     (1u << 20)
#define NO_SLOT     UINT32_MAX
#define LOCKS_MAX   4u
#define LOCK_TRIES  500              /* of 10 ms */

enum state { NONE, KNOWN, CHILD, OWN, KEPT_CHILD, KEPT };  /* from CHILD on it is held */

struct mark { uint64_t addr; struct twin_record record; enum state state; };  /* CHILD, KEPT_CHILD: the parent's record */
struct reading { uint64_t addr; struct twin_record record; bool on; };

/* Plain stores, each by one thread: the other side reads when that thread is gone. */
struct shared {
	int lock[LOCKS_MAX];
	unsigned n_locks;
	_Atomic unsigned children, end;    /* relaxed: a count; above the highest number that has ever had a mark */
	struct reading reading[WORKERS_MAX];
	struct mark mark[];
};

static const struct twin_record nobody = { NO_SLOT, 0 };
static struct shared *shared;
static unsigned n_marks;
static pid_t twin_pid;
static struct sockaddr_un next_daemon;
static int daemon_pidfd = -1;

/* --- the process --- */

static struct mark *mark_of(int fd) { return shared && fd >= 0 && (unsigned)fd < n_marks ? &shared->mark[fd] : NULL; }

static bool is_held(int fd)
{
	struct mark *m = mark_of(fd);

	return m && m->state >= CHILD;
}

static void set_mark(int fd, struct mark to)
{
	struct mark *m = mark_of(fd);
	bool was, is = to.state >= CHILD;

	if (!m)
		return;
	was = is_held(fd);
	for (unsigned end = shared->end; end <= (unsigned)fd && !atomic_compare_exchange_weak(&shared->end, &end, (unsigned)fd + 1);)
		;
	m->addr = to.addr;
	m->record = to.record;
	crash_order();
	m->state = to.state;
	crash_order();
	if (is)
		uffd_set_seen(fd);
	if (is != was)
		atomic_fetch_add_explicit(&shared->children, is ? 1u : -1u, memory_order_relaxed);
}

/* Calls `fn` for each open descriptor with what /proc says it is. */
static void each_fd(void (*fn)(int fd, const char *what))
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char what[256];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, what, sizeof(what) - 1);
		int fd = atoi(e->d_name);

		if (n < 0 || fd == dirfd(dir) || (fd == 0 && *e->d_name != '0'))
			continue;
		what[n] = '\0';
		fn(fd, what);
	}
	if (dir)
		closedir(dir);
}

static void give_to_store(int fd, char kind, uint32_t slot)
{
	char name[FDSTORE_NAME_MAX];

	fdstore_name(name, kind, slot);
	for (unsigned i = 0; i < 100 && fdstore_add(name, &fd, 1) == -EAGAIN; i++)
		usleep(1000);
}

/*
 * It is a child of one of the spaces that were being read: of the one whose mapping it serves. It need not have that any more, nor need it be known what its parent
 * has; then there is no choice if only one was, and else it is held for nobody: its faults wait, where they would read zeros.
 */
static void find_parent(int fd)
{
	struct mark found = { 0, nobody, CHILD };
	unsigned n = 0;

	for (unsigned w = 0; w < WORKERS_MAX; w++) {
		const struct reading *r = &shared->reading[w];
		bool serves = r->on && uffd_serves(fd, r->addr);

		if (serves || (r->on && n == 0))
			found = (struct mark){ r->addr, r->record, CHILD };
		else if (r->on)
			found.record = nobody;
		n += r->on;
		if (serves)
			break;
	}
	if (n > 0)
		set_mark(fd, found);
}

static void rescue(int fd, const char *what)
{
	struct mark *m = mark_of(fd);

	if (!m || strcmp(what, "anon_inode:[userfaultfd]") != 0)
		return;
	if (m->state == NONE && uffd_is_new_child(fd))
		find_parent(fd);
	if ((m->state == CHILD || m->state == OWN) && m->record.slot != NO_SLOT && fdstore_active())
		give_to_store(fd, m->state == OWN ? 'c' : 'o', m->record.slot);
}

/* The dead daemon's rings first: what is under way in them ends when they are closed. */
static void close_ring(int fd, const char *what)
{
	if (strcmp(what, "anon_inode:[io_uring]") == 0)
		close(fd);
}

static void close_unnamed(int fd, const char *what)
{
	if (*what != '/' && !is_held(fd) && fd != fdstore_socket())
		close(fd);
}

/* May wait for whoever serves the file. */
static void close_file(int fd, const char *what)
{
	if (*what == '/')
		close(fd);
}

/* --- the next daemon --- */

static bool answered(int sock, uint32_t type, uint32_t *ret_status)
{
	struct pgc_msg m;

	if (recv(sock, &m, sizeof(m), 0) != sizeof(m) || m.type != (type | PGC_MSG_REPLY))
		return false;
	*ret_status = m.status;
	return true;
}

/* Whether the next daemon has it, and its twin. */
static bool hand_over(int fd, const struct mark *k)
{
	const struct timeval patience = { .tv_sec = 2 };
	struct pgc_msg m = { .type = PGC_MSG_HELLO, .tag = 1, .hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_TWIN } };
	_cleanup_close_ int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	uint32_t status;

	if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 || connect(sock, (struct sockaddr *)&next_daemon, sizeof(next_daemon)) < 0)
		return false;
	if (conn_send(sock, &m, NULL, 0) < 0 || !answered(sock, PGC_MSG_HELLO, &status) || status != 0)
		return false;
	m = (struct pgc_msg){ .type = PGC_MSG_CHILD, .tag = 2, .child = { k->record.id, k->addr, k->record.slot, k->state == CHILD || k->state == KEPT_CHILD } };
	return conn_send(sock, &m, &fd, 1) == 0 && answered(sock, PGC_MSG_CHILD, &status) && status == 0;
}

static void let_go(int fd)
{
	shared->mark[fd].state = NONE;
	close(fd);
}

/* Not where somebody keeps descriptors: who keeps these has them, too. */
static void hand_over_all(void)
{
	if (fdstore_alive())
		return;
	for (unsigned fd = 0; fd < shared->end; fd++)
		if (is_held((int)fd) && shared->mark[fd].record.slot != NO_SLOT && hand_over((int)fd, &shared->mark[fd]))
			let_go((int)fd);
}

static unsigned let_go_of_the_dead(void)
{
	unsigned held = 0;

	for (unsigned fd = 0; fd < shared->end; fd++) {
		if (!is_held((int)fd))
			continue;
		if (uffd_alive((int)fd, shared->mark[fd].addr))
			held++;
		else
			let_go((int)fd);
	}
	return held;
}

static void live(void)
{
	struct pollfd p = { .fd = daemon_pidfd, .events = POLLIN };

	prctl(PR_SET_NAME, "pgc-twin");
	signal(SIGTERM, SIG_IGN); /* it ends when nobody needs it any more */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	for (unsigned i = 0; i < shared->n_locks; i++)
		close(shared->lock[i]);
	each_fd(rescue);
	each_fd(close_ring);
	each_fd(close_unnamed);
	each_fd(close_file);
	while (let_go_of_the_dead() > 0) {
		hand_over_all();
		usleep(CHECK_MS * 1000);
	}
	_exit(0);
}

/* --- the daemon's side --- */

static unsigned marks_wanted(void)
{
	struct rlimit r;

	return getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_max > FDS_MAX ? FDS_MAX : (unsigned)r.rlim_max;
}

int twin_start(const char *address)
{
	unsigned n = marks_wanted();
	void *p = mmap(NULL, sizeof(*shared) + n * sizeof(struct mark), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	long pid;

	if (p == MAP_FAILED)
		return -errno;
	shared = p;
	n_marks = n;
	next_daemon.sun_family = AF_UNIX;
	(void)snprintf(next_daemon.sun_path, sizeof(next_daemon.sun_path), "%s", address);
	daemon_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (daemon_pidfd < 0)
		return -errno;
	fflush(NULL);
	pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		return -errno;
	if (pid == 0)
		live();
	twin_pid = (pid_t)pid;
	return 0;
}

void twin_stop(void)
{
	if (twin_pid <= 0 || atomic_load_explicit(&shared->children, memory_order_relaxed) > 0)
		return; /* or it goes on without us */
	kill(twin_pid, SIGKILL);
	waitpid(twin_pid, NULL, 0);
	twin_pid = 0;
}

int twin_lock(int fd)
{
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK || i == LOCK_TRIES)
			return -errno;
		usleep(10000);
	}
	if (shared && shared->n_locks < LOCKS_MAX)
		shared->lock[shared->n_locks++] = fd;
	return 0;
}

void twin_reading(unsigned w, struct twin_record r, uint64_t addr)
{
	if (!shared || w >= WORKERS_MAX)
		return;
	shared->reading[w] = (struct reading){ addr, r, false };
	crash_order();
	shared->reading[w].on = true;
	crash_order();
}

void twin_read(unsigned w)
{
	if (!shared || w >= WORKERS_MAX)
		return;
	crash_order();
	shared->reading[w].on = false;
	crash_order();
}

void twin_knows(int fd) { set_mark(fd, (struct mark){ 0, nobody, KNOWN }); }
void twin_child(int fd, struct twin_record parent, uint64_t addr) { set_mark(fd, (struct mark){ addr, parent, CHILD }); }

void twin_child_own(int fd, struct twin_record own, uint64_t addr) { set_mark(fd, (struct mark){ addr, own, OWN }); }

void twin_child_kept(int fd, struct twin_record own)
{
	struct mark *m = mark_of(fd);

	if (m && (m->state == CHILD || m->state == OWN))
		set_mark(fd, (struct mark){ m->addr, own, KEPT });
}

void twin_child_passed(int fd, struct twin_record r, bool of_parent, uint64_t addr) { set_mark(fd, (struct mark){ addr, r, of_parent ? KEPT_CHILD : KEPT }); }

void twin_forget(int fd) { set_mark(fd, (struct mark){ 0, nobody, NONE }); }

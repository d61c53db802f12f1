/* SPDX-License-Identifier: Apache-2.0 */
/* See lock_guard.h. May call process, proc_fd, state, saved, log. */
#include "daemon/lock_guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/proc_fd.h"
#include "daemon/process.h"
#include "daemon/saved.h"
#include "daemon/state.h"
#include "daemon/util/util.h"

#define LOOK_NS    2000000000ull
#define MEMFD_NAME "/memfd:pagecached"
#define LOOKS_ALL  3u                /* the same wait in so many looks, and nobody found who holds the lock: whoever may is ended */

/* --- /proc --- */

/* Of process `pid`, thread `tid`. False: it is gone, or not for us to see. */
static bool read_of_thread(pid_t pid, pid_t tid, const char *name, char *ret, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[80];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, ret, size - 1);
	ret[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* The descriptor on which the thread is in a call that takes a memory file's lock; -1: none. */
static int locking_call(pid_t pid, pid_t tid)
{
	unsigned long arg[3];
	char text[256];
	long number;

	/* "running", or "-1" and no arguments, where it is in no call that could be named. */
	if (!read_of_thread(pid, tid, "syscall", text, sizeof(text)) || sscanf(text, "%ld %lx %lx %lx", &number, &arg[0], &arg[1], &arg[2]) != 4)
		return -1;
	switch (number) {
	case SYS_write:
	case SYS_writev:
	case SYS_pwrite64:
	case SYS_pwritev:
	case SYS_pwritev2:
	case SYS_fallocate:
	case SYS_ftruncate:
	case SYS_lseek:
	case SYS_sendfile:
		return (int)arg[0];
	case SYS_splice:
	case SYS_copy_file_range:
		return (int)arg[2];
	}
	return -1;
}

/* For an inode's lock, that is, in a call as above: it has gone to sleep in what takes that, since the kernel passes by the functions of locks themselves. */
static bool waits_for_lock(pid_t pid, pid_t tid)
{
	static const char *const takers[] = { "shmem_", "do_truncate", "generic_file_", "rwsem_" };
	char text[64];

	if (!read_of_thread(pid, tid, "wchan", text, sizeof(text)))
		return false;
	for (size_t i = 0; i < ELEMENTSOF(takers); i++)
		if (strncmp(text, takers[i], strlen(takers[i])) == 0)
			return true;
	return false;
}

static uint64_t switches_of(pid_t tid)
{
	char text[4096], *p;

	if (!read_of_thread(getpid(), tid, "status", text, sizeof(text)))
		return 0;
	p = strstr(text, "\nvoluntary_ctxt_switches:");
	return p ? strtoull(strchr(p, ':') + 1, NULL, 10) : 0;
}

/* The numbers in a folder of /proc. */
static void for_each_number(const char *path, void (*fn)(void *arg, pid_t number), void *arg)
{
	DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (*e->d_name >= '1' && *e->d_name <= '9')
			fn(arg, (pid_t)strtol(e->d_name, NULL, 10));
	if (dir)
		closedir(dir);
}

/* --- who holds it --- */

struct hunt {
	dev_t dev;
	ino_t ino;                 /* of the memfd */
	const char *name;
	pid_t pid;                 /* whose threads are looked at; 0: that has been decided */
	bool waits;                /* one of them waits for the lock as we do */
	unsigned ended;
};

static void end(struct hunt *h, pid_t pid)
{
	if (kill(pid, SIGKILL) == 0) {
		log_at(LOG_LEVEL_ERROR, h->name, pid, "killed: it has kept the lock of the file's memory for seconds, for which others wait");
		h->ended++;
	} else {
		log_at(LOG_LEVEL_ERROR, h->name, pid, "it keeps the lock of the file's memory, for which others wait, and cannot be killed: %s", strerror(errno));
	}
}

/* Names first: to ask what a file is may wait for who serves it. */
static bool is_memfd(const struct hunt *h, int fd)
{
	char path[64], name[64];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", h->pid, fd);
	n = readlink(path, name, sizeof(name) - 1);
	name[n > 0 ? n : 0] = '\0';
	return strncmp(name, MEMFD_NAME, strlen(MEMFD_NAME)) == 0 && stat(path, &st) == 0 && st.st_dev == h->dev && st.st_ino == h->ino;
}

static void look_at_thread(void *arg, pid_t tid)
{
	struct hunt *h = arg;
	int fd = h->pid > 0 ? locking_call(h->pid, tid) : -1;

	if (fd < 0 || !is_memfd(h, fd))
		return;
	if (waits_for_lock(h->pid, tid)) {
		h->waits = true;
		return;
	}
	end(h, h->pid);
	h->pid = 0;
}

static void look_at_threads(struct hunt *h, pid_t pid)
{
	char path[40];

	h->pid = pid;
	h->waits = false;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	for_each_number(path, look_at_thread, h);
}

static void look_at_process(void *arg, pid_t pid)
{
	if (pid != getpid())
		look_at_threads(arg, pid);
}

/* By a call that does not show, of an io_uring say, or out of our sight. */
static void end_all_writers(const struct state *s, struct hunt *h)
{
	for (uint32_t i = 0; i < s->params.handles; i++) {
		const struct pgc_saved_handle *r = &s->saved_handles[i];
		const struct pgc_saved_file *f = r->file && r->file < s->params.files ? &s->saved_files[r->file] : NULL;

		if (f && f->memfd_dev == h->dev && f->memfd_ino == h->ino && (r->flags & PGC_SAVED_WRITABLE) && r->pid > 0 && r->pid != getpid() &&
		    process_lives(r->pid, r->start_time)) {
			look_at_threads(h, r->pid);
			if (!h->waits && h->pid > 0)
				end(h, r->pid);
		}
	}
}

static void end_holder(const struct lock_guard *g, const struct lock_wait *w)
{
	char name[4096];
	struct hunt h = { .name = name };
	struct stat st;

	if (fstat(w->fd, &st) < 0)
		return;
	h.dev = st.st_dev;
	h.ino = st.st_ino;
	proc_fd_name(w->fd, name, sizeof(name));
	for_each_number("/proc", look_at_process, &h);
	if (h.ended == 0 && w->looks >= LOOKS_ALL)
		end_all_writers(g->state, &h);
}

/* --- looks --- */

static void look_at_own(void *arg, pid_t tid)
{
	struct lock_guard *now = arg;
	int fd = waits_for_lock(getpid(), tid) ? locking_call(getpid(), tid) : -1;

	if (fd >= 0 && now->n < LOCK_GUARD_THREADS && proc_fd_is(fd, MEMFD_NAME))
		now->wait[now->n++] = (struct lock_wait){ tid, fd, switches_of(tid), 0 };
}

static void look(struct ring_timer *t)
{
	struct lock_guard *g = container_of(t, struct lock_guard, timer), now = { 0 };

	for_each_number("/proc/self/task", look_at_own, &now);
	for (unsigned i = 0; i < now.n; i++)
		for (unsigned k = 0; k < g->n; k++)
			if (now.wait[i].tid == g->wait[k].tid && now.wait[i].fd == g->wait[k].fd && now.wait[i].switches == g->wait[k].switches)
				now.wait[i].looks = g->wait[k].looks + 1;
	memcpy(g->wait, now.wait, sizeof(g->wait));
	g->n = now.n;
	for (unsigned i = 0; i < g->n; i++)
		if (g->wait[i].looks > 0)
			end_holder(g, &g->wait[i]);
	ring_timer_arm(g->ring, t, LOOK_NS);
}

void lock_guard_start(struct lock_guard *g, struct ring *ring, const struct state *state)
{
	*g = (struct lock_guard){ .ring = ring, .state = state };
	ring_timer_init(&g->timer, look);
	ring_timer_arm(ring, &g->timer, LOOK_NS);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See keep.h. One thread and a loop that never waits for anybody but in poll(2); only slow_close() has threads, for a moment.
 *
 * Invariants:
 * - The number of a kept descriptor is its place: entry[i] is descriptor 3 + i, and the kernel gives new ones the lowest number. Our own are above all places. So the
 *   daemon gets them by fork and exec as they are, and nothing is copied or closed on the way: closing a file of FUSE may wait for ever.
 * - Nothing is decided about a daemon's death before the queue of messages is empty: what it had sent counts.
 *
 * The daemon, once started:
 *	starting -> serving (READY=1) -> stopping (SIGTERM or its own will: STOPPING=1) -> ended: so do we
 *	     \------------\------------------\-> dead or handed over: the next one is started
 * One that dies while it writes everything back is started again, as its clients' bytes are still kept, and told to stop again.
 *
 * May call: slow_close, log, process, util, and of fdstore.h the limits.
 */
#include "daemon/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>

#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/process.h"
#include "daemon/slow_close.h"
#include "daemon/util/util.h"

#define FIRST_FD        SD_LISTEN_FDS_START
#define OWN_FDS         16           /* numbers above the places that we need */
#define MESSAGE_FDS_MAX 253          /* SCM_MAX_FD */
#define MESSAGES_ROUND  64
#define ANCESTORS_MAX   16
#define ABORT_MS        10000        /* from SIGABRT to SIGKILL: a core may have to be written */
#define TWIN_MS         500          /* for what a dead daemon's twin has to give us */
#define STOP_TRIES      5            /* daemons that may die while they write everything back */
#define MS              1000000ull

struct entry {
	char name[FDSTORE_NAME_MAX];
	bool used, fixed;                  /* fixed: passed to us by a socket unit; not in the store */
};

struct keep {
	const struct keep_params *p;
	int signal_fd, notify_fd, notify_path; /* -1: none */
	char exe[PATH_MAX];                /* where the daemon's program is, an upgraded one as well */
	char **argv;                       /* the daemon's */
	sigset_t mask;                     /* as it was at our start: the daemon's */

	struct entry *entry;
	unsigned room, n_fixed, n_kept;    /* places: n_fixed + room */
	size_t name_bytes;
	bool said_full;

	/* The daemon that runs. */
	pid_t pid;                         /* 0: none */
	int life;                          /* a pipe that ends when it and its twin (twin.h) have nothing open any more; -1: none */
	bool ready, stopping, told_to_stop, told_to_restart, aborted;
	uint64_t ready_at;
	uint64_t watchdog_ns, deadline;    /* 0: no watchdog; not now */

	/* The next one. */
	bool stop;                         /* nobody but to write everything back */
	bool ever_ready, end;
	int status;                        /* with `end` */
	uint64_t start_at;
	uint64_t pause_ms;                 /* after the next death */
	unsigned failures, stop_tries;
};

/* --- what is kept --- */

static struct entry *entry_of(struct keep *k, int fd)
{
	return fd >= FIRST_FD && (unsigned)(fd - FIRST_FD) < k->n_fixed + k->room ? &k->entry[fd - FIRST_FD] : NULL;
}

static bool name_is_valid(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if (name[i] < ' ' || name[i] > '~' || name[i] == ':')
			return false;
	return n > 0 && n < FDSTORE_NAME_MAX;
}

static void store_fds(struct keep *k, const char *name, const int *fds, unsigned n)
{
	if (!name_is_valid(name))
		name = "stored";
	for (unsigned i = 0; i < n; i++) {
		struct entry *e = entry_of(k, fds[i]);

		if (!e || k->n_kept == k->room || k->name_bytes + strlen(name) + 1 > FDSTORE_NAMES_MAX) {
			if (!k->said_full)
				log_error("keeper: full: a descriptor \"%s\" is not kept (%u are)", name, k->n_kept);
			k->said_full = true;
			slow_close(&fds[i], 1);
			continue;
		}
		snprintf(e->name, sizeof(e->name), "%s", name);
		e->used = true;
		k->n_kept++;
		k->name_bytes += strlen(name) + 1;
	}
}

static void remove_fds(struct keep *k, const char *name)
{
	int fds[MESSAGE_FDS_MAX];
	unsigned n = 0;

	for (unsigned i = k->n_fixed; i < k->n_fixed + k->room; i++) {
		struct entry *e = &k->entry[i];

		if (!e->used || strcmp(e->name, name) != 0)
			continue;
		e->used = false;
		k->n_kept--;
		k->name_bytes -= strlen(name) + 1;
		k->said_full = false;
		fds[n++] = FIRST_FD + (int)i;
		if (n == ELEMENTSOF(fds)) {
			slow_close(fds, n);
			n = 0;
		}
	}
	slow_close(fds, n);
}

/* Waits until `fd` is open no more, which slow_close() may take a moment for. */
static bool number_is_free(int fd)
{
	for (unsigned i = 0; i < 1000; i++) {
		if (fcntl(fd, F_GETFD) < 0)
			return true;
		usleep(1000);
	}
	return false;
}

/* No gaps: the last ones move down. Returns how many are to be passed. */
static unsigned close_gaps(struct keep *k)
{
	unsigned end = k->n_fixed + k->n_kept, from = k->n_fixed + k->room;

	for (unsigned i = k->n_fixed; i < end; i++) {
		int to = FIRST_FD + (int)i, old;

		if (k->entry[i].used)
			continue;
		while (!k->entry[--from].used)
			;
		old = FIRST_FD + (int)from;
		if (!number_is_free(to) || fcntl(old, F_DUPFD_CLOEXEC, to) != to) {
			log_error("keeper: descriptor %d cannot be moved to %d: those behind are not passed", old, to);
			return i;
		}
		k->entry[i] = k->entry[from];
		k->entry[from].used = false;
		slow_close(&old, 1);
		(void)number_is_free(old); /* else the child would close it, and wait */
	}
	return end;
}

/* --- the daemon's life --- */

static void child(struct keep *k, unsigned n)
{
	static const char *const not_for_it[] = { "INVOCATION_ID", "LISTEN_PIDFDID", "FDSTORE", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC",
						  "WATCHDOG_PID" };
	char text[64], *names = NULL;
	size_t size = 0;
	FILE *f;

	for (size_t i = 0; i < ELEMENTSOF(not_for_it); i++)
		unsetenv(not_for_it[i]);
	snprintf(text, sizeof(text), "/proc/%d/fd/%d", (int)getppid(), k->notify_path);
	setenv("NOTIFY_SOCKET", text, 1);
	snprintf(text, sizeof(text), "%u", k->room);
	setenv("FDSTORE", text, 1);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	if (k->watchdog_ns) {
		setenv("WATCHDOG_PID", text, 1);
		snprintf(text, sizeof(text), "%llu", (unsigned long long)(k->watchdog_ns / 1000));
		setenv("WATCHDOG_USEC", text, 1);
		snprintf(text, sizeof(text), "%d", (int)getpid());
	}
	if (n > 0) {
		setenv("LISTEN_PID", text, 1);
		snprintf(text, sizeof(text), "%u", n);
		setenv("LISTEN_FDS", text, 1);
		f = open_memstream(&names, &size);
		if (!f)
			_exit(1);
		for (unsigned i = 0; i < n; i++) {
			fprintf(f, "%s%s", i > 0 ? ":" : "", k->entry[i].name);
			if (fcntl(FIRST_FD + (int)i, F_SETFD, 0) < 0)
				_exit(1);
		}
		if (fclose(f) != 0 || setenv("LISTEN_FDNAMES", names, 1) < 0)
			_exit(1);
	}
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &k->mask, NULL);
	execv(k->exe, k->argv);
	execv("/proc/self/exe", k->argv); /* an upgrade is just under way */
	log_error("keeper: %s: %m", k->exe);
	_exit(127);
}

/* Takes `fd`; a number above the places, or a negative errno. */
static int move_up(struct keep *k, int fd)
{
	int up = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD + (int)(k->n_fixed + k->room)), r = errno;

	close(fd);
	return up < 0 ? -r : up;
}

/* The end that is the daemon's, which need not know of it. */
static int make_life(struct keep *k)
{
	int ends[2], daemons;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	k->life = move_up(k, ends[0]);
	daemons = move_up(k, ends[1]);
	if (daemons >= 0 && fcntl(daemons, F_SETFD, 0) < 0)
		log_debug("keeper: %m");
	return daemons;
}

static void start(struct keep *k)
{
	unsigned n = close_gaps(k);
	int daemons = make_life(k);

	k->pid = fork();
	if (k->pid == 0)
		child(k, n);
	if (daemons >= 0)
		close(daemons);
	if (k->pid < 0) {
		log_error("keeper: no process for the daemon: %m");
		k->pid = 0;
		k->start_at = now_ns() + k->p->pause_max_ms * MS;
		return;
	}
	k->ready = k->stopping = k->told_to_stop = k->told_to_restart = k->aborted = false;
	k->deadline = 0;
	log_debug("keeper: daemon %d has got %u descriptors", (int)k->pid, n);
}

static void end(struct keep *k, int status)
{
	k->end = true;
	k->status = status;
}

/* A daemon that has to take over first is told when it has: before, the signal would kill it. */
static void tell_to_stop(struct keep *k, bool now)
{
	if (!k->pid || k->told_to_stop || !(k->ready || k->n_kept == 0 || now))
		return;
	kill(k->pid, SIGTERM);
	k->told_to_stop = true;
}

static uint64_t pause_after(struct keep *k, uint64_t served_ms)
{
	uint64_t pause;

	if (k->ready && served_ms >= k->p->settled_ms)
		k->pause_ms = 0;
	pause = k->pause_ms;
	k->pause_ms = pause ? MIN(pause * 2, k->p->pause_max_ms) : k->p->pause_min_ms;
	return k->ready ? MIN(pause, served_ms) : pause;
}

static void describe(char *buf, size_t size, int status)
{
	if (WIFSIGNALED(status))
		snprintf(buf, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(buf, size, "ended with status %d", WEXITSTATUS(status));
}

static void died(struct keep *k, int status)
{
	uint64_t served = k->ready ? (now_ns() - k->ready_at) / MS : 0, pause = 0;
	bool exited = WIFEXITED(status), planned = k->told_to_restart || (exited && WEXITSTATUS(status) == 0 && k->ready);
	pid_t pid = k->pid;
	char how[64];

	k->pid = 0;
	describe(how, sizeof(how), status);
	if (exited && (k->stopping || k->told_to_stop)) {
		end(k, WEXITSTATUS(status));
		return;
	}
	if (exited && !k->ever_ready && !k->ready) {
		log_error("keeper: the daemon cannot start: it %s", how);
		end(k, MAX(WEXITSTATUS(status), 1));
		return;
	}
	if (k->stop && k->n_kept == 0) {
		log_error("keeper: the daemon %s before it had stopped", how);
		end(k, 1);
		return;
	}
	if (k->stop && ++k->stop_tries >= STOP_TRIES) {
		log_error("keeper: gives up: %u daemons died before everything was written back; what was not is lost", STOP_TRIES);
		end(k, 1);
		return;
	}
	k->failures = k->ready ? 0 : k->failures + 1;
	if (k->failures >= k->p->starts_max) {
		log_error("keeper: gives up: the daemon %s, and %u starts in a row failed; what was not written back is lost", how, k->failures);
		end(k, 1);
		return;
	}
	if (!planned)
		pause = pause_after(k, served);
	log_at(planned ? LOG_LEVEL_NOTICE : LOG_LEVEL_ERROR, NULL, 0, "keeper: daemon %d %s; the next one starts in %llu ms with %u descriptors",
	       (int)pid, how, (unsigned long long)pause, k->n_fixed + k->n_kept);
	k->start_at = now_ns() + pause * MS;
}

/* --- messages --- */

/* Its twin is our child when it has ended. */
static bool is_from_daemon(struct keep *k, pid_t pid)
{
	struct process_stat st;

	for (unsigned i = 0; i < ANCESTORS_MAX && k->pid && pid > 1; i++) {
		if (pid == k->pid)
			return true;
		if (process_stat(pid, &st) < 0)
			return false;
		if (st.parent == getpid())
			return true;
		pid = st.parent;
	}
	return false;
}

/* What dead daemons' twins hold the daemon has by now, and its own twin holds. That one must stay when the daemon is dead already: as our child, then. */
static void end_twins(struct keep *k)
{
	char path[64], *line = NULL, *save = NULL;
	siginfo_t si = { 0 };
	size_t room = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	if (f && getline(&line, &room, f) > 0 && waitid(P_PID, (id_t)k->pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == 0)
		for (char *t = strtok_r(line, " \n", &save); t; t = strtok_r(NULL, " \n", &save))
			if (atoi(t) > 0 && atoi(t) != k->pid)
				kill(atoi(t), SIGKILL);
	if (f)
		fclose(f);
	free(line);
}

static void became_ready(struct keep *k)
{
	uint64_t now = now_ns();

	if (!k->ready)
		k->ready_at = now;
	k->ready = k->ever_ready = true;
	end_twins(k);
	if (k->watchdog_ns && !k->deadline)
		k->deadline = now + k->watchdog_ns;
	if (k->stop)
		tell_to_stop(k, true);
}

static void extend(struct keep *k, const char *us)
{
	uint64_t until = now_ns() + strtoull(us, NULL, 10) * 1000;

	if (k->deadline)
		k->deadline = MAX(k->deadline, until);
}

/* One line that is not about descriptors. */
static void take_line(struct keep *k, const char *line)
{
	if (strcmp(line, "READY=1") == 0) {
		became_ready(k);
	} else if (strcmp(line, "STOPPING=1") == 0) {
		k->stopping = true;
		k->deadline = 0; /* to write everything back may take as long as it takes */
	} else if (strcmp(line, "WATCHDOG=1") == 0) {
		if (k->deadline)
			k->deadline = now_ns() + k->watchdog_ns;
	} else if (strcmp(line, "WATCHDOG=trigger") == 0) {
		if (k->deadline)
			k->deadline = now_ns();
	} else if (strncmp(line, "EXTEND_TIMEOUT_USEC=", 20) == 0) {
		extend(k, line + 20);
	}
}

/* What is ours alone: the service manager above knows us, not the daemon. */
static bool is_passed_on(const char *line)
{
	static const char *const starts[] = { "READY=", "STATUS=", "STOPPING=", "RELOADING=", "MONOTONIC_USEC=", "EXTEND_TIMEOUT_USEC=", "WATCHDOG=", "ERRNO=" };

	for (size_t i = 0; i < ELEMENTSOF(starts); i++)
		if (strncmp(line, starts[i], strlen(starts[i])) == 0)
			return true;
	return false;
}

static void take_message(struct keep *k, char *text, const int *fds, unsigned n)
{
	bool store = false, removal = false;
	const char *name = "stored";
	char above[4096] = "";
	size_t used = 0;
	char *next;

	for (char *line = text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (strcmp(line, "FDSTORE=1") == 0)
			store = true;
		else if (strcmp(line, "FDSTOREREMOVE=1") == 0)
			removal = true;
		else if (strncmp(line, "FDNAME=", 7) == 0)
			name = line + 7;
		else
			take_line(k, line);
		if (is_passed_on(line) && used + strlen(line) + 2 < sizeof(above))
			used += (size_t)snprintf(above + used, sizeof(above) - used, "%s\n", line);
	}
	if (used > 0)
		(void)sd_notify(0, above);
	if (removal)
		remove_fds(k, name);
	if (store)
		store_fds(k, name, fds, n);
	else
		slow_close(fds, n); /* those of a barrier, which end it */
}

/* False: there is none. */
static bool receive(struct keep *k)
{
	char text[4096];
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX) + CMSG_SPACE(sizeof(struct ucred))]; } control;
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t length = recvmsg(k->notify_fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[MESSAGE_FDS_MAX];
	struct ucred from = { 0 };
	unsigned n = 0;

	if (length < 0)
		return errno == EINTR;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS) {
			n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS && c->cmsg_len == CMSG_LEN(sizeof(from))) {
			memcpy(&from, CMSG_DATA(c), sizeof(from));
		}
	}
	text[length] = '\0';
	if (h.msg_flags & MSG_CTRUNC)
		log_error("keeper: descriptors of the daemon were lost: no more can be open here");
	if (is_from_daemon(k, from.pid)) {
		take_message(k, text, fds, n);
	} else {
		log_debug("keeper: process %d is not the daemon: its message is ignored", (int)from.pid);
		slow_close(fds, n);
	}
	return true;
}

/* --- events --- */

static void reap_twins(struct keep *k)
{
	siginfo_t si = { 0 };

	while (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid != 0 && si.si_pid != k->pid) {
		(void)waitpid(si.si_pid, NULL, WNOHANG);
		si.si_pid = 0;
	}
}

/* A dead daemon stays a zombie while its messages are read, so that its pid is its own. */
static void look_after_child(struct keep *k)
{
	siginfo_t si = { 0 };
	int status;

	reap_twins(k);
	if (!k->pid || waitid(P_PID, (id_t)k->pid, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid != k->pid)
		return;
	(void)poll(&(struct pollfd){ .fd = k->life, .events = POLLIN }, 1, TWIN_MS);
	cleanup_close(&k->life);
	k->life = -1;
	while (receive(k))
		;
	while (waitpid(k->pid, &status, 0) < 0)
		if (errno != EINTR)
			return;
	died(k, status);
}

static void stop_requested(struct keep *k)
{
	bool again = k->stop;

	k->stop = true;
	if (k->pid)
		tell_to_stop(k, again);
	else if (k->n_kept == 0)
		end(k, k->ever_ready ? 1 : 0); /* the last daemon died */
	else
		k->start_at = 0;
}

static void restart_requested(struct keep *k)
{
	if (!k->pid) {
		k->start_at = 0;
	} else if (!k->stop && !k->stopping) {
		k->told_to_restart = true;
		kill(k->pid, SIGUSR1);
	}
}

static void signals_arrived(struct keep *k)
{
	struct signalfd_siginfo si;

	while (read(k->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		switch (si.ssi_signo) {
		case SIGTERM:
		case SIGINT:
			stop_requested(k);
			break;
		case SIGUSR1:
			restart_requested(k);
			break;
		case SIGHUP:
			if (k->pid)
				kill(k->pid, SIGHUP);
			break;
		}
	}
}

static void watch(struct keep *k)
{
	if (!k->pid || !k->deadline || now_ns() < k->deadline)
		return;
	if (!k->aborted)
		log_error("keeper: daemon %d makes no progress: it is aborted", (int)k->pid);
	kill(k->pid, k->aborted ? SIGKILL : SIGABRT);
	k->aborted = true;
	k->deadline = now_ns() + ABORT_MS * MS;
}

/* Of poll(2). */
static int wait_ms(const struct keep *k)
{
	uint64_t until = k->pid ? k->deadline : k->start_at, now = now_ns();

	if (k->pid && !until)
		return -1;
	return until <= now ? 0 : (int)MIN((until - now) / MS + 1, 60000u);
}

static int loop(struct keep *k)
{
	while (!k->end) {
		struct pollfd p[] = { { .fd = k->signal_fd, .events = POLLIN }, { .fd = k->notify_fd, .events = POLLIN } };

		if (!k->pid && now_ns() >= k->start_at)
			start(k);
		(void)poll(p, ELEMENTSOF(p), wait_ms(k));
		for (unsigned i = 0; i < MESSAGES_ROUND && receive(k); i++)
			;
		signals_arrived(k);
		look_after_child(k);
		watch(k);
	}
	return k->status;
}

/* --- start --- */

static int find_room(struct keep *k)
{
	struct rlimit files;
	rlim_t can;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return -errno;
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return -errno;
	/* The daemon has the same limit, and others open beside what is kept. */
	can = files.rlim_cur - files.rlim_cur / 8;
	if (can < k->n_fixed + MESSAGE_FDS_MAX + OWN_FDS + FDSTORE_FDS_MAX)
		return -EMFILE;
	k->room = (unsigned)MIN((rlim_t)k->p->room, can - k->n_fixed - MESSAGE_FDS_MAX - OWN_FDS);
	return 0;
}

/* What we were given ourselves goes on to each daemon, first of all. */
static int take_passed(struct keep *k)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), r;

	if (n < 0)
		return n;
	k->n_fixed = (unsigned)n;
	r = find_room(k);
	if (r == 0) {
		k->entry = calloc(k->n_fixed + k->room, sizeof(*k->entry));
		r = k->entry ? 0 : -ENOMEM;
	}
	for (int i = 0; i < n; i++) {
		if (r == 0) {
			snprintf(k->entry[i].name, sizeof(k->entry[i].name), "%s", names[i]);
			k->entry[i].used = k->entry[i].fixed = true;
		}
		free(names[i]);
	}
	free(names);
	return r < 0 ? r : close_range(FIRST_FD + (unsigned)n, ~0u, 0) < 0 ? -errno : 0;
}

static int bind_below(int fd, const char *base, int *ret_path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char folder[sizeof(a.sun_path) - 8];
	int r = 0;

	if (!base || *base != '/' || snprintf(folder, sizeof(folder), "%s/pagecached-keep-XXXXXX", base) >= (int)sizeof(folder))
		return -EINVAL;
	if (!mkdtemp(folder))
		return -errno;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", folder);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		r = -errno;
	} else {
		*ret_path = open(a.sun_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (*ret_path < 0)
			r = -errno;
		(void)unlink(a.sun_path);
	}
	(void)rmdir(folder);
	return r;
}

/*
 * The socket has a name for a moment only; the daemon reaches it as /proc/PID/fd/N. An abstract address would do, too, but then anybody in the machine could fill its
 * queue, or have us close descriptors of theirs.
 */
static int listen_to_daemon(struct keep *k)
{
	const char *const bases[] = { getenv("XDG_RUNTIME_DIR"), "/run", getenv("TMPDIR"), "/tmp", "/dev/shm" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), path = -1, r = -ENOENT;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	for (size_t i = 0; i < ELEMENTSOF(bases) && r < 0; i++)
		r = bind_below(fd, bases[i], &path);
	k->notify_fd = move_up(k, fd);
	if (r < 0)
		return r;
	k->notify_path = move_up(k, path);
	return k->notify_fd < 0 ? k->notify_fd : MIN(k->notify_path, 0);
}

static int catch_signals(struct keep *k)
{
	static const int caught[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < ELEMENTSOF(caught); i++)
		sigaddset(&set, caught[i]);
	if (sigprocmask(SIG_BLOCK, &set, &k->mask) < 0)
		return -errno;
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	k->signal_fd = move_up(k, fd);
	return MIN(k->signal_fd, 0);
}

static bool is_our_program(const char *path)
{
	struct stat a, b;

	return stat(path, &a) == 0 && stat("/proc/self/exe", &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* The path that we were started by: an upgrade puts another program there. */
static int find_program(struct keep *k)
{
	const char *name = k->p->argv[0], *path = getenv("PATH");
	ssize_t n;

	if (*name == '/') {
		snprintf(k->exe, sizeof(k->exe), "%s", name);
	} else if (strchr(name, '/')) {
		_cleanup_free_ char *folder = getcwd(NULL, 0);

		snprintf(k->exe, sizeof(k->exe), "%s/%s", folder ?: "", name);
	} else {
		for (size_t length; path && *path; path += length + (path[length] == ':')) {
			length = strcspn(path, ":");
			snprintf(k->exe, sizeof(k->exe), "%.*s/%s", (int)length, path, name);
			if (*k->exe == '/' && is_our_program(k->exe))
				return 0;
		}
	}
	if (is_our_program(k->exe))
		return 0;
	n = readlink("/proc/self/exe", k->exe, sizeof(k->exe) - 1);
	if (n < 0)
		return -errno;
	k->exe[n] = '\0';
	return 0;
}

static int set_argv(struct keep *k)
{
	int n = 0;

	k->argv = calloc((size_t)k->p->argc + 1, sizeof(*k->argv));
	if (!k->argv)
		return -ENOMEM;
	for (int i = 0; i < k->p->argc; i++)
		if (strcmp(k->p->argv[i], "--keep") != 0 && strcmp(k->p->argv[i], "--kee") != 0) /* getopt takes an abbreviation, too */
			k->argv[n++] = k->p->argv[i];
	return 0;
}

/* $WATCHDOG_USEC, which is the daemon's business and, without a service manager, ours. */
static void set_watchdog(struct keep *k)
{
	uint64_t us;

	if (sd_watchdog_enabled(0, &us) > 0)
		k->watchdog_ns = us * 1000;
}

int keep_run(const struct keep_params *p)
{
	struct keep k = { .p = p, .signal_fd = -1, .notify_fd = -1, .notify_path = -1, .life = -1 };
	int r = take_passed(&k);

	(void)prctl(PR_SET_NAME, "pagecached-keep");
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (r == 0)
		r = find_program(&k);
	if (r == 0)
		r = set_argv(&k);
	if (r == 0)
		r = listen_to_daemon(&k);
	if (r == 0)
		r = catch_signals(&k);
	if (r < 0) {
		log_error("keeper: cannot start: %s", strerror(-r));
		end(&k, 1);
	} else {
		set_watchdog(&k);
		if (getenv("NOTIFY_SOCKET"))
			log_notice("keeper: under a service manager that keeps descriptors --keep is not needed");
		(void)loop(&k);
	}
	cleanup_close(&k.life);
	cleanup_close(&k.signal_fd);
	cleanup_close(&k.notify_fd);
	cleanup_close(&k.notify_path);
	free(k.argv);
	free(k.entry);
	return k.status;
}

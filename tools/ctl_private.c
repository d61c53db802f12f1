/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon runs under its keeper, "pagecached --keep", so that its death is a pause. Between us and them is the guard, a process of its own session, which no
 * terminal and no kill of our process group reaches. When we end in whatever way, the guard is told by the kernel, ends the keeper, and so the daemon, by SIGTERM, waits
 * until all is written and removes the folder. When the guard is killed, the kernel tells the keeper; when the keeper is, the guard gets its orphans and ends them as well.
 *
 *	pagecachectl --- guard (session) --- keeper --- pagecached
 *	          \--- the command
 *
 * The guard's wait status is the keeper's, which is the daemon's or that of having given up. Signals of `wait` are blocked throughout, and taken by sigtimedwait(2).
 */
#include "tools/ctl_private.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS 30000
#define LOG_SHOWN 8192

static unsigned long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned long long)t.tv_sec * 1000 + (unsigned long long)t.tv_nsec / 1000000;
}

bool ctl_signal_ends(int signal)
{
	return signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT;
}

/* --- the folder --- */

static int make_folder(struct ctl_private *d)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	/* Where it can be on a tmpfs, since the state that outlives a daemon is beside the socket then, and goes with the folder. */
	const char *bases[] = { runtime && *runtime == '/' && strlen(runtime) < 48 ? runtime : "/dev/shm", "/dev/shm", "/tmp" };

	for (unsigned i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
		snprintf(d->folder, sizeof(d->folder), "%s/" CTL_PRIVATE_NAME, bases[i]);
		if (mkdtemp(d->folder)) {
			snprintf(d->socket, sizeof(d->socket), "%s/socket", d->folder);
			return 0;
		}
	}
	return -errno;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

static void remove_folder(const char *path)
{
	(void)nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* --- the guard --- */

static void run_keeper(const struct ctl_private *d, const struct ctl_private_params *p)
{
	static const char *const not_for_it[] = { "LD_PRELOAD", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC",
						  "WATCHDOG_PID", "JOURNAL_STREAM" };
	char state[sizeof(d->folder) + 8];
	const char *argv[32] = {
		p->program, "--keep", "--config", p->config ?: "/dev/null", "--socket", d->socket, "--socket-mode", "0600", "--bpffs", "none",
		"--state-dir", state, "--warm-start=no", "--log-level", "warning",
	};
	size_t n = 0;

	while (argv[n])
		n++;
	if (p->memory) {
		argv[n++] = "--memory-max";
		argv[n++] = p->memory;
	}
	if (!p->config) { /* no other comes after the keeper has given up */
		argv[n++] = "--orphan-timeout";
		argv[n++] = "1min";
	}

	for (size_t i = 0; i < sizeof(not_for_it) / sizeof(not_for_it[0]); i++)
		unsetenv(not_for_it[i]);
	snprintf(state, sizeof(state), "%s/state", d->folder);
	sigprocmask(SIG_SETMASK, p->mask, NULL);
	execv(p->program, (char *const *)argv);
	dprintf(STDERR_FILENO, "%s: %s\n", p->program, strerror(errno));
	_exit(127);
}

/* As the daemon ended. */
static void end_like(int status)
{
	if (WIFSIGNALED(status)) {
		sigset_t all;

		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
		signal(WTERMSIG(status), SIG_DFL);
		sigfillset(&all);
		sigprocmask(SIG_UNBLOCK, &all, NULL);
		raise(WTERMSIG(status));
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* Whom the keeper has left: the daemon, when the keeper was killed. They write everything, too. */
static void end_orphans(void)
{
	char path[64], text[4096], *at = text;
	int fd;
	ssize_t n;

	do {
		snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		if (fd >= 0)
			close(fd);
		text[n > 0 ? n : 0] = '\0';
		for (at = text; *at; at += strspn(at, " \n"))
			kill((pid_t)strtol(at, &at, 10), SIGTERM);
	} while (waitpid(-1, NULL, 0) > 0);
}

/* Passes SIGTERM on. What daemons that died leave behind is reaped as well. */
static void wait_for_keeper(pid_t keeper, const sigset_t *set, int *ret_status)
{
	while (keeper > 0) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid == keeper) {
			*ret_status = status;
			return;
		}
		if (pid <= 0 && sigwaitinfo(set, NULL) == SIGTERM)
			kill(keeper, SIGTERM);
	}
}

static void guard(const struct ctl_private *d, const struct ctl_private_params *p, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY), status = 1 << 8;
	pid_t self, pid = -1;
	sigset_t set;

	setsid();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	dup2(null, STDIN_FILENO);
	dup2(d->log, STDOUT_FILENO);
	dup2(d->log, STDERR_FILENO);
	close_range(3, ~0u, 0);
	self = getpid();
	if (getppid() == parent)
		pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != self)
			_exit(1);
		run_keeper(d, p);
	}
	wait_for_keeper(pid, &set, &status);
	end_orphans();
	remove_folder(d->folder);
	end_like(status);
}

/* --- our side --- */

bool ctl_private_alive(struct ctl_private *d)
{
	if (d->guard && waitpid(d->guard, &d->status, WNOHANG) == d->guard) {
		d->guard = 0;
		remove_folder(d->folder); /* in case that the guard was killed */
	}
	return d->guard;
}

/* A signal of `wait`, 0: none within `ms`. */
static int next_signal(const sigset_t *wait, unsigned ms)
{
	int sig = sigtimedwait(wait, NULL, &(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l });

	return sig > 0 ? sig : 0;
}

static void release(struct ctl_private *d)
{
	ctl_disconnect(&d->conn);
	if (d->log >= 0)
		close(d->log);
	d->log = -1;
}

static void end_guard(struct ctl_private *d, const sigset_t *wait)
{
	bool told = false;

	if (d->guard)
		kill(d->guard, SIGTERM);
	while (ctl_private_alive(d)) {
		if (ctl_signal_ends(next_signal(wait, 1000)) && !told) {
			fprintf(stderr, "pagecachectl: the daemon is still writing back\n");
			told = true;
		}
	}
}

int ctl_private_start(struct ctl_private *d, const struct ctl_private_params *p)
{
	unsigned long long end = now_ms() + START_MS;
	pid_t self = getpid();
	int r;

	*d = (struct ctl_private){ .log = -1, .conn.fd = -1 };
	r = make_folder(d);
	if (r < 0) {
		fprintf(stderr, "pagecachectl: %s: %s\n", d->folder, strerror(-r));
		return r;
	}
	d->log = memfd_create("log", MFD_CLOEXEC);
	d->guard = d->log < 0 ? -1 : fork();
	if (d->guard == 0)
		guard(d, p, self);
	if (d->guard < 0) {
		r = -errno;
		fprintf(stderr, "pagecachectl: no daemon can be started: %s\n", strerror(-r));
		remove_folder(d->folder);
		release(d);
		return r;
	}
	for (;;) {
		int sig;

		if (!ctl_private_alive(d)) {
			fprintf(stderr, "pagecachectl: the daemon did not start:\n");
			ctl_private_print_log(d);
			r = -ECHILD;
			break;
		}
		r = ctl_connect(&d->conn, d->socket);
		if (r == 0)
			return 0;
		sig = next_signal(p->wait, 10);
		if (ctl_signal_ends(sig)) {
			r = sig;
			break;
		}
		if (now_ms() > end) {
			fprintf(stderr, "pagecachectl: the daemon does not answer: %s\n", strerror(-r));
			break;
		}
	}
	end_guard(d, p->wait);
	release(d);
	return r;
}

unsigned long long ctl_private_used(struct ctl_private *d)
{
	struct pgc_msg msg = { .type = PGC_CTL_STATUS };

	if (ctl_request(&d->conn, &msg) < 0)
		return 0;
	return msg.ctl_status_reply.handles + msg.ctl_status_reply.mappings;
}

bool ctl_private_stop(struct ctl_private *d, const sigset_t *wait)
{
	bool ran = d->guard, good;

	end_guard(d, wait);
	good = ran && WIFEXITED(d->status) && WEXITSTATUS(d->status) == 0;
	if (ran && !good) {
		fprintf(stderr, "pagecachectl: not everything could be written back:\n");
		ctl_private_print_log(d);
	}
	release(d);
	return good;
}

void ctl_private_print_log(const struct ctl_private *d)
{
	char text[LOG_SHOWN];
	struct stat st;
	ssize_t n;

	if (d->log < 0 || fstat(d->log, &st) < 0)
		return;
	n = pread(d->log, text, sizeof(text), st.st_size > LOG_SHOWN ? st.st_size - LOG_SHOWN : 0);
	if (n > 0)
		fwrite(text, 1, (size_t)n, stderr);
	if (WIFSIGNALED(d->status))
		fprintf(stderr, "pagecachectl: the daemon was ended by signal %d (%s)\n", WTERMSIG(d->status), strsignal(WTERMSIG(d->status)));
	fflush(stderr);
}

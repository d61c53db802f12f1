/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pagecachectl run: sets the environment that makes the preload library take over the file calls of a command, and becomes that command.
 *
 * With --private there is a daemon to end afterwards, so the command is a child. It stays in our process group: a terminal signals it and us alike, and job
 * control sees one job. So what came from the terminal is not passed on, and what a process sent to us is; when the command is stopped
 * from the terminal we stop, too, and what makes us go on makes it go on.
 */
#include "tools/ctl_run.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/ctl_conn.h"
#include "tools/ctl_paths.h"
#include "tools/ctl_private.h"

#define LIBRARY "libpagecached-preload.so"
#define TELL_MS 1000           /* what is waited for longer is told */

struct run {
	const char *socket, *config, *memory;
	struct ctl_paths paths;
	bool private, dry;
	char **command;                /* empty: none */
	char *library, *daemon, *preload, *patterns, *where; /* where: the socket */
};

static void usage(FILE *out)
{
	fputs("Usage: pagecachectl run [OPTION]... [--] COMMAND [ARGUMENT]...\n"
	      "Run a command whose file calls go through pagecached, for some files, though it was not built for it.\n"
	      "\n"
	      "Options:\n"
	      "      --path PATTERN  take these files over; may be given several times (default:\n"
	      "                      $PAGECACHED_PATHS, else preload_paths of pagecached.conf(5))\n"
	      "      --private       start a daemon for this command alone\n"
	      "      --memory SIZE   with --private: how much it may cache (default: a quarter of RAM)\n"
	      "      --config FILE   read preload_paths from FILE; with --private it is the daemon's, too\n"
	      "  -s, --socket PATH   the daemon's socket\n"
	      "      --dry-run       print the environment that would be set, and do no more\n"
	      "  -h, --help          print this text\n"
	      "\n"
	      "* ? and [...] stand for anything but a /, ** for that as well. A folder stands for all below.\n"
	      "Exit status: the command's; 125 pagecachectl failed, 126 the command cannot be run,\n"
	      "127 it is not found. See pagecached-preload(7).\n", out);
}

static int fail(const char *what, int error)
{
	fprintf(stderr, "pagecachectl: %s: %s\n", what, strerror(-error));
	return CTL_RUN_FAILED;
}

static int wrong_usage(const char *what)
{
	fprintf(stderr, "pagecachectl: %s\nTry 'pagecachectl run --help'.\n", what);
	return CTL_RUN_FAILED;
}

/* --- what is told --- */

static int add_path(struct run *run, const char *pattern)
{
	int r = ctl_paths_add(&run->paths, pattern);

	if (r == 0)
		return 0;
	if (r == -EINVAL)
		fprintf(stderr, "pagecachectl: --path '%s': %s\n", pattern,
			*pattern ? "give each pattern a --path of its own, or put a backslash before a ':' that belongs to a name" : "the pattern is empty");
	else
		fail(pattern, r);
	return CTL_RUN_FAILED;
}

/* Returns -1 to go on, or the exit code. */
static int parse_options(struct run *run, int argc, char **argv)
{
	enum { PATH = 256, PRIVATE, MEMORY, CONFIG, DRY_RUN };
	static const struct option options[] = {
		{ "path", required_argument, NULL, PATH },
		{ "private", no_argument, NULL, PRIVATE },
		{ "memory", required_argument, NULL, MEMORY },
		{ "config", required_argument, NULL, CONFIG },
		{ "socket", required_argument, NULL, 's' },
		{ "dry-run", no_argument, NULL, DRY_RUN },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static char name[] = "pagecachectl";
	int c, r;

	argv[0] = name;                 /* for getopt's messages */
	optind = 0;                     /* glibc: start afresh */
	while ((c = getopt_long(argc, argv, "+s:h", options, NULL)) >= 0) {
		switch (c) {
		case PATH:
			r = add_path(run, optarg);
			if (r)
				return r;
			break;
		case PRIVATE:
			run->private = true;
			break;
		case MEMORY:
			run->memory = optarg;
			break;
		case CONFIG:
			run->config = optarg;
			break;
		case 's':
			run->socket = optarg;
			break;
		case DRY_RUN:
			run->dry = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:                /* getopt has said what is wrong */
			fputs("Try 'pagecachectl run --help'.\n", stderr);
			return CTL_RUN_FAILED;
		}
	}
	run->command = argv + optind;
	if (!*run->command && !run->dry)
		return wrong_usage("no command to run");
	if (run->memory && !run->private)
		return wrong_usage("--memory needs --private: how much another daemon caches, its own configuration says");
	if (run->socket && run->private)
		return wrong_usage("--socket and --private contradict each other");
	return -1;
}

/* Of what the command line leaves open. */
static int find_paths(struct run *run)
{
	const char *list = getenv("PAGECACHED_PATHS");
	char *file = NULL;
	int r = 0;

	if (run->paths.n)
		return 0;
	if (list && *list) {
		r = ctl_paths_add_list(&run->paths, list);
		if (r < 0)
			return fail("PAGECACHED_PATHS", r);
	} else {
		r = ctl_paths_configured(&run->paths, run->config, &file);
		if (r == -EINVAL)
			fprintf(stderr, "pagecachectl: %s: preload_paths cannot be read (patterns start with /, separated by ':')\n",
				file ?: "configuration");
		else if (r < 0)
			fail(file ?: "configuration", r);
		free(file);
		if (r < 0)
			return CTL_RUN_FAILED;
	}
	if (run->paths.n)
		return 0;
	return wrong_usage("which files? Neither --path, nor $PAGECACHED_PATHS, nor preload_paths in pagecached.conf(5) says");
}

/* --- what is ours --- */

/* A file of the same build, or the installed one; $VARIABLE comes first. NULL after a message. */
static char *find_own(const char *variable, const char *beside, const char *installed, int mode)
{
	const char *given = getenv(variable);
	char self[PATH_MAX], path[PATH_MAX + 64], *found;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (given && *given) {
		/* A link stays one: it may be there for its name's sake. */
		found = *given != '/' ? realpath(given, NULL) : access(given, mode) == 0 ? strdup(given) : NULL;
		if (!found)
			fprintf(stderr, "pagecachectl: $%s: %s: %s\n", variable, given, strerror(errno));
		return found;
	}
	if (n > 0) {
		self[n] = '\0';
		snprintf(path, sizeof(path), "%s/%s", dirname(self), beside);
		found = realpath(path, NULL);
		if (found && access(found, mode) == 0)
			return found;
		free(found);
	}
	found = realpath(installed, NULL);
	if (!found)
		fprintf(stderr, "pagecachectl: %s: %s\n", installed, strerror(errno));
	return found;
}

/* Ours first; what is there already stays, but ourselves. */
static int join_preload(struct run *run)
{
	const char *before = getenv("LD_PRELOAD");
	char *copy = strdup(before ?: ""), *at = copy, *one;
	size_t size;
	FILE *f = open_memstream(&run->preload, &size);

	if (!copy || !f) {
		free(copy);
		if (f)
			fclose(f);
		return -ENOMEM;
	}
	fputs(run->library, f);
	while ((one = strsep(&at, " :")))
		if (*one && strcmp(one, run->library) != 0)
			fprintf(f, ":%s", one);
	free(copy);
	return fclose(f) == 0 ? 0 : -ENOMEM;
}

static int find_library(struct run *run)
{
	int r;

	run->library = find_own("PAGECACHED_PRELOAD", "../libclient/preload/" LIBRARY, PGC_PRELOAD_DIR "/" LIBRARY, R_OK);
	if (!run->library)
		return CTL_RUN_FAILED;
	if (strpbrk(run->library, " :")) {
		fprintf(stderr, "pagecachectl: %s: a path with ' ' or ':' cannot be preloaded; let $PAGECACHED_PRELOAD name a link to it\n", run->library);
		return CTL_RUN_FAILED;
	}
	r = join_preload(run);
	return r < 0 ? fail("environment", r) : 0;
}

/* The command may change its folder. */
static int make_absolute(struct run *run, const char *path)
{
	char *cwd = *path == '/' ? strdup("") : getcwd(NULL, 0);

	if (!cwd || asprintf(&run->where, "%s%s%s", cwd, *path == '/' ? "" : "/", path) < 0)
		run->where = NULL;
	free(cwd);
	return run->where ? 0 : fail(path, -errno);
}

/* Whether there is a daemon; a dry run only wants to know where it would be. */
static int find_daemon(struct run *run)
{
	struct ctl_conn conn;
	int r = ctl_connect(&conn, run->socket);

	ctl_disconnect(&conn);
	if (r < 0 && !run->dry) {
		if (r == -EPROTO)
			fprintf(stderr, "pagecachectl: the daemon at %s speaks another version of the protocol\n", conn.path);
		else
			fprintf(stderr, "pagecachectl: no daemon at %s: %s\nStart pagecached, or give --private for one of this command's own.\n", conn.path,
				strerror(-r));
		return CTL_RUN_FAILED;
	}
	return make_absolute(run, conn.path);
}

/* --- the environment --- */

static int set_environment(const struct run *run)
{
	if (setenv("LD_PRELOAD", run->preload, 1) < 0 || setenv("PAGECACHED_SOCKET", run->where, 1) < 0 ||
	    setenv("PAGECACHED_PATHS", run->patterns, 1) < 0)
		return fail("environment", -errno);
	return 0;
}

static int print_environment(const struct run *run)
{
	printf("LD_PRELOAD=%s\nPAGECACHED_SOCKET=%s\nPAGECACHED_PATHS=%s\n", run->preload, run->where, run->patterns);
	return 0;
}

/* Returns only when it cannot. */
static int become_command(const struct run *run)
{
	int error;

	execvp(run->command[0], run->command);
	error = errno;
	fail(run->command[0], -error);
	return error == ENOENT ? CTL_RUN_NOT_FOUND : CTL_RUN_CANNOT_RUN;
}

/* --- a command beside its daemon --- */

struct signals {
	sigset_t mask;                 /* as it was */
	sigset_t wait;                 /* what we take */
	struct sigaction child;        /* as it was */
};

/* Signals that were ignored stay so, for us and for the command. */
static void take_signals(struct signals *s)
{
	static const int taken[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT };

	sigaction(SIGCHLD, &(struct sigaction){ .sa_handler = SIG_DFL }, &s->child);
	sigemptyset(&s->wait);
	sigaddset(&s->wait, SIGCHLD);
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		struct sigaction a;

		if (sigaction(taken[i], NULL, &a) == 0 && a.sa_handler != SIG_IGN)
			sigaddset(&s->wait, taken[i]);
	}
	sigprocmask(SIG_BLOCK, &s->wait, &s->mask);
}

/* We end as the command did, so that who waits for us sees that. */
static int die_by(int sig)
{
	sigset_t set;

	fflush(NULL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 128 + sig;
}

static pid_t start_command(const struct run *run, const struct signals *s)
{
	pid_t pid = fork();

	if (pid == 0) {
		sigaction(SIGCHLD, &s->child, NULL);
		sigprocmask(SIG_SETMASK, &s->mask, NULL);
		_exit(become_command(run));
	}
	return pid;
}

/* The shell that controls the terminal is to see its job stopped. Where there is none, nobody would make us go on. */
static void stop_with_command(void)
{
	int tty = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (tty < 0)
		return;
	close(tty);
	raise(SIGSTOP);
}

static void pass_on(const siginfo_t *info, pid_t command)
{
	siginfo_t seen = { 0 };

	if (info->si_signo == SIGCONT) {
		/* It came to the whole group, or to us alone. */
		if (waitid(P_PID, (id_t)command, &seen, WCONTINUED | WNOHANG) == 0 && seen.si_pid == command)
			return;
	} else if (info->si_code == SI_KERNEL) {
		return; /* the terminal's, which the command has got, too */
	}
	kill(command, info->si_signo);
}

/* Its wait status. */
static int wait_for_command(pid_t command, struct ctl_private *d, const struct signals *s)
{
	bool serving = true;
	int status;

	for (;;) {
		siginfo_t info = { 0 };

		if (waitpid(command, &status, WNOHANG | WUNTRACED) == command) {
			if (!WIFSTOPPED(status))
				return status;
			stop_with_command();
		}
		if (serving && !ctl_private_alive(d)) {
			serving = false;
			fprintf(stderr, "pagecachectl: the daemon has ended, and no other comes: what the command does with its files waits as long as orphan_timeout says, and fails\n");
			ctl_private_print_log(d);
		}
		if (sigwaitinfo(&s->wait, &info) > 0 && info.si_signo != SIGCHLD)
			pass_on(&info, command);
	}
}

/* What the command left running and has files open keeps the daemon, until a signal says that it is enough. */
static void wait_until_unused(struct ctl_private *d, const struct signals *s, int status)
{
	unsigned waited = 0, pause = 1;
	bool told = false;

	while (ctl_private_alive(d) && ctl_private_used(d)) {
		int sig = sigtimedwait(&s->wait, NULL, &(struct timespec){ .tv_nsec = pause * 1000000l });

		/* The terminal's signal that ended the command may come to us a little later. */
		if (ctl_signal_ends(sig) && !(waited < TELL_MS && WIFSIGNALED(status) && WTERMSIG(status) == sig))
			return;
		waited += pause;
		if (pause < 100)
			pause *= 2;
		if (!told && waited >= TELL_MS) {
			fprintf(stderr, "pagecachectl: the command has ended, but something that it started has files open; the daemon stays until they are "
					"closed (a signal ends it at once)\n");
			told = true;
		}
	}
}

static int run_beside_daemon(struct run *run, struct ctl_private *d, const struct signals *s)
{
	pid_t command = start_command(run, s);
	int status, code;
	bool good;

	if (command < 0) {
		code = fail("fork", -errno);
		(void)ctl_private_stop(d, &s->wait);
		return code;
	}
	status = wait_for_command(command, d, s);
	wait_until_unused(d, s, status);
	good = ctl_private_stop(d, &s->wait);
	if (WIFSIGNALED(status))
		return die_by(WTERMSIG(status));
	code = WEXITSTATUS(status);
	return code == 0 && !good ? CTL_RUN_FAILED : code;
}

static int run_private(struct run *run)
{
	struct ctl_private d;
	struct signals s;
	int r;

	take_signals(&s);
	r = ctl_private_start(&d, &(struct ctl_private_params){ .program = run->daemon, .config = run->config, .memory = run->memory, .mask = &s.mask,
								.wait = &s.wait });
	if (r > 0)
		return die_by(r);
	if (r < 0)
		return CTL_RUN_FAILED;
	r = make_absolute(run, d.socket);
	if (r == 0)
		r = set_environment(run);
	if (r) {
		(void)ctl_private_stop(&d, &s.wait);
		return r;
	}
	return run_beside_daemon(run, &d, &s);
}

/* --- all of it --- */

static int go(struct run *run)
{
	int r = find_paths(run);

	if (r == 0)
		r = find_library(run);
	if (r)
		return r;
	run->patterns = ctl_paths_join(&run->paths);
	if (!run->patterns)
		return fail("environment", -ENOMEM);
	if (run->private) {
		run->daemon = find_own("PAGECACHED_BIN", "../daemon/pagecached", PGC_DAEMON_DIR "/pagecached", X_OK);
		if (!run->daemon)
			return CTL_RUN_FAILED;
		if (!run->dry)
			return run_private(run);
		r = make_absolute(run, "/tmp/" CTL_PRIVATE_NAME "/socket");
	} else {
		r = find_daemon(run);
	}
	if (r == 0)
		r = run->dry ? print_environment(run) : set_environment(run);
	return r || run->dry ? r : become_command(run);
}

int ctl_run(int argc, char **argv, const char *socket)
{
	struct run run = { .socket = socket };
	int r = parse_options(&run, argc, argv);

	if (r < 0)
		r = go(&run);
	ctl_paths_free(&run.paths);
	free(run.library);
	free(run.daemon);
	free(run.preload);
	free(run.patterns);
	free(run.where);
	return r;
}

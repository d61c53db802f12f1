/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache beside the kernel's own and a FUSE file system's, in one run: each workload is run by all contestants in turn, several times, and the medians stand side
 * by side. The workloads are in workload_table.c, the contestants in contestants.c, what they work on is made by stores.c.
 *
 * Every run is a process of its own, executed anew: with the preload library in front of it where that is the contestant. Only the time between two clock readings
 * counts. All that is read is compared with what has to be there; what was stored is looked for in the store, past all caches, by this process, when the run asks
 * for it. Before a cold run the contestant's caches are emptied. Before each run the machine is measured (noise.c). One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"
#include "run.h"

#define RUN_TIMEOUT_MS 600000
#define WORKLOADS_MAX  128u
#define DELAYS_MAX     8u

static struct {
	const char *json, *csv;
	int runs;
	double slow_seconds;
	unsigned delays[DELAYS_MAX + 1], n_delays;
	bool chosen[WORKLOADS_MAX], any;
} options = { .runs = 5, .slow_seconds = 0.4 };
static struct stores stores = { .dir = "/var/tmp", .size = 1ull << 30, .contestants = ALL_CONTESTANTS };

static struct run *shared;
static int shared_fd = -1;
static pid_t run_pid, own_pid;
static volatile sig_atomic_t interrupted;

/* ---- a run's process ---- */

static int ask_fd;

static void ask(void)
{
	char c = 'c';

	if (send(ask_fd, &c, 1, MSG_NOSIGNAL) != 1 || recv(ask_fd, &c, 1, 0) != 1)
		die("nobody looks at the store");
}

static int run_main(const char *fd, const char *sock)
{
	const struct workload *w;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);
	ask_fd = atoi(sock);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(fd), 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	w = workload_at(shared->workload);
	if (!w)
		die("there is no such workload");
	run_ask(ask);
	w->run(shared, w);
	_exit(0);
}

static void run_exec(int sock)
{
	char fd[16], sock_text[16];

	stores_exec_as(shared);
	snprintf(fd, sizeof(fd), "%d", shared_fd);
	snprintf(sock_text, sizeof(sock_text), "%d", sock);
	if (fcntl(shared_fd, F_SETFD, 0) || fcntl(sock, F_SETFD, 0))
		_exit(126);
	execl("/proc/self/exe", "pgc-bench", "--run", fd, sock_text, NULL);
	_exit(127);
}

/* ---- this process ---- */

static void clean_up(void)
{
	if (getpid() != own_pid)
		return;
	bench_cleanup = NULL;
	if (run_pid > 0) {
		kill(run_pid, SIGKILL);
		waitpid(run_pid, NULL, 0);
	}
	stores_end(true);
}

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* What a run says it has stored, and synced, in the store itself. */
static void look_into_store(const struct run *r)
{
	uint64_t *page = aligned_alloc(PAGE, PAGE), word;
	int fd = open(r->lower, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (!page || fd < 0)
		die("%s: %s", r->lower, strerror(errno));
	if (!r->n_checks || r->n_checks > CHECKS_MAX)
		die("%s: nothing to look for", contestants[r->who].name);
	for (unsigned i = 0; i < r->n_checks; i++) {
		uint64_t off = r->check[i].off;

		if (pread(fd, page, PAGE, (off_t)(off & ~(PAGE - 1))) != (ssize_t)PAGE)
			die("%s: %s", r->lower, strerror(errno));
		memcpy(&word, (char *)page + off % PAGE, 8);
		if (word != r->check[i].word)
			die("%s: what was stored at %" PRIu64 " and synced is not in the store", contestants[r->who].name, off);
	}
	close(fd);
	free(page);
}

static void run_wait(const struct workload *w, int sock)
{
	int status, n;
	char c;

	for (;;) {
		n = poll(&(struct pollfd){ .fd = sock, .events = POLLIN }, 1, RUN_TIMEOUT_MS);
		if (interrupted)
			die("interrupted");
		if (n == 0)
			die("%s by %s takes too long", w->name, contestants[shared->who].name);
		if (n < 0 || recv(sock, &c, 1, 0) != 1)
			break;
		look_into_store(shared);
		if (send(sock, &c, 1, MSG_NOSIGNAL) != 1)
			break;
	}
	if (waitpid(run_pid, &status, 0) != run_pid || status) {
		run_pid = 0;
		die("%s by %s failed", w->name, contestants[shared->who].name);
	}
	run_pid = 0;
}

static void run_one(unsigned workload, enum contestant who, int number)
{
	const struct workload *w = workload_at(workload);
	int sock[2];

	memset(shared, 0, sizeof(*shared));
	shared->workload = workload;
	shared->who = who;
	shared->number = (unsigned)number;
	stores_prepare(shared, w);
	shared->seconds = shared->slow ? options.slow_seconds : 60;
	if (w->cold)
		stores_drop(shared, w);
	noise_sample();
	if (interrupted)
		die("interrupted");
	fflush(NULL);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		die("socketpair: %s", strerror(errno));
	run_pid = fork();
	if (run_pid < 0)
		die("fork: %s", strerror(errno));
	if (run_pid == 0)
		run_exec(sock[1]);
	close(sock[1]);
	run_wait(w, sock[0]);
	close(sock[0]);
}

static void run_workload(unsigned workload, unsigned delay_ms, unsigned who_may)
{
	static struct outcome o;
	const struct workload *w = workload_at(workload);

	o = (struct outcome){ .w = w, .delay_ms = delay_ms, .contestants = w->contestants & who_may };
	if (!o.contestants)
		return;
	if (w->huge && !stores_allow_huge()) {
		fprintf(stderr, "pgc-bench: left out: %s (only root may have the system hand out huge pages)\n", w->name);
		return;
	}
	stores_use(delay_ms, w->setting);
	for (int run = 0; run < options.runs; run++)
		for (int i = 0; i < CONTESTANTS; i++) {
			enum contestant who = (enum contestant)((run + i) % CONTESTANTS); /* none always comes after the same one */

			if (!(o.contestants & BIT(who)))
				continue;
			run_one(workload, who, run + 1);
			o.values[who][run] = shared->value;
			o.second[who][run] = shared->second;
			hist_merge(&o.hist[who], &shared->hist);
		}
	report_add(&o);
}

static bool databases_have(const struct workload *w)
{
	return (databases_lmdb || w->run != run_lmdb_read) && (databases_sqlite || (w->run != run_sqlite_read && w->run != run_sqlite_write));
}

/* On slow stores those that are meant for them, or those that were asked for by name. */
static bool wanted(unsigned workload, unsigned delay_ms)
{
	const struct workload *w = workload_at(workload);

	return (options.any ? options.chosen[workload] : !delay_ms || w->slow) && databases_have(w);
}

static void run_all(void)
{
	for (unsigned d = 0; d < options.n_delays; d++) {
		unsigned delay = options.delays[d];
		unsigned who_may = stores.contestants & (delay ? ~FUSE_CONTESTANTS : ~0u), any = 0;

		for (unsigned i = 0; workload_at(i); i++)
			if (wanted(i, delay))
				any |= workload_at(i)->contestants & who_may;
		if (!any || (delay && !stores.need_fuse))
			continue;
		report_store(delay, who_may & any);
		for (unsigned i = 0; workload_at(i); i++)
			if (wanted(i, delay))
				run_workload(i, delay, who_may);
	}
}

/* ---- the command ---- */

static void usage(FILE *out)
{
	fprintf(out, "Usage: pgc-bench [OPTION]...\n"
		"       pgc-bench --out-of-core [OPTION]...   (its own --help)\n"
		"       pgc-bench --fairness [OPTION]...      (its own --help)\n"
		"       pgc-bench --pause [OPTION]...         (its own --help)\n"
		"pagecached, through its library and the preload library, beside the kernel and a FUSE file system; tables on stdout.\n\n"
		"  --daemon PATH         the daemon to start (default $PAGECACHED_BIN)\n"
		"  --set KEY=VALUE       a further line of its configuration; may be given again\n"
		"  --preload PATH        the preload library (default $PAGECACHED_PRELOAD)\n"
		"  --fuse PATH           the FUSE file system (default pgc-fuse, beside this program)\n"
		"  --dir DIR             make files here, up to seven of the size below (default /var/tmp)\n"
		"  --file-size SIZE      K, M, G suffixes; whole MiB (default 1G)\n"
		"  --runs N              runs of each contestant, 1 to %d (default 5)\n"
		"  --only LIST           these workloads, with commas; may be given again\n"
		"  --contestants LIST    these contestants, with commas\n"
		"  --slow LIST           also on stores that take so many ms for each read and write, with commas, or none (default 1,10,50)\n"
		"  --slow-seconds N      there a run ends after about so many tenths of a second (default 4)\n"
		"  --json FILE           all values, too\n"
		"  --csv FOLDER          latencies and series, for gnuplot\n"
		"On slow stores only some workloads are run, or those named with --only.\n"
		"Workloads:", RUNS_MAX);
	for (unsigned i = 0; workload_at(i); i++)
		fprintf(out, " %s%s", workload_at(i)->name, databases_have(workload_at(i)) ? "" : " (not in this build)");
	fprintf(out, "\nContestants:");
	for (size_t i = 0; i < ELEMS(contestants); i++)
		fprintf(out, " %s", contestants[i].name);
	fputc('\n', out);
}

static void parse_only(const char *list)
{
	while (*list) {
		size_t n = strcspn(list, ",");
		unsigned i = 0;

		while (workload_at(i) && (strlen(workload_at(i)->name) != n || memcmp(workload_at(i)->name, list, n)))
			i++;
		if (!workload_at(i))
			die("--only: there is no %.*s", (int)n, list);
		if (!databases_have(workload_at(i)))
			die("--only: %s is not in this build", workload_at(i)->name);
		options.chosen[i] = options.any = true;
		list += n + (list[n] == ',');
	}
}

static unsigned parse_contestants(const char *list)
{
	unsigned bits = 0;

	while (*list) {
		size_t n = strcspn(list, ",");
		unsigned i = 0;

		while (i < CONTESTANTS && (strlen(contestants[i].name) != n || memcmp(contestants[i].name, list, n)))
			i++;
		if (i == CONTESTANTS)
			die("--contestants: there is no %.*s", (int)n, list);
		bits |= BIT(i);
		list += n + (list[n] == ',');
	}
	if (!bits)
		die("--contestants: none");
	return bits;
}

static void parse_slow(const char *list)
{
	char number[8];

	options.n_delays = 1;
	while (strcmp(list, "none") && *list) {
		size_t n = strcspn(list, ",");

		snprintf(number, sizeof(number), "%.*s", (int)n, list);
		if (options.n_delays > DELAYS_MAX)
			die("--slow: at most %u", DELAYS_MAX);
		options.delays[options.n_delays++] = bench_parse_number("slow", number, 1, 10000);
		list += n + (list[n] == ',');
	}
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "daemon", 1, NULL, 'D' }, { "set", 1, NULL, 'S' }, { "preload", 1, NULL, 'p' }, { "fuse", 1, NULL, 'F' }, { "dir", 1, NULL, 'd' },
		{ "file-size", 1, NULL, 'f' }, { "runs", 1, NULL, 'r' }, { "only", 1, NULL, 'o' }, { "contestants", 1, NULL, 'c' }, { "slow", 1, NULL, 's' },
		{ "slow-seconds", 1, NULL, 't' }, { "json", 1, NULL, 'j' }, { "csv", 1, NULL, 'C' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	static char fuse[512];
	int c;

	bench_beside("pgc-fuse", fuse);
	stores.fuse = fuse;
	stores.daemon = getenv("PAGECACHED_BIN");
	stores.preload = getenv("PAGECACHED_PRELOAD");
	parse_slow("1,10,50");
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 'D': stores.daemon = optarg; break;
		case 'S':
			if (stores.n_settings == ELEMS(stores.settings) || !strchr(optarg, '='))
				die("--set %s: KEY=VALUE, at most %zu times", optarg, ELEMS(stores.settings));
			stores.settings[stores.n_settings++] = optarg;
			break;
		case 'p': stores.preload = optarg; break;
		case 'F': stores.fuse = optarg; break;
		case 'd': stores.dir = optarg; break;
		case 'f': stores.size = bench_parse_size("file-size", optarg); break;
		case 'r': options.runs = (int)bench_parse_number("runs", optarg, 1, RUNS_MAX); break;
		case 'o': parse_only(optarg); break;
		case 'c': stores.contestants = parse_contestants(optarg); break;
		case 's': parse_slow(optarg); break;
		case 't': options.slow_seconds = bench_parse_number("slow-seconds", optarg, 1, 600) / 10.0; break;
		case 'j': options.json = optarg; break;
		case 'C': options.csv = optarg; break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	if (optind < argc) {
		usage(stderr);
		exit(2);
	}
	stores.need_fuse = options.n_delays > 1;
}

int main(int argc, char **argv)
{
	struct sigaction a = { .sa_handler = on_signal };
	struct noise noise;

	if (argc > 1 && !strcmp(argv[1], "--out-of-core"))
		return out_of_core_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "--fairness"))
		return fairness_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "--pause"))
		return pause_main(argc - 1, argv + 1);
	if (argc == 4 && !strcmp(argv[1], "--run"))
		return run_main(argv[2], argv[3]);
	parse(argc, argv);
	own_pid = getpid();
	bench_cleanup = clean_up;
	sigaction(SIGINT, &a, NULL);
	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGHUP, &a, NULL);
	signal(SIGPIPE, SIG_IGN);
	shared = bench_shared(sizeof(*shared), &shared_fd);
	stores_begin(&stores);
	noise_begin(stores_any_file(), stores.size);
	report_begin(options.json, options.csv, stores.dir, stores.size, options.runs);
	run_all();
	noise_end(&noise);
	report_end(&noise);
	stores_end(false);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pause that clients see when the daemon is killed under its keeper. A file is cached whole; clients, each a process of its own, go on with operations that need the
 * daemon: a load and a store of a page that is not in the page table, a read call, a write call. The daemon is killed again and again. For each client and each death
 * the longest operation counts: from the death on until the next one. What the next daemons read from the store is asked of them, and must be nothing.
 *
 * A load looks whether it finds the right bytes. One thread; errors end the program with a message, after everything that was started has ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "pagecached.h"
#include "pagecached/wire.h"

#define CLIENTS_MAX  64u
#define KILLS_MAX    200u
#define STORED_PAGES 4096u           /* only these get dirty: no write-out gets in the way */
#define OP_PAUSE_NS  2000000l
#define WAIT_S       60.0            /* for anything */

enum op { LOAD, STORE, READ, WRITE, OPS };
static const char *const op_names[OPS] = { "load", "store", "read", "write" };

static struct {
	const char *daemon, *dir, *bpffs;
	uint64_t file_size;
	unsigned clients, kills;
	unsigned serve_ms;                /* from an answer of a daemon to its death; below two seconds the keeper would wait before it starts the next one */
	double median_max;                /* ms; above it the program fails. 0: no bound */
} options = { .dir = "/var/tmp", .bpffs = "none", .file_size = 1 << 30, .clients = 20, .kills = 20, .serve_ms = 2200 };

static struct shared {
	_Atomic unsigned deaths;          /* so far */
	_Atomic unsigned ready;           /* clients that have begun */
	_Atomic bool stop;
	_Atomic uint64_t ops;
	double longest[KILLS_MAX + 1][CLIENTS_MAX][OPS]; /* seconds; a client writes its own. [0]: before the first death */
} *shared;

static pid_t keeper, pids[CLIENTS_MAX + 1];
static char work_dir[300], socket_path[400];

/* --- what was started --- */

static void end_clients(int signal)
{
	for (unsigned i = 0; i <= options.clients; i++) {
		int status = 0;

		if (pids[i] <= 0)
			continue;
		if (signal)
			kill(pids[i], signal);
		if (waitpid(pids[i], &status, 0) < 0 || (!signal && status)) {
			pids[i] = 0;
			die("a client ended with status %#x", (unsigned)status);
		}
		pids[i] = 0;
	}
}

static void end_keeper(void)
{
	double end = bench_now() + WAIT_S;
	char command[400];

	if (keeper > 0) {
		kill(keeper, SIGTERM);
		while (waitpid(keeper, NULL, WNOHANG) == 0) {
			if (bench_now() > end)
				kill(keeper, SIGKILL);
			usleep(10000);
		}
		keeper = 0;
	}
	snprintf(command, sizeof(command), "rm -rf '%s'", work_dir);
	if (work_dir[0] && system(command))
		fprintf(stderr, "pgc-bench: %s is left\n", work_dir);
	work_dir[0] = '\0';
}

static void clean_up(void)
{
	bench_cleanup = NULL;
	end_clients(SIGKILL);
	end_keeper();
}

/* --- the daemon --- */

static bool ask(struct pgc_ctl_status_reply *ret)
{
	struct pgc_msg m = { .type = PGC_CTL_STATUS, .tag = 3 };
	int fd = bench_control(socket_path);
	bool ok = fd >= 0 && send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m) && recv(fd, &m, sizeof(m), 0) == sizeof(m) && !m.status;

	if (fd >= 0)
		close(fd);
	*ret = m.ctl_status_reply;
	return ok;
}

/* Another one than `before`. */
static struct pgc_ctl_status_reply wait_for_daemon(pid_t before)
{
	double end = bench_now() + WAIT_S;
	struct pgc_ctl_status_reply s;

	while (!ask(&s) || (pid_t)s.pid == before) {
		if (waitpid(keeper, NULL, WNOHANG) == keeper) {
			keeper = 0;
			die("the keeper ended");
		}
		if (bench_now() > end)
			die("no daemon answers");
		usleep(1000);
	}
	return s;
}

static void keeper_exec(const char *config)
{
	char state[400], log[400];
	int fd;

	snprintf(state, sizeof(state), "%s/state", work_dir);
	snprintf(log, sizeof(log), "%s/log", work_dir);
	fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(126);
	execl(options.daemon, options.daemon, "--keep", "--config", config, "--socket", socket_path, "--state-dir", state, "--bpffs", options.bpffs,
	      NULL);
	_exit(127);
}

static void start_keeper(void)
{
	char config[400];
	FILE *f;

	snprintf(work_dir, sizeof(work_dir), "%s/pgc-bench-daemon-XXXXXX", options.dir);
	if (!mkdtemp(work_dir)) {
		work_dir[0] = '\0';
		die("%s: %s", options.dir, strerror(errno));
	}
	snprintf(socket_path, sizeof(socket_path), "%s/socket", work_dir);
	snprintf(config, sizeof(config), "%s/pagecached.conf", work_dir);
	f = fopen(config, "we");
	if (!f)
		die("%s: %s", config, strerror(errno));
	fprintf(f, "[daemon]\nmemory_max = %" PRIu64 "\ndirty_expire = 10min\nlog_level = info\n", options.file_size + options.file_size / 4 + (64 << 20));
	fclose(f);
	fflush(NULL);
	keeper = fork();
	if (keeper < 0)
		die("fork: %s", strerror(errno));
	if (keeper == 0)
		keeper_exec(config);
	wait_for_daemon(0);
	setenv("PAGECACHED_SOCKET", socket_path, 1);
}

/* --- clients --- */

static void client_fails(unsigned id, const char *what, int error)
{
	fprintf(stderr, "pgc-bench: client %u: %s: %s\n", id, what, strerror(error < 0 ? -error : error));
	_exit(1);
}

static struct pgc_file *client_open(unsigned id)
{
	struct pgc_file *f;
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = pgc_open(&f, bench_path, O_RDWR, 0);
	if (r < 0)
		client_fails(id, bench_path, r);
	return f;
}

/* Word 0 of a page stays; the others are stored to. */
static void operate(enum op op, unsigned id, struct pgc_file *f, char *map, uint64_t page)
{
	uint64_t at = page * PAGE, word = 0;
	ssize_t n = 8;

	if ((op == LOAD || op == STORE) && madvise(map + at, PAGE, MADV_DONTNEED))
		client_fails(id, "madvise", errno);
	switch (op) {
	case LOAD:
		word = *(volatile uint64_t *)(map + at);
		break;
	case STORE:
		((volatile uint64_t *)(map + at))[1 + id] = page;
		break;
	case READ:
		n = pgc_pread(f, &word, 8, (off_t)at);
		break;
	default:
		n = pgc_pwrite(f, &page, 8, (off_t)(at + 8 * (1 + id)));
	}
	if (n != 8)
		client_fails(id, op_names[op], n < 0 ? (int)n : EIO);
	if ((op == LOAD || op == READ) && word != bench_word(at))
		client_fails(id, "wrong bytes were read", EIO);
}

static void client(unsigned id)
{
	struct pgc_file *f = client_open(id);
	char *map = pgc_mmap(f, NULL, options.file_size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t pages = options.file_size / PAGE;

	if (map == MAP_FAILED)
		client_fails(id, "mmap", errno);
	for (uint64_t i = 0; !atomic_load(&shared->stop); i++) {
		enum op op = (enum op)(i % OPS);
		uint64_t page = bench_mix(i * CLIENTS_MAX + id + 1) % (op == LOAD || op == READ ? pages : MIN_OF(pages, STORED_PAGES));
		double from = bench_now(), took;
		unsigned death;

		operate(op, id, f, map, page);
		took = bench_now() - from;
		death = atomic_load(&shared->deaths);
		if (took > shared->longest[death][id][op])
			shared->longest[death][id][op] = took;
		if (i == OPS)
			atomic_fetch_add(&shared->ready, 1);
		atomic_fetch_add_explicit(&shared->ops, 1, memory_order_relaxed);
		nanosleep(&(struct timespec){ .tv_nsec = OP_PAUSE_NS }, NULL);
	}
	pgc_munmap(map, options.file_size);
	pgc_close(f);
	_exit(0);
}

/* Has all of the file read in, and its memory kept. */
static void loader(void)
{
	struct pgc_file *f = client_open(options.clients);
	const size_t step = 1 << 20;
	char *buf = malloc(step);

	if (!buf)
		client_fails(options.clients, "memory", ENOMEM);
	for (uint64_t at = 0; at < options.file_size; at += step) {
		ssize_t n = pgc_pread(f, buf, step, (off_t)at);

		if (n != (ssize_t)step)
			client_fails(options.clients, "read", n < 0 ? (int)n : EIO);
	}
	atomic_fetch_add(&shared->ready, 1);
	while (!atomic_load(&shared->stop))
		usleep(10000);
	pgc_close(f);
	_exit(0);
}

static void start_client(unsigned i)
{
	fflush(NULL);
	pids[i] = fork();
	if (pids[i] < 0)
		die("fork: %s", strerror(errno));
	if (pids[i] > 0)
		return;
	bench_cleanup = NULL;
	if (i == options.clients)
		loader();
	client(i);
}

static void wait_ready(unsigned n)
{
	double end = bench_now() + WAIT_S;

	while (atomic_load(&shared->ready) < n) {
		for (unsigned i = 0; i <= options.clients; i++)
			if (pids[i] > 0 && waitpid(pids[i], NULL, WNOHANG) == pids[i]) {
				pids[i] = 0;
				die("a client ended");
			}
		if (bench_now() > end)
			die("the clients do not get going");
		usleep(1000);
	}
}

/* --- figures --- */

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

struct spread { double median, p99, max; }; /* ms */

static struct spread spread_of(double *seconds, size_t n)
{
	qsort(seconds, n, sizeof(*seconds), by_value);
	return (struct spread){ seconds[n / 2] * 1e3, seconds[MIN_OF(n - 1, n * 99 / 100)] * 1e3, seconds[n - 1] * 1e3 };
}

/* The longest operation of each client after each of deaths [from, to); of one kind, or OPS: of any. */
static struct spread pauses(unsigned from, unsigned to, enum op kind)
{
	double *v = calloc((size_t)(to - from) * options.clients, sizeof(*v));
	struct spread s;
	size_t n = 0;

	if (!v)
		die("out of memory");
	for (unsigned d = from; d < to; d++)
		for (unsigned c = 0; c < options.clients; c++, n++)
			for (unsigned op = 0; op < OPS; op++)
				if ((kind == OPS || kind == op) && shared->longest[d][c][op] > v[n])
					v[n] = shared->longest[d][c][op];
	s = spread_of(v, n);
	free(v);
	return s;
}

static void print_row(const char *what, struct spread s) { printf("| %s | %.1f | %.1f | %.1f |\n", what, s.median, s.p99, s.max); }

/* --- the run --- */

static void serve(void)
{
	nanosleep(&(struct timespec){ .tv_sec = options.serve_ms / 1000, .tv_nsec = options.serve_ms % 1000 * 1000000l }, NULL);
}

static void run(void)
{
	double answered[KILLS_MAX];
	struct pgc_ctl_status_reply s;
	struct spread all;
	uint64_t fill_bytes = 0;
	unsigned n = options.kills;

	start_client(options.clients);
	wait_ready(1);
	for (unsigned i = 0; i < options.clients; i++)
		start_client(i);
	wait_ready(options.clients + 1);
	s = wait_for_daemon(0);
	if (s.resident * PAGE < options.file_size)
		die("only %" PRIu64 " MiB are cached", (uint64_t)(s.resident * PAGE >> 20));
	serve();
	for (unsigned k = 0; k < n; k++) {
		pid_t pid = (pid_t)s.pid;
		double at = bench_now();

		atomic_store(&shared->deaths, k + 1);
		if (kill(pid, SIGKILL))
			die("kill: %s", strerror(errno));
		s = wait_for_daemon(pid);
		answered[k] = bench_now() - at;
		serve();
		if (!ask(&s) || (pid_t)s.pid == pid)
			die("the next daemon is gone, too");
		if (s.resident * PAGE < options.file_size)
			die("after %u deaths only %" PRIu64 " MiB are cached", k + 1, (uint64_t)(s.resident * PAGE >> 20));
		fill_bytes += s.fill_bytes;
	}
	atomic_store(&shared->stop, true);
	end_clients(0);

	printf("%u clients, %" PRIu64 " MiB cached, %u deaths, %" PRIu64 " operations; read from the store after a death: %" PRIu64 " bytes\n\n",
	       options.clients, options.file_size >> 20, n, atomic_load(&shared->ops), fill_bytes);
	printf("| longest operation of a client after a death, ms | median | p99 | most |\n|---|---|---|---|\n");
	all = pauses(1, n + 1, OPS);
	print_row("any", all);
	for (unsigned op = 0; op < OPS; op++)
		print_row(op_names[op], pauses(1, n + 1, (enum op)op));
	print_row("any, without a death", pauses(0, 1, OPS));
	print_row("until a daemon answers a new connection", spread_of(answered, n));
	fflush(stdout);
	if (fill_bytes > 0)
		die("%" PRIu64 " bytes were read from the store again", fill_bytes);
	if (options.median_max > 0 && all.median > options.median_max)
		die("the median pause is %.1f ms, above %.1f ms", all.median, options.median_max);
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: pgc-bench --pause --daemon FILE [OPTION]...\n"
		"How long clients pause when the daemon is killed under its keeper; a table on stdout.\n\n"
		"  --daemon FILE       the daemon's program\n"
		"  --dir DIR           make the file and the daemon's folder here (default /var/tmp)\n"
		"  --bpffs DIR         where it pins its maps (default none: its state is in files)\n"
		"  --file-size SIZE    K, M, G suffixes; whole MiB (default 1G)\n"
		"  --clients N         to %u (default 20)\n"
		"  --kills N           to %u (default 20)\n"
		"  --serve MS          how long a daemon serves before it is killed (default 2200); one that dies early has the keeper wait\n"
		"  --median-max MS     fail if the median pause is longer\n", CLIENTS_MAX, KILLS_MAX);
}

int pause_main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "daemon", 1, NULL, 'D' }, { "dir", 1, NULL, 'd' }, { "bpffs", 1, NULL, 'b' }, { "file-size", 1, NULL, 'f' }, { "clients", 1, NULL, 'c' },
		{ "kills", 1, NULL, 'k' }, { "serve", 1, NULL, 's' }, { "median-max", 1, NULL, 'm' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 'D': options.daemon = optarg; break;
		case 'd': options.dir = optarg; break;
		case 'b': options.bpffs = optarg; break;
		case 'f': options.file_size = bench_parse_size("file-size", optarg); break;
		case 'c': options.clients = bench_parse_number("clients", optarg, 1, CLIENTS_MAX); break;
		case 'k': options.kills = bench_parse_number("kills", optarg, 1, KILLS_MAX); break;
		case 's': options.serve_ms = bench_parse_number("serve", optarg, 10, 60000); break;
		case 'm': options.median_max = bench_parse_number("median-max", optarg, 1, 100000); break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	if (optind < argc || !options.daemon) {
		usage(stderr);
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	bench_cleanup = clean_up;
	bench_make_file(options.dir, NULL, options.file_size);
	start_keeper();
	run();
	clean_up();
	bench_remove_file();
	return 0;
}

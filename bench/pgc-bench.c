/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache against the kernel's own mmap of the same file, in one run: each workload is run by both contestants in turn, several
 * times, and the medians stand side by side.
 *
 * Every run is a process of its own, which opens, maps and measures; only the time between two clock readings counts. Before a cold run
 * both caches are emptied (the kernel's by POSIX_FADV_DONTNEED after fsync, checked by mincore; the daemon's by its control message). A scan
 * returns a sum of what it read, so that a fast reader of wrong bytes is found out.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "pagecached.h"
#include "pagecached/wire.h"

#define RANDOM_TOUCHES 4000u
#define STORE_PAGES    20000u
#define FSYNC_PAGES    100000u

enum contestant { KERNEL, PAGECACHED, CONTESTANTS };
static const char *const contestant_names[CONTESTANTS] = { "kernel", "pagecached" };

static struct {
	const char *socket, *dir, *json;
	uint64_t file_size;
	int runs;
	bool use[CONTESTANTS];
} options = { .dir = "/var/tmp", .file_size = 1ull << 30, .runs = 5, .use = { true, true } };

/* What one run found: written by the run's process, read when it has ended. */
static struct result {
	double value;
	uint64_t sum;
	volatile int ready;
} *shared;

/* ---- the two contestants ---- */

struct file {
	enum contestant who;
	int fd;
	struct pgc_file *f;
	uint8_t *map;
};

static void file_map(struct file *f, enum contestant who, bool write)
{
	int prot = PROT_READ | (write ? PROT_WRITE : 0), r;

	*f = (struct file){ .who = who, .fd = -1 };
	if (who == KERNEL) {
		f->fd = open(bench_path, O_RDWR | O_CLOEXEC);
		if (f->fd < 0)
			die("%s: %s", bench_path, strerror(errno));
		f->map = mmap(NULL, options.file_size, prot, MAP_SHARED, f->fd, 0);
	} else {
		r = pgc_open(&f->f, bench_path, O_RDWR, 0);
		if (r < 0)
			die("pgc_open: %s", strerror(-r));
		f->map = pgc_mmap(f->f, NULL, options.file_size, prot, MAP_SHARED, 0);
	}
	if (f->map == MAP_FAILED)
		die("mmap: %s", strerror(errno));
}

static void file_random(struct file *f)
{
	int r = f->who == KERNEL ? (madvise(f->map, options.file_size, MADV_RANDOM) ? -errno : 0) :
		pgc_madvise(f->map, options.file_size, MADV_RANDOM);

	if (r < 0)
		die("madvise: %s", strerror(-r));
}

static void file_sync(struct file *f)
{
	int r = f->who == KERNEL ? (fsync(f->fd) ? -errno : 0) : pgc_fsync(f->f);

	if (r < 0)
		die("fsync: %s", strerror(-r));
}

static void control_drop(void)
{
	struct pgc_msg m = { .type = PGC_CTL_DROP, .tag = 2 };
	const char *name = getenv("PAGECACHED_SOCKET");
	int fd = bench_control(name ? name : "/run/pagecached/socket");

	if (fd < 0)
		die("%s: no daemon: %s", name ? name : "/run/pagecached/socket", strerror(-fd));
	if (send(fd, &m, sizeof(m), 0) != sizeof(m) || recv(fd, &m, sizeof(m), 0) != sizeof(m) || m.status)
		die("the daemon does not drop its pages: %s", strerror((int)m.status));
	close(fd);
}

static void make_cold(enum contestant who)
{
	if (who == PAGECACHED)
		control_drop();
	bench_kernel_drop(options.file_size);
}

static uint64_t scan(const struct file *f, uint64_t step)
{
	uint64_t sum = 0, word;

	for (uint64_t off = 0; off < options.file_size; off += step) {
		memcpy(&word, f->map + off, 8);
		sum += word;
	}
	return sum;
}

/* ---- workloads: each runs in a process of its own ---- */

static void cold_sequential(enum contestant who, struct result *ret)
{
	struct file f;
	double from;

	file_map(&f, who, false);
	from = bench_now();
	ret->sum = scan(&f, 8);
	ret->value = (double)options.file_size / 1e9 / (bench_now() - from);
}

static void cold_random(enum contestant who, struct result *ret)
{
	uint32_t n = (uint32_t)(options.file_size / PAGE), *order = bench_shuffled(n, 1);
	uint32_t touches = n < RANDOM_TOUCHES ? n : RANDOM_TOUCHES;
	uint64_t word;
	struct file f;
	double from;

	file_map(&f, who, false);
	file_random(&f);
	from = bench_now();
	for (uint32_t i = 0; i < touches; i++) {
		memcpy(&word, f.map + order[i] * PAGE, 8);
		ret->sum += word;
	}
	ret->value = (bench_now() - from) * 1e6 / touches;
}

/* Another process has it all mapped and stays. */
static void warm_second(enum contestant who, struct result *ret)
{
	struct result *ready = shared + 1;
	struct file f;
	double from;
	pid_t pid;

	ready->ready = 0;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		file_map(&f, who, false);
		ready->sum = scan(&f, PAGE);
		ready->ready = 1;
		for (;;)
			pause();
	}
	while (!ready->ready) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			die("the first process has ended");
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	file_map(&f, who, false);
	from = bench_now();
	ret->sum = scan(&f, PAGE);
	ret->value = (bench_now() - from) * 1e9 / (double)(options.file_size / PAGE);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (ret->sum != ready->sum)
		die("%s: two processes read different bytes", contestant_names[who]);
}

static void first_store(enum contestant who, struct result *ret, bool sequence)
{
	uint32_t n = (uint32_t)(options.file_size / PAGE);
	uint32_t pages = n < STORE_PAGES ? n : STORE_PAGES, *order = bench_shuffled(pages, 2);
	struct file f;
	double from;

	file_map(&f, who, true);
	file_sync(&f);
	ret->sum = scan(&f, PAGE);
	from = bench_now();
	for (uint32_t i = 0; i < pages; i++)
		f.map[(sequence ? i : order[i]) * PAGE + 2048]++;
	ret->value = (bench_now() - from) * 1e6 / pages;
	file_sync(&f);
}

static void first_store_random(enum contestant who, struct result *ret) { first_store(who, ret, false); }
static void first_store_sequence(enum contestant who, struct result *ret) { first_store(who, ret, true); }

static void fsync_dirty(enum contestant who, struct result *ret)
{
	uint64_t n = options.file_size / PAGE;
	struct file f;
	double from;

	n = n < FSYNC_PAGES ? n : FSYNC_PAGES;
	file_map(&f, who, true);
	ret->sum = scan(&f, PAGE);
	file_sync(&f);
	for (uint64_t i = 0; i < n; i++)
		f.map[i * PAGE + 1024]++;
	from = bench_now();
	file_sync(&f);
	/* Of the figure that is named; a smaller file has fewer pages. */
	ret->value = (bench_now() - from) * FSYNC_PAGES / (double)n;
}

static const struct workload {
	const char *name, *title, *unit;
	void (*run)(enum contestant who, struct result *ret);
	bool cold, more_is_better;
} workloads[] = {
	{ "cold-sequential", "cold sequential scan", "GB/s", cold_sequential, true, true },
	{ "cold-random", "cold random 4 KiB", "us", cold_random, true, false },
	{ "warm-second", "warm second process", "ns/page", warm_second, false, false },
	{ "first-store", "first store to a clean resident page, random order", "us", first_store_random, false, false },
	{ "first-store-sequence", "first store to a clean resident page, in sequence", "us", first_store_sequence, false, false },
	{ "fsync", "fsync of 100,000 dirty pages", "s", fsync_dirty, false, false },
};

static struct result run_one(const struct workload *w, enum contestant who)
{
	int status;
	pid_t pid;

	if (w->cold)
		make_cold(who);
	memset(shared, 0, 2 * sizeof(*shared));
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		w->run(who, shared);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		die("%s by %s failed", w->name, contestant_names[who]);
	return *shared;
}

/* ---- figures ---- */

static FILE *json_start(void)
{
	FILE *f;

	if (!options.json)
		return NULL;
	f = fopen(options.json, "we");
	if (!f)
		die("%s: %s", options.json, strerror(errno));
	fprintf(f, "{\"file_size\": %" PRIu64 ", \"runs\": %d, \"workloads\": [", options.file_size, options.runs);
	return f;
}

static void run_workload(const struct workload *w, FILE *json, bool first)
{
	static double values[CONTESTANTS][RUNS_MAX];
	struct figures f[CONTESTANTS];
	uint64_t sums[CONTESTANTS] = { 0 };

	/* What nobody counts: the pages come in, so that all runs of a warm workload find the same. */
	for (int who = 0; who < CONTESTANTS && !w->cold; who++)
		if (options.use[who])
			(void)run_one(w, (enum contestant)who);
	for (int run = 0; run < options.runs; run++)
		for (int who = 0; who < CONTESTANTS; who++) {
			struct result r;

			if (!options.use[who])
				continue;
			r = run_one(w, (enum contestant)who);
			values[who][run] = r.value;
			sums[who] = r.sum;
		}
	if (w->cold && options.use[KERNEL] && options.use[PAGECACHED] && sums[KERNEL] != sums[PAGECACHED])
		die("%s: the contestants read different bytes", w->name);
	printf("| %s | %s |", w->title, w->unit);
	if (json)
		fprintf(json, "%s\n  {\"name\": \"%s\", \"unit\": \"%s\"", first ? "" : ",", w->name, w->unit);
	for (int who = 0; who < CONTESTANTS; who++) {
		if (!options.use[who]) {
			printf(" |");
			continue;
		}
		if (json) {
			fprintf(json, ", \"%s\": {\"values\": [", contestant_names[who]);
			for (int i = 0; i < options.runs; i++)
				fprintf(json, "%s%.6g", i ? ", " : "", values[who][i]);
		}
		f[who] = bench_figures(values[who], options.runs);
		bench_print_figures(&f[who]);
		if (json)
			fprintf(json, "], \"median\": %.6g, \"min\": %.6g, \"max\": %.6g}", f[who].median, f[who].min, f[who].max);
	}
	if (options.use[KERNEL] && options.use[PAGECACHED]) {
		double ratio = w->more_is_better ? f[PAGECACHED].median / f[KERNEL].median : f[KERNEL].median / f[PAGECACHED].median;

		printf(" %.2f |", ratio);
		if (json)
			fprintf(json, ", \"ratio\": %.4g", ratio);
	} else
		printf(" |");
	putchar('\n');
	fflush(stdout);
	if (json)
		fprintf(json, "}");
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: pgc-bench [OPTION]...\n"
		"       pgc-bench --out-of-core [OPTION]...   (its own --help)\n"
		"       pgc-bench --fairness [OPTION]...      (its own --help)\n"
		"       pgc-bench --pause [OPTION]...         (its own --help)\n"
		"The cache against the kernel's mmap of the same file; a table on stdout.\n\n"
		"  --socket PATH       the daemon's socket (default $PAGECACHED_SOCKET)\n"
		"  --dir DIR           make the file here (default /var/tmp)\n"
		"  --file-size SIZE    K, M, G suffixes; whole MiB (default 1G)\n"
		"  --runs N            runs of each contestant, 5 to %d (default 5)\n"
		"  --only WORKLOAD     this one; may be given again\n"
		"  --contestant NAME   only kernel, or only pagecached\n"
		"  --json FILE         all values, too\n"
		"Workloads:", RUNS_MAX);
	for (size_t i = 0; i < ELEMS(workloads); i++)
		fprintf(out, " %s", workloads[i].name);
	fputc('\n', out);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "socket", 1, NULL, 's' }, { "dir", 1, NULL, 'd' }, { "file-size", 1, NULL, 'f' }, { "runs", 1, NULL, 'r' },
		{ "only", 1, NULL, 'o' }, { "contestant", 1, NULL, 'c' }, { "json", 1, NULL, 'j' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	bool chosen[ELEMS(workloads)] = { false }, any = false, first = true;
	FILE *json;
	int c;

	if (argc > 1 && !strcmp(argv[1], "--out-of-core"))
		return out_of_core_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "--fairness"))
		return fairness_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "--pause"))
		return pause_main(argc - 1, argv + 1);
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 's': options.socket = optarg; break;
		case 'd': options.dir = optarg; break;
		case 'f': options.file_size = bench_parse_size("file-size", optarg); break;
		case 'j': options.json = optarg; break;
		case 'r':
			options.runs = (int)bench_parse_number("runs", optarg, 5, RUNS_MAX);
			break;
		case 'o': {
			size_t i = 0;

			while (i < ELEMS(workloads) && strcmp(workloads[i].name, optarg))
				i++;
			if (i == ELEMS(workloads))
				die("--only %s: there is no such workload", optarg);
			chosen[i] = any = true;
			break;
		}
		case 'c':
			if (strcmp(optarg, "kernel") && strcmp(optarg, "pagecached"))
				die("--contestant %s: kernel or pagecached", optarg);
			options.use[KERNEL] = !strcmp(optarg, "kernel");
			options.use[PAGECACHED] = !options.use[KERNEL];
			break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	if (optind < argc) {
		usage(stderr);
		return 2;
	}
	if (options.socket)
		setenv("PAGECACHED_SOCKET", options.socket, 1);
	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	bench_make_file(options.dir, NULL, options.file_size);
	json = json_start();
	printf("| workload | unit | kernel mmap, median (min - max) | pagecached, median (min - max) | ratio |\n|---|---|---|---|---|\n");
	for (size_t i = 0; i < ELEMS(workloads); i++) {
		if (any && !chosen[i])
			continue;
		run_workload(&workloads[i], json, first);
		first = false;
	}
	if (json) {
		fprintf(json, "\n]}\n");
		if (fclose(json))
			die("%s: %s", options.json, strerror(errno));
	}
	bench_remove_file();
	return 0;
}

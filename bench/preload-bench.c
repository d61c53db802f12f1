/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the preload library costs where it has nothing to do: calls on files that no pattern names. The program runs itself with and without the library, in
 * turn. No daemon is needed. Each call is timed in batches, and of a run the fastest batch counts: what is slower was disturbed. Printed are the medians of the
 * runs, and what the fastest run with the library takes more than the fastest without.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define BATCHES 200
#define BATCH   500
#define GOAL_NS 30

extern char **environ;

static int file, null;
static char path[512];

static void call_read(void)
{
	char c;

	if (read(file, &c, 1) != 1)
		die("read");
}

static void call_write(void)
{
	if (write(null, "x", 1) != 1)
		die("write");
}

static void call_pread(void)
{
	char c;

	if (pread(file, &c, 1, 4000) != 1)
		die("pread");
}

static void call_lseek(void)
{
	if (lseek(file, 0, SEEK_SET) != 0)
		die("lseek");
}

static void call_fstat(void)
{
	struct stat st;

	if (fstat(file, &st) < 0)
		die("fstat");
}

static void call_stat(void)
{
	struct stat st;

	if (stat(path, &st) < 0)
		die("stat");
}

static void call_open(void)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || close(fd) < 0)
		die("open");
}

static void call_dup(void)
{
	int fd = dup(file);

	if (fd < 0 || close(fd) < 0)
		die("dup");
}

static void call_mmap(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0);

	if (p == MAP_FAILED || munmap(p, PAGE) < 0)
		die("mmap");
}

static void call_fcntl(void)
{
	if (fcntl(file, F_GETFL) < 0)
		die("fcntl");
}

static const struct { const char *name; void (*call)(void); unsigned calls; } calls[] = {
	{ "read", call_read, 1 }, { "write", call_write, 1 }, { "pread", call_pread, 1 }, { "lseek", call_lseek, 1 }, { "fcntl", call_fcntl, 1 },
	{ "fstat", call_fstat, 1 }, { "stat", call_stat, 1 }, { "open, close", call_open, 2 }, { "dup, close", call_dup, 2 },
	{ "mmap, munmap", call_mmap, 2 },
};
#define N_CALLS ELEMS(calls)

/* --- one run --- */

static void measure(const char *name)
{
	double ns[N_CALLS];

	snprintf(path, sizeof(path), "%s", name);
	file = open(path, O_RDWR | O_CLOEXEC);
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (file < 0 || null < 0)
		die("%s: %s", path, strerror(errno));
	for (size_t i = 0; i < N_CALLS; i++) {
		ns[i] = 0;
		if (lseek(file, 0, SEEK_SET) < 0)
			die("lseek");
		for (unsigned b = 0; b < BATCHES; b++) {
			double t = bench_now();

			for (unsigned n = 0; n < BATCH; n++)
				calls[i].call();
			t = (bench_now() - t) * 1e9 / BATCH;
			if (b == 0 || t < ns[i])
				ns[i] = t;
		}
	}
	if (fwrite(ns, sizeof(ns), 1, stdout) != 1 || fflush(stdout))
		die("write: %s", strerror(errno));
}

static void run(const char *name, const char *library, const char *pattern, double ret[N_CALLS])
{
	size_t got = 0;
	int fd[2], st;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) < 0)
		die("pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		if (dup2(fd[1], STDOUT_FILENO) < 0)
			_exit(1);
		unsetenv("LD_PRELOAD");
		if (library && (setenv("LD_PRELOAD", library, 1) || setenv("PAGECACHED_PATHS", pattern, 1)))
			_exit(1);
		execl("/proc/self/exe", "preload-bench", "--measure", name, NULL);
		_exit(127);
	}
	close(fd[1]);
	while (got < N_CALLS * sizeof(ret[0])) {
		ssize_t n = read(fd[0], (char *)ret + got, N_CALLS * sizeof(ret[0]) - got);

		if (n <= 0)
			die("a run said nothing");
		got += (size_t)n;
	}
	close(fd[0]);
	if (waitpid(pid, &st, 0) != pid || st)
		die("a run failed");
}

/* Without this it would be the plain calls that are measured twice. */
static void check_library(const char *library)
{
	char line[1024];
	FILE *f;
	int loaded = 0;

	if (setenv("LD_PRELOAD", library, 1))
		die("setenv");
	f = popen("cat /proc/self/maps", "r");
	while (f && fgets(line, sizeof(line), f))
		loaded |= strstr(line, library) != NULL;
	if (!f || pclose(f) || !loaded)
		die("%s is not loaded by LD_PRELOAD", library);
	unsetenv("LD_PRELOAD");
}

/* --- main --- */

static char made[512];

static void remove_made(void)
{
	unlink(made);
}

static void make_file(const char *dir)
{
	int fd;

	snprintf(made, sizeof(made), "%s/preload-bench-XXXXXX", dir);
	fd = mkostemp(made, O_CLOEXEC);
	if (fd < 0)
		die("%s: %s", made, strerror(errno));
	bench_cleanup = remove_made;
	if (ftruncate(fd, BATCHES * BATCH + PAGE) < 0)
		die("%s: %s", made, strerror(errno));
	close(fd);
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: preload-bench --library FILE [OPTION]...\n"
		"What the preload library costs calls on files that are not its own; a table on stdout.\n\n"
		"  --library FILE   libpagecached-preload.so\n"
		"  --path PATTERN   what it looks for (default /nonexistent/**)\n"
		"  --dir DIR        make the file here (default /var/tmp)\n"
		"  --runs N         runs of each, 3 to %d (default 9)\n", RUNS_MAX);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "library", 1, NULL, 'l' }, { "path", 1, NULL, 'p' }, { "dir", 1, NULL, 'd' }, { "runs", 1, NULL, 'r' }, { "measure", 1, NULL, 'm' },
		{ "help", 0, NULL, 'h' }, { 0 },
	};
	static double plain[N_CALLS][RUNS_MAX], under[N_CALLS][RUNS_MAX];
	const char *library = NULL, *pattern = "/nonexistent/**", *dir = "/var/tmp";
	unsigned runs = 9;
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 'l':
			library = optarg;
			break;
		case 'p':
			pattern = optarg;
			break;
		case 'd':
			dir = optarg;
			break;
		case 'r':
			runs = bench_parse_number("--runs", optarg, 3, RUNS_MAX);
			break;
		case 'm':
			measure(optarg);
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	if (!library || optind < argc) {
		usage(stderr);
		return 2;
	}
	library = realpath(library, NULL);
	if (!library)
		die("--library: %s", strerror(errno));
	check_library(library);
	make_file(dir);
	for (unsigned r = 0; r < runs; r++) {
		double ns[2][N_CALLS];

		/* Each is first as often as second. */
		run(made, r % 2 ? library : NULL, pattern, ns[r % 2]);
		run(made, r % 2 ? NULL : library, pattern, ns[!(r % 2)]);
		for (size_t i = 0; i < N_CALLS; i++) {
			plain[i][r] = ns[0][i];
			under[i][r] = ns[1][i];
		}
	}
	printf("| calls | without, ns | with, ns | more for each call, ns |\n|---|---|---|---|\n");
	for (size_t i = 0; i < N_CALLS; i++) {
		struct figures a = bench_figures(plain[i], (int)runs), b = bench_figures(under[i], (int)runs);
		double more = (b.min - a.min) / calls[i].calls;

		printf("| %s | %.0f | %.0f | %.0f%s |\n", calls[i].name, a.median, b.median, more, more < GOAL_NS ? "" : " **above the goal**");
	}
	remove_made();
	return 0;
}

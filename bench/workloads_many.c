/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads of many processes: each is a fork of the run's process, made before that has opened anything, and opens and maps for itself.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "run.h"

#define SECONDS 0.3               /* of touches */

enum { BEGUN = 1, DONE };

static const struct workload *workload;
static uint32_t *order;

/* ---- processes ---- */

static pid_t part_start(struct run *r, unsigned i, void (*body)(struct run *r, unsigned i))
{
	pid_t pid;

	r->part[i] = (struct part){ 0 };
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(r, i);
		__atomic_store_n(&r->part[i].status, DONE, __ATOMIC_RELEASE);
		for (;;)
			pause();
	}
	return pid;
}

/* Until all have come so far. */
static void parts_wait(struct run *r, const pid_t *pids, unsigned n, int status)
{
	for (unsigned i = 0; i < n; i++)
		while (__atomic_load_n(&r->part[i].status, __ATOMIC_ACQUIRE) < status) {
			if (waitpid(pids[i], NULL, WNOHANG) == pids[i])
				die("process %u of %u has ended", i, n);
			nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
		}
}

static void parts_end(const pid_t *pids, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	for (unsigned i = 0; i < n; i++)
		waitpid(pids[i], NULL, 0);
}

/* Waits for the word to begin, which all get at once. */
static void part_begin(struct run *r, unsigned i)
{
	__atomic_store_n(&r->part[i].status, BEGUN, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&r->ready, __ATOMIC_ACQUIRE))
		nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
}

/* ---- what they cost together ---- */

static uint64_t kib_after(const char *path, const char *key)
{
	char text[8192], *p;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (fd >= 0)
		close(fd);
	if (n < 0)
		die("%s: %s", path, strerror(errno));
	text[n] = '\0';
	p = strstr(text, key);
	return p ? strtoull(p + strlen(key), NULL, 10) : 0;
}

/* A page that several have mapped counts once (PSS). */
static uint64_t process_kib(pid_t pid)
{
	char path[64];
	uint64_t kib;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	kib = kib_after(path, "Pss:");
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	return kib + kib_after(path, "VmPTE:");
}

/* Of a file that no process has mapped. */
static uint64_t cached_kib(const char *path, uint64_t size)
{
	uint64_t pages = size / PAGE, in = 0;
	unsigned char *core = malloc(pages);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

	if (!core || p == MAP_FAILED || mincore(p, size, core))
		die("%s: %s", path, strerror(errno));
	for (uint64_t i = 0; i < pages; i++)
		in += core[i] & 1;
	munmap(p, size);
	close(fd);
	free(core);
	return in * (PAGE / 1024);
}

/* The file as it is in memory, once for all who have it, buffers, page tables, and what the server of it needs. */
static double memory_mib(const struct run *r, const pid_t *pids, unsigned n)
{
	uint64_t kib = 0;

	for (unsigned i = 0; i < n; i++)
		kib += process_kib(pids[i]);
	if (r->server)
		kib += process_kib(r->server);
	if (BIT(r->who) & FUSE_CONTESTANTS)
		kib += cached_kib(r->lower, r->size);
	return (double)kib / 1024;
}

/* ---- n processes have the same file mapped, all of it; the cache has it ---- */

static void touch_file(struct run *r)
{
	struct subject s;

	subject_open_read_only(&s, r->who, r->path);
	touch_all(subject_map(&s, r->size, false), 0, r->size);
}

static void process_body(struct run *r, unsigned i)
{
	part_begin(r, i);
	touch_file(r);
}

static void first_body(struct run *r, unsigned i) { touch_file(r); }

void run_processes(struct run *r, const struct workload *w)
{
	pid_t pids[PARTS_MAX];
	unsigned n = (unsigned)w->n;
	double from;

	pids[0] = part_start(r, 0, first_body);
	parts_wait(r, pids, 1, DONE);
	parts_end(pids, 1);
	for (unsigned i = 0; i < n; i++)
		pids[i] = part_start(r, i, process_body);
	parts_wait(r, pids, n, BEGUN);
	from = bench_now();
	__atomic_store_n(&r->ready, 1, __ATOMIC_RELEASE);
	parts_wait(r, pids, n, DONE);
	r->value = bench_now() - from;
	if (w->second_title)
		r->second = memory_mib(r, pids, n);
	parts_end(pids, n);
}

/* ---- n processes start on a file that is in the cache, each reads a word of every block, in an order of its own ---- */

#define BLOCK (256u << 10)

/* Processor time of the server's threads whose names begin so, in s. */
static double thread_seconds(pid_t pid, const char *name)
{
	char path[64], text[512];
	uint64_t ticks = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		unsigned long user, kernel;
		char *p;
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/task/%.10s/stat", (int)pid, e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		memset(text, 0, sizeof(text));
		if (read(fd, text, sizeof(text) - 1) > 0 && (p = strchr(text, '(')) && strncmp(p + 1, name, strlen(name)) == 0 && (p = strrchr(text, ')')) &&
		    sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) == 2)
			ticks += user + kernel;
		close(fd);
	}
	if (dir)
		closedir(dir);
	return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static void starter_body(struct run *r, unsigned i)
{
	uint32_t n = (uint32_t)(r->size / BLOCK), *blocks = bench_shuffled(n, r->number + i);
	struct subject s;
	uint8_t *map;

	subject_open(&s, r->who, r->path);
	map = subject_map(&s, r->size, false);
	subject_random(&s, map, r->size);
	part_begin(r, i);
	for (uint32_t b = 0; b < n; b++)
		touch_all(map, (uint64_t)blocks[b] * BLOCK, PAGE);
}

void run_warm_start(struct run *r, const struct workload *w)
{
	pid_t pids[PARTS_MAX];
	unsigned n = (unsigned)w->n;
	double from, used;

	pids[0] = part_start(r, 0, first_body);
	parts_wait(r, pids, 1, DONE);
	parts_end(pids, 1);
	for (unsigned i = 0; i < n; i++)
		pids[i] = part_start(r, i, starter_body);
	parts_wait(r, pids, n, BEGUN);
	used = thread_seconds(r->server, "worker");
	from = bench_now();
	__atomic_store_n(&r->ready, 1, __ATOMIC_RELEASE);
	parts_wait(r, pids, n, DONE);
	r->value = (double)n * (double)(r->size / BLOCK) / (bench_now() - from) / 1e3;
	r->second = (thread_seconds(r->server, "worker") - used) * 1e6 / ((double)n * (double)(r->size / BLOCK));
	parts_end(pids, n);
}

/* ---- n processes touch cold pages in random order, each others of them ---- */

static void random_touches(struct run *r, unsigned i, const char *path, uint64_t size, uint32_t first, uint32_t pages)
{
	struct part *p = &r->part[i];
	struct subject s;
	uint64_t word;
	uint8_t *map;
	double end;

	subject_open(&s, r->who, path);
	map = subject_map(&s, size, false);
	subject_random(&s, map, size);
	part_begin(r, i);
	p->from = p->to = bench_now();
	end = p->from + MIN_OF(r->seconds, SECONDS);
	for (; p->n < pages && p->to < end; p->n++) {
		uint64_t off = order[first + p->n] * PAGE;

		memcpy(&word, map + off, 8);
		if (word != bench_word(off))
			die("wrong bytes at %" PRIu64, off);
		p->to = bench_now();
	}
}

static void client_body(struct run *r, unsigned i)
{
	uint32_t each = (uint32_t)(r->size / PAGE / workload->n);

	random_touches(r, i, r->path, r->size, i * each, each);
}

static void file_body(struct run *r, unsigned i)
{
	char path[sizeof(r->many) + 16];

	snprintf(path, sizeof(path), "%s%u", r->many, i);
	random_touches(r, i, path, r->many_size, 0, (uint32_t)(r->many_size / PAGE));
}

static void run_parts(struct run *r, const struct workload *w, uint64_t size, void (*body)(struct run *r, unsigned i))
{
	double from = 0, to = 0, done = 0;
	unsigned n = (unsigned)w->n;
	pid_t pids[PARTS_MAX] = { 0 };

	workload = w;
	order = bench_shuffled((uint32_t)(size / PAGE), r->number);
	for (unsigned i = 0; i < n; i++)
		pids[i] = part_start(r, i, body);
	parts_wait(r, pids, n, BEGUN);
	__atomic_store_n(&r->ready, 1, __ATOMIC_RELEASE);
	parts_wait(r, pids, n, DONE);
	for (unsigned i = 0; i < n; i++) {
		from = i && from < r->part[i].from ? from : r->part[i].from;
		to = to > r->part[i].to ? to : r->part[i].to;
		done += (double)r->part[i].n;
	}
	r->value = done / (to - from) / 1e3;
	parts_end(pids, n);
	free(order);
}

void run_clients(struct run *r, const struct workload *w) { run_parts(r, w, r->size, client_body); }
void run_many_files(struct run *r, const struct workload *w) { run_parts(r, w, r->many_size, file_body); }

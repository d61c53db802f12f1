/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads on mappings. All that is read is compared with what the file has to hold. What a workload stores it finds in the store after fsync (pgc-bench looks
 * there, past all caches), and then it puts the old bytes back, so that every run finds the same file. Only what lies between two clock readings counts.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "run.h"

#define RANDOM_TOUCHES 4000u
#define STORE_PAGES    20000u
#define FAULT_PAGES    20000u
#define FAULT_EVERY    16u          /* pages: as many as the kernel maps around a fault */
#define STORE_OFFSET   2048u
#define STAMP          0x5061676553746d70ull /* what is stored differs in it from what was there */
#define CHUNK          (1ull << 20)

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t page_sum(uint64_t page, unsigned step)
{
	uint64_t sum = 0;

	for (uint64_t off = 0; off < PAGE; off += step)
		sum += bench_word(page * PAGE + off);
	return sum;
}

void touch_all(const uint8_t *map, uint64_t from, uint64_t len)
{
	uint64_t word;

	for (uint64_t off = from; off < from + len; off += PAGE) {
		memcpy(&word, map + off, 8);
		if (word != bench_word(off))
			die("wrong bytes at %" PRIu64, off);
	}
}

void run_check(struct run *r, uint64_t off, uint64_t word)
{
	if (r->n_checks < CHECKS_MAX) {
		r->check[r->n_checks].off = off;
		r->check[r->n_checks++].word = word;
	}
}

static void (*asks)(void);
void run_ask(void (*ask)(void)) { asks = ask; }

void run_checks(struct run *r)
{
	asks();
	r->n_checks = 0;
}

/* ---- reading ---- */

void run_cold_sequential(struct run *r, const struct workload *w)
{
	uint64_t sum = 0, wanted = 0, off = 0, word;
	struct subject s;
	double from, end;
	uint8_t *map;

	subject_open(&s, r->who, r->path);
	map = subject_map(&s, r->size, false);
	from = end = bench_now();
	while (off < r->size && end - from < r->seconds) {
		for (uint64_t to = off + CHUNK; off < to; off += 8) {
			memcpy(&word, map + off, 8);
			sum += word;
		}
		end = bench_now();
	}
	r->value = (double)off / 1e6 / (end - from);
	for (uint64_t page = 0; page < off / PAGE; page++)
		wanted += page_sum(page, 8);
	if (sum != wanted)
		die("%s by %s: wrong bytes", w->name, contestants[r->who].name);
}

struct toucher {
	struct run *r;
	const uint8_t *map;
	const uint32_t *order;
	uint32_t n, done;
	double end;
	struct hist hist;
	pthread_t id;
};

static void *toucher_main(void *arg)
{
	struct toucher *t = arg;
	uint64_t word;

	for (; t->done < t->n && bench_now() < t->end; t->done++) {
		uint64_t off = t->order[t->done] * PAGE, from = now_ns();

		memcpy(&word, t->map + off, 8);
		__asm__ volatile("" : : "r"(word) : "memory");
		hist_add(&t->hist, now_ns() - from);
		if (word != bench_word(off))
			die("wrong bytes at %" PRIu64, off);
	}
	return NULL;
}

void run_cold_random(struct run *r, const struct workload *w)
{
	uint32_t n = (uint32_t)(r->size / PAGE), threads = w->n ? (uint32_t)w->n : 1, done = 0, *order = bench_shuffled(n, r->number);
	struct toucher *t = calloc(threads, sizeof(*t));
	uint32_t each = w->n ? MIN_OF(RANDOM_TOUCHES, n / threads) : n;
	struct subject s;
	uint8_t *map;
	double from;

	if (!t)
		die("out of memory");
	subject_open(&s, r->who, r->path);
	map = subject_map(&s, r->size, false);
	if (w->n)
		subject_random(&s, map, r->size);
	from = bench_now();
	for (uint32_t i = 0; i < threads; i++) {
		t[i] = (struct toucher){ .r = r, .map = map, .order = order + i * each, .n = each, .end = from + (w->n ? r->seconds : 600) };
		if (pthread_create(&t[i].id, NULL, toucher_main, &t[i]))
			die("pthread_create");
	}
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(t[i].id, NULL);
		done += t[i].done;
	}
	r->value = done / (bench_now() - from) / 1e3;
	for (uint32_t i = 0; i < threads; i++)
		hist_merge(&r->hist, &t[i].hist);
	free(t);
	free(order);
}

/* What is mapped already. */
void run_warm_touch(struct run *r, const struct workload *w)
{
	uint32_t n = (uint32_t)(r->range / PAGE), *order = bench_shuffled(n, 3);
	uint64_t sum = 0, wanted = 0, word;
	struct subject s;
	uint8_t *map;
	double from;

	subject_open(&s, r->who, r->path);
	map = subject_map(&s, r->size, false);
	touch_all(map, 0, r->range);
	from = bench_now();
	for (uint32_t i = 0; i < n; i++) {
		memcpy(&word, map + order[i] * PAGE, 8);
		sum += word;
	}
	r->value = (bench_now() - from) * 1e9 / n;
	for (uint32_t i = 0; i < n; i++)
		wanted += bench_word(i * PAGE);
	if (sum != wanted)
		die("%s by %s: wrong bytes", w->name, contestants[r->who].name);
	free(order);
}

typedef void (*opener)(struct subject *s, enum contestant who, const char *path);

/* Another process has it mapped, and stays until it is killed: all of it, or these pages alone. */
static pid_t first_begin(struct run *r, opener begin, const uint32_t *order, uint32_t pages)
{
	pid_t pid = fork();
	struct subject s;
	uint8_t *map;

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		begin(&s, r->who, r->path);
		map = subject_map(&s, r->size, false);
		if (order)
			subject_random(&s, map, r->size);
		for (uint32_t i = 0; i < pages; i++)
			touch_all(map, (order ? order[i] : i) * PAGE, PAGE);
		__atomic_store_n(&r->ready, 1, __ATOMIC_RELEASE);
		for (;;)
			pause();
	}
	while (!__atomic_load_n(&r->ready, __ATOMIC_ACQUIRE)) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			die("the first process has ended");
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return pid;
}

static void first_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

void run_warm_second(struct run *r, const struct workload *w)
{
	opener begin = w->huge ? subject_open_read_only : subject_open;
	pid_t first = first_begin(r, begin, NULL, (uint32_t)(r->range / PAGE));
	struct subject s;
	uint8_t *map;
	double from;

	begin(&s, r->who, r->path);
	map = subject_map(&s, r->size, false);
	from = bench_now();
	touch_all(map, 0, r->range);
	r->value = (bench_now() - from) * 1e9 / (double)(r->range / PAGE);
	from = bench_now();
	touch_all(map, 0, r->range);
	r->second = (bench_now() - from) * 1e9 / (double)(r->range / PAGE);
	first_end(first);
}

/* All threads that a process has now; those that the kernel made for it cannot be confined. */
static void confine(pid_t pid, const cpu_set_t *cpus)
{
	char path[64];
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		die("%s: %s", path, strerror(errno));
	while ((e = readdir(dir)))
		if (atoi(e->d_name) > 0)
			(void)sched_setaffinity(atoi(e->d_name), sizeof(*cpus), cpus);
	closedir(dir);
}

/* The first processor that we have, or the one after it: the same one where there is no other. */
static cpu_set_t one_of(const cpu_set_t *cpus, bool second)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, cpus))
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		if (!second)
			break;
		second = false;
	}
	return one;
}

static double cpu_ns(pid_t pid)
{
	struct timespec t;
	clockid_t id;

	if (!pid)
		return 0;
	if (clock_getcpuclockid(pid, &id) || clock_gettime(id, &t))
		die("the server has ended");
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Whoever serves it has the page, and none around it; another process has it mapped, and this one touches it for the first time. */
void run_fault_memory(struct run *r, const struct workload *w)
{
	uint32_t pages = (uint32_t)(r->range / PAGE / FAULT_EVERY), *order = bench_shuffled(pages, r->number);
	cpu_set_t all, ours, servers;
	struct subject s;
	uint8_t *map;
	double cpu;
	pid_t first;

	pages = MIN_OF(pages, FAULT_PAGES);
	for (uint32_t i = 0; i < pages; i++)
		order[i] *= FAULT_EVERY;
	first = first_begin(r, subject_open, order, pages);
	subject_open(&s, r->who, r->path);
	map = subject_map(&s, r->size, false);
	subject_random(&s, map, r->size);
	if (sched_getaffinity(0, sizeof(all), &all))
		die("sched_getaffinity: %s", strerror(errno));
	ours = one_of(&all, false);
	servers = one_of(&all, w->n == OTHER_CPU);
	if (w->n != ANY_CPU && sched_setaffinity(0, sizeof(ours), &ours))
		die("sched_setaffinity: %s", strerror(errno));
	if (w->n > ONE_CPU && r->server)
		confine(r->server, &servers);
	cpu = cpu_ns(r->server);
	for (uint32_t i = 0; i < pages; i++) {
		uint64_t off = order[i] * PAGE, from = now_ns(), word;

		memcpy(&word, map + off, 8);
		__asm__ volatile("" : : "r"(word) : "memory");
		hist_add(&r->hist, now_ns() - from);
		if (word != bench_word(off))
			die("wrong bytes at %" PRIu64, off);
	}
	r->value = hist_quantile(&r->hist, 0.5) / 1e3;
	r->second = (cpu_ns(r->server) - cpu) / 1e3 / pages;
	if (w->n > ONE_CPU && r->server)
		confine(r->server, &all);
	first_end(first);
	free(order);
}

/* ---- storing ---- */

static void store(uint8_t *map, uint64_t page, uint64_t change)
{
	uint64_t off = page * PAGE + STORE_OFFSET, word = bench_word(off) ^ change;

	memcpy(map + off, &word, 8);
}

static void check_stored(struct run *r, uint64_t pages)
{
	uint64_t every = pages / CHECKS_MAX + 1;

	for (uint64_t page = 0; page < pages; page += every)
		run_check(r, page * PAGE + STORE_OFFSET, bench_word(page * PAGE + STORE_OFFSET) ^ STAMP);
	run_checks(r);
}

void run_first_store(struct run *r, const struct workload *w)
{
	uint32_t pages = (uint32_t)MIN_OF(r->range / PAGE, STORE_PAGES), *order = bench_shuffled(pages, 2);
	struct subject s;
	uint8_t *map;
	double from, took;

	subject_open(&s, r->who, r->path);
	map = subject_map(&s, r->size, true);
	subject_sync(&s);
	touch_all(map, 0, pages * PAGE);
	/* Twice, since the clock takes its time: for the figure at a stretch, and, when all is clean again, one by one. */
	from = bench_now();
	for (uint32_t i = 0; i < pages; i++)
		store(map, w->n ? i : order[i], STAMP);
	took = bench_now() - from;
	subject_sync(&s);
	check_stored(r, pages);
	for (uint32_t i = 0; i < pages; i++) {
		uint64_t at = now_ns();

		store(map, w->n ? i : order[i], 0);
		hist_add(&r->hist, now_ns() - at);
	}
	subject_sync(&s);
	r->value = took * 1e6 / pages;
	free(order);
}

void run_fsync(struct run *r, const struct workload *w)
{
	uint64_t all = r->size / PAGE, pages = w->n ? MIN_OF(w->n, all) : all;
	uint32_t *order = bench_shuffled((uint32_t)all, 4);
	double scale = w->n ? (double)w->n / (double)pages : (double)(1 << 30) / (double)r->size, from, stored, end;
	struct subject s;
	uint8_t *map;

	subject_open(&s, r->who, r->path);
	map = subject_map(&s, r->size, true);
	subject_sync(&s);
	for (uint64_t i = 0; i < pages; i++)
		touch_all(map, (w->n ? order[i] : i) * PAGE, PAGE);
	from = bench_now();
	for (uint64_t i = 0; i < pages; i++)
		store(map, w->n ? order[i] : i, STAMP);
	stored = bench_now();
	subject_sync(&s);
	end = bench_now();
	/* Of the figure that is named; a smaller file has fewer pages. */
	r->value = (end - stored) * scale;
	r->second = (end - from) * scale;
	for (uint64_t i = 0; i < pages; i += pages / CHECKS_MAX + 1) {
		uint64_t off = (w->n ? order[i] : i) * PAGE + STORE_OFFSET;

		run_check(r, off, bench_word(off) ^ STAMP);
	}
	run_checks(r);
	for (uint64_t i = 0; i < pages; i++)
		store(map, w->n ? order[i] : i, 0);
	subject_sync(&s);
	free(order);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How noisy the machine was: between any two runs the same work is done, a loop that only computes and direct reads of 4 KiB, and timed. On a quiet machine it always
 * takes the same time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

#define SPINS 2000000u
#define READS 16u

static double spins[NOISE_MAX], reads[NOISE_MAX]; /* ms; us, the median of READS */
static unsigned n;
static int file = -1;
static uint64_t file_pages, seed;
static void *buf;
static double stolen_at_start, time_at_start, load;

/* Of all processors since the machine's start, in ticks. */
static void processor_time(double *ret_stolen, double *ret_all)
{
	FILE *f = fopen("/proc/stat", "re");
	double v[8] = { 0 };

	*ret_stolen = *ret_all = 0;
	if (!f)
		return;
	if (fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) == 8)
		*ret_stolen = v[7];
	for (int i = 0; i < 8; i++)
		*ret_all += v[i];
	fclose(f);
}

static double load_now(void)
{
	double v[1];

	return getloadavg(v, 1) == 1 ? v[0] : 0;
}

void noise_begin(const char *path, uint64_t size)
{
	file = path ? open(path, O_RDONLY | O_DIRECT | O_CLOEXEC) : -1;
	file_pages = size / PAGE;
	if (posix_memalign(&buf, PAGE, PAGE))
		die("out of memory");
	processor_time(&stolen_at_start, &time_at_start);
	load = load_now();
}

void noise_sample(void)
{
	double took[READS], from = bench_now();
	uint64_t x = 1;

	if (n == NOISE_MAX)
		return;
	for (unsigned i = 0; i < SPINS; i++)
		x = bench_mix(x);
	__asm__ volatile("" : : "r"(x));
	spins[n] = (bench_now() - from) * 1e3;
	for (unsigned i = 0; i < READS; i++) {
		uint64_t page = bench_mix(++seed) % file_pages;

		from = bench_now();
		if (file >= 0 && pread(file, buf, PAGE, (off_t)(page * PAGE)) != (ssize_t)PAGE)
			die("direct read: %s", strerror(errno));
		took[i] = (bench_now() - from) * 1e6;
	}
	reads[n++] = bench_figures(took, READS).median;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void spread(double *values, double ret[3])
{
	qsort(values, n, sizeof(*values), by_value);
	ret[0] = n ? values[n / 2] : 0;
	ret[1] = n ? values[n * 9 / 10] : 0;
	ret[2] = n ? values[n - 1] : 0;
}

void noise_end(struct noise *ret)
{
	double stolen, all;

	processor_time(&stolen, &all);
	*ret = (struct noise){ .n = n, .load = load, .stolen = all > time_at_start ? (stolen - stolen_at_start) / (all - time_at_start) : 0 };
	spread(spins, ret->spin);
	spread(reads, ret->read);
	free(buf);
	close(file);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Files are mapped and populated, a step at a time, which copies nothing; the steps after it are announced meanwhile,
 * so that the store always has several large reads to do. The bytes stay in the cache when the mapping goes.
 */
#include "tools/ctl_warm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pagecached.h"

#define STEP         (8ull << 20)
#define AHEAD        (4 * STEP)
#define BAR_MS       100u
#define LINE_MS      1000u
#define BAR_FULL     "##############################"
#define BAR_WIDTH    ((unsigned)sizeof(BAR_FULL) - 1)
#define COLUMNS_MAX  400u

struct progress {
	struct ctl_warm *w;
	const char *file;
	uint64_t began, told;          /* ms */
	bool bar;                      /* one is on the screen */
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void format_rate(char *ret, size_t n, uint64_t bytes, uint64_t ms)
{
	char size[32];

	ctl_format_size(size, sizeof(size), (uint64_t)((double)bytes * 1000 / (double)(ms ? ms : 1)));
	snprintf(ret, n, "%s/s", size);
}

static void print_bar(const struct progress *p)
{
	const struct ctl_warm *w = p->w;
	unsigned filled = w->size ? (unsigned)((double)w->done / (double)w->size * BAR_WIDTH) : BAR_WIDTH;
	char line[COLUMNS_MAX], done[32], size[32], rate[40];
	struct winsize win = { 0 };
	unsigned columns = 80;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &win) == 0 && win.ws_col > 0)
		columns = win.ws_col < COLUMNS_MAX ? win.ws_col : COLUMNS_MAX;
	ctl_format_size(done, sizeof(done), w->done);
	ctl_format_size(size, sizeof(size), w->size);
	format_rate(rate, sizeof(rate), w->done, now_ms() - p->began);
	snprintf(line, sizeof(line), "[%.*s%*s] %s of %s, %s  %s", (int)filled, BAR_FULL,
		 (int)(BAR_WIDTH - filled), "", done, size, rate, p->file);
	/* One line, or the next \r would not reach its beginning. */
	printf("\r\033[K%.*s", (int)columns - 1, line);
	fflush(stdout);
}

static void print_line(const struct progress *p)
{
	const struct ctl_warm *w = p->w;
	char done[32], size[32], rate[40];

	ctl_format_size(done, sizeof(done), w->done);
	ctl_format_size(size, sizeof(size), w->size);
	format_rate(rate, sizeof(rate), w->done, now_ms() - p->began);
	printf("%s: %s of %s, %s\n", p->file, done, size, rate);
	fflush(stdout);
}

static void progress(struct progress *p)
{
	uint64_t now = now_ms();

	if (p->w->show->json || now - p->told < (p->w->terminal ? BAR_MS : LINE_MS))
		return;
	p->told = now;
	p->bar = p->w->terminal;
	if (p->bar)
		print_bar(p);
	else
		print_line(p);
}

static void clear_bar(struct progress *p)
{
	if (p->bar)
		fputs("\r\033[K", stdout);
	p->bar = false;
	fflush(stdout);
}

/* The file is shorter than it was, so that `at` is past its end. */
static bool has_shrunk(struct pgc_file *f, uint64_t at)
{
	struct stat st;

	return pgc_fstat(f, &st) == 0 && (uint64_t)st.st_size <= at;
}

static int populate(struct pgc_file *f, char *mem, struct progress *p)
{
	struct ctl_warm *w = p->w;

	(void)pgc_fadvise(f, 0, AHEAD, POSIX_FADV_WILLNEED);
	while (w->done < w->size) {
		uint64_t left = w->size - w->done, step = left < STEP ? left : STEP;
		int r;

		if (left > AHEAD)
			(void)pgc_fadvise(f, (off_t)(w->done + AHEAD), STEP, POSIX_FADV_WILLNEED);
		r = pgc_madvise(mem + w->done, step, MADV_POPULATE_READ);
		if (r < 0)
			return has_shrunk(f, w->done + step - 1) ? 0 : r;
		w->done += step;
		progress(p);
	}
	return 0;
}

static int warm_open(struct ctl_warm *w, struct pgc_file *f, struct progress *p)
{
	struct stat st;
	char *mem;
	int r;

	r = pgc_fstat(f, &st);
	if (r < 0)
		return r;
	w->size = (uint64_t)st.st_size;
	if (w->size > w->room || w->before > w->room - w->size)
		return -EFBIG;
	if (w->size == 0)
		return 0;
	mem = pgc_mmap(f, NULL, w->size, PROT_READ, MAP_SHARED, 0);
	if (mem == MAP_FAILED)
		return -errno;
	r = populate(f, mem, p);
	(void)pgc_munmap(mem, w->size);
	return r;
}

int ctl_warm_file(struct ctl_warm *w, const char *file)
{
	struct progress p = { .w = w, .file = file, .began = now_ms() };
	struct pgc_file *f;
	int r;

	w->size = w->done = w->ms = 0;
	p.told = p.began;
	r = pgc_open(&f, file, O_RDONLY, 0);
	if (r < 0)
		return r;
	r = warm_open(w, f, &p);
	(void)pgc_close(f);
	clear_bar(&p);
	if (r < 0)
		return r;
	w->before += w->size;
	w->ms = now_ms() - p.began;
	if (!w->show->json) {
		char size[32], rate[40];

		ctl_format_size(size, sizeof(size), w->done);
		format_rate(rate, sizeof(rate), w->done, w->ms);
		printf("%s: %s in %" PRIu64 ".%03" PRIu64 " s, %s\n", file, size, w->ms / 1000, w->ms % 1000, rate);
		fflush(stdout);
	}
	return 0;
}

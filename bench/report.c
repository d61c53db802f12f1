/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See report.h. A table's rows come as soon as the workload has run; the table of latencies, and files that have values of several workloads, at the end.
 */
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#define OUTCOMES_MAX 400u
#define NINES        4.0                  /* latencies are plotted up to 99.99 % */
#define NINES_STEPS  60u

/* What of an outcome is wanted at the end. */
static struct kept {
	const struct workload *w;
	unsigned delay_ms, contestants;
	double median[CONTESTANTS];
} kept[OUTCOMES_MAX];
static unsigned n_kept;

static FILE *json, *latencies;
static const char *csv_folder, *json_name;
static char *latency_text;
static size_t latency_size;
static int runs;
static unsigned columns;
static bool first = true;

static void close_file(FILE *f, const char *name)
{
	if (ferror(f) || fclose(f))
		die("%s: %s", name, strerror(errno));
}

static FILE *csv_open(const char *format, ...) __attribute__((format(printf, 1, 2)));
static FILE *csv_open(const char *format, ...)
{
	char path[700], name[200];
	va_list ap;
	FILE *f;

	va_start(ap, format);
	vsnprintf(name, sizeof(name), format, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", csv_folder, name);
	f = fopen(path, "we");
	if (!f)
		die("%s: %s", path, strerror(errno));
	return f;
}

static const char *store_name(unsigned delay_ms)
{
	static char name[32];

	snprintf(name, sizeof(name), delay_ms ? "slow-%u" : "local", delay_ms);
	return name;
}

/* The first line of a file that begins with `key`, behind what follows the key; "" if there is none. */
static const char *line_after(const char *path, const char *key)
{
	static char line[1000];
	FILE *f = fopen(path, "re");
	char *value = NULL;

	while (!value && f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			value = line + strlen(key) + strspn(line + strlen(key), " \t:");
	if (f)
		fclose(f);
	if (!value)
		return "";
	value[strcspn(value, "\n\"\\")] = '\0';
	return value;
}

/* What a folder's file system is: of the mount with its device's number. */
static const char *file_system(const char *dir)
{
	static char line[2000], type[100];
	unsigned from, to;
	struct stat st;
	char *rest;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	strcpy(type, "unknown");
	if (f && !stat(dir, &st))
		while (fgets(line, sizeof(line), f))
			if (sscanf(line, "%*u %*u %u:%u", &from, &to) == 2 && from == major(st.st_dev) && to == minor(st.st_dev) && (rest = strstr(line, " - ")))
				sscanf(rest + 3, "%99s", type);
	if (f)
		fclose(f);
	return type;
}

static void json_machine(const char *dir)
{
	struct utsname u;

	if (uname(&u))
		die("uname: %s", strerror(errno));
	fprintf(json, "\"kernel\": \"%s %s\", \"machine\": \"%s\", \"processors\": %ld, ", u.sysname, u.release, u.machine, sysconf(_SC_NPROCESSORS_ONLN));
	fprintf(json, "\"processor\": \"%s\", ", line_after("/proc/cpuinfo", "model name"));
	fprintf(json, "\"memory\": \"%s\", \"file_system\": \"%s\", ", line_after("/proc/meminfo", "MemTotal"), file_system(dir));
}

void report_begin(const char *json_path, const char *csv, const char *dir, uint64_t size, int n)
{
	json_name = json_path;
	csv_folder = csv;
	runs = n;
	latencies = open_memstream(&latency_text, &latency_size);
	if (!latencies)
		die("out of memory");
	if (!json_path)
		return;
	json = fopen(json_path, "we");
	if (!json)
		die("%s: %s", json_path, strerror(errno));
	fprintf(json, "{");
	json_machine(dir);
	fprintf(json, "\"file_size\": %" PRIu64 ", \"runs\": %d, \"results\": [", size, runs);
}

void report_store(unsigned delay_ms, unsigned contestants_of_store)
{
	columns = contestants_of_store;
	if (delay_ms)
		printf("\n### A store with %u ms latency\n\n", delay_ms);
	else
		printf("### The file system itself\n\n");
	printf("| workload | unit |");
	for (int who = 0; who < CONTESTANTS; who++)
		if (columns & BIT(who))
			printf(" %s |", contestants[who].title);
	printf(" against the kernel |%s\n|---|---|", columns & FUSE_CONTESTANTS ? " against FUSE |" : "");
	for (int who = 0; who < CONTESTANTS; who++)
		if (columns & BIT(who))
			printf("---|");
	printf("---|%s\n", columns & FUSE_CONTESTANTS ? "---|" : "");
}

/* How many times as fast pagecached is, or the preload library where that is all there is of it; 0: there is nothing to compare. */
static double ratio(const double median[CONTESTANTS], unsigned took_part, unsigned others, bool more_is_better)
{
	enum contestant ours = took_part & BIT(PAGECACHED) ? PAGECACHED : PRELOAD;
	double best = 0;

	for (int who = 0; who < CONTESTANTS; who++)
		if (took_part & others & BIT(who) && (best == 0 || (more_is_better ? median[who] > best : median[who] < best)))
			best = median[who];
	if (!(took_part & BIT(ours)) || best <= 0 || median[ours] <= 0)
		return 0;
	return more_is_better ? median[ours] / best : best / median[ours];
}

static void print_ratio(double r)
{
	if (r > 0)
		printf(" %.2f |", r);
	else
		printf(" |");
}

static void print_row(const struct outcome *o, const char *title, const char *unit, const double values[CONTESTANTS][RUNS_MAX], bool more_is_better,
	double ret_median[CONTESTANTS])
{
	printf("| %s | %s |", title, unit);
	for (int who = 0; who < CONTESTANTS; who++) {
		struct figures f;

		if (!(columns & BIT(who)))
			continue;
		if (!(o->contestants & BIT(who))) {
			printf(" |");
			continue;
		}
		f = bench_figures(values[who], runs);
		ret_median[who] = f.median;
		bench_print_figures(&f);
	}
	print_ratio(ratio(ret_median, o->contestants, BIT(KERNEL), more_is_better));
	if (columns & FUSE_CONTESTANTS)
		print_ratio(ratio(ret_median, o->contestants, FUSE_CONTESTANTS, more_is_better));
	putchar('\n');
}

static void latency_rows(const struct outcome *o)
{
	for (int who = 0; who < CONTESTANTS; who++) {
		const struct hist *h = &o->hist[who];

		if (!(o->contestants & BIT(who)) || !h->n)
			continue;
		fprintf(latencies, "| %s | %s | %s |", store_name(o->delay_ms), o->w->name, contestants[who].title);
		for (const double *q = (const double[]){ .5, .9, .99, .999, 0 }; *q > 0; q++) {
			double us = hist_quantile(h, *q) / 1e3;

			fprintf(latencies, " %.*f |", us >= 100 ? 0 : us >= 10 ? 1 : us >= 1 ? 2 : 3, us);
		}
		fprintf(latencies, " %" PRIu64 " |\n", h->n);
	}
}

static void latency_csv(const struct outcome *o)
{
	for (int who = 0; who < CONTESTANTS; who++) {
		FILE *f;

		if (!(o->contestants & BIT(who)) || !o->hist[who].n)
			continue;
		f = csv_open("latency-%s-%s-%s.csv", store_name(o->delay_ms), o->w->name, contestants[who].name);
		fprintf(f, "nines,us\n");
		for (unsigned i = 0; i <= NINES_STEPS; i++) {
			double nines = NINES * i / NINES_STEPS;

			fprintf(f, "%.4g,%.4g\n", nines, hist_quantile(&o->hist[who], 1 - pow(10, -nines)) / 1e3);
		}
		close_file(f, "latencies");
	}
}

static void json_values(const char *name, const double *values)
{
	struct figures f = bench_figures(values, runs);

	fprintf(json, "\"%s\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g, \"values\": [", name, f.median, f.min, f.max);
	for (int i = 0; i < runs; i++)
		fprintf(json, "%s%.6g", i ? ", " : "", values[i]);
	fprintf(json, "]}");
}

static void json_outcome(const struct outcome *o, const double median[CONTESTANTS])
{
	double r = ratio(median, o->contestants, BIT(KERNEL), o->w->more_is_better);

	fprintf(json, "%s\n {\"store\": \"%s\", \"delay_ms\": %u, \"workload\": \"%s\", \"unit\": \"%s\", \"more_is_better\": %s", first ? "" : ",",
		store_name(o->delay_ms), o->delay_ms, o->w->name, o->w->unit, o->w->more_is_better ? "true" : "false");
	first = false;
	if (r > 0)
		fprintf(json, ", \"ratio_to_kernel\": %.4g", r);
	r = ratio(median, o->contestants, FUSE_CONTESTANTS, o->w->more_is_better);
	if (r > 0)
		fprintf(json, ", \"ratio_to_fuse\": %.4g", r);
	if (o->w->second_title)
		fprintf(json, ", \"second\": \"%s\", \"second_unit\": \"%s\"", o->w->second_title, o->w->second_unit);
	for (int who = 0; who < CONTESTANTS; who++) {
		const struct hist *h = &o->hist[who];

		if (!(o->contestants & BIT(who)))
			continue;
		fprintf(json, ",\n  \"%s\": {", contestants[who].name);
		json_values("value", o->values[who]);
		if (o->w->second_title) {
			fprintf(json, ", ");
			json_values("second", o->second[who]);
		}
		if (h->n)
			fprintf(json, ", \"latency_us\": {\"p50\": %.4g, \"p90\": %.4g, \"p99\": %.4g, \"p99.9\": %.4g, \"operations\": %" PRIu64 "}",
				hist_quantile(h, .5) / 1e3, hist_quantile(h, .9) / 1e3, hist_quantile(h, .99) / 1e3, hist_quantile(h, .999) / 1e3, h->n);
		fprintf(json, "}");
	}
	fprintf(json, "}");
}

void report_add(const struct outcome *o)
{
	double second[CONTESTANTS] = { 0 };
	struct kept *k = &kept[n_kept];

	if (n_kept++ == OUTCOMES_MAX)
		die("too many outcomes");
	*k = (struct kept){ .w = o->w, .delay_ms = o->delay_ms, .contestants = o->contestants };
	print_row(o, o->w->title, o->w->unit, o->values, o->w->more_is_better, k->median);
	if (o->w->second_title)
		print_row(o, o->w->second_title, o->w->second_unit, o->second, false, second);
	fflush(stdout);
	latency_rows(o);
	if (csv_folder)
		latency_csv(o);
	if (json)
		json_outcome(o, k->median);
}

/* x, and a column for each contestant; what did not take part is left empty. */
static void csv_line(FILE *f, double x, const struct kept *k)
{
	fprintf(f, "%g", x);
	for (int who = 0; who < CONTESTANTS; who++)
		if (k->contestants & BIT(who))
			fprintf(f, ",%.6g", k->median[who]);
		else
			fprintf(f, ",");
	fputc('\n', f);
}

static FILE *csv_series(const char *kind, const char *name, const char *x)
{
	FILE *f = csv_open("%s-%s.csv", kind, name);

	fprintf(f, "%s", x);
	for (int who = 0; who < CONTESTANTS; who++)
		fprintf(f, ",%s", contestants[who].name);
	fputc('\n', f);
	return f;
}

static bool same(const char *a, const char *b) { return a && b && !strcmp(a, b); }

/* One file for each series: by the x of a sweep, and by the latency of the store. */
static void csv_sweeps(void)
{
	for (unsigned i = 0; i < n_kept; i++) {
		const char *sweep = kept[i].w->sweep;
		char name[100];
		unsigned before = 0;
		FILE *f;

		while (sweep && before < i && (!same(kept[before].w->sweep, sweep) || kept[before].delay_ms != kept[i].delay_ms))
			before++;
		if (!sweep || before < i)
			continue;
		snprintf(name, sizeof(name), "%s-%s", store_name(kept[i].delay_ms), sweep);
		f = csv_series("sweep", name, sweep);
		for (unsigned k = i; k < n_kept; k++)
			if (same(kept[k].w->sweep, sweep) && kept[k].delay_ms == kept[i].delay_ms)
				csv_line(f, kept[k].w->x, &kept[k]);
		close_file(f, name);
	}
}

static void csv_slow(void)
{
	for (unsigned i = 0; i < n_kept; i++) {
		unsigned before = 0;
		FILE *f;

		while (before < i && (kept[before].w != kept[i].w || !kept[before].delay_ms))
			before++;
		if (!kept[i].delay_ms || kept[i].w->sweep || before < i)
			continue;
		f = csv_series("slow", kept[i].w->name, "delay_ms");
		for (unsigned k = i; k < n_kept; k++)
			if (kept[k].w == kept[i].w && kept[k].delay_ms)
				csv_line(f, kept[k].delay_ms, &kept[k]);
		close_file(f, kept[i].w->name);
	}
}

void report_end(const struct noise *n)
{
	if (csv_folder) {
		csv_sweeps();
		csv_slow();
	}
	fclose(latencies);
	if (latency_size)
		printf("\n<details><summary>Latencies of single operations</summary>\n\n| store | workload | contestant | p50, us | p90 | p99 | p99.9 | operations |\n"
			"|---|---|---|---|---|---|---|---|\n%s\n</details>\n", latency_text);
	free(latency_text);
	printf("\nNoise: the same work before each run, %u times. A loop that only computes: median %.2f ms, 90 %% within %.2f, longest %.2f. Direct reads of 4 KiB "
		"(medians of 16): median %.0f us, 90 %% within %.0f, longest %.0f. Processor time taken by the host: %.1f %%. Load average at the start: %.1f.\n",
		n->n, n->spin[0], n->spin[1], n->spin[2], n->read[0], n->read[1], n->read[2], n->stolen * 100, n->load);
	if (n->n && (n->spin[1] > n->spin[0] * 1.15 || n->read[1] > n->read[0] * 1.5 || n->stolen > .02 || n->load > 1))
		printf("**This machine was not quiet:** compare only what differs by far more than that.\n");
	if (!json)
		return;
	fprintf(json, "\n], \"noise\": {\"samples\": %u, \"spin_ms\": {\"median\": %.4g, \"p90\": %.4g, \"max\": %.4g}, "
		"\"direct_read_us\": {\"median\": %.4g, \"p90\": %.4g, \"max\": %.4g}, \"stolen\": %.4g, \"load_at_start\": %.4g}}\n", n->n,
		n->spin[0], n->spin[1], n->spin[2], n->read[0], n->read[1], n->read[2], n->stolen, n->load);
	close_file(json, json_name);
}

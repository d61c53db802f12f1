/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pgc-bench writes: tables on stdout, all values as JSON, and files for gnuplot.
 */
#pragma once

#include "run.h"

/* Of one workload on one store: all runs of all contestants. */
struct outcome {
	const struct workload *w;
	unsigned delay_ms;                 /* of the store; 0: the file system itself */
	unsigned contestants;              /* those that took part */
	double values[CONTESTANTS][RUNS_MAX], second[CONTESTANTS][RUNS_MAX];
	struct hist hist[CONTESTANTS];     /* of all runs; empty where single operations are not timed */
};

/* json and csv (a folder) may be NULL; dir is what the files are in. */
void report_begin(const char *json, const char *csv, const char *dir, uint64_t size, int runs);
void report_store(unsigned delay_ms, unsigned contestants); /* the following are on this store */
void report_add(const struct outcome *o);
void report_end(const struct noise *n);

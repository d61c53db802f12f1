/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of policy-sim share: traces, and the policies that policy.c is compared with. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A sequence of accesses to `n_ids` pages, which are numbered from 0. */
struct trace {
	char name[64];
	uint32_t *id;              /* of each access */
	uint8_t *write;            /* whether it is one; NULL: none is */
	uint64_t n;
	uint64_t *key;             /* of each page, for the policy; neighbours in a file differ by 1 */
	uint32_t n_ids;
	bool loop;                 /* made anew for each cache: `ratio` times its size */
	double ratio;
};

/* The synthetic ones, 0 to TRACES - 1. `pages`: of the file; `accesses`; `cache`: pages, for loops. Exits when there is no memory. */
#define TRACES 8u
#define LOOPS_FROM 4u
void trace_make(struct trace *t, unsigned which, uint32_t pages, uint64_t accesses, uint32_t cache, uint64_t seed);
/*
 * Reads CSV: time,object,size,op, and nothing else of a line. `offsets`: an object is a byte's offset in one file, not a file of its own.
 * A negative errno; -EINVAL with the number of the line on `ret_line` when that cannot be understood.
 */
int trace_read(struct trace *t, const char *path, bool offsets, uint64_t *ret_line);
void trace_free(struct trace *t);

/* Hits of policies that see every access. Exit when there is no memory. */
uint64_t sim_lru(const struct trace *t, uint32_t cache);
uint64_t sim_arc(const struct trace *t, uint32_t cache);
uint64_t sim_belady(const struct trace *t, uint32_t cache);

void *xcalloc(uint64_t n, uint64_t size);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests that compare a module with a naive model: reproducible random numbers.
 * PGC_SEED repeats a run.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t model_state;

static inline void model_seed(void)
{
	const char *env = getenv("PGC_SEED");

	model_state = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
	print_message("PGC_SEED=%llu\n", (unsigned long long)model_state);
}

static inline uint64_t model_random(uint64_t below)
{
	uint64_t z = (model_state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

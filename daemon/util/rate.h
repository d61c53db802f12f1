/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes a second of late, without a timer: what was counted in each of the last seconds. One thread adds, any may read;
 * all fields are relaxed atomics, and a reader that meets the first add of a second may take one bucket for empty.
 */
#pragma once

#include <stdint.h>

#define RATE_SECONDS 5u

struct rate {
	uint64_t second[8];        /* more than RATE_SECONDS: the one that is overwritten is not read */
	uint64_t bytes[8];
};

static inline void rate_add(struct rate *r, uint64_t now_ns, uint64_t bytes)
{
	uint64_t second = now_ns / 1000000000u;
	unsigned i = second % 8;

	if (r->second[i] != second) {
		__atomic_store_n(&r->bytes[i], 0, __ATOMIC_RELAXED);
		__atomic_store_n(&r->second[i], second, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&r->bytes[i], r->bytes[i] + bytes, __ATOMIC_RELAXED);
}

/* Bytes a second over the last RATE_SECONDS full seconds and the one that has begun. */
static inline uint64_t rate_of(const struct rate *r, uint64_t now_ns)
{
	uint64_t now = now_ns / 1000000000u, ms = now_ns % 1000000000u / 1000000u, sum = 0;

	for (unsigned i = 0; i < 8; i++) {
		uint64_t second = __atomic_load_n(&r->second[i], __ATOMIC_RELAXED);

		if (second <= now && now - second <= RATE_SECONDS)
			sum += __atomic_load_n(&r->bytes[i], __ATOMIC_RELAXED);
	}
	return sum * 1000 / (RATE_SECONDS * 1000 + ms);
}

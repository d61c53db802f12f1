/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histograms of latencies: 32 buckets for each power of two of nanoseconds, so that a bucket is no wider than 1/32 of what is in it.
 */
#include "run.h"

static unsigned bucket_of(uint64_t ns)
{
	unsigned power, b;

	if (ns < HIST_SUB)
		return (unsigned)ns;
	power = 63 - (unsigned)__builtin_clzll(ns); /* at least 5 */
	b = (power - 4) * HIST_SUB + (unsigned)(ns >> (power - 5)) - HIST_SUB;
	return b < HIST_BUCKETS ? b : HIST_BUCKETS - 1;
}

double hist_value(unsigned bucket)
{
	unsigned power = bucket / HIST_SUB;

	if (power <= 1)
		return bucket;
	return ((double)(HIST_SUB + bucket % HIST_SUB) + 0.5) * (double)(1ull << (power - 1));
}

void hist_add(struct hist *h, uint64_t ns)
{
	h->bucket[bucket_of(ns)]++;
	h->n++;
}

void hist_merge(struct hist *h, const struct hist *other)
{
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		h->bucket[i] += other->bucket[i];
	h->n += other->n;
}

double hist_quantile(const struct hist *h, double q)
{
	uint64_t below = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		below += h->bucket[i];
		if (h->bucket[i] && (double)below >= q * (double)h->n)
			return hist_value(i);
	}
	return 0;
}

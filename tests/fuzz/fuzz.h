/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share: an input that is taken from front to back and gives zeros when it has ended, so that every input means something, and a
 * check that stays in every build.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(x) \
	do { \
		if (!(x)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x); \
			abort(); \
		} \
	} while (0)

struct input { const uint8_t *p; size_t n; };

static inline uint8_t take_byte(struct input *in)
{
	if (in->n == 0)
		return 0;
	in->n--;
	return *in->p++;
}

static inline uint64_t take_number(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)take_byte(in) << (8 * i);
	return v;
}

/* Below `n`, which is at most 256. */
static inline unsigned take_below(struct input *in, unsigned n) { return take_byte(in) % n; }

/* Up to the next byte `end`, which is taken as well, or to the end of the input; with a zero byte behind it, to be freed. */
static inline char *take_text(struct input *in, uint8_t end, size_t *ret_n)
{
	const uint8_t *at = in->n ? memchr(in->p, end, in->n) : NULL;
	size_t n = at ? (size_t)(at - in->p) : in->n;
	char *text = malloc(n + 1);

	REQUIRE(text);
	if (n)
		memcpy(text, in->p, n);
	text[n] = '\0';
	in->p += n + (at != NULL);
	in->n -= n + (at != NULL);
	if (ret_n)
		*ret_n = n;
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

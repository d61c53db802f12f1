/* SPDX-License-Identifier: Apache-2.0 */
/* What stdio.c, which makes streams on files of ours, tells streams.c, which stands before the functions that take a stream. */
#pragma once

#include <stdio.h>
#include <wchar.h>

#include "preload.h"

extern HIDDEN int n_aliases;
HIDDEN FILE *alias_find(FILE *f);
/* The stream that a pointer stands for. NULL, which is all streams, for itself. */
static inline FILE *at(FILE *f)
{
	return likely(__atomic_load_n(&n_aliases, __ATOMIC_RELAXED) == 0) || !f ? f : alias_find(f);
}

/* A stream of ours as one of wide characters: orientation and conversion. Under the FILE's lock. */
struct wide {
	int orientation;           /* as of fwide(3) */
	mbstate_t in, out;
};
/* NULL: a stream of the C library's. */
HIDDEN struct wide *stream_wide(const FILE *f);

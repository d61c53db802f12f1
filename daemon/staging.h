/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers that large reads go through on their way into a memfd. See staging.c. Belong to the worker.
 */
#pragma once

#include <stdint.h>

#define STAGING_BUFFER  (256ull << 10) /* bytes */
#define STAGING_BUFFERS 16u

struct worker;

struct staging {
	char *memory;              /* NULL: none yet */
	unsigned n_unused;
	uint8_t unused[STAGING_BUFFERS];
};

/* NULL: all are in use, or there is no memory for any (then w->staging.memory is NULL). */
char *staging_take(struct worker *w);
void staging_give(struct worker *w, char *buffer);
/* Does nothing while some are in use: a read that never ends may still write there. */
void staging_free(struct worker *w);

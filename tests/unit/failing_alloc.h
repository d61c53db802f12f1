/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the place of the C library's reallocarray() in a test program, so that it can be made to fail. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static bool fail_alloc;

void *reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (fail_alloc || __builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, bytes);
}


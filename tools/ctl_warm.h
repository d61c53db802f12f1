/* SPDX-License-Identifier: Apache-2.0 */
/* Reads files into the cache, through the library. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tools/ctl_show.h"

struct ctl_warm {
	const struct ctl_show *show;
	uint64_t room;                 /* bytes of cache that there may be */
	uint64_t before;               /* bytes of the files read in before */
	bool terminal;                 /* stdout is one: a bar that moves, instead of lines */

	/* The file of the last call. */
	uint64_t size, done;           /* bytes */
	uint64_t ms;
};

/*
 * Reads all of a file in; says how far it is on stdout, each second or as a bar, and at the end how much it was.
 * -EFBIG: it and those before do not fit the room, nothing was read; else the errors of pgc_open(), and of reading it.
 */
int ctl_warm_file(struct ctl_warm *w, const char *file);

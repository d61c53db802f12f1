/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking into the page tables and mappings of clients (/proc/PID/pagemap, /proc/PID/maps; proc(5)), on an offload thread: both wait for the process's address
 * space, which its owner can keep busy. Knows copies of tables only.
 */
#pragma once

#include <sys/types.h>

#include "daemon/check_compare.h"
#include "daemon/offload.h"
#include "pagecached/wire.h"

#define CHECK_LOOK_BLOCKS 32u        /* 8 MiB */
#define CHECK_LOOK_MAX    1024u      /* mappings that are looked at in one go */
#define CHECK_FOUND_MAX   1024u

/* Part of a mapping that shows pages [first, first + n) of the file. */
struct check_part {
	pid_t pid;
	bool tracked;
	bool async;                /* without faults: it must be known to be mapped, and may be written */
	uint64_t addr, first, n;
	uint64_t writable_from, writable_to; /* pages that may be writable: of a tracked one */
	void *owner;               /* the caller's */
};

/* Pages that are mapped, or writable, where that should not be. */
struct check_found { const struct check_part *part; bool writable; uint64_t first, n; };

struct check_look {
	/* Set by the caller. `first`: page that bit 0 of [0] stands for. */
	struct check_part part[CHECK_LOOK_MAX];
	size_t n_parts;
	uint64_t first;
	uint64_t resident[CHECK_LOOK_BLOCKS], writable[CHECK_LOOK_BLOCKS]; /* pages that may be mapped, and those that may be writable */
	uint64_t async_mapped[CHECK_LOOK_BLOCKS]; /* or mapped where stores are tracked without faults */

	/* The answer. */
	struct check_found found[CHECK_FOUND_MAX];
	size_t n_found;
	uint64_t skipped;          /* parts that could not be looked at */

	struct offload_job job;
};

/* Starts it: job.done is the caller's. -ENOMEM. */
int check_look_start(struct check_look *l, struct ring *ring);

/* What processes have mapped of one file, against what the daemon knows. */
struct check_maps {
	/* Set by the caller: `known` sorted; the memfd as /proc/PID/maps shows it. */
	struct check_map *known;
	size_t n_known;
	struct check_refs *refs;
	size_t n_refs;
	pid_t *pids;               /* of all that have it open, ascending, each once */
	size_t n_pids;
	uint64_t dev, ino;

	/* The answer: rows without the file. */
	struct pgc_ctl_check_reply row[64];
	size_t n_rows;
	uint64_t unlisted, skipped;
	bool of_maps;              /* some are of mappings, which change without the daemon */
	int error;

	struct offload_job job;
};
int check_maps_start(struct check_maps *m, struct ring *ring);

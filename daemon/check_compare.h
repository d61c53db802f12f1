/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing copies of tables: arithmetic alone, for any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/util/range_map.h"

/* A mapping as the daemon knows it, or as the kernel has it: addresses [start, end) show the file from byte `off` on. */
struct check_map {
	int pid;
	bool tracked;              /* the daemon's: stores are seen. The kernel's: it is shared, so they must be */
	uint64_t start, end, off;
	bool window;               /* the daemon's: no reference (window.h, written.h) */
};

/* By pid, then by address. */
void check_maps_sort(struct check_map *m, size_t n);
/*
 * Of one process, both sorted. `gone`: parts of known ones that the kernel does not have, or has otherwise; `unknown`: parts of the kernel's that no known one
 * covers. Either may be called with adjoining parts.
 */
void check_maps_compare(const struct check_map *known, size_t n_known, const struct check_map *kernel, size_t n_kernel,
			void (*gone)(void *arg, struct range addresses), void (*unknown)(void *arg, struct range addresses), void *arg);

/* A range of the file with `refs` references. */
struct check_refs { struct range r; uint32_t refs; };
/*
 * References as counted (ascending, without gaps in between that matter: what is not named has none) against the mappings, of all processes. `differs`: with the
 * number shown and that of mappings. -ENOMEM.
 */
int check_refs_compare(const struct check_map *known, size_t n_known, const struct check_refs *refs, size_t n_refs,
		       void (*differs)(void *arg, struct range bytes, uint32_t shown, uint32_t counted), void *arg);

/* Bits of a block that cannot be together; 0: none. `beyond`: bits of pages past the end of file; `shown`: that clients see. */
struct check_bits { uint64_t resident, dirty, writeback, keep, filling, second, ahead, pinned, beyond, shown; };
uint64_t check_bits_wrong(const struct check_bits *b);

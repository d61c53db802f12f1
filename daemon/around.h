/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much a fault brings and maps besides its own page. A random access is worth a block; where much of the file is here already, the next accesses are likely to want the
 * rest, and it is worth more. Bookkeeping of a file's worker; reads its state and changes nothing.
 */
#pragma once

#include "daemon/space.h"

/* Pages, aligned, that a random access at `addr` may read with its own; 0: none, for want of memory, or by what was advised. */
uint64_t around_read(const struct space *s, uint64_t addr);
/* Pages that it may read after those, a power of two. No more than the first: nothing. */
uint64_t around_wide(const struct space *s);
/*
 * What to map for a load of `page`: [*ret_from, *ret_to), resident as far as is looked, and with no stream's marker. The mapping reaches `below` pages before it, and to `above` behind where it begins.
 * `plan`: of this access; NULL: none was made.
 */
void around_mapped(const struct space *s, const struct readahead_plan *plan, uint64_t page, uint64_t below, uint64_t above, uint64_t *ret_from, uint64_t *ret_to);

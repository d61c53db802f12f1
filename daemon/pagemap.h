/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/PID/pagemap as write tracking without faults needs it: PAGEMAP_SCAN (Linux 6.7, Documentation/admin-guide/mm/pagemap.rst), with the definitions that
 * headers of Linux 6.1 do not have. Thread-safe: no state.
 *
 * A page of a mapping that a userfaultfd with UFFD_FEATURE_WP_ASYNC tracks is *clean* while its entry in the page table, or a marker in its place, shows the protection. A
 * store takes it off. What takes the page out of the page table (a hole that is punched, swap, MADV_DONTNEED) leaves a marker where there was the protection, and nothing
 * where there was none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pagemap_region { uint64_t start, end, categories; }; /* struct page_region */

#define PAGEMAP_WP_ALLOWED (1ull << 0) /* tracked so */
#define PAGEMAP_WRITTEN    (1ull << 1) /* not protected */
#define PAGEMAP_PRESENT    (1ull << 3)

/* Does the kernel have it? */
bool pagemap_probe(void);
/* Is it some process's pagemap, in the very proc(5) that this process sees? Never blocks, whatever it is. */
bool pagemap_is_one(int fd);
/* Of that process. -ESRCH, -EACCES, -EMFILE and the like. May wait for the process: not on a worker. */
int pagemap_open(pid_t pid);

/*
 * Finds what is mapped and written among the pages of addresses [*from, to) and protects it in one step. Returns how many regions there are in `ret`, at most `max`;
 * *from is where the search came to. -ESRCH: the process is gone; -EPERM: something there is not tracked so.
 */
int pagemap_take_written(int fd, uint64_t *from, uint64_t to, struct pagemap_region *ret, unsigned max);
/* The same for what is clean, and changes nothing: the categories tell whether it is mapped (PAGEMAP_PRESENT). Everything else is not clean, whatever it is. */
int pagemap_find_clean(int fd, uint64_t *from, uint64_t to, struct pagemap_region *ret, unsigned max);

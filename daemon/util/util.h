/* SPDX-License-Identifier: Apache-2.0 */
/* Small things that every module may use: cleanup attributes, intrusive lists, arithmetic, pages. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pagecached/wire.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ELEMENTSOF(x) (sizeof(x) / sizeof((x)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define PAGE_SHIFT 12
#define PAGE_SIZE_ ((uint64_t)PGC_PAGE_SIZE)
#define BLOCK_SHIFT 18

/* Page numbers and byte offsets: page_down(off) is the page that holds the byte, page_up the first page past it. */
static inline uint64_t page_down(uint64_t off) { return off >> PAGE_SHIFT; }
static inline uint64_t page_up(uint64_t off) { return (off >> PAGE_SHIFT) + ((off & (PAGE_SIZE_ - 1)) != 0); }
static inline uint64_t align_down(uint64_t v, uint64_t a) { return v & ~(a - 1); }
static inline uint64_t align_up(uint64_t v, uint64_t a) { return (v + a - 1) & ~(a - 1); }
static inline bool is_aligned(uint64_t v, uint64_t a) { return (v & (a - 1)) == 0; }

/* Bits [from, from + n) of a block's bitmap; n may be 64. */
static inline uint64_t bits_range(unsigned from, unsigned n)
{
	return (n >= 64 ? ~0ull : (1ull << n) - 1) << from;
}

/* In a loop that looks at memory. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* How many bits in a row are set from `from` on. */
static inline unsigned bits_run(uint64_t bits, unsigned from)
{
	uint64_t clear = ~(bits >> from);
	unsigned n = clear ? (unsigned)__builtin_ctzll(clear) : 64;

	return n < 64 - from ? n : 64 - from;
}

static inline bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }
/* -1: a is earlier, 1: later. */
static inline int compare_times(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec < b.tv_sec ? -1 : 1;
	return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec;
}

static inline uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

#define CLEANUP(f) __attribute__((cleanup(f)))
static inline void cleanup_close(int *fd) { if (*fd >= 0) close(*fd); }
static inline void cleanup_free(void *p) { free(*(void **)p); }
#define _cleanup_close_ CLEANUP(cleanup_close)
#define _cleanup_free_ CLEANUP(cleanup_free)
static inline int take_fd(int *fd) { int r = *fd; *fd = -1; return r; }
#define TAKE_PTR(p) ({ __typeof__(p) _p = (p); (p) = NULL; _p; })

/* An intrusive, circular, doubly linked list; a node that is in no list is empty. */
struct list { struct list *next, *prev; };
#define LIST_INIT(l) { &(l), &(l) }
static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_insert_before(struct list *at, struct list *n)
{
	n->prev = at->prev;
	n->next = at;
	at->prev->next = n;
	at->prev = n;
}
static inline void list_append(struct list *head, struct list *n) { list_insert_before(head, n); }
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}
/* Moves all of `from` to the end of `to`. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_first(head, type, member) (list_empty(head) ? NULL : list_entry((head)->next, type, member))
#define list_for_each(pos, head, member) \
	for (pos = list_entry((head)->next, __typeof__(*pos), member); &pos->member != (head); \
	     pos = list_entry(pos->member.next, __typeof__(*pos), member))
#define list_for_each_safe(pos, tmp, head, member) \
	for (pos = list_entry((head)->next, __typeof__(*pos), member), \
	     tmp = list_entry(pos->member.next, __typeof__(*pos), member); &pos->member != (head); \
	     pos = tmp, tmp = list_entry(tmp->member.next, __typeof__(*tmp), member))

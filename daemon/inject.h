/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a test build (-Dfailure_injection=true) lets fail: calls that ask for memory, descriptors and threads, the kernel's rings and
 * userfaultfds, and stores. $PGC_INJECT says what and how often (docs/TESTING.md has the grammar); without it, and until the daemon serves, nothing
 * fails. In other builds there is nothing. Any thread.
 *
 * Most places are not in the sources: the linker puts inject_wrap.c between the daemon and the C library. store/inject_store.c does the same for stores. What is
 * made to fail is only what can fail in that way, with the state that a real failure leaves.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum inject_kind {
	INJECT_MALLOC,             /* ENOMEM of the allocator */
	INJECT_MMAP,               /* ENOMEM of mmap */
	INJECT_MEMORY,             /* no page for a memfd: ENOSPC or ENOMEM, also in the middle */
	INJECT_FD,                 /* EMFILE or ENFILE of what makes a descriptor */
	INJECT_CTRUNC,             /* a message's descriptors find no place */
	INJECT_SEND,               /* a socket takes nothing */
	INJECT_THREAD,             /* no thread is made */
	INJECT_ENTER,              /* io_uring_enter: EAGAIN, EBUSY, EINTR */
	INJECT_POST,               /* a message between rings is not taken */
	INJECT_SQ, INJECT_CQ,      /* entries of rings: the value */
	INJECT_STORE_READ, INJECT_STORE_WRITE, INJECT_STORE_SYNC, INJECT_STORE_OTHER, /* errors */
	INJECT_STORE_AGAIN,        /* EAGAIN, EINTR, ECANCELED of a transfer */
	INJECT_STORE_SHORT,        /* a transfer moves less than was asked for */
	INJECT_STORE_DELAY,        /* up to the value, in ns */
	INJECT_UFFD_AGAIN,         /* EAGAIN, as while mappings change */
	INJECT_UFFD_EXIST,         /* mapped already, as by another thread's fault */
	INJECT_UFFD_PART,          /* a part is done */
	INJECT_KINDS
};

#ifdef PGC_FAILURE_INJECTION
/* Does it fail this time? */
bool inject(enum inject_kind kind);
/* A number below n > 0, for a failure that has several ways to be. */
uint64_t inject_below(uint64_t n);
/* What was given as the kind's value; `otherwise` where it was not given. */
uint64_t inject_value(enum inject_kind kind, uint64_t otherwise);
/* From here on things fail. */
void inject_begin(void);
/* How often what failed, in the log. */
void inject_report(void);
#else
static inline bool inject(enum inject_kind kind) { return false; }
static inline uint64_t inject_value(enum inject_kind kind, uint64_t otherwise) { return otherwise; }
static inline void inject_begin(void) {}
static inline void inject_report(void) {}
#endif

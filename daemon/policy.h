/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages are kept. The policy sees what user space can see (a page is wanted for the first time, is written, is read by a call, or is
 * touched while it lies in the second-chance buffer), never the hardware's accessed bits, and says which pages to give up.
 * It knows keys and nothing else: no file, no memory, no clock. bench/policy-sim runs this very code over traces.
 *
 * Where a page can be, as the policy sees it:
 *   probation        new, not proved; first in, first out
 *   main             proved by a second use
 *   second chance    given up, out of every mapping, but its bytes are still in the buffer: a touch is a soft fault, which proves use
 *   ghost            gone; only the key is remembered, so that a touch is known as a refault
 *
 * One policy belongs to one thread. Memory: at most 1 % of `capacity` pages, reserved as it is used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct policy;

enum policy_kind {
	POLICY_ADAPTIVE,           /* all of the above */
	POLICY_FIFO,               /* one queue by first touch, to compare with */
	POLICY_LRU,                /* one queue by the last touch that is seen, to compare with */
};

/* A page's name: any number that is one to one with the pages. Neighbours in a file differ by 1. */
typedef uint64_t policy_key;
#define POLICY_NO_SLOT UINT32_MAX

/* How a page came, or what was seen of it. */
#define POLICY_WRITE     (1u << 0)
#define POLICY_AHEAD     (1u << 1) /* read ahead of need: nobody has asked for it yet */
#define POLICY_STREAM    (1u << 2) /* part of a sequential scan */
#define POLICY_CALL      (1u << 3) /* seen by a read or write call, not by a fault */

/*
 * What policy_evict() asks of its caller. Return true when the page is taken, false when it cannot be now (dirty, in use): it stays. Neither may call
 * the policy.
 */
struct policy_evictor {
	/* Out of every mapping, its bytes into slot `slot` of the second-chance buffer. Frees nothing yet. Never called when there is no buffer. */
	bool (*demote)(void *arg, policy_key key, uint32_t slot);
	/* Gone: from slot `slot` of the buffer, or, with POLICY_NO_SLOT, straight from the cache. Frees one page. */
	bool (*drop)(void *arg, policy_key key, uint32_t slot);
	void *arg;
};

struct policy_counters {
	uint64_t probation, main, second_chance, ghosts;        /* pages now */
	uint64_t inserted, refaults, soft_faults, touches;      /* since the start */
	uint64_t demoted, dropped;
};

/* `capacity`: pages that may be resident at once, the buffer's included. `second_chance`: slots of the buffer at most, 0: none. -ENOMEM. */
int policy_new(struct policy **ret, enum policy_kind kind, uint64_t capacity, uint32_t second_chance);
void policy_free(struct policy *p);
/* The memory has become more or less: the queues adapt as pages come and go. second_chance stays as it was at first, at most. -ENOMEM: as before. */
int policy_resize(struct policy *p, uint64_t capacity);

/* A page has become resident. It must not be in the policy yet. Whether it was a ghost: a refault. -ENOMEM: it is not in the policy. */
int policy_insert(struct policy *p, policy_key key, unsigned flags, bool *ret_refault);
/* Something was seen of a page in probation or main. Nothing if it is not there. */
void policy_touch(struct policy *p, policy_key key, unsigned flags);
/* The slot of a page in the second-chance buffer, or POLICY_NO_SLOT. */
uint32_t policy_slot(const struct policy *p, policy_key key);
/* A page in the buffer was touched: it leaves the buffer (its slot is free from now on) and is proved. */
void policy_soft_fault(struct policy *p, policy_key key, unsigned flags);
/* Not likely to be used soon: given up before all others. Nothing if it is not there, or in the buffer already. */
void policy_deactivate(struct policy *p, policy_key key);
/* Gone for another reason (cut, punched, dropped by request, pinned): forgets it, its slot and its ghost. Nothing if it is not there. */
void policy_remove(struct policy *p, policy_key key);
/*
 * Calls the evictor until `n` pages are free or there is nothing more to take. Pages that are busy are not asked for again in
 * the same call. With `ahead_only` only pages that are worth less than one that is read ahead of need. Returns how many pages were dropped.
 */
uint64_t policy_evict(struct policy *p, uint64_t n, bool ahead_only, const struct policy_evictor *e);
/* Is it in main, so worth being read in again after a restart? */
bool policy_is_hot(const struct policy *p, policy_key key);
const struct policy_counters *policy_counters(const struct policy *p);
/* Bytes that it has allocated. */
uint64_t policy_memory(const struct policy *p);

// SPDX-License-Identifier: Apache-2.0
/*
 * What policy-sim compares with: LRU, ARC and Belady's optimum. All see every access, which the daemon cannot. A trace in, the number of hits out.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/policy_sim.h"

#define NONE UINT32_MAX

void *xcalloc(uint64_t n, uint64_t size)
{
	void *p = calloc(n ? n : 1, size);
	if (!p) {
		fprintf(stderr, "policy-sim: no memory\n");
		exit(1);
	}
	return p;
}

/* Lists of pages by number: one link for each page, and a sentinel for each list behind them. */
struct links { uint32_t *next, *prev; };

static void links_init(struct links *l, uint32_t n)
{
	l->next = xcalloc(n, sizeof(*l->next));
	l->prev = xcalloc(n, sizeof(*l->prev));
	for (uint32_t i = 0; i < n; i++)
		l->next[i] = l->prev[i] = i;
}

static void links_free(struct links *l)
{
	free(l->next);
	free(l->prev);
}

static void unlink_page(struct links *l, uint32_t i)
{
	l->next[l->prev[i]] = l->next[i];
	l->prev[l->next[i]] = l->prev[i];
}

static void push(struct links *l, uint32_t head, uint32_t i)
{
	l->prev[i] = head;
	l->next[i] = l->next[head];
	l->prev[l->next[i]] = i;
	l->next[head] = i;
}

uint64_t sim_lru(const struct trace *t, uint32_t cache)
{
	struct links l;
	uint32_t head = t->n_ids, used = 0;
	uint8_t *in = xcalloc(t->n_ids, 1);
	uint64_t hits = 0;
	links_init(&l, t->n_ids + 1);
	for (uint64_t a = 0; a < t->n; a++) {
		uint32_t i = t->id[a];
		if (in[i]) {
			hits++;
			unlink_page(&l, i);
		} else if (used == cache) {
			uint32_t v = l.prev[head];
			unlink_page(&l, v);
			in[v] = 0;
		} else {
			used++;
		}
		in[i] = 1;
		push(&l, head, i);
	}
	links_free(&l);
	free(in);
	return hits;
}

/* ARC (Megiddo and Modha): T1 and T2 are in the cache, B1 and B2 are remembered. */
enum { OUT, T1, T2, B1, B2, LISTS };

struct arc {
	struct links l;
	uint8_t *where;
	uint32_t base, n[LISTS], cache, target; /* target: pages that T1 should have */
};

static void arc_take(struct arc *c, uint32_t i)
{
	if (c->where[i] == OUT)
		return;
	unlink_page(&c->l, i);
	c->n[c->where[i]]--;
	c->where[i] = OUT;
}

static void arc_put(struct arc *c, uint32_t i, uint8_t list)
{
	arc_take(c, i);
	if (list == OUT)
		return;
	push(&c->l, c->base + list, i);
	c->where[i] = list;
	c->n[list]++;
}

static uint32_t arc_oldest(const struct arc *c, uint8_t list)
{
	return c->l.prev[c->base + list];
}

static void arc_replace(struct arc *c, bool in_b2)
{
	if (c->n[T1] && (c->n[T1] > c->target || (in_b2 && c->n[T1] == c->target) || !c->n[T2]))
		arc_put(c, arc_oldest(c, T1), B1);
	else
		arc_put(c, arc_oldest(c, T2), B2);
}

static void arc_miss(struct arc *c, uint32_t i)
{
	if (c->where[i] == B1) {
		uint32_t step = c->n[B2] > c->n[B1] ? c->n[B2] / c->n[B1] : 1;
		c->target = c->target + step < c->cache ? c->target + step : c->cache;
		arc_replace(c, false);
		arc_put(c, i, T2);
	} else if (c->where[i] == B2) {
		uint32_t step = c->n[B1] > c->n[B2] ? c->n[B1] / c->n[B2] : 1;
		c->target = c->target > step ? c->target - step : 0;
		arc_replace(c, true);
		arc_put(c, i, T2);
	} else {
		if (c->n[T1] + c->n[B1] == c->cache) {
			if (c->n[T1] < c->cache) {
				arc_put(c, arc_oldest(c, B1), OUT);
				arc_replace(c, false);
			} else {
				arc_put(c, arc_oldest(c, T1), OUT);
			}
		} else if (c->n[T1] + c->n[T2] + c->n[B1] + c->n[B2] >= c->cache) {
			if (c->n[T1] + c->n[T2] + c->n[B1] + c->n[B2] == 2 * c->cache)
				arc_put(c, arc_oldest(c, B2), OUT);
			arc_replace(c, false);
		}
		arc_put(c, i, T1);
	}
}

uint64_t sim_arc(const struct trace *t, uint32_t cache)
{
	struct arc c = { .where = xcalloc(t->n_ids, 1), .base = t->n_ids, .cache = cache };
	uint64_t hits = 0;
	links_init(&c.l, t->n_ids + LISTS);
	for (uint64_t a = 0; a < t->n; a++) {
		uint32_t i = t->id[a];
		if (c.where[i] == T1 || c.where[i] == T2) {
			hits++;
			arc_put(&c, i, T2);
		} else {
			arc_miss(&c, i);
		}
	}
	links_free(&c.l);
	free(c.where);
	return hits;
}

/* Belady: gives up the page whose next use is the furthest off. A heap by next use; entries that are no longer true are passed over. */
struct heap {
	struct use { uint64_t next; uint32_t id; } *u;
	uint64_t n;
};

static void heap_push(struct heap *h, struct use x)
{
	uint64_t i = h->n++;
	for (; i && h->u[(i - 1) / 2].next < x.next; i = (i - 1) / 2)
		h->u[i] = h->u[(i - 1) / 2];
	h->u[i] = x;
}

static struct use heap_pop(struct heap *h)
{
	struct use top = h->u[0], x = h->u[--h->n];
	uint64_t i = 0;
	for (uint64_t c; (c = 2 * i + 1) < h->n; i = c) {
		if (c + 1 < h->n && h->u[c + 1].next > h->u[c].next)
			c++;
		if (h->u[c].next <= x.next)
			break;
		h->u[i] = h->u[c];
	}
	h->u[i] = x;
	return top;
}

uint64_t sim_belady(const struct trace *t, uint32_t cache)
{
	uint64_t *next = xcalloc(t->n, sizeof(*next)), *at = xcalloc(t->n_ids, sizeof(*at)), hits = 0;
	struct heap h = { .u = xcalloc(t->n + 1, sizeof(*h.u)) };
	uint32_t used = 0;
	for (uint32_t i = 0; i < t->n_ids; i++)
		at[i] = UINT64_MAX;
	for (uint64_t a = t->n; a--; at[t->id[a]] = a)
		next[a] = at[t->id[a]];
	for (uint32_t i = 0; i < t->n_ids; i++)
		at[i] = 0; /* from now on: the next use of what is in the cache, 0: it is not */
	for (uint64_t a = 0; a < t->n; a++) {
		uint32_t i = t->id[a];
		if (at[i]) {
			hits++;
		} else if (used == cache) {
			struct use v;
			do
				v = heap_pop(&h);
			while (at[v.id] != v.next);
			at[v.id] = 0;
		} else {
			used++;
		}
		at[i] = next[a];
		heap_push(&h, (struct use){ next[a], i });
	}
	free(next);
	free(at);
	free(h.u);
	return hits;
}

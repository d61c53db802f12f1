// SPDX-License-Identifier: Apache-2.0
/*
 * Which pages are kept: see policy.h for the places where a page can be. Pure bookkeeping on the owner's thread: calls
 * nothing but the evictor.
 *
 *   insert --> probation --(oldest)--> buffer --(oldest)--> ghost
 *                  |  ^ touched            | soft fault       | refault
 *                  v                       v                  v
 *               main, level 0..7 <---------+------------------+ (or probation again)
 *                  |---(oldest for its level)--> buffer --> ghost
 *
 * Main is a set of FIFO queues by level. A page of level n stays longer (`growth` times) than one of level n - 1 before
 * it is given up on trial, that is: goes to the buffer. A soft fault there raises its level, so that what is used all
 * the time is on trial ever less often, and costs few soft faults. A ghost remembers the level. A refault says that the
 * page was given up too early, and raises it as well.
 *
 * Three things adapt, each by comparing how often two kinds of pages come back that were given up at the same time (a
 * cohort):
 * - The border: pages that were given up without ever having been proved, against those of main.
 * - The reach: a refault gets a place in a full main if it comes within the reach, that is soon enough. Refaults that
 *   were refused against pages of main. In a loop larger than the cache both always come back, and main had better stay
 *   as it is. When the working set moves, what main gives up does not come back. A few refaults are let in at random,
 *   so that main always gives up some pages and the figures stay known.
 * - The growth: how much longer each level stays than the one below. Pages of higher levels against those of level 0.
 *
 * Lifetime of a node:
 *   free -> PROBATION, MAIN          node_new(), policy_insert()
 *   PROBATION -> MAIN                promote(): touched, a soft fault
 *   PROBATION, MAIN -> SECOND        demoted(): a slot is taken
 *   SECOND -> MAIN                   policy_soft_fault(): the slot is given back
 *   any -> free                      node_delete(): dropped or removed
 *
 * Memory for each page of capacity: a node (24), a hash bucket (4), two ghosts (4 each), and 4 for each slot of the
 * buffer. The pool and the hash grow by an eighth as they are used; the hash splits one bucket an insert (linear
 * hashing), so that nothing ever stalls to move everything.
 */
#include "daemon/policy.h"

#include <assert.h>
#include <string.h>

#include "daemon/util/util.h"

#define LEVELS           8u
#define GHOST_WAYS       8u          /* ghosts in a set; 32 bytes */
#define GHOSTS_PER_PAGE  2u
#define GHOST_TURN       32u         /* units of a ghost's clock in one turn: as many misses as there are pages */
#define NODE_TURN        1024u       /* the same of a node's */
#define LET_IN           64u         /* one in so many refaults that are out of reach gets into main all the same */
#define GROUP            64u         /* neighbours */
#define NEIGHBOURS       16u         /* whose buckets lie in one line of the processor's cache */
#define REACH_ONE        4u          /* the reach is counted in quarters of a unit of the ghosts' clock, */
#define REACH_MIN        8u
#define REACH_MAX        (2 * GHOST_TURN * REACH_ONE)
#define PROBATION_LEAST  64u         /* probation has at least 1 / this of the memory, */
#define PROBATION_MOST   3u          /* and at most 1 / this */
#define GROWTH_ONE       256u
#define WEIGHT_MAX       (1u << 20)
#define GROWTH_MIN       160u        /* how much longer a level stays than the one below it */
#define GROWTH_MAX       800u
#define SPARE_MAX        64u         /* proved pages of the buffer that readahead looks past */
#define CLEARLY          16          /* differences of returns below this are chance */

enum state { FREE, PROBATION, MAIN, SECOND };

struct node {
	policy_key key;
	uint32_t prev, next;       /* a queue; the sentinel of each is a node as well */
	uint32_t chain;            /* of its hash bucket; 0: the end */
	uint32_t state : 2;
	uint32_t proved : 1;       /* has been in main */
	uint32_t level : 3;
	uint32_t unasked : 1;      /* came by readahead or in a stream, and nothing was seen of it since */
	uint32_t touched : 1;      /* was seen since it came to its queue */
	uint32_t stamp : 24;       /* when it came to its queue, in units of p->unit; of SECOND: the slot (low bits) */
};
_Static_assert(sizeof(struct node) == 24, "a node is small");
#define MAX_SLOTS        (1u << 24)

/* Sentinels, the first nodes of the pool. */
enum { Q_FREE, Q_PROBATION, Q_SECOND, Q_BUSY, Q_MAIN, Q_END = Q_MAIN + LEVELS };

struct ghost {
	uint32_t print : 19;       /* part of the key's hash; 0: no ghost */
	uint32_t stamp : 8;
	uint32_t level : 3;
	uint32_t kind : 2;
};
_Static_assert(sizeof(struct ghost) == 4, "a ghost is small");
enum { GHOST_NEW, GHOST_REFUSED, GHOST_MAIN, GHOST_HIGH, GHOST_KINDS }; /* HIGH: of main, level 1 or more */

/* What was given up in one unit of the ghosts' clock, and how much of it has come back. */
#define COHORTS          64u
#define RETURNS_ONE      1024
struct cohort { uint32_t dropped[GHOST_KINDS], returned[GHOST_KINDS]; };

struct policy {
	enum policy_kind kind;
	uint64_t capacity;
	uint64_t clock;            /* misses so far */
	uint64_t unit;             /* misses in one unit of a node's clock */
	uint64_t random;

	struct node *node;
	uint32_t n_nodes, max_nodes; /* ever used and still so, sentinels included; allocated */
	uint64_t n_free;
	uint32_t *bucket;
	uint32_t n_buckets, max_buckets, split_mask; /* split_mask: the power of two at or below n_buckets, minus 1 */

	struct ghost *ghost;
	uint64_t ghost_sets;
	struct cohort cohort[COHORTS]; /* by stamp */
	uint8_t adapted;           /* the unit in which adapt() was called last */
	uint64_t probation_target; /* pages */
	uint32_t growth, weight[LEVELS];
	uint32_t reach;            /* how soon a refault must come to get into a full main */
	policy_key lucky_group;    /* of neighbours, that were drawn for last */
	bool lucky;

	uint32_t *slot;            /* free ones: the next free one + 1 */
	uint32_t max_slots, slots_used, free_slot; /* free_slot: + 1, 0: none */
	uint64_t first_capacity;

	struct policy_counters count;
};

static uint64_t hash(policy_key key)
{
	key ^= key >> 33;
	key *= 0xff51afd7ed558ccdull;
	key ^= key >> 33;
	key *= 0xc4ceb9fe1a85ec53ull;
	return key ^ key >> 33;
}

static uint32_t random_below(struct policy *p, uint32_t n)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 7;
	p->random ^= p->random << 17;
	return (uint32_t)((p->random >> 32) * n >> 32);
}

/* Queues: circular, with a sentinel; the head (next of the sentinel) is the youngest. */
static void queue_remove(struct policy *p, uint32_t i)
{
	struct node *n = &p->node[i];
	p->node[n->prev].next = n->next;
	p->node[n->next].prev = n->prev;
}

static void queue_push(struct policy *p, uint32_t q, uint32_t i)
{
	struct node *n = &p->node[i];
	n->prev = q;
	n->next = p->node[q].next;
	p->node[n->next].prev = i;
	p->node[q].next = i;
}

static void queue_push_oldest(struct policy *p, uint32_t q, uint32_t i)
{
	struct node *s = &p->node[q], *n = &p->node[i];
	n->next = q;
	n->prev = s->prev;
	p->node[s->prev].next = i;
	s->prev = i;
}

static uint32_t queue_tail(const struct policy *p, uint32_t q)
{
	return p->node[q].prev;
}

static uint32_t queue_of(const struct node *n)
{
	return n->state == PROBATION ? Q_PROBATION : n->state == SECOND ? Q_SECOND : Q_MAIN + n->level;
}

static uint32_t now(const struct policy *p)
{
	return (uint32_t)(p->clock / p->unit) & 0xffffffu;
}

static uint32_t age(const struct policy *p, const struct node *n)
{
	return (now(p) - n->stamp) & 0xffffffu;
}

/*
 * The hash of keys. Neighbours have buckets side by side, as a stream brings them one after the other. In which order differs from one neighbourhood to the next, so that
 * strides find all buckets, too.
 */
static uint32_t bucket_of(const struct policy *p, policy_key key)
{
	uint32_t h = (uint32_t)hash(key / NEIGHBOURS) ^ (uint32_t)(key % NEIGHBOURS), b = h & (p->split_mask << 1 | 1);
	return b < p->n_buckets ? b : h & p->split_mask;
}

static uint32_t find(const struct policy *p, policy_key key)
{
	uint32_t i = p->bucket[bucket_of(p, key)];
	while (i && p->node[i].key != key)
		i = p->node[i].chain;
	return i;
}

/* The link that leads to node `i`. */
static uint32_t *link_to(struct policy *p, uint32_t i)
{
	uint32_t *l = &p->bucket[bucket_of(p, p->node[i].key)];
	while (*l != i)
		l = &p->node[*l].chain;
	return l;
}

/* One more bucket: takes its nodes out of the one that held them. Without memory the chains just become longer. */
static void bucket_split(struct policy *p)
{
	if (p->n_buckets == p->max_buckets) {
		uint64_t n = p->max_buckets + p->max_buckets / 8 + 1024;
		if (p->max_buckets < p->capacity)
			n = MIN(n, p->capacity);
		uint32_t *b = n < UINT32_MAX ? realloc(p->bucket, n * sizeof(*b)) : NULL;
		if (!b)
			return;
		p->bucket = b;
		p->max_buckets = (uint32_t)n;
	}
	uint32_t into = p->n_buckets++;
	uint32_t *l = &p->bucket[into & p->split_mask];
	if (p->n_buckets == (p->split_mask + 1) * 2)
		p->split_mask = p->split_mask << 1 | 1;
	p->bucket[into] = 0;
	while (*l) {
		uint32_t i = *l;
		if (bucket_of(p, p->node[i].key) != into) {
			l = &p->node[i].chain;
			continue;
		}
		*l = p->node[i].chain;
		p->node[i].chain = p->bucket[into];
		p->bucket[into] = i;
	}
}

/* The last bucket's nodes go back to where they were split off. */
static void bucket_merge(struct policy *p)
{
	if (p->n_buckets == p->split_mask + 1)
		p->split_mask >>= 1;
	uint32_t last = --p->n_buckets, *l = &p->bucket[last & p->split_mask];
	while (*l)
		l = &p->node[*l].chain;
	*l = p->bucket[last];
}

/* The pool. */
static int node_new(struct policy *p, policy_key key, uint32_t *ret)
{
	uint32_t i = queue_tail(p, Q_FREE);
	if (i != Q_FREE) {
		queue_remove(p, i);
		p->n_free--;
	} else {
		if (p->n_nodes == p->max_nodes) {
			uint64_t n = p->max_nodes + p->max_nodes / 8ull + 256, want = p->capacity + Q_END;
			if (p->max_nodes < want)
				n = MIN(n, want);
			struct node *a = n < UINT32_MAX ? realloc(p->node, n * sizeof(*a)) : NULL;
			if (!a)
				return -ENOMEM;
			p->node = a;
			p->max_nodes = (uint32_t)n;
		}
		i = p->n_nodes++;
	}
	if (p->n_nodes - Q_END - p->n_free > p->n_buckets)
		bucket_split(p);
	uint32_t *b = &p->bucket[bucket_of(p, key)];
	p->node[i] = (struct node){ .key = key, .chain = *b };
	*b = i;
	*ret = i;
	return 0;
}

/* After the capacity became less: makes the pool shorter by its last node, which moves into a free one unless it is free itself. */
static void pool_trim(struct policy *p)
{
	uint32_t last = p->n_nodes - 1, to = queue_tail(p, Q_FREE);
	if (p->node[last].state == FREE)
		to = last;
	queue_remove(p, to);
	p->n_free--;
	if (to != last) {
		*link_to(p, last) = to;
		p->node[to] = p->node[last];
		p->node[p->node[to].prev].next = to;
		p->node[p->node[to].next].prev = to;
	}
	p->n_nodes--;
	if (p->n_nodes < p->max_nodes / 2 && p->max_nodes > p->capacity + Q_END) {
		uint64_t n = MAX(p->n_nodes, p->capacity + Q_END);
		struct node *a = realloc(p->node, n * sizeof(*a));
		if (!a)
			return;
		p->node = a;
		p->max_nodes = (uint32_t)n;
	}
}

static void node_delete(struct policy *p, uint32_t i)
{
	*link_to(p, i) = p->node[i].chain;
	queue_remove(p, i);
	p->node[i] = (struct node){ .state = FREE };
	queue_push(p, Q_FREE, i);
	p->n_free++;
	while (p->n_nodes > p->capacity + Q_END && p->n_free > p->n_nodes / 8)
		pool_trim(p);
	if (p->n_buckets > 64 && p->n_buckets > p->capacity && p->n_buckets > 2 * (p->n_nodes - p->n_free))
		bucket_merge(p);
}

/* Ghosts: sets of GHOST_WAYS, in which the oldest gives way. */
static struct ghost *ghost_set(const struct policy *p, uint64_t h)
{
	return p->ghost + (uint64_t)((unsigned __int128)h * p->ghost_sets >> 64) * GHOST_WAYS;
}

static uint32_t ghost_print(uint64_t h)
{
	return (uint32_t)(h & 0x7ffff) | 1;
}

static uint8_t ghost_now(const struct policy *p)
{
	return (uint8_t)(p->clock / (p->unit * (NODE_TURN / GHOST_TURN)));
}

static struct ghost *ghost_find(const struct policy *p, policy_key key)
{
	uint64_t h = hash(key);
	struct ghost *g = ghost_set(p, h);
	for (unsigned i = 0; i < GHOST_WAYS; i++)
		if (g[i].print == ghost_print(h))
			return &g[i];
	return NULL;
}

static void ghost_forget(struct policy *p, struct ghost *g)
{
	*g = (struct ghost){ 0 };
	p->count.ghosts--;
}

static void ghost_add(struct policy *p, policy_key key, unsigned level, unsigned kind)
{
	uint64_t h = hash(key);
	struct ghost *g = ghost_find(p, key), *set = ghost_set(p, h);
	for (unsigned i = 0; i < GHOST_WAYS && (!g || g->print); i++)
		if (!g || !set[i].print || (uint8_t)(ghost_now(p) - set[i].stamp) > (uint8_t)(ghost_now(p) - g->stamp))
			g = &set[i];
	if (!g->print)
		p->count.ghosts++;
	*g = (struct ghost){ .print = ghost_print(h), .stamp = ghost_now(p), .level = level, .kind = kind };
	p->cohort[ghost_now(p) % COHORTS].dropped[kind]++;
}

/* Slots of the buffer. */
static uint32_t slot_take(struct policy *p)
{
	uint32_t s;
	if (p->free_slot) {
		s = p->free_slot - 1;
		p->free_slot = p->slot[s];
	} else {
		s = p->slots_used++;
	}
	return s;
}

static void slot_give(struct policy *p, uint32_t s)
{
	p->slot[s] = p->free_slot;
	p->free_slot = s + 1;
}

/* Slots that are to be in use: in proportion when the memory is less than at first. */
static uint64_t slots_target(const struct policy *p)
{
	return p->capacity >= p->first_capacity ? p->max_slots : p->max_slots * p->capacity / p->first_capacity;
}

/* Pages that main may have before it gives up its own. */
static uint64_t main_target(const struct policy *p)
{
	uint64_t room = p->capacity - slots_target(p);
	return room - MIN(room, p->probation_target);
}

static bool main_is_full(const struct policy *p)
{
	return p->count.main >= main_target(p);
}

/*
 * How much more often pages of kind `a` come back than pages of kind `b`, from -1 to 1 in units of 1 / RETURNS_ONE.
 * Compared are pages that were given up at the same time, so that what has not had the time to come back counts for
 * neither.
 */
static int returns_more(const struct policy *p, unsigned a, unsigned b)
{
	int64_t sum = 0, weight = 0;
	for (unsigned i = 0; i < COHORTS; i++) {
		const struct cohort *c = &p->cohort[i];
		int64_t da = c->dropped[a], ra = c->returned[a], db = c->dropped[b], rb = c->returned[b];
		if (b == GHOST_MAIN && a != GHOST_HIGH) {
			db += c->dropped[GHOST_HIGH];
			rb += c->returned[GHOST_HIGH];
		}
		if (!da || !db)
			continue;
		int64_t w = MIN(da, db);
		sum += w * (ra * RETURNS_ONE / da - rb * RETURNS_ONE / db);
		weight += w;
	}
	return weight ? (int)(sum / weight) : 0;
}

/* Once in each unit of the ghosts' clock: moves the border between probation and main, and what refaults are let in, towards what pays. */
static void adapt(struct policy *p)
{
	uint64_t least = p->capacity / PROBATION_LEAST + 1, most = p->capacity / PROBATION_MOST + 1, step = p->capacity / 64 + 1;
	if (returns_more(p, GHOST_NEW, GHOST_MAIN) > CLEARLY)
		p->probation_target = MIN(p->probation_target + step, most);
	else
		p->probation_target = MAX(p->probation_target - MIN(step, p->probation_target), least);
	if (returns_more(p, GHOST_REFUSED, GHOST_MAIN) > CLEARLY)
		p->reach = MIN(p->reach + REACH_ONE, REACH_MAX);
	else
		p->reach = MAX(p->reach - REACH_ONE, REACH_MIN);
	int high = returns_more(p, GHOST_HIGH, GHOST_MAIN);
	if (high > CLEARLY)
		p->growth = MIN(p->growth + p->growth / 128, GROWTH_MAX);
	else if (high < -CLEARLY)
		p->growth = MAX(p->growth - p->growth / 128, GROWTH_MIN);
	for (uint64_t l = 1, w = p->weight[0] = GROWTH_ONE; l < LEVELS; l++)
		p->weight[l] = w = MIN(w * p->growth / GROWTH_ONE, WEIGHT_MAX);
	p->cohort[ghost_now(p) % COHORTS] = (struct cohort){ 0 };
	p->adapted = ghost_now(p);
}

/* Into the queue where `state` and `level` say. The node is in none. */
static void node_place(struct policy *p, uint32_t i, enum state state, unsigned level)
{
	struct node *n = &p->node[i];
	n->state = state;
	n->level = level & (LEVELS - 1);
	n->touched = 0;
	if (state != SECOND)
		n->stamp = now(p);
	if (state == MAIN)
		n->proved = 1;
	p->count.probation += state == PROBATION;
	p->count.main += state == MAIN;
	p->count.second_chance += state == SECOND;
	queue_push(p, queue_of(n), i);
}

static void uncount(struct policy *p, const struct node *n)
{
	p->count.probation -= n->state == PROBATION;
	p->count.main -= n->state == MAIN;
	p->count.second_chance -= n->state == SECOND;
}

static void node_take(struct policy *p, uint32_t i)
{
	uncount(p, &p->node[i]);
	queue_remove(p, i);
}

static void promote(struct policy *p, uint32_t i, unsigned level)
{
	node_take(p, i);
	p->node[i].unasked = 0;
	node_place(p, i, MAIN, MIN(level, LEVELS - 1));
}

/* Made and ended. */
static int ghosts_resize(struct policy *p, uint64_t capacity)
{
	if (p->kind != POLICY_ADAPTIVE)
		return 0;
	uint64_t sets = MAX(capacity * GHOSTS_PER_PAGE / GHOST_WAYS, 1);
	if (p->ghost && sets <= p->ghost_sets && sets >= p->ghost_sets / 4)
		return 0;
	struct ghost *g = calloc(sets * GHOST_WAYS, sizeof(*g));
	if (!g)
		return -ENOMEM;
	free(p->ghost);
	p->ghost = g;
	p->ghost_sets = sets;
	p->count.ghosts = 0;
	return 0;
}

static void set_capacity(struct policy *p, uint64_t capacity)
{
	p->capacity = capacity;
	p->unit = MAX(capacity / NODE_TURN, 1);
	p->probation_target = capacity / 10;
}

int policy_new(struct policy **ret, enum policy_kind kind, uint64_t capacity, uint32_t second_chance)
{
	struct policy *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->kind = kind;
	p->random = 0x9e3779b97f4a7c15ull;
	p->reach = REACH_MAX / 2;
	p->growth = 2 * GROWTH_ONE;
	for (unsigned l = 0; l < LEVELS; l++)
		p->weight[l] = GROWTH_ONE << l;
	p->first_capacity = MAX(capacity, 1);
	p->max_slots = kind == POLICY_ADAPTIVE ? (uint32_t)MIN(MIN(second_chance, MAX_SLOTS), capacity / 2) : 0;
	set_capacity(p, capacity);
	p->max_nodes = Q_END;
	p->max_buckets = p->n_buckets = 16;
	p->split_mask = 15;
	p->node = calloc(p->max_nodes, sizeof(*p->node));
	p->bucket = calloc(p->max_buckets, sizeof(*p->bucket));
	p->slot = calloc(MAX(p->max_slots, 1), sizeof(*p->slot));
	if (!p->node || !p->bucket || !p->slot || ghosts_resize(p, capacity) < 0) {
		policy_free(p);
		return -ENOMEM;
	}
	for (p->n_nodes = 0; p->n_nodes < Q_END; p->n_nodes++)
		p->node[p->n_nodes].prev = p->node[p->n_nodes].next = p->n_nodes;
	*ret = p;
	return 0;
}

void policy_free(struct policy *p)
{
	if (!p)
		return;
	free(p->node);
	free(p->bucket);
	free(p->ghost);
	free(p->slot);
	free(p);
}

int policy_resize(struct policy *p, uint64_t capacity)
{
	int r = ghosts_resize(p, capacity);
	if (r < 0)
		return r;
	uint32_t was = now(p);
	set_capacity(p, capacity);
	p->clock = was * p->unit; /* ages stay what they were as a share of the memory */
	return 0;
}

/* What was seen. */

/* One draw for neighbours that come one after the other: what a scan leaves in main is read, and skipped, in large pieces the next time. */
static bool let_in(struct policy *p, policy_key key)
{
	if (key / GROUP != p->lucky_group || p->clock == 1) {
		p->lucky_group = key / GROUP;
		p->lucky = !random_below(p, LET_IN);
	}
	return p->lucky;
}

/* A page that was given up has come back, after `since` units of the ghosts' clock. Where it goes. */
static enum state refault(struct policy *p, policy_key key, const struct ghost *g, unsigned *ret_level)
{
	uint8_t since = (uint8_t)(ghost_now(p) - g->stamp);
	unsigned level = g->level;
	if (g->kind >= GHOST_MAIN)
		level++;
	if (since < COHORTS)
		p->cohort[g->stamp % COHORTS].returned[g->kind]++;
	*ret_level = MIN(level, LEVELS - 1);
	if (!main_is_full(p))
		return MAIN;
	return since * REACH_ONE < p->reach || let_in(p, key) ? MAIN : PROBATION;
}

int policy_insert(struct policy *p, policy_key key, unsigned flags, bool *ret_refault)
{
	uint32_t i;
	int r = node_new(p, key, &i);
	if (r < 0)
		return r;
	bool again = false, guess = (flags & POLICY_AHEAD) && !(flags & POLICY_STREAM);
	enum state state = PROBATION;
	unsigned level = 0;
	p->clock++;
	p->count.inserted++;
	if (p->adapted != ghost_now(p))
		adapt(p);
	struct ghost *g = p->ghost ? ghost_find(p, key) : NULL;
	if (g) {
		again = true;
		p->count.refaults++;
		if (guess)
			level = g->level;
		else
			state = refault(p, key, g, &level);
		ghost_forget(p, g);
	}
	p->node[i].unasked = (flags & (POLICY_AHEAD | POLICY_STREAM)) != 0;
	if (state == PROBATION && again && !guess)
		level = MAX(level, 1); /* marks one that was refused */
	node_place(p, i, state, level);
	*ret_refault = again;
	return 0;
}

void policy_touch(struct policy *p, policy_key key, unsigned flags)
{
	uint32_t i = find(p, key);
	if (!i || p->node[i].state == SECOND)
		return;
	struct node *n = &p->node[i];
	p->count.touches++;
	if (p->kind == POLICY_LRU) {
		queue_remove(p, i);
		queue_push(p, Q_PROBATION, i);
	} else if (n->unasked) {
		n->unasked = 0; /* the first use, which it was read for */
	} else {
		n->touched = 1;
	}
}

uint32_t policy_slot(const struct policy *p, policy_key key)
{
	uint32_t i = find(p, key);
	return i && p->node[i].state == SECOND ? p->node[i].stamp : POLICY_NO_SLOT;
}

void policy_soft_fault(struct policy *p, policy_key key, unsigned flags)
{
	uint32_t i = find(p, key);
	if (!i || p->node[i].state != SECOND)
		return;
	struct node *n = &p->node[i];
	p->count.soft_faults++;
	slot_give(p, n->stamp);
	promote(p, i, n->level + 1u);
}

void policy_deactivate(struct policy *p, policy_key key)
{
	uint32_t i = find(p, key);
	if (!i || p->node[i].state == SECOND)
		return;
	node_take(p, i);
	node_place(p, i, PROBATION, 0);
	p->node[i].proved = 0;
	/* From the young end to the old one. */
	queue_remove(p, i);
	queue_push_oldest(p, Q_PROBATION, i);
}

void policy_remove(struct policy *p, policy_key key)
{
	struct ghost *g = p->ghost ? ghost_find(p, key) : NULL;
	if (g)
		ghost_forget(p, g);
	uint32_t i = find(p, key);
	if (!i)
		return;
	if (p->node[i].state == SECOND)
		slot_give(p, p->node[i].stamp);
	uncount(p, &p->node[i]);
	node_delete(p, i);
}

/* Giving up. */

/* The queue of main whose oldest page is the most overdue. Q_END: main is empty. */
static uint32_t main_overdue(const struct policy *p)
{
	uint32_t best = Q_END;
	uint64_t most = 0;
	for (uint32_t l = 0; l < LEVELS; l++) {
		uint32_t i = queue_tail(p, Q_MAIN + l);
		if (i == Q_MAIN + l)
			continue;
		uint64_t a = ((uint64_t)age(p, &p->node[i]) + 1) * WEIGHT_MAX / p->weight[l];
		if (best == Q_END || a > most) {
			most = a;
			best = Q_MAIN + l;
		}
	}
	return best;
}

static void busy(struct policy *p, uint32_t i)
{
	queue_remove(p, i);
	queue_push(p, Q_BUSY, i);
}

static bool drop(struct policy *p, uint32_t i, const struct policy_evictor *e)
{
	struct node *n = &p->node[i];
	policy_key key = n->key;
	if (!e->drop(e->arg, key, n->state == SECOND ? n->stamp : POLICY_NO_SLOT)) {
		busy(p, i);
		return false;
	}
	if (p->ghost)
		ghost_add(p, key, n->level, n->proved ? (n->level ? GHOST_HIGH : GHOST_MAIN) : n->level ? GHOST_REFUSED : GHOST_NEW);
	if (n->state == SECOND)
		slot_give(p, n->stamp);
	uncount(p, n);
	node_delete(p, i);
	p->count.dropped++;
	return true;
}

static void demote(struct policy *p, uint32_t i, const struct policy_evictor *e)
{
	struct node *n = &p->node[i];
	uint32_t slot = slot_take(p);
	if (!e->demote(e->arg, n->key, slot)) {
		slot_give(p, slot);
		busy(p, i);
		return;
	}
	node_take(p, i);
	n->stamp = slot & 0xffffffu;
	node_place(p, i, SECOND, n->level);
	p->count.demoted++;
}

/* The page to give up next, of those that are not in the buffer; 0: none. */
static uint32_t victim(struct policy *p, bool ahead_only)
{
	uint32_t i = queue_tail(p, Q_PROBATION);
	if (p->kind != POLICY_ADAPTIVE)
		return i != Q_PROBATION ? i : 0;
	if (ahead_only)
		return i != Q_PROBATION && p->count.probation > p->probation_target / 4 ? i : 0;
	uint32_t q = main_overdue(p);
	if (i != Q_PROBATION && (q == Q_END || p->count.main <= main_target(p)))
		return i;
	if (q != Q_END)
		return queue_tail(p, q);
	return i != Q_PROBATION ? i : 0;
}

/* Drops the oldest page of the buffer. Whether there was one to try. For readahead it passes over proved ones, `spare` at most. */
static bool buffer_drop(struct policy *p, bool ahead_only, const struct policy_evictor *e, uint64_t *dropped, unsigned *spare)
{
	uint32_t i = queue_tail(p, Q_SECOND);
	if (i == Q_SECOND)
		return false;
	if (!ahead_only || !p->node[i].proved) {
		*dropped += drop(p, i, e);
	} else {
		if (!*spare)
			return false;
		--*spare;
		busy(p, i);
	}
	return true;
}

uint64_t policy_evict(struct policy *p, uint64_t n, bool ahead_only, const struct policy_evictor *e)
{
	uint64_t dropped = 0, demotions = 0;
	unsigned spare = SPARE_MAX;
	while (dropped < n) {
		/* The buffer fills by one page for each that is dropped. */
		bool full = p->count.second_chance >= slots_target(p) || demotions >= 2 * (dropped + 8);
		if (full && buffer_drop(p, ahead_only, e, &dropped, &spare))
			continue;
		uint32_t i = victim(p, ahead_only);
		if (!i) {
			if (!buffer_drop(p, ahead_only, e, &dropped, &spare))
				break;
			continue;
		}
		struct node *v = &p->node[i];
		if (v->touched && p->kind == POLICY_ADAPTIVE) {
			promote(p, i, v->state == MAIN ? v->level + 1 : v->level);
		} else if (p->count.second_chance >= slots_target(p) || (v->unasked && v->state == PROBATION)) {
			dropped += drop(p, i, e);
		} else {
			demote(p, i, e);
			demotions++;
		}
	}
	while (queue_tail(p, Q_BUSY) != Q_BUSY) {
		uint32_t i = queue_tail(p, Q_BUSY);
		queue_remove(p, i);
		queue_push(p, queue_of(&p->node[i]), i);
	}
	return dropped;
}

bool policy_is_hot(const struct policy *p, policy_key key)
{
	uint32_t i = find(p, key);
	return i && p->node[i].state == MAIN;
}

const struct policy_counters *policy_counters(const struct policy *p)
{
	return &p->count;
}

uint64_t policy_memory(const struct policy *p)
{
	return sizeof(*p) + p->max_nodes * sizeof(*p->node) + p->max_buckets * sizeof(*p->bucket) +
		p->ghost_sets * GHOST_WAYS * sizeof(*p->ghost) + MAX(p->max_slots, 1) * sizeof(*p->slot);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room for pages. The budget is one counter for all workers. When less than a reserve is free, each worker gives pages of its own files up in the
 * background, as many as is its share of what is worth little, until twice the reserve is free; a charge that finds no room makes some itself
 * (direct reclaim), and what still finds none is parked in worker->no_room, which the worker's loop tries again.
 *
 * Which pages go is the policy's choice (policy.h). A page that goes is clean, so it is write-protected in every mapping: punching it out of the
 * memfd loses nothing, and a store that was waiting faults again as a missing one. Demoting copies its bytes into the second-chance buffer first.
 * Dirty pages are passed over, and written out in the background. `seq` of the control page grows before any page is punched.
 *
 * Runs on the worker. May call file, domain, policy and writeback.
 */
#include "daemon/reclaim.h"

#include <sys/uio.h>

#include "daemon/domain.h"
#include "daemon/file.h"
#include "daemon/huge.h"
#include "daemon/kill_point.h"
#include "daemon/track.h"
#include "daemon/window.h"
#include "daemon/writeback.h"

#define ASK_HUGE     UINT32_MAX
#define READERS_NS 1000000ull          /* between two times that they are asked */
#define BATCH         64u            /* pages that are given up together */
#define TURN          256u           /* pages in one round of the background, at most */
#define TURN_MIN      8u
#define OWE_ONE       256u           /* units of a page */
#define STEPS         4u             /* of a turn, while there is nothing else to do */
#define TURN_NS       100000ull
#define NO_RECLAIM_NS 1000000ull
#define ASK_NS        1000000ull
#define SLOTS_TRIES   8u
#define PROVED_WEIGHT 16u            /* so many pages weigh as much as one that is not proved */

struct reclaim_ask {
	struct ring_op op;
	struct worker *from, *to;
	uint64_t pages;            /* to be given up at once; 0: only what is due */
	uint32_t tenant;           /* of this one; 0: of all; ASK_HUGE: a huge page, of whomever */
	bool busy;
};

#define load(x) atomic_load_explicit(&(x), memory_order_relaxed)

/* --- giving pages up --- */

struct item { struct block *b; unsigned bit; uint32_t slot; }; /* slot: POLICY_NO_SLOT: dropped */

/* One walk of a policy. What it gives up is gathered and done in runs. */
struct giving {
	struct worker *w;
	struct domain *d;
	struct item item[BATCH];
	unsigned n;
	policy_key failed[2 * BATCH]; /* neither dropped nor demoted: to be forgotten once the policy's walk is over. Those of a batch, and one that came after it */
	unsigned n_failed;
	bool dirty;                /* some could not go because they are dirty */
};

static struct block *block_of(struct worker *w, policy_key key, unsigned *ret_bit)
{
	struct file *f = w->file_of[key >> w->page_bits];
	uint64_t page = key & ((1ull << w->page_bits) - 1);

	*ret_bit = (unsigned)(page % PGC_BLOCK_PAGES);
	return f ? block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES) : NULL;
}

static void note_unused(struct block *b, uint64_t pages)
{
	struct worker *w = b->file->worker;
	uint64_t wasted = b->ahead & pages;

	if (!wasted)
		return;
	b->ahead &= ~wasted;
	w->stats->readahead_wasted += (uint64_t)__builtin_popcountll(wasted);
	b->file->wasted += (uint64_t)__builtin_popcountll(wasted);
}

/* Where the run is copied to. */
static void use_slots(struct giving *g, unsigned from, unsigned to, struct iovec *iov)
{
	for (unsigned i = from; i < to; i++) {
		domain_use_slot(g->w, g->d, g->item[i].slot);
		iov[i - from] = (struct iovec){ domain_slot(g->d, g->item[i].slot), PAGE_SIZE_ };
	}
}

/* It could not be punched, or has just been stored to: it stays, in main memory, and unknown to the policy until the walk is over. */
static void stays(struct giving *g, const struct item *x)
{
	window_show(x->b);
	g->failed[g->n_failed++] = file_key(x->b->file, block_first(x->b) + x->bit);
	g->dirty |= x->b->e->dirty & 1ull << x->bit;
}

/* Items [from, to) are neighbours in one file, all dropped or all demoted. */
static void give_run(struct giving *g, unsigned from, unsigned to)
{
	struct block *first = g->item[from].b;
	struct file *f = first->file;
	bool demote = g->item[from].slot != POLICY_NO_SLOT;
	uint64_t page = block_first(first) + g->item[from].bit, stay;
	unsigned n = to - from;
	struct iovec slots[BATCH];
	struct track_copy copy = { .to = slots };

	if (demote)
		use_slots(g, from, to, slots);
	window_hide(f, page, n);
	kill_point("reclaim.punching");
	if (track_punch(f, page, n, demote ? &copy : NULL, &stay) < 0)
		stay = bits_range(0, n);
	kill_point("reclaim.punched");
	for (unsigned i = from; i < to; i++) {
		struct block *b = g->item[i].b;
		uint64_t bit = 1ull << g->item[i].bit;
		bool goes = !(stay & 1ull << (i - from)), copied = goes && (copy.done & 1ull << (i - from));

		if (demote && !copied)
			domain_put_slot(g->w, g->d, g->item[i].slot);
		if (!goes) {
			stays(g, &g->item[i]);
			continue;
		}
		note_unused(b, bit);
		block_give_up(b, bit);
		if (copied) {
			b->second |= bit;
			g->w->stats->demoted++;
		} else if (demote) {
			g->failed[g->n_failed++] = file_key(f, block_first(b) + g->item[i].bit);
		}
		if (i + 1 == to || g->item[i + 1].b != b)
			block_maybe_free(b);
	}
	n -= (unsigned)__builtin_popcountll(stay);
	g->w->stats->reclaimed += n;
	kill_point("reclaim.given_up");
}

static void give_gathered(struct giving *g)
{
	unsigned from = 0;

	while (from < g->n) {
		const struct item *a = &g->item[from];
		uint64_t page = block_first(a->b) + a->bit;
		unsigned to = from + 1;

		while (to < g->n && g->item[to].b->file == a->b->file &&
		       block_first(g->item[to].b) + g->item[to].bit == page + (to - from) &&
		       (g->item[to].slot == POLICY_NO_SLOT) == (a->slot == POLICY_NO_SLOT))
			to++;
		give_run(g, from, to);
		from = to;
	}
	g->n = 0;
}

static bool may_go(struct giving *g, struct block *b, uint64_t bit)
{
	if (!(b->e->resident & bit) || (b->pinned & bit))
		return false;
	if (lane_free_run(&b->file->lent, block_first(b) + (unsigned)__builtin_ctzll(bit), 1) == 0)
		return false; /* somebody is being given it */
	if ((b->e->dirty | b->e->writeback | b->e->keep) & bit) {
		g->dirty = true;
		return false;
	}
	return true;
}

static void gather(struct giving *g, struct block *b, unsigned bit, uint32_t slot)
{
	if (g->n == BATCH)
		give_gathered(g);
	g->item[g->n++] = (struct item){ b, bit, slot };
}

static bool demote_page(void *arg, policy_key key, uint32_t slot)
{
	struct giving *g = arg;
	unsigned bit;
	struct block *b = block_of(g->w, key, &bit);

	if (!b || g->n_failed > 0 || !may_go(g, b, 1ull << bit))
		return false;
	gather(g, b, bit, slot);
	return true;
}

static bool drop_page(void *arg, policy_key key, uint32_t slot)
{
	struct giving *g = arg;
	unsigned bit;
	struct block *b = block_of(g->w, key, &bit);

	if (slot == POLICY_NO_SLOT) {
		if (!b || g->n_failed > 0 || !may_go(g, b, 1ull << bit))
			return false;
		gather(g, b, bit, slot);
		return true;
	}
	if (!b || !(b->second & (1ull << bit))) {
		give_gathered(g); /* it is among those */
		b = block_of(g->w, key, &bit);
	}
	if (!b || !(b->second & (1ull << bit)))
		return true; /* its copy failed */
	b->second &= ~(1ull << bit);
	kill_point("reclaim.dropped");
	domain_put_slot(g->w, g->d, slot);
	block_maybe_free(b); /* not if it is among those gathered: these are resident still */
	return true;
}

/* What was read of late without a word proves itself before it is given up. */
static void ask_readers(struct worker *w)
{
	uint64_t now = list_empty(&w->readers) ? 0 : now_ns();

	if (now - w->readers_asked < READERS_NS || now == 0)
		return;
	w->readers_asked = now;
	window_touched_all(w);
}

/*
 * Huge pages give up their share of `pages`, by what they hold. One of them is more than that mostly, which counts for later. `at_once`: one, whatever is due.
 */
static uint64_t give_up_huge(struct domain *d, uint64_t pages, bool at_once)
{
	uint64_t freed;

	if (d->huge == 0)
		return 0;
	d->huge_due += at_once ? 0 : (int64_t)(pages * d->huge / MAX(d->used, 1));
	if (d->huge_due <= 0 && !at_once)
		return 0;
	freed = huge_give_up(d, (uint64_t)MAX(d->huge_due, 1));
	d->huge_due = MIN(d->huge_due - (int64_t)freed, (int64_t)HUGE_PAGES);
	return freed;
}

/* For whom: readahead, which takes only what is worth less; nobody yet, who may go on later; somebody who waits. */
enum give_how { GIVE_AHEAD, GIVE_IDLE, GIVE_NOW };

/* Of one domain. Returns how many pages less are charged. */
static uint64_t give_up(struct worker *w, struct domain *d, uint64_t pages, enum give_how how, bool *ret_dirty)
{
	bool ahead_only = how == GIVE_AHEAD;
	struct giving g = { .w = w, .d = d };
	struct policy_evictor e = { demote_page, drop_page, &g };
	uint64_t before = d->used, huge = ahead_only ? 0 : give_up_huge(d, pages, false);

	domain_fit(w, d);
	ask_readers(w);
	if (huge < pages)
		(void)policy_evict(d->policy, pages - huge, ahead_only, &e);
	give_gathered(&g);
	for (unsigned i = 0; i < g.n_failed; i++) {
		unsigned bit;
		struct block *b = block_of(w, g.failed[i], &bit);

		policy_remove(d->policy, g.failed[i]);
		if (b && (b->e->resident & (1ull << bit)))
			block_in_policy(b, 1ull << bit, 0);
	}
	*ret_dirty |= g.dirty;
	if (how == GIVE_NOW && before - MIN(d->used, before) < pages)
		(void)give_up_huge(d, pages, true);
	return before > d->used ? before - d->used : 0;
}

static void write_all_back(struct worker *w)
{
	struct file *f, *next;

	list_for_each_safe(f, next, &w->all_files, by_worker)
		if (f->e->dirty > f->e->keep)
			writeback_background(f);
}

/* Of all domains, each by its share of what the worker holds. *ret_dirty: more could go if it was written. */
static uint64_t give_up_clean(struct worker *w, uint64_t pages, enum give_how how, bool *ret_dirty)
{
	uint64_t freed = 0, used = MAX(w->used, 1);
	bool dirty = false;
	struct domain *d;

	list_for_each(d, &w->domains, link) {
		uint64_t part = (pages * d->used + used - 1) / used;

		if (d->used > 0 && freed < pages)
			freed += give_up(w, d, MIN(part, pages - freed), how, &dirty);
	}
	*ret_dirty = dirty && freed < pages;
	return freed;
}

static uint64_t give_up_all(struct worker *w, uint64_t pages, enum give_how how)
{
	bool dirty;
	uint64_t freed = give_up_clean(w, pages, how, &dirty);

	if (dirty)
		write_all_back(w);
	return freed;
}

uint64_t reclaim_pages(struct worker *w, uint64_t pages) { return give_up_all(w, pages, GIVE_NOW); }

bool reclaim_may_track(struct tracker *t)
{
	struct worker *w = t->file->worker;
	bool dirty;

	if (track_has_room(t))
		return true;
	/* Where most is that client's, what goes is what is worth least. */
	if (t->pages * 2 > w->used)
		(void)give_up_clean(w, TURN_MIN, GIVE_IDLE, &dirty);
	return track_may_map(t);
}

bool reclaim_slots(struct worker *w)
{
	uint32_t before = w->block_slots.n_free;

	for (unsigned i = 0; i < SLOTS_TRIES && w->block_slots.n_free == before; i++)
		if (reclaim_pages(w, TURN) == 0)
			break;
	if (w->block_slots.n_free > before)
		return true;
	write_all_back(w);
	return false;
}

/* --- in the background --- */

/* How many pages are above the low mark, while the background has to work: all workers together, so that it is not left to one. */
static uint64_t excess(struct worker *w)
{
	struct budget *b = w->budget;
	uint64_t max = load(b->max), used = load(b->used), reserve = budget_reserve(max);

	if (used + 2 * reserve <= max) {
		if (load(b->reclaiming))
			atomic_store_explicit(&b->reclaiming, false, memory_order_relaxed);
		return 0;
	}
	if (used + reserve > max && !load(b->reclaiming))
		atomic_store_explicit(&b->reclaiming, true, memory_order_relaxed);
	return load(b->reclaiming) ? used + 2 * reserve - max : 0;
}

static uint64_t part_of(uint64_t pages, uint64_t mine, uint64_t all) { return (uint64_t)((unsigned __int128)pages * mine / MAX(all, 1)); }

/* This worker's part of `pages` that all are to give up: by what it holds, so that one that holds little is not emptied for the others. */
static uint64_t my_part(struct worker *w, uint64_t pages)
{
	uint64_t part = part_of(pages, w->used, load(w->budget->used));

	return MAX(part, MIN(BATCH, w->used / 16));
}

static bool much_dirty(struct worker *w)
{
	struct budget *b = w->budget;
	uint64_t background = load(b->dirty_background);

	return background && load(b->dirty) > background + load(b->kept);
}

/*
 * What this worker should give up in proportion to: pages that are not proved, so that a scan here pays for itself; and a little for all
 * others, so that what is used elsewhere by now finds a place.
 */
static uint64_t weigh(struct worker *w)
{
	uint64_t n = w->used / PROVED_WEIGHT;
	struct domain *d;

	list_for_each(d, &w->domains, link)
		n += policy_counters(d->policy)->probation + d->huge; /* huge pages cannot be proved */
	atomic_store_explicit(&w->weight, n, memory_order_relaxed);
	return n;
}

struct weights { uint64_t mine, others; bool heaviest; };

static struct weights weigh_all(struct worker *w)
{
	struct weights r = { .mine = weigh(w), .heaviest = true };

	for (unsigned i = 0; i < w->n_workers; i++) {
		uint64_t n = load(w->all[i].weight);

		r.others += i != w->id ? n : 0;
		if (n > r.mine || (n == r.mine && i < w->id))
			r.heaviest = false;
	}
	return r;
}

/* What this worker gives up of `over` pages in a turn, by its weight. The heaviest one takes a batch at least, and so goes on until there are none; what is less than a batch is owed. */
static uint64_t due(struct worker *w, uint64_t over)
{
	struct weights weights = weigh_all(w);
	uint64_t share = part_of(over, weights.mine, weights.mine + weights.others) + w->owed, turn;

	w->owed = 0;
	if (share < BATCH && !weights.heaviest) {
		w->owed = share;
		return 0;
	}
	/* Above the limit itself everybody waits for nothing else. */
	turn = load(w->budget->used) > load(w->budget->max) ? TURN : w->turn;
	return MIN(MIN(MAX(share, BATCH), turn), w->used);
}

/*
 * A turn takes about as long as a read from the store, so that faults do not wait for it: pages that lie side by side go in large batches, scattered
 * ones fewer at a time. A turn itself costs some 20 us, a page 1 to 3, so shorter ones would cost more for each page.
 */
static uint64_t give_up_timed(struct worker *w, uint64_t pages, enum give_how how, bool *ret_dirty)
{
	uint64_t start = now_ns(), freed = give_up_clean(w, pages, how, ret_dirty), took = MAX(now_ns() - start, 1);

	w->turn = MIN(MAX(pages * TURN_NS / took, TURN_MIN), TURN);
	return freed;
}

static void balance(struct task *t)
{
	struct worker *w = container_of(t, struct worker, balance);
	uint64_t over = excess(w), mine, freed;
	bool dirty = false;

	if (much_dirty(w))
		write_all_back(w);
	mine = over ? due(w, over) : 0;
	freed = mine > 0 ? give_up_timed(w, mine, GIVE_NOW, &dirty) : 0;
	if (dirty)
		write_all_back(w);
	if (freed > 0)
		worker_queue(w, &w->balance); /* the others' turn in between */
}

/* On the asking worker. */
static void ask_answered(struct ring_op *op, int res, uint32_t cflags)
{
	container_of(op, struct reclaim_ask, op)->busy = false;
}

static bool has_tenant(const struct domain *d, uint32_t tenant) { return d->tenant[0] == tenant || d->tenant[1] == tenant; }

static uint64_t give_up_tenant(struct worker *w, uint32_t tenant, uint64_t pages, bool ahead)
{
	struct tenant *t = &w->budget->tenant[tenant];
	uint64_t freed = 0;
	bool dirty = false;
	struct domain *d;

	list_for_each(d, &w->domains, link)
		if (has_tenant(d, tenant) && freed < pages)
			freed += give_up(w, d, pages - freed, ahead ? GIVE_AHEAD : GIVE_NOW, &dirty);
	atomic_fetch_add_explicit(&t->reclaimed, freed, memory_order_relaxed);
	if (dirty && freed < pages)
		write_all_back(w);
	return freed;
}

static bool give_up_huge_page(struct worker *w)
{
	struct domain *d;

	list_for_each(d, &w->domains, link)
		if (huge_give_up(d, 1) > 0)
			return true;
	return false;
}

/* On the asked worker. */
static void ask_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct reclaim_ask *ask = container_of(op, struct reclaim_ask, op);
	struct worker *w = ask->to;

	worker_queue(w, &w->balance);
	if (ask->tenant == ASK_HUGE)
		(void)give_up_huge_page(w);
	else if (ask->tenant)
		(void)give_up_tenant(w, ask->tenant, ask->pages, false);
	else if (ask->pages && reclaim_pages(w, MIN(ask->pages, MAX(w->used / 16, 1))) == 0)
		write_all_back(w);
	op->done = ask_answered;
	ring_post(&w->ring, &ask->from->ring, op, 0);
}

/* `weights`: of all others: each gives up its part of `pages`; 0: as many each. */
static void ask_others(struct worker *w, uint32_t tenant, uint64_t pages, uint64_t weights)
{
	w->asked_at = now_ns();
	for (unsigned i = 0; i < w->n_workers; i++) {
		struct reclaim_ask *ask = &w->asks[i];

		/* The other's count is read as anyone reads it: a moment old does no harm. */
		if (i == w->id || ask->busy || __atomic_load_n(&w->all[i].stats->resident, __ATOMIC_RELAXED) == 0)
			continue;
		ask->busy = true;
		ask->tenant = tenant;
		ask->pages = MIN(weights ? part_of(pages, load(w->all[i].weight), weights) : pages, TURN);
		ask->op.done = ask_arrived;
		if (ring_post(&w->ring, &w->all[i].ring, &ask->op, 0) < 0)
			ask->busy = false;
	}
}

/* It has made room by itself, so that nobody else was asked: the others give up as much for their weight. */
static void others_owe(struct worker *w, const struct weights *weights, uint64_t freed)
{
	w->others_owe += part_of(freed * OWE_ONE, weights->others, weights->mine);
	if (w->others_owe < BATCH * OWE_ONE)
		return;
	ask_others(w, 0, w->others_owe / OWE_ONE, weights->others);
	w->others_owe = 0;
}

bool reclaim_idle(struct worker *w)
{
	struct budget *b = w->budget;
	uint64_t max = load(b->max), used = load(b->used), enough = 2 * budget_reserve(max), left, step, freed = 0;
	struct weights weights;
	bool dirty;

	if (used + enough <= max || now_ns() < w->no_idle_until)
		return false;
	ring_flush(&w->ring); /* what is to be submitted goes first */
	if (ring_has_news(&w->ring))
		return false;
	weights = weigh_all(w);
	left = MIN(part_of(used + enough - max, weights.mine, weights.mine + weights.others), w->used);
	/* A part of a turn at a time, until there is something else to do. */
	for (; left > 0; left -= step) {
		step = MIN(left, MAX(w->turn / STEPS, 1));
		freed += give_up_timed(w, step, GIVE_IDLE, &dirty);
		if (dirty)
			w->no_idle_until = now_ns() + NO_RECLAIM_NS;
		if (dirty || ring_has_news(&w->ring))
			break;
	}
	others_owe(w, &weights, freed);
	return freed > 0;
}

bool reclaim_huge_page(struct worker *w)
{
	if (give_up_huge_page(w))
		return true;
	ask_others(w, ASK_HUGE, 0, 0);
	return false;
}

void reclaim_wake(struct worker *w)
{
	worker_queue(w, &w->balance);
	if (now_ns() - w->asked_at > ASK_NS)
		ask_others(w, 0, 0, 0);
}

static void woken(struct ring_op *op, int res, uint32_t cflags)
{
	struct worker *w = container_of(op, struct worker, wake);

	worker_queue(w, &w->balance);
	writeback_arm_timer(w);
}

/* --- charges --- */

static bool try_charge(struct worker *w, struct domain *d, uint64_t pages, uint64_t keep_free)
{
	struct budget *b = w->budget;
	uint64_t max = load(b->max);

	/* The limit is checked by the add itself. */
	if (atomic_fetch_add_explicit(&b->used, pages, memory_order_relaxed) + pages + keep_free > max) {
		atomic_fetch_sub_explicit(&b->used, pages, memory_order_relaxed);
		return false;
	}
	budget_account(w, d, pages);
	return true;
}

/* A tenant at its limit gives up pages of its own: here, and, where that is not enough, on the other workers. */
static bool tenant_room(struct worker *w, uint32_t tenant, uint64_t pages, bool ahead)
{
	struct tenant *t = &w->budget->tenant[tenant];
	uint64_t limit = load(t->limit), used = load(t->used), want;

	if (!tenant || !limit || used + pages <= limit)
		return true;
	if (now_ns() < w->no_reclaim_until)
		return false;
	want = MAX(used + pages - limit, MIN(BATCH, limit / 8));
	(void)give_up_tenant(w, tenant, want, ahead);
	if (load(t->used) + pages <= limit)
		return true;
	if (!ahead) {
		w->no_reclaim_until = now_ns() + NO_RECLAIM_NS;
		ask_others(w, tenant, want, 0);
	}
	return false;
}

bool reclaim_charge(struct worker *w, struct domain *d, uint64_t pages, bool ahead)
{
	uint64_t reserve = ahead ? budget_reserve(load(w->budget->max)) : 0, now;

	if (!tenant_room(w, d->tenant[0], pages, ahead) || !tenant_room(w, d->tenant[1], pages, ahead))
		return false;
	if (try_charge(w, d, pages, reserve)) {
		if (excess(w) > 0)
			reclaim_wake(w);
		return true;
	}
	/* Nothing could be given up a moment ago: looking through all for each who asks would be all that is done. */
	now = now_ns();
	if (now < w->no_reclaim_until)
		return false;
	w->stats->direct_reclaims += !ahead;
	if (give_up_all(w, MAX(pages, my_part(w, BATCH)), ahead ? GIVE_AHEAD : GIVE_NOW) > 0 && try_charge(w, d, pages, reserve))
		return true;
	if (ahead)
		return false;
	w->no_reclaim_until = now + NO_RECLAIM_NS;
	write_all_back(w);
	worker_queue(w, &w->balance);
	ask_others(w, 0, MAX(pages, BATCH), 0);
	return false;
}

/* --- the second-chance buffer --- */

void reclaim_restore(struct block *b, uint64_t pages, unsigned flags)
{
	struct file *f = b->file;
	struct worker *w = f->worker;
	struct domain *d = b->domain;

	for (pages &= b->second; pages;) {
		unsigned from = (unsigned)__builtin_ctzll(pages), n = 0;
		struct iovec iov[PGC_BLOCK_PAGES];
		uint64_t run, first = block_first(b) + from;
		size_t bytes;
		ssize_t moved;

		while (from + n < PGC_BLOCK_PAGES && (pages & (1ull << (from + n)))) {
			iov[n] = (struct iovec){ domain_slot(d, policy_slot(d->policy, file_key(f, first + n))), PAGE_SIZE_ };
			n++;
		}
		run = bits_range(from, n);
		pages &= ~run;
		if (lane_free_run(&f->lent, first, n) < n) { /* not while it may be mapped in the middle of that */
			block_forget_second(b, run);
			continue;
		}
		bytes = file_bytes_in(f, first, n);
		iov[n - 1].iov_len -= n * PAGE_SIZE_ - bytes; /* the memfd is no longer than the file */
		moved = pwritev(f->memfd, iov, (int)n, (off_t)(first * PAGE_SIZE_));
		kill_point("reclaim.restoring");
		if (moved < (ssize_t)bytes) { /* no memory, or a client cut the memfd: they are read again */
			block_forget_second(b, run);
			file_heal(f);
			(void)file_punch(f, first, n);
			continue;
		}
		for (unsigned i = 0; i < n; i++) {
			policy_key key = file_key(f, first + i);
			uint32_t slot = policy_slot(d->policy, key);

			policy_soft_fault(d->policy, key, flags);
			domain_put_slot(w, d, slot);
		}
		kill_point("reclaim.restored");
		b->second &= ~run;
		budget_charge(w, d, n);
		block_came_back(b, run);
		w->stats->soft_faults += n;
	}
}

int reclaim_init(struct worker *w)
{
	list_init(&w->balance.link);
	w->balance.run = balance;
	w->wake.done = woken;
	w->turn = BATCH;
	w->asks = calloc(w->n_workers, sizeof(*w->asks));
	if (!w->asks)
		return -ENOMEM;
	for (unsigned i = 0; i < w->n_workers; i++)
		w->asks[i] = (struct reclaim_ask){ .from = w, .to = &w->all[i] };
	return domain_init(w);
}

void reclaim_free(struct worker *w)
{
	free(w->asks);
	w->asks = NULL;
	domain_free_all(w);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/policy.h"
#include "daemon/util/util.h"
#include "model.h"

#define KEYS  6000u
#define SLOTS 400u

/* What the evictor's side knows: where each page is, and who has each slot. */
enum where { OUT, IN, BUFFER };
struct world {
	struct policy *p;
	enum where where[KEYS];
	uint32_t slot[KEYS];
	policy_key holder[SLOTS];  /* key + 1 */
	bool busy[KEYS];
	unsigned asked[KEYS];      /* in this call of policy_evict() */
	uint64_t resident, buffered, demotions, drops;
	policy_key order[KEYS];    /* of drops */
};
static struct world w;

static bool demote(void *arg, policy_key key, uint32_t slot)
{
	assert_ptr_equal(arg, &w);
	assert_int_equal(w.where[key], IN);
	assert_true(slot < SLOTS);
	assert_int_equal(w.holder[slot], 0);
	assert_int_equal(w.asked[key] & 1, 0);
	if (w.busy[key]) {
		w.asked[key] |= 1;
		return false;
	}
	w.where[key] = BUFFER;
	w.slot[key] = slot;
	w.holder[slot] = key + 1;
	w.buffered++;
	w.demotions++;
	return true;
}

static bool drop(void *arg, policy_key key, uint32_t slot)
{
	assert_ptr_equal(arg, &w);
	assert_int_equal(w.where[key], slot == POLICY_NO_SLOT ? IN : BUFFER);
	assert_int_equal(w.asked[key] & 1, 0);
	if (w.busy[key]) {
		w.asked[key] |= 1;
		return false;
	}
	if (slot != POLICY_NO_SLOT) {
		assert_int_equal(w.slot[key], slot);
		w.holder[slot] = 0;
		w.buffered--;
	}
	w.where[key] = OUT;
	w.resident--;
	w.order[w.drops++ % KEYS] = key;
	return true;
}

static const struct policy_evictor evictor = { demote, drop, &w };

static void world_new(enum policy_kind kind, uint64_t capacity, uint32_t slots)
{
	memset(&w, 0, sizeof(w));
	assert_int_equal(policy_new(&w.p, kind, capacity, slots), 0);
}

static int teardown(void **state)
{
	policy_free(w.p);
	w.p = NULL;
	return 0;
}

static bool insert(policy_key key, unsigned flags)
{
	bool refault;
	assert_int_equal(policy_insert(w.p, key, flags, &refault), 0);
	w.where[key] = IN;
	w.resident++;
	return refault;
}

static uint64_t evict(uint64_t n, bool ahead_only)
{
	uint64_t before = w.resident, r;
	memset(w.asked, 0, sizeof(w.asked));
	r = policy_evict(w.p, n, ahead_only, &evictor);
	assert_int_equal(before - w.resident, r);
	return r;
}

static void soft_fault(policy_key key)
{
	policy_soft_fault(w.p, key, 0);
	w.holder[w.slot[key]] = 0;
	w.where[key] = IN;
	w.buffered--;
}

static void forget(policy_key key)
{
	policy_remove(w.p, key);
	if (w.where[key] == BUFFER) {
		w.holder[w.slot[key]] = 0;
		w.buffered--;
	}
	w.resident -= w.where[key] != OUT;
	w.where[key] = OUT;
}

/* Brings pages in until one of them is in the buffer; which one. */
static policy_key fill_until_buffered(uint64_t n)
{
	for (policy_key k = 0; k < n; k++)
		insert(k, 0);
	evict(1, false);
	for (policy_key k = 0; k < n; k++)
		if (w.where[k] == BUFFER)
			return k;
	fail();
	return 0;
}

/* An access as the daemon sees it: whether it was a hit. */
static bool access_page(policy_key key, uint64_t capacity)
{
	if (w.where[key] == BUFFER)
		soft_fault(key);
	if (w.where[key] == IN)
		return true;
	if (w.resident == capacity)
		assert_int_equal(evict(8, false), 8);
	insert(key, 0);
	return false;
}

static void check_world(void)
{
	const struct policy_counters *c = policy_counters(w.p);
	assert_int_equal(c->probation + c->main + c->second_chance, w.resident);
	assert_int_equal(c->second_chance, w.buffered);
	assert_int_equal(c->demoted, w.demotions);
	assert_int_equal(c->dropped, w.drops);
	for (policy_key k = 0; k < KEYS; k++) {
		assert_int_equal(policy_slot(w.p, k), w.where[k] == BUFFER ? w.slot[k] : POLICY_NO_SLOT);
		assert_true(w.where[k] == IN || !policy_is_hot(w.p, k));
	}
}

static uint64_t takeable(void)
{
	uint64_t n = 0;
	for (policy_key k = 0; k < KEYS; k++)
		n += w.where[k] != OUT && !w.busy[k];
	return n;
}

static void random_step(uint64_t *capacity)
{
	policy_key k = model_random(KEYS);
	switch (model_random(16)) {
	case 0 ... 7:
		if (w.where[k] == OUT && w.resident < *capacity)
			insert(k, (unsigned)model_random(16));
		break;
	case 8 ... 10:
		policy_touch(w.p, k, (unsigned)model_random(16));
		break;
	case 11:
		if (w.where[k] == BUFFER)
			soft_fault(k);
		break;
	case 12:
		w.busy[k] = !w.busy[k] && !model_random(2);
		break;
	case 13:
		if (!model_random(8))
			forget(k);
		break;
	case 14: {
		uint64_t n = model_random(64), most = takeable();
		if (model_random(4))
			assert_int_equal(evict(n, false), MIN(n, most));
		else
			assert_true(evict(n, true) <= MIN(n, most));
		break;
	}
	default:
		if (!model_random(256)) {
			*capacity = 500 + model_random(KEYS);
			assert_int_equal(policy_resize(w.p, *capacity), 0);
		}
	}
}

static void random_operations(enum policy_kind kind)
{
	uint64_t capacity = 4000;
	world_new(kind, capacity, kind == POLICY_ADAPTIVE ? SLOTS : 0);
	for (unsigned i = 0; i < 200000; i++) {
		random_step(&capacity);
		if (i % 5000 == 0)
			check_world();
	}
	check_world();
	memset(w.busy, 0, sizeof(w.busy));
	evict(KEYS, false);
	assert_int_equal(w.resident, 0);
	check_world();
}

static void adaptive_agrees_with_model(void **state) { random_operations(POLICY_ADAPTIVE); }
static void fifo_agrees_with_model(void **state) { random_operations(POLICY_FIFO); }
static void lru_agrees_with_model(void **state) { random_operations(POLICY_LRU); }

static bool refuse(void *arg, policy_key key, uint32_t slot) { return false; }
static bool agree(void *arg, policy_key key, uint32_t slot) { return true; }

static void memory_is_at_most_one_percent(void **state)
{
	static const uint64_t capacities[] = { 2000, 100000 };
	static const unsigned percents[] = { 0, 10, 50 };
	const struct policy_evictor yes = { agree, agree, NULL };
	bool refault;
	for (unsigned c = 0; c < ELEMENTSOF(capacities); c++)
		for (unsigned s = 0; s < ELEMENTSOF(percents); s++) {
			uint64_t n = capacities[c], in = 0;
			assert_int_equal(policy_new(&w.p, POLICY_ADAPTIVE, n, (uint32_t)(n * percents[s] / 100)), 0);
			for (policy_key k = 0; k < 8 * n; k++, in++) {
				if (in == n)
					in -= policy_evict(w.p, 16, false, &yes);
				assert_int_equal(policy_insert(w.p, k, 0, &refault), 0);
			}
			assert_in_range(policy_memory(w.p), n * 24, n * PAGE_SIZE_ / 100);
			assert_true(policy_counters(w.p)->ghosts > n);
			policy_free(w.p);
			w.p = NULL;
		}
}

static void pool_gives_memory_back_when_capacity_shrinks(void **state)
{
	world_new(POLICY_ADAPTIVE, 5000, SLOTS);
	for (policy_key k = 0; k < 5000; k++)
		insert(k, 0);
	uint64_t before = policy_memory(w.p);
	assert_int_equal(policy_resize(w.p, 500), 0);
	assert_int_equal(evict(4500, false), 4500);
	assert_true(policy_memory(w.p) < before / 2);
	check_world();
}

static void fifo_drops_in_order_of_arrival(void **state)
{
	world_new(POLICY_FIFO, 100, 10);
	for (policy_key k = 0; k < 100; k++)
		insert(k, 0);
	policy_touch(w.p, 0, POLICY_CALL);
	assert_int_equal(evict(10, false), 10);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(w.order[i], i);
	assert_int_equal(w.demotions, 0);
}

static void lru_drops_what_was_not_seen_for_longest(void **state)
{
	world_new(POLICY_LRU, 100, 10);
	for (policy_key k = 0; k < 100; k++)
		insert(k, 0);
	policy_touch(w.p, 0, POLICY_CALL);
	policy_touch(w.p, 2, POLICY_WRITE);
	assert_int_equal(evict(2, false), 2);
	assert_int_equal(w.order[0], 1);
	assert_int_equal(w.order[1], 3);
}

static void neighbours_are_given_up_together(void **state)
{
	world_new(POLICY_ADAPTIVE, 2000, 0);
	for (policy_key k = 0; k < 2000; k++)
		insert(k, 0);
	assert_int_equal(evict(64, false), 64);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(w.order[i], i);
}

static void stream_pages_get_no_slot(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 100);
	for (policy_key k = 0; k < 1000; k++)
		insert(k, POLICY_STREAM | POLICY_AHEAD);
	assert_int_equal(evict(300, false), 300);
	assert_int_equal(w.demotions, 0);
}

static void read_ahead_page_that_was_asked_for_gets_a_slot(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 100);
	insert(0, POLICY_STREAM | POLICY_AHEAD);
	policy_touch(w.p, 0, POLICY_CALL);
	for (policy_key k = 1; k < 1000; k++)
		insert(k, POLICY_STREAM | POLICY_AHEAD);
	evict(1, false);
	assert_int_equal(w.where[0], BUFFER);
}

static void soft_fault_proves_a_page(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 100);
	policy_key k = fill_until_buffered(1000);
	uint32_t slot = policy_slot(w.p, k);
	assert_int_not_equal(slot, POLICY_NO_SLOT);
	assert_false(policy_is_hot(w.p, k));
	soft_fault(k);
	assert_int_equal(policy_slot(w.p, k), POLICY_NO_SLOT);
	assert_true(policy_is_hot(w.p, k));
	assert_int_equal(policy_counters(w.p)->soft_faults, 1);
	check_world();
}

static void touched_page_leaves_probation_for_main(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 100);
	for (policy_key k = 0; k < 1000; k++)
		insert(k, 0);
	policy_touch(w.p, 0, POLICY_CALL);
	evict(10, false);
	assert_true(policy_is_hot(w.p, 0));
	assert_int_equal(w.where[1], OUT);
}

static void ghost_is_known_as_refault(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 0);
	for (policy_key k = 0; k < 1000; k++)
		assert_false(insert(k, 0));
	evict(10, false);
	assert_int_equal(w.where[0], OUT);
	assert_true(insert(0, 0));
	assert_true(policy_is_hot(w.p, 0));
	assert_int_equal(policy_counters(w.p)->refaults, 1);
}

static void removed_page_leaves_no_ghost(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 0);
	for (policy_key k = 0; k < 1000; k++)
		insert(k, 0);
	evict(10, false);
	assert_int_equal(policy_counters(w.p)->ghosts, 10);
	policy_remove(w.p, 0);
	assert_int_equal(policy_counters(w.p)->ghosts, 9);
	assert_false(insert(0, 0));
}

static void remove_frees_the_slot(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 100);
	policy_key k = fill_until_buffered(1000);
	forget(k);
	assert_int_equal(policy_slot(w.p, k), POLICY_NO_SLOT);
	check_world();
	assert_int_equal(evict(w.resident, false), 998); /* one was dropped, one removed */
	check_world();
}

static void remove_works_in_every_place(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 100);
	policy_key hot = fill_until_buffered(1000), buffered = KEYS;
	soft_fault(hot);
	for (policy_key k = 0; k < 1000; k++)
		if (w.where[k] == BUFFER)
			buffered = k;
	assert_true(buffered < KEYS);
	forget(hot);
	forget(buffered);
	forget(999); /* in probation */
	policy_remove(w.p, 5000); /* nowhere */
	check_world();
}

static void busy_pages_are_asked_for_once_and_stay(void **state)
{
	const struct policy_evictor no = { refuse, refuse, NULL };
	world_new(POLICY_ADAPTIVE, 1000, 100);
	for (policy_key k = 0; k < 1000; k++)
		insert(k, 0);
	assert_int_equal(policy_evict(w.p, 1000, false, &no), 0);
	check_world();
	for (policy_key k = 0; k < 500; k++)
		w.busy[k] = true;
	assert_int_equal(evict(1000, false), 500);
	for (policy_key k = 0; k < 500; k++)
		assert_int_equal(w.where[k], IN);
}

/* Main is filled by pages that came back, then the rest by pages read ahead. */
static void readahead_never_takes_from_main(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 0);
	for (policy_key k = 0; k < 1000; k++)
		insert(k, 0);
	evict(1000, false);
	for (policy_key k = 0; k < 500; k++)
		insert(k, 0);
	for (policy_key k = 2000; k < 2500; k++)
		insert(k, POLICY_AHEAD);
	bool hot[500];
	for (policy_key k = 0; k < 500; k++)
		hot[k] = policy_is_hot(w.p, k);
	assert_in_range(policy_counters(w.p)->main, 450, 500);
	assert_in_range(evict(1000, true), 400, 550);
	for (policy_key k = 0; k < 500; k++)
		assert_int_equal(policy_is_hot(w.p, k), hot[k]);
}

static void readahead_takes_no_proved_page_from_the_buffer(void **state)
{
	world_new(POLICY_ADAPTIVE, 1000, 100);
	for (policy_key k = 0; k < 1000; k++)
		insert(k, 0);
	evict(1000, false);
	for (policy_key k = 0; k < 900; k++)
		insert(k, 0);
	uint64_t hot = policy_counters(w.p)->main;
	evict(40, false);
	assert_true(policy_counters(w.p)->main < hot);
	assert_true(w.buffered > 0);
	bool buffered[KEYS];
	for (policy_key k = 0; k < KEYS; k++)
		buffered[k] = w.where[k] == BUFFER;
	evict(200, true);
	for (policy_key k = 0; k < KEYS; k++)
		if (buffered[k])
			assert_int_equal(w.where[k], BUFFER);
}

static void scan_does_not_displace_the_working_set(void **state)
{
	uint64_t hits = 0;
	world_new(POLICY_ADAPTIVE, 1000, 100);
	model_state = 1;
	for (unsigned i = 0; i < 60000; i++)
		access_page(model_random(i % 4 ? 600 : KEYS), 1000);
	uint64_t hot = 0, left = 0;
	for (policy_key k = 0; k < 600; k++)
		hot += w.where[k] != OUT;
	for (policy_key k = 3000; k < KEYS; k++)
		access_page(k, 1000);
	for (policy_key k = 0; k < 600; k++)
		left += w.where[k] != OUT;
	assert_true(hot > 500);
	assert_true(left > hot * 3 / 4);
	for (unsigned i = 0; i < 1000; i++)
		hits += access_page(model_random(600), 1000);
	assert_true(hits > 800);
}

static void loop_larger_than_the_cache_keeps_a_part(void **state)
{
	uint64_t hits = 0;
	world_new(POLICY_ADAPTIVE, 1000, 100);
	for (unsigned i = 0; i < 60000; i++)
		hits += access_page(i % 1500, 1000) && i >= 30000;
	assert_true(hits > 30000 * .8 * 999 / 1499);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(adaptive_agrees_with_model, teardown),
		cmocka_unit_test_teardown(fifo_agrees_with_model, teardown),
		cmocka_unit_test_teardown(lru_agrees_with_model, teardown),
		cmocka_unit_test_teardown(memory_is_at_most_one_percent, teardown),
		cmocka_unit_test_teardown(pool_gives_memory_back_when_capacity_shrinks, teardown),
		cmocka_unit_test_teardown(fifo_drops_in_order_of_arrival, teardown),
		cmocka_unit_test_teardown(lru_drops_what_was_not_seen_for_longest, teardown),
		cmocka_unit_test_teardown(neighbours_are_given_up_together, teardown),
		cmocka_unit_test_teardown(stream_pages_get_no_slot, teardown),
		cmocka_unit_test_teardown(read_ahead_page_that_was_asked_for_gets_a_slot, teardown),
		cmocka_unit_test_teardown(soft_fault_proves_a_page, teardown),
		cmocka_unit_test_teardown(touched_page_leaves_probation_for_main, teardown),
		cmocka_unit_test_teardown(ghost_is_known_as_refault, teardown),
		cmocka_unit_test_teardown(removed_page_leaves_no_ghost, teardown),
		cmocka_unit_test_teardown(remove_frees_the_slot, teardown),
		cmocka_unit_test_teardown(remove_works_in_every_place, teardown),
		cmocka_unit_test_teardown(busy_pages_are_asked_for_once_and_stay, teardown),
		cmocka_unit_test_teardown(readahead_never_takes_from_main, teardown),
		cmocka_unit_test_teardown(readahead_takes_no_proved_page_from_the_buffer, teardown),
		cmocka_unit_test_teardown(scan_does_not_displace_the_working_set, teardown),
		cmocka_unit_test_teardown(loop_larger_than_the_cache_keeps_a_part, teardown),
	};
	model_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Settings in pages, users and cgroups with limits, who may make pages dirty, pressure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/budget.h"

#define PAGE 4096ull

static struct budget b;

static int fresh(void **state)
{
	memset(&b, 0, sizeof(b));
	return 0;
}

static int done(void **state)
{
	budget_free(&b);
	return 0;
}

#define PERCENT(n) { .percent = (n) }
#define BYTES(n) { .bytes = (n) }

static struct config some_config(void)
{
	return (struct config){
		.memory_max = 1000 * PAGE, .memory_min = PERCENT(10), .dirty_background = PERCENT(10), .dirty_max = PERCENT(20),
		.pin_max = PERCENT(50), .dirty_expire_ms = 5000,
	};
}

static void configure_with(struct limit_rule *limits, size_t n)
{
	struct config c = some_config();

	c.limits = limits;
	c.n_limits = n;
	budget_configure(&b, &c);
}

/* --- settings --- */

static void settings_become_pages(void **state)
{
	struct config c = some_config();

	c.pin_max = (struct config_amount)BYTES(3 * PAGE + 1);
	budget_configure(&b, &c);
	assert_int_equal(b.memory_max, 1000);
	assert_int_equal(b.max, 1000);
	assert_int_equal(b.memory_min, 100);
	assert_int_equal(b.dirty_background, 100);
	assert_int_equal(b.dirty_max, 200);
	assert_int_equal(b.pin_max, 3);
	assert_int_equal(b.dirty_expire_ms, 5000);
}

static void shares_follow_a_new_memory_max(void **state)
{
	struct config c = some_config();

	budget_configure(&b, &c);
	c.memory_max = 500 * PAGE;
	budget_configure(&b, &c);
	assert_int_equal(b.max, 500);
	assert_int_equal(b.dirty_max, 100);
	assert_int_equal(b.pin_max, 250);
}

static void a_page_may_always_be_dirty(void **state)
{
	struct config c = some_config();

	c.dirty_max = (struct config_amount)BYTES(1);
	budget_configure(&b, &c);
	assert_int_equal(b.dirty_max, 1);
	assert_true(budget_may_dirty(&b, 3, NULL));
}

/* --- pressure --- */

static void pressure_lowers_the_limit_and_ends(void **state)
{
	struct config c = some_config();

	budget_configure(&b, &c);
	budget_press(&b, 300);
	assert_int_equal(b.max, 300);
	assert_int_equal(b.memory_max, 1000);
	budget_press(&b, 0);
	assert_int_equal(b.max, 1000);
}

static void pressure_never_raises_the_limit(void **state)
{
	struct config c = some_config();

	budget_configure(&b, &c);
	budget_press(&b, 5000);
	assert_int_equal(b.max, 1000);
}

static void settings_that_change_under_pressure_keep_it(void **state)
{
	struct config c = some_config();

	budget_configure(&b, &c);
	budget_press(&b, 300);
	c.memory_max = 2000 * PAGE;
	budget_configure(&b, &c);
	assert_int_equal(b.max, 300);
	c.memory_max = 200 * PAGE;
	budget_configure(&b, &c);
	assert_int_equal(b.max, 200);
	budget_press(&b, 0);
	assert_int_equal(b.max, 200);
}

static void the_reserve_is_a_part_of_small_memory_and_bounded_for_large(void **state)
{
	assert_int_equal(budget_reserve(6400), 100);
	assert_int_equal(budget_reserve(63), 0);
	assert_int_equal(budget_reserve(1ull << 40), 4096);
}

/* --- who has a limit --- */

static void expect_tenants(uid_t uid, const char *cgroup, uint32_t user, uint32_t group)
{
	uint32_t u, g;

	budget_tenants_of(&b, uid, cgroup, &u, &g);
	assert_int_equal(u, user);
	assert_int_equal(g, group);
}

static void nobody_has_a_limit_by_default(void **state)
{
	configure_with(NULL, 0);
	assert_int_equal(b.n_tenants, 1);
	expect_tenants(0, "/", 0, 0);
	expect_tenants(1000, "", 0, 0);
}

static void a_user_is_found_by_its_number(void **state)
{
	struct limit_rule l[] = { { .uid = 1000, .memory_max = BYTES(7 * PAGE) }, { .uid = 0, .memory_max = PERCENT(25) } };

	configure_with(l, 2);
	expect_tenants(1000, "/a", 1, 0);
	expect_tenants(0, "/a", 2, 0);
	expect_tenants(1001, "/a", 0, 0);
	assert_int_equal(b.tenant[1].limit, 7);
	assert_int_equal(b.tenant[2].limit, 250);
}

static void the_longest_cgroup_path_wins(void **state)
{
	struct limit_rule l[] = {
		{ .cgroup = "/a", .memory_max = BYTES(PAGE) }, { .cgroup = "/a/b/c", .memory_max = BYTES(PAGE) },
		{ .cgroup = "/a/b", .memory_max = BYTES(PAGE) },
	};

	configure_with(l, 3);
	expect_tenants(0, "/a", 0, 1);
	expect_tenants(0, "/a/x", 0, 1);
	expect_tenants(0, "/a/b", 0, 3);
	expect_tenants(0, "/a/b/c", 0, 2);
	expect_tenants(0, "/a/b/c/d/e", 0, 2);
}

static void a_cgroup_is_not_one_whose_name_begins_alike(void **state)
{
	struct limit_rule l[] = { { .cgroup = "/system.slice/x", .memory_max = BYTES(PAGE) } };

	configure_with(l, 1);
	expect_tenants(0, "/system.slice/xy", 0, 0);
	expect_tenants(0, "/system.slice", 0, 0);
	expect_tenants(0, "/system.slice/x/y", 0, 1);
	expect_tenants(0, "", 0, 0);
}

static void a_slash_at_the_end_of_a_path_means_nothing(void **state)
{
	struct limit_rule l[] = { { .cgroup = "/a/", .memory_max = BYTES(PAGE) } };

	configure_with(l, 1);
	expect_tenants(0, "/a", 0, 1);
	expect_tenants(0, "/a/b", 0, 1);
	expect_tenants(0, "/ab", 0, 0);
}

static void the_root_cgroup_is_above_all(void **state)
{
	struct limit_rule l[] = { { .cgroup = "/", .memory_max = BYTES(PAGE) }, { .cgroup = "/b", .memory_max = BYTES(PAGE) } };

	configure_with(l, 2);
	expect_tenants(0, "/a/c", 0, 1);
	expect_tenants(0, "/", 0, 1);
	expect_tenants(0, "/b", 0, 2);
}

static void user_and_cgroup_may_both_have_limits(void **state)
{
	struct limit_rule l[] = { { .cgroup = "/a", .memory_max = BYTES(PAGE) }, { .uid = 5, .memory_max = BYTES(PAGE) } };

	configure_with(l, 2);
	expect_tenants(5, "/a", 2, 1);
}

static void a_limit_that_leaves_is_none(void **state)
{
	struct limit_rule l[] = { { .uid = 5, .memory_max = BYTES(9 * PAGE) }, { .cgroup = "/a", .memory_max = BYTES(9 * PAGE) } };

	configure_with(l, 2);
	configure_with(l + 1, 1);
	assert_int_equal(b.tenant[1].limit, 0);
	assert_int_equal(b.tenant[2].limit, 9);
	expect_tenants(5, "/a", 0, 2);
}

static void a_limit_that_comes_back_has_the_same_slot(void **state)
{
	struct limit_rule five[] = { { .uid = 5, .memory_max = BYTES(9 * PAGE) } }, six[] = { { .uid = 6, .memory_max = BYTES(8 * PAGE) } };

	configure_with(five, 1);
	b.tenant[1].used = 77; /* still charged */
	configure_with(six, 1);
	expect_tenants(6, "", 2, 0);
	configure_with(five, 1);
	expect_tenants(5, "", 1, 0);
	assert_int_equal(b.tenant[1].used, 77);
	assert_int_equal(b.tenant[2].limit, 0);
	assert_int_equal(b.n_tenants, 3);
}

static void a_limit_is_a_page_at_least(void **state)
{
	struct limit_rule l[] = { { .uid = 5, .memory_max = BYTES(1) } };

	configure_with(l, 1);
	assert_int_equal(b.tenant[1].limit, 1);
}

static void more_limits_than_slots_are_left_out(void **state)
{
	struct limit_rule l[TENANTS_MAX];

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < TENANTS_MAX; i++)
			l[i] = (struct limit_rule){ .uid = round * 1000 + i, .memory_max = BYTES(PAGE) };
		configure_with(l, TENANTS_MAX);
	}
	assert_int_equal(b.n_tenants, TENANTS_MAX + 1);
	expect_tenants(1000, "", 0, 0);
	/* Those of before are none any more, and come back. */
	expect_tenants(5, "", 0, 0);
	for (unsigned i = 0; i < TENANTS_MAX; i++)
		l[i].uid = i;
	configure_with(l, TENANTS_MAX);
	expect_tenants(5, "", 6, 0);
}

/* --- who may make pages dirty --- */

static void dirty(uint32_t client, uint64_t pages)
{
	b.dirty += pages;
	b.dirty_by[client] += pages;
}

/* Pages until it has to wait. */
static uint64_t users_client_until_told(uint32_t client, struct user_count *user)
{
	uint64_t n = 0;

	while (budget_may_dirty(&b, client, user)) {
		dirty(client, 1);
		n++;
		if (user)
			user->dirty++;
	}
	return n;
}

static uint64_t dirty_until_told(uint32_t client) { return users_client_until_told(client, NULL); }

static void without_a_limit_all_may(void **state)
{
	dirty(1, 1000000);
	assert_true(budget_may_dirty(&b, 1, NULL));
}

static void one_alone_gets_two_thirds(void **state)
{
	b.dirty_max = 300;
	assert_int_equal(dirty_until_told(1), 200);
}

static void who_comes_next_finds_room(void **state)
{
	b.dirty_max = 300;
	dirty_until_told(1);
	assert_in_range(dirty_until_told(2), 60, 70);
	assert_true(budget_may_dirty(&b, 3, NULL));
	assert_false(budget_may_dirty(&b, 1, NULL));
}

static void many_together_stay_below_the_limit(void **state)
{
	b.dirty_max = 300;
	for (uint32_t i = 0; i < CLIENT_SLOTS; i++)
		dirty_until_told(i);
	assert_in_range(b.dirty, 290, 300);
}

static void many_clients_of_a_user_leave_room_to_another(void **state)
{
	struct user_count a = { 0 }, b_user = { 0 };

	b.dirty_max = 16000;
	for (uint32_t i = 1; i < CLIENT_SLOTS - 1; i++)
		users_client_until_told(i, &a);
	assert_in_range(a.dirty, 14990, 15000);
	assert_in_range(users_client_until_told(CLIENT_SLOTS - 1, &b_user), 660, 670);
}

static void who_has_been_written_goes_on(void **state)
{
	b.dirty_max = 300;
	dirty_until_told(1);
	b.dirty -= 150;
	b.dirty_by[1] -= 150;
	assert_int_equal(dirty_until_told(1), 150);
}

static void kept_pages_are_not_waited_for(void **state)
{
	b.dirty_max = 300;
	b.dirty = b.kept = 5000; /* dirty_by has none of them */
	assert_int_equal(dirty_until_told(1), 200);
}

static void a_process_always_has_the_same_slot(void **state)
{
	unsigned seen[CLIENT_SLOTS] = { 0 }, most = 0;

	for (pid_t pid = 1; pid <= 4096; pid++) {
		uint32_t slot = budget_client_slot(&b, pid);

		assert_in_range(slot, 1, CLIENT_SLOTS - 1);
		assert_int_equal(slot, budget_client_slot(&b, pid));
		seen[slot]++;
		most = seen[slot] > most ? seen[slot] : most;
	}
	assert_in_range(most, 4, 24); /* and neighbours are spread */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, done)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(settings_become_pages),
		TEST(shares_follow_a_new_memory_max),
		TEST(a_page_may_always_be_dirty),
		TEST(pressure_lowers_the_limit_and_ends),
		TEST(pressure_never_raises_the_limit),
		TEST(settings_that_change_under_pressure_keep_it),
		TEST(the_reserve_is_a_part_of_small_memory_and_bounded_for_large),
		TEST(nobody_has_a_limit_by_default),
		TEST(a_user_is_found_by_its_number),
		TEST(the_longest_cgroup_path_wins),
		TEST(a_cgroup_is_not_one_whose_name_begins_alike),
		TEST(a_slash_at_the_end_of_a_path_means_nothing),
		TEST(the_root_cgroup_is_above_all),
		TEST(user_and_cgroup_may_both_have_limits),
		TEST(a_limit_that_leaves_is_none),
		TEST(a_limit_that_comes_back_has_the_same_slot),
		TEST(a_limit_is_a_page_at_least),
		TEST(more_limits_than_slots_are_left_out),
		TEST(without_a_limit_all_may),
		TEST(one_alone_gets_two_thirds),
		TEST(who_comes_next_finds_room),
		TEST(many_together_stay_below_the_limit),
		TEST(many_clients_of_a_user_leave_room_to_another),
		TEST(who_has_been_written_goes_on),
		TEST(kept_pages_are_not_waited_for),
		TEST(a_process_always_has_the_same_slot),
	};

	return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}

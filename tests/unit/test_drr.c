/* SPDX-License-Identifier: Apache-2.0 */
/* Whose turn it is, by a clock that the tasks themselves move on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/drr.h"

#define US 1000u

static struct drr d;
static uint64_t now;
static char order[256];          /* the names of the tasks that have run */

static uint64_t test_clock(void) { return now; }

struct work {
	struct task task;
	char name;
	uint64_t ns;               /* how long it takes */
	unsigned again;            /* so many times it queues itself */
};

static void work(struct task *t)
{
	struct work *w = container_of(t, struct work, task);

	now += w->ns;
	strncat(order, &w->name, 1);
	if (w->again > 0) {
		w->again--;
		drr_queue(&d, t);
	}
}

static struct work made(char name, uint32_t flow, uint64_t ns, unsigned again)
{
	return (struct work){ .task = { .run = work, .flow = flow }, .name = name, .ns = ns, .again = again };
}

static void queue(struct work *w)
{
	list_init(&w->task.link);
	drr_queue(&d, &w->task);
}

static int fresh(void **state)
{
	drr_init(&d);
	d.clock = test_clock;
	now = 1;
	order[0] = 0;
	return 0;
}

static void tasks_of_one_run_in_order_each_once(void **state)
{
	struct work a = made('a', 3, 0, 0), b = made('b', 3, 0, 0);

	assert_true(drr_empty(&d));
	queue(&a);
	queue(&b);
	drr_queue(&d, &a.task); /* is queued already */
	assert_false(drr_empty(&d));
	assert_false(drr_run(&d, US));
	assert_string_equal(order, "ab");
	assert_true(drr_empty(&d));
}

static void it_stops_when_the_time_is_over(void **state)
{
	struct work a = made('a', 3, 30 * US, 9);

	queue(&a);
	assert_true(drr_run(&d, 50 * US));
	assert_string_equal(order, "aa");
	assert_true(drr_run(&d, 0)); /* one at least */
	assert_string_equal(order, "aaa");
}

static void busy_flows_have_equal_time(void **state)
{
	struct work a = made('a', 1, 50 * US, 100), b = made('b', 2, 10 * US, 500);
	unsigned n[2] = { 0, 0 };

	queue(&a);
	queue(&b);
	(void)drr_run(&d, 1200 * US);
	for (const char *p = order; *p; p++)
		n[*p - 'a']++;
	assert_in_range(n[0] * 50, 500, 700);
	assert_in_range(n[1] * 10, 500, 700);
}

static void many_tasks_are_no_more_than_one(void **state)
{
	struct work many[40], one = made('x', 2, 10 * US, 40);

	for (unsigned i = 0; i < 40; i++) {
		many[i] = made('m', 1, 10 * US, 40);
		queue(&many[i]);
	}
	queue(&one);
	(void)drr_run(&d, 1000 * US);
	{
		unsigned n = 0;

		for (const char *p = order; *p; p++)
			n += *p == 'x';
		assert_in_range(n, 40, 60); /* half of the time */
	}
}

static void who_comes_after_a_pause_is_served_next(void **state)
{
	struct work busy[3] = { made('a', 1, 50 * US, 20), made('b', 2, 50 * US, 20), made('c', 3, 50 * US, 20) };
	struct work rare = made('!', 9, 5 * US, 0);

	for (unsigned i = 0; i < 3; i++)
		queue(&busy[i]);
	(void)drr_run(&d, 500 * US);
	for (unsigned i = 0; i < 5; i++) {
		queue(&rare);
		order[0] = 0;
		(void)drr_run(&d, 300 * US); /* all others have a turn meanwhile, so that it is rare again */
		assert_int_equal(order[0], '!');
	}
}

static void who_comes_at_once_again_is_not_served_next_for_ever(void **state)
{
	struct work busy = made('a', 1, 50 * US, 100), pushy = made('p', 2, 40 * US, 0);
	unsigned n = 0;

	queue(&busy);
	(void)drr_run(&d, 100 * US);
	order[0] = 0;
	/* It comes again each time that it has been served. */
	list_init(&pushy.task.link);
	for (unsigned i = 0; i < 40; i++) {
		drr_queue(&d, &pushy.task);
		(void)drr_run(&d, 0);
	}
	for (const char *p = order; *p; p++)
		n += *p == 'a';
	assert_in_range(n, 10, 25); /* about half of the time */
}

static void a_long_task_is_paid_for_later(void **state)
{
	struct work big = made('B', 1, 1000 * US, 5), small = made('s', 2, 10 * US, 200);
	unsigned n = 0;

	queue(&big);
	queue(&small);
	(void)drr_run(&d, 1900 * US);
	for (const char *p = order; *p; p++)
		n += *p == 'B';
	assert_int_equal(n, 1); /* the other has as much before it comes again */
}

static void what_is_nobodys_comes_once_each_time(void **state)
{
	struct work own = made('o', DRR_OWN, 10 * US, 100), busy = made('b', 1, 50 * US, 100);

	queue(&own);
	queue(&busy);
	for (unsigned i = 0; i < 3; i++)
		assert_true(drr_run(&d, 100 * US));
	assert_string_equal(order, "obbobbobb");
	list_remove(&busy.task.link);
	order[0] = 0;
	assert_true(drr_run(&d, 100 * US));
	assert_string_equal(order, "o");
}

static void a_task_that_was_cancelled_does_not_run(void **state)
{
	struct work a = made('a', 1, 0, 0), b = made('b', 2, 0, 0);

	queue(&a);
	queue(&b);
	list_remove(&a.task.link);
	assert_false(drr_run(&d, US));
	assert_string_equal(order, "b");
	queue(&a);
	list_remove(&a.task.link);
	assert_true(drr_empty(&d));
}

#define TEST(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(tasks_of_one_run_in_order_each_once),
		TEST(it_stops_when_the_time_is_over),
		TEST(busy_flows_have_equal_time),
		TEST(many_tasks_are_no_more_than_one),
		TEST(who_comes_after_a_pause_is_served_next),
		TEST(who_comes_at_once_again_is_not_served_next_for_ever),
		TEST(a_long_task_is_paid_for_later),
		TEST(what_is_nobodys_comes_once_each_time),
		TEST(a_task_that_was_cancelled_does_not_run),
	};

	return cmocka_run_group_tests_name("drr", tests, NULL, NULL);
}

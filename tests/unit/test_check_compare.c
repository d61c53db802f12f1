/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of tables compared: mappings with the kernel's, references with mappings, the bits of a block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/check_compare.h"

struct said { struct range gone[16], unknown[16]; size_t n_gone, n_unknown; };

static void say_gone(void *arg, struct range r)
{
	struct said *s = arg;

	assert_in_range(s->n_gone, 0, 15);
	s->gone[s->n_gone++] = r;
}

static void say_unknown(void *arg, struct range r)
{
	struct said *s = arg;

	assert_in_range(s->n_unknown, 0, 15);
	s->unknown[s->n_unknown++] = r;
}

static struct said compare(const struct check_map *known, size_t n_known, const struct check_map *kernel, size_t n_kernel)
{
	struct said s = { 0 };

	check_maps_compare(known, n_known, kernel, n_kernel, say_gone, say_unknown, &s);
	return s;
}

#define COMPARE(known, kernel) compare(known, sizeof(known) / sizeof(known[0]), kernel, sizeof(kernel) / sizeof(kernel[0]))
#define MAP(start, end, off) { 1, true, start, end, off }

static void assert_range(struct range r, uint64_t start, uint64_t end)
{
	assert_int_equal(r.start, start);
	assert_int_equal(r.end, end);
}

static void what_both_have_does_not_differ_however_it_is_cut(void **state)
{
	const struct check_map known[] = { MAP(100, 200, 0), MAP(200, 300, 100), MAP(500, 600, 0) };
	const struct check_map kernel[] = { MAP(100, 250, 0), MAP(250, 300, 150), MAP(500, 600, 0) };
	struct said s = COMPARE(known, kernel);

	assert_int_equal(s.n_gone, 0);
	assert_int_equal(s.n_unknown, 0);
}

static void what_the_kernel_does_not_have_is_gone(void **state)
{
	const struct check_map known[] = { MAP(100, 200, 0), MAP(300, 400, 0) };
	const struct check_map kernel[] = { MAP(120, 150, 20) };
	struct said s = COMPARE(known, kernel);

	assert_int_equal(s.n_gone, 3);
	assert_range(s.gone[0], 100, 120);
	assert_range(s.gone[1], 150, 200);
	assert_range(s.gone[2], 300, 400);
	assert_int_equal(s.n_unknown, 0);
}

static void what_is_not_known_is_unknown(void **state)
{
	const struct check_map known[] = { MAP(120, 150, 20), MAP(180, 190, 80) };
	const struct check_map kernel[] = { MAP(100, 200, 0), MAP(300, 400, 0) };
	struct said s = COMPARE(known, kernel);

	assert_int_equal(s.n_unknown, 4);
	assert_range(s.unknown[0], 100, 120);
	assert_range(s.unknown[1], 150, 180);
	assert_range(s.unknown[2], 190, 200);
	assert_range(s.unknown[3], 300, 400);
	assert_int_equal(s.n_gone, 0);
}

static void the_same_addresses_with_other_bytes_are_gone_and_not_unknown(void **state)
{
	const struct check_map known[] = { MAP(100, 200, 0) }, kernel[] = { MAP(100, 200, 4096) };
	struct said s = COMPARE(known, kernel);

	assert_int_equal(s.n_gone, 1);
	assert_range(s.gone[0], 100, 200);
	assert_int_equal(s.n_unknown, 0);
}

static void what_is_shared_must_be_tracked(void **state)
{
	const struct check_map private[] = { { 1, false, 100, 200, 0 } }, shared[] = { { 1, true, 100, 200, 0 } };

	assert_int_equal(COMPARE(private, shared).n_gone, 1);
	assert_int_equal(COMPARE(shared, private).n_gone, 0);
	assert_int_equal(COMPARE(private, private).n_gone, 0);
}

static void nothing_at_all_compares(void **state)
{
	const struct check_map one[] = { MAP(100, 200, 0) };

	assert_int_equal(compare(NULL, 0, NULL, 0).n_gone, 0);
	assert_int_equal(compare(one, 1, NULL, 0).n_gone, 1);
	assert_int_equal(compare(NULL, 0, one, 1).n_unknown, 1);
}

static void maps_are_sorted_by_process_and_address(void **state)
{
	struct check_map m[] = { { 2, true, 5, 6, 0 }, { 1, true, 9, 10, 0 }, { 1, true, 3, 4, 0 } };

	check_maps_sort(m, 3);
	assert_int_equal(m[0].start, 3);
	assert_int_equal(m[1].start, 9);
	assert_int_equal(m[2].pid, 2);
}

/* --- references --- */

struct differs { struct range r[16]; uint32_t shown[16], counted[16]; size_t n; };

static void differ(void *arg, struct range r, uint32_t shown, uint32_t counted)
{
	struct differs *d = arg;

	assert_in_range(d->n, 0, 15);
	d->r[d->n] = r;
	d->shown[d->n] = shown;
	d->counted[d->n++] = counted;
}

static void references_are_the_mappings_that_cover_a_range(void **state)
{
	/* Of different processes, at whatever addresses. */
	const struct check_map known[] = { { 1, true, 1000, 1100, 0 }, { 2, true, 5000, 5100, 50 }, { 0, false, 7000, 7010, 400 } };
	const struct check_refs refs[] = { { { 0, 50 }, 1 }, { { 50, 100 }, 2 }, { { 100, 150 }, 1 }, { { 400, 410 }, 1 } };
	struct differs d = { 0 };

	assert_int_equal(check_refs_compare(known, 3, refs, 4, differ, &d), 0);
	assert_int_equal(d.n, 0);
}

static void references_that_are_too_many_or_too_few_differ(void **state)
{
	const struct check_map known[] = { { 1, true, 1000, 1100, 0 }, { 2, true, 5000, 5100, 50 } };
	const struct check_refs refs[] = { { { 0, 100 }, 1 }, { { 100, 150 }, 1 }, { { 200, 210 }, 3 } };
	struct differs d = { 0 };

	assert_int_equal(check_refs_compare(known, 2, refs, 3, differ, &d), 0);
	assert_int_equal(d.n, 2);
	assert_range(d.r[0], 50, 100);
	assert_int_equal(d.shown[0], 1);
	assert_int_equal(d.counted[0], 2);
	assert_range(d.r[1], 200, 210);
	assert_int_equal(d.shown[1], 3);
	assert_int_equal(d.counted[1], 0);
}

static void no_references_without_mappings(void **state)
{
	struct differs d = { 0 };

	assert_int_equal(check_refs_compare(NULL, 0, NULL, 0, differ, &d), 0);
	assert_int_equal(d.n, 0);
}

/* --- bits --- */

static void bits_that_can_be_together_are_right(void **state)
{
	struct check_bits b = { .resident = 0xff, .dirty = 0x0f, .writeback = 0x13, .keep = 0x12, .ahead = 0x80, .pinned = 0x42, .filling = 0x100,
				.second = 0x200, .beyond = ~0x3ffull };

	assert_int_equal(check_bits_wrong(&b), 0);
}

static void each_bit_that_cannot_be_is_told(void **state)
{
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .dirty = 2 }), 2);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .writeback = 2 }), 2);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .ahead = 4 }), 4);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .pinned = 4 }), 4);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .resident = 1, .keep = 1 }), 1);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .resident = 3, .filling = 2 }), 2);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .resident = 3, .second = 1 }), 1);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .filling = 3, .second = 1 }), 1);
	assert_int_equal(check_bits_wrong(&(struct check_bits){ .resident = 3, .beyond = 2 }), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_both_have_does_not_differ_however_it_is_cut),
		cmocka_unit_test(what_the_kernel_does_not_have_is_gone),
		cmocka_unit_test(what_is_not_known_is_unknown),
		cmocka_unit_test(the_same_addresses_with_other_bytes_are_gone_and_not_unknown),
		cmocka_unit_test(what_is_shared_must_be_tracked),
		cmocka_unit_test(nothing_at_all_compares),
		cmocka_unit_test(maps_are_sorted_by_process_and_address),
		cmocka_unit_test(references_are_the_mappings_that_cover_a_range),
		cmocka_unit_test(references_that_are_too_many_or_too_few_differ),
		cmocka_unit_test(no_references_without_mappings),
		cmocka_unit_test(bits_that_can_be_together_are_right),
		cmocka_unit_test(each_bit_that_cannot_be_is_told),
	};

	return cmocka_run_group_tests_name("check_compare", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What is mapped where, as clients and events tell, and the references that follow from it. */
#include <sys/eventfd.h>

#include "daemon/space.h"
#include "rig.h"

#define A 0x10000000ull
#define B 0x20000000ull

static struct rig *rig;
static struct space *s;

static int begin(void **state)
{
	rig = rig_new(256 * PAGE, 1000);
	assert_int_equal(space_new(&s, rig->f, eventfd(0, EFD_CLOEXEC)), 0);
	s->writable = true;
	return 0;
}

static int end(void **state)
{
	space_close(s);
	assert_int_equal(rig->f->n_mappings, 0);
	assert_int_equal(frame_refs_max(&rig->f->refs, (struct range){ 0, 256 * PAGE }), 0);
	rig_free(rig);
	return 0;
}

static uint32_t refs(uint64_t page) { return frame_refs_at(&rig->f->refs, page * PAGE, NULL); }

/* The file's page at an address, or -1. */
static int64_t page_at(uint64_t addr)
{
	struct range seg;
	uint64_t off;
	bool shared;

	return space_find(s, addr, &seg, &off, &shared) < 0 ? -1 : (int64_t)((off + (addr - seg.start)) / PAGE);
}

static void mappings_are_checked(void **state)
{
	assert_int_equal(space_map(s, A + 1, PAGE, 0, true), -EINVAL);
	assert_int_equal(space_map(s, A, PAGE, 5, true), -EINVAL);
	assert_int_equal(space_map(s, A, 0, 0, true), -EINVAL);
	assert_int_equal(space_map(s, ~0ull - PAGE + 1, 2 * PAGE, 0, true), -EOVERFLOW);
	assert_int_equal(space_map(s, A, PAGE, (1ull << 63) - PAGE, true), -EOVERFLOW);
	s->writable = false;
	assert_int_equal(space_map(s, A, PAGE, 0, true), -EACCES);
	assert_int_equal(space_map(s, A, PAGE, 0, false), 0);
}

static void references_follow_mappings(void **state)
{
	assert_int_equal(space_map(s, A, 8 * PAGE, 0, true), 0);
	assert_int_equal(space_map(s, B, 4 * PAGE, 4 * PAGE, false), 0);
	assert_int_equal(refs(3), 1);
	assert_int_equal(refs(5), 2);
	space_unmapped(s, A + 4 * PAGE, A + 6 * PAGE);
	assert_int_equal(refs(5), 1);
	assert_int_equal(refs(7), 2);
	assert_int_equal(page_at(A + 4 * PAGE), -1);
	assert_int_equal(page_at(A + 6 * PAGE), 6);
	assert_int_equal(page_at(B + PAGE), 5);
}

static void blocks_show_the_most_references_of_their_pages(void **state)
{
	struct block *b;

	rig_fill(rig, 0, 64);
	b = block_tree_find(&rig->f->blocks, 0);
	assert_int_equal(space_map(s, A, 4 * PAGE, 0, true), 0);
	assert_int_equal(space_map(s, B, 4 * PAGE, 20 * PAGE, true), 0);
	assert_int_equal(b->e->refs, 1);
	space_unmapped(s, A, A + 2 * PAGE);
	assert_int_equal(b->e->refs, 1);
	space_unmapped(s, A, A + 4 * PAGE);
	space_unmapped(s, B, B + 4 * PAGE);
	assert_int_equal(b->e->refs, 0);
}

static void a_move_takes_its_offsets_along(void **state)
{
	assert_int_equal(space_map(s, A, 8 * PAGE, 16 * PAGE, true), 0);
	space_remapped(s, A + 2 * PAGE, B, 4 * PAGE);
	space_unmapped(s, A + 2 * PAGE, A + 6 * PAGE); /* which the kernel tells, too */
	assert_int_equal(page_at(A + PAGE), 17);
	assert_int_equal(page_at(A + 3 * PAGE), -1);
	assert_int_equal(page_at(B), 18);
	assert_int_equal(page_at(A + 7 * PAGE), 23);
	assert_int_equal(refs(18), 1);
	assert_int_equal(s->n_expect, 0);
}

static void a_move_that_leaves_its_source_mapped_is_learnt_when_it_is_touched(void **state)
{
	assert_int_equal(space_map(s, A, 8 * PAGE, 16 * PAGE, true), 0);
	space_remapped(s, A, B, 8 * PAGE); /* with MREMAP_DONTUNMAP: no UNMAP follows */
	assert_int_equal(page_at(A), -1);
	assert_int_equal(page_at(B), 16);
	assert_int_equal(refs(16), 1);
	assert_int_equal(s->n_expect, 1);
	assert_int_equal(space_learn(s, A, A + 8 * PAGE, 16 * PAGE, true), 0);
	assert_int_equal(page_at(A + 7 * PAGE), 23);
	assert_int_equal(refs(16), 2);
	assert_int_equal(s->n_expect, 0);
	/* So the unmap that is told now is its own, and counts. */
	space_unmapped(s, A, A + 8 * PAGE);
	assert_int_equal(page_at(A), -1);
	assert_int_equal(page_at(B + 7 * PAGE), 23);
	assert_int_equal(refs(16), 1);
}

static void a_second_mapping_by_mremap_leaves_the_first(void **state)
{
	assert_int_equal(space_map(s, A, 8 * PAGE, 0, true), 0);
	space_remapped(s, A, B, 0); /* an old size of 0: how long the new one is shows when it is touched */
	assert_int_equal(page_at(A + 7 * PAGE), 7);
	assert_int_equal(page_at(B), -1);
	assert_int_equal(refs(7), 1);
	assert_int_equal(s->n_expect, 0);
}

static void a_move_replaces_what_was_at_its_target(void **state)
{
	assert_int_equal(space_map(s, A, 4 * PAGE, 0, true), 0);
	assert_int_equal(space_map(s, B, 8 * PAGE, 100 * PAGE, true), 0);
	space_remapped(s, A, B + 2 * PAGE, 4 * PAGE);
	space_unmapped(s, A, A + 4 * PAGE);
	assert_int_equal(page_at(B + PAGE), 101);
	assert_int_equal(page_at(B + 2 * PAGE), 0);
	assert_int_equal(page_at(B + 5 * PAGE), 3);
	assert_int_equal(page_at(B + 6 * PAGE), 106);
	assert_int_equal(refs(101), 1);
	assert_int_equal(refs(102), 0);
	assert_int_equal(refs(105), 0);
	assert_int_equal(refs(106), 1);
	assert_int_equal(refs(0), 1);
	assert_int_equal(rig->f->n_mappings, 3);
}

static void an_unmap_told_late_leaves_the_new_mapping(void **state)
{
	assert_int_equal(space_map(s, A, 8 * PAGE, 0, true), 0);
	/* Thread 1 has unmapped it; before its event is read, thread 2 has mapped there, and says so. */
	assert_int_equal(space_map(s, A + 2 * PAGE, 2 * PAGE, 40 * PAGE, true), 0);
	space_unmapped(s, A, A + 8 * PAGE);
	assert_int_equal(page_at(A + PAGE), -1);
	assert_int_equal(page_at(A + 2 * PAGE), 40);
	assert_int_equal(page_at(A + 4 * PAGE), -1);
	assert_int_equal(s->n_expect, 0);
	space_unmapped(s, A, A + 8 * PAGE);
	assert_int_equal(page_at(A + 2 * PAGE), -1);
}

static void what_the_kernel_says_replaces_the_table(void **state)
{
	assert_int_equal(space_map(s, A, 2 * PAGE, 0, true), 0);
	assert_int_equal(page_at(A + 5 * PAGE), -1); /* mremap made it longer, and no event told */
	assert_int_equal(space_learn(s, A, A + 8 * PAGE, 0, true), 0);
	assert_int_equal(page_at(A + 5 * PAGE), 5);
	assert_int_equal(refs(1), 1);
	assert_int_equal(refs(7), 1);
	assert_int_equal(rig->f->n_mappings, 1);
}

static void a_guess_is_one_page_of_the_mapping_below(void **state)
{
	assert_int_equal(space_map(s, A, 2 * PAGE, 10 * PAGE, true), 0);
	assert_int_equal(space_guess(s, A + 4 * PAGE), 0);
	assert_int_equal(page_at(A + 4 * PAGE), 14);
	assert_int_equal(page_at(A + 3 * PAGE), -1);
	assert_int_equal(space_guess(s, A + 1000 * PAGE), -ENOENT); /* beyond the end of file */
	assert_int_equal(space_guess(s, A - PAGE), -ENOENT);
}

static void a_child_has_what_its_parent_has(void **state)
{
	struct space *child;

	assert_int_equal(space_map(s, A, 4 * PAGE, 0, true), 0);
	assert_int_equal(space_map(s, B, 4 * PAGE, 8 * PAGE, false), 0);
	space_note_unprotected(s, 1, 2);
	assert_int_equal(space_new(&child, rig->f, eventfd(0, EFD_CLOEXEC)), 0);
	assert_int_equal(space_copy(child, s), 0);
	assert_int_equal(refs(2), 2);
	assert_int_equal(refs(9), 2);
	assert_int_equal(child->unprotected_lo, 1);
	assert_int_equal(child->unprotected_hi, 3);
	space_close(child);
	assert_int_equal(refs(2), 1);
}

static void the_last_unmap_starts_a_write_out(void **state)
{
	rig_fill(rig, 0, 8);
	assert_int_equal(space_map(s, A, 8 * PAGE, 0, true), 0);
	rig_store_page(rig, 3, 'd');
	space_unmapped(s, A, A + 8 * PAGE);
	rig_run(rig, NULL, 30);
	assert_int_equal(rig_count(rig, 'w'), 1);
	assert_false(rig_dirty(rig, 3));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		T(mappings_are_checked),
		T(references_follow_mappings),
		T(blocks_show_the_most_references_of_their_pages),
		T(a_move_takes_its_offsets_along),
		T(a_move_that_leaves_its_source_mapped_is_learnt_when_it_is_touched),
		T(a_second_mapping_by_mremap_leaves_the_first),
		T(a_move_replaces_what_was_at_its_target),
		T(an_unmap_told_late_leaves_the_new_mapping),
		T(what_the_kernel_says_replaces_the_table),
		T(a_guess_is_one_page_of_the_mapping_below),
		T(a_child_has_what_its_parent_has),
		T(the_last_unmap_starts_a_write_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

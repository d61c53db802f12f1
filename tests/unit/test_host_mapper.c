/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "daemon/host_mapper.h"
#include "daemon/util/util.h"
#include "failing_alloc.h"
#include "model.h"

#define P PAGE_SIZE_
#define C HOST_CHUNK_SIZE
#define CHUNKS 8

static struct host_mapper m;
static int fd;

static struct range R(uint64_t start, uint64_t end) { return (struct range){ start, end }; }

/* A memfd of CHUNKS chunks; the first word of each page is its number + `base`. */
static int make_file(uint64_t base)
{
	int f = memfd_create("host-mapper-test", MFD_CLOEXEC);

	assert_true(f >= 0);
	assert_int_equal(ftruncate(f, (off_t)(CHUNKS * C)), 0);
	for (uint64_t c = 0; c < CHUNKS; c++) {
		for (uint64_t off = c * C; off < c * C + 2 * P; off += P) {
			uint64_t word = base + off / P;

			assert_int_equal(pwrite(f, &word, sizeof(word), (off_t)off), sizeof(word));
		}
	}
	return f;
}

static int setup(void **state)
{
	fd = make_file(1000);
	host_mapper_init(&m, fd);
	return 0;
}

static int teardown(void **state)
{
	fail_alloc = false;
	host_mapper_free(&m);
	close(fd);
	return 0;
}

static bool is_mapped(void *addr)
{
	unsigned char vec;

	return mincore(addr, P, &vec) == 0;
}

static uint64_t word_at(const struct iovec *iov)
{
	return *(volatile uint64_t *)iov->iov_base;
}

/* Refers to the range and maps it as one piece. */
static char *map_one(struct range r, bool write)
{
	struct iovec iov;

	assert_int_equal(host_mapper_inc_ref(&m, r), 0);
	assert_int_equal(host_mapper_map(&m, r, write, &iov, 1), 1);
	assert_int_equal(iov.iov_len, r.end - r.start);
	return iov.iov_base;
}

static void mapping_shows_the_file(void **state)
{
	struct iovec iov;

	assert_int_equal(host_mapper_inc_ref(&m, R(C + P, C + 2 * P)), 0);
	assert_int_equal(host_mapper_map(&m, R(C + P, C + 2 * P), false, &iov, 1), 1);
	assert_int_equal(iov.iov_len, P);
	assert_int_equal(word_at(&iov), 1000 + C / P + 1);
}

static void mapping_without_a_reference_is_einval(void **state)
{
	struct iovec iov;

	assert_int_equal(host_mapper_map(&m, R(0, P), false, &iov, 1), -EINVAL);
	assert_int_equal(host_mapper_inc_ref(&m, R(0, P)), 0);
	assert_int_equal(host_mapper_map(&m, R(0, 2 * P), false, &iov, 1), -EINVAL);
	assert_int_equal(m.n, 0);
}

static void ranges_that_are_not_whole_pages_are_einval(void **state)
{
	struct iovec iov;

	assert_int_equal(host_mapper_inc_ref(&m, R(0, 0)), -EINVAL);
	assert_int_equal(host_mapper_inc_ref(&m, R(1, P)), -EINVAL);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P - 1)), -EINVAL);
	assert_int_equal(host_mapper_inc_ref(&m, R(0, P)), 0);
	assert_int_equal(host_mapper_map(&m, R(0, P - 1), false, &iov, 1), -EINVAL);
	assert_int_equal(host_mapper_map(&m, R(P, 0), false, &iov, 1), -EINVAL);
}

static void underflow_is_caught_by_page(void **state)
{
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P)), -EINVAL);
	assert_int_equal(host_mapper_inc_ref(&m, R(0, 2 * P)), 0);
	/* As many pages as there are references, but not the same ones. */
	assert_int_equal(host_mapper_dec_ref(&m, R(P, 3 * P)), -EINVAL);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, 2 * P)), 0);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, 2 * P)), -EINVAL);
}

static void overflow_is_caught(void **state)
{
	assert_int_equal(host_mapper_inc_ref(&m, R(P, 2 * P)), 0);
	m.refs.map.seg[0].v.a = UINT32_MAX;
	assert_int_equal(host_mapper_inc_ref(&m, R(0, 4 * P)), -EOVERFLOW);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P)), -EINVAL);
}

static void offset_beyond_what_files_have_is_an_error(void **state)
{
	struct iovec iov;
	struct range r = R(1ull << 63, (1ull << 63) + P);

	assert_int_equal(host_mapper_inc_ref(&m, r), 0);
	assert_true(host_mapper_map(&m, r, false, &iov, 1) < 0);
	assert_int_equal(m.n, 0);
}

static void chunk_is_mapped_once_and_kept_while_referenced(void **state)
{
	char *a = map_one(R(0, P), false), *b = map_one(R(5 * P, 6 * P), false);

	assert_ptr_equal(b, a + 5 * P);
	assert_int_equal(m.n, 1);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P)), 0);
	assert_true(is_mapped(b));
}

static void chunk_is_unmapped_at_its_last_dereference(void **state)
{
	char *a = map_one(R(0, P), false);

	assert_int_equal(host_mapper_inc_ref(&m, R(0, P)), 0);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P)), 0);
	assert_true(is_mapped(a));
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P)), 0);
	assert_false(is_mapped(a));
	assert_int_equal(m.n, 0);
}

static void dereference_unmaps_only_chunks_without_references(void **state)
{
	char *a = map_one(R(0, 3 * C), false);

	assert_int_equal(host_mapper_inc_ref(&m, R(2 * C - P, 2 * C)), 0);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, 3 * C)), 0);
	assert_false(is_mapped(a));
	assert_true(is_mapped(a + C));
	assert_false(is_mapped(a + 2 * C));
	assert_int_equal(m.n, 1);
	assert_int_equal(m.chunk[0].index, 1);
}

static void write_upgrades_in_place(void **state)
{
	char *a = map_one(R(0, P), false), *b;
	uint64_t word = 77, got = 0;

	b = map_one(R(0, P), true);
	assert_ptr_equal(a, b);
	memcpy(b, &word, sizeof(word));
	assert_int_equal(pread(fd, &got, sizeof(got), 0), sizeof(got));
	assert_int_equal(got, 77);
}

static void writable_chunk_stays_writable(void **state)
{
	char *a = map_one(R(0, P), true);
	struct iovec iov;

	assert_int_equal(host_mapper_map(&m, R(0, P), false, &iov, 1), 1);
	assert_ptr_equal(iov.iov_base, a);
	a[0] = 1;
}

static void write_through_a_read_only_descriptor_is_an_error(void **state)
{
	_cleanup_close_ int ro = -1;
	struct host_mapper h;
	struct iovec iov;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(ro >= 0);
	host_mapper_init(&h, ro);
	assert_int_equal(host_mapper_inc_ref(&h, R(0, P)), 0);
	assert_int_equal(host_mapper_map(&h, R(0, P), true, &iov, 1), -EACCES);
	assert_int_equal(host_mapper_map(&h, R(0, P), false, &iov, 1), 1);
	assert_int_equal(host_mapper_map(&h, R(0, P), true, &iov, 1), -EACCES);
	host_mapper_free(&h);
}

static void adjoining_pieces_are_joined(void **state)
{
	char *a = map_one(R(C - P, 3 * C + P), false);

	assert_int_equal(*(uint64_t *)(a + P), 1000 + C / P);
	assert_int_equal(*(uint64_t *)(a + P + C), 1000 + 2 * C / P);
	assert_int_equal(m.n, 4);
}

static void pieces_that_do_not_adjoin_are_apart(void **state)
{
	struct iovec iov[3];
	char *a = map_one(R(0, P), false), *wall;

	/* Something else lies where the next chunk would adjoin. */
	wall = mmap(a + C, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (wall == MAP_FAILED)
		assert_int_equal(errno, EEXIST);
	assert_int_equal(host_mapper_inc_ref(&m, R(0, 2 * C)), 0);
	assert_int_equal(host_mapper_map(&m, R(0, 2 * C), false, iov, 1), -E2BIG);
	assert_int_equal(host_mapper_map(&m, R(0, 2 * C), false, iov, 3), 2);
	assert_ptr_equal(iov[0].iov_base, a);
	assert_int_equal(iov[0].iov_len, C);
	assert_int_equal(iov[1].iov_len, C);
	assert_int_equal(word_at(&iov[1]), 1000 + C / P);
	if (wall != MAP_FAILED)
		munmap(wall, P);
}

static void gap_between_mapped_chunks_is_filled_in_order(void **state)
{
	struct iovec iov[CHUNKS];
	uint64_t off = 0;
	int n;

	map_one(R(4 * C, 4 * C + P), true);
	map_one(R(C, C + P), false);
	assert_int_equal(host_mapper_inc_ref(&m, R(0, CHUNKS * C)), 0);
	n = host_mapper_map(&m, R(0, CHUNKS * C), false, iov, CHUNKS);
	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		for (uint64_t in = 0; in < iov[i].iov_len; in += C, off += C)
			assert_int_equal(*(uint64_t *)((char *)iov[i].iov_base + in), 1000 + off / P);
	}
	assert_int_equal(off, CHUNKS * C);
	assert_int_equal(m.n, CHUNKS);
}

static void regeneration_keeps_addresses_and_shows_the_new_file(void **state)
{
	int other = make_file(5000);
	char *a = map_one(R(0, P), false), *b = map_one(R(3 * C, 3 * C + P), true);
	struct iovec iov;
	uint64_t got = 0;

	assert_int_equal(host_mapper_regenerate(&m, other), 0);
	assert_int_equal(*(volatile uint64_t *)a, 5000);
	assert_int_equal(*(volatile uint64_t *)b, 5000 + 3 * C / P);
	*(volatile uint64_t *)b = 99;
	assert_int_equal(pread(other, &got, sizeof(got), (off_t)(3 * C)), sizeof(got));
	assert_int_equal(got, 99);
	/* What is mapped later is of the new file too. */
	assert_int_equal(host_mapper_inc_ref(&m, R(5 * C, 5 * C + P)), 0);
	assert_int_equal(host_mapper_map(&m, R(5 * C, 5 * C + P), false, &iov, 1), 1);
	assert_int_equal(word_at(&iov), 5000 + 5 * C / P);
	close(fd);
	fd = other;
}

static void regeneration_with_a_bad_descriptor_keeps_the_old(void **state)
{
	char *a = map_one(R(0, P), false);

	assert_int_equal(host_mapper_regenerate(&m, -1), -EBADF);
	assert_int_equal(*(volatile uint64_t *)a, 1000);
	assert_int_equal(m.fd, fd);
}

static void unmap_all_keeps_references(void **state)
{
	char *a = map_one(R(0, P), false);
	struct iovec iov;

	host_mapper_unmap_all(&m);
	assert_false(is_mapped(a));
	assert_int_equal(host_mapper_map(&m, R(0, P), false, &iov, 1), 1);
	assert_int_equal(word_at(&iov), 1000);
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P)), 0);
}

static void free_unmaps_what_is_referenced(void **state)
{
	char *a = map_one(R(0, P), false);

	host_mapper_free(&m);
	assert_false(is_mapped(a));
}

static void out_of_memory_is_reported_and_changes_nothing(void **state)
{
	struct iovec iov;

	fail_alloc = true;
	assert_int_equal(host_mapper_inc_ref(&m, R(0, P)), -ENOMEM);
	fail_alloc = false;
	assert_int_equal(host_mapper_dec_ref(&m, R(0, P)), -EINVAL);
	assert_int_equal(host_mapper_inc_ref(&m, R(0, P)), 0);
	fail_alloc = true;
	assert_int_equal(host_mapper_map(&m, R(0, P), false, &iov, 1), -ENOMEM);
	assert_int_equal(m.n, 0);
}

#define HALVES (2 * CHUNKS)

/* References in units of half a chunk; a chunk is mapped exactly while one was mapped and either half is referenced. */
static void random_references_match_a_naive_model(void **state)
{
	unsigned refs[HALVES] = {};
	bool mapped[CHUNKS] = {};

	model_seed();
	for (int i = 0; i < 3000; i++) {
		uint64_t start = model_random(HALVES), len = 1 + model_random(5), end = MIN(start + len, HALVES);
		struct range r = R(start * (C / 2), end * (C / 2));
		struct iovec iov[CHUNKS];
		bool whole = true;
		uint64_t off;
		size_t n = 0;
		int got;

		for (uint64_t h = start; h < end; h++)
			whole &= refs[h] > 0;
		switch (model_random(3)) {
		case 0:
			assert_int_equal(host_mapper_inc_ref(&m, r), 0);
			for (uint64_t h = start; h < end; h++)
				refs[h]++;
			break;
		case 1:
			assert_int_equal(host_mapper_dec_ref(&m, r), whole ? 0 : -EINVAL);
			for (uint64_t h = start; whole && h < end; h++)
				refs[h]--;
			break;
		case 2:
			got = host_mapper_map(&m, r, model_random(2), iov, CHUNKS);
			if (!whole) {
				assert_int_equal(got, -EINVAL);
				break;
			}
			assert_true(got > 0);
			off = r.start;
			for (int p = 0; p < got; p++) {
				for (uint64_t in = 0; in < iov[p].iov_len; in += C / 2) {
					uint64_t word = *(uint64_t *)((char *)iov[p].iov_base + in);

					assert_int_equal(word, (off + in) % C ? 0 : 1000 + (off + in) / P);
				}
				off += iov[p].iov_len;
			}
			assert_int_equal(off, r.end);
			for (uint64_t h = start; h < end; h++)
				mapped[h / 2] = true;
			break;
		}
		for (uint64_t c = 0; c < CHUNKS; c++) {
			mapped[c] &= refs[2 * c] || refs[2 * c + 1];
			if (mapped[c]) {
				assert_true(n < m.n);
				assert_int_equal(m.chunk[n++].index, c);
			}
		}
		assert_int_equal(n, m.n);
	}
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(mapping_shows_the_file), T(mapping_without_a_reference_is_einval),
		T(ranges_that_are_not_whole_pages_are_einval), T(underflow_is_caught_by_page), T(overflow_is_caught),
		T(offset_beyond_what_files_have_is_an_error), T(chunk_is_mapped_once_and_kept_while_referenced),
		T(chunk_is_unmapped_at_its_last_dereference), T(dereference_unmaps_only_chunks_without_references),
		T(write_upgrades_in_place), T(writable_chunk_stays_writable),
		T(write_through_a_read_only_descriptor_is_an_error), T(adjoining_pieces_are_joined),
		T(pieces_that_do_not_adjoin_are_apart), T(gap_between_mapped_chunks_is_filled_in_order),
		T(regeneration_keeps_addresses_and_shows_the_new_file),
		T(regeneration_with_a_bad_descriptor_keeps_the_old), T(unmap_all_keeps_references),
		T(free_unmaps_what_is_referenced), T(out_of_memory_is_reported_and_changes_nothing),
		T(random_references_match_a_naive_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

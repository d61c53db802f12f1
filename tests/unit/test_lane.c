/* SPDX-License-Identifier: Apache-2.0 */
/* daemon/lane.c: jobs are carried out and told of, with what came of them; and no page is shown while it is being filled, whoever maps it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/lane.h"
#include "daemon/uffd.h"

#define PAGES   256u
#define CLIENTS 3u
#define AROUND  16u
#define LANES   2u

/* A worker in small: one file, one space, one thread. */
struct rig {
	struct ring ring;
	struct lanes *lanes;
	struct lane_user user;
	struct list jobs;
	int memfd, uffd;
	char *map;
	struct uffd_caps caps;
	bool resident[PAGES];
	unsigned done;
	struct lane_job last;
	_Atomic bool stop, wrong;
	_Atomic uint64_t loads;
};

static uint64_t right(uint64_t page) { return page * 0x9e3779b97f4a7c15ull | 1; }

static void put(struct rig *r, uint64_t page, uint64_t word)
{
	uint64_t words[PAGE_SIZE_ / sizeof(uint64_t)];

	for (size_t i = 0; i < ELEMENTSOF(words); i++)
		words[i] = word;
	assert_int_equal(pwrite(r->memfd, words, sizeof(words), (off_t)(page * PAGE_SIZE_)), sizeof(words));
}

static struct rig *rig_new(void)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };
	struct uffd_caps caps;
	const char *lacking;
	struct rig *r;
	int uffd = uffd_probe(&caps, false, &lacking) < 0 ? -1 : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (uffd < 0)
		skip();
	r = calloc(1, sizeof(*r));
	assert_non_null(r);
	r->caps = caps;
	r->uffd = uffd;
	list_init(&r->jobs);
	assert_int_equal(uffd_accept(r->uffd, &r->caps, false), 0);
	r->memfd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(ftruncate(r->memfd, PAGES * PAGE_SIZE_), 0);
	r->map = mmap(NULL, PAGES * PAGE_SIZE_, PROT_READ, MAP_SHARED, r->memfd, 0);
	assert_ptr_not_equal(r->map, MAP_FAILED);
	reg.range = (struct uffdio_range){ (uintptr_t)r->map, PAGES * PAGE_SIZE_ };
	assert_int_equal(ioctl(r->uffd, UFFDIO_REGISTER, &reg), 0);
	assert_int_equal(ring_init(&r->ring, 64), 0);
	assert_int_equal(lanes_start(&r->lanes, LANES, true), 0);
	assert_int_equal(lane_user_init(&r->user, r->lanes, &r->ring), 0);
	return r;
}

static void rig_free(struct rig *r)
{
	lanes_stop(r->lanes, &r->ring);
	ring_free(&r->ring);
	lane_user_free(&r->user);
	close(r->uffd);
	munmap(r->map, PAGES * PAGE_SIZE_);
	close(r->memfd);
	free(r);
}

static void job_done(struct lane_job *j)
{
	struct rig *r = j->file;

	r->last = *j;
	r->done++;
}

static bool send_job(struct rig *r, uint64_t page, uint64_t n)
{
	struct lane_job *j = lane_take(&r->user, &r->jobs, page, n);

	if (!j)
		return false;
	*j = (struct lane_job){ .file = r, .page = page, .n = n, .done = job_done, .uffd = r->uffd, .addr = (uintptr_t)r->map + page * PAGE_SIZE_ };
	list_append(&r->jobs, &j->by_file);
	list_init(&j->by_space);
	lane_send(&r->user, j);
	return true;
}

static void until_done(struct rig *r, unsigned n)
{
	uint64_t end = now_ns() + 10000000000ull;

	lane_flush(&r->user);
	while (r->done < n) {
		assert_true(now_ns() < end);
		assert_true(ring_run(&r->ring, true, 64) >= 0);
	}
}

static void a_job_maps_what_is_there(void **state)
{
	struct rig *r = rig_new();

	for (uint64_t p = 0; p < 20; p++)
		put(r, p, right(p));
	assert_true(send_job(r, 0, 20));
	until_done(r, 1);
	assert_int_equal(r->last.result, 0);
	assert_int_equal(r->last.mapped, 20 * PAGE_SIZE_);
	assert_true(list_empty(&r->jobs));
	for (uint64_t p = 0; p < 20; p++)
		assert_int_equal(*(uint64_t *)(r->map + p * PAGE_SIZE_), right(p));
	rig_free(r);
}

static void a_job_tells_what_stopped_it(void **state)
{
	struct rig *r = rig_new();

	put(r, 0, right(0));
	put(r, 1, right(1));
	assert_true(send_job(r, 0, 3));
	until_done(r, 1);
	assert_int_equal(r->last.mapped, 2 * PAGE_SIZE_); /* and the third is a hole */
	assert_true(send_job(r, 2, 1));
	until_done(r, 2);
	assert_int_equal(r->last.result, -EFAULT);
	assert_true(send_job(r, 0, 1));
	until_done(r, 3);
	assert_int_equal(r->last.result, -EEXIST);
	assert_int_equal(r->last.mapped, 0);
	rig_free(r);
}

static void more_than_lanes_take_is_left_to_the_worker(void **state)
{
	struct rig *r = rig_new();
	unsigned n = 0;

	for (uint64_t p = 0; p < PAGES; p++)
		put(r, p, right(p));
	while (n < 10000 && send_job(r, 0, 1))
		n++;
	assert_in_range(n, LANES, 9999);
	until_done(r, n);
	assert_true(send_job(r, 0, 1)); /* and then they take something again */
	until_done(r, n + 1);
	rig_free(r);
}

static void pages_of_jobs_are_not_free(void **state)
{
	struct lane_job a = { .page = 10, .n = 5 }, b = { .page = 20, .n = 1 };
	struct list jobs = LIST_INIT(jobs);

	assert_int_equal(lane_free_run(&jobs, 12, 100), 100);
	list_append(&jobs, &a.by_file);
	list_append(&jobs, &b.by_file);
	assert_int_equal(lane_free_run(&jobs, 0, 100), 10);
	assert_int_equal(lane_free_run(&jobs, 0, 10), 10);
	assert_int_equal(lane_free_run(&jobs, 10, 1), 0);
	assert_int_equal(lane_free_run(&jobs, 14, 100), 0);
	assert_int_equal(lane_free_run(&jobs, 15, 100), 5);
	assert_int_equal(lane_free_run(&jobs, 21, 100), 100);
}

/* --- pages come and go while clients look --- */

static void *client(void *arg)
{
	struct rig *r = arg;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	while (!atomic_load(&r->stop)) {
		uint64_t page = (unsigned)rand_r(&seed) % PAGES;

		if (__atomic_load_n((uint64_t *)(r->map + page * PAGE_SIZE_ + 8 * (page % 512)), __ATOMIC_RELAXED) != right(page))
			atomic_store(&r->wrong, true);
		atomic_fetch_add(&r->loads, 1);
	}
	return NULL;
}

/* Half of the page is wrong for a while. False: a lane may be about to map it. */
static bool fill(struct rig *r, uint64_t page)
{
	if (lane_free_run(&r->jobs, page, 1) == 0)
		return false;
	put(r, page, 0xbad);
	sched_yield();
	put(r, page, right(page));
	r->resident[page] = true;
	return true;
}

static void answer(struct rig *r, uint64_t page)
{
	uint64_t from = align_down(page, AROUND), to = page, mapped;

	while (!r->resident[page] && !fill(r, page))
		assert_true(ring_run(&r->ring, true, 64) >= 0);
	while (from < page && !r->resident[from])
		from++;
	for (uint64_t p = from; p < page; p++)
		if (!r->resident[p])
			from = p + 1;
	while (to < align_down(page, AROUND) + AROUND && r->resident[to])
		to++;
	if (!send_job(r, from, to - from))
		(void)uffd_continue(r->uffd, (uintptr_t)r->map + page * PAGE_SIZE_, PAGE_SIZE_, false, &mapped);
	/* Whatever stopped it: who waits looks again. */
	(void)uffd_wake(r->uffd, (uintptr_t)r->map + page * PAGE_SIZE_, PAGE_SIZE_);
}

static void drop(struct rig *r, uint64_t page)
{
	r->resident[page] = false;
	assert_int_equal(fallocate(r->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE_SIZE_), PAGE_SIZE_), 0);
}

static void no_page_is_shown_while_it_is_filled(void **state)
{
	uint64_t end = now_ns() + 2000000000ull;
	struct rig *r = rig_new();
	pthread_t thread[CLIENTS];
	struct uffd_msg m[16];
	unsigned seed = 1;

	for (unsigned i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, client, r), 0);
	while (now_ns() < end && !atomic_load(&r->wrong)) {
		int n = uffd_read(r->uffd, &r->caps, m, ELEMENTSOF(m));

		for (int i = 0; i < n; i++)
			answer(r, (m[i].arg.pagefault.address - (uintptr_t)r->map) / PAGE_SIZE_);
		for (unsigned i = 0; i < 8; i++)
			drop(r, (unsigned)rand_r(&seed) % PAGES);
		lane_flush(&r->user);
		assert_true(ring_run(&r->ring, false, 64) >= 0);
	}
	atomic_store(&r->stop, true);
	for (uint64_t p = 0; p < PAGES; p++)
		while (!r->resident[p] && !fill(r, p))
			assert_true(ring_run(&r->ring, true, 64) >= 0);
	/* So that nobody waits: the kernel maps what is here. */
	until_done(r, 0);
	while (!list_empty(&r->jobs))
		assert_true(ring_run(&r->ring, true, 64) >= 0);
	assert_int_equal(ioctl(r->uffd, UFFDIO_UNREGISTER, &(struct uffdio_range){ (uintptr_t)r->map, PAGES * PAGE_SIZE_ }), 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		pthread_join(thread[i], NULL);
	assert_false(atomic_load(&r->wrong));
	assert_true(r->done > 100);
	assert_true(atomic_load(&r->loads) > 1000);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_job_maps_what_is_there),
		cmocka_unit_test(a_job_tells_what_stopped_it),
		cmocka_unit_test(more_than_lanes_take_is_left_to_the_worker),
		cmocka_unit_test(pages_of_jobs_are_not_free),
		cmocka_unit_test(no_page_is_shown_while_it_is_filled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

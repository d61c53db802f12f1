/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a daemon that is gone, and no memory to learn what it has mapped: it is asked again, and its pages become clean once more. */
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/fault.h"
#include "daemon/offload.h"
#include "daemon/revive.h"
#include "failing_alloc.h"
#include "rig.h"

#define PAGES    8ull
#define QUERY_MS 1500u           /* longer than a look waits for memory by itself */

static struct rig *rig;
static struct space *s;
static char *mapped;
static bool known;

static void revived(struct space *space) { known = true; }

/* Without events: this process would wait for itself. */
static int made_uffd(void)
{
	static const struct uffd_caps caps = { .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	assert_true(fd >= 0);
	assert_int_equal(uffd_accept(fd, &caps, false), 0);
	return fd;
}

static int serve(const char *p)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = PAGES * PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	return ioctl(s->uffd, UFFDIO_REGISTER, &reg);
}

static int begin(void **state)
{
	struct stat st;

	assert_int_equal(offload_start(), 0);
	rig = rig_new(256 * PAGE, 1000);
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	rig->f->memfd_dev = st.st_dev;
	rig->f->memfd_ino = st.st_ino;
	mapped = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->f->memfd, 0);
	assert_ptr_not_equal(mapped, MAP_FAILED);
	assert_int_equal(space_new(&s, rig->f, made_uffd()), 0);
	assert_int_equal(serve(mapped), 0);
	s->writable = s->has_handle = true;
	s->pid = getpid();
	s->revived = revived;
	known = false;
	revive_space(s);
	return 0;
}

static int end(void **state)
{
	fail_alloc = false;
	fault_unwatch(s);
	for (unsigned i = 0; i < 500 && rig->w.live > 0; i++)
		rig_run(rig, NULL, 10);
	assert_int_equal(rig->w.live, 0);
	munmap(mapped, PAGES * PAGE);
	offload_stop(&rig->w.ring);
	rig_free(rig);
	return 0;
}

static void what_is_mapped_is_learned(void **state)
{
	struct range seg;
	uint64_t off;
	bool shared;

	fault_watch(s);
	revive_ask(s);
	rig_run(rig, &known, 0);
	assert_false(s->blind);
	assert_int_equal(space_find(s, (uint64_t)(uintptr_t)mapped, &seg, &off, &shared), 0);
	assert_int_equal(seg.end - seg.start, PAGES * PAGE);
	assert_true(shared);
}

static void without_memory_it_is_asked_again(void **state)
{
	fail_alloc = true;
	fault_watch(s);
	revive_ask(s);
	rig_run(rig, NULL, QUERY_MS);
	assert_false(known);
	assert_true(s->restoring);
	assert_false(s->blind);
	fail_alloc = false;
	rig_run(rig, &known, 0);
	assert_false(s->blind);
	assert_int_equal(s->maps.map.n, 1);
	assert_int_equal(frame_refs_at(&rig->f->refs, 0, NULL), 1);
}

/* What the first try has learned is no other mapping in the second one. */
static void what_is_known_is_not_learned_twice(void **state)
{
	uint64_t half = PAGES / 2 * PAGE;

	munmap(mapped + half, half);
	assert_int_equal(space_map(s, (uint64_t)(uintptr_t)mapped, half, 0, true), 0);
	fault_watch(s);
	revive_ask(s);
	rig_run(rig, &known, 0);
	assert_int_equal(s->maps.map.n, 1);
	assert_int_equal(s->n_expect, 0);
	assert_int_equal(frame_refs_at(&rig->f->refs, 0, NULL), 1);
}

/* Its client is about to have another userfaultfd serve it, or to unmap it; or that mapping is gone already, and what is there is another's. */
static void what_nobody_serves_is_left_alone(void **state)
{
	char *other = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->f->memfd, 0);
	struct uffdio_register reg = { .range = { .start = (uintptr_t)other, .len = PAGES * PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	int another = made_uffd();

	assert_ptr_not_equal(other, MAP_FAILED);
	fault_watch(s);
	revive_ask(s);
	rig_run(rig, &known, 0);
	assert_int_equal(s->maps.map.n, 1);
	assert_int_equal(ioctl(another, UFFDIO_REGISTER, &reg), 0);
	close(another);
	munmap(other, PAGES * PAGE);
}

/* Its end does not wait for memory either. */
static void a_space_ends_while_it_waits_for_memory(void **state)
{
	fail_alloc = true;
	fault_watch(s);
	revive_ask(s);
	rig_run(rig, NULL, QUERY_MS);
	assert_false(known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_mapped_is_learned, begin, end),
		cmocka_unit_test_setup_teardown(without_memory_it_is_asked_again, begin, end),
		cmocka_unit_test_setup_teardown(what_is_known_is_not_learned_twice, begin, end),
		cmocka_unit_test_setup_teardown(what_nobody_serves_is_left_alone, begin, end),
		cmocka_unit_test_setup_teardown(a_space_ends_while_it_waits_for_memory, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Whom a device's permissions name; and whose a mapping is. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/uffd.h"
#include "daemon/util/util.h"

static int device;
static uid_t owner;
static gid_t group;

static int begin(void **state)
{
	char path[] = "/tmp/pagecached-device-XXXXXX";
	struct stat st;

	device = mkostemp(path, O_CLOEXEC);
	assert_true(device >= 0);
	assert_int_equal(unlink(path), 0);
	if (geteuid() == 0)
		assert_int_equal(fchown(device, 1234, 5678), 0);
	assert_int_equal(fstat(device, &st), 0);
	owner = st.st_uid;
	group = st.st_gid;
	return 0;
}

static int end(void **state)
{
	close(device);
	return 0;
}

static bool is_for(mode_t mode, uid_t uid, gid_t gid, gid_t other)
{
	assert_int_equal(fchmod(device, mode), 0);
	return uffd_device_is_for(device, uid, gid, &other, 1);
}

static void root_may(void **state)
{
	assert_true(is_for(0, 0, group + 1, group + 1));
}

static void members_of_its_group_may_where_it_may_be_read_and_written(void **state)
{
	assert_true(is_for(0660, owner + 1, group, group + 1));
	assert_true(is_for(0660, owner + 1, group + 1, group));
	assert_false(is_for(0640, owner + 1, group, group));
	assert_false(is_for(0606, owner + 1, group, group));
}

static void others_may_not_unless_all_may(void **state)
{
	assert_false(is_for(0660, owner + 1, group + 1, group + 2));
	assert_false(is_for(0664, owner + 1, group + 1, group + 2));
	assert_true(is_for(0666, owner + 1, group + 1, group + 2));
}

static void its_owner_goes_by_the_owners_permissions(void **state)
{
	assert_true(is_for(0600, owner ? owner : 1, group + 1, group + 1) || owner == 0);
	assert_true(owner == 0 || !is_for(0066, owner, group, group));
}

static void what_is_no_file_is_for_nobody(void **state) { assert_false(uffd_device_is_for(-1, 0, 0, NULL, 0)); }

static int made_uffd(void)
{
	static const struct uffd_caps caps = { .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	assert_true(fd >= 0);
	assert_int_equal(uffd_accept(fd, &caps, false), 0);
	return fd;
}

/* To ask changes nothing: neither whose it is nor what is in it. */
static void only_what_serves_a_mapping_says_so(int flags, uint64_t mode)
{
	int one = made_uffd(), other = made_uffd(), memfd = memfd_create("mapped", MFD_CLOEXEC);
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | mode };
	struct stat st;
	char *p;

	assert_int_equal(ftruncate(memfd, 2 * PAGE_SIZE_), 0);
	p = mmap(NULL, 2 * PAGE_SIZE_, PROT_READ | PROT_WRITE, flags, memfd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_false(uffd_serves(one, (uintptr_t)p));
	assert_false(uffd_serves(other, (uintptr_t)p));

	reg.range = (struct uffdio_range){ .start = (uintptr_t)p, .len = 2 * PAGE_SIZE_ };
	assert_int_equal(ioctl(other, UFFDIO_REGISTER, &reg), 0);
	assert_false(uffd_serves(one, (uintptr_t)p));
	assert_true(uffd_serves(other, (uintptr_t)p));
	assert_true(uffd_serves(other, (uintptr_t)p + PAGE_SIZE_));
	assert_int_equal(fstat(memfd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	munmap(p, 2 * PAGE_SIZE_);
	assert_false(uffd_serves(other, (uintptr_t)p));
	close(memfd);
	close(other);
	close(one);
}

static void only_what_serves_a_shared_mapping_says_so(void **state) { only_what_serves_a_mapping_says_so(MAP_SHARED, UFFDIO_REGISTER_MODE_WP); }
static void only_what_serves_a_private_mapping_says_so(void **state) { only_what_serves_a_mapping_says_so(MAP_PRIVATE, 0); }

static void a_mark_is_the_descriptions_and_nothing_else_gets_one(void **state)
{
	int fd = made_uffd(), second = dup(fd);

	assert_false(fcntl(second, F_GETFL) & O_APPEND);
	uffd_set_seen(fd);
	assert_true(fcntl(second, F_GETFL) & O_APPEND);
	assert_true(fcntl(second, F_GETFL) & O_NONBLOCK);
	uffd_set_seen(device);
	assert_false(fcntl(device, F_GETFL) & O_APPEND);
	close(second);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(root_may, begin, end),
		cmocka_unit_test_setup_teardown(members_of_its_group_may_where_it_may_be_read_and_written, begin, end),
		cmocka_unit_test_setup_teardown(others_may_not_unless_all_may, begin, end),
		cmocka_unit_test_setup_teardown(its_owner_goes_by_the_owners_permissions, begin, end),
		cmocka_unit_test(what_is_no_file_is_for_nobody),
		cmocka_unit_test(only_what_serves_a_shared_mapping_says_so),
		cmocka_unit_test(only_what_serves_a_private_mapping_says_so),
		cmocka_unit_test_setup_teardown(a_mark_is_the_descriptions_and_nothing_else_gets_one, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

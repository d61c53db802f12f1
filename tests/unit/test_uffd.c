/* SPDX-License-Identifier: Apache-2.0 */
/* Whom a device's permissions name. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/uffd.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(root_may, begin, end),
		cmocka_unit_test_setup_teardown(members_of_its_group_may_where_it_may_be_read_and_written, begin, end),
		cmocka_unit_test_setup_teardown(others_may_not_unless_all_may, begin, end),
		cmocka_unit_test_setup_teardown(its_owner_goes_by_the_owners_permissions, begin, end),
		cmocka_unit_test(what_is_no_file_is_for_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

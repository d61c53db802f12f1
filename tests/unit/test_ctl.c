/* SPDX-License-Identifier: Apache-2.0 */
/* What pagecachectl does without a daemon: ranges on its command line, and the paths of cgroups. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/util/util.h"
#include "tools/ctl_cgroup.h"
#include "tools/ctl_range.h"

/* --- ranges --- */

static void assert_range(const char *s, uint64_t off, uint64_t len)
{
	uint64_t o = 1, l = 1;

	assert_int_equal(ctl_parse_range(s, &o, &l), 0);
	assert_int_equal(o, off);
	assert_int_equal(l, len);
}

static void offset_alone_reaches_to_the_end(void **state)
{
	assert_range("0", 0, 0);
	assert_range("4096", 4096, 0);
	assert_range("2M", 2 << 20, 0);
	assert_range("2M-", 2 << 20, 0);
}

static void range_with_an_end_has_the_length_between(void **state)
{
	assert_range("0-1", 0, 1);
	assert_range("1M-2m", 1 << 20, 1 << 20);
	assert_range("4K-1G", 4096, (1 << 30) - 4096);
}

static void range_with_a_length_has_it(void **state)
{
	assert_range("1M+64K", 1 << 20, 64 << 10);
	assert_range("0+9223372036854775807", 0, INT64_MAX);
}

static void range_that_is_none_is_invalid(void **state)
{
	static const char *const bad[] = { "", "-", "+", "-5", "x", "1X", "1-2-3", "1+2+3", "1+", "1 -2", "1- 2", "1-+2", "2-1", "1-1", "1+0", "0x1" };
	uint64_t off = 42, len = 42;

	for (size_t i = 0; i < ELEMENTSOF(bad); i++)
		assert_int_equal(ctl_parse_range(bad[i], &off, &len), -EINVAL);
	assert_int_equal(off, 42);
	assert_int_equal(len, 42);
}

static void range_that_no_file_reaches_is_out_of_range(void **state)
{
	static const char *const bad[] = { "99999999999999999999", "9223372036854775808", "16777216T", "1+9223372036854775807", "0-9223372036854775808" };
	uint64_t off, len;

	for (size_t i = 0; i < ELEMENTSOF(bad); i++)
		assert_int_equal(ctl_parse_range(bad[i], &off, &len), -ERANGE);
}

/* --- cgroups --- */

struct fixture {
	char dir[64];
	char mountinfo[96];
};

static const char *const folders[] = { "memory", "memory/a", "memory/a/b", "unified", "unified/c", "elsewhere", "elsewhere/d" };

static char *path_of(const struct fixture *f, const char *name)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return path;
}

static uint64_t id_of(const struct fixture *f, const char *name)
{
	struct stat st;

	assert_int_equal(stat(path_of(f, name), &st), 0);
	return st.st_ino;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	FILE *m;

	assert_non_null(f);
	strcpy(f->dir, "/tmp/pagecached-test-ctl-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	for (size_t i = 0; i < ELEMENTSOF(folders); i++)
		assert_int_equal(mkdir(path_of(f, folders[i]), 0700), 0);
	snprintf(f->mountinfo, sizeof(f->mountinfo), "%s/mountinfo", f->dir);
	m = fopen(f->mountinfo, "we");
	assert_non_null(m);
	/* Another controller's hierarchy, whose folder must not be looked into; version 2 before version 1. */
	fprintf(m, "20 1 0:20 / %s/elsewhere rw shared:5 - cgroup cgroup rw,cpu,memory_recursiveprot\n", f->dir);
	fprintf(m, "21 1 0:21 / %s/unified rw - cgroup2 cgroup2 rw\n", f->dir);
	fprintf(m, "22 1 0:22 / %s/memory rw shared:7 master:1 - cgroup cgroup rw,hugetlb,memory\nnonsense\n", f->dir);
	assert_int_equal(fclose(m), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->mountinfo);
	for (size_t i = ELEMENTSOF(folders); i-- > 0;)
		assert_int_equal(rmdir(path_of(f, folders[i])), 0);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static void assert_path(const struct fixture *f, uint64_t id, const char *path)
{
	struct ctl_cgroup c = { .id = id };

	ctl_cgroup_find(&c, 1, f->mountinfo);
	if (path)
		assert_string_equal(c.path, path);
	else
		assert_null(c.path);
	free(c.path);
}

static void cgroup_is_found_by_its_number(void **state)
{
	struct fixture *f = *state;

	assert_path(f, id_of(f, "memory/a"), "/a");
	assert_path(f, id_of(f, "memory/a/b"), "/a/b");
	assert_path(f, id_of(f, "memory"), "/");
}

static void cgroup_of_version_2_is_found(void **state)
{
	struct fixture *f = *state;

	assert_path(f, id_of(f, "unified/c"), "/c");
}

static void folder_of_another_hierarchy_is_not_taken_for_one(void **state)
{
	struct fixture *f = *state;

	assert_path(f, id_of(f, "elsewhere/d"), NULL);
}

static void several_are_found_in_one_go(void **state)
{
	struct fixture *f = *state;
	struct ctl_cgroup c[] = { { .id = id_of(f, "unified/c") }, { .id = 1ull << 60 }, { .id = id_of(f, "memory/a/b") } };

	ctl_cgroup_find(c, ELEMENTSOF(c), f->mountinfo);
	assert_string_equal(c[0].path, "/c");
	assert_null(c[1].path);
	assert_string_equal(c[2].path, "/a/b");
	free(c[0].path);
	free(c[2].path);
}

static void without_mountinfo_nothing_is_found(void **state)
{
	struct fixture *f = *state;
	struct ctl_cgroup c = { .id = id_of(f, "memory/a") };

	ctl_cgroup_find(&c, 1, "/nonexistent/mountinfo");
	assert_null(c.path);
}

#define T(f) cmocka_unit_test(f)
#define C(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(offset_alone_reaches_to_the_end),
		T(range_with_an_end_has_the_length_between),
		T(range_with_a_length_has_it),
		T(range_that_is_none_is_invalid),
		T(range_that_no_file_reaches_is_out_of_range),
		C(cgroup_is_found_by_its_number),
		C(cgroup_of_version_2_is_found),
		C(folder_of_another_hierarchy_is_not_taken_for_one),
		C(several_are_found_in_one_go),
		C(without_mountinfo_nothing_is_found),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}

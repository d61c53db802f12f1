/* SPDX-License-Identifier: Apache-2.0 */
/* Memory cgroups: whose is whose, in faked and in real trees, and the table of those that are charged. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/cgroup.h"
#include "daemon/util/util.h"

/* A folder with proc/ID/cgroup, a mountinfo, and trees that stand for cgroup file systems. */
static char base[64];

static void join(char *out, const char *a, const char *b)
{
	assert_true(snprintf(out, PATH_MAX, "%s/%s", a, b) < PATH_MAX);
}

static void make_folder(const char *name)
{
	char path[PATH_MAX];

	join(path, base, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void write_file(const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	join(path, base, name);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static uint64_t inode_of(const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	join(path, base, name);
	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

static int setup(void **state)
{
	strcpy(base, "/tmp/pgc-cgroup-XXXXXX");
	assert_non_null(mkdtemp(base));
	make_folder("proc");
	make_folder("proc/7");
	make_folder("memory");
	make_folder("memory/web");
	make_folder("memory/web/one");
	make_folder("two");
	make_folder("two/web");
	make_folder("with space");
	make_folder("with space/web");
	return 0;
}

static int teardown(void **state)
{
	static const char *const made[] = { "proc/7/cgroup", "mountinfo", "proc/7", "proc", "memory/web/one", "memory/web", "memory",
					    "two/web", "two", "with space/web", "with space", "" };

	cgroup_exit();
	for (size_t i = 0; i < ELEMENTSOF(made); i++) {
		char path[PATH_MAX];

		join(path, base, made[i]);
		(void)remove(path);
	}
	return access(base, F_OK) == 0 ? -1 : 0;
}

/* `mounts` with %s for the base folder, at most three times. */
static int init(const char *mounts)
{
	char text[1024], proc[PATH_MAX], mountinfo[PATH_MAX];

	assert_true(snprintf(text, sizeof(text), mounts, base, base, base) < (int)sizeof(text));
	write_file("mountinfo", text);
	join(proc, base, "proc");
	join(mountinfo, base, "mountinfo");
	return cgroup_init(proc, mountinfo);
}

#define MOUNT_OTHER "20 1 8:1 / / rw,relatime - ext4 /dev/root rw\n" \
		    "26 25 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" \
		    "garbage\n\n"
#define MOUNT_V1    "30 25 0:26 / %s/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
#define MOUNT_V2    "31 25 0:27 / %s/two rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"

static void version_1_memory_hierarchy_is_preferred_in_a_hybrid_tree(void **state)
{
	uint64_t id;

	assert_int_equal(init(MOUNT_OTHER MOUNT_V2 MOUNT_V1), 0);
	write_file("proc/7/cgroup", "4:cpu,cpuacct:/elsewhere\n3:hugetlb,memory:/web/one\n0::/web\n");
	assert_int_equal(cgroup_of_pid(7, &id), 0);
	assert_true(id == inode_of("memory/web/one"));
}

static void version_2_is_used_where_it_has_the_memory_controller(void **state)
{
	uint64_t id;

	assert_int_equal(init(MOUNT_OTHER MOUNT_V2), 0);
	write_file("proc/7/cgroup", "3:memory:/web/one\n0::/web\n");
	assert_int_equal(cgroup_of_pid(7, &id), 0);
	assert_true(id == inode_of("two/web"));
	write_file("proc/7/cgroup", "0::/\n");
	assert_int_equal(cgroup_of_pid(7, &id), 0);
	assert_true(id == inode_of("two"));
}

static void mount_of_a_part_of_the_hierarchy_takes_its_root_off(void **state)
{
	uint64_t id = 1;

	assert_int_equal(init("31 25 0:27 /box %s/memory rw - cgroup2 cgroup2 rw\n"), 0);
	write_file("proc/7/cgroup", "0::/box/web\n");
	assert_int_equal(cgroup_of_pid(7, &id), 0);
	assert_true(id == inode_of("memory/web"));
	write_file("proc/7/cgroup", "0::/box\n");
	assert_int_equal(cgroup_of_pid(7, &id), 0);
	assert_true(id == inode_of("memory"));
	write_file("proc/7/cgroup", "0::/boxer/web\n");
	assert_int_equal(cgroup_of_pid(7, &id), -ENOENT);
}

static void cgroup_outside_the_namespace_is_not_found(void **state)
{
	uint64_t id = 1;

	assert_int_equal(init(MOUNT_V2), 0);
	write_file("proc/7/cgroup", "0::/../two\n");
	assert_int_equal(cgroup_of_pid(7, &id), -ENOENT);
	assert_true(id == 1);
}

static void mount_point_with_a_space_is_unescaped(void **state)
{
	uint64_t id;

	assert_int_equal(init("31 25 0:27 / %s/with\\040space rw - cgroup2 cgroup2 rw\n"), 0);
	write_file("proc/7/cgroup", "0::/web\n");
	assert_int_equal(cgroup_of_pid(7, &id), 0);
	assert_true(id == inode_of("with space/web"));
}

static void no_process_no_line_no_folder_are_told_apart(void **state)
{
	uint64_t id;

	assert_int_equal(init(MOUNT_V1), 0);
	assert_int_equal(cgroup_of_pid(8, &id), -ESRCH);
	assert_int_equal(cgroup_of_pid(0, &id), -EINVAL);
	write_file("proc/7/cgroup", "0::/web\nnonsense\n");
	assert_int_equal(cgroup_of_pid(7, &id), -ENOENT);
	write_file("proc/7/cgroup", "3:memory:/gone (deleted)\n");
	assert_int_equal(cgroup_of_pid(7, &id), -ENOENT);
}

static void without_a_cgroup_mount_nothing_is_found(void **state)
{
	uint64_t id;

	assert_int_equal(init(MOUNT_OTHER), -ENOENT);
	write_file("proc/7/cgroup", "3:memory:/web\n0::/web\n");
	assert_int_equal(cgroup_of_pid(7, &id), -ENOENT);
	assert_int_equal(cgroup_init("/proc", "/nonexistent/mountinfo"), -ENOENT);
}

/* The kernel's own idea of a cgroup's id: the file handle of its folder. */
static uint64_t kernel_cgroup_id(const char *folder)
{
	struct { struct file_handle h; unsigned char space[MAX_HANDLE_SZ]; } handle = { .h.handle_bytes = MAX_HANDLE_SZ };
	uint64_t id;
	int mount_id;

	if (name_to_handle_at(AT_FDCWD, folder, &handle.h, &mount_id, 0) < 0 || handle.h.handle_bytes != sizeof(id))
		return 0;
	memcpy(&id, handle.h.f_handle, sizeof(id));
	return id;
}

static void real_process_in_a_real_memory_cgroup(void **state)
{
	static const char *const trees[] = { "/sys/fs/cgroup/memory", "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	char folder[64], procs[96], text[16];
	uint64_t id = 0, want;
	bool moved = false;
	int go[2], status;
	pid_t pid;

	assert_int_equal(cgroup_init("/proc", "/proc/self/mountinfo"), 0);
	assert_int_equal(pipe(go), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char c;

		close(go[1]);
		_exit(read(go[0], &c, 1) == 0 ? 0 : 1);
	}
	close(go[0]);
	for (size_t i = 0; i < ELEMENTSOF(trees) && !moved; i++) {
		int fd;

		(void)snprintf(folder, sizeof(folder), "%s/pgc-test-%d", trees[i], (int)getpid());
		if (mkdir(folder, 0755) < 0)
			continue;
		(void)snprintf(procs, sizeof(procs), "%s/cgroup.procs", folder);
		(void)snprintf(text, sizeof(text), "%d", (int)pid);
		fd = open(procs, O_WRONLY | O_CLOEXEC);
		moved = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
		if (fd >= 0)
			close(fd);
		if (!moved)
			(void)rmdir(folder);
	}
	want = moved ? kernel_cgroup_id(folder) : 0;
	if (moved)
		status = cgroup_of_pid(pid, &id);
	else
		status = cgroup_of_pid(pid, &id) == 0 && id != 0 ? 0 : -1;
	close(go[1]);
	assert_true(waitpid(pid, NULL, 0) == pid);
	if (moved)
		assert_int_equal(rmdir(folder), 0);
	else if (geteuid() == 0 && getenv("PGC_REQUIRE_KERNEL"))
		fail_msg("no cgroup could be made");
	assert_int_equal(status, 0);
	if (want)
		assert_true(id == want);
	assert_int_equal(cgroup_of_pid(pid, &id), -ESRCH);
}

/* The table. */

#define N 4

static void table_gives_one_slot_to_an_id_and_frees_it_after_the_last_handle(void **state)
{
	struct pgc_cgroup_entry e[N] = { 0 };
	struct cgroup_table t;
	uint32_t a, b;

	cgroup_table_init(&t, e, N);
	a = cgroup_table_take(&t, 100);
	b = cgroup_table_take(&t, 200);
	assert_true(a != 0 && b != 0 && a != b);
	assert_int_equal(cgroup_table_take(&t, 100), a);
	assert_int_equal(e[a].handles, 2);
	assert_true(cgroup_table_id(&t, b) == 200);
	cgroup_table_put(&t, a);
	assert_true(e[a].id == 100);
	cgroup_table_put(&t, a);
	assert_true(e[a].id == 0);
	assert_int_equal(cgroup_table_find(&t, 100), 0);
	assert_int_equal(cgroup_table_find(&t, 200), b);
}

static void pages_keep_an_entry_until_a_later_take(void **state)
{
	for (int which = 0; which < 3; which++) {
		struct pgc_cgroup_entry e[2] = { 0 };
		struct cgroup_table t;
		int64_t n[3] = { 0 };

		cgroup_table_init(&t, e, ELEMENTSOF(e));
		assert_int_equal(cgroup_table_take(&t, 100), 1);
		n[which] = 5;
		cgroup_table_add(&t, 1, n[0], n[1], n[2]);
		cgroup_table_put(&t, 1);
		assert_true(e[1].id == 100);
		assert_int_equal(cgroup_table_take(&t, 200), 0);   /* full: the catch-all */
		cgroup_table_add(&t, 1, -n[0], -n[1], -n[2]);
		assert_int_equal(cgroup_table_take(&t, 200), 1);   /* the old one is collected */
		assert_true(e[1].id == 200);
		assert_int_equal(e[1].handles, 1);
	}
}

static void entry_with_pages_is_found_again_by_its_cgroup(void **state)
{
	struct pgc_cgroup_entry e[N] = { 0 };
	struct cgroup_table t;
	uint32_t slot;

	cgroup_table_init(&t, e, N);
	(void)cgroup_table_take(&t, 100);
	slot = cgroup_table_take(&t, 200);
	cgroup_table_add(&t, slot, 0, 64, 0);
	cgroup_table_put(&t, slot);
	assert_int_equal(cgroup_table_take(&t, 200), slot);
	assert_true(e[slot].resident == 64);
}

static void full_table_and_unknown_cgroups_share_the_catch_all(void **state)
{
	struct pgc_cgroup_entry e[N] = { 0 };
	struct cgroup_table t;

	cgroup_table_init(&t, e, N);
	for (uint64_t id = 1; id < N; id++)
		assert_int_equal(cgroup_table_take(&t, id), id);
	assert_int_equal(cgroup_table_take(&t, 50), 0);
	assert_int_equal(cgroup_table_take(&t, 0), 0);
	assert_int_equal(cgroup_table_take(&t, CGROUP_OTHER), 0);
	assert_int_equal(e[0].handles, 3);
	assert_true(cgroup_table_id(&t, 0) == CGROUP_OTHER);
	assert_int_equal(cgroup_table_find(&t, CGROUP_OTHER), 0);
	for (int i = 0; i < 3; i++)
		cgroup_table_put(&t, 0);
	assert_true(e[0].id == 0);
}

static void counters_go_up_and_down_by_what_is_added(void **state)
{
	struct pgc_cgroup_entry e[N] = { 0 };
	struct cgroup_table t;
	uint32_t slot;

	cgroup_table_init(&t, e, N);
	slot = cgroup_table_take(&t, 9);
	cgroup_table_add(&t, slot, 10, 20, 30);
	cgroup_table_add(&t, slot, -4, -5, -30);
	assert_true(e[slot].mapped == 6 && e[slot].resident == 15 && e[slot].dirty == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(version_1_memory_hierarchy_is_preferred_in_a_hybrid_tree, setup, teardown),
		cmocka_unit_test_setup_teardown(version_2_is_used_where_it_has_the_memory_controller, setup, teardown),
		cmocka_unit_test_setup_teardown(mount_of_a_part_of_the_hierarchy_takes_its_root_off, setup, teardown),
		cmocka_unit_test_setup_teardown(cgroup_outside_the_namespace_is_not_found, setup, teardown),
		cmocka_unit_test_setup_teardown(mount_point_with_a_space_is_unescaped, setup, teardown),
		cmocka_unit_test_setup_teardown(no_process_no_line_no_folder_are_told_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_cgroup_mount_nothing_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(real_process_in_a_real_memory_cgroup, NULL, NULL),
		cmocka_unit_test(table_gives_one_slot_to_an_id_and_frees_it_after_the_last_handle),
		cmocka_unit_test(pages_keep_an_entry_until_a_later_take),
		cmocka_unit_test(entry_with_pages_is_found_again_by_its_cgroup),
		cmocka_unit_test(full_table_and_unknown_cgroups_share_the_catch_all),
		cmocka_unit_test(counters_go_up_and_down_by_what_is_added),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* daemon/warm_dir.c: records in a folder that is bounded, may be missing, and may hold anything. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/log.h"
#include "daemon/util/util.h"
#include "daemon/warm_dir.h"

struct fixture {
	char base[64], path[96];
	struct warm_dir d;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_init(LOG_LEVEL_ERROR);
	strcpy(f->base, "/tmp/test-warm-dir-XXXXXX");
	if (!mkdtemp(f->base))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/state", f->base);
	warm_dir_init(&f->d, f->path);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) { return remove(path); }

static int teardown(void **state)
{
	struct fixture *f = *state;

	nftw(f->base, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct warm_record record_of(uint64_t ino)
{
	struct warm_record r;

	warm_record_init(&r);
	r.dev = 1;
	r.ino = ino;
	r.size = 100 * PGC_BLOCK_SIZE;
	return r;
}

static int write_one(struct fixture *f, uint64_t ino, uint64_t pages)
{
	struct warm_record r = record_of(ino);
	int e;

	assert_int_equal(warm_record_add(&r, 7, pages), 0);
	e = warm_dir_write(&f->d, &r);
	warm_record_free(&r);
	return e;
}

/* The hot pages of the file's block 7, or a negative errno. */
static int64_t read_one(struct fixture *f, uint64_t ino)
{
	struct warm_record now = record_of(ino), r;
	int64_t e = warm_dir_read(&f->d, &now, &r);

	if (e == 0) {
		e = (int64_t)r.runs[0].pages;
		warm_record_free(&r);
	}
	return e;
}

/* How many records there are; the last one's path. */
static unsigned count(struct fixture *f, char ret_path[400])
{
	DIR *dir = opendir(f->path);
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir))) {
		size_t len = strlen(e->d_name);

		if (len < 5 || strcmp(e->d_name + len - 5, ".warm") != 0)
			continue;
		n++;
		if (ret_path)
			snprintf(ret_path, 400, "%s/%s", f->path, e->d_name);
	}
	closedir(dir);
	return n;
}

static void test_record_comes_back(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(write_one(f, 1, 5), 0);
	assert_int_equal(write_one(f, 2, 6), 0);
	assert_int_equal(read_one(f, 1), 5);
	assert_int_equal(read_one(f, 2), 6);
	assert_int_equal(read_one(f, 3), -ENOENT);
}

static void test_new_record_replaces_the_old(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(write_one(f, 1, 5), 0);
	assert_int_equal(write_one(f, 1, 9), 0);
	assert_int_equal(read_one(f, 1), 9);
	assert_int_equal(count(f, NULL), 1);
	assert_int_equal(f->d.records, 1);
	assert_int_equal(f->d.bytes, 88 + PGC_NAME_MAX + 24 + 8);
}

static void test_missing_folder_is_no_record(void **state)
{
	assert_int_equal(read_one(*state, 1), -ENOENT);
}

static void test_folder_is_made_with_its_parents_for_its_owner_only(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	snprintf(f->path, sizeof(f->path), "%s/a/b/state", f->base);
	assert_int_equal(write_one(f, 1, 5), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(read_one(f, 1), 5);
}

static void test_folder_that_cannot_be_made_is_an_error(void **state)
{
	struct fixture *f = *state;
	int fd;

	snprintf(f->path, sizeof(f->path), "%s/file", f->base);
	fd = open(f->path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(write_one(f, 1, 5), -ENOTDIR);
	assert_int_equal(read_one(f, 1), -ENOTDIR);
	assert_true(f->d.failed);
}

static void test_folder_that_works_again_is_used_again(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(write_one(f, 1, 5), -ENOTDIR);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(write_one(f, 1, 5), 0);
	assert_false(f->d.failed);
	assert_int_equal(read_one(f, 1), 5);
}

static void test_broken_record_is_removed(void **state)
{
	struct fixture *f = *state;
	char name[400];

	assert_int_equal(write_one(f, 1, 5), 0);
	count(f, name);
	assert_int_equal(truncate(name, 50), 0);
	assert_int_equal(read_one(f, 1), -EBADMSG);
	assert_int_equal(count(f, NULL), 0);
	assert_int_equal(read_one(f, 1), -ENOENT);
}

static void test_huge_file_in_place_of_a_record_is_removed_unread(void **state)
{
	struct fixture *f = *state;
	char name[400];

	assert_int_equal(write_one(f, 1, 5), 0);
	count(f, name);
	assert_int_equal(truncate(name, 1ll << 40), 0);
	assert_int_equal(read_one(f, 1), -EBADMSG);
	assert_int_equal(count(f, NULL), 0);
}

static void test_fifo_in_place_of_a_record_does_not_block(void **state)
{
	struct fixture *f = *state;
	char name[400];

	assert_int_equal(write_one(f, 1, 5), 0);
	count(f, name);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(mkfifo(name, 0600), 0);
	assert_int_equal(read_one(f, 1), -EBADMSG);
}

static void test_record_of_another_state_is_removed(void **state)
{
	struct fixture *f = *state;
	struct warm_record now = record_of(1), r;

	assert_int_equal(write_one(f, 1, 5), 0);
	now.mtime.tv_sec++;
	assert_int_equal(warm_dir_read(&f->d, &now, &r), -EBADMSG);
	assert_int_equal(count(f, NULL), 0);
}

static void test_record_of_another_file_under_this_name_is_removed(void **state)
{
	struct fixture *f = *state;
	char aside[112], name[400];

	snprintf(aside, sizeof(aside), "%s/aside", f->path);
	assert_int_equal(write_one(f, 1, 5), 0);
	count(f, name);
	assert_int_equal(rename(name, aside), 0);
	assert_int_equal(write_one(f, 2, 6), 0);
	count(f, name);
	assert_int_equal(rename(aside, name), 0);
	assert_int_equal(read_one(f, 2), -EBADMSG);
	assert_int_equal(count(f, NULL), 0);
}

static void set_age(const char *name, time_t seconds)
{
	const struct timespec t[2] = { { .tv_sec = 1000000000 - seconds }, { .tv_sec = 1000000000 - seconds } };

	assert_int_equal(utimensat(AT_FDCWD, name, t, 0), 0);
}

static void test_oldest_records_go_when_there_are_too_many(void **state)
{
	struct fixture *f = *state;
	char name[400];

	f->d.max_records = 16;
	assert_int_equal(write_one(f, 100, 5), 0);
	count(f, name);
	set_age(name, 0); /* older than what is written now */
	for (uint64_t i = 0; i < 16; i++)
		assert_int_equal(write_one(f, i, 5), 0);
	assert_true(count(f, NULL) <= 16 && count(f, NULL) >= 14);
	assert_int_equal(read_one(f, 100), -ENOENT);
	assert_int_equal(read_one(f, 15), 5);
}

static void test_oldest_records_go_when_they_are_too_large(void **state)
{
	struct fixture *f = *state;

	f->d.max_bytes = 2048; /* eight of the smallest */
	for (uint64_t i = 0; i < 30; i++)
		assert_int_equal(write_one(f, i, 5), 0);
	assert_true(f->d.bytes <= 2048 && count(f, NULL) <= 8 && count(f, NULL) >= 6);
	assert_int_equal(read_one(f, 29), 5);
}

static void test_records_of_an_earlier_daemon_count(void **state)
{
	struct fixture *f = *state;

	for (uint64_t i = 0; i < 20; i++)
		assert_int_equal(write_one(f, i, 5), 0);
	warm_dir_init(&f->d, f->path);
	f->d.max_records = 8;
	assert_int_equal(write_one(f, 20, 5), 0);
	assert_true(count(f, NULL) <= 8);
}

static void test_other_files_in_the_folder_are_left_alone(void **state)
{
	struct fixture *f = *state;
	char name[400];
	int fd;

	assert_int_equal(write_one(f, 1, 5), 0);
	snprintf(name, sizeof(name), "%s/something.warm", f->path);
	fd = open(name, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	set_age(name, 1000);
	f->d.max_records = 2;
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(write_one(f, i, 5), 0);
	assert_int_equal(access(name, F_OK), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_record_comes_back),
		T(test_new_record_replaces_the_old),
		T(test_missing_folder_is_no_record),
		T(test_folder_is_made_with_its_parents_for_its_owner_only),
		T(test_folder_that_cannot_be_made_is_an_error),
		T(test_folder_that_works_again_is_used_again),
		T(test_broken_record_is_removed),
		T(test_huge_file_in_place_of_a_record_is_removed_unread),
		T(test_fifo_in_place_of_a_record_does_not_block),
		T(test_record_of_another_state_is_removed),
		T(test_record_of_another_file_under_this_name_is_removed),
		T(test_oldest_records_go_when_there_are_too_many),
		T(test_oldest_records_go_when_they_are_too_large),
		T(test_records_of_an_earlier_daemon_count),
		T(test_other_files_in_the_folder_are_left_alone),
	};

	return cmocka_run_group_tests_name("warm_dir", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns of the preload library, and the lexical form of paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libclient/preload/paths_match.h"

static bool match(const char *globs, const char *path)
{
	struct path_patterns p = { 0 };
	bool r;

	assert_int_equal(path_patterns_add(&p, globs, NULL), 0);
	r = path_patterns_match(&p, path, strlen(path));
	path_patterns_free(&p);
	return r;
}

static const char *append(const char *folder, const char *more)
{
	static char buf[PATH_SIZE];
	ssize_t n;

	strcpy(buf, folder);
	n = path_append(buf, strlen(buf), more);
	if (n < 0)
		return NULL;
	assert_int_equal(n, strlen(buf));
	return buf;
}

#define YES(globs, path) assert_true(match(globs, path))
#define NO(globs, path) assert_false(match(globs, path))

static void a_path_without_special_bytes_matches_itself_alone(void **state)
{
	YES("/a/b", "/a/b");
	NO("/a/b", "/a/bc");
	NO("/a/b", "/a/b/c");
	NO("/a/b", "/a");
	NO("/a/b", "/");
	YES("/", "/");
	NO("/", "/a");
}

static void a_star_stays_within_its_component(void **state)
{
	YES("/a/*", "/a/b");
	YES("/a/*", "/a/.hidden");
	NO("/a/*", "/a/b/c");
	NO("/a/*", "/a");
	YES("/a/*.db", "/a/x.db");
	YES("/a/*.db", "/a/.db");
	YES("/a/*.db", "/a/x.db.db");
	NO("/a/*.db", "/a/x.dbx");
	NO("/a/*.db", "/a/b/x.db");
	YES("/*/*/c", "/a/b/c");
	NO("/*/*/c", "/a/c");
	NO("/*/*/c", "/a/b/b/c");
	YES("/a*c*e", "/abcde");
	YES("/a*c*e", "/acce");
	NO("/a*c*e", "/abcdef");
	NO("/a*e", "/a/e");
	YES("/x*", "/x");
}

static void a_question_mark_is_one_byte_that_is_no_slash(void **state)
{
	YES("/a/?", "/a/b");
	NO("/a/?", "/a/bc");
	NO("/a/?", "/a");
	NO("/a?b", "/a/b");
	YES("/???", "/a.b");
}

static void two_stars_take_everything_below_a_folder(void **state)
{
	YES("/a/**", "/a/b");
	YES("/a/**", "/a/b/c/d");
	YES("/a/**", "/a/.b");
	NO("/a/**", "/a");
	NO("/a/**", "/ab");
	NO("/a/**", "/ab/c");
	YES("/**", "/x/y");
	YES("/**", "/x");
}

static void two_stars_as_a_component_stand_for_any_number_of_folders(void **state)
{
	YES("/a/**/x", "/a/x");
	YES("/a/**/x", "/a/b/x");
	YES("/a/**/x", "/a/b/c/x");
	NO("/a/**/x", "/a/bx");
	NO("/a/**/x", "/a/b/cx");
	NO("/a/**/x", "/a/x/b");
	YES("/**/x", "/x");
	YES("/**/x/**/y", "/a/x/b/y");
	YES("/**/x/**/y", "/x/y");
	NO("/**/x/**/y", "/xy");
	YES("/a/**/*.db", "/a/b/c/x.db");
	YES("/a/**/*.db", "/a/x.db");
	NO("/a/**/*.db", "/a/b.db/c");
	YES("/a/**/b*/c", "/a/b1/x/b2/c");
}

static void two_stars_inside_a_component_cross_slashes(void **state)
{
	YES("/a**z", "/az");
	YES("/a**z", "/a/b/z");
	YES("/a**.db", "/abc/x.db");
	NO("/a**z", "/a/b/zy");
	YES("/a/**.db", "/a/b/x.db");
	YES("/a/**.db", "/a/.db");
	YES("/a***z", "/a/z");
	YES("/a**b*c", "/a/b/x/bc");
	NO("/a**b*c", "/a/b/c");
}

static void a_set_is_one_byte_of_it(void **state)
{
	YES("/[abc]", "/b");
	NO("/[abc]", "/d");
	YES("/[a-c]x", "/bx");
	NO("/[a-c]x", "/dx");
	YES("/[!a-c]", "/d");
	NO("/[!a-c]", "/b");
	YES("/[^a]", "/b");
	YES("/[]]", "/]");
	YES("/[!]]", "/a");
	NO("/[!]]", "/]");
	YES("/[a-]", "/-");
	YES("/[-a]", "/-");
	YES("/[\\]a]", "/]");
	YES("/[\\]a]", "/a");
	YES("/*[0-9]", "/file7");
	YES("/[\x80-\xff]", "/\xe4");
}

static void a_set_never_is_a_slash(void **state)
{
	NO("/a[!b]c", "/a/c");
	NO("/a[.-0]c", "/a/c");
}

static void a_bracket_without_an_end_is_itself(void **state)
{
	YES("/a[b", "/a[b");
	NO("/a[b", "/ab");
	YES("/a[", "/a[");
	YES("/a[!", "/a[!");
	YES("/a[]", "/a[]");
	YES("/a[b/c]d", "/a[b/c]d");
}

static void a_backslash_takes_the_special_meaning(void **state)
{
	YES("/a\\*", "/a*");
	NO("/a\\*", "/ab");
	YES("/a\\?\\[\\\\", "/a?[\\");
	YES("/a\\", "/a\\");
	YES("/a\\:b", "/a:b");
	NO("/a\\:b", "/a");
}

static void patterns_are_separated_by_colons(void **state)
{
	YES("/a:/b", "/a");
	YES("/a:/b", "/b");
	NO("/a:/b", "/a:/b");
	YES("::/a::", "/a");
	NO("", "/a");
	NO(":", "/a");
}

static unsigned n_rejected;

static void rejected(const char *pattern)
{
	assert_string_equal(pattern, "relative/**");
	n_rejected++;
}

static void a_relative_pattern_is_rejected_and_the_others_stand(void **state)
{
	struct path_patterns p = { 0 };

	n_rejected = 0;
	assert_int_equal(path_patterns_add(&p, "/a:relative/**:/b", rejected), 0);
	assert_int_equal(n_rejected, 1);
	assert_int_equal(p.n, 2);
	path_patterns_free(&p);
}

static void a_pattern_is_normalised(void **state)
{
	YES("/a//b/./c/", "/a/b/c");
	YES("/a/../b/**", "/b/x");
	YES("/a/./**", "/a/x");
}

static void a_path_is_normalised_lexically(void **state)
{
	assert_string_equal(append("", "/"), "/");
	assert_string_equal(append("", ""), "/");
	assert_string_equal(append("", "//a///b/"), "/a/b");
	assert_string_equal(append("", "/a/./b/."), "/a/b");
	assert_string_equal(append("", "/a/b/../c"), "/a/c");
	assert_string_equal(append("", "/.."), "/");
	assert_string_equal(append("", "/../../a"), "/a");
	assert_string_equal(append("", "/a/.."), "/");
	assert_string_equal(append("", "/a/..b/.c/..."), "/a/..b/.c/...");
	assert_string_equal(append("/x/y", "z"), "/x/y/z");
	assert_string_equal(append("/x/y", "../z"), "/x/z");
	assert_string_equal(append("/x/y", "../../../z"), "/z");
	assert_string_equal(append("/x/y", "."), "/x/y");
	assert_string_equal(append("/x/y", "./a/"), "/x/y/a");
}

static void what_has_no_room_is_refused(void **state)
{
	char more[PATH_SIZE + 2];

	memset(more, 'a', sizeof(more));
	more[PATH_SIZE - 2] = '\0';
	assert_int_equal(strlen(append("", more)), PATH_SIZE - 1);
	more[PATH_SIZE - 2] = 'a';
	more[PATH_SIZE - 1] = '\0';
	assert_null(append("", more));
	assert_null(append("/x", more + 2));
}

static void a_look_tells_what_is_plain(void **state)
{
	static const struct { const char *path; bool plain, up; } cases[] = {
		{ "/", true, false },      { "/a/b", true, false },     { "/a/b/", false, false },  { "/a//b", false, false },
		{ "//", false, false },    { "/a/./b", false, false },  { "/a/..", false, true },   { "/..", false, true },
		{ "a/b", false, false },   { "../b", false, true },     { "./b", false, false },    { "a/../b", false, true },
		{ "", false, false },      { ".", false, false },       { "..", false, true },      { "/a.b", true, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct path_look look = path_look(cases[i].path);

		assert_int_equal(look.len, strlen(cases[i].path));
		assert_int_equal(look.plain, cases[i].plain);
		assert_int_equal(look.up, cases[i].up);
	}
}

/* Wherever in a longer path something stands that is not normalised. */
static void a_look_misses_nothing_at_any_place(void **state)
{
	static const char *const bits[] = { "//", "/./", "/../", "/.x", "/..x" };

	for (size_t len = 2; len < 40; len++)
		for (size_t at = 0; at < len; at++)
			for (size_t i = 0; i < 5; i++) {
				char *path = malloc(len + 5);
				bool bare;

				memset(path, 'a', len + 4);
				path[0] = '/';
				path[len] = '\0';
				assert_true(path_look(path).plain);
				memcpy(path + at, bits[i], strlen(bits[i]));
				path[len] = '\0';
				bare = strlen(path) > 1 && path[strlen(path) - 1] == '/';
				assert_int_equal(path_look(path).plain, !bare && !strstr(path, "//") && !strstr(path, "/."));
				assert_int_equal(path_look(path).up, path[0] == '.' || strstr(path, "/..") != NULL);
				free(path);
			}
}

static void a_look_ends_at_the_size_of_a_path(void **state)
{
	static char path[PATH_SIZE * 2];

	memset(path, 'a', sizeof(path) - 1);
	path[0] = '/';
	assert_int_equal(path_look(path).len, PATH_SIZE);
	path[PATH_SIZE - 1] = '\0';
	assert_int_equal(path_look(path).len, PATH_SIZE - 1);
}

static bool below(const char *globs, const char *folder)
{
	struct path_patterns p = { 0 };
	bool r;

	assert_int_equal(path_patterns_add(&p, globs, NULL), 0);
	r = path_patterns_may_match_below(&p, folder, strlen(folder));
	path_patterns_free(&p);
	return r;
}

static void a_folder_that_no_pattern_reaches_is_told(void **state)
{
	assert_true(below("/a/b/**", "/"));
	assert_true(below("/a/b/**", "/a"));
	assert_true(below("/a/b/**", "/a/b"));
	assert_true(below("/a/b/**", "/a/b/c"));
	assert_false(below("/a/b/**", "/a/bc"));
	assert_false(below("/a/b/**", "/x"));
	assert_true(below("/a/b", "/a"));
	assert_false(below("/a/b", "/a/b"));
	assert_false(below("/a/b", "/a/b/c"));
	assert_true(below("/ab*/c", "/abx"));
	assert_false(below("/ab*/c", "/a"));
	assert_true(below("/x:/y/*", "/y"));
}

/*
 * The same by all ways that there are, which is slow and plain. The pattern is valid and has no `\` and no set.
 */
static bool slow(const char *p, const char *s, bool start)
{
	if (!*p)
		return !*s;
	if (p[0] == '*' && p[1] == '*') {
		bool folders = start;

		while (*p == '*')
			p++;
		folders = folders && *p == '/';
		if (folders) {
			for (p++; !slow(p, s, true); s++) {
				while (*s && *s != '/')
					s++;
				if (!*s)
					return false;
			}
			return true;
		}
		for (; !slow(p, s, false); s++)
			if (!*s)
				return false;
		return true;
	}
	if (*p == '*') {
		for (; !slow(p + 1, s, false); s++)
			if (!*s || *s == '/')
				return false;
		return true;
	}
	if (!*s || (*p == '?' ? *s == '/' : *p != *s))
		return false;
	return slow(p + 1, s + 1, *p == '/');
}

static void going_back_finds_what_trying_everything_finds(void **state)
{
	static const char bytes[] = "ab/*?*";
	unsigned hits = 0;

	srandom(1);
	for (unsigned round = 0; round < 300000; round++) {
		char glob[12] = "/", path[12] = "/";
		size_t n = 1 + (size_t)random() % 9, m = 1 + (size_t)random() % 9;
		bool expect;

		for (size_t i = 1; i <= n; i++)
			do
				glob[i] = bytes[random() % 6];
			while (glob[i] == '/' && (glob[i - 1] == '/' || i == n));
		for (size_t i = 1; i <= m; i++)
			do
				path[i] = bytes[random() % 3];
			while (path[i] == '/' && (path[i - 1] == '/' || i == m));
		expect = slow(glob, path, false);
		hits += expect;
		if (match(glob, path) != expect)
			fail_msg("%s and %s: not %d", glob, path, expect);
	}
	assert_true(hits > 1000);
}

static void any_bytes_are_borne(void **state)
{
	srandom(2);
	for (unsigned round = 0; round < 200000; round++) {
		static const char bytes[] = "/*?[]!^-\\:a.\xff";
		char *glob = malloc(14), *path = malloc(14);
		size_t n = (size_t)random() % 13, m = (size_t)random() % 13;

		for (size_t i = 0; i < n; i++)
			glob[i] = bytes[random() % 13];
		for (size_t i = 0; i < m; i++)
			path[i] = bytes[random() % 13];
		glob[n] = path[m] = '\0';
		match(glob, path);
		below(glob, path);
		path_look(path);
		free(glob);
		free(path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_without_special_bytes_matches_itself_alone),
		cmocka_unit_test(a_star_stays_within_its_component),
		cmocka_unit_test(a_question_mark_is_one_byte_that_is_no_slash),
		cmocka_unit_test(two_stars_take_everything_below_a_folder),
		cmocka_unit_test(two_stars_as_a_component_stand_for_any_number_of_folders),
		cmocka_unit_test(two_stars_inside_a_component_cross_slashes),
		cmocka_unit_test(a_set_is_one_byte_of_it),
		cmocka_unit_test(a_set_never_is_a_slash),
		cmocka_unit_test(a_bracket_without_an_end_is_itself),
		cmocka_unit_test(a_backslash_takes_the_special_meaning),
		cmocka_unit_test(patterns_are_separated_by_colons),
		cmocka_unit_test(a_relative_pattern_is_rejected_and_the_others_stand),
		cmocka_unit_test(a_pattern_is_normalised),
		cmocka_unit_test(a_path_is_normalised_lexically),
		cmocka_unit_test(what_has_no_room_is_refused),
		cmocka_unit_test(a_look_tells_what_is_plain),
		cmocka_unit_test(a_look_misses_nothing_at_any_place),
		cmocka_unit_test(a_look_ends_at_the_size_of_a_path),
		cmocka_unit_test(a_folder_that_no_pattern_reaches_is_told),
		cmocka_unit_test(going_back_finds_what_trying_everything_finds),
		cmocka_unit_test(any_bytes_are_borne),
	};

	return cmocka_run_group_tests_name("paths", tests, NULL, NULL);
}

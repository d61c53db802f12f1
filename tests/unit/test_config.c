/* SPDX-License-Identifier: Apache-2.0 */
/* Settings: defaults, files, drop-ins, flags, and what the user is told about a mistake. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

#include "daemon/config.h"
#include "daemon/log.h"
#include "daemon/util/util.h"

struct fixture {
	char dir[64];              /* removed with all that write_file() made in it */
	char *made[8];
	unsigned n_made;
	struct config c;
	char *out, *err;           /* what load() printed */
	size_t out_size, err_size;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	strcpy(f->dir, "/tmp/pagecached-test-config-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	config_free(&f->c);
	free(f->out);
	free(f->err);
	while (f->n_made) {
		remove(f->made[--f->n_made]);
		free(f->made[f->n_made]);
	}
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static const char *path_of(struct fixture *f, const char *name)
{
	assert_in_range(f->n_made, 0, ELEMENTSOF(f->made) - 1);
	assert_true(asprintf(&f->made[f->n_made], "%s/%s", f->dir, name) > 0);
	return f->made[f->n_made++];
}

static const char *write_bytes(struct fixture *f, const char *name, const char *text, size_t n)
{
	const char *p = path_of(f, name);
	FILE *file = fopen(p, "we");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, n, file), n);
	assert_int_equal(fclose(file), 0);
	return p;
}

static const char *write_file(struct fixture *f, const char *name, const char *text)
{
	return write_bytes(f, name, text, strlen(text));
}

static void make_dir(struct fixture *f, const char *name)
{
	assert_int_equal(mkdir(path_of(f, name), 0700), 0);
}

/* The arguments after the program's name, up to NULL. */
static int load_args(struct fixture *f, const char **args)
{
	char *argv[32] = { (char *)"pagecached" };
	int argc = 1, r;
	FILE *out, *err;

	while (*args)
		argv[argc++] = (char *)*args++;
	config_free(&f->c);
	free(f->out);
	free(f->err);
	f->out = f->err = NULL;
	out = open_memstream(&f->out, &f->out_size);
	err = open_memstream(&f->err, &f->err_size);
	r = config_load(&f->c, argc, argv, out, err);
	fclose(out);
	fclose(err);
	return r;
}

/* Without the machine's own configuration file. */
#define load_flags(f, ...) load_args(f, (const char *[]){ "--config", "/dev/null", __VA_ARGS__, NULL })
#define load_file(f, path) load_args(f, (const char *[]){ "--config", path, NULL })

/* The file `text` is refused with exactly `expected`, in which %s stands for its path. */
static void assert_refused(struct fixture *f, const char *text, const char *expected)
{
	const char *path = write_file(f, "p.conf", text);
	char message[2 * PATH_MAX];
	const char *at = strstr(expected, "%s");

	assert_non_null(at);
	snprintf(message, sizeof(message), "%.*s%s%s\n", (int)(at - expected), expected, path, at + 2);
	assert_int_equal(load_file(f, path), -EINVAL);
	assert_string_equal(f->err, message);
}

static void assert_flag_refused(struct fixture *f, const char *flag, const char *value, const char *start)
{
	assert_int_equal(load_flags(f, flag, value), -EINVAL);
	assert_int_equal(strncmp(f->err, start, strlen(start)), 0);
}

/* ---- sizes and durations ---- */

static void size_has_suffixes(void **state)
{
	static const struct { const char *s; uint64_t v; } good[] = {
		{ "0", 0 }, { "4096", 4096 }, { "1K", 1024 }, { "64M", 64ull << 20 }, { "64m", 64ull << 20 }, { "2G", 2ull << 30 },
		{ "3T", 3ull << 40 }, { "18446744073709551615", UINT64_MAX },
	};
	uint64_t v;

	for (size_t i = 0; i < ELEMENTSOF(good); i++) {
		assert_int_equal(config_parse_size(good[i].s, 0, &v), 0);
		assert_int_equal(v, good[i].v);
	}
}

static void size_may_be_a_share(void **state)
{
	uint64_t v;

	assert_int_equal(config_parse_size("50%", 1000, &v), 0);
	assert_int_equal(v, 500);
	assert_int_equal(config_parse_size("100%", UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
}

static void size_share_above_the_whole_is_out_of_range(void **state)
{
	uint64_t v;

	assert_int_equal(config_parse_size("101%", 1000, &v), -ERANGE);
}

static void size_share_needs_a_whole(void **state)
{
	uint64_t v;

	assert_int_equal(config_parse_size("50%", 0, &v), -EINVAL);
}

static void size_that_is_none_is_invalid(void **state)
{
	static const char *const bad[] = { "", "M", "-1", "+1", " 1", "1 ", "1X", "1MB", "1.5G", "0x10", "%", "1%%" };
	uint64_t v = 42;

	for (size_t i = 0; i < ELEMENTSOF(bad); i++)
		assert_int_equal(config_parse_size(bad[i], 1000, &v), -EINVAL);
	assert_int_equal(v, 42);
}

static void size_that_overflows_is_out_of_range(void **state)
{
	uint64_t v = 42;

	assert_int_equal(config_parse_size("18446744073709551616", 0, &v), -ERANGE);
	assert_int_equal(config_parse_size("16777216T", 0, &v), -ERANGE);
	assert_int_equal(v, 42);
}

static void duration_has_units(void **state)
{
	static const struct { const char *s; uint64_t ms; } good[] = {
		{ "5", 5000 }, { "5s", 5000 }, { "5 s", 5000 }, { "250ms", 250 }, { "2min", 120000 }, { "0", 0 },
	};
	uint64_t v;

	for (size_t i = 0; i < ELEMENTSOF(good); i++) {
		assert_int_equal(config_parse_duration(good[i].s, &v), 0);
		assert_int_equal(v, good[i].ms);
	}
}

static void duration_that_is_none_is_invalid(void **state)
{
	static const char *const bad[] = { "", "s", "-5s", "5m", "5sec", "1.5s", "5s ", "5S" };
	uint64_t v = 42;

	for (size_t i = 0; i < ELEMENTSOF(bad); i++)
		assert_int_equal(config_parse_duration(bad[i], &v), -EINVAL);
	assert_int_equal(v, 42);
}

static void duration_that_overflows_is_out_of_range(void **state)
{
	uint64_t v;

	assert_int_equal(config_parse_duration("18446744073709551615min", &v), -ERANGE);
}

/* ---- defaults ---- */

static void defaults_are_as_documented(void **state)
{
	struct fixture *f = *state;
	uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	assert_int_equal(load_file(f, "/dev/null"), 0);
	assert_string_equal(f->c.file, "/dev/null");
	assert_string_equal(f->c.bpffs, "/sys/fs/bpf/pagecached");
	assert_in_range(f->c.memory_max, ram / 4 - 100, ram / 4);
	assert_in_range(f->c.workers, 1, 8);
	assert_int_equal(f->c.log_level, LOG_LEVEL_INFO);
	assert_true(f->c.kernel_faults);
	assert_false(f->c.test_stores);
	assert_int_equal(f->c.dirty_expire_ms, 5000);
	assert_int_equal(f->c.readahead_max, 8 << 20);
	assert_int_equal(f->c.max_blocks, 0);
	assert_int_equal(f->c.max_handles, 4096);
	assert_int_equal(f->c.socket_mode, 0666);
	assert_int_equal(f->c.socket[0], '/');
	assert_int_equal(f->c.state_dir[0], '/');
	assert_string_equal(f->err, "");
}

static void socket_and_state_go_by_the_user(void **state)
{
	struct fixture *f = *state;

	/* Who the user is cannot be faked without being root: an ordinary user checks its own half. */
	setenv("XDG_RUNTIME_DIR", "/run/user/4711", 1);
	setenv("XDG_STATE_HOME", "/home/x/state", 1);
	assert_int_equal(load_file(f, "/dev/null"), 0);
	assert_string_equal(f->c.socket, geteuid() == 0 ? "/run/pagecached/socket" : "/run/user/4711/pagecached/socket");
	assert_string_equal(f->c.state_dir, geteuid() == 0 ? "/var/lib/pagecached" : "/home/x/state/pagecached");
}

/* ---- files ---- */

static void file_sets_every_key(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf",
				   "[daemon]\nsocket = /a/s\nsocket_mode = 0660\nmemory_max = 64M\nbpffs = /b\nstate_dir = /c\n"
				   "workers = 3\nlog_level = debug\nkernel_faults = no\ndirty_expire = 250ms\nreadahead_max = 1M\n"
				   "max_files = 100\nmax_mappings = 200\nmax_blocks = 300\nmax_handles = 400\ntest_stores = yes\n");

	assert_int_equal(load_file(f, p), 0);
	assert_string_equal(f->c.file, p);
	assert_string_equal(f->c.socket, "/a/s");
	assert_int_equal(f->c.socket_mode, 0660);
	assert_int_equal(f->c.memory_max, 64 << 20);
	assert_string_equal(f->c.bpffs, "/b");
	assert_string_equal(f->c.state_dir, "/c");
	assert_int_equal(f->c.workers, 3);
	assert_int_equal(f->c.log_level, LOG_LEVEL_DEBUG);
	assert_false(f->c.kernel_faults);
	assert_int_equal(f->c.dirty_expire_ms, 250);
	assert_int_equal(f->c.readahead_max, 1 << 20);
	assert_int_equal(f->c.max_files, 100);
	assert_int_equal(f->c.max_mappings, 200);
	assert_int_equal(f->c.max_blocks, 300);
	assert_int_equal(f->c.max_handles, 400);
	assert_true(f->c.test_stores);
}

static void comments_and_blank_lines_are_skipped(void **state)
{
	struct fixture *f = *state;
	char text[1000];

	/* The second comment is longer than a line may be. */
	snprintf(text, sizeof(text), "# one\n\n  ; two\n# %0600d\n[daemon]\nworkers = 2 ; three\n", 0);
	assert_int_equal(load_file(f, write_file(f, "p.conf", text)), 0);
	assert_int_equal(f->c.workers, 2);
}

static void indented_key_is_a_key(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nworkers = 2\n\tmax_files = 99\n")), 0);
	assert_int_equal(f->c.workers, 2);
	assert_int_equal(f->c.max_files, 99);
}

static void bpffs_none_means_no_maps(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nbpffs = none\n")), 0);
	assert_string_equal(f->c.bpffs, "");
}

static void missing_file_is_an_error(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, "/nonexistent/p.conf"), -EINVAL);
	assert_string_equal(f->err, "pagecached: /nonexistent/p.conf: No such file or directory\n");
}

static void folder_as_file_is_an_error(void **state)
{
	struct fixture *f = *state;
	char message[200];

	assert_int_equal(load_file(f, f->dir), -EINVAL);
	snprintf(message, sizeof(message), "pagecached: %s: Is a directory\n", f->dir);
	assert_string_equal(f->err, message);
}

static void bad_value_names_file_and_line(void **state)
{
	assert_refused(*state, "[daemon]\n\nworkers = many\n",
		       "pagecached: %s:3: workers: \"many\" is not valid (allowed: a number from 1 to 64)");
}

static void value_out_of_range_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nworkers = 65\n",
		       "pagecached: %s:2: workers: \"65\" is out of range (allowed: a number from 1 to 64)");
}

static void size_below_the_least_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nmemory_max = 4K\n",
		       "pagecached: %s:2: memory_max: \"4K\" is out of range "
		       "(allowed: bytes, or a number with K, M, G or T, or 1% to 100% of RAM; from 1M to 1048576T)");
}

static void empty_value_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nstate_dir =\n",
		       "pagecached: %s:2: state_dir: the value is empty (allowed: a path that starts with /)");
}

static void relative_path_in_a_file_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nstate_dir = here\n",
		       "pagecached: %s:2: state_dir: \"here\" is not valid (allowed: a path that starts with /)");
}

static void socket_path_too_long_is_refused(void **state)
{
	struct fixture *f = *state;
	char text[300];

	snprintf(text, sizeof(text), "[daemon]\nsocket = /%0107d\n", 0);
	assert_int_equal(load_file(f, write_file(f, "p.conf", text)), -EINVAL);
	assert_non_null(strstr(f->err, "p.conf:2: socket: "));
	assert_non_null(strstr(f->err, " is too long (allowed: a path that starts with /, at most 107 bytes)"));
}

static void mode_is_octal(void **state)
{
	assert_refused(*state, "[daemon]\nsocket_mode = 0888\n",
		       "pagecached: %s:2: socket_mode: \"0888\" is not valid (allowed: an octal number from 0 to 777)");
}

static void unknown_key_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nworker = 3\n",
		       "pagecached: %s:2: worker: unknown key (allowed: those of pagecached.conf(5))");
}

static void unknown_section_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nworkers = 3\n[deamon]\n",
		       "pagecached: %s:3: [deamon]: unknown section (allowed: [daemon])");
}

static void key_before_any_section_is_refused(void **state)
{
	assert_refused(*state, "# top\nworkers = 3\n[daemon]\n",
		       "pagecached: %s:2: workers: stands before any section (allowed: under [daemon])");
}

static void key_twice_in_a_file_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nworkers = 3\n[daemon]\nworkers = 3\n",
		       "pagecached: %s:4: workers: was set on line 2 already (allowed: once a file)");
}

static void line_without_value_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nworkers\nmax_files = none\n",
		       "pagecached: %s:2: neither a section nor a setting (allowed: \"[daemon]\", \"key = value\", or a comment after # or ;)");
}

static void section_without_end_is_refused(void **state)
{
	assert_refused(*state, "[daemon\nworkers = 3\n",
		       "pagecached: %s:1: neither a section nor a setting (allowed: \"[daemon]\", \"key = value\", or a comment after # or ;)");
}

static void long_line_is_refused(void **state)
{
	struct fixture *f = *state;
	char text[5000];

	snprintf(text, sizeof(text), "[daemon]\nstate_dir = /%04000d\nworkers = 2\n", 0);
	assert_int_equal(load_file(f, write_file(f, "p.conf", text)), -EINVAL);
	assert_non_null(strstr(f->err, "p.conf:2: the line is too long (allowed: "));
}

static void line_at_the_limit_is_read_whole(void **state)
{
	struct fixture *f = *state;
	char text[400];

	snprintf(text, sizeof(text), "[daemon]\nstate_dir = /%0180d\nworkers = 2\n", 0);
	assert_int_equal(load_file(f, write_file(f, "p.conf", text)), 0);
	assert_int_equal(strlen(f->c.state_dir), 181);
	assert_int_equal(f->c.workers, 2);
}

static void nul_byte_is_refused(void **state)
{
	static const char text[] = "[daemon]\nworkers = 2\0junk\n";
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_bytes(f, "p.conf", text, sizeof(text) - 1)), -EINVAL);
	assert_non_null(strstr(f->err, "p.conf:2: the line has a NUL byte"));
}

static void only_the_first_error_is_told(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nworkers = x\nmax_files = y\nrubbish\n")), -EINVAL);
	assert_non_null(strstr(f->err, "p.conf:2: workers: "));
	assert_ptr_equal(strchr(f->err, '\n'), f->err + strlen(f->err) - 1);
}

static void failure_leaves_nothing_to_free(void **state)
{
	static const struct config zero;
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nsocket = /a\nworkers = x\n")), -EINVAL);
	assert_memory_equal(&f->c, &zero, sizeof(zero));
}

/* ---- drop-ins ---- */

static void drop_ins_override_in_name_order(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "[daemon]\nworkers = 1\nmax_files = 100\nmax_handles = 5\n");

	make_dir(f, "p.conf.d");
	write_file(f, "p.conf.d/20.conf", "[daemon]\nworkers = 3\n");
	write_file(f, "p.conf.d/10.conf", "[daemon]\nworkers = 2\nmax_files = 200\n");
	assert_int_equal(load_file(f, p), 0);
	assert_int_equal(f->c.workers, 3);
	assert_int_equal(f->c.max_files, 200);
	assert_int_equal(f->c.max_handles, 5);
}

static void drop_in_of_another_name_is_not_read(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "");

	make_dir(f, "p.conf.d");
	write_file(f, "p.conf.d/10.conf~", "[daemon]\nworkers = rubbish\n");
	write_file(f, "p.conf.d/.10.conf", "[daemon]\nworkers = rubbish\n");
	assert_int_equal(load_file(f, p), 0);
}

static void error_in_a_drop_in_names_it(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "");

	make_dir(f, "p.conf.d");
	write_file(f, "p.conf.d/10.conf", "[daemon]\nworkers = x\n");
	assert_int_equal(load_file(f, p), -EINVAL);
	assert_non_null(strstr(f->err, "/p.conf.d/10.conf:2: workers: "));
}

/* ---- flags ---- */

static void flag_overrides_the_file(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "[daemon]\nmemory_max = 64M\n");

	assert_int_equal(load_args(f, (const char *[]){ "--memory-max", "32M", "--config", p, NULL }), 0);
	assert_int_equal(f->c.memory_max, 32 << 20);
}

static void every_setting_is_a_flag(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_flags(f, "--socket=s", "--socket-mode=600", "--memory-max=64M", "--bpffs=none", "--state-dir=d",
				    "--workers=3", "--log-level=error", "--kernel-faults=no", "--dirty-expire=1min",
				    "--readahead-max=0", "--max-files=100", "--max-mappings=200", "--max-blocks=300",
				    "--max-handles=400", "--test-stores"), 0);
	assert_string_equal(f->c.socket, "s");
	assert_int_equal(f->c.socket_mode, 0600);
	assert_int_equal(f->c.memory_max, 64 << 20);
	assert_string_equal(f->c.bpffs, "");
	assert_string_equal(f->c.state_dir, "d");
	assert_int_equal(f->c.workers, 3);
	assert_int_equal(f->c.log_level, LOG_LEVEL_ERROR);
	assert_false(f->c.kernel_faults);
	assert_int_equal(f->c.dirty_expire_ms, 60000);
	assert_int_equal(f->c.readahead_max, 0);
	assert_int_equal(f->c.max_files, 100);
	assert_int_equal(f->c.max_mappings, 200);
	assert_int_equal(f->c.max_blocks, 300);
	assert_int_equal(f->c.max_handles, 400);
	assert_true(f->c.test_stores);
}

static void yes_or_no_may_be_a_word_of_its_own(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_flags(f, "--kernel-faults", "no", "--test-stores", "--workers", "2"), 0);
	assert_false(f->c.kernel_faults);
	assert_true(f->c.test_stores);
	assert_int_equal(f->c.workers, 2);
}

static void last_of_two_flags_counts(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_flags(f, "--workers=2", "--workers=3"), 0);
	assert_int_equal(f->c.workers, 3);
}

static void bad_flag_value_names_the_flag(void **state)
{
	assert_flag_refused(*state, "--memory-max", "lots", "pagecached: --memory-max: \"lots\" is not valid (allowed: bytes, ");
}

static void unknown_flag_is_refused(void **state)
{
	assert_flag_refused(*state, "--frobnicate", "1", "pagecached: --frobnicate: unknown or ambiguous flag");
}

static void unknown_letter_is_refused(void **state)
{
	assert_flag_refused(*state, "-q", "1", "pagecached: -q: unknown flag");
}

static void flag_without_value_is_refused(void **state)
{
	assert_flag_refused(*state, "--memory-max", NULL, "pagecached: --memory-max: needs a value");
}

static void stray_argument_is_refused(void **state)
{
	assert_flag_refused(*state, "start", NULL, "pagecached: \"start\": unexpected argument");
}

static void help_names_every_setting_with_its_default(void **state)
{
	static const char *const expected[] = {
		"--config FILE", "--socket PATH", "--socket-mode MODE", "--memory-max SIZE", "--bpffs DIR", "--state-dir DIR",
		"--workers N", "--log-level LEVEL", "--kernel-faults yes|no", "--dirty-expire TIME", "--readahead-max SIZE",
		"--max-files N", "--max-mappings N", "--max-blocks N", "--max-handles N", "--test-stores yes|no",
		"(default: 5s)", "(default: 8M)", "(default: 0666)", "(default: info)",
	};
	struct fixture *f = *state;

	assert_int_equal(load_flags(f, "--help"), 1);
	for (size_t i = 0; i < ELEMENTSOF(expected); i++)
		assert_non_null(strstr(f->out, expected[i]));
	assert_string_equal(f->err, "");
}

static void version_is_printed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_flags(f, "--version"), 1);
	assert_string_equal(f->out, "pagecached " PGC_VERSION "\n");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(size_has_suffixes),
		T(size_may_be_a_share),
		T(size_share_above_the_whole_is_out_of_range),
		T(size_share_needs_a_whole),
		T(size_that_is_none_is_invalid),
		T(size_that_overflows_is_out_of_range),
		T(duration_has_units),
		T(duration_that_is_none_is_invalid),
		T(duration_that_overflows_is_out_of_range),
		T(defaults_are_as_documented),
		T(socket_and_state_go_by_the_user),
		T(file_sets_every_key),
		T(comments_and_blank_lines_are_skipped),
		T(indented_key_is_a_key),
		T(bpffs_none_means_no_maps),
		T(missing_file_is_an_error),
		T(folder_as_file_is_an_error),
		T(bad_value_names_file_and_line),
		T(value_out_of_range_is_refused),
		T(size_below_the_least_is_refused),
		T(empty_value_is_refused),
		T(relative_path_in_a_file_is_refused),
		T(socket_path_too_long_is_refused),
		T(mode_is_octal),
		T(unknown_key_is_refused),
		T(unknown_section_is_refused),
		T(key_before_any_section_is_refused),
		T(key_twice_in_a_file_is_refused),
		T(line_without_value_is_refused),
		T(section_without_end_is_refused),
		T(long_line_is_refused),
		T(line_at_the_limit_is_read_whole),
		T(nul_byte_is_refused),
		T(only_the_first_error_is_told),
		T(failure_leaves_nothing_to_free),
		T(drop_ins_override_in_name_order),
		T(drop_in_of_another_name_is_not_read),
		T(error_in_a_drop_in_names_it),
		T(flag_overrides_the_file),
		T(every_setting_is_a_flag),
		T(yes_or_no_may_be_a_word_of_its_own),
		T(last_of_two_flags_counts),
		T(bad_flag_value_names_the_flag),
		T(unknown_flag_is_refused),
		T(unknown_letter_is_refused),
		T(flag_without_value_is_refused),
		T(stray_argument_is_refused),
		T(help_names_every_setting_with_its_default),
		T(version_is_printed),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}

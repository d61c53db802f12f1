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
#include "version.h"

struct fixture {
	char dir[64];              /* removed with all that write_file() made in it */
	char *made[16];
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

static void amount_is_a_size_or_a_share(void **state)
{
	struct config_amount a;

	assert_int_equal(config_parse_amount("64M", &a), 0);
	assert_int_equal(a.bytes, 64 << 20);
	assert_int_equal(a.percent, 0);
	assert_int_equal(config_parse_amount("25%", &a), 0);
	assert_int_equal(a.percent, 25);
	assert_int_equal(config_amount_of(&a, 1000), 250);
}

static void amount_of_no_percent_is_nothing(void **state)
{
	struct config_amount a = { .bytes = 42, .percent = 42 };

	assert_int_equal(config_parse_amount("0%", &a), 0);
	assert_int_equal(config_amount_of(&a, 1000), 0);
}

static void amount_that_is_none_is_invalid(void **state)
{
	static const char *const bad[] = { "", "%", "-1%", "1 %", "1.5%", "1%%", "1M%", "M", "50 M" };
	struct config_amount a = { .bytes = 42 };

	for (size_t i = 0; i < ELEMENTSOF(bad); i++)
		assert_int_equal(config_parse_amount(bad[i], &a), -EINVAL);
	assert_int_equal(a.bytes, 42);
}

static void amount_above_the_whole_is_out_of_range(void **state)
{
	struct config_amount a;

	assert_int_equal(config_parse_amount("101%", &a), -ERANGE);
	assert_int_equal(config_parse_amount("18446744073709551616%", &a), -ERANGE);
	assert_int_equal(config_parse_amount("16777216T", &a), -ERANGE);
}

static void amount_of_a_large_whole_does_not_overflow(void **state)
{
	const struct config_amount a = { .percent = 100 };

	assert_true(config_amount_of(&a, UINT64_MAX) == UINT64_MAX);
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
	assert_in_range(f->c.lanes, 0, 16);
	assert_int_equal(f->c.log_level, LOG_LEVEL_INFO);
	assert_true(f->c.kernel_faults);
	assert_false(f->c.test_stores);
	assert_int_equal(f->c.dirty_expire_ms, 5000);
	assert_int_equal(f->c.readahead_max, 8 << 20);
	assert_int_equal(f->c.max_blocks, 0);
	assert_int_equal(f->c.max_handles, 4096);
	assert_string_equal(f->c.preload_paths, "");
	assert_int_equal(f->c.socket_mode, 0666);
	assert_int_equal(f->c.policy, POLICY_ADAPTIVE);
	assert_int_equal(f->c.second_chance, 8);
	assert_int_equal(f->c.dirty_background.percent, 10);
	assert_int_equal(f->c.dirty_max.percent, 20);
	assert_int_equal(f->c.pin_max.percent, 50);
	assert_int_equal(f->c.memory_min.percent, 10);
	assert_true(f->c.pressure);
	assert_true(f->c.warm_start);
	assert_int_equal(f->c.retain, RETAIN_LRU);
	assert_int_equal(f->c.n_limits + f->c.n_file_rules + f->c.n_store_rules, 0);
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

static void folders_of_the_unit_are_the_defaults(void **state)
{
	struct fixture *f = *state;
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("SYSTEMD_EXEC_PID", pid, 1);
	setenv("RUNTIME_DIRECTORY", "/run/a", 1);
	setenv("STATE_DIRECTORY", "/var/lib/b:/var/lib/c", 1);
	assert_int_equal(load_file(f, "/dev/null"), 0);
	unsetenv("SYSTEMD_EXEC_PID");
	assert_string_equal(f->c.socket, "/run/a/socket");
	assert_string_equal(f->c.state_dir, "/var/lib/b");
}

static void folders_of_a_unit_that_started_somebody_else_are_not(void **state)
{
	struct fixture *f = *state;

	setenv("SYSTEMD_EXEC_PID", "1", 1);
	setenv("RUNTIME_DIRECTORY", "/run/a", 1);
	setenv("STATE_DIRECTORY", "/var/lib/b", 1);
	assert_int_equal(load_file(f, "/dev/null"), 0);
	unsetenv("SYSTEMD_EXEC_PID");
	assert_string_not_equal(f->c.socket, "/run/a/socket");
	assert_string_not_equal(f->c.state_dir, "/var/lib/b");
}

/* ---- files ---- */

static void file_sets_every_key(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf",
				   "[daemon]\nsocket = /a/s\nsocket_mode = 0660\nmemory_max = 64M\nbpffs = /b\nstate_dir = /c\n"
				   "workers = 3\nlog_level = debug\nkernel_faults = no\ndirty_expire = 250ms\nreadahead_max = 1M\n"
				   "max_files = 100\nmax_mappings = 200\nmax_blocks = 300\nmax_handles = 400\ntest_stores = yes\n"
				   "policy = fifo\nsecond_chance = 5%\ndirty_background = 4M\ndirty_max = 50%\npin_max = 8M\nmemory_min = 30%\n"
				   "pressure = no\nwarm_start = no\nretain = mapped\n");

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
	assert_int_equal(f->c.policy, POLICY_FIFO);
	assert_int_equal(f->c.second_chance, 5);
	assert_int_equal(f->c.dirty_background.bytes, 4 << 20);
	assert_int_equal(f->c.dirty_background.percent, 0);
	assert_int_equal(f->c.dirty_max.percent, 50);
	assert_int_equal(f->c.pin_max.bytes, 8 << 20);
	assert_int_equal(f->c.memory_min.percent, 30);
	assert_false(f->c.pressure);
	assert_false(f->c.warm_start);
	assert_int_equal(f->c.retain, RETAIN_MAPPED);
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
	assert_refused(*state, "[daemon]\nlanes = some\n",
		       "pagecached: %s:2: lanes: \"some\" is not valid (allowed: auto, or a number from 0 to 16)");
	assert_refused(*state, "[daemon]\nworkers = 65\n",
		       "pagecached: %s:2: workers: \"65\" is out of range (allowed: a number from 1 to 64)");
}

static void size_above_the_most_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nreadahead_max = 2G\n",
		       "pagecached: %s:2: readahead_max: \"2G\" is out of range (allowed: bytes, or a number with K, M, G or T; from 0 to 1G)");
}

static void memory_below_the_least_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nmemory_max = 4K\n")), -EINVAL);
	assert_non_null(strstr(f->err, "p.conf:2: memory_max: \"4K\" is out of range (allowed: bytes, or a number with K, M, G or T, "
				       "or 1% to 100% of RAM; from 1M to "));
}

static void memory_above_all_ram_is_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char value[32];

	snprintf(value, sizeof(value), "%llu", (unsigned long long)ram);
	assert_int_equal(load_flags(f, "--memory-max", value), 0);
	snprintf(value, sizeof(value), "%llu", (unsigned long long)ram + 1);
	assert_int_equal(load_flags(f, "--memory-max", value), -EINVAL);
	assert_non_null(strstr(f->err, " is out of range (allowed: "));
}

static void long_value_is_cut_in_the_message(void **state)
{
	struct fixture *f = *state;
	char value[200];

	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	assert_int_equal(load_flags(f, "--workers", value), -EINVAL);
	assert_non_null(strstr(f->err, "xxx...\" is not valid (allowed: a number from 1 to 64)"));
	assert_true(strlen(f->err) < 160);
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
		       "pagecached: %s:3: [deamon]: unknown section "
		       "(allowed: [daemon], [limit uid=USER], [limit cgroup=/PATH], [file PATTERN], [store NAME])");
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

static void preload_paths_add_up_over_lines_and_files(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "[daemon]\npreload_paths = /a:/b\\:/**\npreload_paths = /c\n");

	make_dir(f, "p.conf.d");
	write_file(f, "p.conf.d/10.conf", "[daemon]\npreload_paths = /d\n");
	assert_int_equal(load_file(f, p), 0);
	assert_string_equal(f->c.preload_paths, "/a:/b\\:/**:/c:/d");
}

static void preload_paths_none_forgets_those_before(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "[daemon]\npreload_paths = /a\n");

	make_dir(f, "p.conf.d");
	write_file(f, "p.conf.d/10.conf", "[daemon]\npreload_paths = none\npreload_paths = /d\n");
	assert_int_equal(load_file(f, p), 0);
	assert_string_equal(f->c.preload_paths, "/d");
}

static void preload_path_that_is_relative_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\npreload_paths = /a:b\n",
		       "pagecached: %s:2: preload_paths: \"/a:b\" is not valid (allowed: patterns that start with /, separated by \":\", or none)");
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
				    "--max-handles=400", "--test-stores", "--policy=lru", "--second-chance=0", "--dirty-background=5%",
				    "--dirty-max=6%", "--pin-max=0", "--memory-min=0", "--pressure=no", "--warm-start=no",
				    "--retain=mapped"), 0);
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
	assert_int_equal(f->c.policy, POLICY_LRU);
	assert_int_equal(f->c.second_chance, 0);
	assert_int_equal(f->c.dirty_background.percent, 5);
	assert_int_equal(f->c.dirty_max.percent, 6);
	assert_int_equal(f->c.pin_max.bytes + f->c.pin_max.percent, 0);
	assert_int_equal(f->c.memory_min.bytes + f->c.memory_min.percent, 0);
	assert_false(f->c.pressure);
	assert_false(f->c.warm_start);
	assert_int_equal(f->c.retain, RETAIN_MAPPED);
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

/* ---- what settings must be to each other, and single ones ---- */

static void unknown_policy_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\npolicy = random\n",
		       "pagecached: %s:2: policy: \"random\" is not valid (allowed: adaptive, fifo or lru)");
}

static void second_chance_is_a_share_up_to_half(void **state)
{
	assert_refused(*state, "[daemon]\nsecond_chance = 51%\n",
		       "pagecached: %s:2: second_chance: \"51%\" is out of range (allowed: 0% to 50%)");
}

static void second_chance_in_bytes_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nsecond_chance = 10M\n",
		       "pagecached: %s:2: second_chance: \"10M\" is not valid (allowed: 0% to 50%)");
}

static void dirty_max_of_nothing_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\ndirty_max = 0\n",
		       "pagecached: %s:2: dirty_max: \"0\" is out of range "
		       "(allowed: bytes, or a number with K, M, G or T, from 256K on; or 1% to 100% of memory_max)");
}

static void all_memory_pinned_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\npin_max = 91%\n",
		       "pagecached: %s:2: pin_max: \"91%\" is out of range "
		       "(allowed: bytes, or a number with K, M, G or T, from 0 on; or 0% to 90% of memory_max)");
}

static void dirty_background_above_dirty_max_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\nmemory_max = 100M\ndirty_background = 30%\nworkers = 2\ndirty_max = 20M\n",
		       "pagecached: %s:3: dirty_background: dirty_background is 30M and more than dirty_max, which is 20M (allowed: no more)");
}

static void contradiction_to_a_default_names_what_was_given(void **state)
{
	assert_refused(*state, "[daemon]\nmemory_max = 100M\ndirty_max = 5%\n",
		       "pagecached: %s:3: dirty_max: dirty_background is 10M and more than dirty_max, which is 5M (allowed: no more)");
}

static void contradiction_between_file_and_flag_names_its_origin(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "[daemon]\nmemory_max = 64M\n");

	assert_int_equal(load_args(f, (const char *[]){ "--config", p, "--memory-min", "65M", NULL }), -EINVAL);
	assert_string_equal(f->err, "pagecached: --memory-min: memory_min is 65M and more than memory_max, which is 64M (allowed: no more)\n");
}

static void pins_above_their_share_of_the_memory_are_refused(void **state)
{
	assert_refused(*state, "[daemon]\nmemory_max = 100M\npin_max = 95M\n",
		       "pagecached: %s:3: pin_max: pin_max is 95M and more than 90% of memory_max, which is 100M (allowed: no more)");
}

/* ---- sections that are rules ---- */

static void limits_are_read_in_their_order(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[limit uid=1000]\nmemory_max = 64M\n[limit cgroup=/system.slice/x/]\n"
						 "memory_max = 25% ; a quarter\n")), 0);
	assert_int_equal(f->c.n_limits, 2);
	assert_null(f->c.limits[0].cgroup);
	assert_int_equal(f->c.limits[0].uid, 1000);
	assert_int_equal(f->c.limits[0].memory_max.bytes, 64 << 20);
	assert_string_equal(f->c.limits[1].cgroup, "/system.slice/x");
	assert_int_equal(f->c.limits[1].memory_max.percent, 25);
}

static void limit_of_a_user_by_name(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[ limit  uid=root ]\nmemory_max = 64M\n")), 0);
	assert_int_equal(f->c.n_limits, 1);
	assert_int_equal(f->c.limits[0].uid, 0);
}

static void limit_of_a_user_that_does_not_exist_is_refused(void **state)
{
	assert_refused(*state, "[limit uid=no-such-user-here]\nmemory_max = 64M\n",
		       "pagecached: %s:1: [limit uid=no-such-user-here]: no such user (allowed: a user's number or name)");
}

static void limit_of_a_user_number_that_is_none_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[limit uid=4294967295]\nmemory_max = 64M\n")), -EINVAL);
	assert_non_null(strstr(f->err, "p.conf:1: [limit uid=4294967295]: "));
}

static void limit_of_nobody_in_particular_is_refused(void **state)
{
	assert_refused(*state, "[limit gid=7]\nmemory_max = 64M\n",
		       "pagecached: %s:1: [limit gid=7]: whose limit? (allowed: [limit uid=USER] or [limit cgroup=/PATH])");
}

static void limit_of_a_relative_cgroup_is_refused(void **state)
{
	assert_refused(*state, "[limit cgroup=system.slice]\nmemory_max = 64M\n",
		       "pagecached: %s:1: [limit cgroup=system.slice]: not a path "
		       "(allowed: a cgroup's path in the memory hierarchy, which starts with /)");
}

static void limit_of_a_crooked_cgroup_is_refused(void **state)
{
	static const char *const bad[] = { "/", "//", "/a//b", "/a/./b", "/../a", "/a/.." };
	struct fixture *f = *state;

	for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
		char text[100];

		if (f->n_made)
			free(f->made[--f->n_made]);
		snprintf(text, sizeof(text), "[limit cgroup=%s]\nmemory_max = 64M\n", bad[i]);
		assert_int_equal(load_file(f, write_file(f, "p.conf", text)), -EINVAL);
		assert_non_null(strstr(f->err, "p.conf:1: [limit cgroup="));
	}
}

static void limit_without_memory_is_refused(void **state)
{
	assert_refused(*state, "[daemon]\n[limit uid=1000]\n\n[daemon]\nworkers = 2\n",
		       "pagecached: %s:2: the limit has no memory_max (allowed: a section with that key)");
}

static void limit_without_memory_at_the_end_is_refused(void **state)
{
	assert_refused(*state, "[limit uid=1000]\n# nothing\n",
		       "pagecached: %s:1: the limit has no memory_max (allowed: a section with that key)");
}

static void limit_twice_in_a_file_is_refused(void **state)
{
	assert_refused(*state, "[limit uid=0]\nmemory_max = 64M\n[limit uid=root]\nmemory_max = 32M\n",
		       "pagecached: %s:3: [limit uid=root]: stands on line 1 already (allowed: once a file)");
}

static void limit_of_a_later_file_replaces_it(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "[limit uid=1]\nmemory_max = 64M\n[limit uid=2]\nmemory_max = 65M\n");

	make_dir(f, "p.conf.d");
	write_file(f, "p.conf.d/a.conf", "[limit uid=1]\nmemory_max = 32M\n");
	assert_int_equal(load_file(f, p), 0);
	assert_int_equal(f->c.n_limits, 2);
	assert_int_equal(f->c.limits[0].memory_max.bytes, 32 << 20);
	assert_int_equal(f->c.limits[1].memory_max.bytes, 65 << 20);
}

static void limit_above_all_ram_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[limit uid=1000]\nmemory_max = 1000000T\n")), -EINVAL);
	assert_non_null(strstr(f->err, "p.conf:2: memory_max: \"1000000T\" is out of range (allowed: bytes, or a number with K, M, G or T, from 1M to "));
}

static void one_limit_too_many_is_refused(void **state)
{
	_cleanup_free_ char *text = NULL;
	struct fixture *f = *state;
	size_t size;
	FILE *t = open_memstream(&text, &size);

	for (unsigned i = 0; i < CONFIG_LIMITS_MAX; i++)
		fprintf(t, "[limit uid=%u]\nmemory_max = 64M\n", i);
	fflush(t);
	assert_int_equal(load_file(f, write_file(f, "p.conf", text)), 0);
	assert_int_equal(f->c.n_limits, CONFIG_LIMITS_MAX);
	fprintf(t, "[limit uid=4711]\nmemory_max = 64M\n");
	fclose(t);
	assert_int_equal(load_file(f, write_file(f, "q.conf", text)), -EINVAL);
	assert_non_null(strstr(f->err, "q.conf:129: one limit too many (allowed: 64)"));
}

static void key_of_another_section_is_refused(void **state)
{
	assert_refused(*state, "[file /a]\nmemory_max = 64M\n",
		       "pagecached: %s:2: memory_max: unknown key of this section (allowed: retain, warm_start, readahead_max, huge)");
}

static void key_twice_in_a_rule_is_refused(void **state)
{
	assert_refused(*state, "[file /a]\nretain = lru\nretain = lru\n",
		       "pagecached: %s:3: retain: was set on line 2 already (allowed: once a section)");
}

static void bad_value_in_a_rule_is_refused(void **state)
{
	assert_refused(*state, "[file /a]\nretain = forever\n",
		       "pagecached: %s:2: retain: \"forever\" is not valid (allowed: lru or mapped)");
}

static void readahead_of_a_rule_has_a_limit(void **state)
{
	assert_refused(*state, "[store file]\nreadahead_max = 2G\n",
		       "pagecached: %s:2: readahead_max: \"2G\" is out of range (allowed: bytes, or a number with K, M, G or T; from 0 to 1G)");
}

static void empty_pattern_is_refused(void **state)
{
	assert_refused(*state, "[file ]\nretain = lru\n",
		       "pagecached: %s:1: [file]: the pattern is empty (allowed: a path or URI, in which * ? and [...] stand for others)");
}

static void pattern_twice_in_a_file_is_refused(void **state)
{
	assert_refused(*state, "[file /a]\n[file /b]\n[file /a]\n",
		       "pagecached: %s:3: [file /a]: stands further up already (allowed: once a file)");
}

static void unknown_store_is_refused(void **state)
{
	assert_refused(*state, "[store tape]\nreadahead_max = 1M\n",
		       "pagecached: %s:1: [store tape]: no such store (allowed: [store file], [store mem])");
}

static void store_twice_in_a_file_is_refused(void **state)
{
	assert_refused(*state, "[store mem]\n[store mem]\n",
		       "pagecached: %s:2: [store mem]: stands on line 1 already (allowed: once a file)");
}

static void section_with_something_behind_it_is_refused(void **state)
{
	assert_refused(*state, "[daemon] x\nworkers = 2\n", "pagecached: %s:1: neither a section nor a setting "
		       "(allowed: \"[daemon]\", \"key = value\", or a comment after # or ;)");
}

static void section_may_have_a_comment_behind_it(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]  ; [x\nworkers = 2\n")), 0);
	assert_int_equal(f->c.workers, 2);
}

static void long_pattern_with_brackets_is_kept_whole(void **state)
{
	struct fixture *f = *state;
	struct file_settings fs;
	char text[700], name[600];

	snprintf(name, sizeof(name), "/%0500d.c", 0);
	snprintf(text, sizeof(text), "[file /%0500d.[ch]]\nretain = mapped\n", 0);
	assert_int_equal(load_file(f, write_file(f, "p.conf", text)), 0);
	config_file_settings(&f->c, name, "file", &fs);
	assert_int_equal(fs.retain, RETAIN_MAPPED);
}

/* ---- what rules come to ---- */

static struct file_settings settings_of(struct fixture *f, const char *name, const char *store)
{
	struct file_settings fs;

	config_file_settings(&f->c, name, store, &fs);
	return fs;
}

static void file_without_a_rule_has_the_daemons_settings(void **state)
{
	struct fixture *f = *state;
	struct file_settings fs;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nretain = mapped\nwarm_start = no\nreadahead_max = 3M\n"
						 "[file /srv/*]\nretain = lru\n")), 0);
	fs = settings_of(f, "/home/x", "file");
	assert_int_equal(fs.retain, RETAIN_MAPPED);
	assert_false(fs.warm_start);
	assert_int_equal(fs.readahead_max, 3 << 20);
}

static void last_pattern_that_sets_a_key_counts(void **state)
{
	struct fixture *f = *state;
	struct file_settings fs;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[file /srv/*]\nretain = mapped\nwarm_start = no\nreadahead_max = 0\n"
						 "[file *.db]\nwarm_start = yes\nhuge = yes\n[file /elsewhere]\nreadahead_max = 1M\nhuge = no\n")), 0);
	fs = settings_of(f, "/srv/deep/down/x.db", "file");
	assert_int_equal(fs.retain, RETAIN_MAPPED);
	assert_true(fs.warm_start);
	assert_true(fs.huge);
	assert_int_equal(fs.readahead_max, 0);
	assert_false(settings_of(f, "/srv/x", "file").huge);
	assert_false(settings_of(f, "/elsewhere", "file").huge);
}

static void pattern_of_a_later_file_comes_after(void **state)
{
	struct fixture *f = *state;
	const char *p = write_file(f, "p.conf", "[file /a]\nreadahead_max = 1M\n[file /*]\nreadahead_max = 2M\n");

	make_dir(f, "p.conf.d");
	write_file(f, "p.conf.d/a.conf", "[file /a]\nreadahead_max = 3M\n");
	assert_int_equal(load_file(f, p), 0);
	assert_int_equal(settings_of(f, "/a", "file").readahead_max, 3 << 20);
	assert_int_equal(settings_of(f, "/b", "file").readahead_max, 2 << 20);
}

static void pattern_matches_uris(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[file mem:t?st]\nretain = mapped\n")), 0);
	assert_int_equal(settings_of(f, "mem:test", "mem").retain, RETAIN_MAPPED);
	assert_int_equal(settings_of(f, "mem:toast", "mem").retain, RETAIN_LRU);
}

static void store_rule_is_weaker_than_a_pattern(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[file mem:x]\nreadahead_max = 1M\n[store mem]\nreadahead_max = 2M\n")), 0);
	assert_int_equal(settings_of(f, "mem:x", "mem").readahead_max, 1 << 20);
	assert_int_equal(settings_of(f, "mem:y", "mem").readahead_max, 2 << 20);
	assert_int_equal(settings_of(f, "/y", "file").readahead_max, 8 << 20);
}

static void file_of_an_unknown_store_has_settings(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[store mem]\nreadahead_max = 2M\n")), 0);
	assert_int_equal(settings_of(f, "/y", NULL).readahead_max, 8 << 20);
}

/* ---- changes while the daemon runs ---- */

/* config_set() says `expected`, or begins with it, and changes nothing. */
static void assert_set_refused(struct fixture *f, const char *name, const char *value, const char *expected)
{
	char message[232];
	struct config before;

	before = f->c;
	assert_int_equal(config_set(&f->c, name, value, message, sizeof(message)), -EINVAL);
	assert_memory_equal(&f->c, &before, sizeof(before));
	message[strlen(expected) < sizeof(message) ? strlen(expected) : 0] = '\0';
	assert_string_equal(message, expected);
}

static void running_settings_are_set(void **state)
{
	static const char *const change[][2] = {
		{ "log_level", "debug" }, { "memory_max", "128M" }, { "memory_min", "64M" }, { "dirty_background", "5%" },
		{ "dirty_max", "6%" }, { "dirty_expire", "250ms" }, { "readahead_max", "1M" }, { "pin_max", "7%" }, { "retain", "mapped" },
		{ "warm_start", "no" }, { "pressure", "off" },
	};
	struct fixture *f = *state;
	char message[232];

	assert_int_equal(load_file(f, "/dev/null"), 0);
	for (size_t i = 0; i < ELEMENTSOF(change); i++)
		assert_int_equal(config_set(&f->c, change[i][0], change[i][1], message, sizeof(message)), 0);
	assert_int_equal(f->c.log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(f->c.memory_max, 128 << 20);
	assert_int_equal(f->c.memory_min.bytes, 64 << 20);
	assert_int_equal(f->c.dirty_background.percent, 5);
	assert_int_equal(f->c.dirty_max.percent, 6);
	assert_int_equal(f->c.dirty_expire_ms, 250);
	assert_int_equal(f->c.readahead_max, 1 << 20);
	assert_int_equal(f->c.pin_max.percent, 7);
	assert_int_equal(f->c.retain, RETAIN_MAPPED);
	assert_false(f->c.warm_start);
	assert_false(f->c.pressure);
}

static void set_of_what_needs_a_restart_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, "/dev/null"), 0);
	assert_set_refused(f, "workers", "3", "workers: needs a restart (allowed: memory_max, memory_min, ");
	assert_set_refused(f, "policy", "fifo", "policy: needs a restart (allowed: ");
	assert_set_refused(f, "socket", "/x", "socket: needs a restart (allowed: ");
}

static void set_of_an_unknown_name_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, "/dev/null"), 0);
	assert_set_refused(f, "", "3", ": unknown (allowed: ");
	assert_set_refused(f, "frobnicate", "3", "frobnicate: unknown (allowed: ");
}

static void set_to_a_bad_value_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_file(f, "/dev/null"), 0);
	assert_set_refused(f, "memory_max", "lots", "memory_max: \"lots\" is not valid (allowed: bytes, ");
	assert_set_refused(f, "memory_max", "", "memory_max: the value is empty (allowed: bytes, ");
	assert_set_refused(f, "memory_max", "1000000T", "memory_max: \"1000000T\" is out of range (allowed: bytes, ");
	assert_set_refused(f, "retain", "yes", "retain: \"yes\" is not valid (allowed: lru or mapped)");
}

static void set_that_contradicts_another_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load_flags(f, "--memory-max=100M", "--memory-min=50M"), 0);
	assert_set_refused(f, "memory_max", "40M", "memory_max: memory_min is 50M and more than memory_max, which is 40M (allowed: no more)");
	assert_set_refused(f, "dirty_background", "30%", "dirty_background: dirty_background is 30M and more than dirty_max, which is 20M");
}

static void message_of_set_has_room_for_what_is_allowed(void **state)
{
	struct fixture *f = *state;
	char message[232], value[200];

	assert_int_equal(load_file(f, "/dev/null"), 0);
	memset(value, '%', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	assert_int_equal(config_set(&f->c, "dirty_background", value, message, sizeof(message)), -EINVAL);
	assert_int_equal(message[strlen(message) - 1], ')');
	assert_int_equal(config_set(&f->c, "no_such_setting_of_thirty_two_ch", "1", message, sizeof(message)), -EINVAL);
	assert_int_equal(message[strlen(message) - 1], ')');
}

/* Loads `text` as what is read again. */
static void take_over(struct fixture *f, const char *text, char *ignored, size_t size)
{
	struct config before = f->c;

	memset(&f->c, 0, sizeof(f->c));
	assert_int_equal(load_file(f, write_file(f, "new.conf", text)), 0);
	config_take_over(&before, &f->c, ignored, size);
	config_free(&f->c);
	f->c = before;
}

static void settings_and_rules_are_taken_over(void **state)
{
	struct fixture *f = *state;
	char ignored[256];

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nmemory_max = 64M\n[limit uid=1]\nmemory_max = 2M\n[file /a]\n"
						 "[store mem]\n")), 0);
	take_over(f, "[daemon]\nmemory_max = 128M\nmemory_min = 3M\nretain = mapped\npressure = no\nlog_level = error\n"
		  "[limit cgroup=/x]\nmemory_max = 4M\n[limit uid=1]\nmemory_max = 5M\n", ignored, sizeof(ignored));
	assert_string_equal(ignored, "");
	assert_int_equal(f->c.memory_max, 128 << 20);
	assert_int_equal(f->c.memory_min.bytes, 3 << 20);
	assert_int_equal(f->c.retain, RETAIN_MAPPED);
	assert_false(f->c.pressure);
	assert_int_equal(f->c.log_level, LOG_LEVEL_ERROR);
	assert_int_equal(f->c.n_limits, 2);
	assert_string_equal(f->c.limits[0].cgroup, "/x");
	assert_int_equal(f->c.limits[1].memory_max.bytes, 5 << 20);
	assert_int_equal(f->c.n_file_rules + f->c.n_store_rules, 0);
}

static void what_cannot_change_is_named_and_kept(void **state)
{
	struct fixture *f = *state;
	char ignored[256];

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nworkers = 2\nstate_dir = /a\n")), 0);
	take_over(f, "[daemon]\nworkers = 3\nstate_dir = /b\nsecond_chance = 0\npolicy = lru\nkernel_faults = no\nmax_files = 17\n", ignored,
		  sizeof(ignored));
	assert_string_equal(ignored, "state_dir, workers, kernel_faults, policy, second_chance, max_files");
	assert_int_equal(f->c.workers, 2);
	assert_string_equal(f->c.state_dir, "/a");
	assert_int_equal(f->c.second_chance, 8);
	assert_int_equal(f->c.policy, POLICY_ADAPTIVE);
}

static void list_of_what_is_kept_is_cut_to_its_room(void **state)
{
	struct fixture *f = *state;
	char ignored[12];

	assert_int_equal(load_file(f, write_file(f, "p.conf", "[daemon]\nworkers = 2\nstate_dir = /a\n")), 0);
	take_over(f, "[daemon]\nworkers = 3\nstate_dir = /b\nmax_files = 17\n", ignored, sizeof(ignored));
	assert_string_equal(ignored, "state_dir, ");
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
		T(amount_is_a_size_or_a_share),
		T(amount_of_no_percent_is_nothing),
		T(amount_that_is_none_is_invalid),
		T(amount_above_the_whole_is_out_of_range),
		T(amount_of_a_large_whole_does_not_overflow),
		T(duration_has_units),
		T(duration_that_is_none_is_invalid),
		T(duration_that_overflows_is_out_of_range),
		T(defaults_are_as_documented),
		T(socket_and_state_go_by_the_user),
		T(folders_of_the_unit_are_the_defaults),
		T(folders_of_a_unit_that_started_somebody_else_are_not),
		T(file_sets_every_key),
		T(comments_and_blank_lines_are_skipped),
		T(indented_key_is_a_key),
		T(bpffs_none_means_no_maps),
		T(missing_file_is_an_error),
		T(folder_as_file_is_an_error),
		T(bad_value_names_file_and_line),
		T(value_out_of_range_is_refused),
		T(size_above_the_most_is_refused),
		T(memory_below_the_least_is_refused),
		T(memory_above_all_ram_is_refused),
		T(long_value_is_cut_in_the_message),
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
		T(preload_paths_add_up_over_lines_and_files),
		T(preload_paths_none_forgets_those_before),
		T(preload_path_that_is_relative_is_refused),
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
		T(unknown_policy_is_refused),
		T(second_chance_is_a_share_up_to_half),
		T(second_chance_in_bytes_is_refused),
		T(dirty_max_of_nothing_is_refused),
		T(all_memory_pinned_is_refused),
		T(dirty_background_above_dirty_max_is_refused),
		T(contradiction_to_a_default_names_what_was_given),
		T(contradiction_between_file_and_flag_names_its_origin),
		T(pins_above_their_share_of_the_memory_are_refused),
		T(limits_are_read_in_their_order),
		T(limit_of_a_user_by_name),
		T(limit_of_a_user_that_does_not_exist_is_refused),
		T(limit_of_a_user_number_that_is_none_is_refused),
		T(limit_of_nobody_in_particular_is_refused),
		T(limit_of_a_relative_cgroup_is_refused),
		T(limit_of_a_crooked_cgroup_is_refused),
		T(limit_without_memory_is_refused),
		T(limit_without_memory_at_the_end_is_refused),
		T(limit_twice_in_a_file_is_refused),
		T(limit_of_a_later_file_replaces_it),
		T(limit_above_all_ram_is_refused),
		T(one_limit_too_many_is_refused),
		T(key_of_another_section_is_refused),
		T(key_twice_in_a_rule_is_refused),
		T(bad_value_in_a_rule_is_refused),
		T(readahead_of_a_rule_has_a_limit),
		T(empty_pattern_is_refused),
		T(pattern_twice_in_a_file_is_refused),
		T(unknown_store_is_refused),
		T(store_twice_in_a_file_is_refused),
		T(section_with_something_behind_it_is_refused),
		T(section_may_have_a_comment_behind_it),
		T(long_pattern_with_brackets_is_kept_whole),
		T(file_without_a_rule_has_the_daemons_settings),
		T(last_pattern_that_sets_a_key_counts),
		T(pattern_of_a_later_file_comes_after),
		T(pattern_matches_uris),
		T(store_rule_is_weaker_than_a_pattern),
		T(file_of_an_unknown_store_has_settings),
		T(running_settings_are_set),
		T(set_of_what_needs_a_restart_is_refused),
		T(set_of_an_unknown_name_is_refused),
		T(set_to_a_bad_value_is_refused),
		T(set_that_contradicts_another_is_refused),
		T(message_of_set_has_room_for_what_is_allowed),
		T(settings_and_rules_are_taken_over),
		T(what_cannot_change_is_named_and_kept),
		T(list_of_what_is_kept_is_cut_to_its_room),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}

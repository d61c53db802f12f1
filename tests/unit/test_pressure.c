/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pressure: the steps as arithmetic, what is read from faked /proc and cgroup folders, and both together. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "daemon/pressure.h"
#include "daemon/util/util.h"

#define MIB ((uint64_t)1 << 20)
#define PAGES(mib) ((uint64_t)(mib) << 8)

static const struct pressure_timing timing = PRESSURE_TIMING_DEFAULT;

/* --- steps --- */

static struct pressure_input calm(uint64_t now, uint64_t used)
{
	return (struct pressure_input){ .now = now, .used = used, .memory_max = 8000, .memory_min = 800, .room = 1 << 30, .enabled = true };
}

static enum pressure_change event(struct pressure_state *s, uint64_t now, uint64_t used)
{
	struct pressure_input in = calm(now, used);

	in.event = true;
	return pressure_step(s, &in, &timing);
}

static enum pressure_change lacks(struct pressure_state *s, uint64_t now, uint64_t used, uint64_t pages)
{
	struct pressure_input in = calm(now, used);

	in.lacking = pages;
	return pressure_step(s, &in, &timing);
}

static enum pressure_change rest(struct pressure_state *s, uint64_t now, uint64_t used)
{
	struct pressure_input in = calm(now, used);

	return pressure_step(s, &in, &timing);
}

static void first_step_goes_to_what_is_known_to_help(void **state)
{
	static const struct { uint64_t used, lacking, limit; } table[] = {
		{ 4000, 0, 3500 },      /* an eighth of what is used */
		{ 8000, 0, 7000 },
		{ 4000, 100, 3500 },    /* an eighth is more than what is lacking */
		{ 4000, 1000, 3000 },
		{ 4000, 4000, 800 },    /* no less than memory_min */
		{ 4000, UINT64_MAX / 2, 800 },
		{ 900, 0, 800 },
		{ 10, 0, 800 },         /* nothing to take, but it may not grow */
	};

	for (size_t i = 0; i < ELEMENTSOF(table); i++) {
		struct pressure_state s = { 0 };
		struct pressure_input in = calm(5, table[i].used);

		in.event = true;
		in.lacking = table[i].lacking;
		assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_BEGAN);
		assert_int_equal(s.limit, table[i].limit);
	}
}

static void lasting_pressure_shrinks_down_to_memory_min_and_no_further(void **state)
{
	struct pressure_state s = { 0 };
	uint64_t last = 8000;

	for (uint64_t now = 0; now < 60000; now += 500) {
		enum pressure_change c = event(&s, now, last);

		assert_int_equal(c, now == 0 ? PRESSURE_BEGAN : last > 800 ? PRESSURE_SHRANK : PRESSURE_NOTHING);
		assert_true(s.limit >= 800 && s.limit <= last);
		last = s.limit;
	}
	assert_int_equal(s.limit, 800);
	assert_int_equal(s.lowest, 800);
}

static void signs_of_the_kernel_wait_for_the_last_step_to_show(void **state)
{
	struct pressure_state s = { 0 };

	assert_int_equal(event(&s, 1000, 8000), PRESSURE_BEGAN);
	assert_int_equal(event(&s, 1100, 7000), PRESSURE_NOTHING);
	assert_int_equal(event(&s, 1499, 7000), PRESSURE_NOTHING);
	assert_int_equal(s.limit, 7000);
	assert_int_equal(event(&s, 1500, 7000), PRESSURE_SHRANK);
}

static void measured_shortage_waits_only_until_the_pages_are_gone(void **state)
{
	struct pressure_state s = { 0 };

	assert_int_equal(lacks(&s, 1000, 8000, 10), PRESSURE_BEGAN);
	assert_int_equal(lacks(&s, 1020, 7500, 10), PRESSURE_NOTHING);
	assert_int_equal(lacks(&s, 1040, 7000, 10), PRESSURE_SHRANK);
	assert_int_equal(s.limit, 6125);
}

static void pressure_never_raises_the_limit(void **state)
{
	struct pressure_state s = { 0 };
	struct pressure_input in = calm(2000, 100);

	assert_int_equal(event(&s, 1000, 1000), PRESSURE_BEGAN);
	assert_int_equal(s.limit, 875);
	in.memory_min = 4000;
	in.event = true;
	assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_NOTHING);
	assert_int_equal(s.limit, 875);
}

static void limit_grows_by_an_eighth_a_second_after_ten_quiet_ones(void **state)
{
	struct pressure_state s = { 0 };

	assert_int_equal(event(&s, 1000, 4000), PRESSURE_BEGAN);
	assert_int_equal(rest(&s, 10999, 3500), PRESSURE_NOTHING);
	assert_int_equal(rest(&s, 11000, 3500), PRESSURE_GREW);
	assert_int_equal(s.limit, 4500);
	assert_int_equal(rest(&s, 11999, 3500), PRESSURE_NOTHING);
	assert_int_equal(rest(&s, 12000, 3500), PRESSURE_GREW);
	assert_int_equal(s.limit, 5500);
	assert_int_equal(rest(&s, 13000, 3500), PRESSURE_GREW);
	assert_int_equal(rest(&s, 14000, 3500), PRESSURE_GREW);
	assert_int_equal(rest(&s, 15000, 3500), PRESSURE_ENDED);
	assert_int_equal(s.limit, 0);
	assert_int_equal(s.lowest, 3500);
}

static void sign_of_pressure_stops_growth_for_ten_more_seconds(void **state)
{
	struct pressure_state s = { 0 };

	assert_int_equal(event(&s, 1000, 4000), PRESSURE_BEGAN);
	assert_int_equal(rest(&s, 11000, 3500), PRESSURE_GREW);
	assert_int_equal(event(&s, 11500, 4500), PRESSURE_SHRANK);
	assert_int_equal(s.limit, 3938);
	assert_int_equal(rest(&s, 12500, 3900), PRESSURE_NOTHING);
	assert_int_equal(rest(&s, 21499, 3900), PRESSURE_NOTHING);
	assert_int_equal(rest(&s, 21500, 3900), PRESSURE_GREW);
}

static void limit_does_not_grow_into_room_that_is_not_there(void **state)
{
	struct pressure_state s = { 0 };
	struct pressure_input in = calm(20000, 3500);

	assert_int_equal(event(&s, 1000, 4000), PRESSURE_BEGAN);
	in.room = 100;
	assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_GREW);
	assert_int_equal(s.limit, 3600);
	in.now = 30000;
	in.used = 3600;
	in.room = 0;
	assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_NOTHING);
	assert_int_equal(s.limit, 3600);
}

/* A hog that takes and gives back in turns: the limit goes down and up, and that is one episode until it is all the way up. */
static void episode_begins_and_ends_once(void **state)
{
	struct pressure_state s = { 0 };
	unsigned began = 0, ended = 0;

	for (uint64_t now = 0; now < 120000; now += 100) {
		bool presses = now < 60000 && now % 14000 < 3000;
		enum pressure_change c = presses ? event(&s, now, s.limit ? s.limit : 8000) : rest(&s, now, s.limit ? s.limit : 8000);

		began += c == PRESSURE_BEGAN;
		ended += c == PRESSURE_ENDED;
	}
	assert_int_equal(began, 1);
	assert_int_equal(ended, 1);
}

static void memory_max_below_the_limit_ends_the_episode(void **state)
{
	struct pressure_state s = { 0 };
	struct pressure_input in = calm(2000, 3500);

	assert_int_equal(event(&s, 1000, 4000), PRESSURE_BEGAN);
	in.memory_max = 3000;
	assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_ENDED);
	assert_int_equal(s.limit, 0);
}

static void switched_off_it_lets_go_and_takes_nothing(void **state)
{
	struct pressure_state s = { 0 };
	struct pressure_input in = calm(2000, 3500);

	assert_int_equal(event(&s, 1000, 4000), PRESSURE_BEGAN);
	in.enabled = false;
	in.event = true;
	in.lacking = 1000;
	assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_ENDED);
	assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_NOTHING);
}

static void nothing_is_taken_where_memory_min_is_everything(void **state)
{
	struct pressure_state s = { 0 };
	struct pressure_input in = calm(1000, 8000);

	in.event = true;
	in.memory_min = 9000;
	assert_int_equal(pressure_step(&s, &in, &timing), PRESSURE_NOTHING);
	assert_int_equal(s.limit, 0);
}

/* --- what is read --- */

static char base[64];
static const char *const folders[] = { "", "proc", "proc/pressure", "mem", "mem/web", "mem/web/one" };
static const char *const files[] = {
	"memory.usage_in_bytes", "memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.stat", "memory.current", "memory.max", "memory.high",
	"memory.events", "memory.pressure_level", "cgroup.event_control", "meminfo", "memory", "log",
};

static void join(char *out, const char *folder, const char *name)
{
	assert_true(snprintf(out, PATH_MAX, "%s/%s/%s", base, folder, name) < PATH_MAX);
}

static void write_file(const char *folder, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void write_file(const char *folder, const char *name, const char *format, ...)
{
	char path[PATH_MAX];
	va_list ap;
	FILE *f;

	join(path, folder, name);
	f = fopen(path, "we");
	assert_non_null(f);
	va_start(ap, format);
	assert_true(vfprintf(f, format, ap) >= 0);
	va_end(ap);
	assert_int_equal(fclose(f), 0);
}

static void write_number(const char *folder, const char *name, uint64_t mib)
{
	write_file(folder, name, "%llu\n", (unsigned long long)(mib * MIB));
}

static void write_machine(unsigned total_mib, unsigned available_mib)
{
	write_file("proc", "meminfo", "MemTotal:       %u kB\nMemFree:  5 kB\nMemAvailable:   %u kB\n", total_mib * 1024, available_mib * 1024);
}

static void write_v1(const char *folder, uint64_t usage, uint64_t limit, uint64_t file)
{
	write_number(folder, "memory.usage_in_bytes", usage);
	if (limit)
		write_number(folder, "memory.limit_in_bytes", limit);
	else
		write_file(folder, "memory.limit_in_bytes", "9223372036854771712\n");
	write_file(folder, "memory.soft_limit_in_bytes", "9223372036854771712\n");
	write_file(folder, "memory.stat", "cache 7\nactive_file 1\nhierarchical_memory_limit 9223372036854771712\ntotal_inactive_file %llu\ntotal_active_file %llu\n",
		   (unsigned long long)(file / 2 * MIB), (unsigned long long)((file - file / 2) * MIB));
}

static void write_v2(const char *folder, uint64_t usage, const char *max, const char *high, uint64_t file)
{
	write_number(folder, "memory.current", usage);
	write_file(folder, "memory.max", "%s\n", max);
	write_file(folder, "memory.high", "%s\n", high);
	write_file(folder, "memory.stat", "anon 1\ninactive_file %llu\nactive_file 0\n", (unsigned long long)(file * MIB));
}

static int setup(void **state)
{
	char path[PATH_MAX];

	strcpy(base, "/tmp/pgc-pressure-XXXXXX");
	assert_non_null(mkdtemp(base));
	for (size_t i = 1; i < ELEMENTSOF(folders); i++) {
		join(path, folders[i], "");
		assert_int_equal(mkdir(path, 0700), 0);
	}
	write_machine(16384, 12000);
	return 0;
}

static int teardown(void **state)
{
	char path[PATH_MAX];

	for (size_t i = ELEMENTSOF(folders); i-- > 0;) {
		for (size_t j = 0; j < ELEMENTSOF(files); j++) {
			join(path, folders[i], files[j]);
			if (access(path, F_OK) == 0)
				(void)unlink(path);
		}
		join(path, folders[i], "");
		(void)rmdir(path);
	}
	return access(base, F_OK) == 0 ? -1 : 0;
}

static struct room_reading read_room(const char *cgroup, bool v1)
{
	char proc[PATH_MAX], mount[PATH_MAX];
	struct memory_room m;
	struct room_reading r;

	join(proc, "proc", "");
	join(mount, "mem", "");
	mount[strlen(mount) - 1] = '\0';
	assert_int_equal(memory_room_open(&m, proc, cgroup ? mount : NULL, cgroup, v1), 0);
	memory_room_read(&m, &r);
	memory_room_close(&m);
	return r;
}

static void version_1_group_is_short_from_95_percent_on(void **state)
{
	struct room_reading r;

	write_v1("mem/web/one", 94, 100, 0);
	r = read_room("/web/one", true);
	assert_int_equal(r.lacking, 0);
	assert_int_equal(r.to_mark, MIB);
	assert_string_equal(r.cause, "");
	write_v1("mem/web/one", 95, 100, 0);
	r = read_room("/web/one", true);
	assert_int_equal(r.lacking, 5 * MIB);
	assert_int_equal(r.to_mark, 0);
	assert_non_null(strstr(r.cause, "95 of 100 MiB"));
	assert_non_null(strstr(r.cause, "/mem/web/one"));
}

static void page_cache_of_files_is_not_counted(void **state)
{
	struct room_reading r;

	write_v1("mem/web/one", 100, 100, 31);
	r = read_room("/web/one", true);
	assert_int_equal(r.lacking, 0);
	assert_int_equal(r.to_mark, 26 * MIB);
	assert_int_equal(r.room, 21 * MIB);
	assert_false(r.tight);
	write_v1("mem/web/one", 100, 100, 25);
	assert_true(read_room("/web/one", true).tight);
}

static void version_1_soft_limit_counts_as_a_limit(void **state)
{
	write_v1("mem/web/one", 70, 100, 0);
	assert_int_equal(read_room("/web/one", true).lacking, 0);
	write_number("mem/web/one", "memory.soft_limit_in_bytes", 50);
	assert_int_equal(read_room("/web/one", true).lacking, 25 * MIB);
}

static void version_1_limit_of_an_unseen_ancestor_counts(void **state)
{
	write_v1("mem/web/one", 70, 0, 0);
	write_file("mem/web/one", "memory.stat", "hierarchical_memory_limit %llu\n", (unsigned long long)(50 * MIB));
	assert_int_equal(read_room("/web/one", true).lacking, 25 * MIB);
}

static void version_2_group_has_the_smaller_of_high_and_max(void **state)
{
	write_v2("mem/web/one", 70, "104857600", "max", 0);
	assert_int_equal(read_room("/web/one", false).lacking, 0);
	write_v2("mem/web/one", 70, "104857600", "52428800", 0);
	assert_int_equal(read_room("/web/one", false).lacking, 25 * MIB);
	write_v2("mem/web/one", 70, "52428800", "max", 0);
	assert_int_equal(read_room("/web/one", false).lacking, 25 * MIB);
	write_v2("mem/web/one", 70, "max", "max", 0);
	assert_int_equal(read_room("/web/one", false).lacking, 0);
}

static void ancestor_with_less_room_decides(void **state)
{
	struct room_reading r;

	write_v1("mem/web/one", 50, 100, 0);
	write_v1("mem/web", 60, 0, 0);
	write_v1("mem", 99, 100, 0);
	r = read_room("/web/one", true);
	assert_int_equal(r.lacking, 9 * MIB);
	write_v1("mem", 80, 100, 0);
	r = read_room("/web/one/", true);
	assert_int_equal(r.lacking, 0);
	assert_int_equal(r.to_mark, 15 * MIB);
}

static void machine_is_short_below_two_percent(void **state)
{
	struct room_reading r;

	write_machine(16384, 329);
	r = read_room(NULL, true);
	assert_int_equal(r.lacking, 0);
	assert_true(r.tight);
	write_machine(16384, 327);
	r = read_room(NULL, true);
	assert_true(r.lacking > 327 * MIB && r.lacking < 330 * MIB);
	assert_non_null(strstr(r.cause, "327 of 16384 MiB are available"));
}

static void machine_is_short_below_128_mib(void **state)
{
	write_machine(4096, 129);
	assert_int_equal(read_room(NULL, true).lacking, 0);
	write_machine(4096, 127);
	assert_int_equal(read_room(NULL, true).lacking, 129 * MIB);
}

static void what_cannot_be_read_has_no_say(void **state)
{
	struct room_reading r;

	write_file("proc", "meminfo", "nonsense\n");
	write_v1("mem/web/one", 70, 100, 0);
	write_file("mem/web/one", "memory.usage_in_bytes", "x\n");
	r = read_room("/web/one", true);
	assert_int_equal(r.lacking, 0);
	assert_true(r.to_mark == UINT64_MAX);
	assert_false(r.tight);
}

/* --- both together --- */

struct rig {
	struct pressure p;
	struct ring ring;
	uint64_t used, max, min, limit;
	unsigned calls;
	bool enabled;
	int stderr_before;
};

static uint64_t rig_used(void *arg) { return ((struct rig *)arg)->used; }
static uint64_t rig_max(void *arg) { return ((struct rig *)arg)->max; }
static uint64_t rig_min(void *arg) { return ((struct rig *)arg)->min; }
static bool rig_enabled(void *arg) { return ((struct rig *)arg)->enabled; }
static void rig_limit(void *arg, uint64_t pages)
{
	struct rig *r = arg;

	r->calls++;
	r->limit = pages;
}

static void rig_open(struct rig *r, bool v1)
{
	char proc[PATH_MAX], mount[PATH_MAX], log[PATH_MAX];
	struct pressure_params params = {
		.ring = &r->ring, .proc = proc, .mount_point = mount, .cgroup = "/web/one", .v1 = v1, .timing = PRESSURE_TIMING_DEFAULT, .arg = r,
		.used = rig_used, .memory_max = rig_max, .memory_min = rig_min, .enabled = rig_enabled, .set_limit = rig_limit,
	};
	int fd;

	*r = (struct rig){ .used = PAGES(50), .max = PAGES(80), .min = PAGES(8), .enabled = true };
	join(proc, "proc", "");
	join(mount, "mem", "");
	mount[strlen(mount) - 1] = '\0';
	join(log, "", "log");
	fflush(stderr);
	r->stderr_before = dup(STDERR_FILENO);
	fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	assert_true(r->stderr_before >= 0 && fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
	close(fd);
	log_init(LOG_LEVEL_NOTICE);
	assert_int_equal(ring_init(&r->ring, 64), 0);
	assert_int_equal(pressure_start(&r->p, &params), 0);
}

static void rig_close(struct rig *r)
{
	pressure_stop(&r->p);
	ring_free(&r->ring);
	fflush(stderr);
	dup2(r->stderr_before, STDERR_FILENO);
	close(r->stderr_before);
}

/* Lines of the log that have `text` in them; all with "". */
static unsigned logged(const char *text)
{
	char path[PATH_MAX], line[1024];
	unsigned n = 0;
	FILE *f;

	join(path, "", "log");
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

static void run_until_limit(struct rig *r)
{
	uint64_t end = now_ns() + 10000000000ull;

	while (r->calls == 0) {
		assert_true(now_ns() < end);
		assert_true(ring_run(&r->ring, true, 64) >= 0);
	}
}

static void episode_is_logged_at_its_start_and_its_end(void **state)
{
	struct rig r;
	uint64_t now = now_ns() / 1000000;

	write_v1("mem/web/one", 60, 100, 0);
	rig_open(&r, true);
	assert_int_equal(r.calls, 0);
	write_v1("mem/web/one", 97, 100, 0);
	for (unsigned i = 0; i < 10; i++) {
		pressure_look(&r.p, now += 600);
		r.used = MIN(r.used, r.limit);
	}
	assert_true(r.limit == r.min);
	assert_int_equal(logged(""), 1);
	assert_int_equal(logged("memory pressure: 97 of 100 MiB are in use in the memory cgroup"), 1);
	write_v1("mem/web/one", 10, 100, 0);
	for (unsigned i = 0; i < 25; i++)
		pressure_look(&r.p, now += 1000);
	assert_true(r.limit == 0);
	assert_int_equal(logged(""), 2);
	assert_int_equal(logged("memory pressure is over: the cache may hold 80 MiB again"), 1);
	assert_int_equal(logged("at the lowest to 8 MiB"), 1);
	rig_close(&r);
}

static void shortage_is_seen_by_the_timer(void **state)
{
	struct rig r;

	write_v1("mem/web/one", 90, 100, 0);
	rig_open(&r, true);
	assert_int_equal(r.calls, 0);
	write_v1("mem/web/one", 98, 100, 0);
	run_until_limit(&r);
	assert_true(r.limit < r.used && r.limit >= r.min);
	rig_close(&r);
}

/* The eventfd that would be the kernel's. */
static int event_fd(struct rig *r)
{
	for (unsigned i = 0; i < r->p.n_sources; i++)
		if (r->p.source[i].events == POLLIN)
			return r->p.source[i].fd;
	fail_msg("no source of pressure_level");
	return -1;
}

static void pressure_level_of_a_tight_group_shrinks_the_cache(void **state)
{
	uint64_t one = 1;
	struct rig r;

	write_v1("mem/web/one", 80, 100, 0);
	write_file("mem/web/one", "memory.pressure_level", "%s", "");
	write_file("mem/web/one", "cgroup.event_control", "%s", "");
	rig_open(&r, true);
	assert_int_equal(write(event_fd(&r), &one, sizeof(one)), sizeof(one));
	run_until_limit(&r);
	assert_true(r.limit == PAGES(50) - PAGES(50) / 8);
	assert_int_equal(logged("memory.pressure_level"), 1);
	rig_close(&r);
}

static void pressure_level_of_a_group_with_free_memory_means_nothing(void **state)
{
	uint64_t one = 1, left;
	struct rig r;
	int fd;

	write_v1("mem/web/one", 60, 100, 0);
	write_file("mem/web/one", "memory.pressure_level", "%s", "");
	write_file("mem/web/one", "cgroup.event_control", "%s", "");
	rig_open(&r, true);
	fd = event_fd(&r);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	/* Until it was heard and looked at. */
	while (!r.p.event)
		assert_true(ring_run(&r.ring, true, 1) >= 0);
	while (r.p.event)
		assert_true(ring_run(&r.ring, true, 1) >= 0);
	assert_int_equal(read(fd, &left, sizeof(left)), -1);
	assert_int_equal(r.calls, 0);
	rig_close(&r);
}

static void event_control_gets_descriptors_level_and_mode(void **state)
{
	char path[PATH_MAX], text[64] = "";
	struct rig r;
	int event, level, fd;

	write_v1("mem/web/one", 60, 100, 0);
	write_file("mem/web/one", "memory.pressure_level", "%s", "");
	write_file("mem/web/one", "cgroup.event_control", "%s", "");
	rig_open(&r, true);
	join(path, "mem/web/one", "cgroup.event_control");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	assert_int_equal(sscanf(text, "%d %d ", &event, &level), 2);
	assert_int_equal(event, event_fd(&r));
	assert_non_null(strstr(text, " medium,local"));
	rig_close(&r);
}

static void psi_gets_a_trigger_that_needs_no_privilege(void **state)
{
	char path[PATH_MAX], text[64] = "";
	unsigned stall, window;
	struct rig r;
	int fd;

	write_file("proc/pressure", "memory", "%s", "");
	write_v2("mem/web/one", 60, "max", "max", 0);
	rig_open(&r, false);
	join(path, "proc/pressure", "memory");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	assert_int_equal(sscanf(text, "some %u %u", &stall, &window), 2);
	assert_true(window % 2000000 == 0 && stall < window);
	rig_close(&r);
}

static void only_the_counters_of_limits_count_as_events(void **state)
{
	char path[PATH_MAX];
	uint64_t before, after;
	int fd;

	write_file("mem", "memory.events", "low 0\nhigh 3\nmax 2\noom 1\noom_kill 9\n");
	join(path, "mem", "memory.events");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(memory_room_events(fd, &before), 0);
	assert_int_equal(before, 6);
	write_file("mem", "memory.events", "low 5\nhigh 4\nmax 2\noom 1\noom_kill 9\n");
	assert_int_equal(memory_room_events(fd, &after), 0);
	assert_int_equal(after, 7);
	write_file("mem", "memory.events", "populated 1\n");
	assert_int_equal(memory_room_events(fd, &after), -ENODATA);
	close(fd);
}

static void switched_off_while_it_presses_the_limit_goes(void **state)
{
	struct rig r;
	uint64_t now = now_ns() / 1000000;

	write_v1("mem/web/one", 97, 100, 0);
	rig_open(&r, true);
	assert_true(r.limit > 0);
	r.enabled = false;
	pressure_look(&r.p, now + 100);
	assert_true(r.limit == 0);
	assert_int_equal(r.calls, 2);
	pressure_look(&r.p, now + 200);
	assert_int_equal(r.calls, 2);
	rig_close(&r);
}

static void looks_come_sooner_the_less_room_there_is(void **state)
{
	struct rig r;
	uint64_t now = now_ns() / 1000000, far, nearer, near;

	write_v1("mem/web/one", 100, 4000, 0);
	rig_open(&r, true);
	far = pressure_look(&r.p, now + 100);
	write_v1("mem/web/one", 3600, 4000, 0);
	nearer = pressure_look(&r.p, now + 200);
	write_v1("mem/web/one", 3799, 4000, 0);
	near = pressure_look(&r.p, now + 300);
	assert_true(far == 5000 && nearer < 1000 && near < nearer && near >= 20);
	rig_close(&r);
}

int main(void)
{
#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_step_goes_to_what_is_known_to_help),
		cmocka_unit_test(lasting_pressure_shrinks_down_to_memory_min_and_no_further),
		cmocka_unit_test(signs_of_the_kernel_wait_for_the_last_step_to_show),
		cmocka_unit_test(measured_shortage_waits_only_until_the_pages_are_gone),
		cmocka_unit_test(pressure_never_raises_the_limit),
		cmocka_unit_test(limit_grows_by_an_eighth_a_second_after_ten_quiet_ones),
		cmocka_unit_test(sign_of_pressure_stops_growth_for_ten_more_seconds),
		cmocka_unit_test(limit_does_not_grow_into_room_that_is_not_there),
		cmocka_unit_test(episode_begins_and_ends_once),
		cmocka_unit_test(memory_max_below_the_limit_ends_the_episode),
		cmocka_unit_test(switched_off_it_lets_go_and_takes_nothing),
		cmocka_unit_test(nothing_is_taken_where_memory_min_is_everything),
		IN_FOLDER(version_1_group_is_short_from_95_percent_on),
		IN_FOLDER(page_cache_of_files_is_not_counted),
		IN_FOLDER(version_1_soft_limit_counts_as_a_limit),
		IN_FOLDER(version_1_limit_of_an_unseen_ancestor_counts),
		IN_FOLDER(version_2_group_has_the_smaller_of_high_and_max),
		IN_FOLDER(ancestor_with_less_room_decides),
		IN_FOLDER(machine_is_short_below_two_percent),
		IN_FOLDER(machine_is_short_below_128_mib),
		IN_FOLDER(what_cannot_be_read_has_no_say),
		IN_FOLDER(episode_is_logged_at_its_start_and_its_end),
		IN_FOLDER(shortage_is_seen_by_the_timer),
		IN_FOLDER(pressure_level_of_a_tight_group_shrinks_the_cache),
		IN_FOLDER(pressure_level_of_a_group_with_free_memory_means_nothing),
		IN_FOLDER(event_control_gets_descriptors_level_and_mode),
		IN_FOLDER(psi_gets_a_trigger_that_needs_no_privilege),
		IN_FOLDER(only_the_counters_of_limits_count_as_events),
		IN_FOLDER(switched_off_while_it_presses_the_limit_goes),
		IN_FOLDER(looks_come_sooner_the_less_room_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

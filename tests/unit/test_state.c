/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The visible state: memfds, BPF maps, their pins and tables, and slots. What needs BPF runs on a bpf file system
 * of its own, in a mount namespace of its own, so nothing is left behind. Where the kernel or the user does not
 * allow that these tests are skipped, or fail when PGC_REQUIRE_KERNEL is set. Where the kernel refuses iterators to everybody there must be all but
 * the tables, and state.missing says so.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "daemon/state.h"
#include "daemon/util/util.h"
#include "tests/bpf_tables.h"

static const char *const pin_names[] = {
	"files", "blocks", "mappings", "cgroups", "stats", "saved_files", "saved_handles", "show_files", "show_blocks", "show_mappings",
};

static char bpffs[64];     /* mount point of ours */
static bool have_bpffs;

static struct state_params params(const char *folder)
{
	return (struct state_params){
		.bpffs = folder, .workers = 2, .files = 10, .blocks = 2000, .mappings = 100, .cgroups = 16,
	};
}

static const char *in_bpffs(char *out, const char *name)
{
	assert_true(snprintf(out, PATH_MAX, "%s/%s", bpffs, name) < PATH_MAX);
	return out;
}

static bool exists(const char *folder, const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	assert_true(snprintf(path, sizeof(path), "%s/%s", folder, name) < PATH_MAX);
	return lstat(path, &st) == 0;
}

static int open_pin(const char *folder, const char *name)
{
	char path[PATH_MAX];
	int fd;

	assert_true(snprintf(path, sizeof(path), "%s/%s", folder, name) < PATH_MAX);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	return fd;
}

static uint32_t pinned_map_id(const char *folder, const char *name)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = open_pin(folder, name);

	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	return info.id;
}

/* What `cat FOLDER/NAME` prints, or where that cannot be had the same made from the pinned map; to be freed. */
static char *table(const char *folder, const char *name)
{
	char *text = bpf_table_text(folder, name);

	assert_non_null(text);
	return text;
}

static bool is_complete(const struct state *s)
{
	if (!bpf_iterators_refused())
		return s->bpf && !s->missing;
	return s->bpf && s->missing && strstr(s->missing, "tables cannot be loaded") && strstr(s->missing, strerror(EPERM));
}

static void assert_complete(const struct state *s)
{
	if (!is_complete(s))
		fail_msg("%s", s->missing ? s->missing : "nothing is said to be missing");
}

static bool may_be_pinned(const char *name)
{
	return strncmp(name, "show_", 5) != 0 || !bpf_iterators_refused();
}

/* Where word `n` of a line ends; -1: it has fewer. */
static int word_end(const char *line, int n)
{
	int i = 0;

	for (;;) {
		while (line[i] == ' ')
			i++;
		if (line[i] == '\n' || line[i] == '\0')
			return -1;
		while (line[i] != ' ' && line[i] != '\n' && line[i] != '\0')
			i++;
		if (n-- == 0)
			return i;
	}
}

/* The first `columns` numbers of every line end where their headings end. */
static void assert_aligned(const char *text, int columns)
{
	for (const char *line = strchr(text, '\n') + 1; *line; line = strchr(line, '\n') + 1)
		for (int n = 0; n < columns; n++)
			assert_int_equal(word_end(line, n), word_end(text, n));
}

static unsigned count_lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void require_bpf(void)
{
	if (have_bpffs)
		return;
	if (getenv("PGC_REQUIRE_KERNEL"))
		fail_msg("no bpf file system could be mounted");
	skip();
}

/* Runs `f` in a child, which must return 0. */
static void in_child(int (*f)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(f());
	assert_true(waitpid(pid, &status, 0) == pid);
	assert_int_equal(status, 0);
}

static void without_a_folder_the_arrays_are_zeroed_memfds(void **unused)
{
	static const char *const off[] = { NULL, "", "none" };

	for (size_t k = 0; k < ELEMENTSOF(off); k++) {
		struct state_params p = params(off[k]);
		struct pgc_block_entry e;
		struct state s;

		assert_int_equal(state_open(&s, &p), 0);
		assert_false(s.bpf);
		assert_null(s.missing);
		for (unsigned i = 0; i < ELEMENTSOF(s.map); i++)
			for (size_t b = i == 5 ? sizeof(struct pgc_saved_header) : 0; b < s.map[i].mem_size; b++)
				assert_int_equal(((const char *)s.map[i].mem)[b], 0);
		s.blocks[1999].dirty = 0x8000000000000001ull;
		assert_int_equal(pread(s.map[1].fd, &e, sizeof(e), 1999 * sizeof(e)), sizeof(e));
		assert_true(e.dirty == 0x8000000000000001ull);
		state_close(&s);
	}
}

static void there_is_room_for_what_was_asked_beside_slot_0_in_equal_shares(void **unused)
{
	for (unsigned workers = 1; workers <= 7; workers++) {
		struct state_params p = params(NULL);
		struct state s;
		unsigned n = 0;

		p.workers = workers;
		assert_int_equal(state_open(&s, &p), 0);
		assert_int_equal(s.params.files % workers, 0);
		for (unsigned w = 0; w < workers; w++) {
			uint32_t share = s.params.files / workers;
			struct slot_pool pool;
			int64_t slot;

			assert_int_equal(slot_pool_init(&pool, w * share, share), 0);
			while ((slot = slot_pool_take(&pool)) >= 0) {
				assert_true(slot > 0 && slot < s.map[0].entries);
				assert_int_equal(s.files[slot].file, 0);
				s.files[slot].file = (uint32_t)slot;
				n++;
			}
			assert_int_equal(slot, -ENOSPC);
			slot_pool_free(&pool);
		}
		assert_true(n >= 10);
		assert_int_equal(s.files[0].file, 0);
		s.stats[workers].bad_messages = 1;
		assert_int_equal(s.map[4].entries, workers + 1);
		state_close(&s);
	}
}

static void no_worker_no_slots_and_too_many_are_refused(void **unused)
{
	struct state s;

	for (int k = 0; k < 6; k++) {
		struct state_params p = params(NULL);

		if (k == 0)
			p.workers = 0;
		if (k == 1)
			p.files = 0;
		if (k == 2)
			p.blocks = UINT32_MAX;
		if (k == 3)
			p.mappings = 0;
		if (k == 4)
			p.cgroups = 0;
		if (k == 5)
			p.cgroups = UINT32_MAX;
		assert_int_equal(state_open(&s, &p), -EINVAL);
	}
}

static void slot_given_back_is_taken_next(void **unused)
{
	struct slot_pool p;

	assert_int_equal(slot_pool_init(&p, 8, 3), 0);
	assert_int_equal(slot_pool_take(&p), 8);
	assert_int_equal(slot_pool_take(&p), 9);
	slot_pool_give(&p, 8);
	assert_int_equal(slot_pool_take(&p), 8);
	assert_int_equal(slot_pool_take(&p), 10);
	assert_int_equal(slot_pool_take(&p), -ENOSPC);
	slot_pool_free(&p);
	assert_int_equal(slot_pool_init(&p, 0, 1), 0);
	assert_int_equal(slot_pool_take(&p), -ENOSPC);
	slot_pool_free(&p);
	assert_int_equal(slot_pool_init(&p, 1, UINT32_MAX), -EINVAL);
}

static void folder_on_another_file_system_is_not_made_and_named(void **unused)
{
	char base[] = "/tmp/pgc-state-XXXXXX", folder[64];
	struct state_params p = params(folder);
	struct state s;

	assert_non_null(mkdtemp(base));
	(void)snprintf(folder, sizeof(folder), "%s/pins", base);
	assert_int_equal(state_open(&s, &p), 0);
	assert_false(s.bpf);
	assert_non_null(s.missing);
	assert_non_null(strstr(s.missing, base));
	assert_false(exists(base, "pins"));
	s.files[1].file = 1;
	state_close(&s);

	p.bpffs = base;            /* there, but no bpffs */
	assert_int_equal(state_open(&s, &p), 0);
	assert_false(s.bpf);
	assert_non_null(strstr(s.missing, base));
	state_close(&s);
	assert_int_equal(rmdir(base), 0);
}

static void what_is_stored_is_read_through_a_pin(void **unused)
{
	char folder[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "values"));
	struct pgc_file_entry f;
	struct pgc_stats_entry t;
	struct pgc_block_entry b;
	struct state s;
	uint32_t key;
	int fd;

	require_bpf();
	assert_int_equal(state_open(&s, &p), 0);
	assert_complete(&s);
	for (unsigned i = 0; i < ELEMENTSOF(s.map); i++) {
		struct bpf_map_info info = { 0 };
		uint32_t len = sizeof(info);

		fd = open_pin(folder, s.map[i].name);
		assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
		assert_string_equal(info.name, s.map[i].name);
		assert_int_equal(info.max_entries, s.map[i].entries);
		assert_int_equal(info.value_size, s.map[i].entry_size);
		assert_true(info.map_flags & BPF_F_MMAPABLE);
		assert_true(info.btf_value_type_id != 0);
		close(fd);
	}

	s.files[3] = (struct pgc_file_entry){ .file = 3, .handles = 2, .dirty = 77, .name = "/srv/data" };
	fd = open_pin(folder, "files");
	key = 3;
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &f), 0);
	assert_memory_equal(&f, &s.files[3], sizeof(f));
	close(fd);

	key = s.params.blocks - 1;
	s.blocks[key].writeback = ~0ull;
	fd = open_pin(folder, "blocks");
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &b), 0);
	assert_true(b.writeback == ~0ull && b.dirty == 0);
	close(fd);

	key = 2;                   /* the main thread's */
	s.stats[key].handles_opened = 5;
	fd = open_pin(folder, "stats");
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &t), 0);
	assert_true(t.handles_opened == 5);
	close(fd);
	state_close(&s);
}

static void tables_have_a_header_and_the_slots_in_use(void **unused)
{
	char folder[PATH_MAX], *text;
	struct state_params p = params(in_bpffs(folder, "tables"));
	struct state s;

	require_bpf();
	assert_int_equal(state_open(&s, &p), 0);
	assert_complete(&s);

	text = table(folder, "show_files");
	assert_int_equal(count_lines(text), 1);
	assert_non_null(strstr(text, "NAME\n"));
	free(text);
	s.files[1] = (struct pgc_file_entry){
		.file = 1, .worker = 1, .size = 1ull << 40, .handles = 2, .mappings = 3, .resident = 4,
		.dirty = 5, .writeback = 6, .keep = 7, .error = 28, .name = "/srv/a file",
	};
	s.files[9] = (struct pgc_file_entry){ .file = 9, .size = 12345, .resident = 1234567, .name = "/srv/b" };
	text = table(folder, "show_files");
	assert_int_equal(count_lines(text), 3);
	assert_aligned(text, 10);
	assert_non_null(strstr(text, " 1099511627776 "));
	assert_non_null(strstr(text, " 28 /srv/a file\n"));
	assert_non_null(strstr(text, " /srv/b\n"));
	free(text);

	s.blocks[1] = (struct pgc_block_entry){
		.file = 1, .refs = 2, .index = 1ull << 22, .cgroup = ~0ull, .resident = ~0ull, .dirty = 1,
	};
	for (unsigned i = 2; i < 2000; i++)
		s.blocks[i] = (struct pgc_block_entry){ .file = 9, .index = i, .resident = i };
	text = table(folder, "show_blocks");   /* more than one read's worth: one header all the same */
	assert_int_equal(count_lines(text), 2000);
	assert_aligned(text, 8);
	assert_non_null(strstr(text, " 18446744073709551615 0xffffffffffffffff 0x0000000000000001 "
				     "0x0000000000000000 0x0000000000000000\n"));
	assert_non_null(strstr(text, " 0x00000000000007cf "));
	assert_null(strstr(strchr(text, '\n'), "FILE"));
	free(text);

	s.mappings[100] = (struct pgc_mapping_entry){
		.file = 9, .refs = 2, .start = 4096, .end = 1ull << 40, .cgroup = 4321,
	};
	text = table(folder, "show_mappings");
	assert_int_equal(count_lines(text), 2);
	assert_aligned(text, 5);
	assert_non_null(strstr(text, " 4096    1099511627776      2                 4321\n"));
	free(text);
	state_close(&s);
}

static void close_removes_the_pins_and_the_folder_it_made(void **unused)
{
	char folder[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "closed/"));
	struct state s;

	require_bpf();
	assert_int_equal(state_open(&s, &p), 0);
	assert_true(s.bpf);
	for (size_t i = 0; i < ELEMENTSOF(pin_names); i++)
		assert_int_equal(exists(folder, pin_names[i]), may_be_pinned(pin_names[i]));
	state_close(&s);
	assert_false(exists(bpffs, "closed"));
	assert_false(s.bpf);
	state_close(&s);           /* nothing left to do */
}

static void close_leaves_what_is_not_its_own(void **unused)
{
	char folder[PATH_MAX], other[PATH_MAX], pin[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "shared"));
	struct state s;

	require_bpf();
	assert_int_equal(mkdir(folder, 0755), 0);
	assert_int_equal(state_open(&s, &p), 0);
	assert_true(s.bpf);
	assert_int_equal(bpf_obj_pin(s.map[0].fd, in_bpffs(other, "shared/other")), 0);
	/* Somebody has put another thing in the place of a pin. */
	assert_int_equal(unlink(in_bpffs(pin, "shared/stats")), 0);
	assert_int_equal(bpf_obj_pin(s.map[0].fd, pin), 0);
	state_close(&s);
	for (size_t i = 0; i < ELEMENTSOF(pin_names); i++)
		assert_int_equal(exists(folder, pin_names[i]), strcmp(pin_names[i], "stats") == 0);
	assert_int_equal(unlink(other), 0);
	assert_int_equal(unlink(pin), 0);
	assert_int_equal(rmdir(folder), 0);   /* it was there before */
}

static int open_and_crash(void)
{
	char folder[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "stale"));
	struct state s;

	if (state_open(&s, &p) < 0 || !is_complete(&s))
		return 1;
	s.files[5] = (struct pgc_file_entry){ .file = 5, .name = "old" };
	return 0;
}

static void stale_pins_of_a_crashed_daemon_are_replaced(void **unused)
{
	char folder[PATH_MAX], *text;
	struct state_params p = params(in_bpffs(folder, "stale"));
	uint32_t old[5];
	struct state s;

	require_bpf();
	in_child(open_and_crash);
	text = table(folder, "show_files");
	assert_non_null(strstr(text, "old"));
	free(text);
	for (unsigned i = 0; i < 5; i++)
		old[i] = pinned_map_id(folder, pin_names[i]);

	assert_int_equal(state_open(&s, &p), 0);
	assert_complete(&s);
	assert_int_equal(s.files[5].file, 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_not_equal(pinned_map_id(folder, pin_names[i]), old[i]);
	s.files[6] = (struct pgc_file_entry){ .file = 6, .name = "new" };
	text = table(folder, "show_files");
	assert_null(strstr(text, "old"));
	assert_non_null(strstr(text, "new"));
	free(text);
	state_close(&s);
	for (size_t i = 0; i < ELEMENTSOF(pin_names); i++)
		assert_false(exists(folder, pin_names[i]));
	assert_int_equal(rmdir(folder), 0);   /* the crashed one's */
}

static void living_daemons_pins_are_not_replaced(void **unused)
{
	char folder[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "busy"));
	struct state first, second;
	uint32_t id;

	require_bpf();
	assert_int_equal(state_open(&first, &p), 0);
	assert_true(first.bpf);
	id = pinned_map_id(folder, "files");
	assert_int_equal(state_open(&second, &p), 0);
	assert_false(second.bpf);
	assert_non_null(strstr(second.missing, "in use"));
	second.files[1].file = 1;
	state_close(&second);
	assert_int_equal(pinned_map_id(folder, "files"), id);
	assert_int_equal(first.files[1].file, 0);
	state_close(&first);
	assert_false(exists(bpffs, "busy"));
}

static void two_daemons_with_two_folders_do_not_meet(void **unused)
{
	char a[PATH_MAX], b[PATH_MAX];
	struct state_params pa = params(in_bpffs(a, "a")), pb = params(in_bpffs(b, "b"));
	struct state sa, sb;
	char *text;

	require_bpf();
	assert_int_equal(state_open(&sa, &pa), 0);
	assert_int_equal(state_open(&sb, &pb), 0);
	assert_true(sa.bpf && sb.bpf);
	sa.files[1] = (struct pgc_file_entry){ .file = 1, .name = "only-a" };
	text = table(b, "show_files");
	assert_int_equal(count_lines(text), 1);
	free(text);
	state_close(&sa);
	assert_false(exists(bpffs, "a"));
	text = table(b, "show_files");
	assert_int_equal(count_lines(text), 1);
	free(text);
	state_close(&sb);
}

static void pin_that_cannot_be_replaced_falls_back_and_takes_back(void **unused)
{
	char folder[PATH_MAX], blocker[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "blocked"));
	struct state s;

	require_bpf();
	assert_int_equal(mkdir(folder, 0755), 0);
	assert_int_equal(mkdir(in_bpffs(blocker, "blocked/mappings"), 0755), 0);
	assert_int_equal(state_open(&s, &p), 0);
	assert_false(s.bpf);
	assert_non_null(strstr(s.missing, "/blocked/mappings"));
	s.mappings[1].file = 1;
	state_close(&s);
	assert_false(exists(folder, "files"));
	assert_int_equal(rmdir(blocker), 0);
	assert_int_equal(rmdir(folder), 0);
}

/* A daemon that does not come to its end holds the lock: its state is not lost, so it is not taken for that. */
static void state_that_somebody_holds_is_waited_for_where_descriptors_were_kept(void **unused)
{
	char folder[] = "/dev/shm/pgc-state-XXXXXX", prefix[PATH_MAX];
	struct state_params p = params("none");
	struct state holder, next;

	if (!mkdtemp(folder))
		fail_msg("%s", strerror(errno));
	(void)snprintf(prefix, sizeof(prefix), "%s/held.", folder);
	p.prefix = prefix;
	p.recover = true;
	assert_int_equal(state_open(&holder, &p), 0);
	assert_true(holder.lasting);
	holder.files[1].resident = 7;
	p.kept = true;
	assert_int_equal(state_open(&next, &p), -EBUSY);
	assert_true(exists(folder, "held.files"));
	assert_int_equal(holder.files[1].resident, 7);
	state_close(&holder);
	assert_int_equal(rmdir(folder), 0);
}

static int open_as_nobody(void)
{
	char folder[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "nobody"));
	struct state s;
	int bad;

	if (setgid(65534) < 0 || setuid(65534) < 0 || state_open(&s, &p) < 0)
		return 1;
	bad = s.bpf || !s.missing || !strstr(s.missing, strerror(EPERM)) || exists(bpffs, "nobody");
	s.files[1].file = 1;
	state_close(&s);
	return bad ? 2 : 0;
}

static void ordinary_user_gets_memfds_and_the_reason(void **unused)
{
	require_bpf();
	assert_int_equal(chmod(bpffs, 01777), 0);
	in_child(open_as_nobody);
}

/* CAP_BPF makes maps, but a program that reads kernel memory needs CAP_PERFMON too. */
static int open_without_perfmon(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	char folder[PATH_MAX];
	struct state_params p = params(in_bpffs(folder, "maps-only"));
	struct state s;
	int bad;

	data[CAP_BPF / 32].effective = data[CAP_BPF / 32].permitted = 1u << (CAP_BPF % 32);
	if (syscall(SYS_capset, &head, data) < 0 || state_open(&s, &p) < 0)
		return 1;
	bad = !s.bpf || !s.missing || !strstr(s.missing, "tables") ||
	      !exists(folder, "blocks") || exists(folder, "show_blocks");
	state_close(&s);
	return bad || exists(bpffs, "maps-only") ? 2 : 0;
}

static void without_tables_the_maps_are_still_there(void **unused)
{
	require_bpf();
	in_child(open_without_perfmon);
}

static int mount_bpffs(void **unused)
{
	strcpy(bpffs, "/tmp/pgc-bpffs-XXXXXX");
	if (!mkdtemp(bpffs))
		return -1;
	have_bpffs = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		     mount("bpf", bpffs, "bpf", 0, NULL) == 0;
	return 0;
}

static int unmount_bpffs(void **unused)
{
	if (have_bpffs && umount2(bpffs, MNT_DETACH) < 0)
		return -1;
	return rmdir(bpffs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_folder_the_arrays_are_zeroed_memfds),
		cmocka_unit_test(there_is_room_for_what_was_asked_beside_slot_0_in_equal_shares),
		cmocka_unit_test(no_worker_no_slots_and_too_many_are_refused),
		cmocka_unit_test(slot_given_back_is_taken_next),
		cmocka_unit_test(folder_on_another_file_system_is_not_made_and_named),
		cmocka_unit_test(what_is_stored_is_read_through_a_pin),
		cmocka_unit_test(tables_have_a_header_and_the_slots_in_use),
		cmocka_unit_test(close_removes_the_pins_and_the_folder_it_made),
		cmocka_unit_test(close_leaves_what_is_not_its_own),
		cmocka_unit_test(stale_pins_of_a_crashed_daemon_are_replaced),
		cmocka_unit_test(living_daemons_pins_are_not_replaced),
		cmocka_unit_test(two_daemons_with_two_folders_do_not_meet),
		cmocka_unit_test(pin_that_cannot_be_replaced_falls_back_and_takes_back),
		cmocka_unit_test(state_that_somebody_holds_is_waited_for_where_descriptors_were_kept),
		cmocka_unit_test(ordinary_user_gets_memfds_and_the_reason),
		cmocka_unit_test(without_tables_the_maps_are_still_there),
	};

	return cmocka_run_group_tests(tests, mount_bpffs, unmount_bpffs);
}

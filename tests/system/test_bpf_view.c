/* SPDX-License-Identifier: Apache-2.0 */
/* What bpftool and cat show of the daemon's pinned maps and tables is what two processes have just done, and nothing else. */
#include "harness.h"
#include "tests/bpf_tables.h"

#include <dirent.h>

/* Small maps, so that a dump of one is small. */
#define VIEW .max_files = 64, .max_blocks = 256, .max_mappings = 128

static void need_bpf(void)
{
	if (!env.bpffs[0] || !status().bpf)
		skip_test("no BPF maps: not root, or the kernel refuses them");
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* A char array is shown as text or, by some versions, as a list of characters. */
static void copy_text(json_object *v, char *ret, size_t n)
{
	size_t len = 0;

	if (json_object_get_type(v) != json_type_array) {
		snprintf(ret, n, "%s", json_object_get_string(v));
		return;
	}
	for (; len < json_object_array_length(v) && len + 1 < n; len++) {
		const char *c = json_object_get_string(json_object_array_get_idx(v, len));

		ret[len] = c ? *c : '\0';
	}
	ret[len] = '\0';
}

/* The used entry of `files` whose name ends so; *ret_dump keeps it alive. */
static json_object *file_entry(const char *path, json_object **ret_dump)
{
	json_object *found = NULL;

	*ret_dump = bpf_dump("files");
	for (size_t i = 0; i < json_object_array_length(*ret_dump); i++) {
		json_object *e = json_object_array_get_idx(*ret_dump, i), *v;
		char name[256];

		if (json_int(e, "file") == 0)
			continue;
		CHECK_EQ(json_int(e, "file"), i);
		CHECK(json_object_object_get_ex(e, "name", &v));
		copy_text(v, name, sizeof(name));
		if (strcmp(base_name(name), base_name(path)) == 0) {
			CHECK(!found);
			found = e;
		}
	}
	if (!found)
		FAIL("map `files` has no entry for %s", path);
	return found;
}

static int64_t file_number(const char *path, const char *key)
{
	json_object *dump, *e = file_entry(path, &dump);
	int64_t v = json_int(e, key);

	json_object_put(dump);
	return v;
}

/* Bitmap `key` of block `index` of a file; 0 when there is no such block. */
static uint64_t block_bits(int64_t file, uint64_t index, const char *key)
{
	json_object *dump = bpf_dump("blocks"), *v;
	uint64_t bits = 0;
	unsigned n = 0;

	for (size_t i = 0; i < json_object_array_length(dump); i++) {
		json_object *e = json_object_array_get_idx(dump, i);

		if (json_int(e, "file") != file || (uint64_t)json_int(e, "index") != index)
			continue;
		CHECK(json_object_object_get_ex(e, key, &v));
		bits = json_object_get_uint64(v);
		n++;
	}
	CHECK(n <= 1);
	json_object_put(dump);
	return bits;
}

/* References of each page of a file as map `mappings` tells them; ranges may not overlap. Returns the number of entries. */
static unsigned refs_by_page(int64_t file, unsigned *refs, size_t pages)
{
	json_object *dump = bpf_dump("mappings");
	unsigned n = 0;

	memset(refs, 0, pages * sizeof(*refs));
	for (size_t i = 0; i < json_object_array_length(dump); i++) {
		json_object *e = json_object_array_get_idx(dump, i);
		uint64_t start, end;

		if (json_int(e, "file") != file)
			continue;
		start = (uint64_t)json_int(e, "start");
		end = (uint64_t)json_int(e, "end");
		CHECK(start < end && start % PAGE == 0 && end % PAGE == 0 && end <= pages * PAGE);
		CHECK(json_int(e, "refs") > 0);
		for (uint64_t page = start / PAGE; page < end / PAGE; page++) {
			CHECK_EQ(refs[page], 0);
			refs[page] = (unsigned)json_int(e, "refs");
		}
		n++;
	}
	json_object_put(dump);
	return n;
}

/* The map is brought up to date at the end of the daemon's round: look until it is so. */
static bool refs_are(int64_t file, const unsigned *want, size_t pages)
{
	unsigned have[64];

	refs_by_page(file, have, pages);
	return memcmp(have, want, pages * sizeof(*want)) == 0;
}

enum { STEP_MAP = 1, STEP_UNMAP, STEP_STORE, STEP_END };

#define PAGES 16

static void map_peer(struct peer *p, void *path)
{
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = NULL;

	peer_tell(p, 0);
	for (;;) {
		uint64_t step = peer_hear(p);

		if (step == STEP_MAP)
			m = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 4 * PAGE);
		else if (step == STEP_UNMAP)
			CHECK(munmap(m, 8 * PAGE) == 0);
		else if (step == STEP_STORE)
			store(m + 3 * PAGE, 0);
		else
			return;
		peer_tell(p, step);
	}
}

SYSTEM_TEST(mappings_show_references_after_map_and_unmap_in_two_processes, VIEW)
{
	static const unsigned mine[PAGES] = {1, 1, 1, 1, 1, 1, 1, 1}, both[PAGES] = {1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1},
			      cut[PAGES] = {1, 1, 0, 0, 1, 1, 2, 2, 1, 1, 1, 1}, theirs[PAGES] = {0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}, none[PAGES];
	char *path = make_file("refs", PAGES * PAGE, 1);
	struct peer *p = peer_start(map_peer, path);
	struct pgc_file *f;
	int64_t file;
	uint8_t *m;

	peer_hear(p);
	f = open_file(path, O_RDWR);
	need_bpf();
	file = file_number(path, "file");
	CHECK_EQ(file_number(path, "handles"), 2);
	CHECK_EQ(file_number(path, "mappings"), 0);
	CHECK(refs_are(file, none, PAGES));
	m = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	WAIT_UNTIL(refs_are(file, mine, PAGES));
	peer_ask(p, STEP_MAP);
	WAIT_UNTIL(refs_are(file, both, PAGES));
	CHECK_EQ(file_number(path, "mappings"), 2);
	CHECK_EQ(pgc_munmap(m + 2 * PAGE, 4 * PAGE), 0);
	WAIT_UNTIL(refs_are(file, cut, PAGES));
	CHECK_EQ(pgc_munmap(m, 8 * PAGE), 0);
	WAIT_UNTIL(refs_are(file, theirs, PAGES));
	WAIT_UNTIL(file_number(path, "mappings") == 1);
	peer_ask(p, STEP_UNMAP);
	WAIT_UNTIL(refs_are(file, none, PAGES));
	CHECK_EQ(file_number(path, "mappings"), 0);
	peer_tell(p, STEP_END);
	peer_join(p);
	WAIT_UNTIL(file_number(path, "handles") == 1);
}

SYSTEM_TEST(references_of_a_killed_process_go, VIEW)
{
	static const unsigned theirs[PAGES] = {0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}, none[PAGES];
	char *path = make_file("killed", PAGES * PAGE, 1);
	struct peer *p = peer_start(map_peer, path);
	int64_t file;

	peer_hear(p);
	need_bpf();
	open_file(path, O_RDWR);
	file = file_number(path, "file");
	peer_ask(p, STEP_MAP);
	WAIT_UNTIL(refs_are(file, theirs, PAGES));
	peer_kill(p);
	WAIT_UNTIL(refs_are(file, none, PAGES));
	WAIT_UNTIL(file_number(path, "handles") == 1);
}

SYSTEM_TEST(blocks_show_dirty_after_stores_of_two_processes_and_after_fsync, VIEW)
{
	char *path = make_file("dirty", 200 * PAGE, 1);
	struct peer *p = peer_start(map_peer, path);
	struct pgc_file *f;
	int64_t file;
	uint8_t *m;

	peer_hear(p);
	f = open_file(path, O_RDWR);
	need_bpf();
	m = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	peer_ask(p, STEP_MAP);
	file = file_number(path, "file");
	CHECK_EQ(block_bits(file, 0, "dirty"), 0);
	CHECK_EQ(load(m + 40 * PAGE), pattern_byte(40 * PAGE, 1));
	CHECK_EQ(block_bits(file, 0, "dirty"), 0);
	CHECK(block_bits(file, 0, "resident") & 1ull << 40);

	store(m + 20 * PAGE, 0);
	CHECK_EQ(look_for_stores(), 1);
	CHECK_EQ(block_bits(file, 0, "dirty"), 1ull << 20);
	CHECK_EQ(file_number(path, "dirty"), 1);
	CHECK(file_number(path, "dirty_since") > 0);
	peer_ask(p, STEP_STORE);                  /* page 7 */
	CHECK_EQ(look_for_stores(), 2);
	CHECK_EQ(block_bits(file, 0, "dirty"), 1ull << 20 | 1ull << 7);
	store(m + 150 * PAGE, 0);                 /* block 2, page 22 of it */
	CHECK_EQ(look_for_stores(), 3);
	CHECK_EQ(block_bits(file, 2, "dirty"), 1ull << 22);
	CHECK_EQ(block_bits(file, 1, "dirty"), 0);
	CHECK_EQ(file_number(path, "dirty"), 3);
	CHECK_EQ(block_bits(file, 0, "resident") & (1ull << 20 | 1ull << 7), (1ull << 20 | 1ull << 7));

	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(block_bits(file, 0, "dirty"), 0);
	CHECK_EQ(block_bits(file, 2, "dirty"), 0);
	CHECK_EQ(block_bits(file, 0, "writeback"), 0);
	CHECK_EQ(file_number(path, "dirty"), 0);
	CHECK_EQ(file_number(path, "dirty_since"), 0);
	CHECK_EQ(file_number(path, "error"), 0);
	/* The store that comes after is seen as well. */
	peer_ask(p, STEP_STORE);
	CHECK_EQ(look_for_stores(), 1);
	CHECK_EQ(block_bits(file, 0, "dirty"), 1ull << 7);
	peer_tell(p, STEP_END);
	peer_join(p);
}

SYSTEM_TEST(files_show_identity_size_and_pages, VIEW)
{
	char *path = make_file("one", 50 * PAGE + 3, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 50 * PAGE + 3, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct stat st;

	need_bpf();
	PATTERN_CHECK(m, 50 * PAGE + 3, 0, 1);
	CHECK(stat(path, &st) == 0);
	CHECK_EQ(file_number(path, "ino"), st.st_ino);
	CHECK_EQ(file_number(path, "dev"), st.st_dev);
	CHECK_EQ(file_number(path, "size"), st.st_size);
	CHECK_EQ(file_number(path, "resident"), 51);
	CHECK_EQ(file_number(path, "handles"), 1);
	CHECK_EQ(file_number(path, "mappings"), 1);
	CHECK_EQ(pgc_ftruncate(f, 10 * PAGE), 0);
	CHECK_EQ(file_number(path, "size"), 10 * PAGE);
	CHECK_EQ(file_number(path, "resident"), 10);
}

/* What the daemon can know of this process: the folder of its memory cgroup, or of its cgroup in the unified hierarchy. */
static uint64_t own_cgroup(void)
{
	char *lines = read_whole("/proc/self/cgroup"), *line, *save = NULL, *mounts = read_whole("/proc/self/mounts"), path[512] = "", dir[512] = "";
	bool v1 = false;
	struct stat st;

	for (line = strtok_r(mounts, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char at[256], type[64], options[256];

		if (sscanf(line, "%*s %255s %63s %255s", at, type, options) != 3 || strncmp(type, "cgroup", 6) != 0)
			continue;
		if (strcmp(type, "cgroup") == 0 && strstr(options, "memory")) {
			snprintf(dir, sizeof(dir), "%s", at);
			v1 = true;
			break;
		}
		if (strcmp(type, "cgroup2") == 0)
			snprintf(dir, sizeof(dir), "%s", at);
	}
	for (line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *colon = strchr(line, ':'), *second = colon ? strchr(colon + 1, ':') : NULL;

		if (!second)
			continue;
		if (v1 ? strncmp(colon, ":memory:", 8) == 0 : strncmp(line, "0::", 3) == 0)
			snprintf(path, sizeof(path), "%s%s", dir, second + 1);
	}
	return path[0] && stat(path, &st) == 0 ? st.st_ino : 0;
}

SYSTEM_TEST(cgroups_charge_the_first_toucher, VIEW)
{
	char *path = make_file("cg", PAGES * PAGE, 1);
	struct peer *p = peer_start(map_peer, path);
	uint64_t own = own_cgroup(), mapped = 0, resident = 0, dirty = 0, handles = 0;
	json_object *dump;
	struct pgc_file *f;
	bool seen = false;
	uint8_t *m;

	peer_hear(p);
	need_bpf();
	f = open_file(path, O_RDWR);
	m = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	peer_ask(p, STEP_MAP);                    /* pages 4 to 11: 4 of them are mapped twice, and charged once */
	PATTERN_CHECK(m, 8 * PAGE, 0, 1);
	store(m + 6 * PAGE, 0);
	WAIT_UNTIL(file_number(path, "mappings") == 2);
	CHECK_EQ(look_for_stores(), 1);
	dump = bpf_dump("cgroups");
	for (size_t i = 0; i < json_object_array_length(dump); i++) {
		json_object *e = json_object_array_get_idx(dump, i), *v;
		uint64_t id;

		CHECK(json_object_object_get_ex(e, "id", &v));
		id = json_object_get_uint64(v);
		if (id == 0)
			continue;
		mapped += (uint64_t)json_int(e, "mapped");
		resident += (uint64_t)json_int(e, "resident");
		dirty += (uint64_t)json_int(e, "dirty");
		handles += (uint64_t)json_int(e, "handles");
		if (own && id == own) {
			seen = true;
			CHECK_EQ(json_int(e, "mapped"), 12);
			CHECK_EQ(json_int(e, "handles"), 2);
			CHECK_EQ(json_int(e, "dirty"), 1);
		}
	}
	json_object_put(dump);
	CHECK(seen || !own);
	CHECK_EQ(mapped, 12);
	CHECK_EQ(handles, 2);
	CHECK_EQ(dirty, 1);
	CHECK_EQ(resident, file_number(path, "resident"));
	peer_tell(p, STEP_END);
	peer_join(p);
}

static uint64_t stats_sum(const char *key)
{
	json_object *dump = bpf_dump("stats");
	uint64_t sum = 0;

	CHECK_EQ(json_object_array_length(dump), 3);   /* two workers and the main thread */
	for (size_t i = 0; i < json_object_array_length(dump); i++)
		sum += (uint64_t)json_int(json_object_array_get_idx(dump, i), key);
	json_object_put(dump);
	return sum;
}

SYSTEM_TEST(stats_count_what_was_done, VIEW, .tracking = "sync")
{
	char *path = make_file("stats", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[PAGE];
	uint64_t before;

	need_bpf();
	CHECK_EQ(stats_sum("handles_opened"), 1);
	CHECK_EQ(stats_sum("faults_missing"), 0);
	CHECK_EQ(stats_sum("fills"), 0);
	CHECK_EQ(load(m), pattern_byte(0, 1));
	CHECK_EQ(stats_sum("faults_missing") + stats_sum("faults_minor"), 1);
	CHECK(stats_sum("fills") >= 1);
	CHECK(stats_sum("fill_bytes") >= PAGE);
	CHECK(stats_sum("pages_mapped") >= 1);
	CHECK_EQ(stats_sum("faults_wp"), 0);
	store(m, 0);
	CHECK_EQ(stats_sum("faults_wp"), 1);
	CHECK_EQ(stats_sum("dirty"), file_number(path, "dirty"));
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(stats_sum("dirty"), 0);
	CHECK_EQ(stats_sum("syncs"), 1);
	CHECK_EQ(stats_sum("writeouts"), 1);
	CHECK_EQ(stats_sum("writeout_bytes"), status().writeout_bytes);
	before = stats_sum("reads");
	CHECK_EQ(pgc_pread(f, b, PAGE, 99 * PAGE), PAGE);
	CHECK(stats_sum("reads") > before);
	before = stats_sum("writes");
	CHECK_EQ(pgc_pwrite(f, b, PAGE, 0), PAGE);
	CHECK(stats_sum("writes") > before);
	before = stats_sum("events_unmap");
	CHECK_EQ(munmap(m, 100 * PAGE), 0);
	WAIT_UNTIL(stats_sum("events_unmap") > before);
	CHECK_EQ(stats_sum("resident"), file_number(path, "resident"));
	CHECK_EQ(stats_sum("faults_unknown"), 0);
	CHECK_EQ(stats_sum("bad_messages"), 0);
}

/* --- tables --- */

/* The words of the line of a table (where the kernel refuses tables, of the same made from the map) whose last word ends so; false when there is none. */
static bool table_line(const char *table, const char *last, char words[16][192], unsigned *ret_n)
{
	char *text, *save = NULL, *line;
	bool header = false, found = false;

	text = bpf_table_text(env.bpffs, table);
	CHECK(text);
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char w[16][192], *in = NULL, *word;
		unsigned n = 0;

		for (word = strtok_r(line, " ", &in); word && n < 16; word = strtok_r(NULL, " ", &in))
			snprintf(w[n++], sizeof(w[0]), "%s", word);
		if (!header) {
			CHECK(n > 0 && strcmp(w[0], "FILE") == 0);
			header = true;
			continue;
		}
		CHECK(n > 0 && atoi(w[0]) > 0);       /* empty slots are left out */
		if (!last || strcmp(base_name(w[n - 1]), last) == 0) {
			memcpy(words, w, sizeof(w));
			*ret_n = n;
			found = true;
		}
	}
	CHECK(header);
	free(text);
	return found;
}

SYSTEM_TEST(tables_show_files_blocks_and_mappings, VIEW)
{
	char *path = make_file("table", 10 * PAGE, 1), w[16][192];
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	int64_t file;
	unsigned n;

	need_bpf();
	file = file_number(path, "file");
	PATTERN_CHECK(m, 10 * PAGE, 0, 1);
	store(m + 5 * PAGE, 0);
	CHECK_EQ(look_for_stores(), 1);
	CHECK(table_line("show_files", "table", w, &n));
	/* FILE WORKER SIZE HANDLES MAPPINGS RESIDENT DIRTY WRITEBACK KEEP ERROR NAME */
	CHECK_EQ(n, 11);
	CHECK_EQ(atoi(w[0]), file);
	CHECK_EQ(atoi(w[2]), 10 * PAGE);
	CHECK_EQ(atoi(w[3]), 1);
	CHECK_EQ(atoi(w[4]), 1);
	CHECK_EQ(atoi(w[5]), 10);
	CHECK_EQ(atoi(w[6]), 1);
	CHECK_EQ(atoi(w[7]), 0);
	/* FILE INDEX REFS CGROUP RESIDENT DIRTY WRITEBACK KEEP; the only block. */
	CHECK(table_line("show_blocks", NULL, w, &n));
	CHECK_EQ(n, 8);
	CHECK_EQ(atoi(w[0]), file);
	CHECK_EQ(atoi(w[1]), 0);
	CHECK_EQ(atoi(w[2]), 1);
	CHECK_EQ(strtoull(w[4], NULL, 16), 0x3ff);
	CHECK_EQ(strtoull(w[5], NULL, 16), 1 << 5);
	CHECK_EQ(strtoull(w[6], NULL, 16), 0);
	/* FILE START END REFS CGROUP */
	WAIT_UNTIL(table_line("show_mappings", NULL, w, &n));
	CHECK_EQ(n, 5);
	CHECK_EQ(atoi(w[0]), file);
	CHECK_EQ(atoi(w[1]), 0);
	CHECK_EQ(atoi(w[2]), 10 * PAGE);
	CHECK_EQ(atoi(w[3]), 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(table_line("show_files", "table", w, &n));
	CHECK_EQ(atoi(w[6]), 0);
	CHECK_EQ(pgc_munmap(m, 10 * PAGE), 0);
	WAIT_UNTIL(!table_line("show_mappings", NULL, w, &n));
}

SYSTEM_TEST(pagecachectl_says_the_same_as_bpftool, VIEW)
{
	char *path = make_file("same", 40 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	static const char *const keys[] = {"file", "size", "resident", "dirty", "writeback", "keep", "handles", "mappings", "worker"};
	json_object *list, *entry;

	need_bpf();
	PATTERN_CHECK(m, 20 * PAGE, 0, 1);
	store(m + 3 * PAGE, 0);
	WAIT_UNTIL(file_number(path, "mappings") == 1);
	list = CTL_JSON("--json", "files", path);
	CHECK_EQ(json_object_array_length(list), 1);
	entry = json_object_array_get_idx(list, 0);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		CHECK_EQ(json_int(entry, keys[i]), file_number(path, keys[i]));
	list = CTL_JSON("--json", "mappings", path);
	CHECK_EQ(json_object_array_length(list), 1);
	entry = json_object_array_get_idx(list, 0);
	CHECK_EQ(json_int(entry, "start"), 0);
	CHECK_EQ(json_int(entry, "end"), 20 * PAGE);
	CHECK_EQ(json_int(entry, "refs"), 1);
}

/* --- pins --- */

static const char *const map_names[] = {"files", "blocks", "mappings", "cgroups", "stats", "saved_files", "saved_handles"},
			 *const table_names[] = {"show_files", "show_blocks", "show_mappings"};

static unsigned pins_wanted(void)
{
	return bpf_iterators_refused() ? 7 : 10;
}

static bool is_pinned(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", env.bpffs, name);
	return access(path, F_OK) == 0;
}

static unsigned pins(void)
{
	DIR *d = opendir(env.bpffs);
	struct dirent *e;
	unsigned n = 0;

	if (!d) {
		CHECK(errno == ENOENT);
		return 0;
	}
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

SYSTEM_TEST(pins_are_there_and_removed_at_a_clean_exit, VIEW)
{
	need_bpf();
	for (size_t i = 0; i < sizeof(map_names) / sizeof(map_names[0]); i++)
		CHECK(is_pinned(map_names[i]));
	for (size_t i = 0; i < sizeof(table_names) / sizeof(table_names[0]); i++)
		CHECK_EQ(is_pinned(table_names[i]), !bpf_iterators_refused());
	CHECK_EQ(pins(), pins_wanted());
	daemon_stop();
	CHECK_EQ(pins(), 0);
}

SYSTEM_TEST(pins_of_a_killed_daemon_are_replaced, VIEW)
{
	char *path = make_file("f", PAGE, 1);

	need_bpf();
	CHECK(kill(env.daemon, SIGKILL) == 0);
	wait_child(env.daemon);
	CHECK_EQ(pins(), pins_wanted());
	daemon_start();
	CHECK_EQ(status().bpf, 1);
	open_file(path, O_RDWR);
	CHECK_EQ(file_number(path, "handles"), 1);
	daemon_stop();
	CHECK_EQ(pins(), 0);
}

/* --- without privilege --- */

static unsigned lines_with(const char *text, const char *word)
{
	unsigned n = 0;

	for (const char *line = text; *line;) {
		size_t len = strcspn(line, "\n");
		char *copy = strndup(line, len);

		n += strcasestr(copy, word) != NULL;
		free(copy);
		line += len + (line[len] == '\n');
	}
	return n;
}

SYSTEM_TEST(ordinary_user_is_served_without_bpf_and_told_once_what_is_missing, .as_user = true)
{
	char *path = make_file("f", 30 * PAGE, 1), *log;
	struct pgc_file *f = open_file(path, O_RDWR), *g = open_file(path, O_RDWR);
	uint8_t *m = map(f, 30 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *n = map(g, 30 * PAGE, PROT_READ, MAP_SHARED, 0);

	CHECK(geteuid() != 0);
	/* A folder for pins was named, and nobody may write there. */
	if (!env.bpffs[0])
		skip_test("no folder for pins: not root");
	CHECK_EQ(status().bpf, 0);
	CHECK_EQ(status().kernel_faults, 0);
	PATTERN_CHECK(m, 30 * PAGE, 0, 1);
	pattern_fill(m, 30 * PAGE, 0, 2);
	PATTERN_CHECK(n, 30 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, 30 * PAGE, 0, 2));
	CHECK_EQ(file_state(path).kernel_fault_handles, 0);
	log = daemon_log();
	if (lines_with(log, "BPF") != 1)
		FAIL("BPF is named in %u lines of the log:\n%s", lines_with(log, "BPF"), log);
	CHECK_EQ(lines_with(log, "EFAULT"), 1);
}

SYSTEM_TEST(tables_are_said_to_be_missing_once_where_the_kernel_refuses_them, VIEW)
{
	unsigned want = bpf_iterators_refused() ? 1 : 0;
	char *log;

	need_bpf();
	log = daemon_log();
	if (lines_with(log, "BPF") != want || lines_with(log, "without the BPF tables (show_*)") != want)
		FAIL("the log should name BPF %u times:\n%s", want, log);
	free(log);
}

SYSTEM_TEST(root_serves_faults_inside_system_calls)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_ctl_file_reply s;

	if (env.user)
		skip_test("not root");
	open_file(path, O_RDWR);
	open_file(path, O_RDONLY);
	CHECK_EQ(status().kernel_faults, 1);
	s = file_state(path);
	CHECK_EQ(s.handles, 2);
	CHECK_EQ(s.kernel_fault_handles, 2);
	CHECK(s.flags & PGC_FILE_KERNEL_FAULTS);
}

SYSTEM_TESTS_MAIN("bpf_view",
	cmocka_unit_test(mappings_show_references_after_map_and_unmap_in_two_processes),
	cmocka_unit_test(references_of_a_killed_process_go),
	cmocka_unit_test(blocks_show_dirty_after_stores_of_two_processes_and_after_fsync),
	cmocka_unit_test(files_show_identity_size_and_pages),
	cmocka_unit_test(cgroups_charge_the_first_toucher),
	cmocka_unit_test(stats_count_what_was_done),
	cmocka_unit_test(tables_show_files_blocks_and_mappings),
	cmocka_unit_test(pagecachectl_says_the_same_as_bpftool),
	cmocka_unit_test(pins_are_there_and_removed_at_a_clean_exit),
	cmocka_unit_test(pins_of_a_killed_daemon_are_replaced),
	cmocka_unit_test(ordinary_user_is_served_without_bpf_and_told_once_what_is_missing),
	cmocka_unit_test(tables_are_said_to_be_missing_once_where_the_kernel_refuses_them),
	cmocka_unit_test(root_serves_faults_inside_system_calls))

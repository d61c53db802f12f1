// SPDX-License-Identifier: Apache-2.0
/*
 * Tables by libsmartcols, JSON by json-c. The names in JSON are those of the BPF maps: resident, dirty, writeback
 * and keep count pages there, everything else is in the unit that its name says (bytes where it says none).
 *
 * File names come from whoever opened the file: libsmartcols escapes what is not printable, and what is not
 * UTF-8 is replaced before it goes into JSON.
 */
#include "tools/ctl_show.h"
#include "version.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libsmartcols.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELL_MAX 64

static const char *yes_no(bool b)
{
	return b ? "yes" : "no";
}

void ctl_format_size(char *ret, size_t n, uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	double v = (double)bytes;
	int unit = -1;

	/* 1023.95 and more would print as 1024.0. */
	while (v >= 1023.95 && unit + 1 < (int)sizeof(units) - 1) {
		v /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(ret, n, "%" PRIu64, bytes);
	else if (v >= 99.95 || (uint64_t)(v * 10 + 0.5) % 10 == 0)
		snprintf(ret, n, "%.0f%c", v, units[unit]);
	else
		snprintf(ret, n, "%.1f%c", v, units[unit]);
}

void ctl_format_duration(char *ret, size_t n, uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (s < 10)
		snprintf(ret, n, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
	else if (s < 60)
		snprintf(ret, n, "%" PRIu64 " s", s);
	else if (s < 3600)
		snprintf(ret, n, "%" PRIu64 " min %02" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(ret, n, "%" PRIu64 " h %02" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(ret, n, "%" PRIu64 " d %02" PRIu64 " h", s / 86400, s / 3600 % 24);
}

static void format_bytes(const struct ctl_show *s, char *ret, uint64_t bytes)
{
	if (s->bytes)
		snprintf(ret, CELL_MAX, "%" PRIu64, bytes);
	else
		ctl_format_size(ret, CELL_MAX, bytes);
}

static void format_pages(const struct ctl_show *s, char *ret, uint64_t pages)
{
	format_bytes(s, ret, pages * PGC_PAGE_SIZE);
}

/* --- tables --- */

struct column {
	const char *name;
	int flags;
};

static struct libscols_table *table_new(const struct column *columns, size_t n)
{
	struct libscols_table *t = scols_new_table();

	if (!t)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (!scols_table_new_column(t, columns[i].name, 0, columns[i].flags)) {
			scols_unref_table(t);
			return NULL;
		}
	return t;
}

/* Adds a line of `n` cells. */
static int table_line(struct libscols_table *t, size_t n, const char *const *cells)
{
	struct libscols_line *line = scols_table_new_line(t, NULL);

	if (!line)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (scols_line_set_data(line, i, cells[i]) < 0)
			return -ENOMEM;
	return 0;
}

static int __attribute__((format(printf, 3, 4)))
table_pair(struct libscols_table *t, const char *key, const char *format, ...)
{
	char value[160];
	va_list ap;

	va_start(ap, format);
	vsnprintf(value, sizeof(value), format, ap);
	va_end(ap);
	return table_line(t, 2, (const char *const[]){ key, value });
}

static int table_print(struct libscols_table *t)
{
	return scols_print_table(t) < 0 ? -ENOMEM : 0;
}

/* --- JSON --- */

/* How long the UTF-8 sequence at the start of `s` is, 0 when there is none. */
static size_t utf8_length(const unsigned char *s)
{
	static const struct { unsigned char mask, lead; uint32_t least; } form[] = {
		{ 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 },
	};

	for (size_t i = 0; i < 4; i++) {
		if ((s[0] & form[i].mask) != form[i].lead)
			continue;
		uint32_t c = s[0] & (unsigned char)~form[i].mask;
		for (size_t k = 1; k <= i; k++) {
			if ((s[k] & 0xc0) != 0x80)     /* the terminating zero ends here as well */
				return 0;
			c = c << 6 | (s[k] & 0x3f);
		}
		bool surrogate = c >= 0xd800 && c <= 0xdfff;
		return c < form[i].least || c > 0x10ffff || surrogate ? 0 : i + 1;
	}
	return 0;
}

struct json_object *ctl_json_name(const char *name)
{
	static const char replacement[] = "\xef\xbf\xbd";
	char *out = malloc(strlen(name) * 3 + 1);
	size_t n = 0;

	if (!out)
		return NULL;
	while (*name) {
		size_t len = utf8_length((const unsigned char *)name);
		if (len) {
			memcpy(out + n, name, len);
			n += len;
			name += len;
		} else {
			memcpy(out + n, replacement, 3);
			n += 3;
			name++;
		}
	}
	struct json_object *o = json_object_new_string_len(out, (int)n);
	free(out);
	return o;
}

/* Adds a member and takes the value; false when there is no memory for either. */
static bool json_add(struct json_object *o, const char *key, struct json_object *value)
{
	if (!value)
		return false;
	if (json_object_object_add(o, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

static bool json_add_u64(struct json_object *o, const char *key, uint64_t v)
{
	return json_add(o, key, json_object_new_uint64(v));
}

/* Prints and releases. */
static int json_print(struct json_object *o)
{
	const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
								     JSON_C_TO_STRING_NOSLASHESCAPE);
	int r = text ? 0 : -ENOMEM;

	if (text)
		puts(text);
	json_object_put(o);
	return r;
}

/* Prints the object when all of it is there (`ok`), else drops it. */
static int json_finish(struct json_object *o, bool ok)
{
	if (ok)
		return json_print(o);
	json_object_put(o);
	return -ENOMEM;
}

/* An array of what `make` makes of each element. */
static int json_print_array(const void *elements, size_t n, size_t size, struct json_object *(*make)(const void *element))
{
	struct json_object *array = json_object_new_array();

	if (!array)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = make((const char *)elements + i * size);
		if (!o || json_object_array_add(array, o) < 0) {
			json_object_put(o);
			json_object_put(array);
			return -ENOMEM;
		}
	}
	return json_print(array);
}

/* --- status --- */

static int status_json(const struct pgc_ctl_status_reply *st, const struct pgc_ctl_memory_reply *m)
{
	const struct { const char *key; uint64_t value; } number[] = {
		{ "pid", st->pid },
		{ "uptime_ms", st->uptime_ms },
		{ "workers", st->workers },
		{ "lanes", st->lanes },
		{ "memory_used", st->memory_used },
		{ "memory_max", st->memory_max },
		{ "memory_limit", m->memory_limit },
		{ "clients", st->clients },
		{ "files", st->files },
		{ "handles", st->handles },
		{ "mappings", st->mappings },
		{ "resident", st->resident },
		{ "dirty", st->dirty },
		{ "writeback", st->writeback },
		{ "keep", st->keep },
		{ "oldest_dirty_ms", st->oldest_dirty_ms },
		{ "faults", st->faults },
		{ "faults_lent", st->faults_lent },
		{ "fills", st->fills },
		{ "fill_bytes", st->fill_bytes },
		{ "fill_errors", st->fill_errors },
		{ "writeouts", st->writeouts },
		{ "writeout_bytes", st->writeout_bytes },
		{ "writeout_errors", st->writeout_errors },
		{ "writeout_rate", st->writeout_rate },
	};
	struct json_object *o = json_object_new_object();
	if (!o)
		return -ENOMEM;

	bool ok = json_add(o, "version", ctl_json_name(st->version));
	for (size_t i = 0; i < sizeof(number) / sizeof(number[0]) && ok; i++)
		ok = json_add_u64(o, number[i].key, number[i].value);
	ok = ok && json_add(o, "bpf", json_object_new_boolean(st->bpf != 0)) &&
	     json_add(o, "kernel_faults", json_object_new_boolean(st->kernel_faults != 0));
	return json_finish(o, ok);
}

static int status_lines(const struct ctl_show *s, struct libscols_table *t, const struct pgc_ctl_status_reply *st,
			const struct pgc_ctl_memory_reply *m)
{
	char a[CELL_MAX], b[CELL_MAX];
	int r;

	r = table_pair(t, "version", "%s", st->version);
	r = r ?: table_pair(t, "pid", "%" PRIu32, st->pid);
	ctl_format_duration(a, sizeof(a), st->uptime_ms);
	r = r ?: table_pair(t, "uptime", "%s", a);
	r = r ?: table_pair(t, "workers", "%" PRIu32, st->workers);
	if (st->lanes)
		r = r ?: table_pair(t, "lanes", "%" PRIu32, st->lanes);
	format_bytes(s, a, st->memory_used);
	format_bytes(s, b, st->memory_max);
	r = r ?: table_pair(t, "memory", "%s of %s", a, b);
	format_bytes(s, a, m->memory_limit);
	if (m->memory_limit < st->memory_max)
		r = r ?: table_pair(t, "limit now", "%s, under pressure", a);
	r = r ?: table_pair(t, "clients", "%" PRIu64, st->clients);
	r = r ?: table_pair(t, "files", "%" PRIu64, st->files);
	r = r ?: table_pair(t, "handles", "%" PRIu64, st->handles);
	r = r ?: table_pair(t, "mappings", "%" PRIu64, st->mappings);
	format_pages(s, a, st->resident);
	r = r ?: table_pair(t, "resident", "%s", a);
	format_pages(s, a, st->dirty);
	r = r ?: table_pair(t, "dirty", "%s", a);
	format_pages(s, a, st->writeback);
	r = r ?: table_pair(t, "writeback", "%s", a);
	format_pages(s, a, st->keep);
	r = r ?: table_pair(t, "keep", "%s", a);
	ctl_format_duration(a, sizeof(a), st->oldest_dirty_ms);
	r = r ?: table_pair(t, "oldest dirty", "%s", st->dirty ? a : "-");
	format_bytes(s, a, st->writeout_rate);
	r = r ?: table_pair(t, "write-out rate", "%s/s", a);
	r = r ?: table_pair(t, "faults", "%" PRIu64, st->faults);
	if (st->lanes)
		r = r ?: table_pair(t, "of which lanes", "%" PRIu64, st->faults_lent);
	format_bytes(s, a, st->fill_bytes);
	r = r ?: table_pair(t, "fills", "%" PRIu64 " (%s, %" PRIu64 " failed)", st->fills, a, st->fill_errors);
	format_bytes(s, a, st->writeout_bytes);
	r = r ?: table_pair(t, "write-outs", "%" PRIu64 " (%s, %" PRIu64 " failed)", st->writeouts, a,
			     st->writeout_errors);
	r = r ?: table_pair(t, "BPF maps", "%s", yes_no(st->bpf));
	return r ?: table_pair(t, "kernel faults", "%s", yes_no(st->kernel_faults));
}

/* A table of names and values, to be filled with table_pair(). */
static struct libscols_table *table_of_pairs(void)
{
	static const struct column columns[] = { { "KEY", 0 }, { "VALUE", 0 } };
	struct libscols_table *t = table_new(columns, 2);

	if (t) {
		scols_table_enable_noheadings(t, 1);
		scols_table_set_column_separator(t, "  ");
	}
	return t;
}

int ctl_show_status(const struct ctl_show *s, const struct pgc_ctl_status_reply *st, const struct pgc_ctl_memory_reply *m)
{
	if (s->json)
		return status_json(st, m);

	struct libscols_table *t = table_of_pairs();
	if (!t)
		return -ENOMEM;
	int r = status_lines(s, t, st, m) ?: table_print(t);
	scols_unref_table(t);
	return r;
}

/* --- memory --- */

static int memory_json(const struct pgc_ctl_memory_reply *m)
{
	const struct { const char *key; uint64_t value; } number[] = {
		{ "memory_max", m->memory_max },
		{ "memory_limit", m->memory_limit },
		{ "memory_used", m->memory_used },
		{ "tables", m->tables },
		{ "resident", m->resident },
		{ "second_chance", m->second_chance },
		{ "pinned", m->pinned },
		{ "keep", m->kept },
		{ "dirty", m->dirty },
		{ "dirty_background", m->dirty_background },
		{ "dirty_max", m->dirty_max },
		{ "refaults", m->refaults },
		{ "soft_faults", m->soft_faults },
		{ "reclaimed", m->reclaimed },
		{ "direct_reclaims", m->direct_reclaims },
		{ "readahead_pages", m->readahead_pages },
		{ "readahead_hits", m->readahead_hits },
		{ "readahead_wasted", m->readahead_wasted },
		{ "throttled", m->throttled },
		{ "throttled_ms", m->throttled_ms },
		{ "fault_wait_max_us", m->fault_wait_max_us },
		{ "pressure_episodes", m->pressure_episodes },
	};
	struct json_object *o = json_object_new_object();
	if (!o)
		return -ENOMEM;

	bool ok = json_add(o, "policy", ctl_json_name(m->policy));
	for (size_t i = 0; i < sizeof(number) / sizeof(number[0]) && ok; i++)
		ok = json_add_u64(o, number[i].key, number[i].value);
	return json_finish(o, ok);
}

static int memory_lines(const struct ctl_show *s, struct libscols_table *t, const struct pgc_ctl_memory_reply *m)
{
	char a[CELL_MAX], b[CELL_MAX], c[CELL_MAX];
	int r;

	format_bytes(s, a, m->memory_used);
	format_bytes(s, b, m->memory_max);
	r = table_pair(t, "memory", "%s of %s", a, b);
	format_bytes(s, a, m->memory_limit);
	r = r ?: table_pair(t, "limit now", "%s%s", a, m->memory_limit < m->memory_max ? ", under pressure" : "");
	r = r ?: table_pair(t, "pressure", "%" PRIu64 " %s", m->pressure_episodes, m->pressure_episodes == 1 ? "time" : "times");
	format_pages(s, a, m->resident);
	r = r ?: table_pair(t, "resident", "%s", a);
	format_pages(s, a, m->second_chance);
	r = r ?: table_pair(t, "second chance", "%s", a);
	format_pages(s, a, m->pinned);
	r = r ?: table_pair(t, "pinned", "%s", a);
	format_pages(s, a, m->kept);
	r = r ?: table_pair(t, "keep", "%s", a);
	format_bytes(s, a, m->tables);
	r = r ?: table_pair(t, "tables", "%s", a);
	format_pages(s, a, m->dirty);
	format_pages(s, b, m->dirty_background);
	format_pages(s, c, m->dirty_max);
	r = r ?: table_pair(t, "dirty", "%s (write-out begins at %s, writers wait at %s)", a, b, c);
	r = r ?: table_pair(t, "writers waited", "%" PRIu64 " %s, %" PRIu64 " ms", m->throttled, m->throttled == 1 ? "time" : "times",
			    m->throttled_ms);
	r = r ?: table_pair(t, "policy", "%s", m->policy);
	r = r ?: table_pair(t, "refaults", "%" PRIu64, m->refaults);
	r = r ?: table_pair(t, "soft faults", "%" PRIu64, m->soft_faults);
	format_pages(s, a, m->reclaimed);
	r = r ?: table_pair(t, "reclaimed", "%s, %" PRIu64 " times by who needed room", a, m->direct_reclaims);
	format_pages(s, a, m->readahead_pages);
	format_pages(s, b, m->readahead_hits);
	format_pages(s, c, m->readahead_wasted);
	r = r ?: table_pair(t, "read ahead", "%s, of which %s were used and %s dropped unused", a, b, c);
	return r ?: table_pair(t, "longest fault", "%" PRIu64 ".%03" PRIu64 " ms", m->fault_wait_max_us / 1000, m->fault_wait_max_us % 1000);
}

int ctl_show_memory(const struct ctl_show *s, const struct pgc_ctl_memory_reply *m)
{
	if (s->json)
		return memory_json(m);

	struct libscols_table *t = table_of_pairs();
	if (!t)
		return -ENOMEM;
	int r = memory_lines(s, t, m) ?: table_print(t);
	scols_unref_table(t);
	return r;
}

/* --- files --- */

static const char *file_kernel_faults(const struct pgc_ctl_file_reply *f)
{
	if (f->handles == 0)
		return "-";
	if (f->kernel_fault_handles == 0)
		return "no";
	return f->kernel_fault_handles >= f->handles ? "yes" : "mixed";
}

/* "EIO"; a number that has no name is shown as one. */
static void format_error(char *ret, uint32_t error)
{
	const char *name = error ? strerrorname_np((int)error) : "-";

	if (name)
		snprintf(ret, CELL_MAX, "%s", name);
	else
		snprintf(ret, CELL_MAX, "%" PRIu32, error);
}

static struct json_object *file_json(const void *element)
{
	const struct pgc_ctl_file_reply *f = element;
	const struct { const char *key; uint64_t value; } number[] = {
		{ "file", f->file },
		{ "dev", f->dev },
		{ "ino", f->ino },
		{ "size", f->size },
		{ "resident", f->resident },
		{ "dirty", f->dirty },
		{ "writeback", f->writeback },
		{ "keep", f->keep },
		{ "handles", f->handles },
		{ "kernel_fault_handles", f->kernel_fault_handles },
		{ "mappings", f->mappings },
		{ "worker", f->worker },
	};
	struct json_object *o = json_object_new_object();
	char error[CELL_MAX];

	bool ok = o && json_add(o, "name", ctl_json_name(f->name));
	for (size_t i = 0; i < sizeof(number) / sizeof(number[0]) && ok; i++)
		ok = json_add_u64(o, number[i].key, number[i].value);
	ok = ok && json_add(o, "writable", json_object_new_boolean((f->flags & PGC_FILE_WRITABLE) != 0)) &&
	     json_add(o, "direct", json_object_new_boolean((f->flags & PGC_FILE_DIRECT) != 0)) &&
	     json_add(o, "huge", json_object_new_boolean((f->flags & PGC_FILE_HUGE) != 0)) &&
	     json_add(o, "kernel_faults", json_object_new_string(file_kernel_faults(f)));
	format_error(error, f->error);
	/* A missing error is null, which is how json-c stores a NULL value: json_add() would take it for lack of memory. */
	if (ok && f->error)
		ok = json_add(o, "error", json_object_new_string(error));
	else
		ok = ok && json_object_object_add(o, "error", NULL) == 0;
	if (!ok) {
		json_object_put(o);
		return NULL;
	}
	return o;
}

static int file_line(const struct ctl_show *s, struct libscols_table *t, const struct pgc_ctl_file_reply *f)
{
	char file[CELL_MAX], size[CELL_MAX], resident[CELL_MAX], dirty[CELL_MAX], writeback[CELL_MAX];
	char handles[CELL_MAX], mappings[CELL_MAX], worker[CELL_MAX], error[CELL_MAX];

	snprintf(file, sizeof(file), "%" PRIu32, f->file);
	format_bytes(s, size, f->size);
	format_pages(s, resident, f->resident);
	format_pages(s, dirty, f->dirty);
	format_pages(s, writeback, f->writeback);
	snprintf(handles, sizeof(handles), "%" PRIu32, f->handles);
	snprintf(mappings, sizeof(mappings), "%" PRIu32, f->mappings);
	snprintf(worker, sizeof(worker), "%" PRIu32, f->worker);
	format_error(error, f->error);
	return table_line(t, 13, (const char *const[]){
		file, size, resident, dirty, writeback, handles, mappings, f->flags & PGC_FILE_WRITABLE ? "rw" : "ro",
		yes_no(f->flags & PGC_FILE_DIRECT), file_kernel_faults(f), error, worker, f->name });
}

int ctl_show_files(const struct ctl_show *s, const struct pgc_ctl_file_reply *files, size_t n)
{
	static const struct column columns[] = {
		{ "FILE", SCOLS_FL_RIGHT }, { "SIZE", SCOLS_FL_RIGHT }, { "RESIDENT", SCOLS_FL_RIGHT },
		{ "DIRTY", SCOLS_FL_RIGHT }, { "WRITEBACK", SCOLS_FL_RIGHT }, { "HANDLES", SCOLS_FL_RIGHT },
		{ "MAPPINGS", SCOLS_FL_RIGHT }, { "MODE", 0 }, { "DIRECT", 0 }, { "KERNEL-FAULTS", 0 }, { "ERROR", 0 },
		{ "WORKER", SCOLS_FL_RIGHT }, { "NAME", 0 },
	};
	int r = 0;

	if (s->json)
		return json_print_array(files, n, sizeof(*files), file_json);

	struct libscols_table *t = table_new(columns, sizeof(columns) / sizeof(columns[0]));
	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = file_line(s, t, &files[i]);
	r = r ?: table_print(t);
	scols_unref_table(t);
	return r;
}

/* --- mappings --- */

static struct json_object *mapping_json(const void *element)
{
	const struct pgc_ctl_mapping_reply *m = element;
	struct json_object *o = json_object_new_object();

	if (o && json_add(o, "name", ctl_json_name(m->name)) && json_add_u64(o, "file", m->file) &&
	    json_add_u64(o, "start", m->start) && json_add_u64(o, "end", m->end) && json_add_u64(o, "refs", m->refs) &&
	    json_add_u64(o, "cgroup", m->cgroup))
		return o;
	json_object_put(o);
	return NULL;
}

static int mapping_line(const struct ctl_show *s, struct libscols_table *t, const struct pgc_ctl_mapping_reply *m)
{
	char file[CELL_MAX], start[CELL_MAX], end[CELL_MAX], len[CELL_MAX], refs[CELL_MAX], cgroup[CELL_MAX];

	snprintf(file, sizeof(file), "%" PRIu32, m->file);
	/* Offsets are exact, whatever --bytes says. */
	snprintf(start, sizeof(start), "%#" PRIx64, m->start);
	snprintf(end, sizeof(end), "%#" PRIx64, m->end);
	format_bytes(s, len, m->end - m->start);
	snprintf(refs, sizeof(refs), "%" PRIu32, m->refs);
	snprintf(cgroup, sizeof(cgroup), "%" PRIu64, m->cgroup);
	return table_line(t, 7, (const char *const[]){ file, start, end, len, refs, cgroup, m->name });
}

int ctl_show_mappings(const struct ctl_show *s, const struct pgc_ctl_mapping_reply *mappings, size_t n)
{
	static const struct column columns[] = {
		{ "FILE", SCOLS_FL_RIGHT }, { "START", SCOLS_FL_RIGHT }, { "END", SCOLS_FL_RIGHT },
		{ "LENGTH", SCOLS_FL_RIGHT }, { "REFS", SCOLS_FL_RIGHT }, { "CGROUP", SCOLS_FL_RIGHT }, { "NAME", 0 },
	};
	int r = 0;

	if (s->json)
		return json_print_array(mappings, n, sizeof(*mappings), mapping_json);

	struct libscols_table *t = table_new(columns, sizeof(columns) / sizeof(columns[0]));
	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = mapping_line(s, t, &mappings[i]);
	r = r ?: table_print(t);
	scols_unref_table(t);
	return r;
}

/* --- cgroups and users --- */

/* How a table names it. */
static void cgroup_name(char *ret, size_t size, const struct pgc_ctl_cgroup_reply *c, const char *path)
{
	const struct passwd *pw = c->is_user ? getpwuid((uid_t)c->id) : NULL;

	if (pw)
		snprintf(ret, size, "user %s", pw->pw_name);
	else if (c->is_user)
		snprintf(ret, size, "user %" PRIu64, c->id);
	else if (c->id == UINT64_MAX)
		snprintf(ret, size, "other");
	else if (path)
		snprintf(ret, size, "%s", path);
	else
		snprintf(ret, size, "%" PRIu64, c->id);
}

static struct json_object *cgroup_json(const struct pgc_ctl_cgroup_reply *c, const char *path)
{
	const struct { const char *key; uint64_t value; } number[] = {
		{ c->is_user ? "uid" : "cgroup", c->id },
		{ "mapped", c->mapped },
		{ "resident", c->resident },
		{ "dirty", c->dirty },
		{ "limit", c->limit },
		{ "reclaimed", c->reclaimed },
		{ "handles", c->handles },
	};
	struct json_object *o = json_object_new_object();
	bool ok = o != NULL;

	for (size_t i = 0; i < sizeof(number) / sizeof(number[0]) && ok; i++)
		ok = json_add_u64(o, number[i].key, number[i].value);
	if (ok && path)
		ok = json_add(o, "path", ctl_json_name(path));
	if (ok)
		return o;
	json_object_put(o);
	return NULL;
}

static int cgroup_line(const struct ctl_show *s, struct libscols_table *t, const struct pgc_ctl_cgroup_reply *c, const char *path)
{
	char name[PATH_MAX], mapped[CELL_MAX], resident[CELL_MAX], dirty[CELL_MAX], limit[CELL_MAX] = "-", reclaimed[CELL_MAX];
	char handles[CELL_MAX];

	cgroup_name(name, sizeof(name), c, path);
	format_pages(s, mapped, c->mapped);
	format_pages(s, resident, c->resident);
	format_pages(s, dirty, c->dirty);
	if (c->limit)
		format_pages(s, limit, c->limit);
	format_pages(s, reclaimed, c->reclaimed);
	snprintf(handles, sizeof(handles), "%" PRIu32, c->handles);
	return table_line(t, 7, (const char *const[]){ mapped, resident, dirty, limit, reclaimed, handles, name });
}

static int cgroups_json(const struct pgc_ctl_cgroup_reply *cgroups, size_t n, const char *const *paths)
{
	struct json_object *array = json_object_new_array();

	if (!array)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = cgroup_json(&cgroups[i], paths[i]);
		if (!o || json_object_array_add(array, o) < 0) {
			json_object_put(o);
			json_object_put(array);
			return -ENOMEM;
		}
	}
	return json_print(array);
}

static int cgroups_table(const struct ctl_show *s, const struct pgc_ctl_cgroup_reply *cgroups, size_t n, const char *const *paths)
{
	static const struct column columns[] = {
		{ "MAPPED", SCOLS_FL_RIGHT }, { "RESIDENT", SCOLS_FL_RIGHT }, { "DIRTY", SCOLS_FL_RIGHT }, { "LIMIT", SCOLS_FL_RIGHT },
		{ "RECLAIMED", SCOLS_FL_RIGHT }, { "HANDLES", SCOLS_FL_RIGHT }, { "CGROUP", 0 },
	};
	struct libscols_table *t = table_new(columns, sizeof(columns) / sizeof(columns[0]));
	int r = 0;

	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = cgroup_line(s, t, &cgroups[i], paths[i]);
	r = r ?: table_print(t);
	scols_unref_table(t);
	return r;
}

int ctl_show_cgroups(const struct ctl_show *s, const struct pgc_ctl_cgroup_reply *cgroups, size_t n,
		     const struct ctl_cgroup *found, size_t n_found)
{
	const char **paths = calloc(n + 1, sizeof(*paths));
	size_t at = 0;
	int r;

	if (!paths)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (at < n_found && !cgroups[i].is_user && cgroups[i].id == found[at].id)
			paths[i] = found[at++].path;
	r = s->json ? cgroups_json(cgroups, n, paths) : cgroups_table(s, cgroups, n, paths);
	free(paths);
	return r;
}

/* --- pins --- */

static struct json_object *pin_json(const void *element)
{
	const struct pgc_ctl_pin_reply *p = element;
	struct json_object *o = json_object_new_object();

	if (o && json_add(o, "name", ctl_json_name(p->name)) && json_add_u64(o, "file", p->file) && json_add_u64(o, "start", p->start) &&
	    json_add_u64(o, "end", p->end))
		return o;
	json_object_put(o);
	return NULL;
}

static int pin_line(const struct ctl_show *s, struct libscols_table *t, const struct pgc_ctl_pin_reply *p)
{
	char file[CELL_MAX], start[CELL_MAX], end[CELL_MAX], len[CELL_MAX];

	snprintf(file, sizeof(file), "%" PRIu32, p->file);
	snprintf(start, sizeof(start), "%#" PRIx64, p->start);
	snprintf(end, sizeof(end), "%#" PRIx64, p->end);
	format_bytes(s, len, p->end - p->start);
	return table_line(t, 5, (const char *const[]){ file, start, end, len, p->name });
}

int ctl_show_pins(const struct ctl_show *s, const struct pgc_ctl_pin_reply *pins, size_t n)
{
	static const struct column columns[] = {
		{ "FILE", SCOLS_FL_RIGHT }, { "START", SCOLS_FL_RIGHT }, { "END", SCOLS_FL_RIGHT }, { "LENGTH", SCOLS_FL_RIGHT }, { "NAME", 0 },
	};
	int r = 0;

	if (s->json)
		return json_print_array(pins, n, sizeof(*pins), pin_json);

	struct libscols_table *t = table_new(columns, sizeof(columns) / sizeof(columns[0]));
	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = pin_line(s, t, &pins[i]);
	r = r ?: table_print(t);
	scols_unref_table(t);
	return r;
}

/* --- the rest --- */

static struct json_object *warmed_json(const void *element)
{
	const struct ctl_warmed *w = element;
	struct json_object *o = json_object_new_object();

	if (o && json_add(o, "name", ctl_json_name(w->file)) && json_add_u64(o, "bytes", w->bytes) && json_add_u64(o, "ms", w->ms))
		return o;
	json_object_put(o);
	return NULL;
}

int ctl_show_warmed(const struct ctl_warmed *warmed, size_t n)
{
	return json_print_array(warmed, n, sizeof(*warmed), warmed_json);
}

int ctl_show_count(const struct ctl_show *s, const char *verb, const struct pgc_ctl_count_reply *count)
{
	if (!s->json) {
		char size[CELL_MAX];
		format_pages(s, size, count->pages);
		printf("%s %" PRIu64 " %s (%s) of %" PRIu64 " %s\n", verb, count->pages,
		       count->pages == 1 ? "page" : "pages", size, count->files, count->files == 1 ? "file" : "files");
		return 0;
	}
	struct json_object *o = json_object_new_object();
	if (!o)
		return -ENOMEM;
	return json_finish(o, json_add_u64(o, "files", count->files) && json_add_u64(o, "pages", count->pages));
}

int ctl_show_version(const struct ctl_show *s, const char *daemon)
{
	if (!s->json) {
		printf("pagecachectl %s\n", PGC_VERSION);
		if (daemon)
			printf("pagecached %s\n", daemon);
		else
			puts("pagecached: not running");
		return 0;
	}
	struct json_object *o = json_object_new_object();
	if (!o)
		return -ENOMEM;
	bool ok = json_add(o, "pagecachectl", json_object_new_string(PGC_VERSION));
	if (ok && daemon)
		ok = json_add(o, "pagecached", ctl_json_name(daemon));
	else
		ok = ok && json_object_object_add(o, "pagecached", NULL) == 0;
	return json_finish(o, ok);
}

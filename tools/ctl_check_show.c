// SPDX-License-Identifier: Apache-2.0
/* What a check has found: a sentence a difference for people, JSON for programs. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "tools/ctl_check.h"

enum range { NOTHING, PAGES, BYTES, ADDRESSES, SLOTS };

static const struct kind {
	uint32_t kind;
	const char *word;              /* in JSON */
	enum range range;
	bool numbers;                  /* found and expected say something */
	const char *text;
} kinds[] = {
	{ PGC_DIFFERS_MISSING, "missing", PAGES, false, "resident, but not in the cache's memory" },
	{ PGC_DIFFERS_STRAY, "stray", PAGES, false, "in the cache's memory, but not resident" },
	{ PGC_DIFFERS_MAPPED, "mapped", PAGES, false, "mapped, but not resident" },
	{ PGC_DIFFERS_WRITABLE, "writable", PAGES, false, "writable, but neither dirty nor kept" },
	{ PGC_DIFFERS_UNTRACKED, "untracked", ADDRESSES, false, "mapped where no mapping is known" },
	{ PGC_DIFFERS_GONE, "gone", ADDRESSES, false, "a mapping is known that the process does not have" },
	{ PGC_DIFFERS_BITS, "bits", PAGES, true, "bits that cannot be together" },
	{ PGC_DIFFERS_BLOCK, "block", SLOTS, false, "an entry of blocks is not as the block that it stands for" },
	{ PGC_DIFFERS_REFERENCES, "references", BYTES, true, "references" },
	{ PGC_DIFFERS_MAPPINGS, "mappings", BYTES, true, "an entry of mappings is not as the references that it stands for" },
	{ PGC_DIFFERS_SIZE, "size", NOTHING, true, "the size" },
	{ PGC_DIFFERS_HANDLES, "handles", NOTHING, true, "the number of handles or mappings" },
	{ PGC_DIFFERS_FILE_ENTRY, "file entry", SLOTS, false, "an entry of files is not as the file that it stands for" },
	{ PGC_DIFFERS_FILE_RECORD, "file record", SLOTS, false, "an entry of saved_files is not as the file that it stands for" },
	{ PGC_DIFFERS_HANDLE_RECORD, "handle record", SLOTS, false, "an entry of saved_handles is not as the handle that it stands for" },
	{ PGC_DIFFERS_CONTENT, "content", PAGES, false, "clean, but not as in the store" },
	{ PGC_DIFFERS_CHARGES, "charges", NOTHING, true, "pages charged to a worker" },
};

static const struct kind *kind_of(const struct ctl_difference *d)
{
	static const struct kind count = { 0, "count", NOTHING, true, "a count" }, other = { 0, "other", NOTHING, true, "something" };

	if (d->what)
		return &count;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].kind == d->row.kind)
			return &kinds[i];
	return &other;
}

static void print_line(const struct ctl_difference *d)
{
	const struct pgc_ctl_check_reply *r = &d->row;
	const struct kind *k = kind_of(d);

	printf("%s: ", *d->name ? d->name : "pagecached");
	switch (k->range) {
	case PAGES:
		if (r->end == r->start + 1)
			printf("page %" PRIu64 ": ", r->start);
		else
			printf("pages %" PRIu64 "-%" PRIu64 ": ", r->start, r->end - 1);
		break;
	case BYTES:
		printf("bytes %" PRIu64 "-%" PRIu64 ": ", r->start, r->end - 1);
		break;
	case ADDRESSES:
		printf("addresses %#" PRIx64 "-%#" PRIx64 ": ", r->start, r->end);
		break;
	case SLOTS:
		printf("%" PRIu64 ": ", r->start);
		break;
	case NOTHING:
		break;
	}
	if (r->pid)
		printf("process %" PRId32 ": ", r->pid);
	if (d->what)
		printf("%s", d->what);
	else
		printf("%s", k->text);
	if (d->what && strchr(d->what, ' ')) /* of a worker or cgroup */
		printf(" (%" PRIu64 ")", r->start);
	if (k->numbers)
		printf(r->kind == PGC_DIFFERS_BITS && !d->what ? ": resident %#" PRIx64 ", wrong %#" PRIx64 : ": %" PRIu64 ", should be %" PRIu64, r->found, r->expected);
	putchar('\n');
}

static const char *plural(uint64_t n, const char *one, const char *many) { return n == 1 ? one : many; }

static void print_end(const struct ctl_check *c)
{
	if (c->n + c->unlisted == 0)
		printf("nothing differs: ");
	else
		printf("%" PRIu64 " %s: ", c->n + c->unlisted, plural(c->n + c->unlisted, "difference", "differences"));
	printf("%" PRIu64 " %s, %" PRIu64 " %s", c->files, plural(c->files, "file", "files"), c->pages, plural(c->pages, "page", "pages"));
	if (c->content)
		printf(", %" PRIu64 " compared with the store", c->content_pages);
	if (c->skipped)
		printf("; %" PRIu64 " could not be looked at", c->skipped);
	if (c->busy)
		printf("; %" PRIu64 " changed all the time", c->busy);
	putchar('\n');
}

/* --- JSON --- */

static bool add(struct json_object *o, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(o, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

static bool add_u64(struct json_object *o, const char *key, uint64_t v) { return add(o, key, json_object_new_uint64(v)); }

static struct json_object *difference_json(const struct ctl_difference *d)
{
	const struct pgc_ctl_check_reply *r = &d->row;
	struct json_object *o = json_object_new_object();
	bool ok = o && add(o, "kind", json_object_new_string(kind_of(d)->word)) && add(o, "name", ctl_json_name(d->name)) &&
		  add_u64(o, "file", d->what ? 0 : r->file) && add_u64(o, "pid", (uint64_t)r->pid) && add_u64(o, "start", r->start) &&
		  add_u64(o, "end", r->end) && add_u64(o, "found", r->found) && add_u64(o, "expected", r->expected);

	if (ok && (!d->what || add(o, "count", json_object_new_string(d->what))))
		return o;
	json_object_put(o);
	return NULL;
}

static int print_json(const struct ctl_check *c)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	const char *text = NULL;
	bool ok = o && list;

	for (size_t i = 0; i < c->n && ok; i++) {
		struct json_object *d = difference_json(&c->differences[i]);

		ok = d && json_object_array_add(list, d) == 0;
		if (d && !ok)
			json_object_put(d);
	}
	if (!ok) {
		json_object_put(o);
		json_object_put(list);
		return -ENOMEM;
	}
	ok = add(o, "differences", list) && add_u64(o, "files", c->files) && add_u64(o, "pages", c->pages) &&
	     add_u64(o, "content_pages", c->content_pages) && add_u64(o, "skipped", c->skipped) && add_u64(o, "busy", c->busy) &&
	     add_u64(o, "unlisted", c->unlisted);
	if (ok)
		text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE);
	if (text)
		puts(text);
	json_object_put(o);
	return text ? 0 : -ENOMEM;
}

int ctl_check_show(const struct ctl_show *s, const struct ctl_check *c)
{
	if (s->json)
		return print_json(c);
	for (size_t i = 0; i < c->n; i++)
		print_line(&c->differences[i]);
	print_end(c);
	return 0;
}

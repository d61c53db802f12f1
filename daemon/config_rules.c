/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of the configuration: [limit ...] for users and cgroups, [file PATTERN], [store NAME]; and what they come to
 * for one file.
 *
 * A section may stand once in a file; in a later file it changes what the earlier one said: a limit or a store there is
 * one, so its keys are overridden, and a pattern is a further rule after the others, of which the last one that sets a
 * key counts. That a pattern matches nothing is no mistake, since a file may come that it matches; that a user or a
 * store does not exist is one.
 *
 * Main thread. May call config_value and util.
 */
#include "daemon/config_rules.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_value.h"
#include "daemon/util/util.h"

#define LIMIT_LEAST (1ull << 20)

static const char *const store_names[] = { "file", "mem" };

_Static_assert(ELEMENTSOF(store_names) == ELEMENTSOF(((struct config_place *)0)->store_line), "a line for each store");

enum key_type { KEY_LIMIT, KEY_RETAIN, KEY_WARM_START, KEY_READAHEAD, KEY_HUGE };

static const struct rule_key {
	enum config_section section;
	const char *name;
	enum key_type type;
} keys[] = {
	{ CONFIG_SECTION_LIMIT, "memory_max", KEY_LIMIT },
	{ CONFIG_SECTION_FILE, "retain", KEY_RETAIN },
	{ CONFIG_SECTION_FILE, "warm_start", KEY_WARM_START },
	{ CONFIG_SECTION_FILE, "readahead_max", KEY_READAHEAD },
	{ CONFIG_SECTION_FILE, "huge", KEY_HUGE },
	{ CONFIG_SECTION_STORE, "readahead_max", KEY_READAHEAD },
};

static int wrong(char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int wrong(char *message, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, CONFIG_MESSAGE_MAX, format, ap);
	va_end(ap);
	return -EINVAL;
}

/* One element more in an array. Evaluates to where it is, NULL: out of memory. */
#define GROW(array, n) ({ \
	__typeof__(array) _mem = reallocarray((array), (n) + 1, sizeof(*(array))); \
	if (_mem) \
		(array) = _mem; \
	_mem ? &(array)[(n)++] : NULL; \
})

/* --- sections --- */

static int find_user(const char *name, uid_t *ret, char *message)
{
	_cleanup_free_ char *buf = NULL;
	struct passwd pw, *found = NULL;
	uint64_t number;
	int r;

	r = config_parse_number(name, 10, &number);
	if (r == 0 && number < UINT32_MAX) {
		*ret = (uid_t)number;
		return 0;
	}
	if (r != -EINVAL)
		return wrong(message, "[limit uid=%.60s]: the number is out of range (allowed: 0 to %" PRIu32 ", or a user's name)", name, UINT32_MAX - 1);
	for (size_t size = 1024;; size *= 2) {
		char *bigger = realloc(buf, size);

		if (!bigger)
			return -ENOMEM;
		buf = bigger;
		r = getpwnam_r(name, &pw, buf, size, &found);
		if (r != ERANGE || size > (1u << 20))
			break;
	}
	if (!found)
		return wrong(message, "[limit uid=%.60s]: no such user (allowed: a user's number or name)", name);
	*ret = pw.pw_uid;
	return 0;
}

/* Starts with /, and names no folder twice. *ret is without slashes at the end. */
static int parse_cgroup(const char *path, char **ret, char *message)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (*path != '/')
		return wrong(message, "[limit cgroup=%.100s]: not a path (allowed: a cgroup's path in the memory hierarchy, which starts with /)", path);
	if (n == 1)
		return wrong(message, "[limit cgroup=/]: everything is below it (allowed: a path below /; memory_max of [" CONFIG_SECTION "] is for all)");
	for (const char *at = path; at < path + n; at += strcspn(at + 1, "/") + 1) {
		size_t len = strcspn(at + 1, "/");

		if (len == 0 || (at[1] == '.' && (len == 1 || (len == 2 && at[2] == '.'))))
			return wrong(message, "[limit cgroup=%.100s]: not a plain path (allowed: names between single slashes, but . and ..)", path);
	}
	*ret = strndup(path, n);
	return *ret ? 0 : -ENOMEM;
}

static bool same_limit(const struct limit_rule *l, const char *cgroup, uid_t uid)
{
	return cgroup ? l->cgroup && strcmp(l->cgroup, cgroup) == 0 : !l->cgroup && l->uid == uid;
}

static int begin_limit(struct config *c, struct config_place *p, const char *whom, char *message)
{
	_cleanup_free_ char *cgroup = NULL;
	struct limit_rule *l;
	uid_t uid = 0;
	size_t i;
	int r;

	if (strncmp(whom, "uid=", 4) == 0)
		r = find_user(whom + 4, &uid, message);
	else if (strncmp(whom, "cgroup=", 7) == 0)
		r = parse_cgroup(whom + 7, &cgroup, message);
	else
		r = wrong(message, "[limit%s%.100s]: whose limit? (allowed: [limit uid=USER] or [limit cgroup=/PATH])", *whom ? " " : "", whom);
	if (r < 0)
		return r;
	for (i = 0; i < c->n_limits; i++)
		if (same_limit(&c->limits[i], cgroup, uid))
			break;
	if (i == CONFIG_LIMITS_MAX)
		return wrong(message, "one limit too many (allowed: %u)", CONFIG_LIMITS_MAX);
	if (i < c->n_limits && p->limit_line[i])
		return wrong(message, "[limit %.100s]: stands on line %u already (allowed: once a file)", whom, p->limit_line[i]);
	if (i == c->n_limits) {
		l = GROW(c->limits, c->n_limits);
		if (!l)
			return -ENOMEM;
		*l = (struct limit_rule){ .cgroup = TAKE_PTR(cgroup), .uid = uid };
	}
	p->limit_line[i] = p->line;
	p->rule = i;
	return 0;
}

static int begin_file(struct config *c, struct config_place *p, const char *pattern, char *message)
{
	_cleanup_free_ char *copy = NULL;
	struct file_rule *f;

	if (*pattern == '\0')
		return wrong(message, "[file]: the pattern is empty (allowed: a path or URI, in which * ? and [...] stand for others)");
	if (!p->has_patterns)
		p->first_pattern = c->n_file_rules;
	p->has_patterns = true;
	for (size_t i = p->first_pattern; i < c->n_file_rules; i++)
		if (strcmp(c->file_rules[i].pattern, pattern) == 0)
			return wrong(message, "[file %.100s]: stands further up already (allowed: once a file)", pattern);
	copy = strdup(pattern);
	if (!copy)
		return -ENOMEM;
	f = GROW(c->file_rules, c->n_file_rules);
	if (!f)
		return -ENOMEM;
	*f = (struct file_rule){ .pattern = TAKE_PTR(copy), .retain = -1, .warm_start = -1, .huge = -1, .readahead_max = -1 };
	p->rule = c->n_file_rules - 1;
	return 0;
}

static int begin_store(struct config *c, struct config_place *p, const char *name, char *message)
{
	_cleanup_free_ char *copy = NULL;
	struct store_rule *s;
	size_t i, store;

	for (store = 0; store < ELEMENTSOF(store_names); store++)
		if (strcmp(store_names[store], name) == 0)
			break;
	if (store == ELEMENTSOF(store_names))
		return wrong(message, "[store%s%.100s]: no such store (allowed: [store file], [store mem])", *name ? " " : "", name);
	if (p->store_line[store])
		return wrong(message, "[store %s]: stands on line %u already (allowed: once a file)", name, p->store_line[store]);
	p->store_line[store] = p->line;
	for (i = 0; i < c->n_store_rules; i++)
		if (strcmp(c->store_rules[i].name, name) == 0)
			break;
	p->rule = i;
	if (i < c->n_store_rules)
		return 0;
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	s = GROW(c->store_rules, c->n_store_rules);
	if (!s)
		return -ENOMEM;
	*s = (struct store_rule){ .name = TAKE_PTR(copy), .readahead_max = -1 };
	return 0;
}

int config_rules_begin(struct config *c, struct config_place *p, const char *section, unsigned line, char *message)
{
	static const struct {
		const char *word;
		enum config_section section;
		int (*begin)(struct config *c, struct config_place *p, const char *rest, char *message);
	} kinds[] = {
		{ "limit", CONFIG_SECTION_LIMIT, begin_limit },
		{ "file", CONFIG_SECTION_FILE, begin_file },
		{ "store", CONFIG_SECTION_STORE, begin_store },
	};
	size_t n = strcspn(section, " \t");
	const char *rest = section + n + strspn(section + n, " \t");

	p->section = CONFIG_SECTION_NONE;
	p->line = line;
	memset(p->seen, 0, sizeof(p->seen));
	if (strcmp(section, CONFIG_SECTION) == 0) {
		p->section = CONFIG_SECTION_DAEMON;
		return 0;
	}
	for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
		if (n == strlen(kinds[i].word) && memcmp(section, kinds[i].word, n) == 0) {
			int r = kinds[i].begin(c, p, rest, message);

			if (r == 0)
				p->section = kinds[i].section;
			return r;
		}
	return wrong(message, "[%.100s]: unknown section (allowed: " CONFIG_SECTIONS ")", section);
}

int config_rules_end(struct config *c, const struct config_place *p, char *message)
{
	if (p->section == CONFIG_SECTION_LIMIT && !p->seen[0])
		return wrong(message, "the limit has no memory_max (allowed: a section with that key)");
	return 0;
}

/* --- keys --- */

static int bad_value(const char *value, int r, const char *allowed, char *message)
{
	if (*value == '\0')
		return wrong(message, "the value is empty (allowed: %s)", allowed);
	return wrong(message, "\"%.60s\" is %s (allowed: %s)", value, r == -ERANGE ? "out of range" : "not valid", allowed);
}

static int set_limit(struct limit_rule *l, const char *value, char *message)
{
	uint64_t ram = config_ram_size();
	struct config_amount a = { 0 };
	char allowed[160], most[32];
	int r = config_parse_amount(value, &a);

	if (r == 0 && a.percent == 0 && (a.bytes < LIMIT_LEAST || (ram && a.bytes > ram)))
		r = -ERANGE;
	if (r == 0) {
		l->memory_max = a;
		return 0;
	}
	config_format_size(most, sizeof(most), ram);
	snprintf(allowed, sizeof(allowed), "bytes, or a number with K, M, G or T, from 1M to %s; or 1%% to 100%% of the daemon's memory_max",
		 ram ? most : "all RAM");
	return bad_value(value, r, allowed, message);
}

static int set_readahead(int64_t *field, const char *value, char *message)
{
	uint64_t v = 0;
	int r = config_parse_size(value, 0, &v);

	if (r == 0 && v > CONFIG_READAHEAD_LIMIT)
		r = -ERANGE;
	if (r < 0)
		return bad_value(value, r, "bytes, or a number with K, M, G or T; from 0 to 1G", message);
	*field = (int64_t)v;
	return 0;
}

static int set_retain(int *field, const char *value, char *message)
{
	int v = config_parse_word(value, config_retain_words);

	if (v < 0)
		return bad_value(value, v, "lru or mapped", message);
	*field = v;
	return 0;
}

static int set_bool(int *field, const char *value, char *message)
{
	bool v = false;
	int r = config_parse_bool(value, &v);

	if (r < 0)
		return bad_value(value, r, "yes or no", message);
	*field = v;
	return 0;
}

static void describe_keys(enum config_section section, char *buf, size_t size)
{
	size_t at = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < ELEMENTSOF(keys) && at < size; i++)
		if (keys[i].section == section)
			at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? ", " : "", keys[i].name);
}

int config_rules_key(struct config *c, struct config_place *p, const char *key, const char *value, unsigned line, char *message)
{
	const struct rule_key *k = NULL;
	char allowed[128];
	unsigned *seen;

	for (size_t i = 0; i < ELEMENTSOF(keys); i++)
		if (keys[i].section == p->section && strcmp(keys[i].name, key) == 0)
			k = &keys[i];
	if (!k) {
		describe_keys(p->section, allowed, sizeof(allowed));
		return wrong(message, "unknown key of this section (allowed: %s)", allowed);
	}
	seen = &p->seen[k->type];
	if (*seen)
		return wrong(message, "was set on line %u already (allowed: once a section)", *seen);
	*seen = line;
	switch (k->type) {
	case KEY_LIMIT:
		return set_limit(&c->limits[p->rule], value, message);
	case KEY_RETAIN:
		return set_retain(&c->file_rules[p->rule].retain, value, message);
	case KEY_WARM_START:
		return set_bool(&c->file_rules[p->rule].warm_start, value, message);
	case KEY_HUGE:
		return set_bool(&c->file_rules[p->rule].huge, value, message);
	case KEY_READAHEAD:
		return set_readahead(p->section == CONFIG_SECTION_FILE ? &c->file_rules[p->rule].readahead_max :
				     &c->store_rules[p->rule].readahead_max, value, message);
	}
	return -EINVAL;
}

/* --- what they come to --- */

void config_file_settings(const struct config *c, const char *name, const char *store, struct file_settings *ret)
{
	*ret = (struct file_settings){ .retain = c->retain, .warm_start = c->warm_start, .readahead_max = c->readahead_max };
	for (size_t i = 0; i < c->n_store_rules && store; i++)
		if (strcmp(c->store_rules[i].name, store) == 0 && c->store_rules[i].readahead_max >= 0)
			ret->readahead_max = (uint64_t)c->store_rules[i].readahead_max;
	for (size_t i = 0; i < c->n_file_rules && name; i++) {
		const struct file_rule *f = &c->file_rules[i];

		if (fnmatch(f->pattern, name, 0) != 0)
			continue;
		if (f->retain >= 0)
			ret->retain = (enum retain)f->retain;
		if (f->warm_start >= 0)
			ret->warm_start = f->warm_start;
		if (f->huge >= 0)
			ret->huge = f->huge;
		if (f->readahead_max >= 0)
			ret->readahead_max = (uint64_t)f->readahead_max;
	}
}

void config_rules_free(struct config *c)
{
	for (size_t i = 0; i < c->n_limits; i++)
		free(c->limits[i].cgroup);
	for (size_t i = 0; i < c->n_file_rules; i++)
		free(c->file_rules[i].pattern);
	for (size_t i = 0; i < c->n_store_rules; i++)
		free(c->store_rules[i].name);
	free(c->limits);
	free(c->file_rules);
	free(c->store_rules);
	c->limits = NULL;
	c->file_rules = NULL;
	c->store_rules = NULL;
	c->n_limits = c->n_file_rules = c->n_store_rules = 0;
}

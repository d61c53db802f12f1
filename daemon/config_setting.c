/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of settings: one line says for each its name, its type, its limits, its default and its help, and serves
 * files, command line, changes of a running daemon and --help alike. What a setting may be by itself, its line says;
 * what several must be to each other is checked once all are known.
 *
 * Main thread. May call config_value and log (names of levels).
 */
#include "daemon/config_setting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "daemon/config_rules.h"
#include "daemon/config_value.h"
#include "daemon/log.h"
#include "daemon/util/util.h"

_Static_assert(sizeof(unsigned) == sizeof(uint32_t) && sizeof(mode_t) == sizeof(uint32_t), "SETTING_COUNT, SETTING_MODE");
_Static_assert(sizeof(enum policy_kind) == sizeof(unsigned) && sizeof(enum retain) == sizeof(unsigned) && sizeof(enum write_tracking) == sizeof(unsigned), "SETTING_WORD");

const struct setting config_settings[CONFIG_SETTINGS] = {
#define S(field) .offset = offsetof(struct config, field)
	{ "socket", SETTING_SOCKET, S(socket), 0, 0, NULL,
	  "/run/pagecached/socket, as a user $XDG_RUNTIME_DIR/pagecached/socket", "PATH", "listen on this socket" },
	{ "socket_mode", SETTING_MODE, S(socket_mode), 0, 0777, "0666", NULL, "MODE", "permissions of the socket: who may use the cache" },
	{ "memory_max", SETTING_SHARE, S(memory_max), 1ull << 20, 0, "25%", "25%, a quarter of RAM", "SIZE",
	  "memory for all cached pages together", .running = true },
	{ "memory_min", SETTING_AMOUNT, S(memory_min), 0, 100, "10%", "10% of memory_max", "SIZE",
	  "pressure takes no more memory than down to this", .running = true },
	{ "pressure", SETTING_BOOL, S(pressure), 0, 1, "yes", NULL, "yes|no",
	  "give memory back when the machine or the cgroup runs short", .running = true },
	{ "dirty_background", SETTING_AMOUNT, S(dirty_background), 256u << 10, 100, "10%", "10% of memory_max", "SIZE",
	  "with this much dirty, write-out begins", .running = true },
	{ "dirty_max", SETTING_AMOUNT, S(dirty_max), 256u << 10, 100, "20%", "20% of memory_max", "SIZE",
	  "with this much dirty, writers wait", .running = true },
	{ "bpffs", SETTING_PINS, S(bpffs), 0, 0, "/sys/fs/bpf/pagecached", NULL, "DIR", "pin the BPF maps here; none: make no BPF maps" },
	{ "state_dir", SETTING_PATH, S(state_dir), 0, 0, NULL, "/var/lib/pagecached, as a user $XDG_STATE_HOME/pagecached", "DIR",
	  "keep here what must outlive the daemon" },
	{ "workers", SETTING_COUNT, S(workers), 1, 64, NULL, "the number of processors, at most 8", "N", "worker threads" },
	{ "lanes", SETTING_COUNT, S(lanes), 0, 16, "auto", "auto: none with less than 4 processors, else one for each 4 of them", "N",
	  "threads that map pages for workers which have too much to do", .words = config_auto_words },
	{ "log_level", SETTING_LEVEL, S(log_level), 0, 0, "info", NULL, "LEVEL", "log this and what is worse: error, warning, notice, info, debug",
	  .running = true },
	{ "kernel_faults", SETTING_BOOL, S(kernel_faults), 0, 1, "yes", NULL, "yes|no",
	  "let clients take faults inside system calls, through /dev/userfaultfd" },
	{ "kernel_faults_for_all", SETTING_BOOL, S(kernel_faults_for_all), 0, 1, "no", NULL, "yes|no",
	  "also those who may not open /dev/userfaultfd" },
	{ "dirty_expire", SETTING_DURATION, S(dirty_expire_ms), 10, 86400000, "5s", NULL, "TIME", "write out pages dirty for longer than this",
	  .running = true },
	{ "pin_max", SETTING_AMOUNT, S(pin_max), 0, 90, "50%", "50% of memory_max", "SIZE", "the most that may be pinned or locked", .running = true },
	{ "readahead_max", SETTING_SIZE, S(readahead_max), 0, CONFIG_READAHEAD_LIMIT, "8M", NULL, "SIZE", "largest readahead window; 0: no readahead",
	  .running = true },
	{ "policy", SETTING_WORD, S(policy), 0, 0, "adaptive", NULL, "POLICY", "which pages to keep: adaptive, fifo, lru", .words = config_policy_words },
	{ "second_chance", SETTING_PERCENT, S(second_chance), 0, 50, "8%", "8% of memory_max", "N%",
	  "buffer for pages that are about to be dropped; 0: none" },
	{ "retain", SETTING_WORD, S(retain), 0, 0, "lru", NULL, "lru|mapped",
	  "after a file's last unmap keep its pages until memory is short (lru) or drop them (mapped)", .running = true, .words = config_retain_words },
	{ "write_tracking", SETTING_WORD, S(write_tracking), 0, 0, "async", NULL, "sync|async",
	  "find out what is stored to mappings with faults, or (Linux 6.7) without", .words = config_tracking_words },
	{ "warm_start", SETTING_BOOL, S(warm_start), 0, 1, "yes", NULL, "yes|no", "read in again what was in use when a file was last open",
	  .running = true },
	{ "orphan_timeout", SETTING_DURATION, S(orphan_timeout_ms), 0, 86400000, "0", "0, for ever", "TIME",
	  "clients without a daemon for so long get SIGBUS for what they wait for" },
	{ "stop_timeout", SETTING_DURATION, S(stop_timeout_ms), 0, 86400000, "4min", NULL, "TIME",
	  "a stop ends when no page could be written for so long; 0: never" },
	{ "max_files", SETTING_COUNT, S(max_files), 0, 1u << 24, "0", "0, from memory_max: at most 16384", "N", "files cached at one time" },
	{ "max_mappings", SETTING_COUNT, S(max_mappings), 0, 1u << 24, "0", "0, from memory_max: at most 65536", "N", "entries of the map of mappings" },
	{ "max_blocks", SETTING_COUNT, S(max_blocks), 0, 1u << 28, "0", "0, from memory_max", "N", "entries of the map of blocks, 256 KiB each" },
	{ "max_handles", SETTING_COUNT, S(max_handles), 1, 1u << 20, "4096", NULL, "N", "open files of one user; root has no limit" },
	{ "preload_paths", SETTING_PATTERNS, S(preload_paths), 0, 0, "none", NULL, "PATTERNS", "what pagecachectl run takes over where it is not told: no use to the daemon" },
	{ "test_stores", SETTING_BOOL, S(test_stores), 0, 1, "no", NULL, "yes|no", "serve mem: URIs and obey fault injection; for tests only" },
#undef S
};

static bool is_path(const struct setting *s)
{
	return s->type == SETTING_PATH || s->type == SETTING_SOCKET || s->type == SETTING_PINS || s->type == SETTING_PATTERNS;
}

/* The largest number that a setting may be; of RAM that is not known, a lot. */
static uint64_t most(const struct setting *s)
{
	uint64_t ram;

	if (s->type != SETTING_SHARE)
		return s->max;
	ram = config_ram_size();
	return ram ? ram : 1ull << 60;
}

/* "a, b or c" */
static void describe_words(const char *const *words, char *buf, size_t size)
{
	size_t at = 0;

	for (size_t i = 0; words[i] && at < size; i++)
		at += (size_t)snprintf(buf + at, size - at, "%s%s", i == 0 ? "" : words[i + 1] ? ", " : " or ", words[i]);
}

static void describe_allowed(const struct setting *s, char *buf, size_t size)
{
	char min[32], max[32];

	switch (s->type) {
	case SETTING_PATH:
		snprintf(buf, size, "a path that starts with /");
		break;
	case SETTING_SOCKET:
		snprintf(buf, size, "a path that starts with /, at most %zu bytes", sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
		break;
	case SETTING_PINS:
		snprintf(buf, size, "a path that starts with /, or none");
		break;
	case SETTING_PATTERNS:
		snprintf(buf, size, "patterns that start with /, separated by \":\", or none");
		break;
	case SETTING_SIZE:
	case SETTING_SHARE:
		config_format_size(min, sizeof(min), s->min);
		config_format_size(max, sizeof(max), most(s));
		snprintf(buf, size, "bytes, or a number with K, M, G or T%s; from %s to %s",
			 s->type == SETTING_SHARE ? ", or 1% to 100% of RAM" : "", min, max);
		break;
	case SETTING_AMOUNT:
		config_format_size(min, sizeof(min), s->min);
		snprintf(buf, size, "bytes, or a number with K, M, G or T, from %s on; or %u%% to %llu%% of memory_max",
			 min, s->min ? 1 : 0, (unsigned long long)s->max);
		break;
	case SETTING_PERCENT:
		snprintf(buf, size, "0%% to %llu%%", (unsigned long long)s->max);
		break;
	case SETTING_DURATION:
		snprintf(buf, size, "seconds, or a number with ms, s or min; from %llums to %llumin",
			 (unsigned long long)s->min, (unsigned long long)s->max / 60000);
		break;
	case SETTING_COUNT:
		snprintf(buf, size, "%sa number from %llu to %llu", s->words ? "auto, or " : "", (unsigned long long)s->min, (unsigned long long)s->max);
		break;
	case SETTING_MODE:
		snprintf(buf, size, "an octal number from 0 to %llo", (unsigned long long)s->max);
		break;
	case SETTING_BOOL:
		snprintf(buf, size, "yes or no");
		break;
	case SETTING_LEVEL:
		snprintf(buf, size, "error, warning, notice, info or debug");
		break;
	case SETTING_WORD:
		describe_words(s->words, buf, size);
		break;
	}
}

/* Patterns come from many files, and what one serves another need not repeat: each value adds to the list. */
static int store_patterns(char **field, const char *value)
{
	bool forget = strcmp(value, "none") == 0;
	char *both = NULL;

	if (!forget && *value != '/')
		return -EINVAL;
	for (const char *p = value; *p; p++) {
		if (*p == '\\' && p[1])
			p++;
		else if (*p == ':' && p[1] != '/')
			return -EINVAL;
	}
	if (forget)
		both = strdup("");
	else if (asprintf(&both, "%s%s%s", *field ? *field : "", *field && **field ? ":" : "", value) < 0)
		both = NULL;
	if (!both)
		return -ENOMEM;
	free(*field);
	*field = both;
	return 0;
}

static int store_path(struct config *c, const struct setting *s, const char *value, bool relative_ok)
{
	char **field = (char **)((char *)c + s->offset);
	char *copy;

	if (s->type == SETTING_PATTERNS)
		return store_patterns(field, value);
	if (s->type == SETTING_PINS && (*value == '\0' || strcmp(value, "none") == 0))
		value = "";
	else if (*value == '\0' || (*value != '/' && !relative_ok))
		return -EINVAL;
	if (s->type == SETTING_SOCKET && strlen(value) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -ERANGE;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int store_amount(struct config_amount *field, const struct setting *s, const char *value)
{
	struct config_amount a = { 0 };
	int r = config_parse_amount(value, &a);

	if (r < 0)
		return r;
	if (a.percent ? a.percent > s->max : a.bytes < s->min)
		return -ERANGE;
	*field = a;
	return 0;
}

static int store_number(struct config *c, const struct setting *s, const char *value)
{
	void *field = (char *)c + s->offset;
	uint64_t v = 0;
	unsigned percent = 0;
	bool yes = false;
	int level = 0, r = -EINVAL;

	switch (s->type) {
	case SETTING_SIZE:
		r = config_parse_size(value, 0, &v);
		break;
	case SETTING_SHARE:
		r = config_parse_size(value, config_ram_size(), &v);
		break;
	case SETTING_DURATION:
		r = config_parse_duration(value, &v);
		break;
	case SETTING_COUNT:
		if (s->words && config_parse_word(value, s->words) == 0) {
			*(uint32_t *)field = CONFIG_AUTO;
			return 0;
		}
		r = config_parse_number(value, 10, &v);
		break;
	case SETTING_MODE:
		r = config_parse_number(value, 8, &v);
		break;
	case SETTING_BOOL:
		r = config_parse_bool(value, &yes);
		v = yes;
		break;
	case SETTING_AMOUNT:
		return store_amount(field, s, value);
	case SETTING_PERCENT:
		r = config_parse_percent(value, &percent);
		v = percent;
		break;
	case SETTING_WORD:
		r = config_parse_word(value, s->words);
		if (r >= 0)
			*(unsigned *)field = (unsigned)r;
		return r;
	case SETTING_LEVEL:
		r = log_level_from_string(value, &level);
		break;
	case SETTING_PATH:
	case SETTING_SOCKET:
	case SETTING_PINS:
	case SETTING_PATTERNS:
		break;
	}
	if (r < 0)
		return r;
	if (s->type == SETTING_LEVEL) {
		*(int *)field = level;
		return 0;
	}
	if (v < s->min || v > most(s))
		return -ERANGE;
	if (s->type == SETTING_BOOL)
		*(bool *)field = v;
	else if (s->type == SETTING_COUNT || s->type == SETTING_MODE || s->type == SETTING_PERCENT)
		*(uint32_t *)field = (uint32_t)v;
	else
		*(uint64_t *)field = v;
	return 0;
}

/* Stores `value`. On failure writes into `message` what is wrong and what is allowed. */
int config_setting_store(struct config *c, const struct setting *s, const char *value, bool relative_ok, char *message)
{
	int r = is_path(s) ? store_path(c, s, value, relative_ok) : store_number(c, s, value);
	char allowed[160];

	if (r >= 0)
		return 0;
	describe_allowed(s, allowed, sizeof(allowed));
	if (r == -ENOMEM)
		snprintf(message, CONFIG_MESSAGE_MAX, "%s", strerror(ENOMEM));
	else if (*value == '\0')
		snprintf(message, CONFIG_MESSAGE_MAX, "the value is empty (allowed: %s)", allowed);
	else
		snprintf(message, CONFIG_MESSAGE_MAX, "\"%.60s%s\" is %s (allowed: %s)", value, strlen(value) > 60 ? "..." : "",
			 r == -ERANGE ? (s->type == SETTING_SOCKET ? "too long" : "out of range") : "not valid", allowed);
	return r == -ENOMEM ? r : -EINVAL;
}

/* ---- what settings must be to each other ---- */

enum { MEMORY_MAX, MEMORY_MIN, DIRTY_BACKGROUND, DIRTY_MAX, PIN_MAX, RELATED };

static const char *const related[RELATED] = { "memory_max", "memory_min", "dirty_background", "dirty_max", "pin_max" };

const struct setting *config_setting_find(const char *name)
{
	for (size_t i = 0; i < CONFIG_SETTINGS; i++)
		if (strcmp(config_settings[i].name, name) == 0)
			return &config_settings[i];
	return NULL;
}

/* -EINVAL: what is wrong in `message`, and the settings that contradict each other. */
int config_check_together(const struct config *c, const struct setting **ret_more, const struct setting **ret_less, char *message)
{
	static const unsigned char order[][2] = {
		{ MEMORY_MIN, MEMORY_MAX }, { DIRTY_BACKGROUND, DIRTY_MAX }, { DIRTY_MAX, MEMORY_MAX }, { PIN_MAX, MEMORY_MAX },
	};
	const struct setting *s[RELATED];
	uint64_t bytes[RELATED];

	for (unsigned i = 0; i < RELATED; i++) {
		s[i] = config_setting_find(related[i]);
		bytes[i] = c->memory_max;
		if (i != MEMORY_MAX) {
			const struct config_amount *a = (const void *)((const char *)c + s[i]->offset);

			bytes[i] = config_amount_of(a, c->memory_max);
		}
	}
	for (unsigned i = 0; i < ELEMENTSOF(order); i++) {
		unsigned more = order[i][0], less = order[i][1];
		unsigned share = less == MEMORY_MAX ? (unsigned)s[more]->max : 100;
		char a[32], b[32], of[16] = "";

		if (bytes[more] <= config_amount_of(&(struct config_amount){ .percent = share }, bytes[less]))
			continue;
		config_format_size(a, sizeof(a), bytes[more]);
		config_format_size(b, sizeof(b), bytes[less]);
		if (share < 100)
			snprintf(of, sizeof(of), "%u%% of ", share);
		snprintf(message, CONFIG_MESSAGE_MAX, "%s is %s and more than %s%s, which is %s (allowed: no more)", related[more], a, of, related[less], b);
		*ret_more = s[more];
		*ret_less = s[less];
		return -EINVAL;
	}
	return 0;
}

/* ---- changes while the daemon runs ---- */

/* "a, b, c": all that may change. */
static void describe_running(char *buf, size_t size)
{
	size_t at = 0;

	for (size_t i = 0; i < CONFIG_SETTINGS && at < size; i++)
		if (config_settings[i].running)
			at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? ", " : "", config_settings[i].name);
}

int config_set(struct config *c, const char *name, const char *value, char *message, size_t size)
{
	const struct setting *s = config_setting_find(name), *more, *less;
	char why[CONFIG_MESSAGE_MAX], names[256];
	struct config changed = *c; /* nothing that may change is behind a pointer */
	int r;

	if (!s || !s->running) {
		describe_running(names, sizeof(names));
		snprintf(message, size, "%.32s: %s (allowed: %s)", name, s ? "needs a restart" : "unknown", names);
		return -EINVAL;
	}
	r = config_setting_store(&changed, s, value, false, why);
	if (r == 0)
		r = config_check_together(&changed, &more, &less, why);
	if (r < 0) {
		snprintf(message, size, "%s: %s", name, why);
		return r;
	}
	*c = changed;
	return 0;
}

static size_t setting_size(const struct setting *s)
{
	switch (s->type) {
	case SETTING_SIZE:
	case SETTING_SHARE:
	case SETTING_DURATION:
		return sizeof(uint64_t);
	case SETTING_AMOUNT:
		return sizeof(struct config_amount);
	case SETTING_BOOL:
		return sizeof(bool);
	default:
		return sizeof(uint32_t);
	}
}

static bool setting_equal(const struct setting *s, const struct config *a, const struct config *b)
{
	const char *x = (const char *)a + s->offset, *y = (const char *)b + s->offset;

	if (is_path(s))
		return strcmp(*(char *const *)x, *(char *const *)y) == 0;
	return memcmp(x, y, setting_size(s)) == 0;
}

#define SWAP(a, b) do { __typeof__(a) _a = (a); (a) = (b); (b) = _a; } while (0)

void config_take_over(struct config *c, struct config *from, char *ret_ignored, size_t size)
{
	size_t at = 0;

	ret_ignored[0] = '\0';
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct setting *s = &config_settings[i];

		if (s->running)
			memcpy((char *)c + s->offset, (const char *)from + s->offset, setting_size(s));
		else if (s->type == SETTING_PATTERNS)
			SWAP(*(char **)((char *)c + s->offset), *(char **)((char *)from + s->offset)); /* no restart is needed for what is no use to us */
		else if (!setting_equal(s, c, from) && at < size)
			at += (size_t)snprintf(ret_ignored + at, size - at, "%s%s", at ? ", " : "", s->name);
	}
	SWAP(c->limits, from->limits);
	SWAP(c->n_limits, from->n_limits);
	SWAP(c->file_rules, from->file_rules);
	SWAP(c->n_file_rules, from->n_file_rules);
	SWAP(c->store_rules, from->store_rules);
	SWAP(c->n_store_rules, from->n_store_rules);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings: one table says for each its name, its type, its limits, its default and its help, and serves the
 * configuration files, the command line and --help alike. A default goes through the same parser as what a user writes,
 * so what --help prints is what one gets.
 *
 * A key may stand once in a file; a later file, and any flag, overrides it. Of a flag given twice the last one counts.
 * Only the first error is told: "FILE:LINE: key: what is wrong (what is allowed)", or "--flag: ...".
 *
 * Files are read with inih through a reader of our own, because inih keeps the line numbers to itself, cuts long lines
 * in two, and takes an indented line for a continuation of the value before.
 *
 * Main thread, before others start (getopt has global state). May use log (names of levels) and util.
 */
#include "daemon/config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/util/util.h"

#define SECTION "daemon"
#define MESSAGE_MAX 512

enum setting_type {
	SETTING_PATH,      /* char * */
	SETTING_SOCKET,    /* char *: a path that fits a socket's address */
	SETTING_PINS,      /* char *: a path, or "none", kept as "" */
	SETTING_SIZE,      /* uint64_t, bytes */
	SETTING_SHARE,     /* uint64_t, bytes; may be a share of RAM */
	SETTING_DURATION,  /* uint64_t, milliseconds */
	SETTING_COUNT,     /* uint32_t */
	SETTING_MODE,      /* mode_t, octal */
	SETTING_BOOL,      /* bool */
	SETTING_LEVEL,     /* int */
};

struct setting {
	const char *name;          /* the key; as a flag with - for _ */
	enum setting_type type;
	size_t offset;             /* in struct config */
	uint64_t min, max;         /* in the unit that is stored */
	const char *initial;       /* the default as a user would write it; NULL: found out by set_computed_defaults() */
	const char *initial_note;  /* how --help puts it, if not as `initial` */
	const char *argument;      /* what --help calls the value */
	const char *help;
};

_Static_assert(sizeof(unsigned) == sizeof(uint32_t) && sizeof(mode_t) == sizeof(uint32_t), "SETTING_COUNT, SETTING_MODE");

static const struct setting settings[] = {
#define S(field) .offset = offsetof(struct config, field)
	{ "socket", SETTING_SOCKET, S(socket), 0, 0, NULL,
	  "/run/pagecached/socket, as a user $XDG_RUNTIME_DIR/pagecached/socket", "PATH", "listen on this socket" },
	{ "socket_mode", SETTING_MODE, S(socket_mode), 0, 0777, "0666", NULL, "MODE", "permissions of the socket: who may use the cache" },
	{ "memory_max", SETTING_SHARE, S(memory_max), 1ull << 20, 1ull << 60, "25%", "25%, a quarter of RAM", "SIZE",
	  "memory for all cached pages together" },
	{ "bpffs", SETTING_PINS, S(bpffs), 0, 0, "/sys/fs/bpf/pagecached", NULL, "DIR", "pin the BPF maps here; none: make no BPF maps" },
	{ "state_dir", SETTING_PATH, S(state_dir), 0, 0, NULL, "/var/lib/pagecached, as a user $XDG_STATE_HOME/pagecached", "DIR",
	  "keep here what must outlive the daemon" },
	{ "workers", SETTING_COUNT, S(workers), 1, 64, NULL, "the number of processors, at most 8", "N", "worker threads" },
	{ "log_level", SETTING_LEVEL, S(log_level), 0, 0, "info", NULL, "LEVEL", "log this and what is worse: error, warning, notice, info, debug" },
	{ "kernel_faults", SETTING_BOOL, S(kernel_faults), 0, 1, "yes", NULL, "yes|no",
	  "let clients take faults inside system calls, through /dev/userfaultfd" },
	{ "dirty_expire", SETTING_DURATION, S(dirty_expire_ms), 10, 86400000, "5s", NULL, "TIME", "write out pages dirty for longer than this" },
	{ "readahead_max", SETTING_SIZE, S(readahead_max), 0, 1ull << 30, "8M", NULL, "SIZE", "largest readahead window; 0: no readahead" },
	{ "max_files", SETTING_COUNT, S(max_files), 16, 1u << 24, "16384", NULL, "N", "files cached at one time" },
	{ "max_mappings", SETTING_COUNT, S(max_mappings), 16, 1u << 24, "65536", NULL, "N", "entries of the map of mappings" },
	{ "max_blocks", SETTING_COUNT, S(max_blocks), 0, 1u << 28, "0", "0, from memory_max", "N", "entries of the map of blocks, 256 KiB each" },
	{ "max_handles", SETTING_COUNT, S(max_handles), 1, 1u << 20, "4096", NULL, "N", "open files of one user; root has no limit" },
	{ "test_stores", SETTING_BOOL, S(test_stores), 0, 1, "no", NULL, "yes|no", "serve mem: URIs and obey fault injection; for tests only" },
#undef S
};

/* Where a value came from, for the message. */
struct origin {
	const char *file;          /* NULL: the command line */
	unsigned line;
};

static int complain(FILE *err, const struct origin *o, const char *name, const char *what)
{
	fputs("pagecached: ", err);
	if (o->file && o->line)
		fprintf(err, "%s:%u: ", o->file, o->line);
	else if (o->file)
		fprintf(err, "%s: ", o->file);
	if (name && o->file) {
		fprintf(err, "%s: ", name);
	} else if (name) {
		fputs("--", err);
		for (; *name; name++)
			fputc(*name == '_' ? '-' : *name, err);
		fputs(": ", err);
	}
	fprintf(err, "%s\n", what);
	return -EINVAL;
}

/* ---- values ---- */

/* Digits only: no sign, no space, no other base. */
static int parse_digits(const char *s, int base, uint64_t *ret, const char **ret_end)
{
	unsigned long long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, base);
	if (errno == ERANGE)
		return -ERANGE;
	*ret = v;
	*ret_end = end;
	return 0;
}

static int multiply(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t v;

	if (__builtin_mul_overflow(a, b, &v))
		return -ERANGE;
	*ret = v;
	return 0;
}

int config_parse_size(const char *s, uint64_t whole, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	const char *end, *suffix;
	uint64_t v;
	int r = parse_digits(s, 10, &v, &end);

	if (r < 0)
		return r;
	if (*end == '\0') {
		*ret = v;
		return 0;
	}
	if (end[1] != '\0')
		return -EINVAL;
	if (*end == '%') {
		if (whole == 0)
			return -EINVAL;
		if (v > 100)
			return -ERANGE;
		*ret = whole / 100 * v + whole % 100 * v / 100;
		return 0;
	}
	suffix = strchr(suffixes, toupper((unsigned char)*end));
	return suffix ? multiply(v, 1ull << (10 * (suffix - suffixes + 1)), ret) : -EINVAL;
}

int config_parse_duration(const char *s, uint64_t *ret_ms)
{
	static const struct { const char *unit; uint64_t ms; } units[] = { { "", 1000 }, { "s", 1000 }, { "ms", 1 }, { "min", 60000 } };
	const char *end;
	uint64_t v;
	int r = parse_digits(s, 10, &v, &end);

	if (r < 0)
		return r;
	while (*end == ' ')
		end++;
	for (size_t i = 0; i < ELEMENTSOF(units); i++)
		if (strcmp(end, units[i].unit) == 0)
			return multiply(v, units[i].ms, ret_ms);
	return -EINVAL;
}

static int parse_number(const char *s, int base, uint64_t *ret)
{
	const char *end;
	uint64_t v;
	int r = parse_digits(s, base, &v, &end);

	if (r < 0)
		return r;
	if (*end != '\0')
		return -EINVAL;
	*ret = v;
	return 0;
}

static int parse_bool(const char *s, uint64_t *ret)
{
	static const char *const words[][2] = { { "no", "yes" }, { "off", "on" }, { "false", "true" }, { "0", "1" } };

	for (size_t i = 0; i < ELEMENTSOF(words); i++)
		for (unsigned v = 0; v < 2; v++)
			if (strcasecmp(s, words[i][v]) == 0) {
				*ret = v;
				return 0;
			}
	return -EINVAL;
}

static uint64_t ram_size(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

static unsigned processors(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return (unsigned)CPU_COUNT(&set);
	return (unsigned)MAX(1, sysconf(_SC_NPROCESSORS_ONLN)); /* more than cpu_set_t holds */
}

static bool is_path(const struct setting *s)
{
	return s->type == SETTING_PATH || s->type == SETTING_SOCKET || s->type == SETTING_PINS;
}

/* The largest of K, M, G, T that divides `v`. */
static void format_size(char *buf, size_t size, uint64_t v)
{
	static const char suffixes[] = "KMGT";
	unsigned n = 0;

	while (n < 4 && v && v % 1024 == 0) {
		v /= 1024;
		n++;
	}
	snprintf(buf, size, "%llu%.1s", (unsigned long long)v, n ? suffixes + n - 1 : "");
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
	case SETTING_SIZE:
	case SETTING_SHARE:
		format_size(min, sizeof(min), s->min);
		format_size(max, sizeof(max), s->max);
		snprintf(buf, size, "bytes, or a number with K, M, G or T%s; from %s to %s",
			 s->type == SETTING_SHARE ? ", or 1% to 100% of RAM" : "", min, max);
		break;
	case SETTING_DURATION:
		snprintf(buf, size, "seconds, or a number with ms, s or min; from %llums to %llumin",
			 (unsigned long long)s->min, (unsigned long long)s->max / 60000);
		break;
	case SETTING_COUNT:
		snprintf(buf, size, "a number from %llu to %llu", (unsigned long long)s->min, (unsigned long long)s->max);
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
	}
}

static int store_path(struct config *c, const struct setting *s, const char *value, bool relative_ok)
{
	char **field = (char **)((char *)c + s->offset);
	char *copy;

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

static int store_number(struct config *c, const struct setting *s, const char *value)
{
	void *field = (char *)c + s->offset;
	uint64_t v = 0;
	int level = 0, r = -EINVAL;

	switch (s->type) {
	case SETTING_SIZE:
		r = config_parse_size(value, 0, &v);
		break;
	case SETTING_SHARE:
		r = config_parse_size(value, ram_size(), &v);
		break;
	case SETTING_DURATION:
		r = config_parse_duration(value, &v);
		break;
	case SETTING_COUNT:
		r = parse_number(value, 10, &v);
		break;
	case SETTING_MODE:
		r = parse_number(value, 8, &v);
		break;
	case SETTING_BOOL:
		r = parse_bool(value, &v);
		break;
	case SETTING_LEVEL:
		r = log_level_from_string(value, &level);
		break;
	case SETTING_PATH:
	case SETTING_SOCKET:
	case SETTING_PINS:
		break;
	}
	if (r < 0)
		return r;
	if (s->type == SETTING_LEVEL) {
		*(int *)field = level;
		return 0;
	}
	if (v < s->min || v > s->max)
		return -ERANGE;
	if (s->type == SETTING_BOOL)
		*(bool *)field = v;
	else if (s->type == SETTING_COUNT || s->type == SETTING_MODE)
		*(uint32_t *)field = (uint32_t)v;
	else
		*(uint64_t *)field = v;
	return 0;
}

/* Stores `value`. On failure writes into `message` what is wrong and what is allowed. */
static int setting_store(struct config *c, const struct setting *s, const char *value, bool relative_ok, char *message)
{
	int r = is_path(s) ? store_path(c, s, value, relative_ok) : store_number(c, s, value);
	char allowed[160];

	if (r >= 0)
		return 0;
	describe_allowed(s, allowed, sizeof(allowed));
	if (r == -ENOMEM)
		snprintf(message, MESSAGE_MAX, "%s", strerror(ENOMEM));
	else if (*value == '\0')
		snprintf(message, MESSAGE_MAX, "the value is empty (allowed: %s)", allowed);
	else
		snprintf(message, MESSAGE_MAX, "\"%.200s\" is %s (allowed: %s)", value,
			 r == -ERANGE ? (s->type == SETTING_SOCKET ? "too long" : "out of range") : "not valid", allowed);
	return r == -ENOMEM ? r : -EINVAL;
}

/* ---- defaults ---- */

/* $VARIABLE/rest, else $HOME/home_part/rest, else /tmp/pagecached-UID/fallback. A relative or empty variable does not count. */
static char *user_path(const char *variable, const char *home_part, const char *rest, const char *fallback)
{
	const char *base = getenv(variable), *home = home_part ? getenv("HOME") : NULL;
	char *path = NULL;
	int r;

	if (base && *base == '/')
		r = asprintf(&path, "%s/%s", base, rest);
	else if (home && *home == '/')
		r = asprintf(&path, "%s/%s/%s", home, home_part, rest);
	else
		r = asprintf(&path, "/tmp/pagecached-%u/%s", (unsigned)geteuid(), fallback);
	return r < 0 ? NULL : path;
}

static int set_initial(struct config *c, FILE *err)
{
	const struct origin o = { .file = "built-in defaults" };
	char message[MESSAGE_MAX];

	for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
		int r = settings[i].initial ? setting_store(c, &settings[i], settings[i].initial, false, message) : 0;

		if (r < 0) {
			complain(err, &o, settings[i].name, message);
			return r;
		}
	}
	return 0;
}

static int set_computed_defaults(struct config *c)
{
	bool root = geteuid() == 0;

	if (!c->socket)
		c->socket = root ? strdup("/run/pagecached/socket") : user_path("XDG_RUNTIME_DIR", NULL, "pagecached/socket", "socket");
	if (!c->state_dir)
		c->state_dir = root ? strdup("/var/lib/pagecached") : user_path("XDG_STATE_HOME", ".local/state", "pagecached", "state");
	if (!c->workers)
		c->workers = MIN(processors(), 8u);
	return c->socket && c->state_dir ? 0 : -ENOMEM;
}

/* ---- files ---- */

struct parse {
	struct config *c;
	FILE *stream, *err;
	const char *file;
	char *text;                /* the line that was read last, for getline() */
	size_t allocated;
	unsigned line;
	int read_error;            /* errno */
	unsigned seen[ELEMENTSOF(settings)]; /* line of the key in this file */

	/* The first error that we found; inih reports those that it finds by the line alone. */
	unsigned error_line;
	int error;
	char error_name[64];
	char message[MESSAGE_MAX];
};

static void parse_free(struct parse *p)
{
	free(p->text);
	if (p->stream)
		fclose(p->stream);
}

static int parse_fail(struct parse *p, const char *name, int error, const char *format, ...) __attribute__((format(printf, 4, 5)));

static int parse_fail(struct parse *p, const char *name, int error, const char *format, ...)
{
	va_list ap;

	if (p->error)
		return 0;
	p->error = error;
	p->error_line = p->line;
	snprintf(p->error_name, sizeof(p->error_name), "%s", name ? name : "");
	va_start(ap, format);
	vsnprintf(p->message, sizeof(p->message), format, ap);
	va_end(ap);
	return 0;
}

/* inih tells of a section only when a key follows, so that a misspelt one without keys would pass. */
static bool check_section(struct parse *p, const char *line)
{
	size_t n = strcspn(line + 1, "]");

	if (line[1 + n] == ']' && (n != strlen(SECTION) || memcmp(line + 1, SECTION, n) != 0)) {
		parse_fail(p, NULL, -EINVAL, "[%.*s]: unknown section (allowed: [" SECTION "])", (int)MIN(n, (size_t)100), line + 1);
		return false;
	}
	return true;
}

/* As fgets(3), for inih. NULL at the end, and after an error. */
static char *read_line(char *buf, int size, void *arg)
{
	struct parse *p = arg;
	ssize_t length;
	char *start;
	size_t n;

	if (p->error)
		return NULL;
	errno = 0;
	length = getline(&p->text, &p->allocated, p->stream);
	if (length < 0) {
		p->read_error = ferror(p->stream) ? (errno ? errno : EIO) : 0;
		return NULL;
	}
	p->line++;
	if (strlen(p->text) != (size_t)length) {
		parse_fail(p, NULL, -EINVAL, "the line has a NUL byte (allowed: text)");
		return NULL;
	}
	start = p->text + strspn(p->text, " \t\r\n\v\f");
	n = strlen(start);
	if (*start == '#' || *start == ';')
		n = 0;
	if (n >= (size_t)size) {
		parse_fail(p, NULL, -EINVAL, "the line is too long (allowed: %d characters)", size - 2);
		return NULL;
	}
	if (n && *start == '[' && !check_section(p, start))
		return NULL;
	memcpy(buf, start, n);
	buf[n] = '\0';
	return buf;
}

static const struct setting *setting_find(const char *name)
{
	for (size_t i = 0; i < ELEMENTSOF(settings); i++)
		if (strcmp(settings[i].name, name) == 0)
			return &settings[i];
	return NULL;
}

static int handle_key(void *arg, const char *section, const char *name, const char *value)
{
	struct parse *p = arg;
	const struct setting *s = setting_find(name);
	char message[MESSAGE_MAX];
	unsigned *seen;
	int r;

	if (*section == '\0')
		return parse_fail(p, name, -EINVAL, "stands before any section (allowed: under [" SECTION "])");
	if (!s)
		return parse_fail(p, name, -EINVAL, "unknown key (allowed: those of pagecached.conf(5))");
	seen = &p->seen[s - settings];
	if (*seen)
		return parse_fail(p, name, -EINVAL, "was set on line %u already (allowed: once a file)", *seen);
	*seen = p->line;
	r = setting_store(p->c, s, value, false, message);
	return r < 0 ? parse_fail(p, name, r, "%s", message) : 1;
}

static int load_file(struct config *c, const char *path, FILE *err)
{
	CLEANUP(parse_free) struct parse p = { .c = c, .err = err, .file = path };
	struct origin o = { .file = path };
	int r;

	p.stream = fopen(path, "re");
	if (!p.stream)
		return complain(err, &o, NULL, strerror(errno));

	r = ini_parse_stream(read_line, &p, handle_key, &p);
	if (p.read_error)
		return complain(err, &o, NULL, strerror(p.read_error));
	if (r < 0) {
		complain(err, &o, NULL, strerror(ENOMEM));
		return -ENOMEM;
	}
	/* inih goes on after its own errors, and tells the first line that had one, by itself or by our handler. */
	if (r > 0 && (!p.error || (unsigned)r < p.error_line)) {
		o.line = (unsigned)r;
		return complain(err, &o, NULL, "neither a section nor a setting (allowed: \"[" SECTION "]\", \"key = value\", or a comment after # or ;)");
	}
	if (p.error) {
		o.line = p.error_line;
		complain(err, &o, *p.error_name ? p.error_name : NULL, p.message);
		return p.error;
	}
	return 0;
}

static int is_drop_in(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return e->d_name[0] != '.' && n > 5 && strcmp(e->d_name + n - 5, ".conf") == 0;
}

/* By bytes: alphasort(3) would go by the locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_drop_ins(struct config *c, const char *file, FILE *err)
{
	_cleanup_free_ char *dir = NULL;
	struct dirent **entries = NULL;
	struct origin o;
	int n, r = 0;

	if (asprintf(&dir, "%s.d", file) < 0) {
		dir = NULL;
		return -ENOMEM;
	}
	n = scandir(dir, &entries, is_drop_in, by_name);
	if (n < 0) {
		o = (struct origin){ .file = dir };
		return errno == ENOENT || errno == ENOTDIR ? 0 : complain(err, &o, NULL, strerror(errno));
	}
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *path = NULL;

		if (r == 0 && asprintf(&path, "%s/%s", dir, entries[i]->d_name) < 0) {
			path = NULL;
			r = -ENOMEM;
		}
		if (r == 0)
			r = load_file(c, path, err);
		free(entries[i]);
	}
	free(entries);
	return r;
}

static int load_files(struct config *c, const char *given, FILE *err)
{
	bool exists = true;
	int r;

	if (given)
		c->file = strdup(given);
	else if (geteuid() == 0)
		c->file = strdup("/etc/pagecached/pagecached.conf");
	else
		c->file = user_path("XDG_CONFIG_HOME", ".config", "pagecached/pagecached.conf", "pagecached.conf");
	if (!c->file)
		return -ENOMEM;

	if (!given)
		exists = access(c->file, F_OK) == 0;
	r = exists ? load_file(c, c->file, err) : 0;
	if (r == 0)
		r = load_drop_ins(c, c->file, err);
	if (!exists) {
		free(c->file);
		c->file = NULL;
	}
	return r;
}

/* ---- flags ---- */

enum { FLAG_HELP = 'h', FLAG_VERSION = 'V', FLAG_CONFIG = 'c', FLAG_SETTINGS = 256 };

/* A setting's flag: the name with - for _. Returns its length, less than 32 for every name of the table. */
static int flag_name(const struct setting *s, char buf[32])
{
	int n = snprintf(buf, 32, "%s", s->name);

	for (char *p = buf; *p; p++)
		if (*p == '_')
			*p = '-';
	return n;
}

static void print_help(FILE *out)
{
	char name[32], left[64];

	fputs("Usage: pagecached [OPTION]...\n"
	      "A page cache in user space: gives mmap, read and write on files, one copy in memory per machine.\n"
	      "\n"
	      "  -c, --config FILE       read FILE, then FILE.d/*.conf (default: /etc/pagecached/pagecached.conf,\n"
	      "                          as a user $XDG_CONFIG_HOME/pagecached/pagecached.conf)\n"
	      "  -h, --help              print this and exit\n"
	      "  -V, --version           print the version and exit\n"
	      "\n"
	      "Settings; each is also a key, with _ for -, of section [" SECTION "] in the file. A flag overrides the file.\n"
	      "\n", out);
	for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
		const struct setting *s = &settings[i];

		flag_name(s, name);
		snprintf(left, sizeof(left), "--%s %s", name, s->argument);
		fprintf(out, "  %-23s %s\n%26s(default: %s)\n", left, s->help, "", s->initial_note ? s->initial_note : s->initial);
	}
	fputs("\nA SIZE is a number of bytes, or has K, M, G or T behind it (powers of 1024). A TIME is in seconds, or has ms, s\n"
	      "or min behind it. SIGTERM writes everything back and ends the daemon. See pagecached(8), pagecached.conf(5).\n", out);
}

struct flags {
	const char *config;
	const char *value[ELEMENTSOF(settings)]; /* NULL: not given */
};

/* Fills `f`. Returns 1 when the question was answered. */
static int parse_flags(struct flags *f, int argc, char **argv, FILE *out, FILE *err)
{
	struct option options[ELEMENTSOF(settings) + 4] = {
		{ "help", no_argument, NULL, FLAG_HELP },
		{ "version", no_argument, NULL, FLAG_VERSION },
		{ "config", required_argument, NULL, FLAG_CONFIG },
	};
	char names[ELEMENTSOF(settings)][32];
	const struct origin o = { 0 };
	uint64_t ignored;
	int opt;

	for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
		flag_name(&settings[i], names[i]);
		options[3 + i] = (struct option){ names[i], settings[i].type == SETTING_BOOL ? optional_argument : required_argument,
						  NULL, FLAG_SETTINGS + (int)i };
	}
	optind = 0; /* glibc: start afresh */
	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":hVc:", options, NULL)) >= 0) {
		switch (opt) {
		case FLAG_HELP:
			print_help(out);
			return 1;
		case FLAG_VERSION:
			fputs("pagecached " PGC_VERSION "\n", out);
			return 1;
		case FLAG_CONFIG:
			f->config = optarg;
			break;
		case ':':
			if (optopt >= FLAG_SETTINGS)
				return complain(err, &o, settings[optopt - FLAG_SETTINGS].name, "needs a value (see --help)");
			return complain(err, &o, "config", "needs the name of a file");
		case '?':
			if (optopt > 0 && optopt < FLAG_SETTINGS && argv[optind - 1][1] != '-')
				fprintf(err, "pagecached: -%c: unknown flag (see --help)\n", optopt);
			else
				fprintf(err, "pagecached: %s: unknown or ambiguous flag, or one that takes no value (see --help)\n",
					argv[optind - 1]);
			return -EINVAL;
		default:
			/* --flag alone means yes, and "--flag no" works as "--flag=no" does. */
			if (!optarg)
				optarg = optind < argc && parse_bool(argv[optind], &ignored) == 0 ? argv[optind++] : (char *)"yes";
			f->value[opt - FLAG_SETTINGS] = optarg;
		}
	}
	if (optind < argc) {
		fprintf(err, "pagecached: \"%s\": unexpected argument (see --help)\n", argv[optind]);
		return -EINVAL;
	}
	return 0;
}

static int apply_flags(struct config *c, const struct flags *f, FILE *err)
{
	const struct origin o = { 0 };
	char message[MESSAGE_MAX];

	for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
		int r = f->value[i] ? setting_store(c, &settings[i], f->value[i], true, message) : 0;

		if (r < 0) {
			complain(err, &o, settings[i].name, message);
			return r;
		}
	}
	return 0;
}

int config_load(struct config *c, int argc, char **argv, FILE *out, FILE *err)
{
	struct flags f = { 0 };
	int r;

	memset(c, 0, sizeof(*c));
	r = parse_flags(&f, argc, argv, out, err);
	if (r == 0)
		r = set_initial(c, err);
	if (r == 0)
		r = load_files(c, f.config, err);
	if (r == 0)
		r = apply_flags(c, &f, err);
	if (r == 0)
		r = set_computed_defaults(c);
	if (r == -ENOMEM)
		fprintf(err, "pagecached: %s\n", strerror(ENOMEM));
	if (r != 0)
		config_free(c);
	return r;
}

void config_free(struct config *c)
{
	free(c->file);
	free(c->socket);
	free(c->bpffs);
	free(c->state_dir);
	memset(c, 0, sizeof(*c));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the settings of config_setting and the rules of config_rules: defaults, files, flags. A default goes through
 * the same parser as what a user writes, so what --help prints is what one gets.
 *
 * A key may stand once in a file; a later file, and any flag, overrides it. Of a flag given twice the last one counts.
 * Only the first error is told: "FILE:LINE: key: what is wrong (what is allowed)", or "--flag: ...".
 *
 * Files are read with inih through a reader of our own, because inih keeps the line numbers to itself, cuts long lines
 * in two, and takes an indented line for a continuation of the value before.
 *
 * Main thread (getopt has global state). May call config_setting, config_rules, config_value, util.
 */
#include "daemon/config.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config_rules.h"
#include "daemon/config_setting.h"
#include "daemon/config_value.h"
#include "daemon/util/util.h"
#include "version.h"

#define SECTION CONFIG_SECTION
#define NO_SETTING "neither a section nor a setting (allowed: \"[" SECTION "]\", \"key = value\", or a comment after # or ;)"

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

static unsigned processors(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return (unsigned)CPU_COUNT(&set);
	return (unsigned)MAX(1, sysconf(_SC_NPROCESSORS_ONLN)); /* more than cpu_set_t holds */
}

/* ---- defaults ---- */

/*
 * $VARIABLE/rest, else $HOME/home_part/rest, else /tmp/pagecached-UID/fallback. A relative or empty variable does not
 * count.
 */
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

bool config_is_unit(void)
{
	const char *pid = getenv("SYSTEMD_EXEC_PID");
	char own[16];

	snprintf(own, sizeof(own), "%d", (int)getpid());
	return pid && strcmp(pid, own) == 0;
}

/*
 * $VARIABLE/rest, where the service manager made a folder for us (systemd.exec(5), RuntimeDirectory= and so on) and we are what it started, not something below it;
 * else root's path; else the user's, which is the caller's. NULL: that, or out of memory.
 */
static char *system_path(const char *variable, const char *rest, const char *of_root)
{
	const char *folder = config_is_unit() ? getenv(variable) : NULL;
	char *path = NULL;

	if (!folder || *folder != '/')
		return geteuid() == 0 ? strdup(of_root) : NULL;
	if (asprintf(&path, "%.*s%s", (int)strcspn(folder, ":"), folder, rest) < 0)
		return NULL;
	return path;
}

static int set_initial(struct config *c, FILE *err)
{
	const struct origin o = { .file = "built-in defaults" };
	char message[CONFIG_MESSAGE_MAX];

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		int r = config_settings[i].initial ? config_setting_store(c, &config_settings[i], config_settings[i].initial, false, message) : 0;

		if (r < 0) {
			complain(err, &o, config_settings[i].name, message);
			return r;
		}
	}
	return 0;
}

static int set_computed_defaults(struct config *c)
{
	if (!c->socket)
		c->socket = system_path("RUNTIME_DIRECTORY", "/socket", "/run/pagecached/socket");
	if (!c->socket)
		c->socket = user_path("XDG_RUNTIME_DIR", NULL, "pagecached/socket", "socket");
	if (!c->state_dir)
		c->state_dir = system_path("STATE_DIRECTORY", "", "/var/lib/pagecached");
	if (!c->state_dir)
		c->state_dir = user_path("XDG_STATE_HOME", ".local/state", "pagecached", "state");
	if (!c->workers)
		c->workers = MIN(processors(), 8u);
	if (c->lanes == CONFIG_AUTO)
		c->lanes = MIN(processors() / 4, 16u);
	return c->socket && c->state_dir ? 0 : -ENOMEM;
}

/* ---- files ---- */

/* What is loaded, and where each setting came from, for the check of what they are to each other. */
struct load {
	struct config *c;
	FILE *err;
	struct origin from[CONFIG_SETTINGS];
	bool given[CONFIG_SETTINGS]; /* in a file or as a flag */
	char **files;              /* names that `from` points to */
	size_t n_files;
};

static void load_free(struct load *l)
{
	for (size_t i = 0; i < l->n_files; i++)
		free(l->files[i]);
	free(l->files);
}

/* Keeps a name until the end of the load. NULL: out of memory. */
static const char *load_keep_name(struct load *l, const char *name)
{
	char **files = reallocarray(l->files, l->n_files + 1, sizeof(*files));

	if (!files)
		return NULL;
	l->files = files;
	files[l->n_files] = strdup(name);
	return files[l->n_files] ? files[l->n_files++] : NULL;
}

struct parse {
	struct load *load;
	FILE *stream;
	const char *file;
	char *text;                /* the line that was read last, for getline() */
	size_t allocated;
	unsigned line;
	int read_error;            /* errno */
	unsigned seen[CONFIG_SETTINGS]; /* line of the key of [daemon] in this file */
	struct config_place place;

	/* The first error that we found; inih reports those that it finds by the line alone. */
	unsigned error_line;
	int error;
	char error_name[64];
	char message[CONFIG_MESSAGE_MAX];
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

/* Ends the section before, if any. */
static bool end_section(struct parse *p)
{
	char message[CONFIG_MESSAGE_MAX];
	int r = config_rules_end(p->load->c, &p->place, message);

	if (r == 0)
		return true;
	parse_fail(p, NULL, r, "%s", message);
	p->error_line = p->place.line;
	return false;
}

/*
 * A line that starts with [. inih tells of a section only when a key follows, so that a misspelt one without keys would
 * pass; it cuts long names, and takes the first ] for the end, of which a pattern may have several. So it gets to see
 * "[s]".
 */
static bool begin_section(struct parse *p, const char *line)
{
	_cleanup_free_ char *section = strdup(line + 1);
	char message[CONFIG_MESSAGE_MAX];
	size_t n = 0;
	int r;

	if (!section) {
		parse_fail(p, NULL, -ENOMEM, "%s", strerror(ENOMEM));
		return false;
	}
	/* A comment begins with a ; behind a blank. */
	while (section[n] && !(section[n] == ';' && n > 0 && strchr(" \t", section[n - 1])))
		n++;
	while (n > 0 && strchr(" \t\r\n\v\f", section[n - 1]))
		n--;
	if (n == 0 || section[n - 1] != ']') {
		parse_fail(p, NULL, -EINVAL, NO_SETTING);
		return false;
	}
	n--;
	while (n > 0 && strchr(" \t", section[n - 1]))
		n--;
	section[n] = '\0';
	if (!end_section(p))
		return false;
	r = config_rules_begin(p->load->c, &p->place, section + strspn(section, " \t"), p->line, message);
	if (r == -ENOMEM)
		snprintf(message, sizeof(message), "%s", strerror(ENOMEM));
	if (r < 0)
		parse_fail(p, NULL, r, "%s", message);
	return r == 0;
}

/* As fgets(3), for inih. NULL at the end, and after an error. */
static char *read_line(char *buf, int size, void *arg)
{
	struct parse *p = arg;
	const char *start;
	ssize_t length;
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
	if (*start == '[') {
		if (!begin_section(p, start))
			return NULL;
		start = "[s]\n";
	}
	n = strlen(start);
	if (*start == '#' || *start == ';')
		n = 0;
	if (n >= (size_t)size) {
		parse_fail(p, NULL, -EINVAL, "the line is too long (allowed: %d characters)", size - 2);
		return NULL;
	}
	memcpy(buf, start, n);
	buf[n] = '\0';
	return buf;
}

static int handle_setting(struct parse *p, const char *name, const char *value)
{
	const struct setting *s = config_setting_find(name);
	struct load *l = p->load;
	char message[CONFIG_MESSAGE_MAX];
	unsigned *seen;
	int r;

	if (!s)
		return parse_fail(p, name, -EINVAL, "unknown key (allowed: those of pagecached.conf(5))");
	seen = &p->seen[s - config_settings];
	if (*seen && s->type != SETTING_PATTERNS)
		return parse_fail(p, name, -EINVAL, "was set on line %u already (allowed: once a file)", *seen);
	*seen = p->line;
	l->given[s - config_settings] = true;
	l->from[s - config_settings] = (struct origin){ .file = p->file, .line = p->line };
	r = config_setting_store(l->c, s, value, false, message);
	return r < 0 ? parse_fail(p, name, r, "%s", message) : 1;
}

/* The section as inih knows it is of no interest. */
static int handle_key(void *arg, const char *ignored, const char *name, const char *value)
{
	struct parse *p = arg;
	char message[CONFIG_MESSAGE_MAX];
	int r;

	switch (p->place.section) {
	case CONFIG_SECTION_NONE:
		return parse_fail(p, name, -EINVAL, "stands before any section (allowed: under [" SECTION "])");
	case CONFIG_SECTION_DAEMON:
		return handle_setting(p, name, value);
	default:
		r = config_rules_key(p->load->c, &p->place, name, value, p->line, message);
		return r < 0 ? parse_fail(p, name, r, "%s", message) : 1;
	}
}

static int load_file(struct load *l, const char *path)
{
	CLEANUP(parse_free) struct parse p = { .load = l, .file = load_keep_name(l, path) };
	struct origin o = { .file = path };
	FILE *err = l->err;
	int r;

	if (!p.file)
		return -ENOMEM;
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
	if (r == 0 && !p.error)
		(void)end_section(&p);
	/* inih goes on after its own errors, and tells the first line that had one, by itself or by our handler. */
	if (r > 0 && (!p.error || (unsigned)r < p.error_line)) {
		o.line = (unsigned)r;
		return complain(err, &o, NULL, NO_SETTING);
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

static int load_drop_ins(struct load *l, const char *file)
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
		return errno == ENOENT || errno == ENOTDIR ? 0 : complain(l->err, &o, NULL, strerror(errno));
	}
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *path = NULL;

		if (r == 0 && asprintf(&path, "%s/%s", dir, entries[i]->d_name) < 0) {
			path = NULL;
			r = -ENOMEM;
		}
		if (r == 0)
			r = load_file(l, path);
		free(entries[i]);
	}
	free(entries);
	return r;
}

static int load_files(struct load *l, const char *given)
{
	struct config *c = l->c;
	bool exists = true;
	int r;

	c->file = given ? strdup(given) : system_path("CONFIGURATION_DIRECTORY", "/pagecached.conf", "/etc/pagecached/pagecached.conf");
	if (!c->file && !given)
		c->file = user_path("XDG_CONFIG_HOME", ".config", "pagecached/pagecached.conf", "pagecached.conf");
	if (!c->file)
		return -ENOMEM;

	if (!given)
		exists = access(c->file, F_OK) == 0;
	r = exists ? load_file(l, c->file) : 0;
	if (r == 0)
		r = load_drop_ins(l, c->file);
	if (!exists) {
		free(c->file);
		c->file = NULL;
	}
	return r;
}

/* ---- flags ---- */

enum { FLAG_HELP = 'h', FLAG_VERSION = 'V', FLAG_CONFIG = 'c', FLAG_KEEP = 255, FLAG_SETTINGS = 256 };

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
	      "      --keep              run under a keeper of our own, which starts the daemon again when it dies, and keeps what\n"
	      "                          clients have; for where no service manager does\n"
	      "  -h, --help              print this and exit\n"
	      "  -V, --version           print the version and exit\n"
	      "\n"
	      "Settings; each is also a key, with _ for -, of section [" SECTION "] in the file. A flag overrides the file.\n"
	      "\n", out);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct setting *s = &config_settings[i];

		flag_name(s, name);
		snprintf(left, sizeof(left), "--%s %s", name, s->argument);
		fprintf(out, "  %-23s %s\n%26s(default: %s)\n", left, s->help, "", s->initial_note ? s->initial_note : s->initial);
	}
	fputs("\nThe file has sections for limits by user and cgroup, and for single files and stores, as well.\n"
	      "A SIZE is a number of bytes, or has K, M, G or T behind it (powers of 1024). A TIME is in seconds, or has ms, s\n"
	      "or min behind it. SIGTERM writes everything back and ends the daemon. See pagecached(8), pagecached.conf(5).\n", out);
}

struct flags {
	const char *config;
	bool keep;
	const char *value[CONFIG_SETTINGS]; /* NULL: not given */
};

/* Fills `f`. Returns 1 when the question was answered. */
static int parse_flags(struct flags *f, int argc, char **argv, FILE *out, FILE *err)
{
	struct option options[CONFIG_SETTINGS + 5] = {
		{ "help", no_argument, NULL, FLAG_HELP },
		{ "version", no_argument, NULL, FLAG_VERSION },
		{ "config", required_argument, NULL, FLAG_CONFIG },
		{ "keep", no_argument, NULL, FLAG_KEEP },
	};
	char names[CONFIG_SETTINGS][32];
	const struct origin o = { 0 };
	bool ignored;
	int opt;

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		flag_name(&config_settings[i], names[i]);
		options[4 + i] = (struct option){ names[i], config_settings[i].type == SETTING_BOOL ? optional_argument : required_argument,
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
		case FLAG_KEEP:
			f->keep = true;
			break;
		case ':':
			if (optopt >= FLAG_SETTINGS)
				return complain(err, &o, config_settings[optopt - FLAG_SETTINGS].name, "needs a value (see --help)");
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
				optarg = optind < argc && config_parse_bool(argv[optind], &ignored) == 0 ? argv[optind++] : (char *)"yes";
			f->value[opt - FLAG_SETTINGS] = optarg;
		}
	}
	if (optind < argc) {
		fprintf(err, "pagecached: \"%s\": unexpected argument (see --help)\n", argv[optind]);
		return -EINVAL;
	}
	return 0;
}

static int apply_flags(struct load *l, const struct flags *f)
{
	const struct origin o = { 0 };
	char message[CONFIG_MESSAGE_MAX];

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		int r;

		if (!f->value[i])
			continue;
		l->given[i] = true;
		l->from[i] = o;
		r = config_setting_store(l->c, &config_settings[i], f->value[i], true, message);
		if (r < 0) {
			complain(l->err, &o, config_settings[i].name, message);
			return r;
		}
	}
	return 0;
}

/* Blames what was given, and what is too much rather than what is too little. */
static int load_check(const struct load *l)
{
	const struct setting *more, *less;
	char message[CONFIG_MESSAGE_MAX];
	size_t i;

	if (config_check_together(l->c, &more, &less, message) == 0)
		return 0;
	i = (size_t)(more - config_settings);
	if (!l->given[i] && l->given[less - config_settings])
		i = (size_t)(less - config_settings);
	return complain(l->err, &l->from[i], config_settings[i].name, message);
}

int config_load(struct config *c, int argc, char **argv, FILE *out, FILE *err)
{
	CLEANUP(load_free) struct load l = { .c = c, .err = err };
	struct flags f = { 0 };
	int r;

	memset(c, 0, sizeof(*c));
	r = parse_flags(&f, argc, argv, out, err);
	c->keep = f.keep;
	if (r == 0)
		r = set_initial(c, err);
	if (r == 0)
		r = load_files(&l, f.config);
	if (r == 0)
		r = apply_flags(&l, &f);
	if (r == 0)
		r = load_check(&l);
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
	free(c->preload_paths);
	free(c->state_dir);
	config_rules_free(c);
	memset(c, 0, sizeof(*c));
}

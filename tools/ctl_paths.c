/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns are kept as the preload library compares them: it knows names alone, so whatever depends on the working directory, on what is a folder or on
 * symbolic links is settled here, once.
 *
 * What is literal (the working directory, a folder that exists, what is behind a symbolic link) may contain characters that mean something
 * in a pattern; they get a backslash.
 */
#include "tools/ctl_paths.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPECIAL "*?["
#define ESCAPED SPECIAL "\\:"

/* --- one pattern --- */

static int add_absolute(struct ctl_paths *p, const char *folder, const char *rest)
{
	size_t room = strlen(folder) * 2 + strlen(rest) + 2;
	char *text, *at, **more;

	text = at = malloc(room);
	if (!text)
		return -ENOMEM;
	for (; *folder; folder++) {
		if (strchr(ESCAPED, *folder))
			*at++ = '\\';
		*at++ = *folder;
	}
	strcpy(at, rest);
	if (!*text)
		strcpy(text, "/");
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->pattern[i], text) == 0) {
			free(text);
			return 0;
		}
	more = reallocarray(p->pattern, p->n + 1, sizeof(*more));
	if (!more) {
		free(text);
		return -ENOMEM;
	}
	p->pattern = more;
	p->pattern[p->n++] = text;
	return 0;
}

/* The first of `set` without a backslash before it, or the end. */
static const char *find_plain(const char *pattern, const char *set)
{
	while (*pattern && !strchr(set, *pattern))
		pattern += *pattern == '\\' && pattern[1] ? 2 : 1;
	return pattern;
}

static void remove_backslashes(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (*s == '\\' && s[1])
			s++;
		*out++ = *s;
	}
	*out = '\0';
}

/* Sorts "//", "." and ".." out by the names alone. "/" becomes "". */
static void normalise(char *path)
{
	char *out = path;
	const char *in = path;

	while (*in) {
		size_t n;

		in += strspn(in, "/");
		n = strcspn(in, "/");
		if (n == 2 && in[0] == '.' && in[1] == '.') {
			while (out > path && *--out != '/')
				;
		} else if (n > 0 && !(n == 1 && in[0] == '.')) {
			*out++ = '/';
			memmove(out, in, n);
			out += n;
		}
		in += n;
	}
	*out = '\0';
}

/*
 * `path` behind its symbolic links; what does not exist yet is taken as it is called. NULL: out of memory. `plain` is the same, normalised.
 */
static char *behind_links(const char *path, const char *plain)
{
	char real[PATH_MAX], *above, *both = NULL;

	if (realpath(path, real))
		return strdup(strcmp(real, "/") == 0 ? "" : real);
	above = strdup(plain);
	if (!above)
		return NULL;
	for (;;) {
		char *slash = strrchr(above, '/');

		if (!slash) {
			both = strdup(plain);
			break;
		}
		*slash = '\0';
		if (realpath(*above ? above : "/", real)) {
			if (asprintf(&both, "%s%s", strcmp(real, "/") == 0 ? "" : real, plain + strlen(above)) < 0)
				both = NULL;
			break;
		}
	}
	free(above);
	return both;
}

/* `path` is literal and absolute; `rest` follows it. */
static int add_both(struct ctl_paths *p, const char *path, const char *rest)
{
	char *plain = strdup(path), *real = NULL;
	int r = -ENOMEM;

	if (plain) {
		normalise(plain);
		real = behind_links(path, plain);
	}
	if (real) {
		r = add_absolute(p, plain, rest);
		if (r == 0)
			r = add_absolute(p, real, rest);
	}
	free(plain);
	free(real);
	return r;
}

/* What a path, which is no pattern, stands for: itself, or all below. */
static const char *below(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) ? "/**" : "";
	return path[strlen(path) - 1] == '/' ? "/**" : "";
}

static int add_from(struct ctl_paths *p, const char *literal, const char *rest)
{
	char *cwd = *literal == '/' ? strdup("") : get_current_dir_name(); /* as the shell calls it: $PWD */
	char *path = NULL;
	int r = cwd ? 0 : -errno;

	if (r == 0 && asprintf(&path, "%s/%s", cwd, literal) < 0) {
		path = NULL;
		r = -ENOMEM;
	}
	if (r == 0)
		r = add_both(p, path, rest);
	free(path);
	free(cwd);
	return r;
}

/* `pattern` has something special, from the component at `cut` on. */
static int add_glob(struct ctl_paths *p, const char *pattern, size_t cut)
{
	char *literal = strndup(pattern, cut), *rest = NULL;
	int r = -ENOMEM;

	if (asprintf(&rest, "/%s%s", pattern + cut, pattern[strlen(pattern) - 1] == '/' ? "**" : "") < 0)
		rest = NULL;
	if (literal && rest) {
		remove_backslashes(literal);
		r = add_from(p, literal, rest);
	}
	free(literal);
	free(rest);
	return r;
}

int ctl_paths_add(struct ctl_paths *p, const char *pattern)
{
	size_t special = (size_t)(find_plain(pattern, SPECIAL) - pattern);
	char *path;
	int r;

	if (!*pattern)
		return -EINVAL;
	if (access(pattern, F_OK) == 0)
		return add_from(p, pattern, below(pattern));
	if (*find_plain(pattern, ":"))
		return -EINVAL;
	if (pattern[special]) {
		while (special > 0 && pattern[special - 1] != '/')
			special--;
		return add_glob(p, pattern, special);
	}
	path = strdup(pattern);
	if (!path)
		return -ENOMEM;
	remove_backslashes(path);
	r = add_from(p, path, below(path));
	free(path);
	return r;
}

int ctl_paths_add_list(struct ctl_paths *p, const char *list)
{
	int r = 0;

	while (r == 0 && *list) {
		const char *end = find_plain(list, ":");
		char *one = strndup(list, (size_t)(end - list));

		if (!one)
			return -ENOMEM;
		r = *one ? ctl_paths_add(p, one) : 0;
		free(one);
		list = end + (*end == ':');
	}
	return r;
}

char *ctl_paths_join(const struct ctl_paths *p)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	for (size_t i = 0; i < p->n; i++)
		fprintf(f, "%s%s", i ? ":" : "", p->pattern[i]);
	if (fclose(f) == 0)
		return text;
	free(text);
	return NULL;
}

static void forget(struct ctl_paths *p)
{
	while (p->n)
		free(p->pattern[--p->n]);
}

void ctl_paths_free(struct ctl_paths *p)
{
	forget(p);
	free(p->pattern);
	*p = (struct ctl_paths){ 0 };
}

/* --- the configuration --- */

struct reader {
	struct ctl_paths *paths;
	FILE *stream;
	char *text;                    /* the line read last, for getline(3) */
	size_t allocated;
	int error;
};

/*
 * As fgets(3), for inih, which takes an indented line for a continuation of the one before and the first "]" for the end of a section's name; the daemon does
 * neither. Of the sections only [daemon] is of interest.
 */
static char *read_line(char *buf, int size, void *arg)
{
	struct reader *r = arg;
	const char *line;

	if (r->error || getline(&r->text, &r->allocated, r->stream) < 0)
		return NULL;
	line = r->text + strspn(r->text, " \t\r\n\v\f");
	if (*line == '[') {
		const char *name = line + 1 + strspn(line + 1, " \t");

		line = strncmp(name, "daemon", 6) == 0 && name[6 + strspn(name + 6, " \t")] == ']' ? "[daemon]\n" : "[other]\n";
	} else if (*line == '#' || *line == ';') {
		line = "";
	}
	if (strlen(line) >= (size_t)size) {
		r->error = -EINVAL;
		return NULL;
	}
	return strcpy(buf, line);
}

/* Whether the patterns are absolute. */
static bool all_absolute(const char *list)
{
	while (*list == '/') {
		list = find_plain(list, ":");
		if (!*list)
			return true;
		list++;
	}
	return false;
}

static int handle_key(void *arg, const char *section, const char *name, const char *value)
{
	struct reader *r = arg;

	if (strcmp(section, "daemon") != 0 || strcmp(name, "preload_paths") != 0)
		return 1;
	if (strcmp(value, "none") == 0)
		forget(r->paths);
	else
		r->error = all_absolute(value) ? ctl_paths_add_list(r->paths, value) : -EINVAL;
	return r->error == 0;
}

/* Other mistakes than in our key are the daemon's to complain about. */
static int read_file(struct ctl_paths *p, const char *path)
{
	struct reader r = { .paths = p, .stream = fopen(path, "re") };

	if (!r.stream)
		return -errno;
	(void)ini_parse_stream(read_line, &r, handle_key, &r);
	if (r.error == 0 && ferror(r.stream))
		r.error = -EIO;
	fclose(r.stream);
	free(r.text);
	return r.error;
}

static int is_drop_in(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return e->d_name[0] != '.' && n > 5 && strcmp(e->d_name + n - 5, ".conf") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* The file at fault is left in `ret_file`. */
static int read_named(struct ctl_paths *p, char *path, char **ret_file)
{
	int r = path ? read_file(p, path) : -ENOMEM;

	if (r < 0 && !*ret_file)
		*ret_file = path;
	else
		free(path);
	return r;
}

static int read_drop_ins(struct ctl_paths *p, const char *file, char **ret_file)
{
	struct dirent **entries = NULL;
	char *folder = NULL, *path;
	int n, r = 0;

	if (asprintf(&folder, "%s.d", file) < 0)
		return -ENOMEM;
	n = scandir(folder, &entries, is_drop_in, by_name);
	for (int i = 0; i < n; i++) {
		if (r == 0) {
			if (asprintf(&path, "%s/%s", folder, entries[i]->d_name) < 0)
				path = NULL;
			r = read_named(p, path, ret_file);
		}
		free(entries[i]);
	}
	free(entries);
	free(folder);
	return r;
}

static int read_with_drop_ins(struct ctl_paths *p, const char *file, bool must_exist, char **ret_file)
{
	int r = 0;

	if (must_exist || access(file, F_OK) == 0)
		r = read_named(p, strdup(file), ret_file);
	return r < 0 ? r : read_drop_ins(p, file, ret_file);
}

int ctl_paths_configured(struct ctl_paths *p, const char *file, char **ret_file)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	char *own = NULL;
	int r = 0;

	*ret_file = NULL;
	if (file)
		return read_with_drop_ins(p, file, true, ret_file);
	if (geteuid() != 0 && config && *config == '/')
		r = asprintf(&own, "%s/pagecached/pagecached.conf", config);
	else if (geteuid() != 0 && home && *home == '/')
		r = asprintf(&own, "%s/.config/pagecached/pagecached.conf", home);
	if (r < 0)
		return -ENOMEM;
	r = own ? read_with_drop_ins(p, own, false, ret_file) : 0;
	free(own);
	return r < 0 || p->n ? r : read_with_drop_ins(p, "/etc/pagecached/pagecached.conf", false, ret_file);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns of paths. A file call of a program comes here before anything else is known of its path, so what does not match must be told at once: the bytes before
 * the first special one are compared first, and mostly decide.
 *
 * Matching goes back to the last `*`, and when that has used its component up to the last `**`; none before these can match where they do not.
 * Any thread, also in a signal's handler.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "paths_match.h"

/* --- the form of a path --- */

static uint64_t eight(const char *p)
{
	uint64_t v;

	__builtin_memcpy(&v, p, sizeof(v)); /* a load, also where the library is built without built-in functions */
	return v;
}

/* Has any byte that value? Not 0 where one has. */
static uint64_t equal(uint64_t v, char c)
{
	v ^= (uint64_t)(unsigned char)c * 0x0101010101010101ull;
	return (v - 0x0101010101010101ull) & ~v & 0x8080808080808080ull;
}

/* Pairs of bytes from p on that are a '/' and then a '.' or '/': 0 is certain. Nine bytes are there. */
static inline uint64_t pairs(const char *p)
{
	uint64_t next = eight(p + 1);

	return equal(eight(p), '/') & (equal(next, '/') | equal(next, '.'));
}

/* The same of 16 bytes: as many as the vectors of any processor have. */
typedef uint8_t bytes __attribute__((vector_size(16)));
struct any { bytes v; } __attribute__((packed, aligned(1), may_alias));

static inline bytes pairs16(const char *p)
{
	bytes here = ((const struct any *)p)->v, next = ((const struct any *)(p + 1))->v;

	return (bytes)(here == '/') & ((bytes)(next == '/') | (bytes)(next == '.'));
}

static bool quick_plain16(const char *path, size_t len)
{
	bytes found = pairs16(path + len - 16);
	uint64_t half[2];

	for (size_t i = 0; i + 16 < len; i += 16)
		found |= pairs16(path + i);
	__builtin_memcpy(half, &found, sizeof(half));
	return (half[0] | half[1]) == 0;
}

/* Is it absolute, and certainly normalised? */
static bool quick_plain(const char *path, size_t len)
{
	if (path[0] != '/' || path[len - 1] == '/' || len < 8)
		return false;
	if (len >= 16)
		return quick_plain16(path, len);
	for (size_t i = 0; i + 8 < len; i += 8)
		if (pairs(path + i))
			return false;
	return !pairs(path + len - 8);
}

struct path_look path_look(const char *path)
{
	struct path_look look = { .len = strnlen(path, PATH_SIZE) };

	if (look.len == 0 || look.len == PATH_SIZE)
		return look;
	if (quick_plain(path, look.len)) {
		look.plain = true;
		return look;
	}
	look.plain = path[0] == '/';
	look.up = path[0] == '.' && path[1] == '.';
	for (size_t n = 0; n < look.len; n++) {
		if (path[n] != '/')
			continue;
		if (path[n + 1] == '.') {
			look.plain = false;
			look.up |= path[n + 2] == '.';
		} else if (path[n + 1] == '/' || (path[n + 1] == '\0' && n > 0)) {
			look.plain = false;
		}
	}
	return look;
}

ssize_t path_append(char path[PATH_SIZE], size_t len, const char *more)
{
	size_t n;

	for (; *more; more += n) {
		n = 0;
		if (*more == '/') {
			n = 1;
			continue;
		}
		while (more[n] && more[n] != '/')
			n++;
		if (more[0] == '.' && n == 1)
			continue;
		if (more[0] == '.' && more[1] == '.' && n == 2) {
			while (len > 0 && path[--len] != '/')
				;
			continue;
		}
		if (len + 1 + n >= PATH_SIZE)
			return -1;
		path[len++] = '/';
		memcpy(path + len, more, n);
		len += n;
	}
	if (len == 0)
		path[len++] = '/';
	path[len] = '\0';
	return (ssize_t)len;
}

/* --- one pattern --- */

/* One byte of a set, or of a range's end. */
static unsigned char set_byte(const char **p)
{
	if (**p == '\\' && (*p)[1])
		(*p)++;
	return (unsigned char)*(*p)++;
}

/* *p is behind a '['. 1 or 0: whether c is in the set, and *p is behind it; -1: that is no set. */
static int match_set(const char **pattern, unsigned char c)
{
	const char *p = *pattern;
	bool negated = *p == '!' || *p == '^', in = false;

	p += negated;
	for (bool first = true; first || *p != ']'; first = false) {
		unsigned char low, high;

		if (!*p || *p == '/')
			return -1;
		low = high = set_byte(&p);
		if (p[0] == '-' && p[1] && p[1] != ']' && p[1] != '/') {
			p++;
			high = set_byte(&p);
		}
		in |= low <= c && c <= high;
	}
	*pattern = p + 1;
	return in != negated;
}

/* What is no star against one byte that is not 0. */
static bool match_byte(const char **pattern, char c)
{
	const char *p = *pattern;
	int r;

	switch (*p) {
	case '\0':
		return false;
	case '?':
		*pattern = p + 1;
		return c != '/';
	case '[':
		p++;
		r = match_set(&p, (unsigned char)c);
		if (r >= 0) {
			*pattern = p;
			return r && c != '/';
		}
		p = *pattern;
		break;
	case '\\':
		if (p[1])
			p++;
		break;
	}
	*pattern = p + 1;
	return *p == c;
}

struct deep {
	const char *pattern, *s;   /* where to go on after it, and the first byte that it has not eaten */
	bool folders;              /* it is a component: eats whole ones */
};

/* *p is at a `**`. */
static struct deep deep_begin(const char *p, const char *s)
{
	bool component = p[-1] == '/';

	while (*p == '*')
		p++;
	component = component && *p == '/';
	return (struct deep){ p + component, s, component };
}

static bool deep_eat(struct deep *d)
{
	do {
		if (!*d->s)
			return false;
	} while (*d->s++ != '/' && d->folders);
	return true;
}

/* `p` is not the beginning of the pattern. */
static bool match_glob(const char *p, const char *s)
{
	const char *star = NULL, *star_s = NULL;
	struct deep deep = { 0 };

	for (;;) {
		if (p[0] == '*' && p[1] == '*') {
			deep = deep_begin(p, s);
			if (!*deep.pattern)
				return true;
			star = NULL;
			p = deep.pattern;
		} else if (*p == '*') {
			star = ++p;
			star_s = s;
		} else if (!*p && !*s) {
			return true;
		} else if (*s && match_byte(&p, *s)) {
			s++;
		} else if (star && *star_s && *star_s != '/') {
			p = star;
			s = ++star_s;
		} else if (deep.pattern && deep_eat(&deep)) {
			star = NULL;
			p = deep.pattern;
			s = deep.s;
		} else {
			return false;
		}
	}
}

/* --- all of them --- */

bool path_patterns_match(const struct path_patterns *all, const char *path, size_t len)
{
	for (size_t i = 0; i < all->n; i++) {
		const struct path_pattern *p = &all->list[i];

		/* The first byte that may differ saves most calls. */
		if (len < p->literal || (p->literal > 1 && path[1] != p->text[1]) || memcmp(path, p->text, p->literal) != 0)
			continue;
		if (p->literal == p->len ? len == p->len : match_glob(p->text + p->literal, path + p->literal))
			return true;
	}
	return false;
}

bool path_patterns_may_match_below(const struct path_patterns *all, const char *folder, size_t len)
{
	if (len == 1)
		return all->n > 0;
	for (size_t i = 0; i < all->n; i++) {
		const struct path_pattern *p = &all->list[i];
		size_t n = len < p->literal ? len : p->literal;

		if (memcmp(folder, p->text, n) == 0 && (n == p->literal ? p->literal < p->len : p->text[n] == '/'))
			return true;
	}
	return false;
}

static int add(struct path_patterns *all, const char *text, size_t len)
{
	struct path_pattern *list = realloc(all->list, (all->n + 1) * sizeof(*list));
	char *copy;

	if (!list)
		return -ENOMEM;
	all->list = list;
	copy = malloc(len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, text, len);
	copy[len] = '\0';
	list[all->n++] = (struct path_pattern){ .text = copy, .len = len, .literal = strcspn(copy, "*?[\\") };
	return 0;
}

/* Up to a ':' that nothing protects. */
static size_t pattern_end(const char *s)
{
	size_t n = 0;

	while (s[n] && s[n] != ':')
		n += s[n] == '\\' && s[n + 1] ? 2 : 1;
	return n;
}

int path_patterns_add(struct path_patterns *p, const char *globs, void (*rejected)(const char *pattern))
{
	char *one = strdup(globs), *text = malloc(PATH_SIZE);
	int r = one && text ? 0 : -ENOMEM;
	size_t n;

	for (; r == 0 && *globs; globs += n + (globs[n] == ':')) {
		ssize_t len = -1;

		n = pattern_end(globs);
		memcpy(one, globs, n);
		one[n] = '\0';
		if (one[0] == '/')
			len = path_append(text, 0, one);
		if (len > 0)
			r = add(p, text, (size_t)len);
		else if (n > 0 && rejected)
			rejected(one);
	}
	free(one);
	free(text);
	return r;
}

void path_patterns_free(struct path_patterns *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->list[i].text);
	free(p->list);
	*p = (struct path_patterns){ 0 };
}

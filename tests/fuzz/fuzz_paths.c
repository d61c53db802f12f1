/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns of the preload library against a matcher that tries everything, and the lexical form of paths against itself. The input: a pattern, a byte
 * 0xff, a path.
 */
#include <sys/types.h>

#include "libclient/preload/paths_match.h"
#include "tests/fuzz/fuzz.h"

#define GLOB_MAX 64u
#define NAME_LEN 96u

/* --- what matches, said as plainly as can be --- */

enum token_kind { BYTE, ANY, SET, STAR, DEEP, FOLDERS };

struct token {
	enum token_kind kind;
	bool in[256];              /* BYTE, SET */
};

struct model {
	struct token token[GLOB_MAX];
	unsigned n;
	const char *s;
	size_t len;
	signed char known[GLOB_MAX + 1][NAME_LEN + 1]; /* 0: not yet, 1: yes, -1: no */
};

static unsigned char quoted(const char **p)
{
	if (**p == '\\' && (*p)[1])
		(*p)++;
	return (unsigned char)*(*p)++;
}

/* *p is behind '['. False: it is no set. */
static bool read_set(const char **pattern, struct token *t)
{
	const char *p = *pattern;
	bool negated = *p == '!' || *p == '^', in[256] = { false };

	p += negated;
	for (unsigned i = 0; i == 0 || *p != ']'; i++) {
		unsigned low, high;

		if (!*p || *p == '/')
			return false;
		low = high = quoted(&p);
		if (*p == '-' && p[1] && p[1] != ']' && p[1] != '/') {
			p++;
			high = quoted(&p);
		}
		for (unsigned c = low; c <= high; c++)
			in[c] = true;
	}
	for (unsigned c = 0; c < 256; c++)
		t->in[c] = in[c] != negated && c != '/' && c != 0;
	*pattern = p + 1;
	return true;
}

static void read_pattern(struct model *m, const char *pattern)
{
	for (const char *p = pattern; *p;) {
		struct token *t = &m->token[m->n++];

		*t = (struct token){ .kind = BYTE };
		if (*p == '?') {
			t->kind = ANY;
			p++;
		} else if (p[0] == '*' && p[1] == '*') {
			bool begins = p > pattern && p[-1] == '/';

			while (*p == '*')
				p++;
			t->kind = begins && *p == '/' ? FOLDERS : DEEP;
			p += t->kind == FOLDERS;
		} else if (*p == '*') {
			t->kind = STAR;
			p++;
		} else if (*p == '[') {
			p++;
			if (read_set(&p, t))
				t->kind = SET;
			else
				t->in['['] = true;
		} else {
			t->in[quoted(&p)] = true;
		}
	}
}

static bool model_match(struct model *m, unsigned t, size_t at)
{
	const struct token *token = &m->token[t];
	bool yes = false;

	if (t == m->n)
		return at == m->len;
	if (m->known[t][at])
		return m->known[t][at] > 0;
	switch (token->kind) {
	case BYTE:
	case SET:
		yes = at < m->len && token->in[(unsigned char)m->s[at]] && model_match(m, t + 1, at + 1);
		break;
	case ANY:
		yes = at < m->len && m->s[at] != '/' && model_match(m, t + 1, at + 1);
		break;
	case STAR:
	case DEEP:
		for (size_t i = at; !yes && i <= m->len; i++) {
			yes = model_match(m, t + 1, i);
			if (i < m->len && m->s[i] == '/' && token->kind == STAR)
				break;
		}
		break;
	case FOLDERS:
		yes = model_match(m, t + 1, at);
		for (size_t i = at; !yes && i < m->len; i++)
			yes = m->s[i] == '/' && model_match(m, t + 1, i + 1);
		break;
	}
	m->known[t][at] = yes ? 1 : -1;
	return yes;
}

/* --- the lexical form --- */

static size_t normalised(char out[PATH_SIZE], const char *path)
{
	ssize_t n = path_append(out, 0, path);
	char again[PATH_SIZE];

	if (n < 0)
		return 0;
	REQUIRE((size_t)n == strlen(out) && n > 0 && n < PATH_SIZE && out[0] == '/');
	REQUIRE(!strstr(out, "//") && !strstr(out, "/./") && !strstr(out, "/../") && (n == 1 || out[n - 1] != '/'));
	REQUIRE(path_append(again, 0, out) == n && strcmp(again, out) == 0);
	return (size_t)n;
}

static void check_look(const char *path)
{
	struct path_look look = path_look(path);
	char form[PATH_SIZE];
	size_t n;

	REQUIRE(look.len == strnlen(path, PATH_SIZE));
	if (!look.plain)
		return;
	n = normalised(form, path);
	REQUIRE(n == look.len && strcmp(form, path) == 0);
	REQUIRE(!look.up);
}

static void ignore(const char *pattern) {}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct model m;
	struct input in = { data, size };
	size_t n_glob, n;
	char *globs = take_text(&in, 0xff, &n_glob), *path = take_text(&in, 0xff, &n), form[PATH_SIZE], *copy;
	struct path_patterns all = { 0 };

	REQUIRE(path_patterns_add(&all, globs, ignore) == 0);
	check_look(path);
	n = normalised(form, path);
	/* In memory of its very size, so that a read past its end shows. */
	copy = malloc(n + 1);
	REQUIRE(copy);
	memcpy(copy, form, n);
	copy[n] = '\0';
	if (n > 0) {
		bool matches = path_patterns_match(&all, copy, n);

		if (matches)
			for (size_t i = n - 1; i > 0; i--)
				if (copy[i] == '/') {
					char c = copy[i];

					copy[i] = '\0';
					REQUIRE(path_patterns_may_match_below(&all, copy, i));
					copy[i] = c;
				}
		if (all.n == 1 && all.list[0].len <= GLOB_MAX && n <= NAME_LEN) {
			memset(&m, 0, sizeof(m));
			read_pattern(&m, all.list[0].text);
			m.s = copy;
			m.len = n;
			REQUIRE(model_match(&m, 0, 0) == matches);
		}
	}
	path_patterns_free(&all);
	free(copy);
	free(globs);
	free(path);
	return 0;
}

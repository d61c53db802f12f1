/* SPDX-License-Identifier: Apache-2.0 */
/* Which paths are taken over: patterns, and the lexical form of paths that they are compared with. Knows no file system. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PATH_SIZE 4096         /* with the terminating zero, as in the kernel */

struct path_pattern {
	char *text;                /* normalised, absolute */
	size_t len;
	size_t literal;            /* bytes up to the first that is special; len: it is a path */
};
struct path_patterns {
	struct path_pattern *list;
	size_t n;
};

/*
 * Adds the patterns of `globs`, which are separated by ':'. `*`, `?` and `[...]` do not match '/'; `**` does, and `**` as a whole component also stands for none.
 * A name may begin with a dot anywhere. `\` takes what is special from the next byte, also from ':'. `rejected` (may be NULL) is told of those that are
 * not absolute or too long. -ENOMEM.
 */
int path_patterns_add(struct path_patterns *p, const char *globs, void (*rejected)(const char *pattern));
void path_patterns_free(struct path_patterns *p);

/* Does any pattern match the path of `len` bytes, which is normalised? Nothing is allocated. */
bool path_patterns_match(const struct path_patterns *p, const char *path, size_t len);
/* May a pattern match something below that folder? False is certain. */
bool path_patterns_may_match_below(const struct path_patterns *p, const char *folder, size_t len);

struct path_look {
	size_t len;
	bool plain;                /* absolute, and its own normalised form */
	bool up;                   /* has a component that begins with ".." */
};
/* PATH_SIZE as the length: it is that long or longer. */
struct path_look path_look(const char *path);
/*
 * Goes from the folder path[0..len) on by `more`, component by component and without a look at symbolic links. The folder is normalised; a len
 * of 0 is the root. Returns the new length, at least 1, or -1 where it has no room in PATH_SIZE.
 */
ssize_t path_append(char path[PATH_SIZE], size_t len, const char *more);

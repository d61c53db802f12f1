/* SPDX-License-Identifier: Apache-2.0 */
/* The patterns of paths that the preload library takes over: absolute, as pagecached-preload(7) has them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct ctl_paths {
	char **pattern;
	size_t n;
};

/*
 * Adds a pattern: made absolute against the working directory, "/" and ".." sorted out in its literal part, with a trailing "/" or the name of a
 * folder that exists standing for all below. Where the literal part leads through symbolic links, the pattern behind them is added as well. A
 * pattern that is there already is not added again; the name of something that exists is no pattern. Returns 0, -EINVAL (it is empty, or
 * has a ":", which separates patterns, without a backslash), -ENOMEM, or an errno of getcwd(3).
 */
int ctl_paths_add(struct ctl_paths *p, const char *pattern);
/* The same for each of a list that is separated by ":"; empty ones are skipped. */
int ctl_paths_add_list(struct ctl_paths *p, const char *list);

/*
 * Adds what the key preload_paths of pagecached.conf(5) says: of `file` and its .d folder; NULL: of root's, or the user's own and, where that says nothing,
 * root's. Returns 0 or a negative errno, with the file at fault in `ret_file` (to be freed): -EINVAL for a line that the daemon would not take.
 */
int ctl_paths_configured(struct ctl_paths *p, const char *file, char **ret_file);

/* As PAGECACHED_PATHS has them. NULL: out of memory. */
char *ctl_paths_join(const struct ctl_paths *p);
void ctl_paths_free(struct ctl_paths *p);

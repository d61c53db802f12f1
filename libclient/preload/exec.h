/* SPDX-License-Identifier: Apache-2.0 */
/* What exec(3) and posix_spawn(3) have in common. See exec.c. */
#pragma once

#include "preload.h"

/* A program about to be run: a path relative to `dirfd`, or a name that is looked for in PATH. */
struct image {
	int dirfd, flags;          /* as of execveat(2) */
	const char *path;
	bool search;
};

/* What the cache has of it, and of its interpreter, is written out. Outside a scope. */
HIDDEN void image_write_out(const struct image *im);
/*
 * The kernel refuses with ETXTBSY to run what somebody may write. The daemon lets go of a file some time after its last handle. True: it is one of
 * ours and it was waited a little, so try again. A daemon that dies meanwhile does not count. `busy` begins with zeros.
 */
struct busy { unsigned tries; pid_t daemon; };
HIDDEN bool image_busy(const struct image *im, struct busy *busy);

/* An environment that has the library's variables in it: the program's own where it has them, else a copy. */
struct env_copy {
	char **envp;
	void *map;                 /* NULL: no copy */
	size_t size;
};
HIDDEN struct env_copy env_complete(char *const envp[]);
HIDDEN void env_free(struct env_copy *e);
/* Puts them into the process's own environment, for what takes that. */
HIDDEN void env_restore(void);

/*
 * From begin to end the real files' descriptors of those placeholders that survive exec do so, too. `given`, which may be NULL: what a child gets
 * besides, whatever the descriptors' flags, and what is closed there. Any number of threads; the last to end marks them close-on-exec again.
 */
#define GIVEN_MAX 256          /* of each; what is closed beyond that only has its real file's descriptor left in the child */
struct given {
	unsigned n_kept, n_closed;
	int kept[GIVEN_MAX], closed[GIVEN_MAX];
};
HIDDEN void inherit_begin(const struct given *given);
HIDDEN void inherit_end(void);

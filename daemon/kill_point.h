/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places where a test build (-Dfailure_injection=true) may die, as by kill -9: kill_point("write.copied"). $PGC_KILL_POINT says where: "NAME", "NAME:COUNT" (at
 * the COUNTth time, from 1), "random:SEED:N" (at each place with a chance of 1 in N), or "@FILE", which has one of these in its first line; the program
 * that starts empties it, so that the next one does not die there, too. "list" prints all names and ends the program. In other builds there is nothing. Any thread, a signal handler too.
 */
#pragma once

#ifdef PGC_FAILURE_INJECTION
#include <stdbool.h>

extern bool kill_point_armed;        /* set before main() */
void kill_point_reached(const char *name);

/* The section is the table of all names. */
#define kill_point(name)                                                                                         \
	do {                                                                                                     \
		static const char *const kill_point_here __attribute__((section("kill_points"), used)) = (name); \
		if (__builtin_expect(kill_point_armed, 0))                                                       \
			kill_point_reached(kill_point_here);                                                     \
	} while (0)
#else
#define kill_point(name) ((void)0)
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the exerciser that kills the daemon, which runs under "pagecached --keep": by SIGKILL at any moment; at a kill point of a test build, drawn from
 * all there are; or together with its keeper, so that the clients have to find a new one. Used by the supervisor alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct crash {
	unsigned kills;            /* how many are wanted, 0: none */
	unsigned every_ms;         /* from one to the next on average, while the clients work */
	unsigned total, points;    /* of 100 kills: with the keeper; at a kill point of the next daemon */
	uint64_t seed;

	const char *program, *const *argv; /* the keeper's, from "--keep" on */
	const char *dir, *log;

	void (*fail)(const char *what); /* does not return */
	bool (*answers)(void);     /* a daemon does */
	void (*check)(void);       /* compares everything; the daemon may be killed again meanwhile */
	void (*pause)(void);       /* a moment */
};

struct crash_counts {
	unsigned deaths, at_points, total, double_deaths; /* double: before the clients had done anything with the next daemon */
	unsigned points_known, points_hit; /* names of kill points */
	uint64_t synced_bytes;     /* found in the store while no daemon was there */
	unsigned pause_median_ms, pause_max_ms; /* from a death to a daemon that answers */
};

/* Starts the keeper. */
void crash_begin(struct crash *c);
/* To be called often. `check`: the daemon may be asked after a death, so the caller must not be in the middle of something. Whether all kills are done. */
bool crash_poll(bool check);
/* No more kills; the daemon that serves now is the last. */
void crash_end(struct crash_counts *ret);
/* How often a daemon died at each kill point, on one line. */
void crash_tell_points(FILE *out);
/* The last deaths. */
void crash_tell_deaths(FILE *out);
/* SIGTERM to the keeper. Its status as of waitpid(2), once it has ended; -1: it does not within a minute. */
int crash_stop(void);
/* Of both, whoever is left. */
void crash_kill(void);
pid_t crash_keeper(void);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole daemon in one thread, turned by hand: main thread's ring, socket, two workers, and the offload threads that they submit to. What main.c does at start,
 * without pressure, watchdog, signals and keeper. Its log goes nowhere, but is formatted; with $PGC_FUZZ_LOG to stderr.
 */
#pragma once

#include "daemon/server.h"
#include "tests/fuzz/fuzz.h"

#define SERVE_WORKERS 2u

struct served {
	struct server server;
	struct config config;
	char dir[64];              /* where the socket is, and the files of the state */
	unsigned fds;              /* descriptors of the process when it was ready */
	bool given_up;             /* serve_give_up() */
};

/* Once: probes the kernel, starts the offload threads, makes the folder, reads the configuration. */
void serve_init(struct served *d);
/* State, rings and workers; `recover`: takes over what files of the state there are, else none are made. False: it could not be, which only a state can be the reason for. */
bool serve_start(struct served *d, bool recover);
/* The settings are those of the start again. */
void serve_settings(struct served *d);
/* One round of each loop. False: nothing came, and nothing is to be done until something does. */
bool serve_turn(struct served *d);
/* For the kernel's threads, a moment. */
void serve_wait(void);
/*
 * All clients are gone: turns until nothing is left to do, which must be within seconds. Then files go, too, and all that was counted and charged must be
 * given back.
 */
void serve_quiesce(struct served *d);
/*
 * Nobody waits any more for whom a dead daemon has left; and what cannot be written is dropped in the end. What such records and files had taken need not be given
 * back then. Before serve_quiesce().
 */
void serve_give_up(struct served *d);
/* The end of what serve_start() has made. */
void serve_stop(struct served *d);
unsigned serve_count_fds(void);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small daemon in a thread of the test, for tests of libpagecached: one file in a memfd, real userfaults, and knobs that make it answer late, out of order,
 * wrongly, not at all, die and come back. Its threads only count and collect: the tests judge.
 */
#pragma once

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "libclient/internal.h"

#define PAGE PGC_PAGE_SIZE
#define FILE_SIZE (16 * PAGE + 100)
#define MAPS 16
#define HELD 128

#define FAKE_LOG 1024

enum attach { ATTACH_NEVER = -1 /* hangs up */, ATTACH_TAKEN };
enum bad { BAD_NONE, BAD_TAG, BAD_TYPE, BAD_SHORT, BAD_STATUS, BAD_FDS, BAD_HANGUP, BAD_VERSION, BAD_NO_MEMFD };

struct fake {
	char path[64];
	int listen_fd;
	int memfd, control_fd;
	struct pgc_control_page *control;
	pthread_t thread;

	/* Atomic: knobs, and what was seen. */
	int bad;                   /* enum bad: what is wrong with the next reply to a request on a handle */
	int hold;                  /* collect that many READs, then answer the last one first */
	int held;                  /* how many are held now */
	int drop;                  /* so many READs find their pages dropped right after */
	int error;                 /* errno of every WRITE and SYNC */
	int kill;                  /* connections hang up at once */
	int seen[PGC_MSG_RESUMED];
	int connections;
	int opened;                /* handles so far, CLONE as well */
	int windows;               /* that were asked for, and refused */
	int take_over;             /* the next write finds another daemon */
	int no_room;               /* so many transfer areas are refused */
	int last_handle;           /* of a SYNC: which of them */
	uint64_t last_off, last_len;
	uint32_t last_flags;
	uint32_t handle_flags;
	uint64_t orphan_ms;        /* what handles are told */

	/* How it dies and comes back. */
	int attach;                /* enum attach, or the errno of every ATTACH */
	struct pgc_map attach_map; /* what the next ATTACH finds mapped; len 0: nothing */
	int late;                  /* so many OPENs are never answered */
	int mute;                  /* so many requests on handles are carried out and never answered */
	int epoch;                 /* connections of another one hang up: fake_die() */
	uint64_t incarnation;      /* what connections with a handle hear RESUMED of, when it changes */
	uint64_t answer_first;     /* not 0: the next READ is answered, and then its connection hears RESUMED of this */
	struct pgc_attach attached; /* the last ATTACH, with so many descriptors; which of them is the memfd and which a userfaultfd */
	int attached_fds, attached_memfd, attached_uffd;
	struct fake_request { uint32_t type, status; uint64_t tag; } log[FAKE_LOG]; /* requests on handles as they came, XFER and ATTACH too */
	int logged;
};
extern struct fake fake;

#define get(v) __atomic_load_n(&(v), __ATOMIC_SEQ_CST)
#define set(v, x) __atomic_store_n(&(v), (x), __ATOMIC_SEQ_CST)
#define add(v, x) __atomic_add_fetch(&(v), (x), __ATOMIC_SEQ_CST)

/* Around each test. At the end nothing may be left open or mapped. */
int setup(void **state);
int teardown(void **state);
/* It dies; another one listens at once, and does with an ATTACH what `attach` says. */
void fake_die(int attach);
/* It dies, and nobody listens until fake_comes(). */
void fake_goes(void);
void fake_comes(void);
/* So many requests of the type came, as far as the log goes; with only those that were sent `again`. */
int fake_logged(uint32_t type, bool again);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

char byte_at(size_t off);                               /* of the file as each test finds it */
uint64_t fake_file_size(void);
struct pgc_file *open_mem(int flags);
/* Each waits some seconds at most for its condition. */
bool wait_for(int *what, int value);
bool reaped_but(const struct pgc_file *only);           /* the library has no handle but `only` */
bool all_reaped(void);
bool is_closed(int uffd);
int fd_count(void);
bool comes_to(int fds);

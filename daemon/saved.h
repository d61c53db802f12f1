/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of maps.h that a daemon which takes over reads: sealing and checking them. A record is in use while its `file` is set, which is set last and
 * cleared first, since the daemon may die at any instruction; the checksum covers what does not change while it is in use. Thread-safe: no state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "pagecached/maps.h"

/*
 * What is stored before stays before: a killed process's stores are all seen, in the order of its instructions, so only the compiler must be kept from
 * moving them.
 */
#define crash_order() __asm__ volatile("" ::: "memory")

/* Takes a record or an entry of a map out of use, in the order that a crash bears: its `file` first. */
#define saved_clear(record) \
	do { \
		(record)->file = 0; \
		crash_order(); \
		memset((record), 0, sizeof(*(record))); \
	} while (0)

/* The machine's boot: no state of memory outlives it. -errno where /proc says nothing. */
int saved_boot_id(unsigned char ret[16]);

void saved_seal_header(struct pgc_saved_header *h);
/* NULL, or why the state cannot be taken over. */
const char *saved_check_header(const struct pgc_saved_header *h, const unsigned char boot_id[16]);

/* Puts the record into use: everything else of it is there. */
void saved_seal_file(struct pgc_saved_file *s, uint32_t slot);
/* Is it in use, and sound? `slot`: its own. */
bool saved_check_file(const struct pgc_saved_file *s, uint32_t slot);

void saved_seal_handle(struct pgc_saved_handle *s, uint32_t file);
bool saved_check_handle(const struct pgc_saved_handle *s);

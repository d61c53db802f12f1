/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * What the tables show_files, show_blocks and show_mappings look like: a header, and a line of each slot in use. Numbers stand right-aligned under their
 * heading; the width of a heading and of its column are the same by hand. Apart from the programs, for whoever makes the same tables from the maps.
 *
 * The fields, in order (all u32 are %u, all u64 %llu or %016llx):
 *  - files: file, worker, size, handles, mappings, resident, dirty, writeback, keep, error, name;
 *  - blocks: file, index, refs, cgroup, resident, dirty, writeback, keep;
 *  - mappings: file, start, end, refs, cgroup.
 */
#pragma once

#define TABLE_FILES_HEADER \
	"  FILE WORKER             SIZE HANDLES MAPPINGS   RESIDENT      DIRTY  WRITEBACK" \
	"       KEEP ERROR NAME\n"
#define TABLE_FILES_LINE "%6u %6u %16llu %7u %8u %10llu %10llu %10llu %10llu %5u %s\n"

#define TABLE_BLOCKS_HEADER \
	"  FILE      INDEX   REFS               CGROUP           RESIDENT              DIRTY" \
	"          WRITEBACK               KEEP\n"
#define TABLE_BLOCKS_LINE "%6u %10llu %6u %20llu 0x%016llx 0x%016llx 0x%016llx 0x%016llx\n"

#define TABLE_MAPPINGS_HEADER "  FILE            START              END   REFS               CGROUP\n"
#define TABLE_MAPPINGS_LINE "%6u %16llu %16llu %6u %20llu\n"

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All workloads, in the order in which they run.
 */
#include "run.h"

#define KIB 1024ull
#define MIB (KIB * KIB)

#define COLD .cold = true
#define MORE .more_is_better = true
#define SLOW .slow = true

#define RANDOM(threads, title, on_slow) \
	{ "cold-random-" #threads, title, "1000/s", run_cold_random, MAP_CONTESTANTS, COLD, MORE, .n = threads, .slow = on_slow }
#define FAULT(name, where, placement) \
	{ name, "fault served from memory, random order" where ", p50", "us", run_fault_memory, MAP_CONTESTANTS, COLD, .n = placement, \
	  .second_title = "the server's processor time for it, a fault", .second_unit = "us" }
#define CALL(call, run, size, bytes, title, on_slow) \
	{ #call "-" size "-warm", #call " of " title ", warm", "us", run, ALL_CONTESTANTS, .n = bytes }, \
	{ #call "-" size "-cold", #call " of " title ", cold", "us", run, ALL_CONTESTANTS, COLD, .n = bytes, .slow = on_slow }
#define CLIENTS(count) \
	{ "clients-" #count, "cold random 4 KiB, clients: " #count, "1000/s", run_clients, MAP_CONTESTANTS, COLD, MORE, .n = count, \
	  .sweep = "clients", .x = count }
#define WINDOW(label, bytes, on_slow) \
	{ "window-" label, "cold sequential scan, readahead_max " label, "MB/s", run_cold_sequential, BIT(KERNEL) | BIT(PAGECACHED), COLD, MORE, \
	  .slow = on_slow, .sweep = "window", .x = (double)(bytes) / KIB, .setting = "readahead_max = " label }
#define WORKERS(count) \
	{ "workers-" #count, "cold random 4 KiB, 8 processes, 8 files, workers " #count, "1000/s", run_many_files, BIT(KERNEL) | BIT(PAGECACHED), COLD, MORE, \
	  .n = MANY_FILES, .sweep = "workers", .x = count, .setting = "workers = " #count, .many = true }
#define LANES(count) \
	{ "lanes-" #count, "warm start of 16 processes on one file, lanes " #count, "1000 blocks/s", run_warm_start, BIT(PAGECACHED), MORE, .n = 16, \
	  .second_title = "its worker, for each block", .second_unit = "us", .sweep = "lanes", .x = count, .setting = "workers = 1\nlanes = " #count }

static const struct workload table[] = {
	{ "cold-sequential", "cold sequential scan", "MB/s", run_cold_sequential, MAP_CONTESTANTS, COLD, MORE, SLOW },
	{ "direct-sequential", "for comparison: direct reads in sequence, 256 KiB each, at the best depth", "MB/s", run_direct_sequential, BIT(KERNEL), MORE },
	RANDOM(1, "cold random 4 KiB, 1 thread", true),
	RANDOM(4, "cold random 4 KiB, 4 threads", false),
	RANDOM(16, "cold random 4 KiB, 16 threads", true),
	{ "cold-random-all", "the whole file touched in random order, without advice", "1000/s", run_cold_random, MAP_CONTESTANTS, COLD, MORE },
	{ "warm-touch", "touch of a page that is mapped, random order", "ns", run_warm_touch, MAP_CONTESTANTS, SLOW },
	{ "warm-second", "warm start of a second process, a page", "ns", run_warm_second, MAP_CONTESTANTS },
	{ "warm-second-huge", "the same, with huge pages", "ns", run_warm_second, BIT(KERNEL) | BIT(PAGECACHED), .setting = "[file *]\nhuge = yes", .huge = true,
	  .second_title = "of that, reading memory: touched once more", .second_unit = "ns" },
	FAULT("fault-memory", "", ANY_CPU), FAULT("fault-memory-confined", ", thread on one processor", ONE_CPU),
	FAULT("fault-memory-same", ", server on the same", SAME_CPU), FAULT("fault-memory-other", ", server on another", OTHER_CPU),
	{ "first-store", "first store to a clean page, random order", "us", run_first_store, MAP_CONTESTANTS },
	{ "first-store-sequence", "first store to a clean page, in sequence", "us", run_first_store, MAP_CONTESTANTS, .n = 1 },
	{ "fsync-1000", "fsync of 1,000 random dirty pages", "s", run_fsync, MAP_CONTESTANTS, SLOW, .n = 1000,
	  .second_title = "the same with the stores", .second_unit = "s" },
	{ "fsync-random", "fsync of 100,000 random dirty pages", "s", run_fsync, MAP_CONTESTANTS, .n = 100000,
	  .second_title = "the same with the stores", .second_unit = "s" },
	{ "fsync-run", "fsync of 1 GiB in a run", "s", run_fsync, MAP_CONTESTANTS, .second_title = "the same with the stores", .second_unit = "s" },
	CALL(pread, run_pread, "64", 64, "64 B", false),
	CALL(pread, run_pread, "4k", 4 * KIB, "4 KiB", true),
	CALL(pread, run_pread, "1m", MIB, "1 MiB", true),
	CALL(pwrite, run_pwrite, "64", 64, "64 B", false),
	CALL(pwrite, run_pwrite, "4k", 4 * KIB, "4 KiB", false),
	CALL(pwrite, run_pwrite, "1m", MIB, "1 MiB", false),
	{ "processes", "50 processes have the file mapped", "s", run_processes, MAP_CONTESTANTS, .n = 50, .second_title = "their memory", .second_unit = "MiB" },
	{ "processes-huge", "50 processes have the file mapped, with huge pages", "s", run_processes, MAP_CONTESTANTS & ~BIT(PRELOAD), .setting = "[file *]\nhuge = yes", .huge = true, .n = 50 },
	{ "lmdb-read-warm", "LMDB, a random read, warm", "us", run_lmdb_read, PLAIN_CONTESTANTS & ~BIT(FUSE_NOCACHE) },
	{ "lmdb-read-cold", "LMDB, a random read, cold", "us", run_lmdb_read, PLAIN_CONTESTANTS & ~BIT(FUSE_NOCACHE), COLD },
	{ "sqlite-read-warm", "SQLite, a random read, warm", "us", run_sqlite_read, PLAIN_CONTESTANTS },
	{ "sqlite-read-cold", "SQLite, a random read, cold", "us", run_sqlite_read, PLAIN_CONTESTANTS, COLD },
	{ "sqlite-write", "SQLite, a transaction that changes 1 row", "ms", run_sqlite_write, PLAIN_CONTESTANTS, .n = 1 },
	{ "sqlite-write-1000", "SQLite, a transaction that changes 1,000 rows", "ms", run_sqlite_write, PLAIN_CONTESTANTS, .n = 1000 },
	CLIENTS(1), CLIENTS(2), CLIENTS(4), CLIENTS(8), CLIENTS(16), CLIENTS(32),
	WINDOW("128K", 128 * KIB, true), WINDOW("512K", 512 * KIB, false), WINDOW("2M", 2 * MIB, true), WINDOW("8M", 8 * MIB, false), WINDOW("32M", 32 * MIB, true),
	WORKERS(1), WORKERS(2), WORKERS(4), WORKERS(8),
	LANES(0), LANES(1), LANES(2),
};

const struct workload *workload_at(unsigned i)
{
	return i < ELEMS(table) ? &table[i] : NULL;
}

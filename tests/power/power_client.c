/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes records through pagecached, and writes down, in a file on a disk that keeps its power, what it was promised. After the power cut
 * the same program looks, without pagecached, whether the disk has it.
 *
 *	power_client make STATE DIR CLIENTS     the files, and the state of no promises
 *	power_client run STATE DIR CLIENT SEED  stores, writes, appends, syncs, until it is killed or a call fails
 *	power_client lie STATE DIR CLIENT SEED  the same, but it notes promises without any sync: the check must notice
 *	power_client check STATE DIR            prints counts; status 1: something that was promised is not there
 *
 * Each aligned word says which write it is of: a sequence number and a check that follows from it, the file and the offset. A record of 64
 * words has one writer. `written` is noted before a write, `promised` after a sync: after the cut each word must be between the two.
 * Words, as a write that nobody promised may be there in part.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pagecached.h"

#define RECORD 512u
#define WORDS (RECORD / 8)
#define RECORDS 8192u            /* of a file */
#define FILES 2u
#define CHUNK 128u               /* records of file 1 that belong to one client; in file 0 neighbours belong to different ones */
#define CLIENTS_MAX 8u
#define LOG_MAX (1u << 20)

struct record {
	uint32_t promised, written, before; /* before: promised when the power came */
};

struct client_log {
	uint32_t seq;                /* of the words in it; its name, too */
	bool named;                  /* its name was promised */
	uint32_t promised, written;  /* bytes */
};

struct state {
	uint32_t clients, seq[CLIENTS_MAX];
	uint64_t syncs[CLIENTS_MAX];
	struct client_log log[CLIENTS_MAX];
	struct record records[FILES][RECORDS];
};

static struct state *state;
static const char *dir;
static unsigned me;
static uint64_t dice;
static bool lie;
static int failures;

#define must(r, what) must_((long)(r), what, __LINE__)
static long must_(long r, const char *what, int line)
{
	if (r >= 0)
		return r;
	fprintf(stderr, "power_client: %s (line %d): %s\n", what, line, strerror(r == -1 ? errno : (int)-r));
	exit(2);
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	x ^= x >> 29;
	x *= 0xd1342543de82ef95u;
	return x ^ x >> 32;
}

static unsigned roll(unsigned n)
{
	dice = mix(dice + 0x9e3779b97f4a7c15u);
	return (unsigned)(dice % n);
}

static uint64_t word(uint32_t seq, unsigned file, uint64_t off)
{
	return seq == 0 ? 0 : (uint64_t)seq << 32 | (uint32_t)mix((uint64_t)seq << 32 | (off / 8) << 8 | file);
}

static void path_of(char *ret, size_t n, const char *what, unsigned number, unsigned of)
{
	snprintf(ret, n, "%s/%s-%u-%u", dir, what, number, of);
}

static void sync_dir(void)
{
	int fd = (int)must(open(dir, O_RDONLY | O_DIRECTORY), dir);

	must(fsync(fd), "fsync of the folder");
	close(fd);
}

/* --- run --- */

static struct pgc_file *files[FILES], *log_file;
static char *maps[FILES];
static struct { unsigned file, record; } touched[1u << 16];
static unsigned n_touched;

/* New content for records [r, r + n), all ours. */
static void put(unsigned file, unsigned r, unsigned n)
{
	static uint64_t buf[CHUNK * WORDS];
	uint32_t seq = ++state->seq[me];

	for (unsigned i = 0; i < n; i++) {
		__atomic_store_n(&state->records[file][r + i].written, seq, __ATOMIC_SEQ_CST);
		touched[n_touched].file = file;
		touched[n_touched++].record = r + i;
	}
	for (unsigned i = 0; i < n * WORDS; i++)
		buf[i] = word(seq, file, (uint64_t)r * RECORD + i * 8);
	if (roll(2))
		memcpy(maps[file] + (size_t)r * RECORD, buf, n * RECORD);
	else if (must(pgc_pwrite(files[file], buf, n * RECORD, (off_t)r * RECORD), "pgc_pwrite") != (long)(n * RECORD))
		must(-EIO, "short write");
}

static void put_somewhere(void)
{
	if (roll(3)) {
		put(0, roll(RECORDS / state->clients) * state->clients + me, 1);
	} else {
		unsigned chunk = roll(RECORDS / CHUNK / state->clients) * state->clients + me, at = roll(CHUNK);

		put(1, chunk * CHUNK + at, 1 + roll(CHUNK - at));
	}
}

/* One file is synced, wholly, and what was touched of it so far is promised. */
static void sync_one(unsigned file)
{
	unsigned left = 0;

	if (!lie)
		switch (roll(3)) {
		case 0: must(pgc_fsync(files[file]), "pgc_fsync"); break;
		case 1: must(pgc_fdatasync(files[file]), "pgc_fdatasync"); break;
		case 2: must(pgc_msync(maps[file], RECORDS * RECORD, MS_SYNC), "pgc_msync"); break;
		}
	for (unsigned i = 0; i < n_touched; i++) {
		struct record *r = &state->records[touched[i].file][touched[i].record];

		if (touched[i].file == file)
			__atomic_store_n(&r->promised, r->written, __ATOMIC_SEQ_CST);
		else
			touched[left++] = touched[i];
	}
	n_touched = left;
	state->syncs[me]++;
}

static void append(struct client_log *log)
{
	static uint64_t buf[1024];
	unsigned n = 1 + roll(1024);
	off_t at;

	for (unsigned i = 0; i < n; i++)
		buf[i] = word(log->seq, FILES + me, log->written + i * 8);
	log->written += n * 8;
	must(pgc_append(log_file, buf, n * 8, &at), "pgc_append");
	if (at + n * 8 != log->written)
		must(-EIO, "an append that is not at the end");
}

static void sync_log(struct client_log *log)
{
	if (!lie)
		must(roll(2) ? pgc_fsync(log_file) : pgc_fdatasync(log_file), "sync of the log");
	__atomic_store_n(&log->promised, log->written, __ATOMIC_SEQ_CST);
	if (!log->named) {
		if (!lie)
			sync_dir();
		__atomic_store_n(&log->named, true, __ATOMIC_SEQ_CST);
	}
	state->syncs[me]++;
	if (log->written > LOG_MAX) { /* begins anew: from the truncation on nothing of it is promised */
		__atomic_store_n(&log->promised, 0, __ATOMIC_SEQ_CST);
		must(pgc_ftruncate(log_file, 0), "pgc_ftruncate");
		log->written = 0;
	}
}

static void run(void)
{
	struct client_log *log = &state->log[me];
	char path[4096];

	for (unsigned i = 0; i < FILES; i++) {
		path_of(path, sizeof(path), "file", i, 0);
		must(pgc_open(&files[i], path, O_RDWR, 0), path);
		maps[i] = pgc_mmap(files[i], NULL, RECORDS * RECORD, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
		must(maps[i] == MAP_FAILED ? -1 : 0, "pgc_mmap");
	}
	*log = (struct client_log){ .seq = ++state->seq[me] };
	path_of(path, sizeof(path), "log", me, log->seq);
	must(pgc_open(&log_file, path, O_RDWR | O_CREAT | O_EXCL, 0600), path);
	for (;;) {
		for (unsigned n = 1 + roll(40); n > 0; n--)
			put_somewhere();
		append(log);
		if (roll(3) == 0)
			sync_log(log);
		sync_one(roll(FILES));
		if (n_touched > sizeof(touched) / sizeof(touched[0]) - 40 * CHUNK) {
			sync_one(0);
			sync_one(1);
		}
	}
}

/* --- check --- */

static void complain(const char *path, uint64_t off, const char *what, uint64_t have, uint32_t promised, uint32_t written)
{
	if (failures++ < 20)
		fprintf(stderr, "%s at %" PRIu64 ": %s: %016" PRIx64 ", promised %" PRIu32 ", written %" PRIu32 "\n", path, off, what, have,
			promised, written);
}

static void check_record(const char *path, unsigned file, unsigned n, const uint64_t *words, uint64_t *promised, uint64_t *lost)
{
	struct record *r = &state->records[file][n];
	uint32_t low = UINT32_MAX, high = 0;

	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t off = (uint64_t)n * RECORD + i * 8;
		uint32_t seq = (uint32_t)(words[i] >> 32);

		if (words[i] != word(seq, file, off))
			complain(path, off, "no word of ours", words[i], r->promised, r->written);
		else if (seq < r->promised)
			complain(path, off, "older than promised", words[i], r->promised, r->written);
		else if (seq > r->written)
			complain(path, off, "never written", words[i], r->promised, r->written);
		low = seq < low ? seq : low;
		high = seq > high ? seq : high;
	}
	*promised += r->promised > r->before;
	*lost += low < r->written;
	/* What is read now came off the disk, so it stays. */
	r->before = r->promised = low;
	r->written = high;
}

static void check_log(unsigned client, uint64_t *promised, uint64_t *lost)
{
	struct client_log *log = &state->log[client];
	static uint64_t words[(LOG_MAX + 65536) / 8];
	char path[4096];
	ssize_t n = 0;
	int fd;

	if (log->seq == 0)
		return;
	path_of(path, sizeof(path), "log", client, log->seq);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		n = must(pread(fd, words, sizeof(words), 0), path);
		close(fd);
	} else if (log->named) {
		complain(path, 0, "the file is gone", 0, log->promised, log->written);
	}
	if (n < (ssize_t)log->promised)
		complain(path, (uint64_t)n, "shorter than promised", 0, log->promised, log->written);
	for (uint64_t off = 0; off < log->promised && off < (uint64_t)n; off += 8)
		if (words[off / 8] != word(log->seq, FILES + client, off))
			complain(path, off, "not what was appended", words[off / 8], log->promised, log->written);
	*promised += log->promised;
	*lost += (ssize_t)log->written > n ? log->written - (uint64_t)n : 0;
	unlink(path);
	*log = (struct client_log){ 0 };
}

static int check(void)
{
	uint64_t promised = 0, lost = 0, log_promised = 0, log_lost = 0, syncs = 0;
	static uint64_t words[RECORDS * WORDS];
	char path[4096];

	for (unsigned i = 0; i < FILES; i++) {
		int fd;

		path_of(path, sizeof(path), "file", i, 0);
		fd = (int)must(open(path, O_RDONLY), path);
		if (must(pread(fd, words, sizeof(words), 0), path) != (long)sizeof(words))
			must(-EIO, "short file");
		close(fd);
		for (unsigned r = 0; r < RECORDS; r++)
			check_record(path, i, r, words + r * WORDS, &promised, &lost);
	}
	for (unsigned c = 0; c < state->clients; c++) {
		check_log(c, &log_promised, &log_lost);
		syncs += state->syncs[c];
		state->syncs[c] = 0;
	}
	printf("%" PRIu64 " syncs, %" PRIu64 " records promised, %u checked, %" PRIu64 " lost; of logs %" PRIu64 " bytes promised, %" PRIu64
	       " lost\n", syncs, promised, FILES * RECORDS, lost, log_promised, log_lost);
	if (failures)
		fprintf(stderr, "%d words are not what was promised\n", failures);
	return failures ? 1 : 0;
}

static int make(unsigned clients)
{
	char path[4096];

	if (clients < 1 || clients > CLIENTS_MAX || (clients & (clients - 1)))
		must(-EINVAL, "number of clients: a power of two up to 8");
	memset(state, 0, sizeof(*state));
	state->clients = clients;
	for (unsigned i = 0; i < FILES; i++) {
		int fd;

		path_of(path, sizeof(path), "file", i, 0);
		fd = (int)must(open(path, O_RDWR | O_CREAT | O_EXCL, 0600), path);
		must(ftruncate(fd, RECORDS * RECORD), path);
		must(fsync(fd), path);
		close(fd);
	}
	sync_dir();
	return 0;
}

int main(int argc, char **argv)
{
	const char *act = argc > 3 ? argv[1] : "";
	bool runs = (strcmp(act, "run") == 0 || strcmp(act, "lie") == 0) && argc == 6;
	int fd;

	if (!runs && !(strcmp(act, "make") == 0 && argc == 5) && !(strcmp(act, "check") == 0 && argc == 4)) {
		fprintf(stderr, "usage: power_client make|run|lie|check STATE DIR ...\n");
		return 2;
	}
	dir = argv[3];
	fd = (int)must(open(argv[2], O_RDWR | O_CREAT, 0600), argv[2]);
	must(ftruncate(fd, sizeof(*state)), argv[2]);
	state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(state == MAP_FAILED ? -1 : 0, argv[2]);
	if (strcmp(act, "make") == 0)
		return make((unsigned)atoi(argv[4]));
	if (strcmp(act, "check") == 0)
		return check();
	me = (unsigned)atoi(argv[4]);
	dice = mix(strtoull(argv[5], NULL, 0) * 8 + me);
	lie = strcmp(act, "lie") == 0;
	run();
}

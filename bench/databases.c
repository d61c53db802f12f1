/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two databases that know nothing of pagecached: LMDB reads through a mapping, SQLite through pread and pwrite. What a row has to hold follows from its key and, for
 * rows that are changed, from how often that was; every row that is read is compared. Both are left out where they were not there when this was built.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

#define ROWS     100000u
#define ROW      1000u             /* bytes */
#define SECONDS  0.5               /* of a run, at most */
#define OPS      50000u
#define CHUNK    (1u << 20)

#if defined(HAVE_LMDB) || defined(HAVE_SQLITE)
static void row_fill(uint64_t row[ROW / 8], uint64_t key, uint64_t version)
{
	for (unsigned i = 0; i < ROW / 8; i++)
		row[i] = bench_mix(key * 1000003 + i + 1) ^ version;
}

static void row_compare(const void *bytes, size_t n, uint64_t key, uint64_t version)
{
	uint64_t row[ROW / 8];

	row_fill(row, key, version);
	if (n != ROW || memcmp(bytes, row, ROW))
		die("row %" PRIu64 " is not what it was", key);
}

/* Random reads, one at a time, for as long as a run has. */
static void reads(struct run *r, void (*get)(void *db, uint64_t key), void *db)
{
	uint64_t from = now_ns(), end = from + (uint64_t)(1e9 * MIN_OF(r->seconds, SECONDS)), spent = 0, done = 0;

	for (; done < OPS && now_ns() < end; done++) {
		uint64_t at = now_ns(), took;

		get(db, bench_mix((uint64_t)r->number << 32 | done) % ROWS);
		took = now_ns() - at;
		spent += took;
		hist_add(&r->hist, took);
	}
	r->value = (double)spent / 1e3 / (double)done;
}
#endif

#ifdef HAVE_LMDB
#include <lmdb.h>

const bool databases_lmdb = true;

static void lmdb_try(int r, const char *what)
{
	if (r)
		die("LMDB: %s: %s", what, mdb_strerror(r));
}

static void lmdb_make(const char *path)
{
	uint64_t row[ROW / 8];
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	lmdb_try(mdb_env_create(&env), "environment");
	lmdb_try(mdb_env_set_mapsize(env, 1ull << 30), "size");
	lmdb_try(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0600), path);
	lmdb_try(mdb_txn_begin(env, NULL, 0, &txn), "transaction");
	lmdb_try(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "table");
	for (uint64_t key = 0; key < ROWS; key++) {
		row_fill(row, key, 0);
		lmdb_try(mdb_put(txn, dbi, &(MDB_val){ sizeof(key), &key }, &(MDB_val){ ROW, row }, MDB_APPEND), "put");
	}
	lmdb_try(mdb_txn_commit(txn), "commit");
	lmdb_try(mdb_env_sync(env, 1), "sync");
	mdb_env_close(env);
}

struct lmdb { MDB_txn *txn; MDB_dbi dbi; };

static void lmdb_get(void *db, uint64_t key)
{
	struct lmdb *l = db;
	MDB_val v;

	lmdb_try(mdb_get(l->txn, l->dbi, &(MDB_val){ sizeof(key), &key }, &v), "get");
	row_compare(v.mv_data, v.mv_size, key, 0);
}

void run_lmdb_read(struct run *r, const struct workload *w)
{
	char path[sizeof(r->path) + 16];
	struct lmdb l;
	MDB_env *env;

	snprintf(path, sizeof(path), "%s.lmdb", r->path);
	lmdb_try(mdb_env_create(&env), "environment");
	lmdb_try(mdb_env_set_mapsize(env, 1ull << 30), "size");
	lmdb_try(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_RDONLY, 0600), path);
	lmdb_try(mdb_txn_begin(env, NULL, MDB_RDONLY, &l.txn), "transaction");
	lmdb_try(mdb_dbi_open(l.txn, NULL, MDB_INTEGERKEY, &l.dbi), "table");
	for (uint64_t key = 0; !w->cold && key < ROWS; key++)
		lmdb_get(&l, key);
	reads(r, lmdb_get, &l);
	mdb_txn_abort(l.txn);
	mdb_env_close(env);
}
#else
const bool databases_lmdb = false;
static void lmdb_make(const char *path) { die("%s: built without LMDB", path); }
void run_lmdb_read(struct run *r, const struct workload *w) { die("built without LMDB"); }
#endif

#ifdef HAVE_SQLITE
#include <sqlite3.h>

const bool databases_sqlite = true;

/* All of a database's file, in large pieces. */
static void read_in(struct run *r, const char *suffix)
{
	char path[sizeof(r->path) + 16];
	uint8_t *buf = malloc(CHUNK);
	struct subject s;
	uint64_t off = 0;
	ssize_t n;

	if (!buf)
		die("out of memory");
	snprintf(path, sizeof(path), "%s%s", r->path, suffix);
	subject_open(&s, r->who, path);
	while ((n = contestants[s.who].pread(&s, buf, CHUNK, off)) > 0)
		off += (uint64_t)n;
	if (n < 0 || off < ROWS * (uint64_t)ROW)
		die("%s: read in up to %" PRIu64 ": %zd", path, off, n);
	contestants[s.who].close(&s);
	free(buf);
}

static void sqlite_try(sqlite3 *db, int r, const char *what)
{
	if (r != SQLITE_OK && r != SQLITE_DONE && r != SQLITE_ROW)
		die("SQLite: %s: %s", what, sqlite3_errmsg(db));
}

static void sqlite_do(sqlite3 *db, const char *sql)
{
	sqlite_try(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static sqlite3_stmt *sqlite_statement(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *s;

	sqlite_try(db, sqlite3_prepare_v2(db, sql, -1, &s, NULL), sql);
	return s;
}

static sqlite3 *sqlite_open(const char *path)
{
	sqlite3 *db;

	if (sqlite3_open(path, &db) != SQLITE_OK)
		die("%s: %s", path, sqlite3_errmsg(db));
	/* 400 KiB: what it reads again comes from the contestant, not from its own cache. */
	sqlite_do(db, "PRAGMA cache_size = 100; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0;");
	return db;
}

static void sqlite_make(const char *path)
{
	sqlite3 *db = sqlite_open(path);
	sqlite3_stmt *s;
	uint64_t row[ROW / 8];

	sqlite_do(db, "PRAGMA page_size = 4096; CREATE TABLE t (key INTEGER PRIMARY KEY, row BLOB); BEGIN");
	s = sqlite_statement(db, "INSERT INTO t VALUES (?, ?)");
	for (uint64_t key = 0; key < ROWS; key++) {
		row_fill(row, key, 0);
		sqlite3_bind_int64(s, 1, (sqlite3_int64)key);
		sqlite3_bind_blob(s, 2, row, ROW, SQLITE_STATIC);
		sqlite_try(db, sqlite3_step(s), "insert");
		sqlite3_reset(s);
	}
	sqlite3_finalize(s);
	sqlite_do(db, "COMMIT");
	sqlite3_close(db);
}

static void sqlite_read(sqlite3 *db, sqlite3_stmt *s, uint64_t key, uint64_t version)
{
	sqlite3_bind_int64(s, 1, (sqlite3_int64)key);
	if (sqlite3_step(s) != SQLITE_ROW)
		die("SQLite: row %" PRIu64 " is not there: %s", key, sqlite3_errmsg(db));
	row_compare(sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0), key, version);
	sqlite3_reset(s);
}

struct sqlite { sqlite3 *db; sqlite3_stmt *select; };

static void sqlite_get(void *db, uint64_t key)
{
	struct sqlite *l = db;

	sqlite_read(l->db, l->select, key, 0);
}

static struct sqlite sqlite_begin(struct run *r)
{
	char path[sizeof(r->path) + 16];
	struct sqlite l;

	snprintf(path, sizeof(path), "%s.sqlite", r->path);
	l.db = sqlite_open(path);
	l.select = sqlite_statement(l.db, "SELECT row FROM t WHERE key = ?");
	return l;
}

void run_sqlite_read(struct run *r, const struct workload *w)
{
	struct sqlite l;

	if (!w->cold)
		read_in(r, ".sqlite");
	l = sqlite_begin(r);
	reads(r, sqlite_get, &l);
	sqlite3_finalize(l.select);
	sqlite3_close(l.db);
}

static void sqlite_write(struct sqlite *l, sqlite3_stmt *update, uint64_t key, uint64_t version)
{
	uint64_t row[ROW / 8];

	row_fill(row, key, version);
	sqlite3_bind_blob(update, 1, row, ROW, SQLITE_STATIC);
	sqlite3_bind_int64(update, 2, (sqlite3_int64)key);
	sqlite_try(l->db, sqlite3_step(update), "update");
	sqlite3_reset(update);
}

void run_sqlite_write(struct run *r, const struct workload *w)
{
	struct sqlite l = sqlite_begin(r);
	sqlite3_stmt *update = sqlite_statement(l.db, "UPDATE t SET row = ? WHERE key = ?");
	uint32_t *order = bench_shuffled(ROWS, r->number), done = 0;
	uint64_t spent = 0, end = now_ns() + (uint64_t)(1e9 * MIN_OF(r->seconds, SECONDS));

	while (done + w->n <= ROWS && now_ns() < end) {
		uint64_t at = now_ns(), took;

		sqlite_do(l.db, "BEGIN");
		for (uint32_t to = done + (uint32_t)w->n; done < to; done++)
			sqlite_write(&l, update, order[done], 1);
		sqlite_do(l.db, "COMMIT");
		took = now_ns() - at;
		spent += took;
		hist_add(&r->hist, took);
	}
	r->value = (double)spent / 1e6 / (done / (double)w->n);
	/* By a connection that has nothing in its own cache. Then all is as it was. */
	sqlite3_finalize(l.select);
	sqlite3_finalize(update);
	sqlite3_close(l.db);
	l = sqlite_begin(r);
	for (uint32_t i = 0; i < done; i++)
		sqlite_read(l.db, l.select, order[i], 1);
	update = sqlite_statement(l.db, "UPDATE t SET row = ? WHERE key = ?");
	sqlite_do(l.db, "BEGIN");
	for (uint32_t i = 0; i < done; i++)
		sqlite_write(&l, update, order[i], 0);
	sqlite_do(l.db, "COMMIT");
	sqlite3_finalize(l.select);
	sqlite3_finalize(update);
	sqlite3_close(l.db);
	free(order);
}
#else
const bool databases_sqlite = false;
static void sqlite_make(const char *path) { die("%s: built without SQLite", path); }
void run_sqlite_read(struct run *r, const struct workload *w) { die("built without SQLite"); }
void run_sqlite_write(struct run *r, const struct workload *w) { die("built without SQLite"); }
#endif

void database_make(const char *lower, bool sqlite)
{
	char path[600];

	snprintf(path, sizeof(path), "%s.%s", lower, sqlite ? "sqlite" : "lmdb");
	if (!access(path, F_OK))
		return;
	if (sqlite)
		sqlite_make(path);
	else
		lmdb_make(path);
}

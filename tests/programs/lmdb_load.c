/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads and checks an LMDB environment; knows nothing of pagecached. Each transaction keeps a record of how many entries there are and
 * of a checksum over their keys, so that any reader at any time can tell whether what it sees is one state. A value follows from its key.
 */
#include <errno.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAP_SIZE (96ul << 20)
#define VALUE_MAX 6000

struct key {
	uint64_t hash; /* first: entries of a writer lie all over the tree */
	uint64_t number;
};

struct total {
	uint64_t count;
	uint64_t checksum;
};

static MDB_env *env;
static MDB_dbi entries, totals;

static void must(int r, const char *what)
{
	if (r == MDB_SUCCESS)
		return;
	fprintf(stderr, "lmdb_load: %s: %s\n", what, mdb_strerror(r));
	exit(1);
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	x ^= x >> 29;
	x *= 0xd1342543de82ef95u;
	return x ^ x >> 32;
}

static struct key key_of(uint64_t number)
{
	return (struct key){ .hash = mix(number + 1), .number = number };
}

/* Some do not fit into a page. */
static size_t value_of(struct key k, uint64_t version, uint64_t *ret_value)
{
	size_t words = (32 + mix(k.hash) % (k.number % 16 ? 1500 : VALUE_MAX - 32)) / 8;

	ret_value[0] = version;
	for (size_t i = 1; i < words; i++)
		ret_value[i] = mix(k.hash + version + i);
	return words * 8;
}

static void env_open(const char *dir, unsigned flags)
{
	MDB_txn *txn;

	must(mdb_env_create(&env), "mdb_env_create");
	must(mdb_env_set_mapsize(env, MAP_SIZE), "mdb_env_set_mapsize");
	must(mdb_env_set_maxdbs(env, 4), "mdb_env_set_maxdbs");
	must(mdb_env_open(env, dir, flags, 0644), "mdb_env_open");
	must(mdb_txn_begin(env, NULL, flags & MDB_RDONLY, &txn), "mdb_txn_begin");
	must(mdb_dbi_open(txn, "entries", flags & MDB_RDONLY ? 0 : MDB_CREATE, &entries), "mdb_dbi_open");
	must(mdb_dbi_open(txn, "totals", flags & MDB_RDONLY ? 0 : MDB_CREATE, &totals), "mdb_dbi_open");
	must(mdb_txn_commit(txn), "mdb_txn_commit");
}

static struct total total_get(MDB_txn *txn)
{
	MDB_val k = { 5, "total" }, v;
	struct total t = { 0 };
	int r = mdb_get(txn, totals, &k, &v);

	if (r == MDB_NOTFOUND)
		return t;
	must(r, "mdb_get");
	memcpy(&t, v.mv_data, sizeof(t));
	return t;
}

static void total_put(MDB_txn *txn, struct total t)
{
	MDB_val k = { 5, "total" }, v = { sizeof(t), &t };

	must(mdb_put(txn, totals, &k, &v, 0), "mdb_put of the total");
}

/* Puts FIRST, FIRST + 1, ... in transactions of BATCH, and says after each how far it is. Every third deletes some, too. */
static void put(uint64_t first, uint64_t count, uint64_t batch)
{
	static uint64_t value[VALUE_MAX / 8];

	for (uint64_t n = first; n < first + count;) {
		MDB_txn *txn;
		struct total t;

		must(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
		t = total_get(txn);
		for (uint64_t end = n + batch; n < end && n < first + count; n++) {
			struct key k = key_of(n);
			MDB_val mk = { sizeof(k), &k }, mv = { value_of(k, 0, value), value };

			must(mdb_put(txn, entries, &mk, &mv, MDB_NOOVERWRITE), "mdb_put");
			t.count++;
			t.checksum += k.hash;
			if (n % 5 == 4) { /* one of its own, some transactions ago or in this one */
				k = key_of(n - 3);
				must(mdb_del(txn, entries, &mk, NULL), "mdb_del");
				t.count--;
				t.checksum -= k.hash;
			}
		}
		total_put(txn, t);
		must(mdb_txn_commit(txn), "mdb_txn_commit");
		printf("%" PRIu64 "\n", n);
		fflush(stdout);
	}
}

/* One transaction that changes all values of every STEPth entry; it is held open until the standard input ends. */
static void update(uint64_t step, uint64_t version, bool hold)
{
	static uint64_t value[VALUE_MAX / 8];
	MDB_cursor *c;
	MDB_txn *txn;
	MDB_val mk, mv;
	struct key k;
	char byte;
	int r;

	must(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
	must(mdb_cursor_open(txn, entries, &c), "mdb_cursor_open");
	while ((r = mdb_cursor_get(c, &mk, &mv, MDB_NEXT)) == MDB_SUCCESS) {
		memcpy(&k, mk.mv_data, sizeof(k));
		if (k.number % step)
			continue;
		mk.mv_data = &k;
		mv = (MDB_val){ value_of(k, version, value), value };
		must(mdb_cursor_put(c, &mk, &mv, MDB_CURRENT), "mdb_cursor_put");
	}
	if (r != MDB_NOTFOUND)
		must(r, "mdb_cursor_get");
	mdb_cursor_close(c);
	if (hold) {
		printf("held\n");
		fflush(stdout);
		while (read(STDIN_FILENO, &byte, 1) > 0)
			;
	}
	must(mdb_txn_commit(txn), "mdb_txn_commit");
}

/* Reads all in one transaction. */
static struct total scan(uint64_t *ret_versions)
{
	static uint64_t want[VALUE_MAX / 8];
	struct total t, seen = { 0 };
	MDB_cursor *c;
	MDB_txn *txn;
	MDB_val mk, mv;
	struct key k;
	int r;

	*ret_versions = 0;
	must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
	t = total_get(txn);
	must(mdb_cursor_open(txn, entries, &c), "mdb_cursor_open");
	while ((r = mdb_cursor_get(c, &mk, &mv, MDB_NEXT)) == MDB_SUCCESS) {
		uint64_t version;

		memcpy(&k, mk.mv_data, sizeof(k));
		memcpy(&version, mv.mv_data, sizeof(version));
		if (k.hash != key_of(k.number).hash || mv.mv_size != value_of(k, version, want) || memcmp(mv.mv_data, want, mv.mv_size) != 0) {
			fprintf(stderr, "lmdb_load: entry %" PRIu64 " has a wrong value\n", k.number);
			exit(1);
		}
		seen.count++;
		seen.checksum += k.hash;
		*ret_versions += version;
	}
	if (r != MDB_NOTFOUND)
		must(r, "mdb_cursor_get");
	if (seen.count != t.count || seen.checksum != t.checksum) {
		fprintf(stderr, "lmdb_load: %" PRIu64 " entries, but the total says %" PRIu64 "\n", seen.count, t.count);
		exit(1);
	}
	mdb_cursor_close(c);
	mdb_txn_abort(txn);
	return t;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 3 ? argv[2] : "";
	unsigned flags = strcmp(verb, "writemap") == 0 ? MDB_WRITEMAP : 0;
	uint64_t versions, n[3] = { 0 };
	int dead;

	if (argc < 4) {
		fprintf(stderr, "usage: lmdb_load DIR plain|writemap put FIRST COUNT BATCH | update STEP VERSION | hold STEP VERSION | scan TIMES\n");
		return 2;
	}
	verb = argv[3];
	for (int i = 4; i < argc && i < 7; i++)
		n[i - 4] = strtoull(argv[i], NULL, 10);
	env_open(argv[1], flags | (strcmp(verb, "scan") == 0 ? MDB_RDONLY : 0));
	must(mdb_reader_check(env, &dead), "mdb_reader_check");
	if (strcmp(verb, "put") == 0)
		put(n[0], n[1], n[2]);
	else if (strcmp(verb, "update") == 0 || strcmp(verb, "hold") == 0)
		update(n[0], n[1], *verb == 'h');
	else if (strcmp(verb, "scan") == 0)
		for (uint64_t i = 0; i < n[0]; i++) {
			struct total t = scan(&versions);

			if (i + 1 == n[0])
				printf("entries %" PRIu64 ", checksum %016" PRIx64 ", versions %" PRIu64 "\n", t.count, t.checksum, versions);
		}
	else
		return 2;
	mdb_env_close(env);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Runs the daemon's policy over traces, beside policies that see more than it can: true LRU, ARC and Belady's optimum.
 *
 * The memory is simulated as the daemon does it: hits on mapped pages are not shown to the policy, room is made in batches, and the second-chance
 * buffer is part of the cache. A touch of a page in the buffer is a hit that costs a soft fault, which is counted as well.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/policy_sim.h"
#include "daemon/policy.h"
#include "daemon/util/util.h"

#define SIZES_MAX        16u
#define SOFT_FAULT_COST  .5          /* of a miss */
#define LOOP_SHARE       .8          /* of Belady's hit ratio, on a loop of 1.5 times the cache */

enum { ADAPTIVE, FIFO, SEEN_LRU, LRU, ARC, BELADY, POLICIES };
static const char *const policy_names[POLICIES] = { "adaptive", "fifo", "lru-seen", "lru", "arc", "belady" };

struct options {
	uint32_t pages;
	uint64_t accesses, seed;
	double size[SIZES_MAX];    /* percent of the pages */
	unsigned n_sizes;
	unsigned second_chance;    /* percent of the cache */
	int only;                  /* one synthetic trace, -1: all */
	const char *trace;
	bool offsets, visible, json, markdown, check;
};

struct result {
	char name[64];
	double percent;            /* of the pages, or 0: the mean over the sizes */
	double hit[POLICIES];      /* ratios of all accesses */
	double soft;               /* soft faults of the adaptive policy, by access */
	double metadata;           /* its bytes by page of the cache */
	double ns;                 /* its own time by access */
	double loop;               /* how many times the cache, 0: no loop */
};

/* The cache as the policy's caller keeps it. */
struct cache {
	struct policy *p;
	uint8_t *in;               /* by page: OUT, IN or BUFFER */
	uint32_t *slot_of;         /* by page */
	uint32_t *of_slot;         /* by slot: page + 1 */
	const struct trace *t;
	uint64_t resident;
};
enum { OUT, IN, BUFFER };

/* The key of a page of a synthetic trace is its number plus a constant; one of a file is looked up through `id_of`. */
static uint32_t *id_table;
static uint64_t id_mask;

static uint64_t spread(uint64_t k)
{
	k *= 0x9e3779b97f4a7c15ull;
	return k ^ k >> 29;
}

static void id_table_make(const struct trace *t)
{
	for (id_mask = 1; id_mask < t->n_ids * 2ull; id_mask *= 2)
		;
	free(id_table);
	id_table = xcalloc(id_mask--, sizeof(*id_table));
	for (uint32_t i = 0; i < t->n_ids; i++) {
		uint64_t c = spread(t->key[i]) & id_mask;
		while (id_table[c])
			c = (c + 1) & id_mask;
		id_table[c] = i + 1;
	}
}

static uint32_t id_of(const struct trace *t, policy_key key)
{
	uint64_t c = spread(key) & id_mask;
	while (t->key[id_table[c] - 1] != key)
		c = (c + 1) & id_mask;
	return id_table[c] - 1;
}

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "policy-sim: %s\n", what);
		exit(1);
	}
}

static bool cache_demote(void *arg, policy_key key, uint32_t slot)
{
	struct cache *c = arg;
	uint32_t i = id_of(c->t, key);
	must(c->in[i] == IN && !c->of_slot[slot], "a page was demoted that is not there, or into a slot that is taken");
	c->in[i] = BUFFER;
	c->slot_of[i] = slot;
	c->of_slot[slot] = i + 1;
	return true;
}

static bool cache_drop(void *arg, policy_key key, uint32_t slot)
{
	struct cache *c = arg;
	uint32_t i = id_of(c->t, key);
	must(slot == POLICY_NO_SLOT ? c->in[i] == IN : c->in[i] == BUFFER && c->slot_of[i] == slot, "a page was dropped from where it is not");
	if (slot != POLICY_NO_SLOT)
		c->of_slot[slot] = 0;
	c->in[i] = OUT;
	c->resident--;
	return true;
}

/* Runs the daemon's policy; the number of hits. */
static uint64_t sim_policy(const struct options *o, const struct trace *t, enum policy_kind kind, uint32_t size, struct result *r)
{
	uint32_t slots = (uint32_t)((uint64_t)size * o->second_chance / 100);
	struct cache c = { .in = xcalloc(t->n_ids, 1), .slot_of = xcalloc(t->n_ids, 4), .of_slot = xcalloc(slots, 4), .t = t };
	const struct policy_evictor e = { cache_demote, cache_drop, &c };
	uint64_t hits = 0, batch = MAX(MIN(size / 64, 64), 1), start = now_ns();
	must(policy_new(&c.p, kind, size, slots) == 0, "no memory");
	for (uint64_t a = 0; a < t->n; a++) {
		uint32_t i = t->id[a];
		unsigned flags = t->write && t->write[a] ? POLICY_WRITE : 0;
		bool refault;
		if (c.in[i] == OUT) {
			if (c.resident == size)
				must(policy_evict(c.p, batch, false, &e) == batch, "too little was given up");
			must(policy_insert(c.p, t->key[i], flags | (o->visible ? POLICY_CALL : 0), &refault) == 0, "no memory");
			c.in[i] = IN;
			c.resident++;
			continue;
		}
		hits++;
		if (c.in[i] == BUFFER) {
			policy_soft_fault(c.p, t->key[i], flags);
			c.of_slot[c.slot_of[i]] = 0;
			c.in[i] = IN;
		} else if (o->visible) {
			policy_touch(c.p, t->key[i], flags | POLICY_CALL);
		}
	}
	if (kind == POLICY_ADAPTIVE) {
		r->ns = (double)(now_ns() - start) / (double)t->n;
		r->soft = (double)policy_counters(c.p)->soft_faults / (double)t->n;
		r->metadata = size >= 1000 ? (double)policy_memory(c.p) / size : 0; /* of tiny caches, the fixed part would be most of it */
	}
	policy_free(c.p);
	free(c.in);
	free(c.slot_of);
	free(c.of_slot);
	return hits;
}

static void run(const struct options *o, const struct trace *t, uint32_t size, double percent, struct result *r)
{
	double n = (double)t->n;
	*r = (struct result){ .percent = percent, .loop = t->ratio };
	memcpy(r->name, t->name, sizeof(r->name));
	id_table_make(t);
	r->hit[ADAPTIVE] = (double)sim_policy(o, t, POLICY_ADAPTIVE, size, r) / n;
	r->hit[FIFO] = (double)sim_policy(o, t, POLICY_FIFO, size, r) / n;
	r->hit[SEEN_LRU] = (double)sim_policy(o, t, POLICY_LRU, size, r) / n;
	r->hit[LRU] = (double)sim_lru(t, size) / n;
	r->hit[ARC] = (double)sim_arc(t, size) / n;
	r->hit[BELADY] = (double)sim_belady(t, size) / n;
}

static void mean(const struct result *r, unsigned n, struct result *ret)
{
	*ret = r[0];
	ret->percent = ret->soft = ret->metadata = ret->ns = 0;
	for (unsigned p = 0; p < POLICIES; p++) {
		ret->hit[p] = 0;
		for (unsigned i = 0; i < n; i++)
			ret->hit[p] += r[i].hit[p] / n;
	}
	for (unsigned i = 0; i < n; i++) {
		ret->soft += r[i].soft / n;
		ret->metadata = MAX(ret->metadata, r[i].metadata);
		ret->ns += r[i].ns / n;
	}
}

static void print_head(const struct options *o)
{
	if (o->json) {
		printf("[");
	} else if (o->markdown) {
		printf("| trace | cache |");
		for (unsigned p = 0; p < POLICIES; p++)
			printf(" %s |", policy_names[p]);
		printf(" soft faults | cost / LRU's |\n|---|---|");
		for (unsigned p = 0; p < POLICIES + 2; p++)
			printf("---|");
		printf("\n");
	} else {
		printf("%-20s %6s", "trace", "cache");
		for (unsigned p = 0; p < POLICIES; p++)
			printf(" %8s", policy_names[p]);
		printf(" %8s %8s %8s %6s %4s\n", "soft", "miss/lru", "cost/lru", "B/page", "ns");
	}
}

static void print_result(const struct options *o, const struct result *r, bool first)
{
	char cache[16] = "mean";
	double miss = 1 - r->hit[ADAPTIVE], lru = 1 - r->hit[LRU];
	if (r->percent > 0)
		snprintf(cache, sizeof(cache), "%g%%", r->percent);
	if (o->json) {
		printf("%s\n {\"trace\": \"%s\", \"cache\": \"%s\"", first ? "" : ",", r->name, cache);
		for (unsigned p = 0; p < POLICIES; p++)
			printf(", \"%s\": %.5f", policy_names[p], r->hit[p]);
		printf(", \"soft_faults\": %.5f, \"metadata_bytes\": %.1f, \"ns\": %.0f}", r->soft, r->metadata, r->ns);
	} else if (o->markdown) {
		printf("| %s | %s |", r->name, cache);
		for (unsigned p = 0; p < POLICIES; p++)
			printf(" %.3f |", r->hit[p]);
		printf(" %.4f | %.2f |\n", r->soft, (miss + SOFT_FAULT_COST * r->soft) / lru);
	} else {
		printf("%-20s %6s", r->name, cache);
		for (unsigned p = 0; p < POLICIES; p++)
			printf(" %8.4f", r->hit[p]);
		printf(" %8.4f %8.3f %8.3f %6.1f %4.0f\n", r->soft, miss / lru, (miss + SOFT_FAULT_COST * r->soft) / lru, r->metadata, r->ns);
	}
}

/* Whether one trace's mean is what it must be. */
static bool check(const struct result *m)
{
	bool ok = true;
	if (m->hit[ADAPTIVE] < m->hit[LRU]) {
		fprintf(stderr, "policy-sim: %s: hit ratio %.4f, less than LRU's %.4f\n", m->name, m->hit[ADAPTIVE], m->hit[LRU]);
		ok = false;
	}
	if (m->loop > 1.49 && m->loop < 1.51 && m->hit[ADAPTIVE] < LOOP_SHARE * m->hit[BELADY]) {
		fprintf(stderr, "policy-sim: %s: hit ratio %.4f, less than %g of Belady's %.4f\n", m->name, m->hit[ADAPTIVE], LOOP_SHARE, m->hit[BELADY]);
		ok = false;
	}
	if (m->metadata > PGC_PAGE_SIZE / 100.) {
		fprintf(stderr, "policy-sim: %s: %.1f bytes of metadata a page\n", m->name, m->metadata);
		ok = false;
	}
	return ok;
}

static void usage(FILE *f)
{
	fputs("Usage: policy-sim [OPTION...]\n\n"
		"Runs pagecached's policy over traces and compares it with FIFO, LRU, ARC and Belady's optimum: hit ratios of all accesses, soft faults by\n"
		"access, and what misses and soft faults cost (a soft fault is half a miss) beside LRU's misses. \"fifo\" and \"lru-seen\" are the daemon's own,\n"
		"which see as little as the adaptive policy does; lru, arc and belady see every access.\n\n"
		"  -p, --pages N           pages of the file in the synthetic traces [100000]\n"
		"  -n, --accesses N        accesses of each [2000000]; loops make at most 40 rounds\n"
		"  -s, --sizes LIST        cache sizes in percent of the pages [1,5,10,30]; a loop's length follows the cache's\n"
		"  -c, --second-chance N   slots of the second-chance buffer, percent of the cache [8]\n"
		"  -o, --only N            only synthetic trace N, 0 to 7\n"
		"  -t, --trace FILE        instead of these: CSV of time,object,size,op; op begins with r or g (read), w, s or p (write)\n"
		"      --offsets           an object in FILE is a byte offset; else each is a file of its own\n"
		"      --visible-calls     every access is a read call, which the policy sees\n"
		"      --seed N            of the synthetic traces [1]\n"
		"  -j, --json              print JSON\n"
		"  -m, --markdown          print a table in Markdown\n"
		"      --check             exit with 1 if the policy is worse than LRU on the mean over the sizes, or has less than .8 of Belady's hit\n"
		"                          ratio on a loop of 1.5 times the cache, or more than 1 % of the memory in tables\n"
		"  -h, --help              print this\n", f);
}

static bool parse_number(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	char *end;
	errno = 0;
	*ret = strtoull(s, &end, 10);
	return !errno && end != s && !*end && *s != '-' && *ret >= min && *ret <= max;
}

static bool parse_sizes(struct options *o, const char *s)
{
	char *end;
	for (o->n_sizes = 0; o->n_sizes < SIZES_MAX; s = end + 1) {
		double v = strtod(s, &end);
		if (end == s || !(v > 0 && v <= 100))
			return false;
		o->size[o->n_sizes++] = v;
		if (!*end)
			return true;
		if (*end != ',')
			return false;
	}
	return false;
}

/* 0: go on. 1: --help was answered. */
static int parse(struct options *o, int argc, char **argv)
{
	enum { OFFSETS = 256, VISIBLE, SEED, CHECK };
	static const struct option longs[] = {
		{ "pages", required_argument, NULL, 'p' }, { "accesses", required_argument, NULL, 'n' },
		{ "sizes", required_argument, NULL, 's' }, { "second-chance", required_argument, NULL, 'c' },
		{ "only", required_argument, NULL, 'o' }, { "trace", required_argument, NULL, 't' },
		{ "offsets", no_argument, NULL, OFFSETS }, { "visible-calls", no_argument, NULL, VISIBLE },
		{ "seed", required_argument, NULL, SEED }, { "json", no_argument, NULL, 'j' },
		{ "markdown", no_argument, NULL, 'm' }, { "check", no_argument, NULL, CHECK }, { "help", no_argument, NULL, 'h' }, { 0 },
	};
	uint64_t v = 0;
	bool ok = true;
	for (int c; ok && (c = getopt_long(argc, argv, "p:n:s:c:o:t:jmh", longs, NULL)) != -1;) {
		switch (c) {
		case 'p': ok = parse_number(optarg, 1000, 1u << 30, &v); o->pages = (uint32_t)v; break;
		case 'n': ok = parse_number(optarg, 1, UINT64_MAX / 64, &v); o->accesses = v; break;
		case 's': ok = parse_sizes(o, optarg); break;
		case 'c': ok = parse_number(optarg, 0, 50, &v); o->second_chance = (unsigned)v; break;
		case 'o': ok = parse_number(optarg, 0, TRACES - 1, &v); o->only = (int)v; break;
		case SEED: ok = parse_number(optarg, 0, UINT64_MAX, &v); o->seed = v; break;
		case 't': o->trace = optarg; break;
		case OFFSETS: o->offsets = true; break;
		case VISIBLE: o->visible = true; break;
		case 'j': o->json = true; break;
		case 'm': o->markdown = true; break;
		case CHECK: o->check = true; break;
		case 'h': usage(stdout); return 1;
		default: return -EINVAL;
		}
		if (!ok)
			fprintf(stderr, "policy-sim: option -%c: \"%s\" will not do\n", c < 256 ? c : '-', optarg);
	}
	if (ok && optind < argc)
		fprintf(stderr, "policy-sim: \"%s\": no arguments are expected\n", argv[optind]);
	return ok && optind == argc ? 0 : -EINVAL;
}

/* All sizes of one trace: the file's, or synthetic trace `which`. Whether the mean is what it must be. */
static bool run_sizes(const struct options *o, struct trace *file, unsigned which, bool first)
{
	struct result r[SIZES_MAX], m;
	uint32_t pages = file ? file->n_ids : o->pages;
	struct trace made = { 0 };
	for (unsigned s = 0; s < o->n_sizes; s++) {
		uint32_t size = (uint32_t)MAX(lround(pages * o->size[s] / 100), 16);
		if (!file && (which >= LOOPS_FROM || s == 0)) {
			trace_free(&made);
			trace_make(&made, which, o->pages, o->accesses, size, o->seed);
		}
		run(o, file ? file : &made, size, o->size[s], &r[s]);
		print_result(o, &r[s], first && s == 0);
		fflush(stdout);
	}
	trace_free(&made);
	mean(r, o->n_sizes, &m);
	print_result(o, &m, false);
	return check(&m);
}

int main(int argc, char **argv)
{
	struct options o = { .pages = 100000, .accesses = 2000000, .seed = 1, .size = { 1, 5, 10, 30 }, .n_sizes = 4, .second_chance = 8, .only = -1 };
	struct trace file = { 0 };
	bool good = true;
	int r = parse(&o, argc, argv);
	if (r)
		return r < 0 ? 2 : 0;
	if (o.trace) {
		uint64_t line;
		r = trace_read(&file, o.trace, o.offsets, &line);
		if (r == -EINVAL)
			fprintf(stderr, "policy-sim: %s:%llu: not time,object,size,op\n", o.trace, (unsigned long long)line);
		else if (r < 0 || !file.n)
			fprintf(stderr, "policy-sim: %s: %s\n", o.trace, r < 0 ? strerror(-r) : "no accesses");
		if (r < 0 || !file.n)
			return 2;
	}
	print_head(&o);
	if (o.trace)
		good = run_sizes(&o, &file, 0, true);
	else
		for (unsigned t = 0; t < TRACES; t++)
			if (o.only < 0 || o.only == (int)t)
				good &= run_sizes(&o, NULL, t, t == 0 || o.only >= 0);
	if (o.json)
		printf("\n]\n");
	trace_free(&file);
	free(id_table);
	return o.check && !good ? 1 : 0;
}

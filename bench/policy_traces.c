// SPDX-License-Identifier: Apache-2.0
/*
 * Traces for policy-sim: made from a seed, or read from a file in the CSV form time,object,size,op.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/policy_sim.h"
#include "daemon/util/util.h"

static uint64_t next_random(uint64_t *s)
{
	uint64_t z = (*s += 0x9e3779b97f4a7c15ull);
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint32_t below(uint64_t *s, uint64_t n)
{
	return (uint32_t)((next_random(s) >> 32) * n >> 32);
}

static double unit(uint64_t *s)
{
	return (double)(next_random(s) >> 11) / 9007199254740992.0;
}

/* Zipf: the chance of rank r is proportional to 1 / r^theta; which page has which rank is shuffled. */
struct zipf {
	double *sum;
	uint32_t *page, n;
};

static void zipf_init(struct zipf *z, uint32_t n, double theta, uint64_t *s)
{
	double sum = 0;
	z->n = n;
	z->sum = xcalloc(n, sizeof(*z->sum));
	z->page = xcalloc(n, sizeof(*z->page));
	for (uint32_t i = 0; i < n; i++) {
		z->sum[i] = sum += pow(i + 1.0, -theta);
		uint32_t j = below(s, i + 1ull);
		z->page[i] = z->page[j];
		z->page[j] = i;
	}
}

static uint32_t zipf_next(const struct zipf *z, uint64_t *s)
{
	double want = unit(s) * z->sum[z->n - 1];
	uint32_t lo = 0, hi = z->n - 1;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (z->sum[mid] < want)
			lo = mid + 1;
		else
			hi = mid;
	}
	return z->page[lo];
}

static void zipf_free(struct zipf *z)
{
	free(z->sum);
	free(z->page);
}

static void make_zipf(struct trace *t, double theta, uint64_t s)
{
	struct zipf z;
	zipf_init(&z, t->n_ids, theta, &s);
	for (uint64_t a = 0; a < t->n; a++)
		t->id[a] = zipf_next(&z, &s);
	zipf_free(&z);
}

/* Zipf on one half of the pages, while the other half is read in sequence: four times in all, half of the accesses in that time. */
static void make_zipf_scans(struct trace *t, uint64_t s)
{
	struct zipf z;
	uint32_t half = t->n_ids / 2, at = 0;
	uint64_t period = t->n / 4;
	zipf_init(&z, half, .99, &s);
	for (uint64_t a = 0; a < t->n; a++) {
		if (a % period == 0)
			at = 0;
		bool scan = a % period >= period / 4 && at < t->n_ids - half && next_random(&s) >> 63;
		t->id[a] = scan ? half + at++ : zipf_next(&z, &s);
	}
	zipf_free(&z);
}

/* Nine of ten accesses go to a window of a twelfth of the pages, the front half of it more often; it moves over all pages twice. */
static void make_moving(struct trace *t, uint64_t s)
{
	uint32_t hot = t->n_ids / 12 + 1;
	for (uint64_t a = 0; a < t->n; a++) {
		uint32_t start = (uint32_t)((unsigned __int128)a * 2 * t->n_ids / t->n);
		uint32_t in = below(&s, 4) ? below(&s, hot) : below(&s, hot / 2 + 1);
		t->id[a] = below(&s, 10) ? (uint32_t)(((uint64_t)start + in) % t->n_ids) : below(&s, t->n_ids);
	}
}

void trace_make(struct trace *t, unsigned which, uint32_t pages, uint64_t accesses, uint32_t cache, uint64_t seed)
{
	static const double loops[] = { 1.1, 1.5, 2, 3 };
	*t = (struct trace){ .n = accesses, .n_ids = pages };
	if (which >= 4) {
		t->loop = true;
		t->ratio = loops[which - 4];
		t->n_ids = (uint32_t)lround(cache * t->ratio);
		t->n = MIN(accesses, t->n_ids * 40ull);
	}
	t->id = xcalloc(t->n, sizeof(*t->id));
	t->key = xcalloc(t->n_ids, sizeof(*t->key));
	for (uint32_t i = 0; i < t->n_ids; i++)
		t->key[i] = (7ull << 40) + i;
	switch (which) {
	case 0:
		snprintf(t->name, sizeof(t->name), "Zipf .7");
		make_zipf(t, .7, seed);
		break;
	case 1:
		snprintf(t->name, sizeof(t->name), "Zipf .99");
		make_zipf(t, .99, seed);
		break;
	case 2:
		snprintf(t->name, sizeof(t->name), "Zipf .99 and scans");
		make_zipf_scans(t, seed);
		break;
	case 3:
		snprintf(t->name, sizeof(t->name), "moving hot set");
		make_moving(t, seed);
		break;
	default:
		snprintf(t->name, sizeof(t->name), "loop of %.1f", t->ratio);
		for (uint64_t a = 0; a < t->n; a++)
			t->id[a] = (uint32_t)(a % t->n_ids);
	}
}

/* Pages of a trace file get numbers in the order of their first access: an open hash of key to number + 1. */
struct pages {
	uint32_t *cell;
	uint64_t size;             /* a power of two */
	uint64_t *key;
	uint32_t n, max;
};

static uint64_t mix(uint64_t k)
{
	return next_random(&k);
}

static int pages_grow(struct pages *p)
{
	uint64_t size = p->size ? p->size * 2 : 4096;
	uint32_t *cell = calloc(size, sizeof(*cell));
	uint64_t *key = realloc(p->key, size / 2 * sizeof(*key));
	if (key)
		p->key = key;
	if (!cell || !key || size > UINT32_MAX) {
		free(cell);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < p->n; i++) {
		uint64_t c = mix(key[i]) & (size - 1);
		while (cell[c])
			c = (c + 1) & (size - 1);
		cell[c] = i + 1;
	}
	free(p->cell);
	p->cell = cell;
	p->size = size;
	p->max = (uint32_t)(size / 2);
	return 0;
}

static int pages_number(struct pages *p, uint64_t key, uint32_t *ret)
{
	int r = p->n == p->max ? pages_grow(p) : 0;
	if (r < 0)
		return r;
	uint64_t c = mix(key) & (p->size - 1);
	while (p->cell[c] && p->key[p->cell[c] - 1] != key)
		c = (c + 1) & (p->size - 1);
	if (!p->cell[c]) {
		p->key[p->n] = key;
		p->cell[c] = ++p->n;
	}
	*ret = p->cell[c] - 1;
	return 0;
}

static int trace_append(struct trace *t, uint64_t *max, uint32_t id, bool write)
{
	if (t->n == *max) {
		uint64_t n = *max ? *max * 2 : 65536;
		uint32_t *i = realloc(t->id, n * sizeof(*i));
		if (i)
			t->id = i;
		uint8_t *w = realloc(t->write, n);
		if (w)
			t->write = w;
		if (!i || !w)
			return -ENOMEM;
		*max = n;
	}
	t->write[t->n] = write;
	t->id[t->n++] = id;
	return 0;
}

/* One line: "time,object,size,op". The first page and how many; -EINVAL. */
static int line_parse(char *line, bool offsets, uint64_t *ret_key, uint64_t *ret_pages, bool *ret_write)
{
	char *field[4], *end;
	for (unsigned i = 0; i < 4; i++)
		if (!(field[i] = strsep(&line, ",\r\n")))
			return -EINVAL;
	errno = 0;
	uint64_t size = strtoull(field[2], &end, 10);
	if (errno || end == field[2] || *end || size > 1ull << 40)
		return -EINVAL;
	uint64_t object = strtoull(field[1], &end, 0);
	bool number = !errno && end != field[1] && !*end;
	int op = tolower((unsigned char)field[3][strspn(field[3], " \"")]);
	if (!field[1][0] || (offsets && !number) || !op || !strchr("rgwsp", op))
		return -EINVAL;
	if (!number) {
		object = 0xcbf29ce484222325ull;
		for (const char *c = field[1]; *c; c++)
			object = (object ^ (unsigned char)*c) * 0x100000001b3ull;
	}
	*ret_key = offsets ? page_down(object) : mix(object) << 28;
	*ret_pages = offsets ? page_up(object + MAX(size, 1)) - page_down(object) : page_up(MAX(size, 1));
	*ret_write = strchr("wsp", op);
	return 0;
}

int trace_read(struct trace *t, const char *path, bool offsets, uint64_t *ret_line)
{
	struct pages pages = { 0 };
	char *line = NULL;
	size_t line_size = 0;
	uint64_t max = 0, number = 0;
	int r = 0;
	FILE *f = fopen(path, "re");
	if (!f)
		return -errno;
	*t = (struct trace){ 0 };
	snprintf(t->name, sizeof(t->name), "%s", basename(path));
	while (r >= 0 && getline(&line, &line_size, f) > 0) {
		uint64_t key, n;
		uint32_t id;
		bool write;
		number++;
		if (line[0] == '\n' || line[0] == '#')
			continue;
		r = line_parse(line, offsets, &key, &n, &write);
		if (r < 0 && number == 1)
			r = 0; /* the names of the columns */
		else
			for (uint64_t i = 0; r >= 0 && i < n; i++) {
				r = pages_number(&pages, key + i, &id);
				if (r >= 0)
					r = trace_append(t, &max, id, write);
			}
	}
	if (r >= 0 && ferror(f))
		r = -EIO;
	fclose(f);
	free(line);
	free(pages.cell);
	t->key = pages.key;
	t->n_ids = pages.n;
	*ret_line = number;
	if (r < 0)
		trace_free(t);
	return r;
}

void trace_free(struct trace *t)
{
	free(t->id);
	free(t->write);
	free(t->key);
	*t = (struct trace){ 0 };
}

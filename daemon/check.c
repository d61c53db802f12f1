/* SPDX-License-Identifier: Apache-2.0 */
/* See check.h. The steps are in check_*.c; this hands them out and keeps their answers. */
#include "daemon/check.h"

#include <string.h>

void check_row(struct check *c, const struct pgc_ctl_check_reply *row)
{
	if (c->n_rows == CHECK_ROWS_MAX) {
		c->end.unlisted++;
		return;
	}
	if (c->n_rows == c->allocated) {
		size_t n = c->allocated ? c->allocated * 2 : 16;
		struct pgc_ctl_check_reply *rows = reallocarray(c->rows, n, sizeof(*rows));

		if (!rows) {
			c->error = -ENOMEM;
			return;
		}
		c->rows = rows;
		c->allocated = n;
	}
	c->rows[c->n_rows] = *row;
	c->rows[c->n_rows++].more = 1;
}

void check_differs(struct check *c, enum pgc_check_kind kind, const struct file *f, uint64_t start, uint64_t end, uint64_t found, uint64_t expected)
{
	check_row(c, &(struct pgc_ctl_check_reply){
		.kind = kind, .file = f ? f->slot : 0, .start = start, .end = end, .found = found, .expected = expected,
	});
}

void check_count(struct check *c, enum pgc_check_kind kind, uint32_t file, uint64_t start, const uint64_t count[4])
{
	struct pgc_ctl_check_reply row = { .kind = kind, .file = file, .start = start };

	/* What comes next is mostly of the same: from the end. */
	for (size_t i = c->n_rows; i-- > 0;)
		if (c->rows[i].kind == (uint32_t)kind && c->rows[i].file == file && c->rows[i].start == start) {
			for (int k = 0; k < 4; k++)
				c->rows[i].count[k] += count[k];
			return;
		}
	memcpy(row.count, count, sizeof(row.count));
	check_row(c, &row);
}

void check_hold(struct check *c, struct file *f)
{
	f->requests++;
	c->worker->checks++;
}

void check_release(struct check *c, struct file *f)
{
	c->worker->checks--;
	f->requests--;
	file_maybe_idle(f);
}

void check_start(struct check *c)
{
	struct worker *w = c->worker;
	struct file *f = NULL;

	c->end.next = PGC_CHECK_END;
	c->end.moment = w->changes;
	if (c->request.step != PGC_CHECK_WORKER) {
		f = file_find(w, c->request.dev, c->request.ino);
		c->error = !f ? -ENOENT : w->checks >= CHECK_RUNNING_MAX ? -EBUSY : 0;
	}
	if (c->error) {
		c->done(c);
		return;
	}
	switch (c->request.step) {
	case PGC_CHECK_PAGES:
		check_pages(c, f);
		return;
	case PGC_CHECK_FILE:
		check_file(c, f);
		return;
	case PGC_CHECK_CONTENT:
		check_content(c, f);
		return;
	}
	check_tables(c);
	c->done(c);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PGC_CTL_CHECK: one step of check.h goes to the worker that owns what it compares, and its answer is sent as fast as the peer takes it.
 * Main thread; the functions marked so run on workers.
 */
#include <stdlib.h>

#include "daemon/check.h"
#include "daemon/conn.h"
#include "daemon/log.h"
#include "daemon/server.h"

struct check_job {
	struct check check;
	struct ring_op op;         /* to the worker, and back */
	struct conn *conn;         /* NULL: it ended */
	bool answered;             /* it is being listed */
};

static void job_free(struct check_job *job)
{
	free(job->check.rows);
	free(job);
}

static void job_returned(struct ring_op *op, int res, uint32_t cflags)
{
	struct check_job *job = container_of(op, struct check_job, op);
	struct conn *c = job->conn;

	if (!c) {
		job_free(job);
		return;
	}
	job->answered = true;
	c->cursor = 0;
	control_continue(c);
}

/* On the worker. */
static void job_done(struct check *c)
{
	struct check_job *job = container_of(c, struct check_job, check);
	struct worker *w = c->worker;

	job->op.done = job_returned;
	if (ring_post(&w->ring, w->main_ring, &job->op, 0) < 0)
		log_at(LOG_LEVEL_ERROR, NULL, 0, "out of memory: a check gets no answer");
}

/* On the worker. */
static void job_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	check_start(&container_of(op, struct check_job, op)->check);
}

int control_check_begin(struct conn *c)
{
	const struct pgc_ctl_check *m = &c->request.ctl_check;
	struct server *s = c->server;
	struct check_job *job;
	unsigned worker;

	if (!conn_privileged(c))
		return -EPERM;
	worker = m->step == PGC_CHECK_WORKER ? m->worker : worker_index(s->n_workers, m->dev, m->ino);
	if (worker >= s->n_workers)
		return -ENOENT;
	job = calloc(1, sizeof(*job));
	if (!job)
		return -ENOMEM;
	job->conn = c;
	job->check.worker = &s->workers[worker];
	job->check.request = *m;
	job->check.done = job_done;
	job->op.done = job_arrived;
	if (ring_post(&s->ring, &job->check.worker->ring, &job->op, 0) < 0) {
		job_free(job);
		return -ENOMEM;
	}
	c->check = job;
	return 0;
}

bool control_check_row(struct conn *c, struct pgc_msg *reply)
{
	const struct check *check = &c->check->check;

	if (check->error == 0 && c->cursor < check->n_rows) {
		reply->ctl_check_reply = check->rows[c->cursor];
		return true;
	}
	reply->ctl_check_reply = check->end;
	reply->status = (uint32_t)-check->error;
	return false;
}

void control_check_end(struct conn *c)
{
	struct check_job *job = c->check;

	c->check = NULL;
	if (job && job->answered)
		job_free(job);
	else if (job)
		job->conn = NULL;
}

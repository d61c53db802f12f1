/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the body each request uses, how many descriptors it brings, and what its fields must be. May call conn. */
#include "daemon/request.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/conn.h"

static bool range_fits(uint64_t off, uint64_t len) { return off <= INT64_MAX && len <= (uint64_t)INT64_MAX - off; }
static bool pages_fit(uint64_t addr, uint64_t len) { return is_aligned(addr | len, PAGE_SIZE_) && len > 0 && range_fits(addr, len); }

#define BODY(type) (sizeof(struct type))

const char *request_check(const struct handle *h, const struct pgc_msg *m, unsigned n_fds)
{
	size_t used;
	bool ok = true;

	switch (m->type) {
	case PGC_MSG_CLOSE:
	case PGC_MSG_XFER:
		used = 0;
		break;
	case PGC_MSG_STAT:
		used = BODY(pgc_stat);
		ok = m->stat.life <= 1 && m->stat.pad == 0;
		break;
	case PGC_MSG_MAP:
		used = BODY(pgc_map);
		ok = (m->map.flags & ~PGC_MAP_SHARED) == 0 && (m->map.prot & ~(uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC)) == 0;
		break;
	case PGC_MSG_POPULATE:
		used = BODY(pgc_populate);
		ok = pages_fit(m->populate.addr, m->populate.len) && m->populate.write <= 1 && m->populate.pad == 0;
		break;
	case PGC_MSG_WINDOW:
		used = BODY(pgc_window);
		break;
	case PGC_MSG_READ:
		used = BODY(pgc_read);
		ok = range_fits(m->read.off, m->read.len) && m->read.len <= PGC_READ_MAX;
		break;
	case PGC_MSG_WRITE:
		used = BODY(pgc_write);
		ok = (m->write.flags & ~(PGC_WRITE_APPEND | PGC_WRITE_DATAFD)) == 0 && m->write.pad == 0;
		if (ok && (m->write.flags & PGC_WRITE_DATAFD))
			ok = m->write.len <= PGC_DATA_MAX && m->write.pos <= INT64_MAX - m->write.len;
		else if (ok)
			ok = h->xfer && m->write.len <= PGC_WRITE_MAX && m->write.pos <= PGC_XFER_SIZE - m->write.len;
		break;
	case PGC_MSG_SYNC:
		used = BODY(pgc_sync);
		ok = (m->sync.flags & ~(PGC_SYNC_DATA | PGC_SYNC_ASYNC | PGC_SYNC_WRITE | PGC_SYNC_LOOK)) == 0 && m->sync.pad == 0 && range_fits(m->sync.off, m->sync.len);
		break;
	case PGC_MSG_TRUNCATE:
		used = BODY(pgc_truncate);
		break;
	case PGC_MSG_FALLOCATE:
		used = BODY(pgc_fallocate);
		ok = m->fallocate.pad == 0;
		break;
	case PGC_MSG_FADVISE:
		used = BODY(pgc_fadvise);
		ok = range_fits(m->fadvise.off, m->fadvise.len) && m->fadvise.pad == 0;
		break;
	case PGC_MSG_MADVISE:
		used = BODY(pgc_madvise);
		ok = pages_fit(m->madvise.addr, m->madvise.len) && m->madvise.pad == 0;
		break;
	case PGC_MSG_SEEK:
		used = BODY(pgc_seek);
		ok = m->seek.off <= INT64_MAX && (m->seek.whence == SEEK_DATA || m->seek.whence == SEEK_HOLE) && m->seek.pad == 0;
		break;
	case PGC_MSG_KEEP:
		used = BODY(pgc_keep);
		ok = range_fits(m->keep.off, m->keep.len) && m->keep.len > 0 && m->keep.len <= INT64_MAX - PAGE_SIZE_ - m->keep.off &&
		     m->keep.on <= 1 && m->keep.pad == 0;
		break;
	default:
		return "an unknown or misplaced request";
	}
	if (m->status > PGC_REQUEST_AGAIN || !conn_body_is_clean(m, used))
		return "reserved bytes that are set";
	if (!ok)
		return "a field out of its range";
	if (n_fds != (m->type == PGC_MSG_WINDOW ? m->window.len > 0 ? 2u : 0u : m->type == PGC_MSG_XFER || (m->type == PGC_MSG_WRITE && (m->write.flags & PGC_WRITE_DATAFD)) ? 1u : 0u))
		return "a wrong number of descriptors";
	/* The library's watcher may have closed one again that it has attached. */
	if (h->closing && m->type != PGC_MSG_SYNC && m->type != PGC_MSG_CLOSE && m->status != PGC_REQUEST_AGAIN)
		return "a request on a closed handle";
	return NULL;
}

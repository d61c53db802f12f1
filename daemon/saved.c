/* SPDX-License-Identifier: Apache-2.0 */
/* See saved.h. May call nothing but the kernel. */
#include "daemon/saved.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/util/util.h"

/* CRC-32C (Castagnoli), bit by bit: records are short and sealed once. */
static uint32_t crc32c(const void *data, size_t n)
{
	const unsigned char *p = data;
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

int saved_boot_id(unsigned char ret[16])
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[40] = "";
	unsigned n = 0, byte;

	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text) - 1) < 36)
		return -EIO;
	for (const char *c = text; n < 16 && *c; c += 2) {
		if (*c == '-')
			c++;
		if (sscanf(c, "%2x", &byte) != 1)
			return -EIO;
		ret[n++] = (unsigned char)byte;
	}
	return n == 16 ? 0 : -EIO;
}

#define SPAN(type, from, to) offsetof(type, from), offsetof(type, to) + sizeof(((type *)0)->to) - offsetof(type, from)

static uint32_t crc_of(const void *record, size_t from, size_t n) { return crc32c((const char *)record + from, n); }

static uint32_t header_crc(const struct pgc_saved_header *h) { return crc_of(h, SPAN(struct pgc_saved_header, magic, boot_id)); }
static uint32_t file_crc(const struct pgc_saved_file *s) { return crc_of(s, SPAN(struct pgc_saved_file, dev, memfd_ino)); }

static uint32_t handle_crc(const struct pgc_saved_handle *s)
{
	struct pgc_saved_handle constant = *s;

	constant.flags &= ~(PGC_SAVED_CLOSING | PGC_SAVED_ANSWERED);
	constant.pid = s->flags & PGC_SAVED_CHILD ? 0 : s->pid; /* a child's shows later */
	constant.start_time = s->flags & PGC_SAVED_CHILD ? 0 : s->start_time;
	return crc_of(&constant, SPAN(struct pgc_saved_handle, id, flags));
}

void saved_seal_header(struct pgc_saved_header *h)
{
	h->magic = PGC_SAVED_MAGIC;
	h->major = PGC_SAVED_MAJOR;
	h->minor = PGC_SAVED_MINOR;
	h->crc = header_crc(h);
}

const char *saved_check_header(const struct pgc_saved_header *h, const unsigned char boot_id[16])
{
	if (h->magic != PGC_SAVED_MAGIC)
		return "it is none, or was not finished";
	if (h->major != PGC_SAVED_MAJOR || h->minor > PGC_SAVED_MINOR)
		return "it is of another version";
	if (h->crc != header_crc(h))
		return "its checksum is wrong";
	if (memcmp(h->boot_id, boot_id, 16) != 0)
		return "it is of an earlier boot";
	if (h->workers == 0 || h->files == 0 || h->files % h->workers || h->blocks == 0 || h->blocks % h->workers || h->mappings == 0 ||
	    h->mappings % h->workers || h->cgroups < 2 || h->handles < 2)
		return "its sizes make no sense";
	return NULL;
}

void saved_seal_file(struct pgc_saved_file *s, uint32_t slot)
{
	s->crc = file_crc(s);
	crash_order();
	s->file = slot;
}

bool saved_check_file(const struct pgc_saved_file *s, uint32_t slot) { return slot != 0 && s->file == slot && s->crc == file_crc(s); }

void saved_seal_handle(struct pgc_saved_handle *s, uint32_t file)
{
	s->crc = handle_crc(s);
	crash_order();
	s->file = file;
}

bool saved_check_handle(const struct pgc_saved_handle *s) { return s->file != 0 && s->id != 0 && s->crc == handle_crc(s); }

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of /proc/self/maps, which say what is really mapped. No memory is allocated; names are skipped, so that a
 * line of any length is read. Any thread.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "libclient/internal.h"

int vma_open(struct vma_iter *it)
{
	it->pos = it->have = 0;
	it->fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	return it->fd < 0 ? -errno : 0;
}

void vma_close(struct vma_iter *it)
{
	close_fd(&it->fd);
}

static bool number(const char **s, unsigned base, char end, uint64_t *ret)
{
	uint64_t v = 0;
	const char *p = *s;

	for (;; p++) {
		unsigned d;

		if (*p >= '0' && *p <= '9')
			d = (unsigned)(*p - '0');
		else if (*p >= 'a' && *p <= 'f')
			d = (unsigned)(*p - 'a') + 10;
		else
			break;
		if (d >= base || v > (UINT64_MAX - d) / base)
			return false;
		v = v * base + d;
	}
	if (p == *s || (*p != end && !(end == ' ' && *p == '\0')))
		return false;
	*s = *p ? p + 1 : p;
	*ret = v;
	return true;
}

/* "start-end rwxp offset major:minor inode ..." */
bool vma_parse(const char *line, struct vma *ret)
{
	uint64_t start, end, off, major, minor, ino;
	const char *s = line, *perm;

	if (!number(&s, 16, '-', &start) || !number(&s, 16, ' ', &end))
		return false;
	perm = s;
	if (strnlen(perm, 5) < 5 || perm[4] != ' ')
		return false;
	s += 5;
	if (!number(&s, 16, ' ', &off) || !number(&s, 16, ':', &major) || !number(&s, 16, ' ', &minor) ||
	    !number(&s, 10, ' ', &ino))
		return false;
	*ret = (struct vma){
		.start = start,
		.end = end,
		.off = off,
		.prot = (perm[0] == 'r' ? PROT_READ : 0) | (perm[1] == 'w' ? PROT_WRITE : 0) |
			(perm[2] == 'x' ? PROT_EXEC : 0),
		.shared = perm[3] == 's',
		.dev = makedev((unsigned)major, (unsigned)minor),
		.ino = ino,
	};
	return true;
}

static int next_char(struct vma_iter *it)
{
	ssize_t n;

	if (it->pos == it->have) {
		do
			n = read(it->fd, it->buf, sizeof(it->buf));
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		it->pos = 0;
		it->have = (size_t)n;
	}
	return (unsigned char)it->buf[it->pos++];
}

int vma_next(struct vma_iter *it, struct vma *ret)
{
	char line[128];            /* the numbers; what follows is dropped */
	size_t n = 0;
	int c;

	while ((c = next_char(it)) > 0 && c != '\n')
		if (n < sizeof(line) - 1)
			line[n++] = (char)c;
	if (c < 0)
		return c;
	if (c == 0 && n == 0)
		return 0;
	line[n] = '\0';
	return vma_parse(line, ret) ? 1 : -EPROTO;
}

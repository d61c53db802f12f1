/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An nbdkit plugin: a disk with a volatile write cache, as real disks have one. What was written is read back at once, and is in the backing
 * file after a flush (or with FUA) and not before, except that now and then some sectors of those in the cache get there by themselves, in no
 * order. kill -9 is the power cut: what was not flushed is lost, or there by chance, sector by sector.
 *
 *	nbdkit nbdkit-volatile-plugin.so file=PATH [spill=PERCENT] [seed=N]
 *
 * spill: of how many writes some sectors go to the backing file by themselves; 0 (the default): of none.
 *
 * The cache is a private mapping of the backing file. Requests run one at a time.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS
#define SECTOR 512u
#define SPILLED 16u /* sectors at a time, at most */

static struct {
	char *path;
	unsigned spill, seed;
	int fd;
	uint64_t size;
	uint8_t *bytes;    /* as clients see them */
	bool *dirty;       /* by sector: not in the backing file */
	uint64_t low, high; /* no dirty sector outside */
} disk = { .fd = -1 };

static int disk_config(const char *key, const char *value)
{
	if (strcmp(key, "file") == 0) {
		free(disk.path);
		disk.path = nbdkit_realpath(value);
		return disk.path ? 0 : -1;
	}
	if (strcmp(key, "spill") == 0)
		return nbdkit_parse_unsigned("spill", value, &disk.spill);
	if (strcmp(key, "seed") == 0)
		return nbdkit_parse_unsigned("seed", value, &disk.seed);
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

static int disk_config_complete(void)
{
	if (!disk.path)
		nbdkit_error("file=PATH is missing");
	return disk.path ? 0 : -1;
}

static int disk_get_ready(void)
{
	struct stat st;

	disk.fd = open(disk.path, O_RDWR | O_CLOEXEC);
	if (disk.fd < 0 || fstat(disk.fd, &st) < 0) {
		nbdkit_error("%s: %s", disk.path, strerror(errno));
		return -1;
	}
	disk.size = (uint64_t)st.st_size / SECTOR * SECTOR;
	disk.dirty = calloc(disk.size / SECTOR + 1, sizeof(*disk.dirty));
	disk.bytes = mmap(NULL, disk.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, disk.fd, 0);
	if (!disk.dirty || disk.bytes == MAP_FAILED) {
		nbdkit_error("no memory for a disk of %llu bytes", (unsigned long long)disk.size);
		return -1;
	}
	disk.low = disk.size / SECTOR;
	srandom(disk.seed);
	return 0;
}

static void disk_unload(void)
{
	free(disk.path);
}

static void *disk_open(int readonly)
{
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t disk_get_size(void *handle)
{
	return (int64_t)disk.size;
}

static int disk_can_fua(void *handle)
{
	return NBDKIT_FUA_NATIVE;
}

static int disk_can_multi_conn(void *handle)
{
	return 1; /* one cache for all connections */
}

static int persist(uint64_t from, uint64_t to)
{
	for (uint64_t s = from, end; s < to; s = end) {
		end = s + 1;
		if (!disk.dirty[s])
			continue;
		while (end < to && disk.dirty[end])
			end++;
		if (pwrite(disk.fd, disk.bytes + s * SECTOR, (end - s) * SECTOR, (off_t)(s * SECTOR)) != (ssize_t)((end - s) * SECTOR)) {
			nbdkit_set_error(EIO);
			return -1;
		}
		memset(disk.dirty + s, 0, (end - s) * sizeof(*disk.dirty));
	}
	return 0;
}

static int disk_flush(void *handle, uint32_t flags)
{
	if (disk.low < disk.high && persist(disk.low, disk.high) < 0)
		return -1;
	disk.low = disk.size / SECTOR;
	disk.high = 0;
	return 0;
}

/* Some sectors, anywhere between the first and the last that are in the cache. */
static void spill(void)
{
	if (disk.low >= disk.high || (unsigned)random() % 100 >= disk.spill)
		return;
	for (unsigned n = (unsigned)random() % SPILLED + 1; n > 0; n--) {
		uint64_t s = disk.low + (uint64_t)random() % (disk.high - disk.low);

		persist(s, s + 1);
	}
}

/* Half sectors are the whole sector's concern: the loop device asks for none. */
static int wrote(uint32_t count, uint64_t offset, uint32_t flags)
{
	uint64_t from = offset / SECTOR, to = (offset + count + SECTOR - 1) / SECTOR;

	memset(disk.dirty + from, 1, (to - from) * sizeof(*disk.dirty));
	if (flags & NBDKIT_FLAG_FUA)
		return persist(from, to);
	if (from < disk.low)
		disk.low = from;
	if (to > disk.high)
		disk.high = to;
	spill();
	return 0;
}

static int disk_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	memcpy(buf, disk.bytes + offset, count);
	return 0;
}

static int disk_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	memcpy(disk.bytes + offset, buf, count);
	return wrote(count, offset, flags);
}

static int disk_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	memset(disk.bytes + offset, 0, count);
	return wrote(count, offset, flags);
}

static struct nbdkit_plugin plugin = {
	.name = "volatile",
	.description = "a disk with a volatile write cache",
	.unload = disk_unload,
	.config = disk_config,
	.config_complete = disk_config_complete,
	.config_help = "file=PATH (required)  the backing file\nspill=PERCENT         of writes, some sectors persist by themselves\nseed=N",
	.get_ready = disk_get_ready,
	.open = disk_open,
	.get_size = disk_get_size,
	.can_fua = disk_can_fua,
	.can_multi_conn = disk_can_multi_conn,
	.pread = disk_pread,
	.pwrite = disk_pwrite,
	.flush = disk_flush,
	.zero = disk_zero,
	.errno_is_preserved = 0,
};

/* The macro defines it without a declaration. */
extern struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)

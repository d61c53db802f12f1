/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of the daemon's maps, on kernels that load BPF iterators and on those that refuse them to everybody. Needs libbpf; for one thread.
 */
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/tables.h"
#include "pagecached/maps.h"

static inline bool bpf_has_capability(unsigned n)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &head, data) == 0 && (data[n / 32].effective & 1u << n % 32);
}

static inline int bpf_load_trivial_iterator(void)
{
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_ITER);
	int id = libbpf_find_vmlinux_btf_id("bpf_map_elem", BPF_TRACE_ITER), fd;

	if (id <= 0)
		return id < 0 ? id : -ENOENT;
	opts.attach_btf_id = (uint32_t)id;
	fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "probe", "GPL", code, sizeof(code) / sizeof(code[0]), &opts);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/*
 * The kernel refuses iterators with EPERM, although this process has the capabilities for them. False for every other failure: a test that then finds no
 * tables is to fail. Asked once; ask before capabilities are dropped.
 */
static inline bool bpf_iterators_refused(void)
{
	static int refused = -1;

	if (refused < 0) {
		libbpf_print_fn_t print = libbpf_set_print(NULL);

		refused = bpf_has_capability(CAP_BPF) && bpf_has_capability(CAP_PERFMON) && bpf_load_trivial_iterator() == -EPERM;
		libbpf_set_print(print);
	}
	return refused;
}

typedef unsigned long long bpf_ull; /* what %llu is for */

/* What the iterators print, of one slot. */
static inline void bpf_table_line(FILE *out, const char *map, const void *value)
{
	if (strcmp(map, "files") == 0) {
		const struct pgc_file_entry *e = value;

		if (e->file)
			fprintf(out, TABLE_FILES_LINE, e->file, e->worker, (bpf_ull)e->size, e->handles, e->mappings, (bpf_ull)e->resident,
				(bpf_ull)e->dirty, (bpf_ull)e->writeback, (bpf_ull)e->keep, e->error, e->name);
	} else if (strcmp(map, "blocks") == 0) {
		const struct pgc_block_entry *e = value;

		if (e->file)
			fprintf(out, TABLE_BLOCKS_LINE, e->file, (bpf_ull)e->index, e->refs, (bpf_ull)e->cgroup, (bpf_ull)e->resident,
				(bpf_ull)e->dirty, (bpf_ull)e->writeback, (bpf_ull)e->keep);
	} else {
		const struct pgc_mapping_entry *e = value;

		if (e->file)
			fprintf(out, TABLE_MAPPINGS_LINE, e->file, (bpf_ull)e->start, (bpf_ull)e->end, e->refs, (bpf_ull)e->cgroup);
	}
}

/* From the pinned map, by lookups. */
static inline int bpf_table_of_map(FILE *out, const char *folder, const char *map)
{
	char path[PATH_MAX];
	union { struct pgc_file_entry file; struct pgc_block_entry block; struct pgc_mapping_entry mapping; } value;
	size_t size = strcmp(map, "files") == 0 ? sizeof(value.file) : strcmp(map, "blocks") == 0 ? sizeof(value.block) : sizeof(value.mapping);
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd, r = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, map);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -errno;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0 || info.value_size != size)
		r = -EINVAL;
	fputs(strcmp(map, "files") == 0 ? TABLE_FILES_HEADER : strcmp(map, "blocks") == 0 ? TABLE_BLOCKS_HEADER : TABLE_MAPPINGS_HEADER, out);
	for (uint32_t key = 0; key < info.max_entries && r == 0; key++) {
		r = bpf_map_lookup_elem(fd, &key, &value);
		if (r == 0)
			bpf_table_line(out, map, &value);
	}
	close(fd);
	return r;
}

static inline int bpf_table_of_iterator(FILE *out, const char *folder, const char *name)
{
	char path[PATH_MAX];
	FILE *in;
	int c, r;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	in = fopen(path, "re");
	if (!in)
		return -errno;
	while ((c = fgetc(in)) != EOF)
		fputc(c, out);
	r = ferror(in) ? -EIO : 0;
	fclose(in);
	return r;
}

/*
 * Table `name` (show_files, show_blocks, show_mappings) of the state pinned in `folder`: what its iterator prints, or, where the kernel refuses those, the
 * same made from the map. To be freed; NULL: it cannot be read.
 */
static inline char *bpf_table_text(const char *folder, const char *name)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int r;

	if (!out)
		return NULL;
	if (bpf_iterators_refused())
		r = bpf_table_of_map(out, folder, name + strlen("show_"));
	else
		r = bpf_table_of_iterator(out, folder, name);
	if (fclose(out) != 0 || r < 0) {
		free(text);
		return NULL;
	}
	return text;
}

// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
/*
 * The daemon's visible state: mmapable arrays, which the daemon fills by plain stores, and three iterators that
 * print them as tables. Nothing here takes part in caching: the programs only read, and the daemon works without them.
 *
 * The loader sets max_entries. An iterator is attached to one map and runs once for each of its slots, then once
 * without a slot; it prints a header before the first slot and leaves out empty slots.
 *
 * The few kernel types that are needed are declared here, with the fields that are used, and relocated when the
 * programs are loaded: building this needs neither the running kernel nor its BTF.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "pagecached/maps.h"
#include "tables.h"

struct seq_file;
struct bpf_map;

struct bpf_iter_meta {
	struct seq_file *seq;
	pgc_u64 session_id;
	pgc_u64 seq_num;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
} __attribute__((preserve_access_index));

#define STATE_MAP(name, entry) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1); \
		__type(key, pgc_u32); \
		__type(value, struct entry); \
	} name SEC(".maps")

STATE_MAP(files, pgc_file_entry);
STATE_MAP(blocks, pgc_block_entry);
STATE_MAP(mappings, pgc_mapping_entry);
STATE_MAP(cgroups, pgc_cgroup_entry);
STATE_MAP(stats, pgc_stats_entry);
STATE_MAP(saved_files, pgc_saved_file);
STATE_MAP(saved_handles, pgc_saved_handle);

SEC("iter/bpf_map_elem")
int show_files(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	const struct pgc_file_entry *e = ctx->value;

	if (!e)
		return 0;
	if (ctx->meta->seq_num == 0)
		BPF_SEQ_PRINTF(seq, TABLE_FILES_HEADER);
	if (e->file)
		BPF_SEQ_PRINTF(seq, TABLE_FILES_LINE,
			       e->file, e->worker, e->size, e->handles, e->mappings,
			       e->resident, e->dirty, e->writeback, e->keep, e->error, e->name);
	return 0;
}

SEC("iter/bpf_map_elem")
int show_blocks(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	const struct pgc_block_entry *e = ctx->value;

	if (!e)
		return 0;
	if (ctx->meta->seq_num == 0)
		BPF_SEQ_PRINTF(seq, TABLE_BLOCKS_HEADER);
	if (e->file)
		BPF_SEQ_PRINTF(seq, TABLE_BLOCKS_LINE,
			       e->file, e->index, e->refs, e->cgroup, e->resident, e->dirty, e->writeback, e->keep);
	return 0;
}

SEC("iter/bpf_map_elem")
int show_mappings(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	const struct pgc_mapping_entry *e = ctx->value;

	if (!e)
		return 0;
	if (ctx->meta->seq_num == 0)
		BPF_SEQ_PRINTF(seq, TABLE_MAPPINGS_HEADER);
	if (e->file)
		BPF_SEQ_PRINTF(seq, TABLE_MAPPINGS_LINE, e->file, e->start, e->end, e->refs, e->cgroup);
	return 0;
}

/* bpf_seq_printf() is for GPL programs only; this file is under the GPL at the reader's choice. */
char LICENSE[] SEC("license") = "GPL";

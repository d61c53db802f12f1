/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon was told: built-in defaults, then the configuration file, then the files of its .d folder in
 * the order of their names, then the command line. A wrong value is an error that names the file and the line.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "daemon/policy.h"

/* "64M" or "10%": a share of something that may change later. */
struct config_amount {
	uint64_t bytes;            /* when percent is 0 */
	unsigned percent;          /* 1 to 100 */
};
static inline uint64_t config_amount_of(const struct config_amount *a, uint64_t whole)
{
	return a->percent ? whole / 100 * a->percent + whole % 100 * a->percent / 100 : a->bytes;
}

/* What a file's pages do after its last unmap. */
enum retain {
	RETAIN_LRU,                /* stay until they are reclaimed */
	RETAIN_MAPPED,             /* are written and freed */
};

/* How it is found out what clients store to their mappings. */
enum write_tracking {
	TRACKING_SYNC,             /* by a fault at the first store to each page */
	TRACKING_ASYNC,            /* without faults, where the kernel can (track.h) */
};

/* A section [limit uid=1000] or [limit cgroup=/system.slice/x]: memory_max of all that these were the first to touch. */
struct limit_rule {
	char *cgroup;              /* path in the memory hierarchy, which holds for what is below it as well; NULL: a user */
	uid_t uid;
	struct config_amount memory_max; /* of the daemon's memory_max */
};

/* A section [file PATTERN] (fnmatch(3) on the file's path or URI); of several that match, the last one that sets a key counts. */
struct file_rule {
	char *pattern;
	int retain;                /* enum retain, -1: not set */
	int warm_start, huge;      /* 0 or 1, -1: not set */
	int64_t readahead_max;     /* bytes, -1: not set */
};

/* A section [store NAME], NAME as in struct store_ops. */
struct store_rule {
	char *name;
	int64_t readahead_max;     /* bytes, -1: not set */
};

#define CONFIG_LIMITS_MAX 64u

#define CONFIG_AUTO UINT32_MAX       /* of a number: not decided yet */

struct config {
	char    *file;             /* --config; else /etc/pagecached/pagecached.conf (a user's: $XDG_CONFIG_HOME/pagecached/pagecached.conf)
				    * when it exists; NULL: none was read */
	bool     keep;             /* --keep: this process is the keeper, another the daemon. At start only */
	char    *socket;           /* --socket; default /run/pagecached/socket, as a user $XDG_RUNTIME_DIR/pagecached/socket */
	char    *bpffs;            /* --bpffs; default /sys/fs/bpf/pagecached; "": no BPF maps ("none" becomes "") */
	char    *preload_paths;    /* patterns separated by ":", "": none. Nothing to the daemon, which only checks them: pagecachectl run reads them itself */
	char    *state_dir;        /* --state-dir; default /var/lib/pagecached, as a user $XDG_STATE_HOME/pagecached */
	uint64_t memory_max;       /* --memory-max, bytes; default a quarter of RAM; K, M, G, T suffixes (powers of 1024) or % of RAM */
	unsigned workers;          /* --workers; default: processors, at most 8 */
	unsigned lanes;            /* --lanes; default: none below 4 processors, else a quarter of them, at most 16 */
	int      log_level;        /* --log-level, as enum log_level */
	bool     kernel_faults;    /* default yes: hand out /dev/userfaultfd where the daemon may open it */
	bool     kernel_faults_for_all; /* default no: to who could open it, too */
	bool     test_stores;      /* default no: "mem:" URIs and fault injection, for tests */
	uint64_t dirty_expire_ms;  /* default 5 s; s, ms, min suffixes */
	uint64_t readahead_max;    /* bytes, default 8M; 0: none */
	uint64_t orphan_timeout_ms; /* default 0: for ever. How long clients without a daemon wait before their faults get SIGBUS */
	uint64_t stop_timeout_ms;  /* default 4 min, 0: none. How long a stop goes on without a page that gets written */
	uint32_t max_files;        /* slots of the maps */
	uint32_t max_mappings;
	uint32_t max_blocks;       /* 0: from memory_max */
	uint32_t max_handles;      /* by one user, default 4096; root: unlimited */
	mode_t   socket_mode;      /* default 0666 */

	enum policy_kind policy;   /* default adaptive; fifo, lru. At start only */
	unsigned second_chance;    /* percent of memory_max for the second-chance buffer, default 8, at most 50. At start only */
	struct config_amount dirty_background; /* of memory_max, default 10%: write-out begins */
	struct config_amount dirty_max;        /* of memory_max, default 20%: writers wait */
	struct config_amount pin_max;          /* of memory_max, default 50%: pins and locked memory */
	bool     pressure;         /* default yes: give memory back when the machine or the cgroup runs short */
	struct config_amount memory_min;       /* of memory_max, default 10%: pressure takes no more than down to this */
	bool     warm_start;       /* default yes */
	enum retain retain;        /* default lru */
	enum write_tracking write_tracking; /* default async */

	/* Sections, in the order of the files. */
	struct limit_rule *limits;
	struct file_rule *file_rules;
	struct store_rule *store_rules;
	size_t n_limits, n_file_rules, n_store_rules;
};

/* What holds for a file by its path or URI and its store (NULL: not known), rules applied. */
struct file_settings {
	enum retain retain;
	bool warm_start, huge;
	uint64_t readahead_max;    /* bytes */
};
void config_file_settings(const struct config *c, const char *name, const char *store, struct file_settings *ret);

/*
 * Changes one setting of those that can change while the daemon runs (log_level, memory_max, memory_min, dirty_background, dirty_max, dirty_expire,
 * readahead_max, pin_max, retain, warm_start, pressure). -EINVAL with the reason and what is allowed in `message`; nothing was changed then.
 * Main thread, as config_take_over().
 */
int config_set(struct config *c, const char *name, const char *value, char *message, size_t size);
/* Takes over from `from`, freshly loaded, what can change while the daemon runs. What cannot and differs is named on `ret_ignored` (a list "a, b"; "" if none). */
void config_take_over(struct config *c, struct config *from, char *ret_ignored, size_t size);

/* Parses argv (which getopt reorders) and everything it names. Returns 0; 1 when --help or --version was answered on
 * `out`; a negative errno (-EINVAL for whatever the user can mend) after a message on `err`. What config_free() frees is
 * in `c` after 0 only; else `c` is all zeros. Main thread, before any other starts. */
int config_load(struct config *c, int argc, char **argv, FILE *out, FILE *err);
void config_free(struct config *c);
/* Is this the process that the service manager started (SYSTEMD_EXEC_PID)? Its folders are the defaults then. */
bool config_is_unit(void);

/* "64M" or "50%" -> amount. -EINVAL, -ERANGE. */
int config_parse_amount(const char *s, struct config_amount *ret);
/* "64M", "2G", "50%" (of `whole`; 0: no % allowed), "4096" -> bytes. -EINVAL, -ERANGE. */
int config_parse_size(const char *s, uint64_t whole, uint64_t *ret);
/* "5s", "250ms", "2min", "5" (seconds) -> milliseconds. -EINVAL, -ERANGE. */
int config_parse_duration(const char *s, uint64_t *ret_ms);

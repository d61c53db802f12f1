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

struct config {
	char    *file;             /* --config; else /etc/pagecached/pagecached.conf (a user's: $XDG_CONFIG_HOME/pagecached/pagecached.conf)
				    * when it exists; NULL: none was read */
	char    *socket;           /* --socket; default /run/pagecached/socket, as a user $XDG_RUNTIME_DIR/pagecached/socket */
	char    *bpffs;            /* --bpffs; default /sys/fs/bpf/pagecached; "": no BPF maps ("none" becomes "") */
	char    *state_dir;        /* --state-dir; default /var/lib/pagecached, as a user $XDG_STATE_HOME/pagecached */
	uint64_t memory_max;       /* --memory-max, bytes; default a quarter of RAM; K, M, G, T suffixes (powers of 1024) or % of RAM */
	unsigned workers;          /* --workers; default: processors, at most 8 */
	int      log_level;        /* --log-level, as enum log_level */
	bool     kernel_faults;    /* default yes: hand out /dev/userfaultfd where the daemon may open it */
	bool     test_stores;      /* default no: "mem:" URIs and fault injection, for tests */
	uint64_t dirty_expire_ms;  /* default 5 s; s, ms, min suffixes */
	uint64_t readahead_max;    /* bytes, default 8M; 0: none */
	uint32_t max_files;        /* slots of the maps */
	uint32_t max_mappings;
	uint32_t max_blocks;       /* 0: from memory_max */
	uint32_t max_handles;      /* by one user, default 4096; root: unlimited */
	mode_t   socket_mode;      /* default 0666 */
};

/* Parses argv (which getopt reorders) and everything it names. Returns 0; 1 when --help or --version was answered on
 * `out`; a negative errno (-EINVAL for whatever the user can mend) after a message on `err`. What config_free() frees is
 * in `c` after 0 only; else `c` is all zeros. Main thread, before any other starts. */
int config_load(struct config *c, int argc, char **argv, FILE *out, FILE *err);
void config_free(struct config *c);

/* "64M", "2G", "50%" (of `whole`; 0: no % allowed), "4096" -> bytes. -EINVAL, -ERANGE. */
int config_parse_size(const char *s, uint64_t whole, uint64_t *ret);
/* "5s", "250ms", "2min", "5" (seconds) -> milliseconds. -EINVAL, -ERANGE. */
int config_parse_duration(const char *s, uint64_t *ret_ms);

// SPDX-License-Identifier: Apache-2.0
/*
 * pagecachectl: looks into a running pagecached, changes its settings, and tells it what to write, drop, pin or read in.
 *
 * A FILE on the command line is a path, whose (device, inode) is what the daemon knows a file by, or a "mem:" URI, which is
 * compared with the names. Lists are narrowed down here: the daemon sends all of its files, there are few.
 *
 * Errors go to stderr as text, with --json as well; stdout then stays empty.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <unistd.h>

#include "pagecached.h"
#include "pagecached/wire.h"
#include "tools/ctl_cgroup.h"
#include "tools/ctl_check.h"
#include "tools/ctl_conn.h"
#include "tools/ctl_range.h"
#include "tools/ctl_run.h"
#include "tools/ctl_show.h"
#include "tools/ctl_warm.h"
#include "version.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3 };
enum { EXIT_DIFFERS = 1, EXIT_TROUBLE = 2 };   /* of check */

struct ctl {
	const char *socket;            /* --socket or NULL */
	const char *file;              /* the first argument of the command, which mostly is FILE, or NULL */
	char **args;                   /* all of them */
	int n_args;
	bool scan_only;                /* of sync */
	bool content;                  /* of check */
	const char *rate;
	struct ctl_show show;
	struct ctl_conn conn;
};

/* A growing array of list entries. */
struct entries {
	char *mem;
	size_t n, allocated, size;
};

static void usage(FILE *out)
{
	fputs("Usage: pagecachectl [OPTION]... COMMAND [ARGUMENT]...\n"
	      "Look into a running pagecached and control it.\n"
	      "\n"
	      "Commands:\n"
	      "  status            what the daemon is doing\n"
	      "  files [FILE]      cached files: size, resident and dirty bytes, handles\n"
	      "  mappings [FILE]   mapped ranges: references and the cgroup of the first toucher\n"
	      "  cgroups           whose the cached memory is, and the limits\n"
	      "  memory            where the memory is, and how the policy does\n"
	      "  pins [FILE]       pinned ranges\n"
	      "  sync [FILE]       write dirty pages and wait\n"
	      "  drop [FILE]       drop clean pages\n"
	      "  warm FILE...      read files in\n"
	      "  pin FILE [RANGE]  read in and keep in memory\n"
	      "  unpin FILE [RANGE]\n"
	      "  check [FILE]      compare the daemon's state with what it stands for, and say what differs\n"
	      "  set KEY VALUE     change a setting of the running daemon\n"
	      "  run COMMAND...    run a program that was not built for it; see 'pagecachectl run --help'\n"
	      "  version           versions of this program and of the daemon\n"
	      "  help              this text\n"
	      "\n"
	      "FILE is a path or a mem: URI; without it, all files. RANGE is OFFSET, OFFSET-END or\n"
	      "OFFSET+LENGTH, in bytes or with K, M, G or T; without it, all of the file.\n"
	      "\n"
	      "Options:\n"
	      "  -s, --socket PATH  the daemon's socket (default: $PAGECACHED_SOCKET, else\n"
	      "                     /run/pagecached/socket, else $XDG_RUNTIME_DIR/pagecached/socket)\n"
	      "  -j, --json         print JSON\n"
	      "  -b, --bytes        print sizes as plain numbers of bytes\n"
	      "      --scan-only    sync: write nothing, only find out what was stored to mappings\n"
	      "      --content      check: clean pages against the files, too\n"
	      "      --rate SIZE    check: so much of that a second (64M); 0: no limit\n"
	      "  -h, --help         print this text\n"
	      "  -V, --version      print the version of this program\n"
	      "\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon answers; of check: 0 nothing differs,\n"
	      "1 something differs, 2 it could not be found out, 3 no daemon answers; of run, see there.\n", out);
}

static int fail(const char *what, int error)
{
	if (error == -ECONNRESET)
		fprintf(stderr, "pagecachectl: %s: the daemon hung up\n", what);
	else if (error == -EBADMSG)
		fprintf(stderr, "pagecachectl: %s: the daemon's answer makes no sense\n", what);
	else
		fprintf(stderr, "pagecachectl: %s: %s\n", what, strerror(-error));
	return EXIT_FAILED;
}

static int wrong_usage(const char *what, const char *word)
{
	fprintf(stderr, "pagecachectl: %s%s%s%s\nTry 'pagecachectl --help'.\n", what, word ? " '" : "", word ?: "", word ? "'" : "");
	return EXIT_USAGE;
}

static int not_cached(const char *file)
{
	fprintf(stderr, "pagecachectl: %s: not cached\n", file);
	return EXIT_FAILED;
}

static int ctl_open(struct ctl *ctl)
{
	int r = ctl_connect(&ctl->conn, ctl->socket);

	if (r == 0)
		return EXIT_OK;
	if (r == -EPROTO) {
		fprintf(stderr, "pagecachectl: the daemon at %s speaks another version of the protocol\n", ctl->conn.path);
		return EXIT_FAILED;
	}
	if (r == -ECONNRESET || r == -EBADMSG)
		return fail("hello", r);
	fprintf(stderr, "pagecachectl: no daemon at %s: %s\n", ctl->conn.path, strerror(-r));
	return EXIT_NO_DAEMON;
}

/* Connects, and has the library talk to the same daemon. */
static int use_library(struct ctl *ctl)
{
	int r = ctl_open(ctl);

	if (r == EXIT_OK && setenv("PAGECACHED_SOCKET", ctl->conn.path, 1) < 0)
		r = fail("environment", -errno);
	return r;
}

/* --- lists --- */

static int entries_add(struct entries *e, const void *entry)
{
	if (e->n == e->allocated) {
		size_t allocated = e->allocated ? e->allocated * 2 : 64;
		char *mem = reallocarray(e->mem, allocated, e->size);
		if (!mem)
			return -ENOMEM;
		e->mem = mem;
		e->allocated = allocated;
	}
	memcpy(e->mem + e->n++ * e->size, entry, e->size);
	return 0;
}

static int add_file(void *arg, const struct pgc_msg *reply)
{
	struct pgc_ctl_file_reply f = reply->ctl_file_reply;

	f.name[sizeof(f.name) - 1] = 0;
	return entries_add(arg, &f);
}

static int add_mapping(void *arg, const struct pgc_msg *reply)
{
	struct pgc_ctl_mapping_reply m = reply->ctl_mapping_reply;

	m.name[sizeof(m.name) - 1] = 0;
	return entries_add(arg, &m);
}

static int add_cgroup(void *arg, const struct pgc_msg *reply)
{
	return entries_add(arg, &reply->ctl_cgroup_reply);
}

static int add_pin(void *arg, const struct pgc_msg *reply)
{
	struct pgc_ctl_pin_reply p = reply->ctl_pin_reply;

	p.name[sizeof(p.name) - 1] = 0;
	return entries_add(arg, &p);
}

static bool is_uri(const char *file)
{
	return strncmp(file, "mem:", 4) == 0;
}

/* Is this what the daemon calls `uri`? Parameters after a '?' are no part of the name, and of a long name it keeps the end. */
static bool uri_is(const char *uri, const char *name)
{
	size_t n = strcspn(uri, "?"), known = strcspn(name, "?");
	const size_t most = sizeof(((struct pgc_ctl_file_reply *)0)->name) - 1;

	if (n > most) {
		uri += n - most;
		n = most;
	}
	return n == known && memcmp(uri, name, n) == 0;
}

/* The file that FILE means among `files`; NULL after a message when there is none. */
static const struct pgc_ctl_file_reply *find_file(const char *file, const struct entries *files)
{
	const struct pgc_ctl_file_reply *f = (const void *)files->mem;
	bool uri = is_uri(file);
	struct stat st = { 0 };
	uint64_t dev, ino;

	if (!uri && stat(file, &st) < 0) {
		fail(file, -errno);
		return NULL;
	}
	/* A block device is known by its number, whatever its name. */
	dev = S_ISBLK(st.st_mode) ? 1ull << 63 : st.st_dev;
	ino = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino;
	for (size_t i = 0; i < files->n; i++)
		if (uri ? uri_is(file, f[i].name) : f[i].dev == dev && f[i].ino == ino)
			return &f[i];
	not_cached(file);
	return NULL;
}

/* Connects and fetches all files. `files` is the caller's to free, in any case. */
static int fetch_files(struct ctl *ctl, struct entries *files, const struct pgc_ctl_file_reply **ret_file)
{
	*files = (struct entries){ .size = sizeof(struct pgc_ctl_file_reply) };
	*ret_file = NULL;

	int r = ctl_open(ctl);
	if (r != EXIT_OK)
		return r;
	r = ctl_list(&ctl->conn, PGC_CTL_FILES, add_file, files);
	if (r < 0)
		return fail("files", r);
	if (!ctl->file)
		return EXIT_OK;
	*ret_file = find_file(ctl->file, files);
	return *ret_file ? EXIT_OK : EXIT_FAILED;
}

/* --- commands --- */

static int shown(int r)
{
	return r < 0 ? fail("output", r) : EXIT_OK;
}

static int command_status(struct ctl *ctl)
{
	struct pgc_msg msg = { .type = PGC_CTL_STATUS }, memory = { .type = PGC_CTL_MEMORY };

	int r = ctl_open(ctl);
	if (r != EXIT_OK)
		return r;
	r = ctl_request(&ctl->conn, &msg);
	if (r == 0)
		r = ctl_request(&ctl->conn, &memory);
	if (r < 0)
		return fail("status", r);
	msg.ctl_status_reply.version[sizeof(msg.ctl_status_reply.version) - 1] = 0;
	return shown(ctl_show_status(&ctl->show, &msg.ctl_status_reply, &memory.ctl_memory_reply));
}

static int command_memory(struct ctl *ctl)
{
	struct pgc_msg msg = { .type = PGC_CTL_MEMORY };

	int r = ctl_open(ctl);
	if (r != EXIT_OK)
		return r;
	r = ctl_request(&ctl->conn, &msg);
	if (r < 0)
		return fail("memory", r);
	msg.ctl_memory_reply.policy[sizeof(msg.ctl_memory_reply.policy) - 1] = 0;
	return shown(ctl_show_memory(&ctl->show, &msg.ctl_memory_reply));
}

static int command_cgroups(struct ctl *ctl)
{
	struct entries entries = { .size = sizeof(struct pgc_ctl_cgroup_reply) };
	struct ctl_cgroup *found = NULL;

	int r = ctl_open(ctl);
	if (r != EXIT_OK)
		return r;
	r = ctl_list(&ctl->conn, PGC_CTL_CGROUPS, add_cgroup, &entries);
	if (r == 0) {
		found = calloc(entries.n + 1, sizeof(*found));
		r = found ? 0 : -ENOMEM;
	}
	if (r == 0) {
		const struct pgc_ctl_cgroup_reply *c = (const void *)entries.mem;
		size_t n = 0;
		for (size_t i = 0; i < entries.n; i++)
			if (!c[i].is_user && c[i].id != UINT64_MAX)
				found[n++].id = c[i].id;
		ctl_cgroup_find(found, n, "/proc/self/mountinfo");
		r = shown(ctl_show_cgroups(&ctl->show, c, entries.n, found, n));
		for (size_t i = 0; i < n; i++)
			free(found[i].path);
	} else {
		r = fail("cgroups", r);
	}
	free(found);
	free(entries.mem);
	return r;
}

static int command_files(struct ctl *ctl)
{
	const struct pgc_ctl_file_reply *file;
	struct entries files;

	int r = fetch_files(ctl, &files, &file);
	if (r == EXIT_OK)
		r = shown(ctl_show_files(&ctl->show, file ?: (const void *)files.mem, file ? 1 : files.n));
	free(files.mem);
	return r;
}

static int command_mappings(struct ctl *ctl)
{
	struct entries files, mappings = { .size = sizeof(struct pgc_ctl_mapping_reply) };
	const struct pgc_ctl_file_reply *file;

	int r = fetch_files(ctl, &files, &file);
	if (r == EXIT_OK) {
		r = ctl_list(&ctl->conn, PGC_CTL_MAPPINGS, add_mapping, &mappings);
		r = r < 0 ? fail("mappings", r) : EXIT_OK;
	}
	if (r == EXIT_OK) {
		struct pgc_ctl_mapping_reply *m = (void *)mappings.mem;
		size_t n = 0;
		for (size_t i = 0; i < mappings.n; i++)
			if (!file || m[i].file == file->file)
				m[n++] = m[i];
		r = shown(ctl_show_mappings(&ctl->show, m, n));
	}
	free(mappings.mem);
	free(files.mem);
	return r;
}

static int command_pins(struct ctl *ctl)
{
	struct entries files, pins = { .size = sizeof(struct pgc_ctl_pin_reply) };
	const struct pgc_ctl_file_reply *file;

	int r = fetch_files(ctl, &files, &file);
	if (r == EXIT_OK) {
		r = ctl_list(&ctl->conn, PGC_CTL_PINS, add_pin, &pins);
		r = r < 0 ? fail("pins", r) : EXIT_OK;
	}
	if (r == EXIT_OK) {
		struct pgc_ctl_pin_reply *p = (void *)pins.mem;
		size_t n = 0;
		for (size_t i = 0; i < pins.n; i++)
			if (!file || p[i].file == file->file)
				p[n++] = p[i];
		r = shown(ctl_show_pins(&ctl->show, p, n));
	}
	free(pins.mem);
	free(files.mem);
	return r;
}

/* sync and drop: the same shape. */
static int act(struct ctl *ctl, uint32_t type, const char *name, const char *done)
{
	struct pgc_msg msg = { .type = type, .ctl_file.wait = ctl->scan_only ? PGC_CTL_SYNC_LOOK : 1 };
	int r;

	if (ctl->file) {
		const struct pgc_ctl_file_reply *file;
		struct entries files;
		r = fetch_files(ctl, &files, &file);
		if (r == EXIT_OK) {
			msg.ctl_file.dev = file->dev;
			msg.ctl_file.ino = file->ino;
		}
		free(files.mem);
	} else {
		r = ctl_open(ctl);
	}
	if (r != EXIT_OK)
		return r;

	r = ctl_request(&ctl->conn, &msg);
	if (r == -ENOENT && ctl->file)      /* it went away in between */
		return not_cached(ctl->file);
	if (r < 0)
		return fail(ctl->file ?: name, r);
	return shown(ctl_show_count(&ctl->show, done, &msg.ctl_count_reply));
}

static int command_sync(struct ctl *ctl)
{
	return act(ctl, PGC_CTL_SYNC, "sync", ctl->scan_only ? "dirty" : "wrote");
}

static int command_drop(struct ctl *ctl)
{
	ctl->scan_only = false;
	return act(ctl, PGC_CTL_DROP, "drop", "dropped");
}

/* A file that nobody has open has no store to compare with: it is opened meanwhile. */
static int open_for_content(struct ctl *ctl, const struct pgc_ctl_file_reply *file, struct pgc_file **ret)
{
	*ret = NULL;
	if (!ctl->content || !file || file->handles > 0)
		return 0;
	if (setenv("PAGECACHED_SOCKET", ctl->conn.path, 1) < 0)
		return -errno;
	return pgc_open(ret, ctl->file, O_RDONLY, 0);
}

static int command_check(struct ctl *ctl)
{
	struct ctl_check check = { .conn = &ctl->conn, .content = ctl->content, .rate = 64 << 20, .progress = isatty(STDERR_FILENO) && !ctl->show.json };
	const struct pgc_ctl_file_reply *file;
	struct pgc_file *opened = NULL;
	struct entries files;
	int r;

	if (ctl->rate && ctl_parse_size(ctl->rate, &check.rate) < 0)
		return wrong_usage("not a size:", ctl->rate);
	r = fetch_files(ctl, &files, &file);
	if (r == EXIT_OK) {
		r = open_for_content(ctl, file, &opened);
		if (r == 0)
			r = ctl_check(&check, file ?: (const void *)files.mem, file ? 1 : files.n, !file);
		if (r == 0)
			r = ctl_check_show(&ctl->show, &check);
		if (r < 0)
			fail("check", r);
		r = r < 0 ? EXIT_TROUBLE : check.n + check.unlisted > 0 ? EXIT_DIFFERS : EXIT_OK;
	} else if (r == EXIT_FAILED) {
		r = EXIT_TROUBLE;
	}
	if (opened)
		(void)pgc_close(opened);
	ctl_check_free(&check);
	free(files.mem);
	return r;
}

/* Some settings are shown with - for _, as flags are; both will do. */
static int command_set(struct ctl *ctl)
{
	struct pgc_msg msg = { .type = PGC_CTL_SET };
	struct pgc_ctl_set *set = &msg.ctl_set;
	const char *key = ctl->args[0], *value = ctl->args[1];

	if (strlen(key) >= sizeof(set->name) || strlen(value) >= sizeof(set->value))
		return wrong_usage("too long:", strlen(key) >= sizeof(set->name) ? key : value);
	for (size_t i = 0; key[i]; i++)
		set->name[i] = key[i] == '-' ? '_' : key[i];
	strcpy(set->value, value);

	int r = ctl_open(ctl);
	if (r != EXIT_OK)
		return r;
	r = ctl_request(&ctl->conn, &msg);
	msg.ctl_set_reply.message[sizeof(msg.ctl_set_reply.message) - 1] = 0;
	if (r == -EINVAL && *msg.ctl_set_reply.message) {
		fprintf(stderr, "pagecachectl: %s\n", msg.ctl_set_reply.message);
		return EXIT_FAILED;
	}
	if (r < 0)
		return fail(key, r);
	return EXIT_OK;
}

static int pin_range(struct ctl *ctl, struct pgc_msg *msg)
{
	const struct pgc_ctl_file_reply *file;
	struct entries files;

	int r = fetch_files(ctl, &files, &file);
	if (r == EXIT_OK) {
		msg->ctl_pin.dev = file->dev;
		msg->ctl_pin.ino = file->ino;
	}
	free(files.mem);
	if (r != EXIT_OK)
		return r;
	r = ctl_request(&ctl->conn, msg);
	if (r == -ENOENT)
		return not_cached(ctl->file);
	if (r == -ENOSPC) {
		fprintf(stderr, "pagecachectl: %s: that much may not be pinned (see pin_max in pagecached.conf(5))\n", ctl->file);
		return EXIT_FAILED;
	}
	return r < 0 ? fail(ctl->file, r) : EXIT_OK;
}

static int pin(struct ctl *ctl, bool on)
{
	struct pgc_msg msg = { .type = PGC_CTL_PIN, .ctl_pin.on = on };
	struct pgc_file *f = NULL;
	int r = 0;

	if (ctl->n_args > 1)
		r = ctl_parse_range(ctl->args[1], &msg.ctl_pin.off, &msg.ctl_pin.len);
	if (r < 0)
		return wrong_usage(r == -ERANGE ? "out of range:" : "not a range (OFFSET, OFFSET-END or OFFSET+LENGTH):", ctl->args[1]);
	if (on) {
		/* So that the daemon knows it, whether or not another has it open. */
		r = use_library(ctl);
		if (r != EXIT_OK)
			return r;
		r = pgc_open(&f, ctl->file, O_RDONLY, 0);
		if (r < 0)
			return fail(ctl->file, r);
		r = pin_range(ctl, &msg);
		(void)pgc_close(f);
		return r;
	}
	return pin_range(ctl, &msg);
}

static int command_pin(struct ctl *ctl)
{
	return pin(ctl, true);
}

static int command_unpin(struct ctl *ctl)
{
	return pin(ctl, false);
}

static int warm_all(struct ctl *ctl, struct ctl_warm *w, struct ctl_warmed *warmed)
{
	for (int i = 0; i < ctl->n_args; i++) {
		const char *file = ctl->args[i];
		int r = ctl_warm_file(w, file);

		if (r == -EFBIG) {
			char size[32], room[32], before[32];
			ctl_format_size(size, sizeof(size), w->size);
			ctl_format_size(room, sizeof(room), w->room);
			ctl_format_size(before, sizeof(before), w->before);
			fprintf(stderr, "pagecachectl: %s: its %s do not fit the cache, which may hold %s%s%s%s\n", file, size, room,
				w->before ? ", beside " : "", w->before ? before : "", w->before ? " that were read in before" : "");
			return EXIT_FAILED;
		}
		if (r < 0)
			return fail(file, r);
		warmed[i] = (struct ctl_warmed){ .file = file, .bytes = w->done, .ms = w->ms };
	}
	return EXIT_OK;
}

static int command_warm(struct ctl *ctl)
{
	struct ctl_warm w = { .show = &ctl->show, .terminal = isatty(STDOUT_FILENO) };
	struct pgc_msg msg = { .type = PGC_CTL_MEMORY };
	struct ctl_warmed *warmed;

	int r = use_library(ctl);
	if (r != EXIT_OK)
		return r;
	r = ctl_request(&ctl->conn, &msg);
	if (r < 0)
		return fail("memory", r);
	w.room = msg.ctl_memory_reply.memory_limit;
	w.room -= msg.ctl_memory_reply.tables < w.room ? msg.ctl_memory_reply.tables : w.room;
	warmed = calloc((size_t)ctl->n_args, sizeof(*warmed));
	if (!warmed)
		return fail("warm", -ENOMEM);
	r = warm_all(ctl, &w, warmed);
	if (r == EXIT_OK && ctl->show.json)
		r = shown(ctl_show_warmed(warmed, (size_t)ctl->n_args));
	free(warmed);
	return r;
}

/* Answers without a daemon as well. */
static int command_version(struct ctl *ctl)
{
	int r = ctl_connect(&ctl->conn, ctl->socket);

	return shown(ctl_show_version(&ctl->show, r == 0 ? ctl->conn.hello.daemon_version : NULL));
}

static int command_help(struct ctl *ctl)
{
	usage(stdout);
	return EXIT_OK;
}

static const struct command {
	const char *name;
	int least, most;               /* arguments */
	const char *missing;           /* which, where there are less */
	int (*run)(struct ctl *ctl);
} commands[] = {
	{ "status", 0, 0, NULL, command_status },
	{ "files", 0, 1, NULL, command_files },
	{ "mappings", 0, 1, NULL, command_mappings },
	{ "cgroups", 0, 0, NULL, command_cgroups },
	{ "memory", 0, 0, NULL, command_memory },
	{ "pins", 0, 1, NULL, command_pins },
	{ "sync", 0, 1, NULL, command_sync },
	{ "drop", 0, 1, NULL, command_drop },
	{ "warm", 1, INT_MAX, "FILE...", command_warm },
	{ "pin", 1, 2, "FILE", command_pin },
	{ "unpin", 1, 2, "FILE", command_unpin },
	{ "check", 0, 1, NULL, command_check },
	{ "set", 2, 2, "KEY VALUE", command_set },
	{ "version", 0, 0, NULL, command_version },
	{ "help", 0, 0, NULL, command_help },
};

/*
 * Returns -1 to go on, or the exit code. `order` is "" or, for options before the command only, "+".
 */
static int parse_options(struct ctl *ctl, int argc, char **argv, const char *order)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "bytes", no_argument, NULL, 'b' },
		{ "content", no_argument, NULL, 'c' },
		{ "scan-only", no_argument, NULL, 'o' },
		{ "rate", required_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	char letters[16];
	int c;

	snprintf(letters, sizeof(letters), "%ss:jbhV", order);
	optind = 0;                             /* glibc: start afresh */
	while ((c = getopt_long(argc, argv, letters, options, NULL)) >= 0) {
		switch (c) {
		case 's':
			ctl->socket = optarg;
			break;
		case 'j':
			ctl->show.json = true;
			break;
		case 'b':
			ctl->show.bytes = true;
			break;
		case 'c':
			ctl->content = true;
			break;
		case 'o':
			ctl->scan_only = true;
			break;
		case 'r':
			ctl->rate = optarg;
			break;
		case 'h':
			usage(stdout);
			return EXIT_OK;
		case 'V':
			puts("pagecachectl " PGC_VERSION);
			return EXIT_OK;
		default:                        /* getopt has said what is wrong */
			fputs("Try 'pagecachectl --help'.\n", stderr);
			return EXIT_USAGE;
		}
	}
	return -1;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
	int r = parse_options(ctl, argc, argv, "+");

	if (r >= 0)
		return r;
	/* What follows the command of run is not ours to read. */
	if (optind < argc && strcmp(argv[optind], "run") == 0)
		return ctl_run(argc - optind, argv + optind, ctl->socket);
	r = parse_options(ctl, argc, argv, "");
	if (r >= 0)
		return r;
	argc -= optind;
	argv += optind;
	if (argc == 0)
		return wrong_usage("no command", NULL);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		const struct command *c = &commands[i];
		if (strcmp(argv[0], c->name) != 0)
			continue;
		ctl->args = argv + 1;
		ctl->n_args = argc - 1;
		ctl->file = ctl->n_args ? ctl->args[0] : NULL;
		if (ctl->n_args > c->most)
			return wrong_usage("too many arguments:", ctl->args[c->most]);
		if (ctl->n_args < c->least) {
			fprintf(stderr, "pagecachectl: usage: %s %s\n", c->name, c->missing);
			return wrong_usage("too few arguments", NULL);
		}
		return c->run(ctl);
	}
	return wrong_usage("unknown command", argv[0]);
}

int main(int argc, char **argv)
{
	struct ctl ctl = { .conn.fd = -1 };

	setlocale(LC_ALL, "");
	setlocale(LC_NUMERIC, "C");     /* JSON and scripts want a point */
	int r = run(&ctl, argc, argv);
	ctl_disconnect(&ctl.conn);
	if ((fflush(stdout) == EOF || ferror(stdout)) && r == EXIT_OK)
		r = fail("standard output", -errno);
	return r;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * pagecachectl: looks into a running pagecached and tells it to write or to drop.
 *
 * A FILE on the command line is a path, whose (device, inode) is what the daemon knows a file by, or a "mem:" URI, which is
 * compared with the names. Lists are narrowed down here: the daemon sends all of its files, there are few.
 *
 * Errors go to stderr as text, with --json as well; stdout then stays empty.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pagecached/wire.h"
#include "tools/ctl_conn.h"
#include "tools/ctl_show.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_DAEMON = 3 };

struct ctl {
	const char *socket;            /* --socket or NULL */
	const char *file;              /* FILE or NULL */
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
	fputs("Usage: pagecachectl [OPTION]... COMMAND [FILE]\n"
	      "Look into a running pagecached and control it.\n"
	      "\n"
	      "Commands:\n"
	      "  status            what the daemon is doing\n"
	      "  files [FILE]      cached files: size, resident and dirty bytes, handles\n"
	      "  mappings [FILE]   mapped ranges: references and the cgroup of the first toucher\n"
	      "  sync [FILE]       write dirty pages and wait\n"
	      "  drop [FILE]       drop clean pages\n"
	      "  version           versions of this program and of the daemon\n"
	      "  help              this text\n"
	      "\n"
	      "FILE is a path or a mem: URI; without it, all files.\n"
	      "\n"
	      "Options:\n"
	      "  -s, --socket PATH  the daemon's socket (default: $PAGECACHED_SOCKET, else\n"
	      "                     /run/pagecached/socket, else $XDG_RUNTIME_DIR/pagecached/socket)\n"
	      "  -j, --json         print JSON\n"
	      "  -b, --bytes        print sizes as plain numbers of bytes\n"
	      "  -h, --help         print this text\n"
	      "  -V, --version      print the version of this program\n"
	      "\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon answers.\n", out);
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

	if (!uri && stat(file, &st) < 0) {
		fail(file, -errno);
		return NULL;
	}
	for (size_t i = 0; i < files->n; i++)
		if (uri ? uri_is(file, f[i].name) : f[i].dev == st.st_dev && f[i].ino == st.st_ino)
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
	struct pgc_msg msg = { .type = PGC_CTL_STATUS };

	int r = ctl_open(ctl);
	if (r != EXIT_OK)
		return r;
	r = ctl_request(&ctl->conn, &msg);
	if (r < 0)
		return fail("status", r);
	msg.ctl_status_reply.version[sizeof(msg.ctl_status_reply.version) - 1] = 0;
	return shown(ctl_show_status(&ctl->show, &msg.ctl_status_reply));
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

/* sync and drop: the same shape. */
static int act(struct ctl *ctl, uint32_t type, const char *name, const char *done)
{
	struct pgc_msg msg = { .type = type, .ctl_file.wait = 1 };
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
	return act(ctl, PGC_CTL_SYNC, "sync", "wrote");
}

static int command_drop(struct ctl *ctl)
{
	return act(ctl, PGC_CTL_DROP, "drop", "dropped");
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
	bool takes_file;
	int (*run)(struct ctl *ctl);
} commands[] = {
	{ "status", false, command_status },
	{ "files", true, command_files },
	{ "mappings", true, command_mappings },
	{ "sync", true, command_sync },
	{ "drop", true, command_drop },
	{ "version", false, command_version },
	{ "help", false, command_help },
};

static int wrong_usage(const char *what, const char *word)
{
	fprintf(stderr, "pagecachectl: %s%s%s%s\nTry 'pagecachectl --help'.\n", what, word ? " '" : "", word ?: "", word ? "'" : "");
	return EXIT_USAGE;
}

/* Returns -1 to go on, or the exit code. */
static int parse_options(struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "bytes", no_argument, NULL, 'b' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "s:jbhV", options, NULL)) >= 0) {
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
	int r = parse_options(ctl, argc, argv);

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
		if (argc > (c->takes_file ? 2 : 1))
			return wrong_usage("too many arguments:", argv[c->takes_file ? 2 : 1]);
		ctl->file = argc > 1 ? argv[1] : NULL;
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

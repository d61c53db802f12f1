/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration. Parts of the input end with a byte 0xff: arguments, one a line; the configuration file; two files of its .d folder; settings to
 * change while the daemon runs, "name value" a line; a path that file rules are asked for. A mistake is told in one line and leaves nothing behind;
 * what is accepted is within its bounds.
 */
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "daemon/config.h"
#include "daemon/config_rules.h"
#include "daemon/config_setting.h"
#include "daemon/util/util.h"
#include "tests/fuzz/fuzz.h"

#define ARGS_MAX 12

static char dir[PATH_MAX - 64], file[PATH_MAX], drop_in[2][PATH_MAX];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *tmp = getenv("TMPDIR");
	char folder[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s/fuzz-config-XXXXXX", tmp ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/conf", dir);
	snprintf(folder, sizeof(folder), "%s/conf.d", dir);
	REQUIRE(mkdir(folder, 0700) == 0);
	for (int i = 0; i < 2; i++)
		snprintf(drop_in[i], sizeof(drop_in[i]), "%s/conf.d/%d.conf", dir, i);
	return 0;
}

static void put_file(const char *path, struct input *in)
{
	size_t n;
	char *text = take_text(in, 0xff, &n);
	FILE *f = fopen(path, "we");

	REQUIRE(f);
	if (n)
		REQUIRE(fwrite(text, 1, n, f) == n);
	REQUIRE(fclose(f) == 0);
	free(text);
}

/* One line at least, and one alone where what it quotes has none. */
static void check_message(const char *text, size_t n)
{
	REQUIRE(n > 1 && text[n - 1] == '\n');
}

static void check_bounds(const struct config *c)
{
	const struct setting *more, *less;
	char message[CONFIG_MESSAGE_MAX];

	REQUIRE(c->socket && *c->socket && c->state_dir && *c->state_dir && c->bpffs);
	REQUIRE(c->workers > 0 && c->memory_max > 0);
	REQUIRE(c->log_level >= 3 && c->log_level <= 7);
	REQUIRE(c->second_chance <= 50 && c->readahead_max <= CONFIG_READAHEAD_LIMIT);
	REQUIRE(c->socket_mode <= 0777 && c->n_limits <= CONFIG_LIMITS_MAX);
	REQUIRE(c->max_handles > 0);
	REQUIRE(config_check_together(c, &more, &less, message) == 0);
	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		const struct setting *s = &config_settings[i];
		const struct config_amount *a = (const void *)((const char *)c + s->offset);

		if (s->type == SETTING_AMOUNT)
			REQUIRE(a->percent <= 100 && config_amount_of(a, c->memory_max) <= c->memory_max);
	}
	for (size_t i = 0; i < c->n_limits; i++)
		REQUIRE(config_amount_of(&c->limits[i].memory_max, c->memory_max) > 0);
	for (size_t i = 0; i < c->n_file_rules; i++)
		REQUIRE(c->file_rules[i].pattern && c->file_rules[i].readahead_max <= (int64_t)CONFIG_READAHEAD_LIMIT);
}

static int load(struct config *c, int argc, char **argv)
{
	char *text = NULL, *said = NULL;
	size_t n = 0, n_said = 0;
	FILE *err = open_memstream(&text, &n), *out = open_memstream(&said, &n_said);
	int r;

	REQUIRE(err && out);
	r = config_load(c, argc, argv, out, err);
	REQUIRE(fclose(err) == 0 && fclose(out) == 0);
	REQUIRE(r <= 1);
	if (r < 0)
		check_message(text, n);
	if (r == 1)
		REQUIRE(n_said > 0);
	if (r != 0)
		for (size_t i = 0; i < sizeof(*c); i++)
			REQUIRE(((char *)c)[i] == 0);
	free(text);
	free(said);
	return r;
}

static void change(struct config *c, struct input *in)
{
	char *all = take_text(in, 0xff, NULL), *save = NULL;

	for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char message[232], *value = strchr(line, ' ');
		struct config before = *c;
		int r;

		if (value)
			*value++ = '\0';
		memset(message, 'x', sizeof(message));
		r = config_set(c, line, value ? value : "", message, sizeof(message));
		if (r == 0) {
			check_bounds(c);
		} else {
			REQUIRE(memchr(message, 0, sizeof(message)) && *message);
			REQUIRE(memcmp(&before, c, sizeof(before)) == 0);
		}
	}
	free(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	char *args = take_text(&in, 0xff, NULL), *save = NULL, *argv[ARGS_MAX + 4] = { (char *)"pagecached", (char *)"--config", file };
	char ignored[512], *path;
	struct config c, again;
	struct file_settings s;
	int argc = 3;

	for (char *a = strtok_r(args, "\n", &save); a && argc < ARGS_MAX; a = strtok_r(NULL, "\n", &save))
		if (strncmp(a, "--c", 3) != 0 && (a[0] != '-' || a[1] == '-' || !strchr(a, 'c'))) /* no other file: what it names is not the input's */
			argv[argc++] = a;
	put_file(file, &in);
	for (int i = 0; i < 2; i++)
		put_file(drop_in[i], &in);
	if (load(&c, argc, argv) == 0) {
		check_bounds(&c);
		change(&c, &in);
		path = take_text(&in, 0xff, NULL);
		config_file_settings(&c, path, NULL, &s);
		REQUIRE(s.retain <= RETAIN_MAPPED && s.readahead_max <= CONFIG_READAHEAD_LIMIT);
		config_file_settings(&c, path, "file", &s);
		free(path);
		if (load(&again, argc, argv) == 0) {
			config_take_over(&c, &again, ignored, sizeof(ignored));
			REQUIRE(memchr(ignored, 0, sizeof(ignored)));
			check_bounds(&c);
			config_free(&again);
		}
		config_free(&c);
	}
	free(args);
	return 0;
}

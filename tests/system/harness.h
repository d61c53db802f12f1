/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every system test stands on: a daemon of its own, processes that know nothing of each other, and ways to look.
 *
 * A test is a function that runs in a process of its own with a daemon of its own, on a private folder:
 *
 *	SYSTEM_TEST(a_page_of_the_file_is_shown, .dirty_expire = "1s")
 *	{
 *		char *path = make_file("f", 5000, 1);
 *		...
 *	}
 *
 * It fails by CHECK(), which ends the process; it never returns to cmocka by longjmp. A test that does not end is killed after
 * `seconds`. When the function returns, the daemon is stopped by SIGTERM and must exit with 0 and without a sanitizer's report.
 *
 * Other processes ("peers") are forked before the first call of the library, so that they use it afresh, and walk in step with
 * the test by messages. There are no sleeps of a fixed length to wait for something: WAIT_UNTIL() looks until it is so.
 *
 * Environment: PAGECACHED_BIN, PAGECACHECTL_BIN, BPFTOOL_BIN (paths); PGC_TEST_USER=1 (daemon and clients run as nobody);
 * PGC_REQUIRE_KERNEL=1 (a feature of the kernel that is missing is a failure, not a skip); TMPDIR (where the files lie; /var/tmp);
 * PGC_TEST_ONLY (a pattern of test names); PGC_TEST_SECONDS (limit for each test); PGC_TEST_LANES=N (lanes, which get all that they can do in test daemons).
 *
 * PGC_TEST_KILL_MS=N: each test's daemon is under a keeper and dies by SIGKILL every N ms or so (half to one and a half times that, and not before it has
 * served as long as it took to come; the clock goes on from test to test, as most are shorter). No test may notice. One that cannot cope says why, in .no_kills,
 * and is skipped. What the keeper's log says of deaths counts: a test that was long enough for one and saw none has failed, and so has a program of which no
 * test saw one. All limits of time are three times as long.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "pagecached.h"
#include "pagecached/wire.h"

#define PAGE 4096ul
#define BLOCK (64 * PAGE)

/* --- failing --- */

void check_failed(const char *file, int line, const char *what, ...) __attribute__((noreturn, format(printf, 3, 4)));
#define CHECK(x) \
	do { \
		if (!(x)) \
			check_failed(__FILE__, __LINE__, "not so: %s (errno: %s)", #x, strerror(errno)); \
	} while (0)
#define CHECK_EQ(a, b) \
	do { \
		long long _a = (long long)(a), _b = (long long)(b); \
		if (_a != _b) \
			check_failed(__FILE__, __LINE__, "%s is %lld, not %s = %lld", #a, _a, #b, _b); \
	} while (0)
#define FAIL(...) check_failed(__FILE__, __LINE__, __VA_ARGS__)
/* Ends the test as skipped, or as failed with PGC_REQUIRE_KERNEL=1. */
void skip_test(const char *why) __attribute__((noreturn));

uint64_t now_ms(void);
/* Everything may take so many times longer where daemons die. */
unsigned patience(void);
#define WAIT_MS 10000
/* Looks until `cond` holds; fails after `ms`. */
#define WAIT_UNTIL_MS(cond, ms) \
	do { \
		uint64_t _end = now_ms() + (ms) * patience(); \
		while (!(cond)) { \
			if (now_ms() > _end) \
				check_failed(__FILE__, __LINE__, "still not so after %d ms: %s", (int)(ms), #cond); \
			nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); \
		} \
	} while (0)
#define WAIT_UNTIL(cond) WAIT_UNTIL_MS(cond, WAIT_MS)

/* --- the test and its daemon --- */

struct test_options {
	const char *dirty_expire;      /* default 10min: nothing is written unless asked for */
	const char *memory_max;        /* default 1G */
	unsigned workers;              /* default 2 */
	unsigned seconds;              /* default 60 */
	unsigned max_files, max_mappings, max_blocks;  /* default: the daemon's own */
	bool as_user;                  /* drop privilege before the daemon starts */
	bool no_daemon;                /* the test starts it, or not */
	bool no_bpf;
	bool keep;                     /* under a keeper: env.daemon is that; see under_keeper() */
	const char *no_kills;          /* why it is left out with PGC_TEST_KILL_MS */
	const char *tracking;          /* of stores; default: what PGC_TEST_TRACKING says, else the daemon's */
	const char *config;            /* more lines of the configuration file */
};

/* Reasons for .no_kills. */
#define STORE_DIES "a mem: store is the daemon's own memory"
#define ADVICE_DIES "advice that was not followed yet is forgotten"

struct env {
	char dir[128];                 /* the test's own folder; the current directory of the test */
	char socket[160], state_dir[160], config[160], log[160];
	char bpffs[160];               /* folder for the pins; "" without */
	char small[128];               /* where a small file system (1 MiB) is mounted; "" without */
	bool user;                     /* no privilege: faults inside system calls are not served */
	pid_t daemon;                  /* 0: not running */
	const struct test_options *options;
};
extern struct env env;

typedef void (*test_body)(void);
void system_test_run(const char *name, test_body body, const struct test_options *o);
#define SYSTEM_TEST(name, ...) \
	static void name##_body(void); \
	static void name(void **state) \
	{ \
		static const struct test_options o = {__VA_ARGS__}; \
		(void)state; \
		system_test_run(#name, name##_body, &o); \
	} \
	static void name##_body(void)
/* main() of a test program. Takes a mount namespace of its own, or drops privilege with PGC_TEST_USER=1. */
int system_tests_main(const char *group, const struct CMUnitTest *tests, size_t n);
#define SYSTEM_TESTS_MAIN(group, ...) \
	int main(void) \
	{ \
		const struct CMUnitTest tests[] = {__VA_ARGS__}; \
		return system_tests_main(group, tests, sizeof(tests) / sizeof(tests[0])); \
	}

void daemon_start(void);
/* Starts one with these further arguments and does not wait; `log` gets its stderr, and stdout as well. */
pid_t daemon_spawn(const char *log, char *const extra[]);
void daemon_stop_losing(void);     /* SIGTERM; it says that dirty pages are lost, as nobody has brought them */
void daemon_stop(void);            /* SIGTERM; must exit with 0 and without a sanitizer's report */
bool under_keeper(void);           /* as the test wants it, or because its daemon is killed all the time */
pid_t daemon_pid(void);            /* the daemon's own, also under a keeper */
void stop_process(pid_t pid);      /* SIGSTOP, which has come to all its threads then */
void daemon_kill(void);            /* SIGKILL; the keeper starts the next one */
char *daemon_log(void);            /* what it has said so far */
void drop_privilege(void);

/* --- other processes --- */

struct peer {
	pid_t pid;
	int sock;
	bool inside;                   /* this is the peer's own end */
};
typedef void (*peer_body)(struct peer *p, void *arg);
/* Forks; to be called before the library is used. */
struct peer *peer_start(peer_body fn, void *arg);
void peer_tell(struct peer *p, uint64_t value);
uint64_t peer_hear(struct peer *p);
/* tell + hear, for a step that the other makes and confirms. */
uint64_t peer_ask(struct peer *p, uint64_t value);
void peer_join(struct peer *p);    /* must have exited with 0 */
void peer_kill(struct peer *p);    /* SIGKILL, and waits */
int wait_child(pid_t pid);         /* the wait status */
void expect_exit_0(pid_t pid);
/* Zeroed memory that later peers share. */
void *shared_memory(size_t n);

/* --- memory --- */

/* 0, or the signal that the access raised (SIGBUS, SIGSEGV). */
int load_signal(const volatile void *p, uint8_t *ret);
int store_signal(volatile void *p, uint8_t value);
uint8_t load(const volatile void *p);            /* must not fault */
void store(volatile void *p, uint8_t value);
void *map(struct pgc_file *f, size_t len, int prot, int flags, off_t off);  /* pgc_mmap that must succeed */
bool page_in_core(const void *p);
/* mlock(2) and munlock(2) themselves: a sanitizer's run-time library makes the library's functions do nothing. */
void lock_memory(void *p, size_t n);
void unlock_memory(void *p, size_t n);

/* A system call by the instruction itself, which no library sees. Three arguments; -errno. */
static inline long unseen_call(long number, long fd, void *buf, long n)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(number), "D"(fd), "S"(buf), "d"(n) : "rcx", "r11", "memory");
	return r;
}

/* --- data --- */

uint8_t pattern_byte(uint64_t off, unsigned gen);                  /* never 0 */
void pattern_fill(void *buf, size_t n, uint64_t off, unsigned gen);
void pattern_check_at(const char *file, int line, const void *buf, size_t n, uint64_t off, unsigned gen);
#define PATTERN_CHECK(buf, n, off, gen) pattern_check_at(__FILE__, __LINE__, buf, n, off, gen)
void zero_check_at(const char *file, int line, const void *buf, size_t n);
#define ZERO_CHECK(buf, n) zero_check_at(__FILE__, __LINE__, buf, n)

/* --- the store, without pagecached --- */

char *file_path(const char *name);                                 /* DIR/name, kept */
char *make_file(const char *name, size_t size, unsigned gen);      /* DIR/name; a name with a slash is taken as it is */
void store_write(const char *path, const void *buf, size_t n, off_t off);
void store_read(const char *path, void *buf, size_t n, off_t off); /* plain and O_DIRECT read must agree */
bool store_has(const char *path, size_t n, off_t off, unsigned gen);
bool store_has_byte(const char *path, off_t off, uint8_t value);
bool store_is_zero(const char *path, size_t n, off_t off);
off_t store_size(const char *path);
struct pgc_file *open_file(const char *path, int flags);           /* pgc_open that must succeed */
/* A "mem:" file of `size` bytes with pattern `gen`, clean and dropped from the cache: reads go to the store. */
struct pgc_file *open_mem(const char *name, size_t size, unsigned gen);

/* --- the daemon's own view --- */

int control_connect(void);
int control_try(void);                                             /* -1: no daemon answers */
void control_request(struct pgc_msg *m);                           /* must get a reply; its status is left to the caller */
struct pgc_ctl_status_reply status(void);
uint64_t cached_bytes(void);                                       /* charged for what is cached, without the daemon's tables */
/* By path or URI; false when the daemon does not have it. */
bool cached_file(const char *name, struct pgc_ctl_file_reply *ret);
struct pgc_ctl_file_reply file_state(const char *name);            /* all zeros when it does not have it */
unsigned count_files(void);
void inject(const char *uri, enum pgc_inject what, uint64_t value, uint32_t count);
/* As the preload library asks for a size by path; the reply's status, negated. */
int ctl_stat(const char *path, struct pgc_stat_reply *ret);
void drop_clean(void);
int sync_all(void);                                                /* 0 or -errno */
/* Lets the clock that files are stamped with move on. */
void file_clock_tick(void);
/* Where stores are tracked without faults they show in the maps from now on. How many pages are dirty. */
uint64_t look_for_stores(void);

/* --- programs --- */

struct output {
	int code;                      /* exit code, or -signal */
	char *out, *err;
};
struct output run_program(const char *const argv[]);
#define RUN(...) run_program((const char *const[]){__VA_ARGS__, NULL})
void output_free(struct output *o);
const char *pagecachectl(void);
/* stdout of a pagecachectl command that must succeed, parsed. */
json_object *ctl_json(const char *const argv[]);
#define CTL_JSON(...) ctl_json((const char *const[]){pagecachectl(), __VA_ARGS__, NULL})
int64_t json_int(json_object *o, const char *key);
const char *json_string(json_object *o, const char *key);
/* `bpftool -j map dump pinned`: the `value` objects of a map, as an array. */
json_object *bpf_dump(const char *map);
char *read_whole(const char *path);

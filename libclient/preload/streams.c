/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of the C library that take a stream, for two cases only; everything else goes straight on:
 *
 *   a pointer that stands for another stream (stdio.c), because freopen or dup2 put a file of ours in its place
 *   wide characters on a stream of ours, whose kind of stream the C library has for bytes only
 *
 * Wide characters are converted by the locale, one at a time. Formatted wide input is not served on streams of ours (EOF, ENOTSUP).
 */
#include <limits.h>
#include <stdarg.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

#include "streams.h"

/* Defines the function `name` of the C library, whatever the headers make of that name. */
#define FORWARD_AS(type, name, params, args) \
	type forward_##name params __asm__(#name) EXPORT; \
	type forward_##name params { return ((type (*) params)REAL_NAMED(#name)) args; }
#define REAL_NAMED(name) ({ \
	static void *real_; \
	void *found_ = __atomic_load_n(&real_, __ATOMIC_RELAXED); \
	if (unlikely(!found_)) { \
		found_ = real_find(name); \
		__atomic_store_n(&real_, found_, __ATOMIC_RELAXED); \
	} \
	found_; })
#define FORWARD(type, name) FORWARD_AS(type, name, (FILE *f), (at(f)))
#define F2(type, name, t1) FORWARD_AS(type, name, (FILE *f, t1 b), (at(f), b))
#define F3(type, name, t1, t2) FORWARD_AS(type, name, (FILE *f, t1 b, t2 c), (at(f), b, c))
#define L2(type, name, t1) FORWARD_AS(type, name, (t1 a, FILE *f), (a, at(f)))
#define L3(type, name, t1, t2) FORWARD_AS(type, name, (t1 a, t2 b, FILE *f), (a, b, at(f)))
#define L4(type, name, t1, t2, t3) FORWARD_AS(type, name, (t1 a, t2 b, t3 c, FILE *f), (a, b, c, at(f)))
#define L5(type, name, t1, t2, t3, t4) FORWARD_AS(type, name, (t1 a, t2 b, t3 c, t4 d, FILE *f), (a, b, c, d, at(f)))

/* --- state --- */

FORWARD(int, fileno)
FORWARD(int, fileno_unlocked)
FORWARD(int, feof)
FORWARD(int, feof_unlocked)
FORWARD(int, ferror)
FORWARD(int, ferror_unlocked)
FORWARD(void, clearerr)
FORWARD(void, clearerr_unlocked)
FORWARD(int, fflush)
FORWARD(int, fflush_unlocked)
FORWARD(void, flockfile)
FORWARD(int, ftrylockfile)
FORWARD(void, funlockfile)
F2(int, __fsetlocking, int)
F2(void, setbuf, char *)
F3(void, setbuffer, char *, size_t)
FORWARD(void, setlinebuf)
FORWARD_AS(int, setvbuf, (FILE *f, char *b, int c, size_t d), (at(f), b, c, d))
FORWARD(void, __fpurge)
FORWARD(size_t, __fpending)
FORWARD(size_t, __fbufsize)
FORWARD(int, __freading)
FORWARD(int, __fwriting)
FORWARD(int, __freadable)
FORWARD(int, __fwritable)
FORWARD(int, __flbf)

/* --- position --- */

F3(int, fseek, long, int)
F3(int, fseeko, off_t, int)
F3(int, fseeko64, off_t, int)
FORWARD(long, ftell)
FORWARD(off_t, ftello)
FORWARD(off_t, ftello64)
F2(int, fgetpos, fpos_t *)
F2(int, fgetpos64, fpos64_t *)
F2(int, fsetpos, const fpos_t *)
F2(int, fsetpos64, const fpos64_t *)
FORWARD(void, rewind)

/* --- bytes; with the functions that getc_unlocked(3) and the like are compiled to --- */

FORWARD(int, fgetc)
FORWARD(int, fgetc_unlocked)
FORWARD(int, getc)
FORWARD(int, getc_unlocked)
FORWARD(int, _IO_getc)
FORWARD(int, __uflow)
FORWARD(int, __underflow)
F2(int, __overflow, int)
FORWARD(int, getw)
L2(int, fputc, int)
L2(int, fputc_unlocked, int)
L2(int, putc, int)
L2(int, putc_unlocked, int)
L2(int, _IO_putc, int)
L2(int, putw, int)
L2(int, ungetc, int)
L2(int, fputs, const char *)
L2(int, fputs_unlocked, const char *)
L3(char *, fgets, char *, int)
L3(char *, fgets_unlocked, char *, int)
L4(char *, __fgets_chk, char *, size_t, int)
L4(char *, __fgets_unlocked_chk, char *, size_t, int)
L4(size_t, fread, void *, size_t, size_t)
L4(size_t, fread_unlocked, void *, size_t, size_t)
L5(size_t, __fread_chk, void *, size_t, size_t, size_t)
L5(size_t, __fread_unlocked_chk, void *, size_t, size_t, size_t)
L4(size_t, fwrite, const void *, size_t, size_t)
L4(size_t, fwrite_unlocked, const void *, size_t, size_t)
L3(ssize_t, getline, char **, size_t *)
L4(ssize_t, getdelim, char **, size_t *, int)
L4(ssize_t, __getdelim, char **, size_t *, int)

/* --- formatted --- */

F3(int, vfprintf, const char *, va_list)
FORWARD_AS(int, __vfprintf_chk, (FILE *f, int flag, const char *format, va_list ap), (at(f), flag, format, ap))
F3(int, vfscanf, const char *, va_list)
F3(int, __isoc99_vfscanf, const char *, va_list)
F3(int, __isoc23_vfscanf, const char *, va_list)

#define FORMATTED(name, params, call) \
	int forward_##name params __asm__(#name) EXPORT; \
	int forward_##name params \
	{ \
		va_list ap; \
		int r; \
\
		va_start(ap, format); \
		r = call; \
		va_end(ap); \
		return r; \
	}
FORMATTED(fprintf, (FILE *f, const char *format, ...), forward_vfprintf(f, format, ap))
FORMATTED(__fprintf_chk, (FILE *f, int flag, const char *format, ...), forward___vfprintf_chk(f, flag, format, ap))
FORMATTED(fscanf, (FILE *f, const char *format, ...), forward_vfscanf(f, format, ap))
FORMATTED(__isoc99_fscanf, (FILE *f, const char *format, ...), forward___isoc99_vfscanf(f, format, ap))
FORMATTED(__isoc23_fscanf, (FILE *f, const char *format, ...), forward___isoc23_vfscanf(f, format, ap))

/* --- wide characters on bytes --- */

/* With the lock held. Errors of the conversion are those of the stream, with EILSEQ. */
static wint_t put_wide(wchar_t c, FILE *f, struct wide *w)
{
	char bytes[MB_LEN_MAX];
	size_t n = wcrtomb(bytes, c, &w->out);

	w->orientation = 1;
	if (n == (size_t)-1) {
		f->_flags |= _IO_ERR_SEEN;
		return WEOF;
	}
	return REAL(fwrite_unlocked)(bytes, 1, n, f) == n ? (wint_t)c : WEOF;
}

static wint_t get_wide(FILE *f, struct wide *w)
{
	wchar_t c;

	w->orientation = 1;
	for (;;) {
		int byte = REAL(fgetc_unlocked)(f);
		char as_char = (char)byte;

		if (byte == EOF) {
			if (mbsinit(&w->in))
				return WEOF;
			w->in = (mbstate_t){ 0 };
			errno = EILSEQ;
			f->_flags |= _IO_ERR_SEEN;
			return WEOF;
		}
		switch (mbrtowc(&c, &as_char, 1, &w->in)) {
		case (size_t)-2:
			continue;
		case (size_t)-1:
			w->in = (mbstate_t){ 0 };
			f->_flags |= _IO_ERR_SEEN;
			return WEOF;
		default:
			return (wint_t)c;
		}
	}
}

static wint_t unget_wide(wint_t c, FILE *f, struct wide *w)
{
	char bytes[MB_LEN_MAX];
	mbstate_t state = { 0 };
	size_t n = c == WEOF ? (size_t)-1 : wcrtomb(bytes, (wchar_t)c, &state);

	w->orientation = 1;
	if (n == (size_t)-1)
		return WEOF;
	while (n > 0)
		if (REAL(ungetc)((unsigned char)bytes[--n], f) == EOF)
			return WEOF;
	return c;
}

static int put_wide_string(const wchar_t *s, FILE *f, struct wide *w)
{
	for (; *s; s++)
		if (put_wide(*s, f, w) == WEOF)
			return -1;
	return 1;
}

static wchar_t *get_wide_line(wchar_t *s, int n, FILE *f, struct wide *w)
{
	int i = 0;

	while (i < n - 1) {
		wint_t c = get_wide(f, w);

		if (c == WEOF) {
			if (i == 0 || (f->_flags & _IO_ERR_SEEN))
				return NULL;
			break;
		}
		s[i++] = (wchar_t)c;
		if (c == L'\n')
			break;
	}
	if (n > 0)
		s[i] = L'\0';
	return n > 0 ? s : NULL;
}

/* The length is not known beforehand, and vswprintf(3) does not tell it. */
static int print_wide(FILE *f, struct wide *w, const wchar_t *format, va_list ap)
{
	for (size_t room = 1024; room < (64u << 20); room *= 4) {
		wchar_t *text = malloc(room * sizeof(*text));
		va_list again;
		int n;

		if (!text)
			return -1;
		errno = 0;
		va_copy(again, ap);
		n = vswprintf(text, room, format, again);
		va_end(again);
		if (n >= 0 && put_wide_string(text, f, w) < 0)
			n = -1;
		else if (n < 0 && (errno == 0 || errno == EOVERFLOW || errno == E2BIG)) {
			free(text);
			continue;
		}
		free(text);
		return n;
	}
	errno = EOVERFLOW;
	return -1;
}

/* The stream as it is, or its wide form under its lock. */
#define WIDE(f, otherwise, work) ({ \
	FILE *f_ = at(f); \
	struct wide *w_ = stream_wide(f_); \
	__typeof__(otherwise) r_; \
	if (likely(!w_)) { \
		f = f_; \
		r_ = (otherwise); \
	} else { \
		REAL(flockfile)(f_); \
		r_ = (work); \
		REAL(funlockfile)(f_); \
	} \
	r_; })
#define WIDE_AS(type, name, params, args, work) \
	type forward_##name params __asm__(#name) EXPORT; \
	type forward_##name params { return WIDE(f, ((type (*) params)REAL_NAMED(#name)) args, work); }

#define GET(name) WIDE_AS(wint_t, name, (FILE *f), (f), get_wide(f_, w_))
#define PUT(name) WIDE_AS(wint_t, name, (wchar_t c, FILE *f), (c, f), put_wide(c, f_, w_))
#define GET_LINE(name) WIDE_AS(wchar_t *, name, (wchar_t *s, int n, FILE *f), (s, n, f), get_wide_line(s, n, f_, w_))
#define PUT_STRING(name) WIDE_AS(int, name, (const wchar_t *s, FILE *f), (s, f), put_wide_string(s, f_, w_))
GET(fgetwc)
GET(getwc)
GET(fgetwc_unlocked)
GET(getwc_unlocked)
PUT(fputwc)
PUT(putwc)
PUT(fputwc_unlocked)
PUT(putwc_unlocked)
GET_LINE(fgetws)
GET_LINE(fgetws_unlocked)
PUT_STRING(fputws)
PUT_STRING(fputws_unlocked)
WIDE_AS(wint_t, ungetwc, (wint_t c, FILE *f), (c, f), unget_wide(c, f_, w_))

/* Those of stdin and stdout, which the C library would not ask us for. */
#define GET_STD(name, same) \
	wint_t forward_##name(void) __asm__(#name) EXPORT; \
	wint_t forward_##name(void) { return forward_##same(stdin); }
#define PUT_STD(name, same) \
	wint_t forward_##name(wchar_t c) __asm__(#name) EXPORT; \
	wint_t forward_##name(wchar_t c) { return forward_##same(c, stdout); }
GET_STD(getwchar, fgetwc)
GET_STD(getwchar_unlocked, fgetwc_unlocked)
PUT_STD(putwchar, fputwc)
PUT_STD(putwchar_unlocked, fputwc_unlocked)

static wchar_t *line_checked(wchar_t *s, size_t room, int n, FILE *f, struct wide *w)
{
	if (n > 0 && (size_t)n > room)
		abort();
	return get_wide_line(s, n, f, w);
}
WIDE_AS(wchar_t *, __fgetws_chk, (wchar_t *s, size_t room, int n, FILE *f), (s, room, n, f), line_checked(s, room, n, f_, w_))
WIDE_AS(wchar_t *, __fgetws_unlocked_chk, (wchar_t *s, size_t room, int n, FILE *f), (s, room, n, f), line_checked(s, room, n, f_, w_))

static int orient(struct wide *w, int mode)
{
	if (w->orientation == 0 && mode != 0)
		w->orientation = mode > 0 ? 1 : -1;
	return w->orientation;
}
WIDE_AS(int, fwide, (FILE *f, int mode), (f, mode), orient(w_, mode))

WIDE_AS(int, vfwprintf, (FILE *f, const wchar_t *format, va_list ap), (f, format, ap), print_wide(f_, w_, format, ap))
WIDE_AS(int, __vfwprintf_chk, (FILE *f, int flag, const wchar_t *format, va_list ap), (f, flag, format, ap), print_wide(f_, w_, format, ap))

static int not_served(void)
{
	errno = ENOTSUP;
	return EOF;
}
WIDE_AS(int, vfwscanf, (FILE *f, const wchar_t *format, va_list ap), (f, format, ap), not_served())
WIDE_AS(int, __isoc99_vfwscanf, (FILE *f, const wchar_t *format, va_list ap), (f, format, ap), not_served())
WIDE_AS(int, __isoc23_vfwscanf, (FILE *f, const wchar_t *format, va_list ap), (f, format, ap), not_served())

FORMATTED(fwprintf, (FILE *f, const wchar_t *format, ...), forward_vfwprintf(f, format, ap))
FORMATTED(wprintf, (const wchar_t *format, ...), forward_vfwprintf(stdout, format, ap))
FORMATTED(__fwprintf_chk, (FILE *f, int flag, const wchar_t *format, ...), forward___vfwprintf_chk(f, flag, format, ap))
FORMATTED(__wprintf_chk, (int flag, const wchar_t *format, ...), forward___vfwprintf_chk(stdout, flag, format, ap))
FORMATTED(fwscanf, (FILE *f, const wchar_t *format, ...), forward_vfwscanf(f, format, ap))
FORMATTED(__isoc99_fwscanf, (FILE *f, const wchar_t *format, ...), forward___isoc99_vfwscanf(f, format, ap))
FORMATTED(__isoc23_fwscanf, (FILE *f, const wchar_t *format, ...), forward___isoc23_vfwscanf(f, format, ap))

#define TO_STDOUT(name, params, call) \
	int forward_##name params __asm__(#name) EXPORT; \
	int forward_##name params { return call; }
TO_STDOUT(vwprintf, (const wchar_t *format, va_list ap), forward_vfwprintf(stdout, format, ap))
TO_STDOUT(__vwprintf_chk, (int flag, const wchar_t *format, va_list ap), forward___vfwprintf_chk(stdout, flag, format, ap))

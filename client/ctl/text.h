/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/text.h - text that came from a broker, made fit for a terminal and for JSON.
 *
 * Names and reasons are other programs' words: a control character in them could write to the
 * terminal of whoever lists them, and bytes that are not UTF-8 make invalid JSON.
 */
#ifndef VCHAN_CLIENT_CTL_TEXT_H
#define VCHAN_CLIENT_CTL_TEXT_H

#include <stddef.h>

/* In place: ends the text inside its `bytes` bytes; each control character and each byte that is
 * not UTF-8 becomes '?'. */
void text_clean(char *text, size_t bytes);

/* The same, but line feeds stay. */
void text_clean_lines(char *text, size_t bytes);

/* How many columns a clean text takes: its characters, each taken to be one column wide. */
size_t text_columns(const char *text);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/text.h"

#include <stdbool.h>
#include <stdint.h>

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0u) == 0x80u;
}

/* Length of the UTF-8 sequence at text, which ends with a NUL; 0: it is none (overlong, surrogate,
 * cut off). */
static size_t sequence_length(const char *text)
{
    unsigned char first = (unsigned char)text[0], second;
    size_t length = first < 0x80   ? 1
                    : first < 0xc2 ? 0
                    : first < 0xe0 ? 2
                    : first < 0xf0 ? 3
                    : first < 0xf5 ? 4
                                   : 0;

    for (size_t i = 1; i < length; i++)
        if (!is_continuation(text[i]))
            return 0;
    second = length > 1 ? (unsigned char)text[1] : 0;
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
        return 0;
    return length;
}

/* C0, DEL and, as two bytes, C1: 0xc2 0x80 to 0xc2 0x9f. */
static bool is_control(const char *text)
{
    unsigned char first = (unsigned char)text[0];

    return first < 0x20 || first == 0x7f || (first == 0xc2 && (unsigned char)text[1] < 0xa0);
}

static void clean(char *text, size_t bytes, bool lines)
{
    text[bytes - 1] = '\0';
    while (*text) {
        size_t length = sequence_length(text);
        if (length == 0 || (is_control(text) && !(lines && *text == '\n'))) {
            *text++ = '?';
            continue;
        }
        text += length;
    }
}

void text_clean(char *text, size_t bytes)
{
    clean(text, bytes, false);
}

void text_clean_lines(char *text, size_t bytes)
{
    clean(text, bytes, true);
}

size_t text_columns(const char *text)
{
    size_t columns = 0;

    for (; *text; text++)
        if (!is_continuation(*text))
            columns++;
    return columns;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/json.h - JSON values to be written. The only place that knows json-c is json.c.
 *
 * A value that is set into an object or pushed onto an array belongs to it from then on. Texts must
 * be clean (text.h). Where memory is short a value is NULL, which every function takes; json_write
 * says so.
 */
#ifndef VCHAN_CLIENT_CTL_JSON_H
#define VCHAN_CLIENT_CTL_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json;

struct json *json_new_object(void);
struct json *json_new_array(void);

void json_set(struct json *object, const char *key, struct json *value);
void json_push(struct json *array, struct json *value);

void json_set_text(struct json *object, const char *key, const char *text);
void json_set_number(struct json *object, const char *key, uint64_t number);
void json_set_signed(struct json *object, const char *key, int64_t number);
void json_set_boolean(struct json *object, const char *key, bool value);
void json_set_null(struct json *object, const char *key);

/* Writes value and a newline, indented or on one line, and frees it. 0 or -ENOMEM. */
int json_write(struct json *value, FILE *stream, bool indented);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/json.h"

#include <errno.h>
#include <json-c/json.h>

static struct json_object *inside(struct json *value)
{
    return (struct json_object *)value;
}

static struct json *outside(struct json_object *value)
{
    return (struct json *)value;
}

struct json *json_new_object(void)
{
    return outside(json_object_new_object());
}

struct json *json_new_array(void)
{
    return outside(json_object_new_array());
}

static void set(struct json *object, const char *key, struct json_object *value)
{
    if (!object || json_object_object_add(inside(object), key, value) < 0)
        json_object_put(value);
}

void json_set(struct json *object, const char *key, struct json *value)
{
    set(object, key, inside(value));
}

void json_push(struct json *array, struct json *value)
{
    if (!array || json_object_array_add(inside(array), inside(value)) < 0)
        json_object_put(inside(value));
}

void json_set_text(struct json *object, const char *key, const char *text)
{
    set(object, key, json_object_new_string(text));
}

void json_set_number(struct json *object, const char *key, uint64_t number)
{
    set(object, key, json_object_new_uint64(number));
}

void json_set_signed(struct json *object, const char *key, int64_t number)
{
    set(object, key, json_object_new_int64(number));
}

void json_set_boolean(struct json *object, const char *key, bool value)
{
    set(object, key, json_object_new_boolean(value));
}

void json_set_null(struct json *object, const char *key)
{
    set(object, key, NULL);
}

int json_write(struct json *value, FILE *stream, bool indented)
{
    int style = JSON_C_TO_STRING_NOSLASHESCAPE |
                (indented ? JSON_C_TO_STRING_PRETTY : JSON_C_TO_STRING_PLAIN);
    const char *text = value ? json_object_to_json_string_ext(inside(value), style) : NULL;

    if (text)
        fprintf(stream, "%s\n", text);
    json_object_put(inside(value));
    return text ? 0 : -ENOMEM;
}

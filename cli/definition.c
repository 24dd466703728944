/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/definition.c - the first line of an export: what the collection is
 *
 *     {"vecdb":"collection","version":1,"name":"notes","fields":[
 *        {"name":"text","dimension":384,"type":"f32","metric":"cosine","index":"auto","compression":"auto"}]}
 *
 * (on one line), and in the lines that go with a file of vectors also "rows":"text", the field whose
 * vectors are the rows of that file. With it an import makes the same collection without options.
 * Lines behind it are records of the exact form, and of no other:
 *
 *     {"key":7,"vectors":{"text":[0.25,-1]},"metadata":{"year": 2024},"text":"..."}
 *
 * A record without metadata, or without text, lacks the member. "metadata_json" stands in place of
 * "metadata" where a line could not hold the object as it was stored, between line ends or spaces: a
 * text with the object in it. "row":null: this record has no row in the file of vectors.
 *
 * Invariants:
 *   1. What is not known here is refused, not left out: a member of a later version may be what makes
 *      the collection what it is.
 *   2. Files without this line import as before; only a first line whose "vecdb" is "collection" is one.
 *
 * Rejected: the definition in a file of its own (it gets lost), and comments (no JSON).
 */
#include "input.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "values.h"

#define DEFINITION_VERSION 1
#define NAMES_LIMIT 8 /* more than any of the enumerations has */

/* ---------------------------------------------------------------- writing */

void definition_put(FILE *out, const char *name, const struct cli_fields *fields, const char *rows)
{
    fprintf(out, "{\"vecdb\":\"collection\",\"version\":%d,\"name\":", DEFINITION_VERSION);
    json_put_string(out, name);
    if (rows) {
        fputs(",\"rows\":", out);
        json_put_string(out, rows);
    }
    fputs(",\"fields\":[", out);
    for (size_t i = 0; i < fields->n_fields; i++) {
        const vecdb_field *field = &fields->fields[i].field;
        fputs(i ? ",{\"name\":" : "{\"name\":", out);
        json_put_string(out, field->name);
        fprintf(out, ",\"dimension\":%u,\"type\":\"%s\",\"metric\":\"%s\",\"index\":\"%s\",\"compression\":\"%s\"}",
                field->dimension, type_name(field->type), metric_name(field->metric), index_name(field->index),
                compression_name(field->compression));
    }
    fputs("]}\n", out);
}

bool definition_is_same(const struct cli_fields *a, const struct cli_fields *b)
{
    if (a->n_fields != b->n_fields)
        return false;
    for (size_t i = 0; i < a->n_fields; i++) {
        const vecdb_field *x = &a->fields[i].field, *y = &b->fields[i].field;
        if (strcmp(x->name, y->name) || x->dimension != y->dimension || x->type != y->type || x->metric != y->metric ||
            x->index != y->index || x->compression != y->compression)
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------- reading */

/* A member whose value is one of the names that `name_of` gives to `low`, `low` + 1, ... */
static int take_name(const char *where, const json_t *object, const char *member, const char *(*name_of)(int), int low,
                     int *value, vecdb_error *err)
{
    const char *text = json_string_value(json_object_get(object, member));
    if (!text)
        return cli_fail(err, VECDB_INVALID, "%s: a field has no \"%s\"", where, member);
    for (*value = low; *value < low + NAMES_LIMIT; ++*value) {
        if (!strcmp(name_of(*value), text) && strcmp(text, "unknown"))
            return VECDB_OK;
    }
    return cli_fail(err, VECDB_NEWER, "%s: this version knows no %s \"%.40s\"", where, member, text);
}

/* Are the members of `object` those of `names`, in any order, and no others? */
static int check_members(const char *where, json_t *object, const char *const *names, vecdb_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        const char *const *known = names;
        while (*known && strcmp(*known, name))
            known++;
        if (!*known)
            return cli_fail(err, VECDB_NEWER, "%s has a member \"%.60s\", which this version does not know", where,
                            name);
    }
    return VECDB_OK;
}

static int take_field(const char *where, json_t *object, vecdb_field *field, vecdb_error *err)
{
    static const char *const names[] = {"name", "dimension", "type", "metric", "index", "compression", NULL};
    if (!json_is_object(object))
        return cli_fail(err, VECDB_INVALID, "%s: a field is no object", where);
    int status = check_members(where, object, names, err);
    const json_t *name = json_object_get(object, "name"), *dimension = json_object_get(object, "dimension");
    if (!status && !json_is_string(name))
        status = cli_fail(err, VECDB_INVALID, "%s: a field has no \"name\"", where);
    json_int_t value = json_integer_value(dimension);
    if (!status && (!json_is_integer(dimension) || value < 1 || value > VECDB_MAX_DIMENSION))
        status = cli_fail(err, VECDB_INVALID, "%s: the \"dimension\" of a field is no number from 1 to %d", where,
                          VECDB_MAX_DIMENSION);
    if (!status)
        status = take_name(where, object, "type", type_name, VECDB_F32, &field->type, err);
    if (!status)
        status = take_name(where, object, "metric", metric_name, VECDB_L2, &field->metric, err);
    if (!status)
        status = take_name(where, object, "index", index_name, VECDB_INDEX_AUTO, &field->index, err);
    if (!status)
        status =
            take_name(where, object, "compression", compression_name, VECDB_COMPRESSION_AUTO, &field->compression, err);
    if (status)
        return status;
    field->dimension = (uint32_t)value;
    field->name = cli_copy(json_string_value(name), json_string_length(name));
    return VECDB_OK;
}

static int take_definition(const char *where, json_t *object, struct definition *definition, vecdb_error *err)
{
    static const char *const names[] = {"vecdb", "version", "name", "rows", "fields", NULL};
    const json_t *version = json_object_get(object, "version"), *rows = json_object_get(object, "rows");
    json_t *fields = json_object_get(object, "fields");
    if (!json_is_integer(version) || json_integer_value(version) < 1)
        return cli_fail(err, VECDB_INVALID, "%s has no \"version\"", where);
    if (json_integer_value(version) > DEFINITION_VERSION)
        return cli_fail(err, VECDB_NEWER, "%s is of version %lld; this program reads up to %d", where,
                        (long long)json_integer_value(version), DEFINITION_VERSION);
    int status = check_members(where, object, names, err);
    if (status)
        return status;
    if (!json_is_array(fields) || (rows && !json_is_string(rows)))
        return cli_fail(err, VECDB_INVALID, "%s has no array of \"fields\", or \"rows\" is no text", where);
    definition->fields = cli_alloc_array(json_array_size(fields) + 1, sizeof *definition->fields);
    for (size_t i = 0; i < json_array_size(fields); i++) {
        vecdb_field *field = &definition->fields[i];
        *field = (vecdb_field){.name = NULL};
        if ((status = take_field(where, json_array_get(fields, i), field, err)))
            return status;
        definition->n_fields++;
        if (rows && !strcmp(json_string_value(rows), field->name))
            definition->rows = field;
    }
    if (rows && !definition->rows)
        return cli_fail(err, VECDB_INVALID, "%s: \"rows\" names no field", where);
    return VECDB_OK;
}

int definition_parse(const char *file, const char *line, size_t length, struct definition **out, vecdb_error *err)
{
    char where[200];
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
    const char *what = json_string_value(json_object_get(object, "vecdb"));
    int status = VECDB_OK;
    if (what && !strcmp(what, "collection")) {
        struct definition *definition = cli_alloc(sizeof *definition);
        *definition = (struct definition){.n_fields = 0};
        snprintf(where, sizeof where, "%.120s: the definition of the collection", file);
        status = take_definition(where, object, definition, err);
        if (status)
            definition_free(definition);
        else
            *out = definition;
    }
    json_decref(object);
    return status;
}

void definition_free(struct definition *definition)
{
    if (!definition)
        return;
    for (size_t i = 0; i < definition->n_fields; i++)
        free((char *)(uintptr_t)definition->fields[i].name);
    free(definition->fields);
    free(definition);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/database.c - opening what the options name, and knowing its fields
 *
 * Commands that only read open the database read-only, so that they work on a read-only file
 * system and cannot do harm.
 */
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "progress.h"

void cli_fill_options(const struct options *options, int mode, vecdb_options *how)
{
    *how = (vecdb_options){.size = sizeof *how,
                           .mode = mode,
                           .durability = (int)options->durability,
                           .io = (int)options->io,
                           .threads = (int)options->threads,
                           .memory_bytes = options->memory_bytes,
                           .index_memory_bytes = options->index_memory_bytes,
                           .snapshot = options->snapshot};
    if (options->busy_timeout_ms == 0)
        how->busy_timeout_ms = VECDB_NO_WAIT;
    else if (options->busy_timeout_ms != OPTION_UNSET)
        how->busy_timeout_ms = (int)options->busy_timeout_ms;
}

int cli_open(const struct options *options, int mode, vecdb **db, vecdb_error *err)
{
    vecdb_options how;
    cli_fill_options(options, mode, &how);
    return vecdb_open(options->arguments[0], &how, db, err);
}

int cli_open_collection(const struct options *options, int mode, vecdb **db, vecdb_collection **collection,
                        vecdb_error *err)
{
    int status = cli_open(options, mode, db, err);
    if (status)
        return status;
    status = vecdb_collection_open(*db, options->arguments[1], collection, err);
    if (status) {
        vecdb_close(*db);
        *db = NULL;
    }
    return status;
}

static int show_building(void *context, const vecdb_progress *progress)
{
    progress_show(context, progress->done, progress->total);
    return cli_interrupted != 0;
}

int cli_wait_index(vecdb_collection *collection, const char *field, bool quiet, vecdb_error *err)
{
    struct progress progress;
    vecdb_work work = {.size = sizeof work, .progress = show_building, .progress_context = &progress};
    progress_begin(&progress, "index", "vectors", quiet);
    int status = vecdb_index_wait(collection, field, 0, &work, err);
    progress_end(&progress);
    return status;
}

int cli_try_index(vecdb_collection *collection, const char *field, bool quiet, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    int status = cli_wait_index(collection, field, quiet, &own);
    if (status == VECDB_NOMEM) {
        cli_say("%s", own.message);
        status = VECDB_OK;
    } else if (status) {
        *err = own;
    }
    return status;
}

/* A wait of a millisecond reads the file, and leaves what the file lacks. */
void cli_load_index(vecdb_collection *collection, const char *field)
{
    vecdb_index_info info = {.size = sizeof info};
    if (!vecdb_index_describe(collection, field, &info, NULL) && info.wanted == VECDB_INDEX_HNSW &&
        info.kind == VECDB_INDEX_FLAT && info.file_bytes)
        vecdb_index_wait(collection, field, 1, NULL, NULL);
}

double cli_index_coverage(vecdb_collection *collection, const char *field)
{
    vecdb_index_info info = {.size = sizeof info};
    if (vecdb_index_describe(collection, field, &info, NULL) || !info.n_vectors)
        return 1;
    return (double)info.n_indexed / (double)info.n_vectors;
}

static int copy_fields(void *context, const vecdb_collection_info *info)
{
    struct cli_fields *fields = context;
    fields->n_records = info->n_records;
    fields->n_fields = info->n_fields;
    fields->fields = cli_alloc_array(info->n_fields + 1, sizeof *fields->fields);
    for (size_t i = 0; i < info->n_fields; i++) {
        fields->fields[i] = info->fields[i];
        fields->fields[i].field.name = cli_copy(info->fields[i].field.name, strlen(info->fields[i].field.name));
    }
    return 0;
}

int cli_fields_read(vecdb_collection *collection, struct cli_fields *fields, vecdb_error *err)
{
    memset(fields, 0, sizeof *fields);
    return vecdb_collection_describe(collection, copy_fields, fields, err);
}

void cli_fields_release(struct cli_fields *fields)
{
    for (size_t i = 0; i < fields->n_fields; i++)
        free((char *)(uintptr_t)fields->fields[i].field.name);
    free(fields->fields);
    memset(fields, 0, sizeof *fields);
}

int cli_fields_find(const struct cli_fields *fields, const char *collection, const char *name,
                    const vecdb_field_info **field, vecdb_error *err)
{
    char list[200];
    size_t used = 0;
    list[0] = 0;
    for (size_t i = 0; i < fields->n_fields; i++) {
        if (!name || !strcmp(fields->fields[i].field.name, name)) {
            *field = &fields->fields[i];
            return VECDB_OK;
        }
        int n = snprintf(list + used, sizeof list - used, "%s\"%.60s\"", i ? ", " : "", fields->fields[i].field.name);
        if (n > 0 && (size_t)n < sizeof list - used)
            used += (size_t)n;
    }
    if (!fields->n_fields)
        return cli_fail(err, VECDB_INVALID, "collection \"%.80s\" has no vector fields", collection);
    return cli_fail(err, VECDB_INVALID, "collection \"%.80s\" has no field \"%.80s\"; it has %s", collection, name,
                    list);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/read.c - get and scan
 *
 * A get answers from one read transaction and the view of its state. A scan keeps both from its
 * opening to its end, so that all of it is of one state; meanwhile the catalog's log cannot be cut
 * short, which is why a scan should be closed when it is done.
 */
#include "database.h"

#include <stdio.h>

#include "results.h"
#include "validate.h"

#define SCAN_BATCH_ROWS 256
#define SCAN_MAX_BATCH_ROWS 65536

struct target {
    vecdb_results *results;
    size_t n; /* items filled */
    vecdb_error *err;
};

static int fill_next(void *context, const struct vdb_record_row *row)
{
    struct target *target = context;
    return vdb_results_fill(target->results, &target->results->items[target->n++], row, target->err);
}

static int fill_this(void *context, const struct vdb_record_row *row)
{
    struct target *target = context;
    return vdb_results_fill(target->results, &target->results->items[target->n], row, target->err);
}

static int get_all(uint64_t store, struct vdb_connection *c, const vecdb_key *keys, size_t n_keys,
                   int columns, vecdb_results *results, vecdb_error *err)
{
    struct target target = {results, 0, err};
    for (size_t i = 0; i < n_keys; i++) {
        vecdb_key key;
        char where[64];
        snprintf(where, sizeof where, "key %zu", i);
        int status = vdb_check_key(where, &keys[i], &key, err);
        target.n = i;
        if (!status)
            status = vdb_records_read_key(c, store, &key, columns, fill_this, &target, err);
        struct vdb_item *item = &results->items[i];
        if (!status && !item->found && key.text) { /* the answer names what was asked for */
            char *text = vdb_arena_text(&results->arena, key.text, key.length);
            if (!text)
                return vdb_fail_memory(err, key.length);
            item->key = (vecdb_key){.text = text, .length = key.length};
        } else if (!status && !item->found) {
            item->key = key;
        }
        if (status)
            return status;
    }
    return VECDB_OK;
}

int vecdb_get(vecdb_collection *collection, const vecdb_key *keys, size_t n_keys, int columns, vecdb_results **out,
              vecdb_error *err)
{
    if (!collection || !out || (n_keys && !keys))
        return vdb_fail(err, VECDB_MISUSE, "the collection handle, the keys or the place for the results is NULL");
    vecdb *db = collection->db;
    int status = vdb_database_check(db, err);
    if (status || (status = vdb_check_columns(columns, &columns, err)))
        return status;
    struct vdb_view *view;
    struct vdb_connection *c;
    uint64_t sequence;
    if ((status = vdb_view_acquire(collection, &view, &c, &sequence, err)))
        return status;
    vecdb_results *results = NULL;
    status = vdb_results_new(&db->memory, n_keys, 1, &results, err);
    if (!status) {
        results->first[1] = n_keys;
        results->stats.sequence = sequence;
        status = get_all(view->row.store, c, keys, n_keys, columns, results, err);
    }
    if (!status && columns & VECDB_VECTORS)
        status = vdb_results_fetch_vectors(results, view, err);
    vdb_read_end(c);
    vdb_view_release(view);
    if (status)
        vecdb_results_free(results);
    else
        *out = results;
    return status;
}

/* ------------------------------------------------------------------ scan */

struct vecdb_scan {
    vecdb_collection *collection;
    struct vdb_view *view;
    struct vdb_connection *c;
    uint64_t sequence;
    int columns;
    uint64_t left;
    size_t batch_rows;
    bool has_after;
    vecdb_key after; /* text owned */
    char *after_text;
};

static int set_after(struct vecdb_scan *scan, const vecdb_key *key, vecdb_error *err)
{
    struct vdb_memory *memory = &scan->collection->db->memory;
    char *text = NULL;
    if (key->text && !(text = vdb_strdup(memory, key->text, key->length)))
        return vdb_fail_memory(err, key->length);
    vdb_free(memory, scan->after_text);
    scan->after_text = text;
    scan->after = (vecdb_key){.text = text, .length = key->text ? key->length : 0, .integer = key->integer};
    scan->has_after = true;
    return VECDB_OK;
}

int vecdb_scan_open(vecdb_collection *collection, const vecdb_scan_options *options, vecdb_scan **out, vecdb_error *err)
{
    if (!collection || !out)
        return vdb_fail(err, VECDB_MISUSE, "the collection handle, or the place for the scan, is NULL");
    vecdb_scan_options own;
    int columns, status = VDB_STRUCT_COPY(&own, options, vecdb_scan_options, batch_rows, err);
    if (status || (status = vdb_database_check(collection->db, err)) ||
        (status = vdb_check_columns(own.columns, &columns, err)))
        return status;
    struct vdb_memory *memory = &collection->db->memory;
    struct vecdb_scan *scan = vdb_alloc_zero(memory, sizeof *scan);
    if (!scan)
        return vdb_fail_memory(err, sizeof *scan);
    scan->collection = collection;
    scan->columns = columns;
    scan->left = own.limit ? own.limit : UINT64_MAX;
    scan->batch_rows = own.batch_rows ? own.batch_rows : SCAN_BATCH_ROWS;
    if (scan->batch_rows > SCAN_MAX_BATCH_ROWS)
        scan->batch_rows = SCAN_MAX_BATCH_ROWS;
    if (own.after) {
        vecdb_key key;
        status = vdb_check_key("the key to begin behind", own.after, &key, err);
        if (!status)
            status = set_after(scan, &key, err);
    }
    if (!status)
        status = vdb_view_acquire(collection, &scan->view, &scan->c, &scan->sequence, err);
    if (status)
        vecdb_scan_close(scan);
    else
        *out = scan;
    return status;
}

int vecdb_scan_next(vecdb_scan *scan, vecdb_results **out, vecdb_error *err)
{
    if (!scan || !out)
        return vdb_fail(err, VECDB_MISUSE, "the scan, or the place for the results, is NULL");
    vecdb_collection *collection = scan->collection;
    int status = vdb_database_check(collection->db, err);
    if (status)
        return status;
    size_t n = scan->left < scan->batch_rows ? (size_t)scan->left : scan->batch_rows;
    vecdb_results *results;
    if ((status = vdb_results_new(&collection->db->memory, n, 1, &results, err)))
        return status;
    struct target target = {results, 0, err};
    if (n)
        status = vdb_records_scan(scan->c, scan->view->row.store, scan->has_after ? &scan->after : NULL, scan->columns,
                                  n, fill_next, &target, err);
    results->n_items = results->first[1] = target.n;
    results->stats.sequence = scan->sequence;
    if (!status && scan->columns & VECDB_VECTORS)
        status = vdb_results_fetch_vectors(results, scan->view, err);
    if (!status && target.n)
        status = set_after(scan, &results->items[target.n - 1].key, err);
    if (status) {
        vecdb_results_free(results);
        return status;
    }
    scan->left -= target.n;
    *out = results;
    return VECDB_OK;
}

void vecdb_scan_close(vecdb_scan *scan)
{
    if (!scan)
        return;
    struct vdb_memory *memory = &scan->collection->db->memory;
    if (scan->c && !vdb_database_check(scan->collection->db, NULL))
        vdb_read_end(scan->c);
    vdb_view_release(scan->view);
    vdb_free(memory, scan->after_text);
    vdb_free(memory, scan);
}

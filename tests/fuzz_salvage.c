/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: whatever the bytes of a catalog, its log and a vector file are, salvage reads nothing outside of
 * them and comes to an end.
 *
 * Input: a byte of flags (1: read past breaks of the log, 2: stamps of the main file are made good again after the
 * edits, 4: without the log), then edits, {file u8, offset u24, value u8}, of a good database that is made first,
 * in a directory that is removed at once. A value is put there, or, for file numbers from 128 on, eight bytes that
 * begin with it.
 */
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "fault_tools.h"
#include "hostile.h"
#include "storage/salvage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The harness is not linked into fuzz targets. */
void test_fail(const char *file, int line, const char *format, ...)
{
    fprintf(stderr, "%s:%d: the good database cannot be made: %s\n", file, line, format);
    abort();
}

static void fill(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    static char text[9000];
    const vecdb_field field = {.name = "v", .dimension = 4};
    vecdb_collection *notes, *gone;
    CHECK_OK(err, vecdb_collection_create(db, "notes", &field, 1, VECDB_IF_MISSING, &notes, &err));
    CHECK_OK(err, vecdb_collection_create(db, "gone", NULL, 0, VECDB_IF_MISSING, &gone, &err));
    memset(text, 't', sizeof text - 1);
    for (int i = 0; i < 60; i++) {
        float vector[4] = {1, (float)i, 3, 4};
        vecdb_record record = {.key = vecdb_key_int(i),
                               .vector = vector,
                               .metadata = "{\"a\": 1}",
                               .text = text + (i % 20 == 0 ? 0 : 8700)};
        CHECK_OK(err, vecdb_put(notes, &record, 1, &err));
    }
    CHECK_OK(err, vecdb_collection_drop(db, "gone", &err));
}

static const struct kept_files *good_files(void)
{
    static struct kept_files kept;
    if (kept.n)
        return &kept;
    const char *path = hostile_directory();
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_database(path, VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    fill(db);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    vecdb_close(db);
    db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    fill(db);
    keep_files(path, &kept);
    vecdb_close(db);
    remove_database(path);
    return &kept;
}

/* ------------------------------------------------------------------ reading all there is */

static volatile uint64_t sum;

static int look_at_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    (void)context, (void)err;
    for (uint32_t i = 0; i < row->n_values; i++) {
        const struct vdb_value *value = &row->values[i];
        bool has_bytes = value->kind == VDB_VALUE_TEXT || value->kind == VDB_VALUE_BLOB;
        for (size_t k = 0; has_bytes && k < value->n_bytes; k++)
            sum += value->bytes[k];
    }
    return VECDB_OK;
}

static void ignore(void *context, const char *file, const char *message)
{
    (void)context, (void)file, (void)message;
}

struct extents {
    struct vdb_salvage_extent all[4];
    size_t n;
};

/* Rows of `extents` as they are, nonsense included. */
static int note_extent(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    (void)err;
    struct extents *extents = context;
    if (row->n_values < 10 || extents->n == 4)
        return VECDB_OK;
    const struct vdb_value *v = row->values;
    extents->all[extents->n++] = (struct vdb_salvage_extent){
        .generation = (uint64_t)v[2].integer,
        .ref = {(uint64_t)v[3].integer, (uint64_t)v[4].integer, (uint64_t)v[5].integer, (uint64_t)v[6].integer,
                (uint32_t)v[7].integer, (uint32_t)v[8].integer, (uint32_t)v[9].integer & 0xffffu}};
    return VECDB_OK;
}

static void read_vectors(const struct vdb_salvage_options *options, const struct extents *extents, bool is_complete)
{
    struct vdb_salvage_field field = {1, 1, VECDB_F32, 4};
    struct vdb_salvage_vectors *vectors;
    struct vdb_slots *slots = vdb_slots_new();
    if (!vdb_salvage_vectors_open(options, NULL, &field, extents->all, extents->n, is_complete, ignore, NULL, &vectors,
                                  NULL)) {
        for (uint32_t slot = 0; slot < 130; slot++) {
            const void *vector;
            bool is_lost;
            if (!vdb_salvage_vector(vectors, slot, &vector, &is_lost, NULL) && vector)
                sum += *(const unsigned char *)vector;
        }
        vdb_salvage_vectors_slots(vectors, slots, NULL);
        vdb_salvage_vectors_close(vectors);
    }
    vdb_slots_free(slots);
}

static void read_all(const struct vdb_salvage_options *options)
{
    struct vdb_salvage *salvage;
    struct extents extents = {.n = 0};
    struct vdb_salvage_file *files;
    size_t n_files;
    if (vdb_salvage_open(options, &salvage, NULL))
        return;
    for (size_t i = 0; i < vdb_salvage_n_tables(salvage); i++) {
        const struct vdb_salvage_table *table = vdb_salvage_table(salvage, i);
        struct vdb_salvage_lookup *lookup;
        vdb_salvage_rows(salvage, table, look_at_row, NULL, NULL);
        if (table->kind == VDB_TABLE_EXTENTS)
            vdb_salvage_rows(salvage, table, note_extent, &extents, NULL);
        if (table->is_index || vdb_salvage_lookup_new(salvage, table, &lookup, NULL))
            continue;
        for (uint64_t rowid = 0; rowid < 40; rowid++)
            vdb_salvage_lookup_row(lookup, rowid, look_at_row, NULL, NULL);
        vdb_salvage_lookup_free(lookup);
    }
    vdb_salvage_close(salvage);
    if (!vdb_salvage_files(options, NULL, &files, &n_files, NULL))
        vdb_free(options->memory, files);
    read_vectors(options, &extents, true);
    read_vectors(options, &extents, false);
}

/* ------------------------------------------------------------------ the database of an input */

static void edit(struct kept_files *files, const uint8_t *edits, size_t n_edits)
{
    for (; n_edits >= 5; edits += 5, n_edits -= 5) {
        struct kept_file *file = &files->files[edits[0] % 128 % files->n];
        size_t at = vdb_load_u32(edits) >> 8, n = edits[0] < 128 ? 1 : 8;
        for (size_t i = 0; i < n && file->n_bytes; i++)
            file->bytes[(at + i) % file->n_bytes] = (unsigned char)(edits[4] + i * edits[4]);
    }
}

static void stamp(struct kept_file *file)
{
    for (size_t page = 0; (page + 1) * VDB_SALVAGE_PAGE <= file->n_bytes; page++) {
        unsigned char *bytes = file->bytes + page * VDB_SALVAGE_PAGE;
        vdb_store_u64(bytes + VDB_SALVAGE_PAGE - 8,
                      XXH3_64bits_withSeed(bytes, VDB_SALVAGE_PAGE - 8, (uint64_t)page + 1));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct kept_files *good = good_files();
    if (size < 1 || size > 4096)
        return 0;
    struct vdb_memory memory;
    struct vdb_vfs *vfs;
    struct kept_files own = *good;
    vdb_memory_init(&memory, NULL);
    if (vdb_vfs_memory(&memory, &vfs, NULL))
        return 0;
    for (size_t i = 0; i < good->n; i++) {
        own.files[i].bytes = vdb_alloc(&memory, good->files[i].n_bytes + 1);
        memcpy(own.files[i].bytes, good->files[i].bytes, good->files[i].n_bytes);
    }
    edit(&own, data + 1, size - 1);
    for (size_t i = 0; i < own.n; i++) {
        struct vdb_file *file;
        char path[128];
        if (!strcmp(own.files[i].name, "catalog.sqlite") && (data[0] & 2))
            stamp(&own.files[i]);
        snprintf(path, sizeof path, "d/%s", own.files[i].name);
        bool is_left_out = (data[0] & 4) && strstr(path, "-wal");
        if (!is_left_out && !vfs->open(vfs, path, VDB_FILE_CREATE, &file, NULL)) {
            vfs->write(file, 0, own.files[i].bytes, own.files[i].n_bytes, NULL);
            vfs->close(file);
        }
        vdb_free(&memory, own.files[i].bytes);
    }
    struct vdb_salvage_options options = {.memory = &memory, .vfs = vfs, .directory = "d", .past_breaks = data[0] & 1};
    read_all(&options);
    vfs->end(vfs);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/index_files.c - graphs kept in files (index.h; bytes in FORMAT.md, "Index files")
 *
 *     publish   frame behind what counts, or a new file -> synced -> a commit names it -> other files of it removed
 *     load      row of the catalog -> heads -> base -> deltas -> graph
 *
 * An index file can be lost at any moment: nothing here is truth, a search never fails because of it, and what
 * cannot be loaded is built again from the vectors.
 *
 * Invariants
 *   1. Bytes that a committed row may count are never written over: a delta goes behind them, with the row read
 *      under the builder's lock. After a failure (a sync's too) the next publication makes a new file.
 *   2. A file is named after its bytes are on stable storage.
 *   3. A file is removed when no power cut can bring back a row that names it: a check would miss it, and the index
 *      would have to be built again.
 *   4. Backups and snapshots name no index files, and have none.
 *
 * Costs: a base is all of the graph (some 200 bytes a vector at 128 dimensions); a delta what changed, where one
 * new vector changes some forty rows of 132 bytes. Bases are written when deltas together exceed half of one.
 */
#include "check.h"

#include <stdio.h>

#include "base/names.h"
#include "storage/catalog_indexes.h"

static char *index_path(vecdb *db, uint64_t field, uint64_t generation)
{
    size_t room = strlen(db->path) + 64;
    char *path = vdb_alloc(&db->memory, room);
    if (path)
        snprintf(path, room, "%s/index-%llu-%llu", db->is_memory ? "" : db->path, (unsigned long long)field,
                 (unsigned long long)generation);
    return path;
}

static void fill_id(vecdb *db, const struct vdb_index_named *named, struct vdb_index_file_id *id)
{
    memcpy(id->uuid, vdb_catalog_uuid(db->catalog), sizeof id->uuid);
    id->field = named->field;
    id->generation = named->generation;
    id->store = named->store;
}

/* ------------------------------------------------------------------ finding */

struct find {
    uint64_t field;
    struct vdb_index_named *named;
    bool found;
};

static void take_row(const struct vdb_index_row *row, struct vdb_index_named *named)
{
    vecdb_error ignored;
    *named = (struct vdb_index_named){.field = row->field,
                                      .store = row->store,
                                      .generation = row->generation,
                                      .extent = {row->bytes, row->check},
                                      .end_slot = row->end_slot};
    named->has_curve = row->calibration &&
                       !vdb_calibration_read(row->calibration, row->n_calibration, &named->curve, &ignored);
}

static int look_at_row(void *context, const struct vdb_index_row *row)
{
    struct find *find = context;
    if (row->field == find->field && row->kind == VDB_INDEX_KIND_GRAPH) {
        take_row(row, find->named);
        find->found = true;
    }
    return VECDB_OK;
}

int vdb_index_files_find(vecdb *db, uint64_t field, struct vdb_index_named *named, bool *found, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    struct find find = {.field = field, .named = named};
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_index_row_each(c, look_at_row, &find, err);
    vdb_read_end(c);
    *found = !status && find.found;
    return status;
}

/* ------------------------------------------------------------------ loading */

/* How many nodes the graph has after its last delta. 0: there is none. */
static int count_nodes(struct vdb_memory *memory, const struct vdb_index_file *file, uint32_t *n_nodes,
                       vecdb_error *err)
{
    size_t last = vdb_index_file_count(file) - 1;
    void *bytes;
    *n_nodes = 0;
    if (!last)
        return VECDB_OK;
    int status = vdb_index_file_read(file, last, &bytes, err);
    if (status)
        return status;
    status = vdb_graph_delta_nodes(bytes, vdb_index_file_frame(file, last)->n_bytes, n_nodes, err);
    vdb_free_aligned(memory, bytes);
    return status;
}

static int load_frame(const struct vdb_index_file *file, size_t i, const struct vdb_graph_options *options,
                      uint32_t capacity, struct vdb_graph **graph, vecdb_error *err)
{
    const struct vdb_index_frame *frame = vdb_index_file_frame(file, i);
    void *bytes;
    int status;
    if (frame->kind != (i ? VDB_INDEX_DELTA : VDB_INDEX_BASE))
        return vdb_fail(err, VECDB_CORRUPT, "an index file does not begin with a base, or goes on with one");
    if ((status = vdb_index_file_read(file, i, &bytes, err)))
        return status;
    if (i)
        status = vdb_graph_load_delta(*graph, bytes, frame->n_bytes, err);
    else
        status = vdb_graph_load_base(options, bytes, frame->n_bytes, capacity, graph, err);
    vdb_free_aligned(options->memory, bytes);
    return status;
}

/* FULL: the upper layers, whose sizes are chance, need more room. */
static int load_frames(const struct vdb_index_file *file, const struct vdb_graph_options *options, uint32_t capacity,
                       struct vdb_graph **out, vecdb_error *err)
{
    struct vdb_graph *graph = NULL;
    int status = VECDB_OK;
    for (size_t i = 0; i < vdb_index_file_count(file) && !status; i++)
        status = load_frame(file, i, options, capacity, &graph, err);
    if (status)
        vdb_graph_release(graph);
    else
        *out = graph;
    return status;
}

static int load_file(struct vdb_file *file, const struct vdb_index_file_id *id, const struct vdb_index_named *named,
                     const struct vdb_graph_options *options, struct vdb_graph **graph, vecdb_error *err)
{
    struct vdb_index_file *frames;
    uint32_t n_nodes = 0;
    int status = vdb_index_file_open(file, id, &named->extent, &frames, err);
    if (status)
        return status;
    size_t n = vdb_index_file_count(frames);
    uint64_t least = n ? vdb_index_file_frame(frames, 0)->n_bytes : 0; /* a graph holds more than its base has */
    if (least > vdb_graph_budget_left(options->budget)) {
        options->budget->refused = least;
        status = vdb_fail(err, VECDB_NOMEM, "%s has %llu bytes, which do not fit index_memory_bytes",
                          vdb_path_tail(file->path), (unsigned long long)least);
    } else if (!n)
        status = vdb_fail(err, VECDB_CORRUPT, "%s has no base", vdb_path_tail(file->path));
    else if (vdb_index_file_frame(frames, n - 1)->end_slot != named->end_slot)
        status = vdb_fail(err, VECDB_CORRUPT, "%s ends at another slot than the catalog says",
                          vdb_path_tail(file->path));
    else
        status = count_nodes(options->memory, frames, &n_nodes, err);
    if (!status) {
        status = VECDB_FULL;
        for (int attempt = 0; attempt < 8 && status == VECDB_FULL; attempt++) {
            uint64_t capacity = n_nodes ? (uint64_t)n_nodes + (n_nodes >> (attempt < 3 ? 3 - attempt : 0)) + 1024 : 0;
            for (int i = 3; i < attempt; i++)
                capacity *= 2;
            status = load_frames(frames, options, capacity < INT32_MAX ? (uint32_t)capacity : INT32_MAX, graph, err);
        }
        if (status == VECDB_FULL)
            status = vdb_fail(err, VECDB_CORRUPT, "%s: its layers do not fit its nodes", vdb_path_tail(file->path));
    }
    vdb_index_file_close(frames);
    if (!status && vdb_graph_end(*graph) != named->end_slot) {
        vdb_graph_release(*graph);
        status = vdb_fail(err, VECDB_CORRUPT, "%s covers other slots than it says", vdb_path_tail(file->path));
    }
    return status;
}

int vdb_index_files_load(vecdb *db, const struct vdb_index_named *named, const struct vdb_graph_options *options,
                         struct vdb_graph **graph, vecdb_error *err)
{
    struct vdb_index_file_id id;
    struct vdb_file *file;
    char *path = index_path(db, named->field, named->generation);
    if (!path)
        return vdb_fail_memory(err, 64);
    fill_id(db, named, &id);
    int status = db->vfs->open(db->vfs, path, VDB_FILE_READ, &file, err);
    vdb_free(&db->memory, path);
    if (status)
        return status;
    status = load_file(file, &id, named, options, graph, err);
    db->vfs->close(file);
    return status;
}

/* ------------------------------------------------------------------ removing */

struct sweep {
    vecdb *db;
    uint64_t *named; /* pairs (field, generation) */
    size_t n_named;
    bool is_settled;
    int status;
};

static int note_row(void *context, const struct vdb_index_row *row)
{
    struct sweep *sweep = context;
    uint64_t *named = vdb_realloc_array(&sweep->db->memory, sweep->named, sweep->n_named + 1, 2 * sizeof *named);
    if (!named)
        return sweep->status = VECDB_NOMEM;
    sweep->named = named;
    named[2 * sweep->n_named] = row->field;
    named[2 * sweep->n_named++ + 1] = row->generation;
    return VECDB_OK;
}

static bool remove_unnamed(void *context, const char *name)
{
    struct sweep *sweep = context;
    vecdb *db = sweep->db;
    uint64_t numbers[2];
    vecdb_error ignored;
    if (!vdb_name_numbers(name, "index-", numbers, 2))
        return true;
    for (size_t i = 0; i < sweep->n_named; i++)
        if (sweep->named[2 * i] == numbers[0] && sweep->named[2 * i + 1] == numbers[1])
            return true;
    sweep->is_settled = sweep->is_settled || vdb_append_settle(db);
    if (!sweep->is_settled)
        return false; /* a later sweep will */
    char *path = index_path(db, numbers[0], numbers[1]);
    if (path)
        db->vfs->remove(db->vfs, path, &ignored);
    vdb_free(&db->memory, path);
    return true;
}

/* With the builder's lock: nobody else makes index files meanwhile. */
static void sweep_files(vecdb *db)
{
    struct vdb_connection *c;
    uint64_t sequence;
    struct sweep sweep = {.db = db};
    vecdb_error ignored;
    if (vdb_read_begin(db->catalog, &c, &sequence, NULL))
        return;
    int status = vdb_index_row_each(c, note_row, &sweep, NULL);
    vdb_read_end(c);
    if (!status)
        db->vfs->list(db->vfs, db->path, remove_unnamed, &sweep, &ignored);
    vdb_free(&db->memory, sweep.named);
}

void vdb_index_files_sweep(vecdb *db)
{
    if (db->is_memory || db->is_readonly || !vdb_state_try_builder(db->state))
        return;
    sweep_files(db);
    vdb_state_release_builder(db->state);
}

/* ------------------------------------------------------------------ publishing */

struct output {
    struct vdb_graph *graph;
    bool is_base;
    struct vdb_stop *stop;
    vdb_index_write_fn write;
    void *writer;
};

static int pass_on(void *context, const void *bytes, size_t n, vecdb_error *err)
{
    struct output *output = context;
    int status = vdb_stop_check(output->stop, err);
    return status ? status : output->write(output->writer, bytes, n, err);
}

static int produce(void *context, vdb_index_write_fn write, void *writer, vecdb_error *err)
{
    struct output *output = context;
    output->write = write;
    output->writer = writer;
    return output->is_base ? vdb_graph_save_base(output->graph, pass_on, output, err)
                           : vdb_graph_save_delta(output->graph, pass_on, output, err);
}

/* A new file, whose name nobody has. */
static int create_file(vecdb *db, struct vdb_index_named *now, struct vdb_file **file, vecdb_error *err)
{
    for (int attempt = 0; attempt < 1000; attempt++) {
        struct vdb_index_file_id id;
        now->generation++;
        char *path = index_path(db, now->field, now->generation);
        if (!path)
            return vdb_fail_memory(err, 64);
        int status = db->vfs->open(db->vfs, path, VDB_FILE_CREATE, file, err);
        vdb_free(&db->memory, path);
        if (status == VECDB_EXISTS)
            continue;
        if (status)
            return status;
        fill_id(db, now, &id);
        if ((status = vdb_index_file_begin(*file, &id, &now->extent, err))) {
            db->vfs->close(*file);
            *file = NULL;
        }
        return status;
    }
    return vdb_fail(err, VECDB_EXISTS, "%s: a thousand names of index files are taken; files were put there that do "
                    "not belong to the database", db->path);
}

/* The file to go on with, if it is still as long as the catalog says. */
static bool open_file(vecdb *db, const struct vdb_index_named *named, struct vdb_file **file)
{
    char *path = index_path(db, named->field, named->generation);
    vecdb_error ignored;
    uint64_t size = 0;
    int status = path ? db->vfs->open(db->vfs, path, VDB_FILE_WRITE, file, &ignored) : VECDB_NOMEM;
    vdb_free(&db->memory, path);
    if (status)
        return false;
    if (!db->vfs->size(*file, &size, &ignored) && size >= named->extent.n_bytes)
        return true;
    db->vfs->close(*file);
    *file = NULL;
    return false;
}

struct naming {
    const struct vdb_index_publish *publish;
    const struct vdb_index_named *now;
};

struct field_search {
    uint64_t field;
    bool found;
};

static int look_at_field(void *context, const struct vdb_field_row *row)
{
    struct field_search *search = context;
    search->found |= row->id == search->field;
    return VECDB_OK;
}

static int apply_naming(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    const struct naming *naming = context;
    const struct vdb_index_named *now = naming->now;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row collection;
    struct field_search search = {.field = now->field};
    unsigned char calibration[VDB_CALIBRATION_BYTES];
    bool found = false;
    int status = vdb_collection_read(c, naming->publish->collection, &collection, &found, err);
    if (!status && found)
        status = vdb_field_each(c, collection.id, look_at_field, &search, err);
    if (status)
        return status;
    if (!found || !search.found || collection.store != now->store)
        return vdb_fail(err, VECDB_NOT_FOUND, "the field of the index has gone");
    struct vdb_index_row row = {.field = now->field,
                                .store = now->store,
                                .kind = VDB_INDEX_KIND_GRAPH,
                                .generation = now->generation,
                                .end_slot = now->end_slot,
                                .bytes = now->extent.n_bytes,
                                .check = now->extent.check};
    if (now->has_curve) {
        row.calibration = calibration;
        row.n_calibration = vdb_calibration_write(&now->curve, calibration);
    }
    return vdb_index_row_set(c, &row, err);
}

static int write_and_name(vecdb *db, const struct vdb_index_publish *publish, bool is_base, struct vdb_file *file,
                          struct vdb_index_named *now, vecdb_error *err)
{
    struct vdb_graph *graph = publish->graph;
    struct output output = {.graph = graph, .is_base = is_base, .stop = publish->stop};
    struct vdb_index_frame frame = {.kind = is_base ? VDB_INDEX_BASE : VDB_INDEX_DELTA,
                                    .end_slot = vdb_graph_end(graph),
                                    .n_bytes = is_base ? vdb_graph_base_bytes(graph) : vdb_graph_delta_bytes(graph)};
    struct naming naming = {publish, now};
    now->end_slot = frame.end_slot;
    int status = vdb_index_file_append(file, &frame, produce, &output, &now->extent, err);
    if (!status)
        status = db->vfs->sync(file, err);
    if (!status && is_base)
        status = db->vfs->sync_directory(db->vfs, db->path, err);
    return status ? status : vdb_commit(db, apply_naming, &naming, err);
}

int vdb_index_files_publish(vecdb *db, const struct vdb_index_publish *publish, struct vdb_index_named *now,
                            vecdb_error *err)
{
    const struct vdb_index_named *named = publish->named;
    struct vdb_graph *graph = publish->graph;
    struct vdb_file *file = NULL;
    *now = (struct vdb_index_named){.field = publish->field, .store = publish->store};
    bool is_base = true;
    if (named && publish->is_saved && named->store == publish->store) {
        uint64_t base = vdb_graph_base_bytes(graph);
        is_base = named->extent.n_bytes + vdb_graph_delta_bytes(graph) > base + base / 2 ||
                  !open_file(db, named, &file);
    }
    if (!is_base)
        *now = *named;
    now->has_curve = publish->curve;
    if (publish->curve)
        now->curve = *publish->curve;
    int status = VECDB_OK;
    if (is_base) {
        now->generation = named ? named->generation : 0;
        status = create_file(db, now, &file, err);
    }
    if (!status)
        status = write_and_name(db, publish, is_base, file, now, err);
    db->vfs->close(file);
    if (!status)
        vdb_graph_saved(graph);
    sweep_files(db);
    return status;
}

/* ------------------------------------------------------------------ checking */

struct checking {
    struct vdb_check *check;
    struct vdb_index_named *named;
    size_t n;
    vecdb_error *err;
};

static int list_row(void *context, const struct vdb_index_row *row)
{
    struct checking *checking = context;
    struct vdb_index_named *named =
        vdb_realloc_array(&checking->check->db->memory, checking->named, checking->n + 1, sizeof *named);
    if (!named)
        return vdb_fail_memory(checking->err, sizeof *named);
    checking->named = named;
    if (row->kind == VDB_INDEX_KIND_GRAPH)
        take_row(row, &named[checking->n++]);
    return VECDB_OK;
}

static int list_rows(struct checking *checking, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    int status = vdb_read_begin(checking->check->db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_index_row_each(c, list_row, checking, err);
    vdb_read_end(c);
    return status;
}

/* Every byte that counts. */
static int read_all(vecdb *db, const struct vdb_index_named *named, vecdb_error *err)
{
    struct vdb_index_file_id id;
    struct vdb_index_file *frames;
    struct vdb_file *file;
    char *path = index_path(db, named->field, named->generation);
    if (!path)
        return vdb_fail_memory(err, 64);
    fill_id(db, named, &id);
    int status = db->vfs->open(db->vfs, path, VDB_FILE_SCAN, &file, err);
    vdb_free(&db->memory, path);
    if (status)
        return status;
    status = vdb_index_file_open(file, &id, &named->extent, &frames, err);
    if (!status) {
        for (size_t i = 0; !status && i < vdb_index_file_count(frames); i++) {
            void *bytes;
            if (!(status = vdb_index_file_read(frames, i, &bytes, err)))
                vdb_free_aligned(&db->memory, bytes);
        }
        vdb_index_file_close(frames);
    }
    db->vfs->close(file);
    return status;
}

/* Has another publication taken its place since the row was read? */
static bool is_still_named(vecdb *db, const struct vdb_index_named *named)
{
    struct vdb_index_named now;
    bool found = false;
    return !vdb_index_files_find(db, named->field, &now, &found, NULL) && found &&
           now.generation == named->generation;
}

int vdb_index_files_check(struct vdb_check *check, vecdb_error *err)
{
    struct checking checking = {.check = check, .err = err};
    int status = list_rows(&checking, err);
    if (vdb_check_is_finding(status)) /* a damaged catalog has been told of */
        status = VECDB_OK;
    for (size_t i = 0; i < checking.n && !status; i++) {
        vecdb_error own = VECDB_ERROR_INIT;
        const struct vdb_index_named *named = &checking.named[i];
        status = read_all(check->db, named, &own);
        if (status == VECDB_NOMEM && err)
            *err = own;
        if ((vdb_check_is_finding(status) || status == VECDB_NOT_FOUND) && is_still_named(check->db, named)) {
            char name[64];
            snprintf(name, sizeof name, "index-%llu-%llu", (unsigned long long)named->field,
                     (unsigned long long)named->generation);
            vdb_check_tell(check, name, NULL,
                           "the index cannot be used: %s; nothing is lost, searches go on without it until it is built "
                           "anew", own.message);
        }
        if (status != VECDB_NOMEM)
            status = vdb_check_step(check, err);
    }
    vdb_free(&check->db->memory, checking.named);
    return status;
}

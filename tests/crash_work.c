/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_work.c - a workload that is recorded (see crash_work.h)
 *
 * Two handles of one process take turns, as two processes would. An operation changes the model
 * `next` as the database is to change, does it, and says how it came out. To add one: a function and a line in
 * `operations`. It must take all its choices from world->random, and nothing from clocks, so that a seed
 * gives the same journal again.
 */
#include "crash_work.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "crash_recorder.h"
#include "lib/database.h"

#define N_KEYS 1200
#define MOST_BACKUPS 2
#define SKIPPED (-1) /* there is nothing to do this to */

char crash_where[512] = "in the beginning";

struct world {
    const struct crash_plan *plan;
    struct crash_history *history;
    char root[400], path[420];
    struct vdb_random random;
    vecdb *db[2];
    int turn; /* whose operation it is */
    struct crash_model *model, *next;
    struct crash_step *step;
    size_t n_steps;
    struct {
        char path[460];
        struct crash_model *model; /* of a step: what it holds */
    } backups[MOST_BACKUPS];
    size_t n_backups;
    vecdb_scan *scan; /* of handle 0, held open: a reader that keeps checkpoints from ending */
    unsigned scan_steps;
};

static uint64_t below(struct world *world, uint64_t n)
{
    return vdb_random_below(&world->random, n);
}

static bool chance(struct world *world, unsigned percent)
{
    return below(world, 100) < percent;
}

/* ------------------------------------------------------------------ handles */

static int open_handle(struct world *world, int turn, vecdb_error *err)
{
    vecdb_options options = {.size = sizeof options,
                             .durability = world->plan->durability[turn],
                             .io = world->plan->io,
                             .threads = VECDB_THREADS_NONE};
    return world->db[turn] ? VECDB_OK : vecdb_open(world->path, &options, &world->db[turn], err);
}

static void end_scan(struct world *world)
{
    vecdb_scan_close(world->scan);
    world->scan = NULL;
}

static void close_handle(struct world *world, int turn)
{
    if (!turn && world->scan)
        end_scan(world);
    vecdb_close(world->db[turn]);
    world->db[turn] = NULL;
}

/* A table that there is, and its collection; NULL: there is none, or it cannot be had (*status). */
static struct crash_table *pick(struct world *world, vecdb_collection **collection, int *status, vecdb_error *err)
{
    struct crash_model *model = world->next;
    *status = SKIPPED;
    if (!model->n_tables)
        return NULL;
    struct crash_table *table = &model->tables[below(world, model->n_tables)];
    *status = vecdb_collection_open(world->db[world->turn], table->name, collection, err);
    return *status ? NULL : table;
}

static void new_name(struct world *world, const char *what, char name[CRASH_NAME_BYTES])
{
    snprintf(name, CRASH_NAME_BYTES, "%s %u", what, ++world->next->n_names);
}

/* ------------------------------------------------------------------ operations: collections and fields */

static void new_field(struct world *world, struct crash_table *table, struct crash_field *field)
{
    static const struct crash_field kinds[] = {
        {.dimension = 64, .type = VECDB_F32, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_NONE},
        {.dimension = 64, .type = VECDB_F32, .metric = VECDB_COSINE, .index = VECDB_INDEX_HNSW},
        {.dimension = 48, .type = VECDB_F32, .metric = VECDB_IP, .compression = VECDB_COMPRESSION_MAX},
        {.dimension = 256, .type = VECDB_U8, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_AUTO},
        {.dimension = 128, .type = VECDB_BIT, .metric = VECDB_HAMMING, .index = VECDB_INDEX_HNSW},
        {.dimension = 16, .type = VECDB_U8, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW},
    };
    *field = kinds[below(world, sizeof kinds / sizeof *kinds)];
    if (world->plan->has_graphs && chance(world, 80))
        field->index = VECDB_INDEX_HNSW;
    new_name(world, "field", field->name);
    field->serial = table->n_serials++;
}

static vecdb_field as_field(const struct crash_field *field)
{
    return (vecdb_field){.name = field->name,
                         .dimension = field->dimension,
                         .type = field->type,
                         .metric = field->metric,
                         .compression = field->compression,
                         .index = field->index};
}

static int create_collection(struct world *world, vecdb_error *err)
{
    struct crash_model *model = world->next;
    if (model->n_tables == CRASH_MOST_TABLES)
        return SKIPPED;
    struct crash_table *table = &model->tables[model->n_tables++];
    vecdb_field fields[CRASH_MOST_FIELDS];
    memset(table, 0, sizeof *table);
    new_name(world, "collection", table->name);
    table->n_fields = (uint32_t)below(world, 8) ? 1 + (uint32_t)below(world, 2) : 0;
    for (uint32_t f = 0; f < table->n_fields; f++) {
        new_field(world, table, &table->fields[f]);
        fields[f] = as_field(&table->fields[f]);
    }
    return vecdb_collection_create(world->db[world->turn], table->name, fields, table->n_fields, VECDB_MUST_BE_NEW,
                                   NULL, err);
}

static int drop_collection(struct world *world, vecdb_error *err)
{
    struct crash_model *model = world->next;
    if (model->n_tables < 2)
        return SKIPPED;
    struct crash_table *table = &model->tables[below(world, model->n_tables)];
    char name[CRASH_NAME_BYTES];
    memcpy(name, table->name, sizeof name);
    *table = model->tables[--model->n_tables];
    return vecdb_collection_drop(world->db[world->turn], name, err);
}

static int rename_collection(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    char old[CRASH_NAME_BYTES];
    if (!table)
        return status;
    memcpy(old, table->name, sizeof old);
    new_name(world, "renamed", table->name);
    return vecdb_collection_rename(world->db[world->turn], old, table->name, err);
}

static int add_field(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    if (!table)
        return status;
    if (table->n_fields == CRASH_MOST_FIELDS || table->n_serials == CRASH_MOST_SERIALS)
        return SKIPPED;
    struct crash_field *field = &table->fields[table->n_fields++];
    new_field(world, table, field);
    vecdb_field given = as_field(field);
    return vecdb_field_add(collection, &given, err);
}

static int drop_field(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    if (!table)
        return status;
    if (table->n_fields < 2)
        return SKIPPED;
    uint32_t f = (uint32_t)below(world, table->n_fields);
    struct crash_field field = table->fields[f];
    memmove(&table->fields[f], &table->fields[f + 1], (--table->n_fields - f) * sizeof field);
    for (uint32_t i = 0; i < table->n_rows; i++)
        table->rows[i].vectors &= ~(1u << field.serial);
    return vecdb_field_drop(collection, field.name, err);
}

static int rename_field(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    if (!table)
        return status;
    if (!table->n_fields)
        return SKIPPED;
    struct crash_field *field = &table->fields[below(world, table->n_fields)];
    char old[CRASH_NAME_BYTES];
    memcpy(old, field->name, sizeof old);
    new_name(world, "renamed field", field->name);
    return vecdb_field_rename(collection, old, field->name, err);
}

static int set_index(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    if (!table)
        return status;
    if (!table->n_fields)
        return SKIPPED;
    struct crash_field *field = &table->fields[below(world, table->n_fields)];
    field->index = field->index == VECDB_INDEX_HNSW ? VECDB_INDEX_FLAT : VECDB_INDEX_HNSW;
    return vecdb_field_set_index(collection, field->name, field->index, err);
}

/* ------------------------------------------------------------------ operations: records */

/* Give rows a version, vectors in most fields, and to the library. */
static int put_rows(struct world *world, struct crash_table *table, vecdb_collection *collection, const int64_t *keys,
                    const bool *is_text, size_t n, bool is_insert, vecdb_error *err)
{
    struct crash_words *words = crash_new(n, sizeof *words);
    vecdb_record *records = crash_new(n, sizeof *records);
    size_t n_rows = 0;
    for (; n_rows < n; n_rows++) {
        struct crash_row *row = crash_model_put(table, keys[n_rows], is_text[n_rows]);
        if (!row)
            break; /* full */
        row->version = ++world->next->n_versions;
        row->is_fat = world->plan->is_fat && n < 4 && chance(world, 60);
        for (uint32_t f = 0; f < table->n_fields; f++)
            if (chance(world, 90))
                row->vectors |= 1u << table->fields[f].serial;
        crash_row_spell(table, row, &words[n_rows], &records[n_rows]);
    }
    int status = !n_rows     ? SKIPPED
                 : is_insert ? vecdb_insert(collection, records, n_rows, err)
                             : vecdb_put(collection, records, n_rows, err);
    for (size_t i = 0; i < n_rows; i++)
        crash_words_release(&words[i]);
    crash_free(words);
    crash_free(records);
    return status;
}

static int put_few(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    int64_t keys[12];
    bool is_text[12];
    if (!table)
        return status;
    size_t n = 1 + (size_t)below(world, chance(world, 50) ? 1 : 12);
    for (size_t i = 0; i < n; i++) {
        keys[i] = (int64_t)below(world, world->plan->is_fat && n < 4 ? 5 : N_KEYS);
        is_text[i] = chance(world, 30);
    }
    return put_rows(world, table, collection, keys, is_text, n, false, err);
}

/* More than 128 KiB of vectors: they go into an extent at once. Or as many as are worth a graph. */
static int put_bulk(struct world *world, vecdb_error *err)
{
    enum { MOST = 1180 };
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    static int64_t keys[MOST];
    static bool is_text[MOST];
    if (!table)
        return status;
    size_t n = (chance(world, world->plan->has_graphs ? 80 : 20) ? MOST : 620) - (size_t)below(world, 40);
    int64_t first = (int64_t)below(world, N_KEYS - n);
    for (size_t i = 0; i < n; i++) {
        keys[i] = first + (int64_t)i;
        is_text[i] = false;
    }
    return put_rows(world, table, collection, keys, is_text, n, false, err);
}

static int insert(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    int64_t keys[8];
    bool is_text[8];
    size_t n = 0;
    if (!table)
        return status;
    int64_t key = (int64_t)below(world, N_KEYS);
    for (unsigned tries = 0; tries < 20 && n < 8; tries++, key++)
        if (!crash_model_find(table, key, tries % 2)) {
            is_text[n] = tries % 2;
            keys[n++] = key;
        }
    return n ? put_rows(world, table, collection, keys, is_text, n, true, err) : SKIPPED;
}

/* It fails, as it has to, and changes nothing. */
static int insert_what_is_there(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    if (!table)
        return status;
    if (!table->n_rows)
        return SKIPPED;
    struct crash_row row = table->rows[below(world, table->n_rows)];
    struct crash_words words;
    vecdb_record record;
    crash_row_spell(table, &row, &words, &record);
    status = vecdb_insert(collection, &record, 1, err);
    crash_words_release(&words);
    if (!status)
        CRASH_FAIL("a record was inserted twice into \"%s\"", table->name);
    return status == VECDB_EXISTS ? VECDB_OK : status;
}

static int delete (struct world *world, vecdb_error *err)
{
    enum { MOST = 400 };
    int status;
    vecdb_collection *collection;
    struct crash_table *table = pick(world, &collection, &status, err);
    vecdb_key keys[MOST];
    static char texts[MOST][32];
    if (!table)
        return status;
    if (!table->n_rows)
        return SKIPPED;
    size_t n = (size_t)below(world, chance(world, 70) ? 12 : MOST) + 1;
    for (size_t i = 0; i < n && table->n_rows; i++) {
        struct crash_row *row = &table->rows[below(world, table->n_rows)];
        snprintf(texts[i], sizeof texts[i], "key %lld", (long long)row->key);
        keys[i] = row->is_text ? vecdb_key_text(texts[i]) : vecdb_key_int(row->key);
        crash_model_remove(table, row);
        if (!table->n_rows)
            n = i + 1;
    }
    return vecdb_delete(collection, keys, n, NULL, err);
}

/* ------------------------------------------------------------------ operations: the whole database */

static int compact(struct world *world, vecdb_error *err)
{
    return vecdb_compact(world->db[world->turn], NULL, err);
}

/* Closing makes a checkpoint. */
static int reopen(struct world *world, vecdb_error *err)
{
    close_handle(world, world->turn);
    return open_handle(world, world->turn, err);
}

static int close_one(struct world *world, vecdb_error *err)
{
    (void)err;
    close_handle(world, !world->turn);
    return VECDB_OK;
}

static int back_up(struct world *world, vecdb_error *err)
{
    char *path = world->backups[world->n_backups % MOST_BACKUPS].path;
    vecdb_backup_options options = {.size = sizeof options, .link = (int)below(world, 2)};
    if (world->n_backups == MOST_BACKUPS)
        return SKIPPED;
    snprintf(world->step->backup, CRASH_NAME_BYTES, "backup-%u-%zu", world->plan->number, world->n_steps);
    snprintf(path, sizeof world->backups[0].path, "%s/%s", world->root, world->step->backup);
    int status = vecdb_backup(world->db[world->turn], path, &options, err);
    if (!status) {
        struct crash_model *model = crash_model_copy(world->next);
        model->n_snapshots = 0;
        world->backups[world->n_backups++].model = model;
    }
    return status;
}

/* Whoever restores is alone. */
static int restore(struct world *world, vecdb_error *err)
{
    vecdb_backup_options options = {.size = sizeof options, .link = (int)below(world, 2)};
    if (!world->n_backups || world->plan->n_failing_syncs)
        return SKIPPED;
    size_t which = (size_t)below(world, world->n_backups);
    uint32_t n_names = world->next->n_names, n_versions = world->next->n_versions;
    crash_model_free(world->next);
    world->next = crash_model_copy(world->backups[which].model);
    world->next->n_names = n_names;
    world->next->n_versions = n_versions;
    close_handle(world, 0);
    close_handle(world, 1);
    world->step->is_restore = true;
    return vecdb_restore(world->backups[which].path, world->path, &options, err);
}

static int create_snapshot(struct world *world, vecdb_error *err)
{
    struct crash_model *model = world->next;
    if (model->n_snapshots == CRASH_MOST_SNAPSHOTS)
        return SKIPPED;
    struct crash_snapshot *snapshot = &model->snapshots[model->n_snapshots++];
    new_name(world, "snapshot", snapshot->name);
    snapshot->digest = crash_model_data_digest(model);
    return vecdb_snapshot_create(world->db[world->turn], snapshot->name, err);
}

static int drop_snapshot(struct world *world, vecdb_error *err)
{
    struct crash_model *model = world->next;
    if (!model->n_snapshots)
        return SKIPPED;
    struct crash_snapshot *snapshot = &model->snapshots[below(world, model->n_snapshots)];
    char name[CRASH_NAME_BYTES];
    memcpy(name, snapshot->name, sizeof name);
    *snapshot = model->snapshots[--model->n_snapshots];
    return vecdb_snapshot_drop(world->db[world->turn], name, err);
}

/* Something happens to the number of a collection's next slot. */
static int move_slots(struct world *world, const char *sql, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    struct vdb_connection *c;
    uint64_t sequence;
    if (!pick(world, &collection, &status, err))
        return status;
    if ((status = vdb_write_begin(collection->db->catalog, &c, &sequence, err)))
        return status;
    struct vdb_change change = {.sequence = sequence, .collection = collection->id, .kind = VDB_CHANGE_SCHEMA};
    status = vdb_execute(c, sql, collection->id, err);
    if (!status)
        status = vdb_changes_add(c, &change, err);
    if (status)
        vdb_write_rollback(c);
    else
        status = vdb_write_commit(c, err);
    return status;
}

/* As if a collection had given out most of its slots: it gets a new store, then or at the next chance. */
static int use_up_slots(struct world *world, vecdb_error *err)
{
    return move_slots(world, "UPDATE collections SET next_slot = max(next_slot, 4000000000) WHERE id = %llu", err);
}

/* As if so many records had come and gone that a delta is worth while. */
static int pass_slots(struct world *world, vecdb_error *err)
{
    return move_slots(world, "UPDATE collections SET next_slot = next_slot + 1000 WHERE id = %llu", err);
}

/* Publishes what has been built, if that is enough. */
static int wait_for_index(struct world *world, vecdb_error *err)
{
    int status;
    vecdb_collection *collection;
    if (!pick(world, &collection, &status, err))
        return status;
    return vecdb_index_wait(collection, NULL, 0, NULL, err);
}

static int hold_a_scan(struct world *world, vecdb_error *err)
{
    vecdb_scan_options options = {.size = sizeof options, .batch_rows = 10};
    int status;
    vecdb_collection *collection;
    world->turn = 0;
    if (world->scan)
        return SKIPPED;
    if ((status = open_handle(world, 0, err)))
        return status;
    if (!pick(world, &collection, &status, err))
        return status;
    world->scan_steps = 1 + (unsigned)below(world, 6);
    return vecdb_scan_open(collection, &options, &world->scan, err);
}

/* ------------------------------------------------------------------ all of them */

static const struct operation {
    const char *name;
    unsigned weight;
    int (*run)(struct world *world, vecdb_error *err);
} operations[] = {
    {"put a few", 34, put_few},
    {"put many", 7, put_bulk},
    {"insert", 6, insert},
    {"insert what is there", 2, insert_what_is_there},
    {"delete", 10, delete},
    {"create a collection", 4, create_collection},
    {"drop a collection", 3, drop_collection},
    {"rename a collection", 3, rename_collection},
    {"add a field", 4, add_field},
    {"drop a field", 3, drop_field},
    {"rename a field", 3, rename_field},
    {"compact", 7, compact},
    {"reopen", 5, reopen},
    {"close the other handle", 3, close_one},
    {"hold a scan", 2, hold_a_scan},
    {"back up", 2, back_up},
    {"restore", 1, restore},
    {"create a snapshot", 3, create_snapshot},
    {"drop a snapshot", 2, drop_snapshot},
    {"use up slots", 2, use_up_slots},
    {"pass slots", 4, pass_slots},
    {"set an index", 3, set_index},
    {"wait for the index", 14, wait_for_index},
};

#define N_OPERATIONS (sizeof operations / sizeof *operations)

static const struct operation *choose(struct world *world)
{
    unsigned total = 0;
    if (!world->model->n_tables)
        return &operations[5];
    if (world->plan->has_graphs && world->n_steps == 2)
        return &operations[1];
    for (size_t i = 0; i < N_OPERATIONS; i++)
        total += operations[i].weight;
    uint64_t dice = below(world, total);
    for (size_t i = 0;; i++) {
        if (dice < operations[i].weight)
            return &operations[i];
        dice -= operations[i].weight;
    }
}

/* ------------------------------------------------------------------ steps */

static struct crash_step *add_step(struct crash_history *history)
{
    history->steps = crash_grow(history->steps, history->n_steps, &history->capacity, sizeof *history->steps);
    struct crash_step *step = &history->steps[history->n_steps++];
    memset(step, 0, sizeof *step);
    return step;
}

static void check_live(struct world *world, int turn, const char *when)
{
    uint64_t expected = crash_model_data_digest(world->model);
    if (world->db[turn] && crash_database_digest(world->db[turn], 0) != expected)
        CRASH_FAIL("handle %d does not show what was acknowledged, %s", turn, when);
}

static void run_step(struct world *world, const struct operation *operation)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct crash_step *step = world->step = add_step(world->history);
    unsigned n_failed = crash_record_failed_syncs();
    uint64_t digest = crash_model_digest(world->model);
    world->turn = (int)below(world, 2);
    world->next = crash_model_copy(world->model);
    world->n_steps++;
    crash_record_look();
    step->operation = operation->name;
    step->first_event = world->history->journal.n_events;
    snprintf(crash_where, sizeof crash_where, "step %zu, %s", world->history->n_steps, operation->name);
    int status = open_handle(world, world->turn, &err);
    if (!status)
        status = operation->run(world, &err);
    if (status == SKIPPED) {
        crash_model_free(world->next);
        world->next = crash_model_copy(world->model);
        status = VECDB_OK;
    }
    crash_record_look();
    step->end_event = world->history->journal.n_events;
    step->status = status;

    step->after = world->next;
    step->digest = crash_model_digest(step->after);
    step->is_durable = world->plan->durability[world->turn] == VECDB_DURABILITY_FULL && step->digest != digest;
    step->is_durable |= step->is_restore;
    if (!status)
        world->model = step->after;
    else if (n_failed == crash_record_failed_syncs())
        CRASH_FAIL("%s: %s", vecdb_status_name(status), err.message);
    else
        for (int turn = 0; turn < 2; turn++)
            check_live(world, turn, "after a call that failed");
    if (world->scan && !world->scan_steps--)
        end_scan(world);
}

/* SQLite takes salts and names from its own generator. */
static void seed_sqlite(uint64_t seed)
{
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed | 1), NULL);
    sqlite3_randomness(0, NULL);
}

void crash_work(const char *root, const struct crash_plan *plan, const struct crash_model *before, uint64_t seed,
                struct crash_history *history)
{
    static const struct crash_model nothing;
    struct world world = {.plan = plan, .history = history, .random = {seed}};
    static const struct operation open_first = {"open", 0, reopen};
    snprintf(world.root, sizeof world.root, "%s", root);
    snprintf(world.path, sizeof world.path, "%s/db", root);
    *history = (struct crash_history){.n_steps = 0};
    history->before = world.model = crash_model_copy(before ? before : &nothing);
    history->digest_before = crash_model_digest(history->before);
    seed_sqlite(seed);
    crash_record_begin(root, &history->journal);
    run_step(&world, &open_first);
    for (unsigned i = 0; i < plan->n_steps; i++) {
        if (plan->n_failing_syncs && below(&world, plan->n_steps) < plan->n_failing_syncs)
            crash_record_fail_sync(1 + (unsigned)below(&world, 6));
        run_step(&world, choose(&world));
    }
    for (int turn = 0; turn < 2; turn++)
        check_live(&world, turn, "in the end");
    const char *difference = crash_record_compare();
    if (difference)
        CRASH_FAIL("the recorder has missed something: %s", difference);
    crash_record_end();
    for (size_t i = 0; i < world.n_backups; i++)
        crash_model_free(world.backups[i].model);
    close_handle(&world, 0);
    close_handle(&world, 1);
}

void crash_history_release(struct crash_history *history)
{
    crash_model_free(history->before);
    for (size_t i = 0; i < history->n_steps; i++)
        crash_model_free(history->steps[i].after);
    crash_free(history->steps);
    crash_journal_release(&history->journal);
    *history = (struct crash_history){.n_steps = 0};
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * The database answers as a simple model in memory does (model.h), whatever was done to it before:
 * random writes, deletions, changes of fields and collections, compactions, reopenings, through two
 * handles, in every configuration; and check finds nothing wrong. Searches with a graph find records that
 * there are, at their distances, as many as there can be, and nearly all of the nearest.
 *
 * VECDB_TEST_ROUNDS=N does N times as many steps.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "base/random.h"
#include "model.h"

#define MOST_COLLECTIONS 4
#define MOST_RECORDS 2500
#define N_KEYS 1800 /* integer keys, and as many texts: puts meet keys that are there */

struct world {
    struct vdb_random random;
    const char *path;
    vecdb_options options;
    int compression; /* of new fields; -1: any */
    bool has_graphs; /* in most fields, and enough records for them */
    vecdb *db[2];    /* the second may be NULL */
    bool is_second_readonly;
    struct model_collection collections[MOST_COLLECTIONS];
    vecdb_collection *handles[2][MOST_COLLECTIONS]; /* NULL: not opened yet */
    size_t n_collections;
    unsigned n_names;
    size_t n_near, n_near_found, n_graph_searches; /* of the true nearest, by graphs */
};

/* What one write gives to the library, and the model. */
struct rows {
    size_t n, n_fields;
    vecdb_key *keys;
    char (*key_texts)[24];
    char (*metadata)[64]; /* "": none */
    char (*texts)[64];
    unsigned char *values[MODEL_MAX_FIELDS]; /* in the field's type */
    bool *has[MODEL_MAX_FIELDS];
};

static uint64_t below(struct world *world, uint64_t n)
{
    return vdb_random_below(&world->random, n);
}

static bool chance(struct world *world, unsigned percent)
{
    return below(world, 100) < percent;
}

/* ------------------------------------------------------------------ random things */

static vecdb_key random_key(struct world *world, char text[24])
{
    if (chance(world, 60))
        return vecdb_key_int((int64_t)below(world, N_KEYS) - N_KEYS / 2);
    if (chance(world, 5)) {
        static const char *const odd[] = {"0", "-1", "\xc3\xa9", "a/b", " ", "k\nl", "\xf0\x9f\x98\x80", "K1"};
        return vecdb_key_text(odd[below(world, sizeof odd / sizeof *odd)]);
    }
    snprintf(text, 24, "k%u", (unsigned)below(world, N_KEYS));
    return vecdb_key_text(text);
}

/* Values that every element type of a field holds exactly, few different ones for many ties. */
static float random_value(struct world *world, const vecdb_field *field)
{
    switch (field->type) {
    case VECDB_I8:
        return (float)((int)below(world, 256) - 128);
    case VECDB_U8:
        return (float)below(world, 256);
    case VECDB_F32:
        if (field->dimension % 2 == 0)
            return (float)((vdb_random_unit(&world->random) - 0.5) * 3.7);
        /* fall through */
    default:
        return (float)((int)below(world, 17) - 8) * 0.25f;
    }
}

static void random_vector(struct world *world, const vecdb_field *field, unsigned char *out)
{
    uint32_t n = field->dimension;
    size_t n_bytes = vdb_vector_bytes(field->type, n);
    if (field->type == VECDB_BIT) {
        for (size_t i = 0; i < n_bytes; i++)
            out[i] = (unsigned char)below(world, 256);
        if (n % 8)
            out[n_bytes - 1] &= (unsigned char)((1 << n % 8) - 1);
        return;
    }
    bool is_zero = true;
    for (uint32_t i = 0; i < n; i++) {
        float value = random_value(world, field);
        if (is_zero && i == n - 1 && value == 0)
            value = 1;
        is_zero &= value == 0;
        uint16_t half = field->type == VECDB_F16 ? vdb_f16_of_float(value) : vdb_bf16_of_float(value);
        if (field->type == VECDB_F32)
            memcpy(out + 4 * (size_t)i, &value, 4);
        else if (field->type == VECDB_F16 || field->type == VECDB_BF16)
            memcpy(out + 2 * (size_t)i, &half, 2);
        else
            out[i] = (unsigned char)(int)value;
    }
}

static vecdb_field random_field(struct world *world, char name[64])
{
    static const uint32_t dimensions[] = {1, 2, 3, 7, 8, 16, 31, 64, 129, 300};
    vecdb_field field = {.name = name, .dimension = dimensions[below(world, 10)]};
    snprintf(name, 64, "field %u/\xc3\xb6", world->n_names++);
    field.type = VECDB_F32 + (int)below(world, 6);
    field.metric = field.type == VECDB_BIT ? VECDB_HAMMING : VECDB_L2 + (int)below(world, 3);
    field.compression = world->compression < 0 ? (int)below(world, 3) : world->compression;
    field.index = (int)below(world, 2);
    if (chance(world, world->has_graphs ? 80 : 10)) {
        field.index = VECDB_INDEX_HNSW;
        field.dimension = field.dimension < 7 ? 12 : field.dimension;
    }
    return field;
}

static void *array_of(size_t n, size_t size)
{
    void *array = calloc(n + 1, size);
    CHECK(array);
    return array;
}

static void make_rows(struct world *world, const struct model_collection *model, size_t n, bool all_vectors,
                      struct rows *rows)
{
    *rows = (struct rows){.n = n, .n_fields = model->n_fields};
    rows->keys = array_of(n, sizeof *rows->keys);
    rows->key_texts = array_of(n, sizeof *rows->key_texts);
    rows->metadata = array_of(n, sizeof *rows->metadata);
    rows->texts = array_of(n, sizeof *rows->texts);
    bool has_documents = chance(world, 50);
    for (size_t i = 0; i < n; i++) {
        rows->keys[i] = random_key(world, rows->key_texts[i]);
        if (has_documents && chance(world, 50))
            snprintf(rows->metadata[i], 64, "{\"n\": %u, \"s\": \"\xc3\xa9\"}", (unsigned)below(world, 1000));
        if (has_documents && chance(world, 50))
            snprintf(rows->texts[i], 64, "text %u", (unsigned)below(world, 1000));
    }
    for (size_t f = 0; f < model->n_fields; f++) {
        const vecdb_field *field = &model->fields[f].field;
        size_t n_bytes = vdb_vector_bytes(field->type, field->dimension);
        rows->values[f] = array_of(n, n_bytes);
        rows->has[f] = array_of(n, sizeof(bool));
        for (size_t i = 0; i < n; i++) {
            rows->has[f][i] = all_vectors || chance(world, 85);
            random_vector(world, field, rows->values[f] + i * n_bytes);
        }
    }
}

static void free_rows(struct rows *rows)
{
    for (size_t f = 0; f < rows->n_fields; f++) {
        free(rows->values[f]);
        free(rows->has[f]);
    }
    free(rows->keys);
    free(rows->key_texts);
    free(rows->metadata);
    free(rows->texts);
}

/* ------------------------------------------------------------------ opening */

static void open_handle(struct world *world, int h)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = world->options;
    if (h == 1) {
        world->is_second_readonly = chance(world, 40);
        options.mode = world->is_second_readonly ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING;
    }
    CHECK_OK(err, vecdb_open(world->path, &options, &world->db[h], &err));
    for (size_t i = 0; i < MOST_COLLECTIONS; i++)
        world->handles[h][i] = NULL;
}

static void close_handle(struct world *world, int h)
{
    vecdb_error err = VECDB_ERROR_INIT;
    if (world->db[h])
        CHECK_OK(err, vecdb_background_error(world->db[h], &err));
    vecdb_close(world->db[h]);
    world->db[h] = NULL;
}

static vecdb_collection *handle_of(struct world *world, int h, size_t i)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection **handle = &world->handles[h][i];
    if (!*handle)
        CHECK_OK(err, vecdb_collection_open(world->db[h], world->collections[i].name, handle, &err));
    return *handle;
}

/* A handle that may write. */
static int writing_handle(struct world *world)
{
    return world->db[1] && !world->is_second_readonly ? (int)below(world, 2) : 0;
}

static int any_handle(struct world *world)
{
    return world->db[1] ? (int)below(world, 2) : 0;
}

/* ------------------------------------------------------------------ comparing */

static void check_record(const struct model_collection *model, const struct model_record *record,
                         vecdb_results *results, size_t i, int columns)
{
    vecdb_key key = vecdb_result_key(results, i);
    CHECK(vecdb_result_found(results, i));
    CHECK_INT(model_compare_keys(&key, &record->key), 0);
    bool is_default = columns == VECDB_COLUMNS_DEFAULT;
    size_t length;
    const char *metadata = vecdb_result_metadata(results, i, &length), *text = vecdb_result_text(results, i);
    if (record->metadata && (is_default || columns & VECDB_METADATA)) {
        CHECK_STRING(metadata, record->metadata);
        CHECK_SIZE(length, strlen(metadata));
    } else {
        CHECK(!metadata);
    }
    if (record->text && (is_default || columns & VECDB_TEXT))
        CHECK_STRING(text, record->text);
    else
        CHECK(!text);
    for (size_t f = 0; f < model->n_fields; f++) {
        const vecdb_field *field = &model->fields[f].field;
        uint32_t dimension;
        int type;
        const void *vector = vecdb_result_vector(results, i, model->fields[f].name, &dimension, &type);
        if (!(columns & VECDB_VECTORS) || !record->vectors[f]) {
            CHECK(!vector);
            continue;
        }
        CHECK(vector);
        CHECK_INT(dimension, field->dimension);
        CHECK_INT(type, field->type);
        CHECK(!memcmp(vector, record->vectors[f], vdb_vector_bytes(type, dimension)));
    }
}

static int random_columns(struct world *world)
{
    static const int columns[] = {VECDB_COLUMNS_DEFAULT, VECDB_KEYS_ONLY, VECDB_METADATA, VECDB_TEXT, VECDB_VECTORS,
                                  VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    return columns[below(world, sizeof columns / sizeof *columns)];
}

static void check_scan(struct world *world, int h, size_t c)
{
    const struct model_collection *model = &world->collections[c];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .columns = random_columns(world)};
    char text[24];
    vecdb_key after = random_key(world, text);
    size_t at = 0, end = model->n_records;
    bool found = false;
    options.batch_rows = chance(world, 50) ? 0 : 1 + below(world, 700);
    if (chance(world, 40)) {
        options.after = &after;
        at = model_find(model, &after, &found) + found;
    }
    if (chance(world, 30)) {
        options.limit = 1 + below(world, 400);
        end = end - at < options.limit ? end : at + options.limit;
    }
    vecdb_scan *scan;
    CHECK_OK(err, vecdb_scan_open(handle_of(world, h, c), &options, &scan, &err));
    for (size_t n = 1; n;) {
        vecdb_results *results;
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        CHECK_LE(n, end - at);
        for (size_t i = 0; i < n; i++)
            check_record(model, &model->records[at++], results, i, options.columns);
        vecdb_results_free(results);
    }
    CHECK_SIZE(at, end);
    vecdb_scan_close(scan);
}

static void check_get(struct world *world, int h, size_t c)
{
    const struct model_collection *model = &world->collections[c];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_key keys[20];
    char texts[20][24];
    size_t n = below(world, 21);
    int columns = random_columns(world);
    for (size_t i = 0; i < n; i++)
        keys[i] = random_key(world, texts[i]);
    vecdb_results *results;
    CHECK_OK(err, vecdb_get(handle_of(world, h, c), keys, n, columns, &results, &err));
    CHECK_SIZE(vecdb_results_count(results), n);
    for (size_t i = 0; i < n; i++) {
        bool found;
        size_t at = model_find(model, &keys[i], &found);
        CHECK_INT(vecdb_result_found(results, i), found);
        if (found)
            check_record(model, &model->records[at], results, i, columns);
    }
    vecdb_results_free(results);
}

static void check_answer(const struct model_collection *model, size_t f, const vecdb_query *query, const void *vector,
                         vecdb_results *results, size_t q)
{
    size_t n_hits, first, count;
    struct model_hit *hits = model_search(model, f, vector, &n_hits);
    size_t expected = n_hits <= query->offset              ? 0
                      : n_hits - query->offset < query->k ? n_hits - query->offset
                                                          : query->k;
    vecdb_results_range(results, q, &first, &count);
    CHECK_SIZE(count, expected);
    for (size_t i = 0; i < count; i++) {
        const struct model_hit *hit = &hits[query->offset + i];
        CHECK_DOUBLE(vecdb_result_distance(results, first + i), hit->distance);
        check_record(model, hit->record, results, first + i, query->columns);
    }
    free(hits);
}

/* What single precision may make of a distance. */
static double error_of(const vecdb_field *field, const void *vector, const struct model_hit *hit, size_t f)
{
    double scale = fabs(hit->distance);
    if (field->metric == VECDB_IP)
        scale += sqrt(model_sum(vector, vector, field->dimension, false) *
                      model_sum(hit->record->values[f], hit->record->values[f], field->dimension, false));
    return 1e-5 * (1 + scale);
}

/* A search that may be by a graph. Equal distances are ordered by key, as far as they are equal in single precision. */
static void check_near(struct world *world, const struct model_collection *model, size_t f, const vecdb_query *query,
                       const void *vector, vecdb_results *results, size_t q)
{
    size_t n_hits, first, count, n_left;
    const vecdb_field *field = &model->fields[f].field;
    struct model_hit *hits = model_search(model, f, vector, &n_hits);
    bool *is_taken = array_of(model->n_records, sizeof *is_taken);
    n_left = n_hits > query->offset ? n_hits - query->offset : 0;
    vecdb_results_range(results, q, &first, &count);
    CHECK_SIZE(count, n_left < query->k ? n_left : query->k);
    for (size_t i = 0; i < count; i++) {
        vecdb_key key = vecdb_result_key(results, first + i);
        bool found;
        size_t at = model_find(model, &key, &found);
        double distance = vecdb_result_distance(results, first + i);
        CHECK(found && !is_taken[at] && model->records[at].vectors[f]);
        is_taken[at] = true;
        check_record(model, &model->records[at], results, first + i, query->columns);
        struct model_hit hit = {model_distance(field, vector, &model->records[at], f), &model->records[at]};
        double error = error_of(field, vector, &hit, f);
        CHECK(fabs(distance - hit.distance) <= error);
        if (i) {
            vecdb_key before = vecdb_result_key(results, first + i - 1);
            double distance_before = vecdb_result_distance(results, first + i - 1);
            CHECK(distance > distance_before ||
                  (distance >= distance_before && model_compare_keys(&before, &key) < 0));
        }
        world->n_near++;
        world->n_near_found += hit.distance <= hits[query->offset + count - 1].distance + error;
    }
    free(is_taken);
    free(hits);
}

static void check_search(struct world *world, int h, size_t c)
{
    const struct model_collection *model = &world->collections[c];
    if (!model->n_fields)
        return;
    vecdb_error err = VECDB_ERROR_INIT;
    size_t f = below(world, model->n_fields), n_queries = 1 + below(world, 3);
    const vecdb_field *field = &model->fields[f].field;
    size_t n_bytes = vdb_vector_bytes(field->type, field->dimension), n_bits = vdb_vector_bytes(VECDB_BIT, 2400);
    unsigned char *values = array_of(n_queries, n_bytes + n_bits);
    double *doubles = array_of(n_queries * field->dimension, sizeof *doubles);
    float *floats = array_of(n_queries * field->dimension, sizeof *floats);
    bool as_floats = field->type != VECDB_BIT && chance(world, 60);
    for (size_t q = 0; q < n_queries; q++) {
        random_vector(world, field, values + q * n_bytes);
        if (field->type != VECDB_BIT)
            vdb_floats_of(field->type, values + q * n_bytes, field->dimension, floats + q * field->dimension);
    }
    for (size_t i = 0; i < n_queries * field->dimension; i++)
        doubles[i] = (double)floats[i];
    static const uint32_t ks[] = {1, 2, 10, 100, 100000, VECDB_MAX_K}, offsets[] = {0, 0, 0, 1, 13, 3000, UINT32_MAX};
    vecdb_query query = {.size = sizeof query,
                         .field = f == 0 && chance(world, 50) ? NULL : model->fields[f].name,
                         .vector = as_floats ? (const void *)floats : values,
                         .n_queries = n_queries == 1 ? 0 : n_queries,
                         .dimension = chance(world, 50) ? field->dimension : 0,
                         .type = as_floats ? 0 : field->type,
                         .k = ks[below(world, 6)],
                         .offset = offsets[below(world, 7)],
                         .exact = (int)below(world, 2),
                         .columns = random_columns(world),
                         .threads = (int)below(world, 4)};
    vecdb_results *results;
    bool is_near = field->index == VECDB_INDEX_HNSW && !query.exact;
    CHECK_OK(err, vecdb_search(handle_of(world, h, c), &query, &results, &err));
    CHECK_SIZE(vecdb_results_queries(results), n_queries);
    vecdb_search_stats stats = {.size = sizeof stats};
    CHECK_INT(vecdb_results_stats(results, &stats), VECDB_OK);
    world->n_graph_searches += !strcmp(stats.plan, "hnsw");
    for (size_t q = 0; q < n_queries; q++) {
        const void *vector = field->type == VECDB_BIT ? (const void *)(values + q * n_bytes)
                                                      : (const void *)(doubles + q * field->dimension);
        if (is_near)
            check_near(world, model, f, &query, vector, results, q);
        else
            check_answer(model, f, &query, vector, results, q);
    }
    vecdb_results_free(results);
    free(values);
    free(doubles);
    free(floats);
}

static int compare_info(void *context, const vecdb_collection_info *info)
{
    const struct model_collection *model = context;
    CHECK_STRING(info->name, model->name);
    CHECK_SIZE(info->n_records, model->n_records);
    CHECK_SIZE(info->n_fields, model->n_fields);
    for (size_t f = 0; f < model->n_fields; f++) {
        const vecdb_field *is = &info->fields[f].field, *expected = &model->fields[f].field;
        uint64_t n_vectors = 0;
        for (size_t i = 0; i < model->n_records; i++)
            n_vectors += model->records[i].vectors[f] != NULL;
        CHECK_STRING(is->name, model->fields[f].name);
        CHECK_INT(is->dimension, expected->dimension);
        CHECK_INT(is->type, expected->type);
        CHECK_INT(is->metric, expected->metric);
        CHECK_INT(is->compression, expected->compression);
        CHECK_INT(is->index, expected->index);
        CHECK_SIZE(info->fields[f].n_vectors, n_vectors);
        CHECK_LE(info->fields[f].n_tail, n_vectors);
    }
    return 0;
}

struct listing {
    struct world *world;
    size_t n;
    char last[VECDB_MAX_NAME + 1];
};

static int compare_listed(void *context, const vecdb_collection_info *info)
{
    struct listing *listing = context;
    struct world *world = listing->world;
    CHECK(listing->n == 0 || strcmp(listing->last, info->name) < 0);
    memcpy(listing->last, info->name, strlen(info->name) + 1);
    listing->n++;
    for (size_t i = 0; i < world->n_collections; i++)
        if (!strcmp(world->collections[i].name, info->name))
            return compare_info(&world->collections[i], info);
    FAIL("there is no collection \"%s\" in the model", info->name);
}

static void print_problem(void *context, const vecdb_problem *problem)
{
    (void)context;
    fprintf(stderr, "    %s: %s\n", problem->file, problem->message);
}

static void check_all(struct world *world)
{
    int h = any_handle(world);
    vecdb_error err = VECDB_ERROR_INIT;
    struct listing listing = {.world = world};
    CHECK_OK(err, vecdb_collections(world->db[h], compare_listed, &listing, &err));
    CHECK_SIZE(listing.n, world->n_collections);
    for (size_t c = 0; c < world->n_collections; c++) {
        CHECK_OK(err, vecdb_collection_describe(handle_of(world, h, c), compare_info, &world->collections[c], &err));
        check_scan(world, h, c);
        check_get(world, h, c);
        check_search(world, h, c);
    }
    vecdb_stats stats = {.size = sizeof stats};
    CHECK_OK(err, vecdb_database_stats(world->db[h], &stats, &err));
    CHECK_SIZE(stats.n_collections, world->n_collections);
    CHECK_INT(stats.is_readonly, h == 1 && world->is_second_readonly);
    if (chance(world, 15)) {
        uint64_t n_problems;
        CHECK_OK(err, vecdb_check(world->db[h], NULL, print_problem, NULL, &n_problems, &err));
        CHECK_SIZE(n_problems, 0);
    }
}

/* ------------------------------------------------------------------ writing */

/* As records: the first field's vector sometimes in the record itself, sometimes as floats. */
static int write_as_records(struct world *world, vecdb_collection *handle, const struct model_collection *model,
                            struct rows *rows, bool is_insert, vecdb_error *err)
{
    vecdb_record *records = array_of(rows->n, sizeof *records);
    vecdb_vector *vectors = array_of(rows->n * MODEL_MAX_FIELDS, sizeof *vectors);
    float **floats = array_of(MODEL_MAX_FIELDS, sizeof *floats);
    for (size_t f = 0; f < model->n_fields; f++) {
        const vecdb_field *field = &model->fields[f].field;
        if (field->type == VECDB_BIT || !chance(world, 40))
            continue;
        floats[f] = array_of(rows->n * field->dimension, sizeof **floats);
        vdb_floats_of(field->type, rows->values[f], (uint32_t)rows->n * field->dimension, floats[f]);
    }
    for (size_t i = 0; i < rows->n; i++) {
        vecdb_record *record = &records[i];
        record->key = rows->keys[i];
        record->metadata = *rows->metadata[i] ? rows->metadata[i] : NULL;
        record->text = *rows->texts[i] ? rows->texts[i] : NULL;
        record->vectors = &vectors[i * MODEL_MAX_FIELDS];
        for (size_t f = 0; f < model->n_fields; f++) {
            const vecdb_field *field = &model->fields[f].field;
            const void *values = floats[f] ? (const void *)(floats[f] + i * field->dimension)
                                           : rows->values[f] + i * vdb_vector_bytes(field->type, field->dimension);
            int type = floats[f] ? VECDB_F32 : 0;
            if (!rows->has[f][i])
                continue;
            if (f == 0 && i % 2) {
                record->vector = values;
                record->type = type;
                record->dimension = field->dimension;
            } else {
                vectors[i * MODEL_MAX_FIELDS + record->n_vectors++] =
                    (vecdb_vector){model->fields[f].name, values, i % 3 ? field->dimension : 0, type};
            }
        }
    }
    int status = is_insert ? vecdb_insert(handle, records, rows->n, err) : vecdb_put(handle, records, rows->n, err);
    for (size_t f = 0; f < model->n_fields; f++)
        free(floats[f]);
    free(floats);
    free(records);
    free(vectors);
    return status;
}

static int write_as_columns(struct world *world, vecdb_collection *handle, const struct model_collection *model,
                            struct rows *rows, bool is_insert, vecdb_error *err)
{
    vecdb_vector_column columns[MODEL_MAX_FIELDS];
    const char **metadata = array_of(rows->n, sizeof *metadata), **texts = array_of(rows->n, sizeof *texts);
    int64_t *integers = array_of(rows->n, sizeof *integers);
    bool use_integers = chance(world, 50);
    for (size_t i = 0; i < rows->n; i++) {
        metadata[i] = *rows->metadata[i] ? rows->metadata[i] : NULL;
        texts[i] = *rows->texts[i] ? rows->texts[i] : NULL;
        integers[i] = rows->keys[i].text ? 100000 + (int64_t)i % 7 : rows->keys[i].integer;
        if (use_integers)
            rows->keys[i] = vecdb_key_int(integers[i]);
    }
    for (size_t f = 0; f < model->n_fields; f++) {
        const vecdb_field *field = &model->fields[f].field;
        columns[f] = (vecdb_vector_column){
            .field = model->fields[f].name,
            .values = rows->values[f],
            .stride = chance(world, 50) ? vdb_vector_bytes(field->type, field->dimension) : 0,
            .dimension = field->dimension};
    }
    vecdb_batch batch = {.size = sizeof batch,
                         .n_rows = rows->n,
                         .keys = use_integers ? NULL : rows->keys,
                         .integer_keys = use_integers ? integers : NULL,
                         .vectors = columns,
                         .n_vectors = model->n_fields,
                         .metadata = metadata,
                         .texts = texts,
                         .insert = is_insert};
    int status = vecdb_write(handle, &batch, err);
    free(metadata);
    free(texts);
    free(integers);
    return status;
}

/* Would an insert of these rows meet a key that is there, or the same key twice? */
static bool meets_existing(const struct model_collection *model, const struct rows *rows)
{
    bool found = false;
    for (size_t i = 0; i < rows->n && !found; i++) {
        model_find(model, &rows->keys[i], &found);
        for (size_t j = 0; j < i && !found; j++)
            found = !model_compare_keys(&rows->keys[i], &rows->keys[j]);
    }
    return found;
}

static void write_rows(struct world *world, size_t c)
{
    struct model_collection *model = &world->collections[c];
    vecdb_collection *handle = handle_of(world, writing_handle(world), c);
    vecdb_error err = VECDB_ERROR_INIT;
    size_t n = chance(world, 50) ? 1 : chance(world, 60) ? 1 + below(world, 30) : 1 + below(world, 1200);
    if (world->has_graphs && chance(world, 20))
        n = 1400;
    if (model->n_records > MOST_RECORDS)
        n = 1;
    bool is_insert = chance(world, 25), by_columns = chance(world, 25);
    struct rows rows;
    make_rows(world, model, n, by_columns, &rows);
    int status = by_columns ? write_as_columns(world, handle, model, &rows, is_insert, &err)
                            : write_as_records(world, handle, model, &rows, is_insert, &err);
    if (is_insert && meets_existing(model, &rows)) {
        CHECK_INT(status, VECDB_EXISTS);
    } else {
        CHECK_OK(err, status);
        for (size_t i = 0; i < n; i++) {
            struct model_record *record = model_put(model, &rows.keys[i]);
            record->metadata = *rows.metadata[i] ? model_copy(rows.metadata[i], strlen(rows.metadata[i])) : NULL;
            record->text = *rows.texts[i] ? model_copy(rows.texts[i], strlen(rows.texts[i])) : NULL;
            for (size_t f = 0; f < model->n_fields; f++)
                if (rows.has[f][i])
                    model_set_vector(model, record, f,
                                     rows.values[f] + i * vdb_vector_bytes(model->fields[f].field.type,
                                                                           model->fields[f].field.dimension));
        }
    }
    free_rows(&rows);
}

static void delete_rows(struct world *world, size_t c)
{
    struct model_collection *model = &world->collections[c];
    vecdb_error err = VECDB_ERROR_INIT;
    size_t n = chance(world, 70) ? below(world, 40) : below(world, 1500);
    vecdb_key *keys = array_of(n, sizeof *keys);
    char(*texts)[24] = array_of(n, sizeof *texts);
    uint64_t n_deleted, expected = 0;
    for (size_t i = 0; i < n; i++)
        keys[i] = random_key(world, texts[i]);
    CHECK_OK(err, vecdb_delete(handle_of(world, writing_handle(world), c), keys, n, &n_deleted, &err));
    for (size_t i = 0; i < n; i++)
        expected += model_delete(model, &keys[i]);
    CHECK_SIZE(n_deleted, expected);
    free(keys);
    free(texts);
}

/* ------------------------------------------------------------------ collections and fields */

static void create_collection(struct world *world)
{
    if (world->n_collections == MOST_COLLECTIONS)
        return;
    struct model_collection *model = &world->collections[world->n_collections];
    vecdb_field fields[3];
    char names[3][64];
    size_t n = chance(world, 10) ? 0 : 1 + below(world, 3);
    int h = writing_handle(world), mode = (int)below(world, 2);
    vecdb_error err = VECDB_ERROR_INIT;
    snprintf(model->name, sizeof model->name, "collection %u", world->n_names++);
    for (size_t f = 0; f < n; f++)
        fields[f] = random_field(world, names[f]);
    CHECK_OK(err, vecdb_collection_create(world->db[h], model->name, fields, n, mode,
                                          &world->handles[h][world->n_collections], &err));
    for (size_t f = 0; f < n; f++)
        model_add_field(model, &fields[f]);
    world->n_collections++;
}

static void drop_collection(struct world *world, size_t c)
{
    vecdb_error err = VECDB_ERROR_INIT;
    size_t last = world->n_collections - 1;
    vecdb_results *results;
    vecdb_key key = vecdb_key_int(1);
    CHECK_OK(err, vecdb_collection_drop(world->db[writing_handle(world)], world->collections[c].name, &err));
    for (int h = 0; h < 2; h++) {
        if (world->db[h] && world->handles[h][c])
            CHECK_FAILS(err, VECDB_NOT_FOUND, "dropped",
                        vecdb_get(world->handles[h][c], &key, 1, 0, &results, &err));
        world->handles[h][c] = world->handles[h][last];
        world->handles[h][last] = NULL;
    }
    model_release(&world->collections[c]);
    world->collections[c] = world->collections[last];
    memset(&world->collections[last], 0, sizeof world->collections[last]);
    world->n_collections--;
}

static void rename_collection(struct world *world, size_t c)
{
    struct model_collection *model = &world->collections[c];
    char name[64];
    vecdb_error err = VECDB_ERROR_INIT;
    snprintf(name, sizeof name, "renamed %u", world->n_names++);
    CHECK_OK(err, vecdb_collection_rename(world->db[writing_handle(world)], model->name, name, &err));
    memcpy(model->name, name, sizeof name);
}

static void change_fields(struct world *world, size_t c)
{
    struct model_collection *model = &world->collections[c];
    vecdb_collection *handle = handle_of(world, writing_handle(world), c);
    char name[64];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = random_field(world, name);
    unsigned what = (unsigned)below(world, 4);
    if (what == 0 && model->n_fields < MODEL_MAX_FIELDS) {
        CHECK_OK(err, vecdb_field_add(handle, &field, &err));
        model_add_field(model, &field);
    } else if (model->n_fields) {
        size_t f = below(world, model->n_fields);
        if (what == 1) {
            CHECK_OK(err, vecdb_field_drop(handle, model->fields[f].name, &err));
            model_drop_field(model, f);
        } else if (what == 3) {
            model->fields[f].field.index = (int)below(world, 3);
            CHECK_OK(err, vecdb_field_set_index(handle, model->fields[f].name, model->fields[f].field.index, &err));
        } else {
            CHECK_OK(err, vecdb_field_rename(handle, model->fields[f].name, name, &err));
            memcpy(model->fields[f].name, name, sizeof name);
        }
    }
}

/* ------------------------------------------------------------------ the walk */

static void reopen(struct world *world)
{
    if (!strcmp(world->path, ":memory:"))
        return;
    if (chance(world, 50)) {
        close_handle(world, 1);
        if (chance(world, 70))
            open_handle(world, 1);
        return;
    }
    close_handle(world, 0);
    if (chance(world, 50))
        close_handle(world, 1);
    open_handle(world, 0);
}

static void wait_for_index(struct world *world, size_t c)
{
    vecdb_error err = VECDB_ERROR_INIT;
    int h = any_handle(world);
    CHECK_OK(err, vecdb_index_wait(handle_of(world, h, c), NULL, 0, NULL, &err));
    for (int i = 0; i < 6; i++)
        check_search(world, h, c);
}

static void step(struct world *world)
{
    if (!world->n_collections)
        create_collection(world);
    size_t c = below(world, world->n_collections);
    unsigned what = (unsigned)below(world, world->has_graphs ? 112 : 102);
    vecdb_error err = VECDB_ERROR_INIT;
    if (what < 55)
        write_rows(world, c);
    else if (what < 75)
        delete_rows(world, c);
    else if (what < 82)
        reopen(world);
    else if (what < 87)
        CHECK_OK(err, vecdb_compact(world->db[writing_handle(world)], NULL, &err));
    else if (what < 91)
        create_collection(world);
    else if (what < 93)
        drop_collection(world, c);
    else if (what < 95)
        rename_collection(world, c);
    else if (what < 100)
        change_fields(world, c);
    else
        wait_for_index(world, c);
}

static void walk(const char *path, int compression, vecdb_options options, int n_steps, bool has_graphs)
{
    struct world world = {.random = {test_seed()}, .path = path, .compression = compression, .options = options};
    world.has_graphs = has_graphs;
    const char *rounds = getenv("VECDB_TEST_ROUNDS");
    int factor = rounds && atoi(rounds) > 0 ? atoi(rounds) : 1;
    test_time_limit(120 + 60 * (unsigned)factor);
    world.options.size = sizeof world.options;
    open_handle(&world, 0);
    for (int i = 0; i < n_steps * factor; i++) {
        step(&world);
        if (chance(&world, 30))
            check_all(&world);
    }
    uint64_t n_problems;
    vecdb_error err = VECDB_ERROR_INIT;
    check_all(&world);
    CHECK_OK(err, vecdb_check(world.db[0], NULL, print_problem, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
    fprintf(stderr, "    %zu searches by a graph; these and others found %zu of %zu\n", world.n_graph_searches,
            world.n_near_found, world.n_near);
    CHECK_LE(world.n_near * 0.9, world.n_near_found);
    for (size_t c = 0; c < MOST_COLLECTIONS; c++)
        model_release(&world.collections[c]);
    close_handle(&world, 1);
    close_handle(&world, 0);
}

TEST(the_database_agrees_with_the_model)
{
    walk(test_path("db"), -1, (vecdb_options){0}, 600, false);
}

TEST(a_database_without_threads_agrees_with_the_model)
{
    walk(test_path("db"), VECDB_COMPRESSION_NONE, (vecdb_options){.threads = VECDB_THREADS_NONE}, 600, false);
}

TEST(a_database_that_maps_no_files_and_has_little_memory_agrees_with_the_model)
{
    walk(test_path("db"), VECDB_COMPRESSION_MAX,
         (vecdb_options){.io = VECDB_IO_READ, .memory_bytes = 1 << 20, .threads = 3}, 600, false);
}

TEST(a_database_with_normal_durability_agrees_with_the_model)
{
    walk(test_path("db"), VECDB_COMPRESSION_AUTO, (vecdb_options){.durability = VECDB_DURABILITY_NORMAL}, 600, false);
}

TEST(a_database_in_memory_agrees_with_the_model)
{
    walk(":memory:", -1, (vecdb_options){0}, 600, false);
}

TEST(a_database_with_graphs_agrees_with_the_model)
{
    walk(test_path("db"), -1, (vecdb_options){.threads = 2}, 100, true);
}

TEST(graphs_that_are_built_for_who_waits_agree_with_the_model)
{
    walk(test_path("db"), -1, (vecdb_options){.threads = VECDB_THREADS_NONE}, 150, true);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * examples/fields.c - several vectors in a record, and writing from arrays
 *
 * A collection of photographs with two vector fields: `caption` (what was written about a picture,
 * cosine) and `pixels` (what the picture looks like, l2, stored as bytes). Rows come from arrays
 * that exist already, 500 in a transaction; either field is searched by itself.
 *
 *     cc -std=c11 fields.c $(pkg-config --cflags --libs vecdb) -o fields && ./fields
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <vecdb.h>

enum { N_PHOTOS = 2000, BATCH = 500, CAPTION_DIMENSION = 48, PIXELS_DIMENSION = 64 };

static float captions[N_PHOTOS][CAPTION_DIMENSION];
static uint8_t pixels[N_PHOTOS][PIXELS_DIMENSION];

/* Stands in for two embedding models: numbers that are the same in every run. */
static void embed(void)
{
    uint32_t state = 1;
    for (size_t i = 0; i < N_PHOTOS; i++) {
        for (size_t j = 0; j < CAPTION_DIMENSION; j++)
            captions[i][j] = (float)((state = state * 1664525 + 1013904223) >> 16) / 65536.0f - 0.5f;
        for (size_t j = 0; j < PIXELS_DIMENSION; j++)
            pixels[i][j] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    }
}

/* Rows first .. first + BATCH - 1, all of them or none. */
static int write_batch(vecdb_collection *photos, size_t first, vecdb_error *err)
{
    int64_t keys[BATCH];
    for (size_t i = 0; i < BATCH; i++)
        keys[i] = (int64_t)(first + i);
    vecdb_vector_column columns[] = {
        {.field = "caption", .values = captions[first], .dimension = CAPTION_DIMENSION},
        {.field = "pixels", .values = pixels[first], .dimension = PIXELS_DIMENSION, .type = VECDB_U8},
    };
    vecdb_batch batch = {
        .size = sizeof batch, .n_rows = BATCH, .integer_keys = keys, .vectors = columns, .n_vectors = 2};
    return vecdb_write(photos, &batch, err);
}

static int search(vecdb_collection *photos, const char *field, const void *vector, int type, vecdb_error *err)
{
    vecdb_query query = {
        .size = sizeof query, .field = field, .vector = vector, .type = type, .k = 3, .columns = VECDB_KEYS_ONLY};
    vecdb_results *hits;
    int status = vecdb_search(photos, &query, &hits, err);
    if (status)
        return status;
    printf("nearest by %s:", field);
    for (size_t i = 0; i < vecdb_results_count(hits); i++)
        printf("  %" PRId64 " at %.4f", vecdb_result_key(hits, i).integer, vecdb_result_distance(hits, i));
    printf("\n");
    vecdb_results_free(hits);
    return VECDB_OK;
}

static int describe(void *context, const vecdb_collection_info *info)
{
    (void)context;
    printf("%s: %" PRIu64 " records\n", info->name, info->n_records);
    for (size_t i = 0; i < info->n_fields; i++)
        printf("  field %s: %" PRIu32 " dimensions, %" PRIu64 " vectors\n", info->fields[i].field.name,
               info->fields[i].field.dimension, info->fields[i].n_vectors);
    return 0;
}

int main(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    vecdb_collection *photos;
    const vecdb_field fields[] = {
        {.name = "caption", .dimension = CAPTION_DIMENSION, .metric = VECDB_COSINE},
        {.name = "pixels", .dimension = PIXELS_DIMENSION, .type = VECDB_U8, .metric = VECDB_L2},
    };

    embed();
    if (vecdb_open("photos.vecdb", NULL, &db, &err) ||
        vecdb_collection_create(db, "photos", fields, 2, VECDB_IF_MISSING, &photos, &err))
        goto failed;
    for (size_t first = 0; first < N_PHOTOS; first += BATCH)
        if (write_batch(photos, first, &err))
            goto failed;

    /* A record need not have a vector in every field: this one has a caption only. */
    vecdb_vector caption = {.field = "caption", .values = captions[17]};
    vecdb_record lost = {.key = VECDB_KEY_TEXT("lost"), .vectors = &caption, .n_vectors = 1};
    if (vecdb_put(photos, &lost, 1, &err) || vecdb_collection_describe(photos, describe, NULL, &err) ||
        search(photos, "caption", captions[17], VECDB_F32, &err) ||
        search(photos, "pixels", pixels[17], VECDB_U8, &err))
        goto failed;
    vecdb_close(db);
    return EXIT_SUCCESS;

failed:
    fprintf(stderr, "%s\n", err.message);
    vecdb_close(db);
    return EXIT_FAILURE;
}

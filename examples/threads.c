/* SPDX-License-Identifier: Apache-2.0
 *
 * examples/threads.c - readers while a writer writes, and long work that shows how far it is
 *
 * Two threads search one handle as fast as they can while the main thread writes batches. A
 * batch becomes visible as a whole: however often the readers look, what they count is always a
 * multiple of its rows. Afterwards everything is deleted but the last batch, and vecdb_compact()
 * gives the space back, telling a callback of its progress.
 *
 *     cc -std=c11 threads.c $(pkg-config --cflags --libs vecdb) -lpthread -o threads && ./threads
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <vecdb.h>

enum { N_BATCHES = 40, BATCH = 50, DIMENSION = 16, N_READERS = 2 };

struct reader {
    pthread_t thread;
    vecdb_collection *points;
    atomic_int *is_over;
    unsigned n_searches, n_torn; /* searches done; of these, how many saw a part of a batch */
    vecdb_error err;
};

static void fill(float *vector, int64_t key)
{
    for (int j = 0; j < DIMENSION; j++)
        vector[j] = (float)((key * 31 + j * 17) % 101) / 101.0f + 0.01f;
}

/* The handle is shared; the results are this thread's own. */
static void *read_on(void *argument)
{
    struct reader *self = argument;
    float question[DIMENSION];
    fill(question, 7);
    while (!atomic_load(self->is_over)) {
        vecdb_query query = {
            .size = sizeof query, .vector = question, .k = N_BATCHES * BATCH, .columns = VECDB_KEYS_ONLY, .threads = 1};
        vecdb_results *hits;
        if (vecdb_search(self->points, &query, &hits, &self->err))
            break;
        self->n_torn += vecdb_results_count(hits) % BATCH != 0;
        self->n_searches++;
        vecdb_results_free(hits);
    }
    return NULL;
}

static int write_batch(vecdb_collection *points, int64_t first, vecdb_error *err)
{
    static float vectors[BATCH][DIMENSION];
    static vecdb_record records[BATCH];
    for (int i = 0; i < BATCH; i++) {
        fill(vectors[i], first + i);
        records[i].key = vecdb_key_int(first + i);
        records[i].vector = vectors[i];
    }
    return vecdb_put(points, records, BATCH, err);
}

static int show(void *context, const vecdb_progress *progress)
{
    unsigned *n_calls = context;
    (*n_calls)++;
    if (progress->total)
        printf("  %s: %" PRIu64 " of %" PRIu64 "\n", progress->phase, progress->done, progress->total);
    return 0; /* anything else would end the work, without loss */
}

static int delete_and_compact(vecdb *db, vecdb_collection *points, vecdb_error *err)
{
    static vecdb_key keys[(N_BATCHES - 1) * BATCH];
    for (int i = 0; i < (N_BATCHES - 1) * BATCH; i++)
        keys[i] = vecdb_key_int(i);
    uint64_t n_deleted;
    int status = vecdb_delete(points, keys, sizeof keys / sizeof keys[0], &n_deleted, err);
    if (status)
        return status;
    printf("deleted %" PRIu64 " records\n", n_deleted);

    unsigned n_calls = 0;
    vecdb_work work = {.size = sizeof work, .progress = show, .progress_context = &n_calls};
    status = vecdb_compact(db, &work, err);
    if (!status)
        printf("compacted, with word of it %s\n", n_calls ? "on the way" : "at the end only");
    return status;
}

int main(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    vecdb_collection *points;
    vecdb_field field = {.name = "point", .dimension = DIMENSION, .metric = VECDB_L2};
    atomic_int is_over = 0;
    struct reader readers[N_READERS];
    int n_running = 0, result = EXIT_FAILURE;

    int status = vecdb_open("points.vecdb", NULL, &db, &err);
    if (!status)
        status = vecdb_collection_create(db, "points", &field, 1, VECDB_MUST_BE_NEW, &points, &err);
    if (status)
        goto done;

    for (; n_running < N_READERS; n_running++) {
        readers[n_running] = (struct reader){.points = points, .is_over = &is_over};
        if (pthread_create(&readers[n_running].thread, NULL, read_on, &readers[n_running]))
            break;
    }
    for (int64_t batch = 0; batch < N_BATCHES && !status; batch++)
        status = write_batch(points, batch * BATCH, &err);
    atomic_store(&is_over, 1);

    unsigned n_torn = 0;
    for (int i = 0; i < n_running; i++) {
        pthread_join(readers[i].thread, NULL);
        printf("reader %d: it searched %s, and saw part of a batch %u times\n", i,
               readers[i].n_searches ? "while the writer wrote" : "not at all", readers[i].n_torn);
        n_torn += readers[i].n_torn;
        if (!status && readers[i].err.status) {
            err = readers[i].err;
            status = err.status;
        }
    }
    if (!status)
        status = delete_and_compact(db, points, &err);
    if (!status && !n_torn)
        result = EXIT_SUCCESS;

done:
    if (status)
        fprintf(stderr, "%s\n", err.message);
    vecdb_close(db);
    return result;
}

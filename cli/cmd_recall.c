/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_recall.c - vecdb-cli recall: does the index find what is nearest, in this collection?
 *
 *     keys of all records -> a sample, drawn evenly -> their vectors  \
 *     or a file of queries                                             > exact search -> what is true
 *                                                                     /  search       -> what is found, and how fast
 *
 * recall@K is the share of the K nearest that were found. A stored record is the nearest to itself, so one result more
 * is asked for and the record left out of both answers, by its key. The index knows the record, and has
 * links to where it lies: such a measurement is slightly optimistic, and the help says so. With
 * --queries real ones are measured.
 *
 * The sample is the same for the same records: a seeded reservoir (Vitter 1985, algorithm R) over the keys in order.
 * What is timed is the call, one query each, after a warm-up.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "output.h"
#include "progress.h"
#include "queries.h"
#include "values.h"

#define DEFAULT_SAMPLES 500
#define TIE_RELATIVE 1e-6
#define TIE_ABSOLUTE 1e-12
#define WARM_UP 50
#define STEP 64 /* queries of an exact search, records of a get */

struct measurement {
    const struct options *options;
    vecdb_collection *collection;
    const vecdb_field *field;
    struct queries queries;
    vecdb_key *keys; /* of the sample; NULL: queries from a file */
    uint32_t k;
    vecdb_results **truth; /* one for each STEP queries */
    double n_right, n_true, total_s;
    double *call_s;
    vecdb_search_stats stats; /* of the last search */
};

/* ---------------------------------------------------------------- the sample */

static vecdb_key copy_key(const vecdb_key *key)
{
    vecdb_key copy = *key;
    if (key->text)
        copy.text = cli_copy(key->text, key->length);
    return copy;
}

static void release_key(vecdb_key *key)
{
    free((char *)(uintptr_t)key->text);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* Keys of `n_wanted` records, or of all where there are fewer. */
static int sample_keys(struct measurement *m, size_t n_wanted, size_t *n_sampled, vecdb_error *err)
{
    vecdb_scan_options how = {.size = sizeof how, .columns = VECDB_KEYS_ONLY, .batch_rows = 4096};
    vecdb_scan *scan;
    uint64_t n_seen = 0, random = UINT64_C(0x9e3779b97f4a7c15);
    int status = vecdb_scan_open(m->collection, &how, &scan, err);
    if (status)
        return status;
    m->keys = cli_alloc_array(n_wanted, sizeof *m->keys);
    *n_sampled = 0;
    for (;;) {
        vecdb_results *results;
        if ((status = vecdb_scan_next(scan, &results, err)))
            break;
        size_t n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++, n_seen++) {
            vecdb_key key = vecdb_result_key(results, i);
            uint64_t place = n_seen < n_wanted ? n_seen : next_random(&random) % (n_seen + 1);
            if (place >= n_wanted)
                continue;
            if (n_seen >= n_wanted)
                release_key(&m->keys[place]);
            else
                *n_sampled = (size_t)n_seen + 1;
            m->keys[place] = copy_key(&key);
        }
        vecdb_results_free(results);
        if (!n)
            break;
    }
    vecdb_scan_close(scan);
    return status;
}

/* The vectors of the sample; records that have none in the field, or are gone, are dropped. */
static int sample_vectors(struct measurement *m, size_t n_keys, vecdb_error *err)
{
    struct queries *queries = &m->queries;
    *queries = (struct queries){.dimension = m->field->dimension,
                                .type = m->field->type == VECDB_BIT ? VECDB_BIT : VECDB_F32};
    queries->stride = row_bytes(queries->type, queries->dimension);
    queries->rows = cli_alloc_array(n_keys + 1, queries->stride);
    for (size_t first = 0; first < n_keys; first += STEP) {
        vecdb_results *results;
        size_t n = n_keys - first < STEP ? n_keys - first : STEP;
        int status = vecdb_get(m->collection, m->keys + first, n, VECDB_VECTORS, &results, err);
        if (status)
            return status;
        for (size_t i = 0; i < n; i++) {
            uint32_t dimension;
            int type;
            const void *row = vecdb_result_found(results, i)
                                  ? vecdb_result_vector(results, i, m->field->name, &dimension, &type)
                                  : NULL;
            vecdb_key key = m->keys[first + i];
            m->keys[first + i] = (vecdb_key){0};
            if (!row) {
                release_key(&key);
                continue;
            }
            unsigned char *out = queries->rows + queries->n_queries * queries->stride;
            if (queries->type == VECDB_BIT)
                memcpy(out, row, queries->stride);
            else
                row_to_floats((float *)(void *)out, row, type, dimension);
            m->keys[queries->n_queries++] = key;
        }
        vecdb_results_free(results);
    }
    return VECDB_OK;
}

static int find_queries(struct measurement *m, vecdb_error *err)
{
    const struct options *options = m->options;
    uint64_t wanted = options->samples ? options->samples : DEFAULT_SAMPLES;
    if (options->queries)
        return queries_load(&m->queries, options, m->field, options->samples ? wanted : UINT64_MAX, err);
    size_t n;
    int status = sample_keys(m, (size_t)wanted, &n, err);
    if (!status)
        status = sample_vectors(m, n, err);
    if (!status && m->queries.n_queries == 0)
        status = cli_fail(err, VECDB_INVALID, "no record of collection \"%.80s\" has a vector in field \"%.80s\"",
                          options->arguments[1], m->field->name);
    return status;
}

/* ---------------------------------------------------------------- searching */

static int search(const struct measurement *m, size_t first, size_t n, bool exact, vecdb_results **results,
                  vecdb_error *err)
{
    vecdb_query q = {.size = sizeof q, .field = m->field->name, .n_queries = n, .columns = VECDB_KEYS_ONLY};
    q.vector = m->queries.rows + first * m->queries.stride;
    q.dimension = m->queries.dimension;
    q.type = m->queries.type;
    q.k = m->k + (m->keys != NULL);
    q.exact = exact;
    if (!exact) {
        q.recall = m->options->recall;
        q.ef = (uint32_t)m->options->ef;
    }
    return vecdb_search(m->collection, &q, results, err);
}

static int find_truth(struct measurement *m, struct progress *progress, vecdb_error *err)
{
    size_t n = m->queries.n_queries;
    m->truth = cli_alloc_array(n / STEP + 1, sizeof *m->truth);
    memset(m->truth, 0, (n / STEP + 1) * sizeof *m->truth);
    for (size_t first = 0; first < n; first += STEP) {
        size_t piece = n - first < STEP ? n - first : STEP;
        int status = search(m, first, piece, true, &m->truth[first / STEP], err);
        if (status)
            return status;
        progress_show(progress, first + piece, n);
    }
    return VECDB_OK;
}

static bool is_same(const vecdb_key *a, const vecdb_key *b)
{
    if (!a->text || !b->text)
        return !a->text && !b->text && a->integer == b->integer;
    return a->length == b->length && !memcmp(a->text, b->text, a->length);
}

/* The results of query `q` of an answer, without the record itself: at most k of their numbers, into `kept`. */
static size_t without_itself(const struct measurement *m, vecdb_results *results, size_t q, const vecdb_key *itself,
                             size_t *kept)
{
    size_t first, n, n_kept = 0;
    vecdb_results_range(results, q, &first, &n);
    for (size_t i = first; i < first + n && n_kept < m->k; i++) {
        vecdb_key key = vecdb_result_key(results, i);
        if (!itself || !is_same(&key, itself))
            kept[n_kept++] = i;
    }
    return n_kept;
}

/* A result is right when it is among the K nearest, or as near as the last of them. */
static void compare(struct measurement *m, vecdb_results *found, size_t q, size_t *right, size_t *kept)
{
    vecdb_results *truth = m->truth[q / STEP];
    const vecdb_key *itself = m->keys ? &m->keys[q] : NULL;
    size_t n_right = without_itself(m, truth, q % STEP, itself, right);
    size_t n_kept = without_itself(m, found, 0, itself, kept), n = 0;
    double radius = n_right ? vecdb_result_distance(truth, right[n_right - 1]) : 0;
    radius += TIE_RELATIVE * fabs(radius) + TIE_ABSOLUTE;
    for (size_t i = 0; i < n_kept; i++) {
        vecdb_key key = vecdb_result_key(found, kept[i]);
        bool is_right = vecdb_result_distance(found, kept[i]) <= radius;
        for (size_t j = 0; j < n_right && !is_right; j++) {
            vecdb_key other = vecdb_result_key(truth, right[j]);
            is_right = is_same(&key, &other);
        }
        n += is_right;
    }
    m->n_right += n_right ? (double)(n < n_right ? n : n_right) / (double)n_right : 1;
    m->n_true++;
}

static int run(struct measurement *m, vecdb_error *err)
{
    size_t n = m->queries.n_queries, warm = n < WARM_UP ? n : WARM_UP;
    size_t *right = cli_alloc_array(2 * (size_t)m->k, sizeof *right);
    vecdb_results *results;
    int status = VECDB_OK;
    m->call_s = cli_alloc_array(n, sizeof *m->call_s);
    for (size_t i = 0; i < warm && !status; i++) {
        status = search(m, i, 1, false, &results, err);
        if (!status)
            vecdb_results_free(results);
    }
    for (size_t i = 0; i < n && !status; i++) {
        double begin = seconds_now();
        if ((status = search(m, i, 1, false, &results, err)))
            break;
        m->call_s[i] = seconds_now() - begin;
        m->total_s += m->call_s[i];
        m->stats = (vecdb_search_stats){.size = sizeof m->stats};
        vecdb_results_stats(results, &m->stats);
        compare(m, results, i, right, right + m->k);
        vecdb_results_free(results);
    }
    free(right);
    return status;
}

/* ---------------------------------------------------------------- the command */

static int compare_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_measurement(struct measurement *m)
{
    size_t n = m->queries.n_queries;
    double recall = m->n_right / m->n_true, qps = (double)n / (m->total_s > 1e-9 ? m->total_s : 1e-9);
    qsort(m->call_s, n, sizeof *m->call_s, compare_seconds);
    double p50 = m->call_s[n / 2] * 1e6, p99 = m->call_s[(n * 99 - 1) / 100] * 1e6;
    const char *plan = m->stats.plan ? m->stats.plan : "unknown";
    double asked = m->options->ef ? 0 : m->options->recall > 0 ? (double)m->options->recall : 0.95;
    int mode = m->options->mode;
    if (mode == MODE_JSON || mode == MODE_JSONL) {
        printf("%s{\"ef\":%u,\"recall\":%.6f,\"qps\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f",
               mode == MODE_JSON ? "{\"points\":[" : "", m->stats.ef, recall, qps, p50, p99);
        if (asked > 0)
            printf(",\"asked\":%.6g", asked);
        printf(",\"plan\":\"%s\",\"k\":%u,\"queries\":%zu,\"stored\":%s}%s\n", plan, m->k, n,
               m->keys ? "true" : "false", mode == MODE_JSON ? "]}" : "");
        return;
    }
    char number[32];
    struct table table;
    table_begin(&table, stdout, mode);
    table_column(&table, "plan", COLUMN_TEXT);
    static const char *const names[] = {"asked", "recall", "ef", "k", "queries/s", "p50 us", "p99 us", "queries"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        table_column(&table, names[i], COLUMN_NUMBER);
    table_cell_string(&table, plan);
    snprintf(number, sizeof number, "%.4g", asked);
    table_cell_string(&table, asked > 0 ? number : NULL);
    snprintf(number, sizeof number, "%.4f", recall);
    table_cell_string(&table, number);
    table_cell_count(&table, m->stats.ef);
    table_cell_count(&table, m->k);
    table_cell_count(&table, (uint64_t)(qps + 0.5));
    table_cell_count(&table, (uint64_t)(p50 + 0.5));
    table_cell_count(&table, (uint64_t)(p99 + 0.5));
    table_cell_count(&table, n);
    table_end(&table);
}

static void release(struct measurement *m)
{
    size_t n = m->queries.n_queries;
    for (size_t i = 0; m->truth && i <= n / STEP; i++)
        vecdb_results_free(m->truth[i]);
    for (size_t i = 0; m->keys && i < n; i++)
        release_key(&m->keys[i]);
    free(m->truth);
    free(m->keys);
    free(m->call_s);
    queries_release(&m->queries);
}

int cmd_recall(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct measurement m = {.options = options, .k = (uint32_t)options->k};
    struct cli_fields fields = {0};
    const vecdb_field_info *field;
    struct progress progress;
    vecdb *db = NULL;
    if (options->recall > 0 && options->ef)
        return cli_usage("recall takes one of --recall R and --ef N");
    cli_catch_interrupt();
    if (!options->queries && options->k >= VECDB_MAX_K)
        return cli_usage("-k takes at most %d here: the record itself is one result more", VECDB_MAX_K - 1);
    int status = cli_open_collection(options, VECDB_OPEN_READONLY, &db, &m.collection, &err);
    if (status || (status = cli_fields_read(m.collection, &fields, &err)) ||
        (status = cli_fields_find(&fields, options->arguments[1], options->field, &field, &err)))
        goto done;
    m.field = &field->field;
    if ((status = cli_try_index(m.collection, m.field->name, options->quiet, &err)))
        goto done;
    if ((status = find_queries(&m, &err)))
        goto done;
    progress_begin(&progress, options->arguments[1], "queries", options->quiet);
    status = find_truth(&m, &progress, &err);
    if (!status)
        status = run(&m, &err);
    progress_end(&progress);
    if (!status)
        print_measurement(&m);
done:
    release(&m);
    cli_fields_release(&fields);
    vecdb_close(db);
    return cli_report(status, &err);
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_eval.c - vecdb-cli eval: recall and speed of searches
 *
 *     queries -> searches, timed one by one -> keys and distances
 *     truth   -> ids and the distance of the K-th -> hits
 *
 * recall@K is the share of the K true neighbours that were found, averaged over the queries. A
 * result is a hit when its key is one of the K true ids, or when it is no farther than the K-th
 * of them: where several records are equally near, any of them is right. Distances are compared
 * with TIE_RELATIVE to spare: truth files are mostly made with 32-bit floats.
 *
 * The distance of the K-th true neighbour is computed here, in double precision, from its stored
 * vector: the search under test does not judge itself. Without a truth file an exact search says
 * what is true; where the collection has only a flat index, that measures speed alone.
 *
 * What is timed is the call and nothing else: results are freed, keys copied, recall computed
 * outside. A warm-up of WARM_UP queries, not counted, maps the pages and starts the threads.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "queries.h"
#include "values.h"

#define TIE_RELATIVE 1e-6
#define TIE_ABSOLUTE 1e-12 /* cosine distances of equal vectors are zero but for rounding */
#define WARM_UP 50

struct answer {
    int64_t *ids;      /* n_queries rows of k; for text keys a number given to each text */
    double *distances; /* the same */
    uint32_t *counts;  /* results of each query */
};

struct evaluation {
    const struct options *options;
    vecdb_collection *collection;
    const vecdb_field *field;
    struct queries queries;
    uint32_t k;
    struct answer answer;
    int32_t *truth; /* n_queries rows of truth_width; NULL: `exact` */
    uint32_t truth_width;
    double *radius;   /* distance of the K-th true neighbour */
    uint32_t *n_true; /* how many true neighbours there are, at most K */
    double *call_s;
    size_t n_calls;
    double total_s;
    const char *plan;
    uint32_t ef;      /* the greatest that was used; 0: no graph was */
    double coverage;  /* of the index: 1 when no vector is scanned */
};

/* ---------------------------------------------------------------- searching */

static int search(const struct evaluation *eval, size_t first, size_t n, bool exact, vecdb_results **results,
                  vecdb_error *err)
{
    vecdb_query q = {.size = sizeof q, .field = eval->field->name, .n_queries = n, .k = eval->k};
    q.vector = eval->queries.rows + first * eval->queries.stride;
    q.dimension = eval->queries.dimension;
    q.type = eval->queries.type;
    q.exact = exact;
    if (!exact) {
        q.recall = eval->options->recall;
        q.ef = (uint32_t)eval->options->ef;
    }
    q.columns = VECDB_KEYS_ONLY;
    return vecdb_search(eval->collection, &q, results, err);
}

/* Keep the answers of the queries from `first` on. Text keys have no place in a truth file, and
 * count by their distance alone: they get an id that no row number has. */
static void keep(struct evaluation *eval, size_t first, vecdb_results *results)
{
    for (size_t q = 0; q < vecdb_results_queries(results); q++) {
        size_t begin, n, row = (first + q) * eval->k;
        vecdb_results_range(results, q, &begin, &n);
        n = n < eval->k ? n : eval->k;
        eval->answer.counts[first + q] = (uint32_t)n;
        for (size_t i = 0; i < n; i++) {
            vecdb_key key = vecdb_result_key(results, begin + i);
            eval->answer.ids[row + i] = key.text ? INT64_MIN : key.integer;
            eval->answer.distances[row + i] = vecdb_result_distance(results, begin + i);
        }
    }
}

static int run(struct evaluation *eval, struct progress *progress, vecdb_error *err)
{
    size_t n = eval->queries.n_queries, step = eval->options->batch_rows ? (size_t)eval->options->batch_rows : 1;
    vecdb_results *results;
    int status;
    size_t warm = n < WARM_UP ? n : WARM_UP;
    for (size_t i = 0; i < warm; i += step) {
        if ((status = search(eval, i, warm - i < step ? warm - i : step, eval->options->exact, &results, err)))
            return status;
        vecdb_results_free(results);
    }
    for (size_t i = 0; i < n; i += step) {
        size_t piece = n - i < step ? n - i : step;
        double begin = seconds_now();
        if ((status = search(eval, i, piece, eval->options->exact, &results, err)))
            return status;
        double seconds = seconds_now() - begin;
        eval->call_s[eval->n_calls++] = seconds;
        eval->total_s += seconds;
        vecdb_search_stats stats = {.size = sizeof stats};
        if (!vecdb_results_stats(results, &stats)) {
            eval->plan = stats.plan;
            eval->ef = stats.ef > eval->ef ? stats.ef : eval->ef;
        }
        keep(eval, i, results);
        vecdb_results_free(results);
        progress_show(progress, i + piece, n);
    }
    return VECDB_OK;
}

/* ---------------------------------------------------------------- what is true */

static int load_truth(struct evaluation *eval, vecdb_error *err)
{
    struct vector_reader reader;
    void *rows;
    const char *path = eval->options->truth;
    int status = vectors_load(&reader, path, INPUT_UNKNOWN, eval->queries.n_queries, UINT64_MAX / 2, &rows, err);
    if (status)
        return status;
    char have[32], want[32];
    if (reader.type != VALUE_I32)
        status =
            cli_fail(err, VECDB_INVALID, "%s holds %s values; true neighbours are 32-bit integers (ibin, ivecs, npy)",
                     path, type_name(reader.type));
    else if (reader.n_rows < eval->queries.n_queries)
        status = cli_fail(err, VECDB_INVALID, "%s has %s rows, but there are %s queries", path,
                          format_count(reader.n_rows, have), format_count(eval->queries.n_queries, want));
    else if (reader.dimension < eval->k)
        status = cli_fail(err, VECDB_INVALID, "%s has %u neighbours a query, too few for -k %u", path, reader.dimension,
                          eval->k);
    if (status) {
        free(rows);
    } else {
        eval->truth = rows;
        eval->truth_width = reader.dimension;
    }
    vectors_close(&reader);
    return status;
}

static double distance_of_bits(const uint8_t *a, const uint8_t *b, uint32_t dimension)
{
    size_t n = 0;
    for (size_t i = 0; i < row_bytes(VECDB_BIT, dimension); i++)
        n += (size_t)__builtin_popcount((unsigned)(a[i] ^ b[i]));
    return (double)n;
}

/* As vecdb.h defines it, in double precision. */
static double distance(const struct evaluation *eval, const float *query, const float *row)
{
    double dot = 0, squares = 0, query_norm = 0, row_norm = 0;
    for (uint32_t i = 0; i < eval->field->dimension; i++) {
        double a = query[i], b = row[i];
        dot += a * b;
        squares += (a - b) * (a - b);
        query_norm += a * a;
        row_norm += b * b;
    }
    if (eval->field->metric == VECDB_L2)
        return sqrt(squares);
    if (eval->field->metric == VECDB_IP)
        return -dot;
    return 1 - dot / sqrt(query_norm * row_norm);
}

/* The radius of query `q`: how far its K-th true neighbour is. */
static int find_radius(struct evaluation *eval, size_t q, float *scratch, vecdb_error *err)
{
    int32_t id = eval->truth[q * eval->truth_width + eval->k - 1];
    const uint8_t *query = eval->queries.rows + q * eval->queries.stride;
    vecdb_key key = vecdb_key_int(id);
    vecdb_results *results;
    uint32_t dimension;
    int type, status = vecdb_get(eval->collection, &key, 1, VECDB_VECTORS, &results, err);
    if (status)
        return status;
    const void *row =
        vecdb_result_found(results, 0) ? vecdb_result_vector(results, 0, eval->field->name, &dimension, &type) : NULL;
    if (!row) {
        status =
            cli_fail(err, VECDB_NOT_FOUND,
                     "%s, row %zu names record %d, and collection \"%.80s\" has no vector with that integer key; true "
                     "neighbours are row numbers of the imported file. Without --truth an exact search finds them",
                     eval->options->truth, q, (int)id, eval->options->arguments[1]);
    } else if (eval->field->type == VECDB_BIT) {
        eval->radius[q] = distance_of_bits(query, row, dimension);
    } else {
        row_to_floats(scratch, row, type, dimension);
        eval->radius[q] = distance(eval, (const float *)(const void *)query, scratch);
    }
    eval->n_true[q] = eval->k;
    vecdb_results_free(results);
    return status;
}

static int find_radii(struct evaluation *eval, vecdb_error *err)
{
    float *scratch = cli_alloc_array(eval->field->dimension, sizeof *scratch);
    int status = VECDB_OK;
    for (size_t q = 0; q < eval->queries.n_queries && !status; q++)
        status = find_radius(eval, q, scratch, err);
    free(scratch);
    return status;
}

/* Without a truth file: an exact search. */
static int search_radii(struct evaluation *eval, vecdb_error *err)
{
    enum { STEP = 64 }; /* queries a call; large enough to share each page, small enough to interrupt */
    for (size_t i = 0; i < eval->queries.n_queries; i += STEP) {
        vecdb_results *results;
        size_t n = eval->queries.n_queries - i;
        int status = search(eval, i, n < STEP ? n : STEP, true, &results, err);
        if (status)
            return status;
        for (size_t q = 0; q < vecdb_results_queries(results); q++) {
            size_t begin, count;
            vecdb_results_range(results, q, &begin, &count);
            eval->n_true[i + q] = (uint32_t)count;
            eval->radius[i + q] = count ? vecdb_result_distance(results, begin + count - 1) : 0;
        }
        vecdb_results_free(results);
    }
    return VECDB_OK;
}

/* ---------------------------------------------------------------- recall */

static int compare_ids(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static double recall(struct evaluation *eval)
{
    double total = 0;
    for (size_t q = 0; q < eval->queries.n_queries; q++) {
        double limit = eval->radius[q] + TIE_RELATIVE * fabs(eval->radius[q]) + TIE_ABSOLUTE;
        int32_t *truth = eval->truth ? eval->truth + q * eval->truth_width : NULL;
        size_t n_hits = 0;
        if (truth)
            qsort(truth, eval->k, sizeof *truth, compare_ids);
        for (uint32_t i = 0; i < eval->answer.counts[q]; i++) {
            int64_t id = eval->answer.ids[q * eval->k + i];
            bool hit = eval->answer.distances[q * eval->k + i] <= limit;
            if (!hit && truth && id >= INT32_MIN && id <= INT32_MAX) {
                int32_t wanted = (int32_t)id;
                hit = bsearch(&wanted, truth, eval->k, sizeof *truth, compare_ids) != NULL;
            }
            n_hits += hit;
        }
        size_t n_true = eval->n_true[q];
        total += n_true ? (double)(n_hits < n_true ? n_hits : n_true) / (double)n_true : 1;
    }
    return total / (double)eval->queries.n_queries;
}

/* ---------------------------------------------------------------- the command */

static int compare_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile_us(const struct evaluation *eval, double share)
{
    size_t i = (size_t)ceil(share * (double)eval->n_calls);
    return eval->call_s[i ? i - 1 : 0] * 1e6;
}

static void print_point(struct evaluation *eval)
{
    char number[32];
    uint64_t batch = eval->options->batch_rows ? eval->options->batch_rows : 1;
    double found = recall(eval), qps = (double)eval->queries.n_queries / (eval->total_s > 1e-9 ? eval->total_s : 1e-9);
    qsort(eval->call_s, eval->n_calls, sizeof *eval->call_s, compare_seconds);
    double p50 = percentile_us(eval, 0.5), p99 = percentile_us(eval, 0.99);
    int mode = eval->options->mode;
    if (mode == MODE_JSON || mode == MODE_JSONL) {
        printf("%s{\"ef\":%u,\"recall\":%.6f,\"qps\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f",
               mode == MODE_JSON ? "{\"points\":[" : "", eval->ef, found, qps, p50, p99);
        printf(",\"plan\":\"%s\",\"coverage\":%.6f,\"k\":%u,\"queries\":%zu,\"batch\":%llu}%s\n", eval->plan,
               eval->coverage, eval->k, eval->queries.n_queries, (unsigned long long)batch,
               mode == MODE_JSON ? "]}" : "");
        return;
    }
    struct table table;
    table_begin(&table, stdout, mode);
    table_column(&table, "plan", COLUMN_TEXT);
    static const char *const names[] = {"recall", "queries/s", "p50 us", "p99 us", "queries", "batch"};
    for (size_t i = 0; i < 6; i++)
        table_column(&table, names[i], COLUMN_NUMBER);
    table_cell_string(&table, eval->plan);
    snprintf(number, sizeof number, "%.4f", found);
    table_cell_string(&table, number);
    table_cell_count(&table, (uint64_t)(qps + 0.5));
    table_cell_count(&table, (uint64_t)(p50 + 0.5));
    table_cell_count(&table, (uint64_t)(p99 + 0.5));
    table_cell_count(&table, eval->queries.n_queries);
    table_cell_count(&table, batch);
    table_end(&table);
}

static int evaluate(struct evaluation *eval, vecdb_error *err)
{
    const struct options *options = eval->options;
    struct progress progress;
    int status = queries_load(&eval->queries, options, eval->field, options->limit ? options->limit : UINT64_MAX, err);
    if (status)
        return status;
    size_t n = eval->queries.n_queries, cells = n * (size_t)eval->k;
    eval->answer.ids = cli_alloc_array(cells, sizeof *eval->answer.ids);
    eval->answer.distances = cli_alloc_array(cells, sizeof *eval->answer.distances);
    eval->answer.counts = cli_alloc_array(n, sizeof *eval->answer.counts);
    eval->radius = cli_alloc_array(n, sizeof *eval->radius);
    eval->n_true = cli_alloc_array(n, sizeof *eval->n_true);
    eval->call_s = cli_alloc_array(n, sizeof *eval->call_s);
    if (options->truth && ((status = load_truth(eval, err)) || (status = find_radii(eval, err))))
        return status;
    if (!options->truth && (status = search_radii(eval, err)))
        return status;
    if (!options->exact && (status = cli_try_index(eval->collection, eval->field->name, options->quiet, err)))
        return status;
    eval->coverage = cli_index_coverage(eval->collection, eval->field->name);
    progress_begin(&progress, options->arguments[1], "queries", options->quiet);
    status = run(eval, &progress, err);
    progress_end(&progress);
    if (!status)
        print_point(eval);
    return status;
}

int cmd_eval(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct evaluation eval = {.options = options, .k = (uint32_t)options->k};
    struct cli_fields fields = {0};
    const vecdb_field_info *field;
    vecdb *db = NULL;
    if (!options->queries)
        return cli_usage("eval needs --queries FILE");
    if ((options->recall > 0) + (options->ef > 0) + options->exact > 1)
        return cli_usage("eval takes one of --recall R, --ef N and --exact");
    cli_catch_interrupt();
    int status = cli_open_collection(options, VECDB_OPEN_READONLY, &db, &eval.collection, &err);
    if (!status)
        status = cli_fields_read(eval.collection, &fields, &err);
    if (!status)
        status = cli_fields_find(&fields, options->arguments[1], options->field, &field, &err);
    if (!status) {
        eval.field = &field->field;
        status = evaluate(&eval, &err);
    }
    queries_release(&eval.queries);
    free(eval.answer.ids);
    free(eval.answer.distances);
    free(eval.answer.counts);
    free(eval.truth);
    free(eval.radius);
    free(eval.n_true);
    free(eval.call_s);
    cli_fields_release(&fields);
    vecdb_close(db);
    return cli_report(status, &err);
}

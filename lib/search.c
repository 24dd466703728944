/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/search.c - the life of a search
 *
 *     query -> view of the last commit -> field, query vectors as floats
 *           -> index: hits (slot, distance), ties with the k-th included: of a graph where there is one
 *              (search_graph.c), else, or when the exact answer is asked for, of all rows (index/flat.c)
 *           -> keys of the hits, order of equal distances by key, cut at offset and k
 *           -> columns, from the transaction of the view's own state
 *
 * On the plain path (keys only, or no record has documents) there is no SQL: the view is current when
 * one word of `state` has not changed, and keys come from the column in keys.c. A key that is not
 * there yet is loaded. When its record has died since the view was made, only a newer state can be
 * answered from: the search begins again, with the transaction opened first, which cannot fail so.
 */
#include "database.h"

#include "base/numbers.h"
#include "results.h"
#include "validate.h"

/* Not a vecdb_status: begin again with a transaction. */
#define AGAIN (-1)

struct search {
    vecdb_collection *collection;
    const vecdb_query *query;
    vecdb_query own; /* the query, with every member the library knows */
    int columns;
    size_t n_queries;
    struct vdb_stop stop;
    uint64_t started_ns;
    /* of one attempt */
    struct vdb_view *view;
    struct vdb_connection *c; /* NULL: no transaction */
    uint64_t sequence;
    const struct vdb_view_field *field;
    void *vectors;
    struct vdb_answer answer;
    bool has_answer;
    uint64_t n_decoded;
    struct vdb_graph_request graph; /* .served NULL: all rows were looked at */
    vecdb_results *results;
};

/* ------------------------------------------------------------------ the query */

static int check_query(struct search *search, const vecdb_query *query, vecdb_error *err)
{
    if (!query || query->size < offsetof(vecdb_query, offset) || query->size > 4096)
        return vdb_fail(err, VECDB_MISUSE, "vecdb_query.size is %zu; set it to sizeof(vecdb_query)",
                        query ? query->size : 0);
    memcpy(&search->own, query, query->size < sizeof search->own ? query->size : sizeof search->own);
    query = search->query = &search->own;
    if (!query->vector)
        return vdb_fail(err, VECDB_INVALID, "the query has no vector");
    if (query->k < 1 || query->k > VECDB_MAX_K)
        return vdb_fail(err, VECDB_INVALID, "k is %u; it takes 1 to %d", query->k, VECDB_MAX_K);
    search->n_queries = query->n_queries ? query->n_queries : 1;
    if (search->n_queries > UINT32_MAX)
        return vdb_fail(err, VECDB_INVALID, "%zu queries are too many for one call", search->n_queries);
    if (query->threads < 0 || query->threads > 1024)
        return vdb_fail(err, VECDB_INVALID, "threads is %d; a search takes 0 to 1024", query->threads);
    if (!(query->recall >= 0 && query->recall <= 1))
        return vdb_fail(err, VECDB_INVALID, "recall is %g; it takes above 0 and up to 1, or 0 for the default",
                        (double)query->recall);
    return vdb_check_columns(query->columns, &search->columns, err);
}

/* The query vectors, in the form that an index takes, without gaps. */
static int convert_queries(struct search *search, vecdb_error *err)
{
    const vecdb_query *query = search->query;
    const struct vdb_field_row *field = &search->field->row;
    struct vdb_memory *memory = &search->collection->db->memory;
    int type = query->type ? query->type : field->type == VECDB_BIT ? VECDB_BIT : VECDB_F32;
    if (query->dimension && query->dimension != field->dimension)
        return vdb_fail(err, VECDB_INVALID, "the query has %u values, field \"%s\" takes %u", query->dimension,
                        field->name, field->dimension);
    size_t row_bytes = vdb_vector_bytes(field->type == VECDB_BIT ? VECDB_BIT : VECDB_F32, field->dimension);
    size_t stride = query->stride ? query->stride : vdb_vector_bytes(type, field->dimension), n_bytes, end;
    if (__builtin_mul_overflow(search->n_queries, row_bytes, &n_bytes) ||
        __builtin_mul_overflow(search->n_queries, stride, &end))
        return vdb_fail(err, VECDB_INVALID, "%zu queries are too many for one call", search->n_queries);
    search->vectors = vdb_alloc_aligned(memory, n_bytes);
    if (!search->vectors)
        return vdb_fail_memory(err, n_bytes);
    for (size_t i = 0; i < search->n_queries; i++) {
        int status = vdb_check_query("the query", field, (const char *)query->vector + i * stride, type,
                                     (char *)search->vectors + i * row_bytes, err);
        if (status)
            return search->n_queries > 1 ? vdb_fail_prefix(err, status, "query %zu: ", i) : status;
    }
    return VECDB_OK;
}

/* A walk for a large part of all rows costs more than looking at all of them. */
#define GRAPH_MOST_SHARE 8

/* What serves the search, or NULL: every row is looked at. */
static struct vdb_served *choose_graph(const struct search *search, uint64_t k, uint64_t n_rows)
{
    const vecdb_query *query = search->query;
    if (query->exact || query->recall >= 1 || k > n_rows / GRAPH_MOST_SHARE)
        return NULL;
    return vdb_index_get(search->collection, search->view, search->field);
}

/* Statistics then say "hnsw". *is_done false: a query found too few, look at all rows. */
static int run_graph(struct search *search, const struct vdb_search *parameters, uint64_t n_rows, bool *is_done,
                     vecdb_error *err)
{
    search->graph = (struct vdb_graph_request){.db = search->collection->db,
                                               .view = search->view,
                                               .field = search->field,
                                               .recall = search->query->recall,
                                               .ef = search->query->ef};
    *is_done = false;
    struct vdb_served *served = choose_graph(search, parameters->k, n_rows);
    if (!served)
        return VECDB_OK;
    search->graph.served = served;
    int status = vdb_search_graph(&search->graph, parameters, &search->answer, err);
    *is_done = !status && !search->graph.is_short;
    if (!status && !*is_done)
        vdb_answer_release(parameters->memory, &search->answer);
    if (!*is_done)
        search->graph = (struct vdb_graph_request){0};
    search->n_decoded = search->graph.n_decoded;
    vdb_served_release(served);
    return status;
}

static int run_index(struct search *search, vecdb_error *err)
{
    vecdb *db = search->collection->db;
    const vecdb_query *query = search->query;
    const struct vdb_view_field *field = search->field;
    struct vdb_view_blocks source;
    struct vdb_blocks blocks;
    vdb_view_get_blocks(&source, field, &blocks);
    uint64_t k = (uint64_t)query->k + query->offset, n_rows = field->n_paged_rows + field->n_tail_rows;
    if (k > n_rows)
        k = n_rows ? n_rows : 1;
    bool has_dead = vdb_slots_count(search->view->dead->set) > 0;
    struct vdb_search parameters = {.kernels = db->kernels,
                                    .memory = &db->memory,
                                    .pool = db->pool,
                                    .n_threads = query->threads ? query->threads : vdb_pool_size(db->pool),
                                    .metric = field->row.metric,
                                    .type = field->row.type,
                                    .dimension = field->row.dimension,
                                    .queries = search->vectors,
                                    .n_queries = search->n_queries,
                                    .k = (uint32_t)k,
                                    .dead = has_dead ? search->view->dead->set : NULL,
                                    .stop = vdb_stop_check,
                                    .stop_context = &search->stop};
    bool is_done;
    int status = run_graph(search, &parameters, n_rows, &is_done, err);
    if (!status && !is_done) {
        status = vdb_flat_search(&parameters, &blocks, &search->answer, err);
        search->n_decoded = atomic_load(&source.n_decoded);
    }
    search->has_answer = !status;
    return status;
}

/* ------------------------------------------------------------------ hits to results */

struct ranked {
    double distance;
    uint32_t slot;
    vecdb_key key;
};

static int compare_keys(const vecdb_key *a, const vecdb_key *b)
{
    if (!a->text || !b->text)
        return a->text ? 1 : b->text ? -1 : a->integer < b->integer ? -1 : a->integer > b->integer;
    size_t n = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, n);
    return order ? order : a->length < b->length ? -1 : a->length > b->length;
}

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *left = a, *right = b;
    if (left->distance != right->distance)
        return left->distance < right->distance ? -1 : 1;
    return compare_keys(&left->key, &right->key);
}

/* Put the hits' keys into `keys`; AGAIN when a record has died in between. */
static int find_keys(struct search *search, const struct vdb_hit *hits, size_t n, vecdb_key *keys,
                     struct vdb_arena *arena, vecdb_error *err)
{
    struct vdb_keys *column = &search->collection->keys;
    vecdb *db = search->collection->db;
    uint64_t store = search->view->row.store;
    uint32_t missing;
    int status;
    if (!n || vdb_keys_get(column, store, &hits[0].slot, sizeof *hits, n, keys, arena, &missing, &status, err))
        return n ? status : VECDB_OK;
    struct vdb_connection *c = search->c;
    struct vdb_collection_row row;
    uint64_t sequence;
    bool is_there = true, is_complete = false;
    if (!c && (status = vdb_read_begin(db->catalog, &c, &sequence, err)))
        return status;
    if (!search->c) { /* the collection may have been dropped or renumbered since the view was made */
        status = vdb_collection_read(c, search->collection->id, &row, &is_there, err);
        is_there = !status && is_there && row.store == store;
    }
    if (is_there)
        is_complete = vdb_keys_load(column, c, store, &hits[0].slot, sizeof *hits, n, keys, arena, &missing, &status,
                                    err);
    if (!search->c)
        vdb_read_end(c);
    if (status || is_complete)
        return status;
    if (!search->c)
        return AGAIN;
    return vdb_fail(err, VECDB_CORRUPT, "%s: slot %u of collection \"%s\" has a vector but no record", db->path,
                    missing, search->view->row.name);
}

/* One query's hits, ordered, cut, and appended to the results. */
static int rank(struct search *search, size_t q, struct ranked *ranked, size_t *n_items, vecdb_error *err)
{
    const struct vdb_answer *answer = &search->answer;
    const struct vdb_hit *hits = answer->hits + answer->first[q];
    size_t n = answer->first[q + 1] - answer->first[q];
    for (size_t i = 0; i < n; i++)
        ranked[i] = (struct ranked){.distance = hits[i].distance, .slot = hits[i].slot};
    bool has_ties = false;
    for (size_t i = 1; i < n; i++)
        has_ties |= ranked[i].distance == ranked[i - 1].distance;
    vecdb_key *keys = (vecdb_key *)(void *)(ranked + n); /* behind the ranked, see collect */
    int status = find_keys(search, hits, n, keys, &search->results->arena, err);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++)
        ranked[i].key = keys[i];
    if (has_ties)
        qsort(ranked, n, sizeof *ranked, compare_ranked);
    size_t offset = search->query->offset, end = offset + search->query->k;
    for (size_t i = offset; i < n && i < end; i++) {
        struct vdb_item *item = &search->results->items[(*n_items)++];
        *item = (struct vdb_item){
            .key = ranked[i].key, .distance = ranked[i].distance, .slot = ranked[i].slot, .found = true};
    }
    search->results->first[q + 1] = *n_items;
    return VECDB_OK;
}

static int collect(struct search *search, vecdb_error *err)
{
    const struct vdb_answer *answer = &search->answer;
    struct vdb_memory *memory = &search->collection->db->memory;
    size_t largest = 0, n_items = 0, total = 0;
    for (size_t q = 0; q < search->n_queries; q++) {
        size_t n = answer->first[q + 1] - answer->first[q];
        largest = n > largest ? n : largest;
        total += n < search->query->offset              ? 0
                 : n - search->query->offset > search->query->k ? search->query->k
                                                                : n - search->query->offset;
    }
    int status = vdb_results_new(memory, total, search->n_queries, &search->results, err);
    if (status)
        return status;
    search->results->metric = search->field->row.metric;
    search->results->dimension = search->field->row.dimension;
    struct ranked *ranked = vdb_alloc_array(memory, largest + 1, sizeof *ranked + sizeof(vecdb_key));
    if (!ranked)
        return vdb_fail_memory(err, largest * sizeof *ranked);
    for (size_t q = 0; q < search->n_queries && !status; q++)
        status = rank(search, q, ranked, &n_items, err);
    vdb_free(memory, ranked);
    return status;
}

struct fill {
    vecdb_results *results;
    struct vdb_item *item;
    bool was_there;
    vecdb_error *err;
};

static int fill_item(void *context, const struct vdb_record_row *row)
{
    struct fill *fill = context;
    fill->was_there = true;
    return vdb_results_fill(fill->results, fill->item, row, fill->err);
}

static int fetch_columns(struct search *search, vecdb_error *err)
{
    vecdb_results *results = search->results;
    int status = VECDB_OK;
    if (search->c && search->columns & (VECDB_METADATA | VECDB_TEXT))
        for (size_t i = 0; i < results->n_items && !status; i++) {
            struct fill fill = {results, &results->items[i], false, err};
            status = vdb_records_read(search->c, search->view->row.store, results->items[i].slot, search->columns,
                                      fill_item, &fill, err);
            if (!status && !fill.was_there)
                status = vdb_fail(err, VECDB_CORRUPT, "%s: slot %u of collection \"%s\" has a vector but no record",
                                  search->collection->db->path, results->items[i].slot, search->view->row.name);
        }
    if (!status && search->columns & VECDB_VECTORS)
        status = vdb_results_fetch_vectors(results, search->view, err);
    return status;
}

static void take_statistics(struct search *search)
{
    vecdb_search_stats *stats = &search->results->stats;
    *stats = (vecdb_search_stats){.n_distances = search->answer.n_distances,
                                  .n_rescored = search->answer.n_rescored,
                                  .n_pages = search->answer.n_blocks,
                                  .n_decoded = search->n_decoded,
                                  .bytes_scored = search->answer.bytes_scored,
                                  .elapsed_ns = vdb_now_ns() - search->started_ns,
                                  .sequence = search->sequence,
                                  .plan = search->graph.served ? "hnsw" : "flat",
                                  .simd = search->collection->db->kernels->name,
                                  .n_expanded = search->graph.n_expanded,
                                  .n_reranked = search->graph.n_reranked,
                                  .n_scanned = search->graph.n_scanned,
                                  .ef = search->graph.used_ef};
}

/* ------------------------------------------------------------------ one attempt, and the call */

static int attempt(struct search *search, bool with_transaction, vecdb_error *err)
{
    vecdb *db = search->collection->db;
    int status = vdb_view_acquire(search->collection, &search->view, with_transaction ? &search->c : NULL,
                                  &search->sequence, err);
    if (status)
        return status;
    bool needs_rows = search->columns & (VECDB_METADATA | VECDB_TEXT) && search->view->row.has_documents;
    if (needs_rows && !search->c)
        status = AGAIN;
    if (!status)
        status = vdb_view_field(search->view, search->query->field, &search->field, err);
    if (!status)
        status = convert_queries(search, err);
    if (!status)
        status = run_index(search, err);
    if (!status)
        status = collect(search, err);
    if (!status)
        status = fetch_columns(search, err);
    if (!status)
        take_statistics(search);
    if (search->c)
        vdb_read_end(search->c);
    vdb_free_aligned(&db->memory, search->vectors);
    if (search->has_answer)
        vdb_answer_release(&db->memory, &search->answer);
    vdb_view_release(search->view);
    if (status)
        vecdb_results_free(search->results);
    search->c = NULL;
    search->vectors = NULL;
    search->has_answer = false;
    search->view = NULL;
    return status;
}

int vecdb_search(vecdb_collection *collection, const vecdb_query *query, vecdb_results **results, vecdb_error *err)
{
    if (!collection || !results)
        return vdb_fail(err, VECDB_MISUSE, "the collection handle, or the place for the results, is NULL");
    int status = vdb_database_check(collection->db, err);
    if (status)
        return status;
    struct search search = {.collection = collection, .started_ns = vdb_now_ns()};
    if ((status = check_query(&search, query, err)))
        return status;
    vdb_stop_init(&search.stop, collection->db, search.own.timeout_ms);
    status = attempt(&search, false, err);
    if (status == AGAIN) {
        search.results = NULL;
        status = attempt(&search, true, err);
    }
    if (!status)
        *results = search.results;
    return status;
}

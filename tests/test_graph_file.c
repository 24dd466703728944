/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: a graph that was saved and loaded, as a base or as a base with deltas, gives the very bytes that it was
 * saved as when it is saved again; bytes that are cut off at any length are CORRUPT, and those with a byte changed are
 * CORRUPT or make a graph that can be saved and be given more rows.
 */
#include <stdio.h>

#include "base/random.h"
#include "harness.h"
#include "index/graph.h"

#define DIMENSION 24u
#define ROWS 700u

static struct vdb_memory memory;
static vecdb_error error;

struct bytes {
    unsigned char *at;
    size_t n, room;
};

static int append(void *context, const void *bytes, size_t n, vecdb_error *err)
{
    struct bytes *to = context;
    (void)err;
    CHECK(to->n + n <= to->room);
    memcpy(to->at + to->n, bytes, n);
    to->n += n;
    return VECDB_OK;
}

static struct bytes room_for(uint64_t n)
{
    struct bytes bytes = {vdb_alloc(&memory, n), 0, n};
    CHECK(bytes.at);
    return bytes;
}

static struct bytes save_base(struct vdb_graph *graph)
{
    struct bytes bytes = room_for(vdb_graph_base_bytes(graph));
    CHECK_OK(error, vdb_graph_save_base(graph, append, &bytes, &error));
    CHECK(bytes.n == bytes.room);
    return bytes;
}

static struct bytes save_delta(struct vdb_graph *graph)
{
    struct bytes bytes = room_for(vdb_graph_delta_bytes(graph));
    CHECK_OK(error, vdb_graph_save_delta(graph, append, &bytes, &error));
    CHECK(bytes.n == bytes.room);
    return bytes;
}

static struct vdb_graph_options options_of(int metric)
{
    return (struct vdb_graph_options){.memory = &memory,
                                      .kernels = vdb_kernels_choose(NULL),
                                      .metric = metric,
                                      .type = metric == VECDB_HAMMING ? VECDB_BIT : VECDB_F32,
                                      .dimension = DIMENSION,
                                      .seed = 5};
}

/* Rows first .. first + n - 1, one in five of which is equal to another. */
static void insert(struct vdb_graph *graph, int metric, uint32_t first, uint32_t n)
{
    static float rows[ROWS * DIMENSION];
    size_t row_bytes = metric == VECDB_HAMMING ? DIMENSION / 8 : DIMENSION * 4;
    for (uint32_t i = 0; i < n; i++) {
        struct vdb_random random = {(first + i) % 5 ? first + i : 3};
        for (uint32_t j = 0; j < row_bytes; j++)
            if (metric == VECDB_HAMMING)
                ((uint8_t *)rows)[i * row_bytes + j] = (uint8_t)vdb_random_below(&random, 256);
            else if (j < DIMENSION)
                rows[i * DIMENSION + j] = (float)vdb_random_unit(&random) - 0.3f;
    }
    struct vdb_run run = {first, 0};
    struct vdb_block block = {.rows = rows,
                              .stride = row_bytes,
                              .type = metric == VECDB_HAMMING ? VECDB_BIT : VECDB_F32,
                              .n_rows = n,
                              .runs = &run,
                              .n_runs = 1};
    CHECK_OK(error, vdb_graph_insert(graph, &block, 0, n, NULL, &error));
}

static void check_equal(struct vdb_graph *a, struct vdb_graph *b)
{
    struct bytes first = save_base(a), second = save_base(b);
    CHECK(first.n == second.n && !memcmp(first.at, second.at, first.n));
    vdb_free(&memory, first.at);
    vdb_free(&memory, second.at);
}

static void check_metric(int metric)
{
    struct vdb_graph_options options = options_of(metric);
    struct vdb_graph *graph, *loaded = NULL;
    CHECK_OK(error, vdb_graph_new(&options, ROWS, NULL, &graph, &error));
    for (uint32_t end = 0; end <= 300; end += 150) {
        if (end)
            insert(graph, metric, end - 150, 150);
        struct bytes base = save_base(graph);
        vdb_graph_saved(graph);
        vdb_graph_release(loaded);
        CHECK_OK(error, vdb_graph_load_base(&options, base.at, base.n, ROWS, &loaded, &error));
        check_equal(graph, loaded);
        vdb_free(&memory, base.at);
    }
    CHECK_OK(error, vdb_graph_seal(graph, &(struct vdb_graph_insert){.n_threads = 1}, &error));
    for (uint32_t first = 300; first < 600; first += 100) {
        insert(graph, metric, first, 100);
        struct bytes delta = save_delta(graph);
        uint32_t n_nodes;
        struct vdb_graph_info info;
        vdb_graph_describe(graph, &info);
        CHECK_OK(error, vdb_graph_delta_nodes(delta.at, delta.n, &n_nodes, &error));
        CHECK(n_nodes == info.n_nodes);
        vdb_graph_saved(graph);
        CHECK_OK(error, vdb_graph_load_delta(loaded, delta.at, delta.n, &error));
        check_equal(graph, loaded);
        CHECK(vdb_graph_load_delta(loaded, delta.at, delta.n, NULL) == VECDB_CORRUPT); /* it follows no more */
        vdb_free(&memory, delta.at);
    }
    insert(graph, metric, 600, 50);
    insert(loaded, metric, 600, 50);
    vdb_graph_release(loaded);
    vdb_graph_release(graph);
}

TEST(a_graph_and_its_deltas_are_loaded_as_they_were_saved)
{
    vdb_memory_init(&memory, NULL);
    static const int metrics[] = {VECDB_L2, VECDB_IP, VECDB_COSINE, VECDB_HAMMING};
    for (int i = 0; i < 4; i++)
        check_metric(metrics[i]);
}

TEST(bytes_that_are_cut_off_or_changed_are_refused_or_make_a_valid_graph)
{
    vdb_memory_init(&memory, NULL);
    struct vdb_random random = {test_seed()};
    for (int metric_of = 0; metric_of < 2; metric_of++) {
        int metric = metric_of ? VECDB_HAMMING : VECDB_L2;
        struct vdb_graph_options options = options_of(metric);
        struct vdb_graph *graph, *loaded;
        CHECK_OK(error, vdb_graph_new(&options, ROWS, NULL, &graph, &error));
        insert(graph, metric, 0, 60);
        struct bytes base = save_base(graph);
        vdb_graph_saved(graph);
        insert(graph, metric, 60, 30);
        struct bytes delta = save_delta(graph);
        for (size_t n = 0; n < base.n; n += n < 400 ? 1 : 37)
            CHECK(vdb_graph_load_base(&options, base.at, n, 0, &loaded, NULL) == VECDB_CORRUPT);
        for (int round = 0; round < 4000; round++) {
            struct bytes *hit = round % 2 ? &delta : &base;
            size_t at = vdb_random_below(&random, round % 3 ? 200 : (uint32_t)hit->n);
            unsigned char before = hit->at[at];
            hit->at[at] ^= (unsigned char)(1 + vdb_random_below(&random, 255));
            int status = vdb_graph_load_base(&options, base.at, base.n, 200, &loaded, NULL);
            CHECK(status == VECDB_OK || status == VECDB_CORRUPT);
            if (!status) {
                int next = vdb_graph_load_delta(loaded, delta.at, delta.n, NULL);
                CHECK(next == VECDB_OK || next == VECDB_CORRUPT || next == VECDB_FULL);
                if (!next && vdb_graph_end(loaded) == 90)
                    insert(loaded, metric, 90, 5);
                vdb_graph_release(loaded);
            }
            hit->at[at] = before;
        }
        vdb_free(&memory, base.at);
        vdb_free(&memory, delta.at);
        vdb_graph_release(graph);
    }
}

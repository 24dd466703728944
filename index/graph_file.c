/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_file.c - a graph as bytes: a base, and deltas that follow it (FORMAT.md, "Index files")
 *
 *     [ head : 256 ][ origin ][ links ][ codes ][ slots ][ copies ][ changed rows ][ layer 1 ] ... [ layer 7 ]
 *
 * A base and a delta have the same form: a piece says from how many nodes (of a layer, of further slots) to how many
 * it leads; a base begins at none. So a delta can follow only what it was made after. All numbers are little-endian.
 *
 *     origin    n_values floats; for hamming none
 *     links     rows of 32 node numbers, of the new nodes; codes, slots: likewise
 *     copies    {slot, node} of each further slot, in the order in which they came: chains are made anew
 *     changed   {node, row of 32}, of nodes that were there before, ascending
 *     layer     new rows of 16 links; new nodes; new `down`; then {number, row of 16} of rows that have changed
 *
 * Invariants
 *  1. Whoever frames the bytes checks their sums (lib/index_file.c). Here nothing is trusted all the same: every number
 *     is below its bound, every length is exact, no slot comes twice, rows name neither themselves nor a node twice.
 *     What is not checked is whether the graph is a good one: a bad one finds less, and reads nothing it must not.
 *  2. A graph that fails to load a delta is given up: it may be half applied.
 *  3. What is saved is read between insertions, while searches go on.
 *
 * Costs: writing is one pass over the arrays, without a copy of them. Loading copies each array once and looks at each
 * link and slot. Rejected: mapping links and codes privately. It would save that copy, but arrays have
 * room to grow and lie on huge pages (+5-16 % searches a second), which mapped files do not.
 */
#include "graph_private.h"

#include <math.h>

#include "base/bytes.h"
#include "base/error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are written as they lie in memory");

#define HEAD_BYTES 256u
#define MAGIC UINT64_C(0x3148505247424456) /* "VDBGRPH1" */
#define IS_TRAINED 1u
#define IS_AUGMENTED 2u
#define ROW_BYTES (VDB_GRAPH_DEGREE * 4u)
#define UPPER_BYTES (VDB_GRAPH_UPPER_DEGREE * 4u)
#define BUFFER_BYTES 16384u

struct span {
    uint32_t from, to, n_changed;
};

struct head {
    uint32_t flags, metric, type, dimension, n_values, stride;
    uint64_t seed, entry;
    float unit, length;
    uint32_t end;
    struct span nodes, copies, layers[VDB_GRAPH_LAYERS];
};

/* ------------------------------------------------------------------ lengths */

static uint64_t origin_bytes(const struct head *head)
{
    return head->metric == VECDB_HAMMING ? 0 : (uint64_t)head->n_values * 4;
}

static uint64_t piece_bytes(const struct head *head)
{
    uint64_t n = HEAD_BYTES + origin_bytes(head);
    uint64_t n_new = head->nodes.to - head->nodes.from;
    n += n_new * (ROW_BYTES + 4 + (uint64_t)head->stride);
    n += (uint64_t)(head->copies.to - head->copies.from) * 8;
    n += (uint64_t)head->nodes.n_changed * (4 + ROW_BYTES);
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++) {
        const struct span *layer = &head->layers[l];
        n += (uint64_t)(layer->to - layer->from) * (UPPER_BYTES + 8);
        n += (uint64_t)layer->n_changed * (4 + UPPER_BYTES);
    }
    return n;
}

static uint32_t count_dirty(_Atomic unsigned char *dirty, uint32_t n)
{
    uint32_t n_dirty = 0;
    for (uint32_t i = 0; i < n; i++)
        n_dirty += atomic_load_explicit(&dirty[i], memory_order_relaxed) != 0;
    return n_dirty;
}

static void describe(const struct vdb_graph *graph, bool is_base, struct head *head)
{
    const struct vdb_codec *codec = &graph->codec;
    *head = (struct head){
        .flags = (codec->is_trained ? IS_TRAINED : 0) | (codec->is_augmented ? IS_AUGMENTED : 0),
        .metric = (uint32_t)codec->metric,
        .type = (uint32_t)codec->type,
        .dimension = codec->dimension,
        .n_values = codec->n_values,
        .stride = (uint32_t)codec->stride4,
        .seed = graph->options.seed,
        .entry = atomic_load_explicit(&graph->entry, memory_order_acquire),
        .unit = codec->unit,
        .length = codec->length,
        .end = vdb_graph_end(graph),
        .nodes = {is_base ? 0 : graph->n_saved, atomic_load_explicit(&graph->n_nodes, memory_order_acquire), 0},
        .copies = {is_base ? 0 : graph->n_saved_entries,
                   atomic_load_explicit(&graph->n_entries, memory_order_acquire), 0},
    };
    head->nodes.n_changed = count_dirty(graph->dirty, head->nodes.from);
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++) {
        const struct vdb_graph_layer *layer = &graph->layers[l];
        uint32_t from = is_base ? 0 : graph->n_saved_upper[l];
        head->layers[l] = (struct span){from, atomic_load_explicit(&layer->n, memory_order_acquire),
                                        count_dirty(layer->dirty, from)};
    }
}

uint64_t vdb_graph_base_bytes(const struct vdb_graph *graph)
{
    struct head head;
    describe(graph, true, &head);
    return piece_bytes(&head);
}

uint64_t vdb_graph_delta_bytes(const struct vdb_graph *graph)
{
    struct head head;
    describe(graph, false, &head);
    return piece_bytes(&head);
}

/* ------------------------------------------------------------------ writing */

struct output {
    vdb_graph_write_fn write;
    void *context;
    vecdb_error *err;
    int status;
    size_t n;
    unsigned char buffer[BUFFER_BYTES];
};

static void flush(struct output *out)
{
    if (!out->status && out->n)
        out->status = out->write(out->context, out->buffer, out->n, out->err);
    out->n = 0;
}

static void put(struct output *out, const void *bytes, size_t n)
{
    if (n > BUFFER_BYTES - out->n)
        flush(out);
    if (n > BUFFER_BYTES) {
        if (!out->status)
            out->status = out->write(out->context, bytes, n, out->err);
    } else if (n) {
        memcpy(out->buffer + out->n, bytes, n);
        out->n += n;
    }
}

static void put_head(struct output *out, const struct head *head)
{
    unsigned char bytes[HEAD_BYTES] = {0};
    const uint32_t words[] = {head->flags, head->metric, head->type, head->dimension, head->n_values, head->stride};
    vdb_store_u64(bytes, MAGIC);
    for (uint32_t i = 0; i < 6; i++)
        vdb_store_u32(bytes + 8 + 4 * i, words[i]);
    vdb_store_u64(bytes + 32, head->seed);
    vdb_store_u64(bytes + 40, head->entry);
    memcpy(bytes + 48, &head->unit, 4);
    memcpy(bytes + 52, &head->length, 4);
    vdb_store_u32(bytes + 56, head->end);
    for (uint32_t i = 0; i < 2 + VDB_GRAPH_LAYERS; i++) {
        const struct span *span = i == 0 ? &head->nodes : i == 1 ? &head->copies : &head->layers[i - 2];
        vdb_store_u32(bytes + 64 + 12 * i, span->from);
        vdb_store_u32(bytes + 68 + 12 * i, span->to);
        vdb_store_u32(bytes + 72 + 12 * i, span->n_changed);
    }
    put(out, bytes, sizeof bytes);
}

static void put_changed(struct output *out, _Atomic unsigned char *dirty, uint32_t n, const void *links,
                        size_t row_bytes)
{
    for (uint32_t i = 0; i < n; i++)
        if (atomic_load_explicit(&dirty[i], memory_order_relaxed)) {
            put(out, &i, sizeof i);
            put(out, (const char *)links + i * row_bytes, row_bytes);
        }
}

static int save(struct vdb_graph *graph, bool is_base, vdb_graph_write_fn write, void *context, vecdb_error *err)
{
    struct head head;
    describe(graph, is_base, &head);
    struct output *out = vdb_alloc_zero(graph->options.memory, sizeof *out);
    if (!out)
        return vdb_fail_memory(err, sizeof *out);
    out->write = write;
    out->context = context;
    out->err = err;
    size_t from = head.nodes.from, n_new = head.nodes.to - head.nodes.from;
    put_head(out, &head);
    put(out, graph->codec.origin, origin_bytes(&head));
    put(out, (const char *)graph->links + from * ROW_BYTES, n_new * ROW_BYTES);
    put(out, graph->codes + from * head.stride, n_new * head.stride);
    put(out, graph->slots + from, n_new * 4);
    for (uint32_t i = head.copies.from; i < head.copies.to; i++) {
        const struct vdb_graph_entry *entry = vdb_graph_entry_at(graph, i);
        const uint32_t pair[2] = {entry->slot, entry->node};
        put(out, pair, sizeof pair);
    }
    put_changed(out, graph->dirty, head.nodes.from, (const void *)graph->links, ROW_BYTES);
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++) {
        const struct vdb_graph_layer *layer = &graph->layers[l];
        size_t first = head.layers[l].from, n = head.layers[l].to - first;
        put(out, (const char *)layer->links + first * UPPER_BYTES, n * UPPER_BYTES);
        put(out, layer->nodes + first, n * 4);
        put(out, layer->down + first, n * 4);
        put_changed(out, layer->dirty, head.layers[l].from, (const void *)layer->links, UPPER_BYTES);
    }
    flush(out);
    int status = out->status;
    vdb_free(graph->options.memory, out);
    return status;
}

int vdb_graph_save_base(struct vdb_graph *graph, vdb_graph_write_fn write, void *context, vecdb_error *err)
{
    return save(graph, true, write, context, err);
}

int vdb_graph_save_delta(struct vdb_graph *graph, vdb_graph_write_fn write, void *context, vecdb_error *err)
{
    return save(graph, false, write, context, err);
}

void vdb_graph_saved(struct vdb_graph *graph)
{
    graph->n_saved = atomic_load_explicit(&graph->n_nodes, memory_order_acquire);
    graph->n_saved_entries = atomic_load_explicit(&graph->n_entries, memory_order_acquire);
    memset((void *)graph->dirty, 0, graph->n_saved);
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++) {
        graph->n_saved_upper[l] = atomic_load_explicit(&graph->layers[l].n, memory_order_acquire);
        memset((void *)graph->layers[l].dirty, 0, graph->n_saved_upper[l]);
    }
}

/* ------------------------------------------------------------------ reading: the head */

static int fail_bytes(vecdb_error *err, const char *what)
{
    return vdb_fail(err, VECDB_CORRUPT, "the bytes of a graph index are damaged: %s; the index is to be built anew",
                    what);
}

static bool span_is_valid(const struct span *span, uint32_t limit)
{
    return span->from <= span->to && span->to <= limit && span->n_changed <= span->from;
}

static int read_head(const void *bytes, size_t n, struct head *head, vecdb_error *err)
{
    struct vdb_reader reader = vdb_reader_init(bytes, n);
    if (n < HEAD_BYTES || vdb_read_u64(&reader) != MAGIC)
        return fail_bytes(err, "there is no head");
    head->flags = vdb_read_u32(&reader);
    head->metric = vdb_read_u32(&reader);
    head->type = vdb_read_u32(&reader);
    head->dimension = vdb_read_u32(&reader);
    head->n_values = vdb_read_u32(&reader);
    head->stride = vdb_read_u32(&reader);
    head->seed = vdb_read_u64(&reader);
    head->entry = vdb_read_u64(&reader);
    memcpy(&head->unit, vdb_read_bytes(&reader, 4), 4);
    memcpy(&head->length, vdb_read_bytes(&reader, 4), 4);
    head->end = vdb_read_u32(&reader);
    vdb_read_u32(&reader);
    uint32_t limit = VDB_GRAPH_MAX_NODES;
    bool is_valid = true;
    for (uint32_t i = 0; i < 2 + VDB_GRAPH_LAYERS; i++) {
        struct span *span = i == 0 ? &head->nodes : i == 1 ? &head->copies : &head->layers[i - 2];
        span->from = vdb_read_u32(&reader);
        span->to = vdb_read_u32(&reader);
        span->n_changed = vdb_read_u32(&reader);
        is_valid = is_valid && span_is_valid(span, i == 1 ? VDB_GRAPH_MAX_NODES : limit);
        if (i != 1)
            limit = span->to; /* a layer has no more nodes than the one below */
    }
    if (!is_valid || head->copies.n_changed || (head->flags & ~(IS_TRAINED | IS_AUGMENTED)))
        return fail_bytes(err, "its counts cannot be");
    if (head->stride > (1u << 20) || head->n_values > (1u << 17) || piece_bytes(head) != n)
        return fail_bytes(err, "its length is not what its counts say");
    uint64_t layer = head->entry >> 32, number = head->entry & UINT32_MAX;
    bool is_empty = head->nodes.to == 0;
    if (is_empty ? head->entry != VDB_GRAPH_NO_ENTRY || head->copies.to
                 : layer > VDB_GRAPH_LAYERS || number >= (layer ? head->layers[layer - 1].to : head->nodes.to))
        return fail_bytes(err, "it begins nowhere");
    if (!isfinite(head->unit) || !(head->unit > 0) || !isfinite(head->length) || !(head->length >= 0) ||
        (!is_empty && !(head->flags & IS_TRAINED)))
        return fail_bytes(err, "its measures cannot be");
    return VECDB_OK;
}

int vdb_graph_delta_nodes(const void *bytes, size_t n, uint32_t *n_nodes, vecdb_error *err)
{
    struct head head;
    int status = read_head(bytes, n, &head, err);
    if (!status)
        *n_nodes = head.nodes.to;
    return status;
}

/* Do the bytes speak of this field? */
static int match(const struct vdb_graph *graph, const struct head *head, vecdb_error *err)
{
    const struct vdb_codec *codec = &graph->codec;
    if (head->metric != (uint32_t)codec->metric || head->type != (uint32_t)codec->type ||
        head->dimension != codec->dimension || head->n_values != codec->n_values ||
        head->stride != codec->stride4 || head->seed != graph->options.seed)
        return fail_bytes(err, "they are of another field");
    return VECDB_OK;
}

/* ------------------------------------------------------------------ reading: the arrays */

/* Is a row of links one that insertion makes: numbers below n, none twice, not its own, no gaps? */
static bool row_is_valid(const unsigned char *row, uint32_t degree, uint32_t self, uint32_t n)
{
    uint32_t links[VDB_GRAPH_DEGREE], n_links = 0, n_equal = 0;
    memcpy(links, row, degree * 4);
    while (n_links < degree && links[n_links] < n && links[n_links] != self)
        n_links++;
    for (uint32_t i = n_links; i < degree; i++)
        if (links[i] != VDB_NO_NODE)
            return false;
    for (uint32_t i = 0; i < degree; i++)
        for (uint32_t j = 0; j < degree; j++)
            n_equal += links[i] == links[j];
    return n_equal == n_links + (degree - n_links) * (degree - n_links);
}

static void store_row(_Atomic uint32_t *to, const unsigned char *row, uint32_t degree)
{
    for (uint32_t i = 0; i < degree; i++)
        atomic_store_explicit(&to[i], vdb_load_u32(row + 4 * i), memory_order_relaxed);
}

static bool load_rows(_Atomic uint32_t *links, uint32_t degree, const struct span *span, const unsigned char *rows)
{
    for (uint32_t i = span->from; i < span->to; i++, rows += degree * 4)
        if (!row_is_valid(rows, degree, i, span->to))
            return false;
    size_t n_bytes = (size_t)(span->to - span->from) * degree * 4;
    if (n_bytes)
        memcpy((char *)links + (size_t)span->from * degree * 4, rows - n_bytes, n_bytes);
    return true;
}

static bool load_changed(_Atomic uint32_t *links, uint32_t degree, const struct span *span, const unsigned char *at)
{
    uint64_t least = 0;
    for (uint32_t i = 0; i < span->n_changed; i++, at += 4 + degree * 4) {
        uint32_t number = vdb_load_u32(at);
        if (number < least || number >= span->from || !row_is_valid(at + 4, degree, number, span->to))
            return false;
        store_row(links + (size_t)number * degree, at + 4, degree);
        least = (uint64_t)number + 1;
    }
    return true;
}

static bool records_are_valid(const struct vdb_codec *codec, const unsigned char *records, size_t n)
{
    if (codec->bits_bytes)
        return true;
    for (size_t i = 0; i < n; i++, records += codec->stride4)
        for (int j = 0; j < 3; j++)
            if (!isfinite(vdb_record_float(records, codec->n_values / 2, j)))
                return false;
    return true;
}

/* A bit for each slot below `end`, of which only pages that have slots take memory. */
static bool take_slot(uint64_t *taken, uint32_t slot, uint32_t end)
{
    uint64_t bit = UINT64_C(1) << slot % 64;
    if (slot >= end || (taken[slot / 64] & bit))
        return false;
    taken[slot / 64] |= bit;
    return true;
}

static int load_slots(struct vdb_graph *graph, const struct head *head, const unsigned char *slots,
                      const unsigned char *copies, vecdb_error *err)
{
    uint32_t n_copies = head->copies.to - head->copies.from;
    size_t n_words = (size_t)head->end / 64 + 1;
    uint64_t *taken = vdb_alloc_zero(graph->options.memory, n_words * sizeof *taken);
    if (!taken)
        return vdb_fail_memory(err, n_words * sizeof *taken);
    bool is_valid = true;
    for (uint32_t i = 0; i < head->nodes.from && is_valid; i++)
        is_valid = take_slot(taken, graph->slots[i], head->end);
    for (uint32_t i = 0; i < head->copies.from && is_valid; i++)
        is_valid = take_slot(taken, vdb_graph_entry_at(graph, i)->slot, head->end);
    for (uint32_t i = head->nodes.from; i < head->nodes.to && is_valid; i++, slots += 4) {
        graph->slots[i] = vdb_load_u32(slots);
        atomic_store_explicit(&graph->chains[i], VDB_NO_NODE, memory_order_relaxed);
        is_valid = take_slot(taken, graph->slots[i], head->end);
    }
    int status = is_valid ? vdb_graph_reserve_entries(graph, head->copies.to, err) : VECDB_OK;
    for (uint32_t i = 0; i < n_copies && is_valid && !status; i++, copies += 8) {
        uint32_t slot = vdb_load_u32(copies), node = vdb_load_u32(copies + 4);
        is_valid = node < head->nodes.to && take_slot(taken, slot, head->end);
        if (is_valid)
            vdb_graph_chain(graph, node, slot);
    }
    vdb_free(graph->options.memory, taken);
    return is_valid ? status : fail_bytes(err, "a slot comes twice, or is none");
}

/* One layer's part; returns the byte behind it, NULL: it is damaged. */
static const unsigned char *load_layer(struct vdb_graph *graph, const struct head *head, uint32_t l,
                                       const unsigned char *at)
{
    struct vdb_graph_layer *layer = &graph->layers[l];
    const struct span *span = &head->layers[l];
    size_t n_new = span->to - span->from;
    const unsigned char *nodes = at + n_new * UPPER_BYTES, *down = nodes + n_new * 4, *changed = down + n_new * 4;
    if (!load_rows(layer->links, VDB_GRAPH_UPPER_DEGREE, span, at) ||
        !load_changed(layer->links, VDB_GRAPH_UPPER_DEGREE, span, changed))
        return NULL;
    for (size_t i = 0; i < n_new; i++) {
        uint32_t node = vdb_load_u32(nodes + 4 * i), below = vdb_load_u32(down + 4 * i);
        if (below >= (l ? head->layers[l - 1].to : head->nodes.to) ||
            node != (l ? graph->layers[l - 1].nodes[below] : below))
            return NULL;
        layer->nodes[span->from + i] = node;
        layer->down[span->from + i] = below;
    }
    atomic_store_explicit(&layer->n, span->to, memory_order_release);
    return changed + (size_t)span->n_changed * (4 + UPPER_BYTES);
}

static bool load_codec(struct vdb_codec *codec, const struct head *head, const unsigned char *origin)
{
    bool is_trained = head->flags & IS_TRAINED, is_augmented = head->flags & IS_AUGMENTED;
    if (codec->is_trained && !codec->bits_bytes) { /* a delta says again what its base has said */
        return is_trained && is_augmented == codec->is_augmented && head->unit == codec->unit &&
               head->length == codec->length && !memcmp(codec->origin, origin, origin_bytes(head));
    }
    if (codec->bits_bytes)
        return is_trained && !is_augmented;
    for (uint32_t i = 0; i < codec->n_values; i++) {
        float value;
        memcpy(&value, origin + 4 * (size_t)i, 4);
        if (!isfinite(value))
            return false;
    }
    memcpy(codec->origin, origin, origin_bytes(head));
    codec->is_trained = is_trained;
    codec->is_augmented = is_augmented;
    codec->unit = head->unit;
    codec->length = head->length;
    return true;
}

/* Everything behind the head, into a graph that has what the spans begin at, and room for what they end at. */
static int load_arrays(struct vdb_graph *graph, const struct head *head, const unsigned char *at, vecdb_error *err)
{
    size_t from = head->nodes.from, n_new = head->nodes.to - from, stride = head->stride;
    const unsigned char *links = at + origin_bytes(head), *codes = links + n_new * ROW_BYTES;
    const unsigned char *slots = codes + n_new * stride, *copies = slots + n_new * 4;
    const unsigned char *changed = copies + (size_t)(head->copies.to - head->copies.from) * 8;
    if (!load_codec(&graph->codec, head, at))
        return fail_bytes(err, "its origin cannot be");
    if (!load_rows(graph->links, VDB_GRAPH_DEGREE, &head->nodes, links) ||
        !load_changed(graph->links, VDB_GRAPH_DEGREE, &head->nodes, changed))
        return fail_bytes(err, "a row of links cannot be");
    if (!records_are_valid(&graph->codec, codes, n_new))
        return fail_bytes(err, "a code cannot be");
    if (n_new)
        memcpy(graph->codes + from * stride, codes, n_new * stride);
    int status = load_slots(graph, head, slots, copies, err);
    const unsigned char *layer = changed + (size_t)head->nodes.n_changed * (4 + ROW_BYTES);
    for (uint32_t l = 0; !status && l < VDB_GRAPH_LAYERS; l++)
        if (!(layer = load_layer(graph, head, l, layer)))
            status = fail_bytes(err, "a layer cannot be");
    if (status)
        return status;
    atomic_store_explicit(&graph->n_nodes, head->nodes.to, memory_order_release);
    atomic_store_explicit(&graph->entry, head->entry, memory_order_release);
    atomic_store_explicit(&graph->end, head->end, memory_order_release);
    atomic_fetch_add_explicit(&graph->changes, 1, memory_order_relaxed);
    vdb_graph_saved(graph);
    return VECDB_OK;
}

/* Does every layer have room? */
static bool has_room(const struct vdb_graph *graph, const struct head *head)
{
    bool fits = head->nodes.to <= graph->capacity;
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++)
        fits = fits && head->layers[l].to <= graph->layers[l].capacity;
    return fits;
}

/* ------------------------------------------------------------------ loading */

int vdb_graph_load_base(const struct vdb_graph_options *options, const void *bytes, size_t n, uint32_t capacity,
                        struct vdb_graph **out, vecdb_error *err)
{
    struct head head;
    struct vdb_graph *graph = NULL;
    int status = read_head(bytes, n, &head, err);
    if (status)
        return status;
    if (head.nodes.from || head.copies.from)
        return fail_bytes(err, "a delta is where a base belongs");
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++)
        if (head.layers[l].from)
            return fail_bytes(err, "a delta is where a base belongs");
    /* A layer may have come to more nodes than a graph of so few has room for: by chance, as levels are drawn. */
    uint64_t room = capacity > head.nodes.to ? capacity : head.nodes.to, most = 4 * room + 4096;
    if (options->budget && options->budget->limit) { /* a copy to grow into may not fit: take what there is now */
        uint64_t wanted = room + room / 8 + 1024;
        wanted = wanted < VDB_GRAPH_MAX_NODES ? wanted : VDB_GRAPH_MAX_NODES;
        uint32_t fits = vdb_graph_room(options, NULL, (uint32_t)wanted, false);
        room = fits > room ? fits : room;
    }
    do {
        vdb_graph_release(graph);
        graph = NULL;
        if (room > most || room > VDB_GRAPH_MAX_NODES)
            return fail_bytes(err, "its layers are too large");
        status = vdb_graph_new(options, (uint32_t)room, NULL, &graph, err);
        room += room / 4 + 64;
    } while (!status && !has_room(graph, &head));
    if (!status)
        status = match(graph, &head, err);
    if (!status)
        status = load_arrays(graph, &head, (const unsigned char *)bytes + HEAD_BYTES, err);
    if (status) {
        vdb_graph_release(graph);
        return status;
    }
    *out = graph;
    return VECDB_OK;
}

int vdb_graph_load_delta(struct vdb_graph *graph, const void *bytes, size_t n, vecdb_error *err)
{
    struct head head;
    int status = read_head(bytes, n, &head, err);
    if (!status)
        status = match(graph, &head, err);
    if (status)
        return status;
    bool follows = head.nodes.from == graph->n_saved && head.copies.from == graph->n_saved_entries &&
                   head.nodes.from == atomic_load_explicit(&graph->n_nodes, memory_order_acquire) &&
                   head.copies.from == atomic_load_explicit(&graph->n_entries, memory_order_acquire) &&
                   head.end >= vdb_graph_end(graph);
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++)
        follows = follows && head.layers[l].from == graph->n_saved_upper[l];
    if (!follows)
        return fail_bytes(err, "a delta does not follow what is before it");
    if (!has_room(graph, &head))
        return vdb_fail(err, VECDB_FULL, "a graph index of room for %u vectors has no room for a delta to %u",
                        graph->capacity, head.nodes.to);
    return load_arrays(graph, &head, (const unsigned char *)bytes + HEAD_BYTES, err);
}

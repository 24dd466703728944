/* SPDX-License-Identifier: Apache-2.0
 *
 * examples/first.c - the program of README.md: make a database, store two records, ask a question
 *
 *     cc -std=c11 first.c $(pkg-config --cflags --libs vecdb) -o first && ./first
 *
 * The vectors come from an embedding model, as a rule, and have some hundred dimensions.
 */
#include <stdio.h>
#include <vecdb.h>

int main(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    vecdb_collection *notes;
    vecdb_results *hits;
    vecdb_field field = {.name = "text", .dimension = 4, .metric = VECDB_COSINE};
    float sails[] = {0.9f, 0.1f, 0.0f, 0.3f}, bread[] = {0.0f, 0.8f, 0.5f, 0.1f}, question[] = {0.7f, 0.2f, 0.1f, 0.3f};
    vecdb_record records[] = {
        {.key = VECDB_KEY_TEXT("moon-7"), .vector = sails, .metadata = "{\"year\": 2024}", .text = "Solar sails at L1"},
        {.key = VECDB_KEY_TEXT("bread-1"), .vector = bread, .metadata = "{\"year\": 2019}", .text = "A slow dough"},
    };
    vecdb_query query = {.size = sizeof query, .vector = question, .k = 5};

    if (vecdb_open("notes.vecdb", NULL, &db, &err) ||
        vecdb_collection_create(db, "notes", &field, 1, VECDB_IF_MISSING, &notes, &err) ||
        vecdb_put(notes, records, 2, &err) || /* on disk, and found by every search from here on */
        vecdb_search(notes, &query, &hits, &err))
        return fprintf(stderr, "%s\n", err.message), 1;
    for (size_t i = 0; i < vecdb_results_count(hits); i++)
        printf("%-8s %.3f  %s\n", vecdb_result_key_text(hits, i), vecdb_result_score(hits, i),
               vecdb_result_text(hits, i));
    vecdb_results_free(hits);
    vecdb_close(db);
}

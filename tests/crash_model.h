/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_model.h - what a database has to hold after a crash, as a number
 *
 *     model     collections, fields, and of each record its key, a version, which vectors it has
 *     digest    one hash for each collection, field, record and vector, all added up
 *
 * Everything in a record follows from its key and version, so the model is small, and is copied for every step
 * of a workload. The digest of a model and that of a database (read through the public interface) are
 * the same number exactly when both hold the same. A sum, so that what is added to a database afterwards
 * can be added to the number too.
 */
#ifndef VDB_TESTS_CRASH_MODEL_H
#define VDB_TESTS_CRASH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vecdb.h"

#define CRASH_MOST_TABLES 4u
#define CRASH_MOST_FIELDS 3u
#define CRASH_MOST_ROWS 1600u
#define CRASH_MOST_SERIALS 30u /* fields that a collection ever has */
#define CRASH_NAME_BYTES 24u
#define CRASH_MOST_VECTOR_BYTES 512u
#define CRASH_FAT_BYTES 200000u
#define CRASH_MOST_SNAPSHOTS 2u

struct crash_field {
    char name[CRASH_NAME_BYTES];
    uint32_t serial; /* never the same again in its collection: which vectors are in it */
    uint32_t dimension;
    int type, metric, compression, index;
};

struct crash_row {
    int64_t key;
    uint32_t version;
    uint32_t vectors; /* bit i: it has one in the field of serial i */
    bool is_text;     /* the key */
    bool is_fat;      /* its text has CRASH_FAT_BYTES */
};

struct crash_table {
    char name[CRASH_NAME_BYTES];
    struct crash_field fields[CRASH_MOST_FIELDS];
    uint32_t n_fields, n_serials;
    struct crash_row rows[CRASH_MOST_ROWS];
    uint32_t n_rows;
};

struct crash_snapshot {
    char name[CRASH_NAME_BYTES];
    uint64_t digest;
};

struct crash_model {
    struct crash_table tables[CRASH_MOST_TABLES];
    uint32_t n_tables;
    struct crash_snapshot snapshots[CRASH_MOST_SNAPSHOTS];
    uint32_t n_snapshots;
    uint32_t n_names, n_versions; /* given out */
};

struct crash_model *crash_model_copy(const struct crash_model *model);
void crash_model_free(struct crash_model *model);

struct crash_row *crash_model_find(struct crash_table *table, int64_t key, bool is_text);
void crash_model_remove(struct crash_table *table, struct crash_row *row);
/* The row of a key, new or not; NULL: no room. */
struct crash_row *crash_model_put(struct crash_table *table, int64_t key, bool is_text);

/* A row as the library is given it. Pointers go to `words`. */
struct crash_words {
    char key[32], metadata[64];
    char *text; /* owned; NULL: none */
    unsigned char vectors[CRASH_MOST_FIELDS][CRASH_MOST_VECTOR_BYTES];
    vecdb_vector columns[CRASH_MOST_FIELDS];
};
void crash_row_spell(const struct crash_table *table, const struct crash_row *row, struct crash_words *words,
                     vecdb_record *record);
void crash_words_release(struct crash_words *words);

/* The records and schema alone, and with the snapshots. */
uint64_t crash_model_data_digest(const struct crash_model *model);
uint64_t crash_model_digest(const struct crash_model *model);
uint64_t crash_snapshot_digest(const char *name, uint64_t data_digest);

/* The same of a database, by reading all of it. On the way, one collection is searched, exactly and as its index does
 * it, and the answers are compared with one that is computed from the records. Fails the test when anything fails. */
uint64_t crash_database_digest(vecdb *db, uint64_t seed);

/* What a collection of that name, those fields and rows adds to a digest. */
uint64_t crash_table_digest(const struct crash_table *table);

#endif

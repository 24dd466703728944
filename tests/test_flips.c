/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_flips.c - damage on the disk is told, and never changes an answer
 *
 * A small database with all that a database can have: vectors in raw, narrow and planes pages and in the
 * tail, dead slots, metadata and texts, commits that are only in the WAL. Its writer is killed, its files
 * are kept. Each trial damages a copy of one file, opens it, and asks everything there is to be asked
 * (lists, scans, gets, exact searches). The properties:
 *   1. Each answer is the answer of the undamaged database, or the error CORRUPT, whose sentence names
 *      the damaged file. (The WAL counts as a part of catalog.sqlite.)
 *   2. When a question could not be answered, vecdb_check() reports a problem.
 *   3. Nothing crashes, nothing hangs. Trials run in processes of their own, each with a time limit.
 *
 * Damage is: one bit of a byte, the bits taking turns; the file cut off; the file gone; the file as it was
 * some commits ago; two files exchanged. (Not tried: an older catalog.sqlite beneath a newer WAL. Each page
 * of it is whole, and nothing tells that it is not the newest. Files are restored together.) All bytes are
 * tried when VECDB_TEST_ROUNDS, the number of flips, is large enough; else every n-th, from a place that
 * the seed chooses.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fault_tools.h"

#define TRIAL_LIMIT_S 20u
#define N_WORKERS 2
#define MOST_FAILURES 25

/* ------------------------------------------------------------------ the database */

#define N_COLLECTIONS 5
#define MOST_DIMENSION 64

static const struct shape {
    const char *name;
    size_t n_fields;
    vecdb_field fields[2];
} shapes[N_COLLECTIONS] = {
    {"raw", 1, {{.name = "v", .dimension = 8, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_NONE}}},
    {"narrow", 1, {{.name = "v", .dimension = 16, .metric = VECDB_L2}}},
    {"planes", 1, {{.name = "v", .dimension = 32, .metric = VECDB_COSINE, .compression = VECDB_COMPRESSION_MAX}}},
    {"bits", 1, {{.name = "v", .dimension = 64, .type = VECDB_BIT}}},
    {"two", 2, {{.name = "half", .dimension = 12, .type = VECDB_F16, .metric = VECDB_IP},
                {.name = "byte", .dimension = 10, .type = VECDB_I8, .metric = VECDB_L2}}},
};

/* A vector as a caller gives it: floats, or bytes for bits. */
static void make_vector(const struct shape *shape, size_t f, int64_t key, unsigned version, void *out)
{
    const vecdb_field *field = &shape->fields[f];
    struct vdb_random random = {(uint64_t)key * 1000 + version * 17 + f};
    bool is_whole = !strcmp(shape->name, "narrow") || field->type == VECDB_I8;
    for (uint32_t i = 0; i < field->dimension; i++) {
        if (field->type == VECDB_BIT)
            ((unsigned char *)out)[i / 8] = (unsigned char)vdb_random_next(&random);
        else if (is_whole)
            ((float *)out)[i] = (float)(int)vdb_random_below(&random, 100);
        else
            ((float *)out)[i] = (float)vdb_random_unit(&random) + 0.01f;
    }
}

static void put_rows(vecdb *db, const struct shape *shape, int first, int n, unsigned version)
{
    static float values[2][200][MOST_DIMENSION];
    static vecdb_vector vectors[200][2];
    static vecdb_record records[200];
    static char metadata[200][80], texts[200][40];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    CHECK_OK(err, vecdb_collection_open(db, shape->name, &collection, &err));
    for (int i = 0; i < n; i++) {
        for (size_t f = 0; f < shape->n_fields; f++) {
            make_vector(shape, f, first + i, version, values[f][i]);
            vectors[i][f] =
                (vecdb_vector){.field = shape->fields[f].name,
                               .values = values[f][i],
                               .type = shape->fields[f].type == VECDB_BIT ? VECDB_BIT : VECDB_F32};
        }
        snprintf(metadata[i], sizeof metadata[i], "{\"number\": %d, \"version\": %u}", first + i, version);
        snprintf(texts[i], sizeof texts[i], "passage %d", first + i);
        records[i] = (vecdb_record){
            .key = vecdb_key_int(first + i), .vectors = vectors[i], .n_vectors = shape->n_fields};
        records[i].metadata = metadata[i];
        records[i].text = texts[i];
    }
    CHECK_OK(err, vecdb_put(collection, records, (size_t)n, &err));
}

static void delete_rows(vecdb *db, const struct shape *shape, int first, int n)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_key keys[200];
    CHECK_OK(err, vecdb_collection_open(db, shape->name, &collection, &err));
    for (int i = 0; i < n; i++)
        keys[i] = vecdb_key_int(first + i);
    CHECK_OK(err, vecdb_delete(collection, keys, (size_t)n, NULL, &err));
}

static void tell_parent(int fd)
{
    char byte = 0;
    CHECK_INT(write(fd, &byte, 1), 1);
    CHECK_INT(read(fd, &byte, 1), 1);
}

/* The life of the database up to the kill; the parent keeps its files at two moments. */
static void build(const char *path, int fd)
{
    vecdb *db = open_database(path, VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    vecdb_error err = VECDB_ERROR_INIT;
    for (int s = 0; s < N_COLLECTIONS; s++)
        CHECK_OK(err, vecdb_collection_create(db, shapes[s].name, shapes[s].fields, shapes[s].n_fields, 0, NULL, &err));
    for (int s = 0; s < N_COLLECTIONS; s++)
        put_rows(db, &shapes[s], 0, 60, 1);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    put_rows(db, &shapes[0], 60, 3, 1);
    tell_parent(fd); /* the older files */
    for (int s = 0; s < N_COLLECTIONS; s++) {
        put_rows(db, &shapes[s], 100, 20, 1);
        put_rows(db, &shapes[s], 50, 5, 2);
    }
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    for (int s = 0; s < N_COLLECTIONS; s++) { /* from here on, only in the WAL */
        delete_rows(db, &shapes[s], 10, 4);
        put_rows(db, &shapes[s], 20, 2, 3);
        put_rows(db, &shapes[s], 200, 6, 1);
    }
    tell_parent(fd); /* and is killed */
}

static struct kept_files whole, older;

static void make_database(void)
{
    const char *path = test_path("original");
    int fds[2];
    char byte;
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    pid_t child = fork();
    if (!child) {
        build(path, fds[1]);
        _exit(0);
    }
    CHECK_INT(read(fds[0], &byte, 1), 1);
    keep_files(path, &older);
    CHECK_INT(write(fds[0], &byte, 1), 1);
    CHECK_INT(read(fds[0], &byte, 1), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    keep_files(path, &whole);
    CHECK(kept_file(&whole, "catalog.sqlite-wal")->n_bytes > 4096);
}

/* ------------------------------------------------------------------ questions */

struct answer {
    int status;
    vecdb_error error;
    size_t n_bytes;
    unsigned char bytes[60000];
};

static void say(struct answer *answer, const void *bytes, size_t n_bytes)
{
    size_t room = sizeof answer->bytes - answer->n_bytes;
    memcpy(answer->bytes + answer->n_bytes, bytes, n_bytes < room ? n_bytes : room);
    answer->n_bytes += n_bytes < room ? n_bytes : room;
}

static void say_results(struct answer *answer, const struct shape *shape, vecdb_results *results)
{
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        double distance = vecdb_result_distance(results, i);
        int64_t key = vecdb_result_key(results, i).integer;
        const char *metadata = vecdb_result_metadata(results, i, NULL), *text = vecdb_result_text(results, i);
        say(answer, &key, sizeof key);
        say(answer, &distance, sizeof distance);
        if (metadata)
            say(answer, metadata, strlen(metadata));
        if (text)
            say(answer, text, strlen(text));
        for (size_t f = 0; f < shape->n_fields; f++) {
            static const size_t bits[] = {0, 32, 16, 16, 8, 8, 1};
            uint32_t dimension = 0;
            int type = 0;
            const void *vector = vecdb_result_vector(results, i, shape->fields[f].name, &dimension, &type);
            if (vector)
                say(answer, vector, dimension * bits[type] / 8);
        }
    }
}

static int list_one(void *context, const vecdb_collection_info *info)
{
    say(context, info->name, strlen(info->name));
    say(context, &info->n_records, sizeof info->n_records);
    for (size_t f = 0; f < info->n_fields; f++) {
        const vecdb_field_info *field = &info->fields[f];
        say(context, field->field.name, strlen(field->field.name));
        say(context, &field->field.dimension, sizeof field->field.dimension);
        say(context, &field->n_vectors, sizeof field->n_vectors);
    }
    return 0;
}

#define ALL_COLUMNS (VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS)

static int scan_all(vecdb_collection *collection, const struct shape *shape, struct answer *answer)
{
    vecdb_scan_options options = {.size = sizeof options, .columns = ALL_COLUMNS};
    vecdb_scan *scan;
    size_t n = 1;
    int status = vecdb_scan_open(collection, &options, &scan, &answer->error);
    if (status)
        return status;
    while (n) {
        vecdb_results *results;
        if ((status = vecdb_scan_next(scan, &results, &answer->error)))
            break;
        n = vecdb_results_count(results);
        say_results(answer, shape, results);
        vecdb_results_free(results);
    }
    vecdb_scan_close(scan);
    return status;
}

static int get_some(vecdb_collection *collection, const struct shape *shape, struct answer *answer)
{
    static const vecdb_key keys[] = {VECDB_KEY_INT(0), VECDB_KEY_INT(11), VECDB_KEY_INT(21), VECDB_KEY_INT(52),
                                     VECDB_KEY_INT(119), VECDB_KEY_INT(203), VECDB_KEY_INT(999)};
    vecdb_results *results;
    int status = vecdb_get(collection, keys, 7, ALL_COLUMNS, &results, &answer->error);
    if (status)
        return status;
    say_results(answer, shape, results);
    vecdb_results_free(results);
    return VECDB_OK;
}

static int search_field(vecdb_collection *collection, const struct shape *shape, size_t f, struct answer *answer)
{
    static float queries[3][MOST_DIMENSION];
    for (int q = 0; q < 3; q++)
        make_vector(shape, f, 15 + q * 95, 1, queries[q]);
    vecdb_query query = {.size = sizeof query,
                         .field = shape->fields[f].name,
                         .vector = queries,
                         .n_queries = 3,
                         .stride = sizeof queries[0],
                         .k = 12,
                         .exact = 1,
                         .columns = ALL_COLUMNS};
    vecdb_results *results;
    int status = vecdb_search(collection, &query, &results, &answer->error);
    if (status)
        return status;
    say_results(answer, shape, results);
    vecdb_results_free(results);
    return VECDB_OK;
}

/* All that there is to be asked: question 0 is the list, then four for each collection. */
#define N_QUESTIONS (1 + 4 * N_COLLECTIONS)

static bool ask(vecdb *db, int question, struct answer *answer)
{
    const struct shape *shape = &shapes[question ? (question - 1) / 4 : 0];
    vecdb_collection *collection;
    int what = question ? (question - 1) % 4 : -1;
    answer->n_bytes = 0;
    answer->error = (vecdb_error)VECDB_ERROR_INIT;
    if (what == 3 && shape->n_fields < 2)
        return false;
    if (what < 0)
        answer->status = vecdb_collections(db, list_one, answer, &answer->error);
    else if (!(answer->status = vecdb_collection_open(db, shape->name, &collection, &answer->error)))
        answer->status = what == 0   ? scan_all(collection, shape, answer)
                         : what == 1 ? get_some(collection, shape, answer)
                                     : search_field(collection, shape, (size_t)what - 2, answer);
    return true;
}

static struct answer *truth; /* N_QUESTIONS of the undamaged database */

/* ------------------------------------------------------------------ trials */

enum kind { FLIP, CUT, MISSING, OLDER, EXCHANGED };
static const char *const kind_names[] = {"flip", "cut", "missing", "older", "exchanged"};

struct damage {
    enum kind kind;
    size_t file, other; /* in `whole`, as copied from `older` */
    size_t at;          /* byte, or length */
    int bit;
};

/* What processes share while they run is not a file of the format. */
static bool is_damaged(const struct kept_file *file)
{
    return strcmp(file->name, "catalog.sqlite-shm") != 0;
}

/* What workers and their parent share. */
struct progress {
    _Atomic unsigned n_failures, n_told, n_at_open, n_right, n_unnoticed;
    _Atomic size_t current[N_WORKERS];
};
static struct progress *progress;

static const char *describe(const struct damage *damage)
{
    static char text[200];
    snprintf(text, sizeof text, "%s %s at %zu bit %d (other: %s)", kind_names[damage->kind],
             whole.files[damage->file].name, damage->at, damage->bit, whole.files[damage->other].name);
    return text;
}

__attribute__((format(printf, 2, 3))) static void report(const struct damage *damage, const char *format, ...)
{
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    progress->n_failures++;
    fprintf(stderr, "    %s: %s\n", describe(damage), text);
    fflush(stderr);
}

static void write_damaged(const char *directory, const struct damage *damage)
{
    struct kept_files files = whole;
    struct kept_file *file = &files.files[damage->file], *other = &files.files[damage->other];
    unsigned char *byte = file->bytes + damage->at;
    switch (damage->kind) {
    case FLIP:
        *byte ^= (unsigned char)(1 << damage->bit);
        break;
    case CUT:
        file->n_bytes = damage->at;
        break;
    case MISSING:
        *file = files.files[--files.n];
        break;
    case OLDER:
        *file = *kept_file(&older, file->name);
        break;
    case EXCHANGED:
        file->bytes = whole.files[damage->other].bytes;
        file->n_bytes = whole.files[damage->other].n_bytes;
        other->bytes = whole.files[damage->file].bytes;
        other->n_bytes = whole.files[damage->file].n_bytes;
        break;
    }
    restore_files(directory, &files);
    if (damage->kind == FLIP)
        *byte ^= (unsigned char)(1 << damage->bit);
}

static bool names_file(const char *sentence, const char *name)
{
    char part[64];
    snprintf(part, sizeof part, "%s", name);
    if (!strcmp(part, "catalog.sqlite-wal"))
        part[strlen("catalog.sqlite")] = 0;
    return strstr(sentence, part) != NULL;
}

/* A directory without a catalog, or with an empty one, is no database. */
static bool is_gone(const struct damage *damage, int status)
{
    return status == VECDB_NOT_FOUND && !strcmp(whole.files[damage->file].name, "catalog.sqlite") &&
           (damage->kind == MISSING || (damage->kind == CUT && damage->at < 2));
}

/* A WAL of which nothing but the header is left looks, to SQLite in a process that may not write, as if the
 * WAL's index were being changed all the time: it gives up as it does before a lock. */
static bool is_cut_to_header(const struct damage *damage, int status)
{
    return status == VECDB_BUSY && !strcmp(whole.files[damage->file].name, "catalog.sqlite-wal") &&
           damage->kind == CUT;
}

/* Is this an error that says what is wrong? */
static void judge_error(const struct damage *damage, const char *what, int status, const vecdb_error *err)
{
    bool is_named = names_file(err->message, whole.files[damage->file].name) ||
                    (damage->kind == EXCHANGED && names_file(err->message, whole.files[damage->other].name));
    bool is_fitting = status == VECDB_CORRUPT || is_gone(damage, status) || is_cut_to_header(damage, status) ||
                      (status == VECDB_IO && damage->kind == MISSING); /* a read-only open cannot make a WAL */
    if (!is_fitting || err->status != status)
        report(damage, "%s: %s: %s", what, vecdb_status_name(status), err->message);
    else if (!is_named && !is_gone(damage, status))
        report(damage, "%s: the sentence does not name the file: %s", what, err->message);
}

static void judge_check(const struct damage *damage, vecdb *db, int n_errors)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems = 0;
    int status = vecdb_check(db, NULL, NULL, NULL, &n_problems, &err);
    if (status)
        judge_error(damage, "check", status, &err);
    else if (!n_problems && n_errors)
        report(damage, "%d questions were not answered, and check finds nothing", n_errors);
    else if (!n_problems)
        progress->n_unnoticed++;
}

static void run_trial(const char *directory, const struct damage *damage, unsigned manner)
{
    static struct answer answer;
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    int n_errors = 0;
    options.mode = manner % 3 == 1 ? VECDB_OPEN_READONLY : VECDB_OPEN_CREATE;
    options.io = manner % 3 == 2 ? VECDB_IO_READ : VECDB_IO_AUTO;
    write_damaged(directory, damage);
    int status = vecdb_open(directory, &options, &db, &err);
    if (status) {
        progress->n_at_open++;
        judge_error(damage, "open", status, &err);
        return;
    }
    for (int question = 0; question < N_QUESTIONS; question++) {
        char what[32];
        snprintf(what, sizeof what, "question %d", question);
        if (!ask(db, question, &answer))
            continue;
        n_errors += answer.status != 0;
        if (answer.status)
            judge_error(damage, what, answer.status, &answer.error);
        else if (answer.n_bytes != truth[question].n_bytes ||
                 memcmp(answer.bytes, truth[question].bytes, answer.n_bytes))
            report(damage, "%s: another answer, without an error", what);
    }
    if (n_errors)
        progress->n_told++;
    else
        progress->n_right++;
    judge_check(damage, db, n_errors);
    vecdb_close(db);
}

static void count_one(void *context, const char *path, const char *name)
{
    char target[512];
    ssize_t n = readlink(path, target, sizeof target - 1);
    (void)name;
    if (n > 0 && (target[n] = 0, strstr(target, "/copy")))
        ++*(unsigned *)context;
}

/* Nothing of the database is open any more. */
static void check_closed(const struct damage *damage)
{
    unsigned n_open = 0;
    each_name("/proc/self/fd", count_one, &n_open);
    if (n_open)
        report(damage, "%u files are open after close", n_open);
}

static void work(unsigned worker, const struct damage *damages, size_t first, size_t n)
{
    char name[32], directory[512];
    snprintf(name, sizeof name, "copy%u", worker);
    snprintf(directory, sizeof directory, "%s", test_path(name));
    for (size_t i = first; i < n && progress->n_failures < MOST_FAILURES; i += N_WORKERS) {
        progress->current[worker] = i;
        test_time_limit(TRIAL_LIMIT_S);
        run_trial(directory, &damages[i], (unsigned)(i / N_WORKERS));
        check_closed(&damages[i]);
    }
    fflush(NULL);
    _exit(0);
}

static void run_trials(const struct damage *damages, size_t n)
{
    pid_t children[N_WORKERS];
    for (unsigned w = 0; w < N_WORKERS; w++) {
        children[w] = fork();
        if (!children[w])
            work(w, damages, w, n);
    }
    for (unsigned w = 0; w < N_WORKERS;) {
        int status = 0;
        CHECK_INT(waitpid(children[w], &status, 0), children[w]);
        if (!status) {
            w++;
            continue;
        }
        size_t at = progress->current[w];
        report(&damages[at], "the process ended with signal %d, status %d", WTERMSIG(status), WEXITSTATUS(status));
        children[w] = fork(); /* the trials that are left */
        if (!children[w])
            work(w, damages, at + N_WORKERS, n);
    }
    fprintf(stderr,
            "    %zu trials: %u failed to open, %u answered with errors, %u with all that was asked (check found "
            "nothing in %u)\n",
            n, progress->n_at_open, progress->n_told, progress->n_right, progress->n_unnoticed);
    if (progress->n_failures)
        FAIL("%u failures in %zu trials", progress->n_failures, n);
}

static void begin(void)
{
    test_time_limit(7200);
    mount_memory(test_directory(), "size=64m"); /* or not: it is only faster */
    progress = mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(progress != MAP_FAILED);
    make_database();
    truth = vdb_alloc(tool_memory(), N_QUESTIONS * sizeof *truth);
    CHECK(truth);
    restore_files(test_path("truth"), &whole);
    vecdb *db = open_database(test_path("truth"), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    for (int question = 0; question < N_QUESTIONS; question++)
        if (ask(db, question, &truth[question]))
            CHECK_OK(truth[question].error, truth[question].status);
    check_database(db, "undamaged");
    vecdb_close(db);
}

/* ------------------------------------------------------------------ the tests */

TEST(a_flipped_bit_in_any_file_is_told_or_changes_nothing)
{
    begin();
    size_t n_bytes = 0, n = 0, at = 0;
    for (size_t f = 0; f < whole.n; f++)
        n_bytes += is_damaged(&whole.files[f]) ? whole.files[f].n_bytes : 0;
    size_t step = n_bytes / test_rounds(3000);
    if (!step)
        step = 1;
    struct damage *damages = vdb_alloc_array(tool_memory(), n_bytes / step + whole.n + 1, sizeof *damages);
    CHECK(damages);
    size_t next = (size_t)(test_seed() % step);
    for (size_t f = 0; f < whole.n; f++)
        for (size_t i = 0; is_damaged(&whole.files[f]) && i < whole.files[f].n_bytes; i++, at++)
            if (at == next) {
                damages[n++] = (struct damage){.kind = FLIP, .file = f, .at = i, .bit = (int)((at / step + i) % 8)};
                next += step;
            }
    run_trials(damages, n);
    vdb_free(tool_memory(), damages);
    CHECK(progress->n_told && progress->n_at_open);
}

TEST(a_file_that_was_cut_off_is_told_or_changes_nothing)
{
    static struct damage damages[MOST_FILES * 40];
    size_t n = 0;
    begin();
    for (size_t f = 0; f < whole.n; f++) {
        size_t length = whole.files[f].n_bytes;
        size_t lengths[] = {0,          1,          31,         32,         100,        4095,       4096,
                            4097,       length / 2, length - 1, length - 2, length - 9, length * 2 / 3 / 4096 * 4096,
                            length / 4, length / 3, length - 64, length - 4096, length - 4120, length - 8240};
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
            for (int again = 0; again < 3; again++) /* in each of the manners */
                if (lengths[i] < length && is_damaged(&whole.files[f]))
                    damages[n++] = (struct damage){.kind = CUT, .file = f, .at = lengths[i]};
    }
    run_trials(damages, n);
}

TEST(a_file_that_is_gone_or_older_or_anothers_is_told_or_changes_nothing)
{
    static struct damage damages[MOST_FILES * MOST_FILES * 4];
    size_t n = 0;
    begin();
    for (int again = 0; again < 4; again++)
        for (size_t f = 0; f < whole.n; f++) {
            if (!is_damaged(&whole.files[f]))
                continue;
            damages[n++] = (struct damage){.kind = MISSING, .file = f};
            if (kept_file(&older, whole.files[f].name) && strcmp(whole.files[f].name, "catalog.sqlite"))
                damages[n++] = (struct damage){.kind = OLDER, .file = f};
            for (size_t other = f + 1; other < whole.n; other++)
                if (is_damaged(&whole.files[other]))
                    damages[n++] = (struct damage){.kind = EXCHANGED, .file = f, .other = other};
        }
    run_trials(damages, n);
}

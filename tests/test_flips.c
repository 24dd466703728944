/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_flips.c - damage on the disk is told, and never changes an answer
 *
 * A small database with all that a database can have (flip_database.h), and with what crashes leave, has its files
 * kept. Each trial damages a copy of one file, opens it, and asks everything there is to be asked (lists, scans, gets,
 * exact searches; of the snapshot, when a file of that is damaged). The properties:
 *   1. Each answer is the answer of the undamaged database, or the error CORRUPT, whose sentence names
 *      the damaged file. (The WAL counts as a part of catalog.sqlite.)
 *   2. When a question could not be answered, vecdb_check() reports a problem.
 *   3. Nothing crashes, nothing hangs. Trials run in processes of their own, each with a time limit.
 *   4. A changed byte is noticed by the open or by a question; or vecdb_check() reports a problem and names the
 *      file; or it is healed: after a writable open and a compaction the check finds nothing, and all files are, byte
 *      for byte, what they become without the damage. One kind of byte may be none of these, and the test knows
 *      which ones they are: those that failed commits left behind the extents of a vector file. No commit ever
 *      gave them a value. After the compaction the check finds nothing and every answer is the right one, be it
 *      that they are gone, or lie in a gap of an extent that has grown over them and are under its check.
 *   5. An index file holds nothing that cannot be made anew. So, where one is damaged, all is answered, and rightly,
 *      searches with the graph included; the check names the file, until the index was waited for by one who may write.
 *
 * Damage is: one byte changed (a bit, the bits taking turns; or all of it, to 0x00 and to 0xff); the file cut off; the
 * file gone; the file as it was some commits ago; two files exchanged. (Not tried: an older catalog.sqlite beneath a
 * newer WAL. Each page of it is whole, and nothing tells that it is not the newest. Files are restored together.)
 * All bytes and all lengths are tried when VECDB_TEST_ROUNDS is large enough; else every n-th, from a place that the
 * seed chooses.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "flip_database.h"

#define TRIAL_LIMIT_S 20u
#define N_WORKERS 4 /* a damaged page is read again and again, with pauses */
#define MOST_FAILURES 25
#define N_MANNERS 3 /* of opening: for writing, for reading, without maps */

static struct kept_files whole, older;
static struct answer *truth, *snapshot_truth; /* N_QUESTIONS of the undamaged database, and of its snapshot */
static struct kept_files healed[N_MANNERS];   /* what the files become, undamaged */


/* ------------------------------------------------------------------ trials */

enum kind { FLIP, CUT, MISSING, OLDER, EXCHANGED };
static const char *const kind_names[] = {"flip", "cut", "missing", "older", "exchanged"};

struct damage {
    enum kind kind;
    size_t file, other; /* in `whole`, as copied from `older` */
    size_t at;          /* byte, or length */
    unsigned char mask; /* FLIP: the bits that change */
};

/* What processes share while they run is not a file of the format. */
static bool is_damaged(const struct kept_file *file)
{
    return !strstr(file->name, "-shm");
}

/* What workers and their parent share. */
enum { AT_OPEN, BY_QUESTION, BY_CHECK, HEALED, DEBRIS, N_OUTCOMES };
static const char *const outcome_names[N_OUTCOMES] = {"at open", "question", "check", "healed", "debris"};

struct progress {
    _Atomic unsigned n_failures, n_told, n_at_open, n_right, n_unnoticed;
    _Atomic unsigned outcomes[MOST_FILES][N_OUTCOMES]; /* of flips, by file */
    _Atomic size_t current[N_WORKERS];
};
static struct progress *progress;

static const char *describe(const struct damage *damage)
{
    static char text[200];
    snprintf(text, sizeof text, "%s %s at %zu mask %02x (other: %s)", kind_names[damage->kind],
             whole.files[damage->file].name, damage->at, damage->mask, whole.files[damage->other].name);
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
        *byte ^= damage->mask;
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
    restore_tree(directory, &files);
    if (damage->kind == FLIP)
        *byte ^= damage->mask;
}

static bool names_file(const char *sentence, const char *name)
{
    char part[64];
    const char *slash = strchr(name, '/');
    snprintf(part, sizeof part, "%s", slash ? slash + 1 : name);
    if (!strcmp(part, "catalog.sqlite-wal"))
        part[strlen("catalog.sqlite")] = 0;
    return strstr(sentence, part) != NULL;
}

/* A directory without a catalog, or with an empty one, is no database. */
static bool is_gone(const struct damage *damage, int status)
{
    return status == VECDB_NOT_FOUND && strstr(whole.files[damage->file].name, "catalog.sqlite") &&
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

struct seen_problems {
    const struct damage *damage;
    bool is_named;
};

static void see_problem(void *context, const vecdb_problem *problem)
{
    struct seen_problems *seen = context;
    const char *name = whole.files[seen->damage->file].name;
    size_t n = strlen(name);
    if (n > 4 && !strcmp(name + n - 4, "-wal"))
        n -= 4;
    seen->is_named |= !strncmp(problem->file, name, n) || strstr(problem->message, name);
}

/* True: it found something. */
static bool judge_check(const struct damage *damage, vecdb *db, int n_errors)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct seen_problems seen = {.damage = damage};
    uint64_t n_problems = 0;
    int status = vecdb_check(db, NULL, see_problem, &seen, &n_problems, &err);
    if (status)
        judge_error(damage, "check", status, &err);
    else if (!n_problems && n_errors)
        report(damage, "%d questions were not answered, and check finds nothing", n_errors);
    else if (n_problems && !seen.is_named && damage->kind == FLIP)
        report(damage, "check finds something, and does not name the file");
    else if (!n_problems)
        progress->n_unnoticed++;
    return status || n_problems;
}

static int open_copy(const char *directory, unsigned manner, const char *snapshot, vecdb **db, vecdb_error *err)
{
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE, .snapshot = snapshot};
    options.mode = manner % N_MANNERS == 1 || snapshot ? VECDB_OPEN_READONLY : VECDB_OPEN_CREATE;
    options.io = manner % N_MANNERS == 2 ? VECDB_IO_READ : VECDB_IO_AUTO;
    return vecdb_open(directory, &options, db, err);
}

/* What is done to a database that has to be healed. */
static void heal(const char *directory)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_database(directory, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    check_database(db, "after healing");
    vecdb_close(db);
}

/* Where two files differ, or SIZE_MAX. */
static size_t difference(const struct kept_file *a, const struct kept_file *b)
{
    size_t n = a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes;
    for (size_t i = 0; i < n; i++)
        if (a->bytes[i] != b->bytes[i])
            return i;
    return a->n_bytes == b->n_bytes ? SIZE_MAX : n;
}

/* All questions; how many were not answered. */
static int ask_all(const struct damage *damage, vecdb *db, const struct answer *right)
{
    static struct answer answer;
    int n_errors = 0;
    for (int question = 0; question < N_QUESTIONS; question++) {
        char what[32];
        snprintf(what, sizeof what, "question %d", question);
        if (!flip_ask(db, question, &answer))
            continue;
        n_errors += answer.status != 0;
        if (answer.status)
            judge_error(damage, what, answer.status, &answer.error);
        else if (answer.n_bytes != right[question].n_bytes ||
                 memcmp(answer.bytes, right[question].bytes, answer.n_bytes))
            report(damage, "%s: another answer, without an error", what);
    }
    return n_errors;
}

/* Nobody has noticed this flip. Then it has to go away by itself, or to be in bytes that mean nothing. */
static void judge_healing(const char *directory, const struct damage *damage, unsigned manner)
{
    const char *name = whole.files[damage->file].name;
    const struct kept_files *wanted = &healed[manner % N_MANNERS];
    vecdb_error err = VECDB_ERROR_INIT;
    struct kept_files found;
    vecdb *db;
    bool is_debris = flip_is_debris(name, damage->at);
    heal(directory);
    progress->outcomes[damage->file][is_debris ? DEBRIS : HEALED]++;
    if (is_debris) {
        CHECK_OK(err, open_copy(directory, manner, NULL, &db, &err));
        if (ask_all(damage, db, truth))
            report(damage, "debris, and questions are not answered");
        vecdb_close(db);
        return;
    }
    keep_tree(directory, &found);
    if (found.n != wanted->n)
        report(damage, "after healing there are %zu files, not %zu", found.n, wanted->n);
    for (size_t i = 0; i < found.n && found.n == wanted->n; i++) {
        size_t at = is_damaged(&wanted->files[i]) ? difference(&found.files[i], &wanted->files[i]) : SIZE_MAX;
        if (at != SIZE_MAX)
            report(damage, "nobody noticed it, and it is not healed: %s differs at %zu", found.files[i].name, at);
    }
    free_kept(&found);
}

static bool is_index(const struct kept_file *file)
{
    return !strncmp(file->name, "index-", 6);
}

/* Nothing but an index file is damaged. */
static void run_index_trial(const char *directory, const struct damage *damage, unsigned manner, vecdb *db)
{
    const char *name = whole.files[damage->file].name;
    bool is_told = judge_check(damage, db, 0), counts = !strcmp(name, FLIP_INDEX) && !flip_is_debris(name, damage->at);
    if (is_told != counts)
        report(damage, "check finds %s", is_told ? "something where nothing is" : "nothing");
    if (ask_all(damage, db, truth))
        report(damage, "questions are not answered, for want of an index file");
    progress->n_right++;
    bool is_told_again = judge_check(damage, db, 0);
    if (is_told && is_told_again != (manner % N_MANNERS == 1))
        report(damage, "when the index was built again, check finds %s", is_told_again ? "something" : "nothing");
    vecdb_close(db);
    if (is_told)
        progress->outcomes[damage->file][BY_CHECK]++;
    else if (damage->kind == FLIP)
        judge_healing(directory, damage, manner);
}

static void run_trial(const char *directory, const struct damage *damage, unsigned manner)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db, *snapshot = NULL;
    int n_errors;
    write_damaged(directory, damage);
    int status = open_copy(directory, manner, NULL, &db, &err);
    if (status) {
        progress->n_at_open++;
        progress->outcomes[damage->file][AT_OPEN]++;
        judge_error(damage, "open", status, &err);
        return;
    }
    if (is_index(&whole.files[damage->file]) && (damage->kind != EXCHANGED || is_index(&whole.files[damage->other]))) {
        run_index_trial(directory, damage, manner, db);
        return;
    }
    n_errors = ask_all(damage, db, truth);
    if (!strncmp(whole.files[damage->file].name, "snapshot-", 9)) {
        status = open_copy(directory, manner, FLIP_SNAPSHOT, &snapshot, &err);
        if (status)
            judge_error(damage, "the snapshot", status, &err);
        n_errors += status ? 1 : ask_all(damage, snapshot, snapshot_truth);
        vecdb_close(status ? NULL : snapshot);
    }
    if (n_errors)
        progress->n_told++;
    else
        progress->n_right++;
    bool is_found = judge_check(damage, db, n_errors);
    vecdb_close(db);
    if (n_errors || is_found)
        progress->outcomes[damage->file][n_errors ? BY_QUESTION : BY_CHECK]++;
    else if (damage->kind == FLIP)
        judge_healing(directory, damage, manner);
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

/* Flips by file and by who noticed them. */
static void print_outcomes(void)
{
    unsigned sums[N_OUTCOMES] = {0};
    size_t n_bytes = 0;
    fprintf(stderr, "    %-28s%10s", "flips in", "bytes");
    for (int o = 0; o < N_OUTCOMES; o++)
        fprintf(stderr, "%10s", outcome_names[o]);
    for (size_t f = 0; f <= whole.n; f++) {
        if (f < whole.n && !is_damaged(&whole.files[f]))
            continue;
        n_bytes += f < whole.n ? whole.files[f].n_bytes : 0;
        fprintf(stderr, "\n    %-28s%10zu", f < whole.n ? whole.files[f].name : "all",
                f < whole.n ? whole.files[f].n_bytes : n_bytes);
        for (int o = 0; o < N_OUTCOMES; o++) {
            sums[o] += f < whole.n ? progress->outcomes[f][o] : 0;
            fprintf(stderr, "%10u", f < whole.n ? progress->outcomes[f][o] : sums[o]);
        }
    }
    fputc('\n', stderr);
}

static void learn_truth(vecdb *db, struct answer *answers, const char *plan)
{
    for (int question = 0; question < N_QUESTIONS; question++)
        if (flip_ask(db, question, &answers[question]))
            CHECK_OK(answers[question].error, answers[question].status);
    flip_check_graph(answers, plan);
    check_database(db, "undamaged");
    vecdb_close(db);
}

static void begin(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    test_time_limit(36000);
    mount_memory(test_directory(), "size=64m"); /* or not: it is only faster */
    progress = mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(progress != MAP_FAILED);
    flip_make(&whole, &older);
    truth = vdb_alloc(tool_memory(), N_QUESTIONS * sizeof *truth);
    snapshot_truth = vdb_alloc(tool_memory(), N_QUESTIONS * sizeof *truth);
    CHECK(truth && snapshot_truth);
    restore_tree(test_path("truth"), &whole);
    CHECK_OK(err, open_copy(test_path("truth"), 0, NULL, &db, &err));
    learn_truth(db, truth, "hnsw");
    CHECK_OK(err, open_copy(test_path("truth"), 0, FLIP_SNAPSHOT, &db, &err));
    learn_truth(db, snapshot_truth, "flat");
    for (unsigned manner = 0; manner < N_MANNERS; manner++) { /* the same steps as a trial's */
        static struct answer answer;
        restore_tree(test_path("truth"), &whole);
        CHECK_OK(err, open_copy(test_path("truth"), manner, NULL, &db, &err));
        for (int question = 0; question < N_QUESTIONS; question++)
            flip_ask(db, question, &answer);
        check_database(db, "undamaged");
        vecdb_close(db);
        heal(test_path("truth"));
        keep_tree(test_path("truth"), &healed[manner]);
    }
}

/* ------------------------------------------------------------------ the tests */

/* Bits by turns, then the whole byte: 0x00, 0xff. */
static unsigned char mask_for(unsigned char byte, size_t turn)
{
    if (turn % 10 < 8)
        return (unsigned char)(1 << turn % 10);
    unsigned char mask = turn % 10 == 8 ? byte : (unsigned char)~byte;
    return mask ? mask : 0xff;
}

/* Every n-th byte, or length, of all files. */
static size_t choose_places(enum kind kind, unsigned long n_wanted, struct damage **out)
{
    size_t n_bytes = 0, n = 0, at = 0;
    for (size_t f = 0; f < whole.n; f++)
        n_bytes += is_damaged(&whole.files[f]) ? whole.files[f].n_bytes : 0;
    size_t step = n_bytes / n_wanted;
    if (!step)
        step = 1;
    struct damage *damages = vdb_alloc_array(tool_memory(), n_bytes / step + whole.n + 1, sizeof *damages);
    CHECK(damages);
    size_t next = (size_t)(test_seed() % step), turn = (size_t)test_seed();
    for (size_t f = 0; f < whole.n; f++)
        for (size_t i = 0; is_damaged(&whole.files[f]) && i < whole.files[f].n_bytes; i++, at++)
            if (at == next) {
                unsigned char mask = mask_for(whole.files[f].bytes[i], turn++);
                damages[n++] = (struct damage){.kind = kind, .file = f, .at = i, .mask = mask};
                next += step;
            }
    *out = damages;
    return n;
}

TEST(a_changed_byte_in_any_file_is_told_or_healed_and_changes_no_answer)
{
    struct damage *damages;
    begin();
    size_t n = choose_places(FLIP, test_rounds(3000), &damages);
    run_trials(damages, n);
    print_outcomes();
    vdb_free(tool_memory(), damages);
    CHECK(progress->n_told && progress->n_at_open);
}

TEST(a_changed_byte_in_what_crashes_leave_is_healed_or_means_nothing)
{
    static struct damage damages[2000];
    size_t n = 0;
    begin();
    for (size_t f = 0; f < whole.n; f++) {
        const struct kept_file *file = &whole.files[f];
        for (size_t i = 0; i < file->n_bytes; i++) {
            bool is_wal_end = !strcmp(file->name, "catalog.sqlite-wal") && i + 2 * 4120 >= file->n_bytes && i % 41 == 0;
            bool is_unnamed = i % 11 == 0 && (!strcmp(file->name, "vectors-1-9") || !strcmp(file->name, "index-7-9"));
            CHECK(n < sizeof damages / sizeof damages[0]);
            if (is_wal_end || is_unnamed || (flip_is_debris(file->name, i) && i % 13 == 0))
                damages[n++] =
                    (struct damage){.kind = FLIP, .file = f, .at = i, .mask = mask_for(file->bytes[i], n)};
        }
    }
    run_trials(damages, n);
    print_outcomes();
    unsigned n_healed = 0, n_debris = 0;
    for (size_t f = 0; f < whole.n; f++) {
        n_healed += progress->outcomes[f][HEALED];
        n_debris += progress->outcomes[f][DEBRIS];
    }
    CHECK(n_healed > 200 && n_debris > 400);
    CHECK_INT(n_healed + n_debris, n);
}

TEST(a_file_that_was_cut_off_is_told_or_changes_nothing)
{
    static struct damage damages[MOST_FILES * 60];
    struct damage *places;
    size_t n = 0;
    begin();
    for (size_t f = 0; f < whole.n; f++) {
        size_t length = whole.files[f].n_bytes;
        size_t lengths[] = {0,          1,          31,         32,         100,        4095,       4096,
                            4097,       length / 2, length - 1, length - 2, length - 9, length * 2 / 3 / 4096 * 4096,
                            length / 4, length / 3, length - 64, length - 4096, length - 4120, length - 8240};
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
            for (int again = 0; again < N_MANNERS; again++)
                if (lengths[i] < length && is_damaged(&whole.files[f]))
                    damages[n++] = (struct damage){.kind = CUT, .file = f, .at = lengths[i]};
    }
    run_trials(damages, n);
    n = choose_places(CUT, test_rounds(300), &places);
    run_trials(places, n);
    vdb_free(tool_memory(), places);
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

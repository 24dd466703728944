/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/repair_tell.c - what a repair says of what it did (see repair.h)
 *
 * Every loss is counted, few are told one by one: records that follow each other and lose the same are one
 * sentence, with the first key and the last. A record between them that loses nothing ends the run, so that a
 * range never covers a record that is whole.
 */
#include "repair.h"

#include <stdarg.h>
#include <stdio.h>

#define MOST_KEY_BYTES 60

void vdb_repair_tell(struct vdb_repair *repair, int kind, const char *file, const char *collection, const char *format,
                     ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    vecdb_problem problem = {.file = file, .message = message, .kind = kind, .collection = collection};
    repair->n_lost += kind == VECDB_PROBLEM_LOST;
    if (repair->each)
        repair->each(repair->context, &problem);
}

/* A key as it is read: long ones cut between characters, bytes below a space as dots. */
static void print_key(const vecdb_key *key, char *out, size_t room)
{
    if (!key->text) {
        snprintf(out, room, "%lld", (long long)key->integer);
        return;
    }
    size_t n = key->length < MOST_KEY_BYTES ? key->length : MOST_KEY_BYTES;
    while (n && n < key->length && ((unsigned char)key->text[n] & 0xc0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)key->text[i] < ' ' ? '.' : key->text[i];
    snprintf(out + n, room - n, "%s", n < key->length ? "..." : "");
}

void vdb_repair_run_end(struct vdb_repair *repair, struct vdb_repair_run *run, const char *collection)
{
    char field[VECDB_MAX_NAME + 16] = "";
    if (!run->n)
        return;
    if (run->field)
        snprintf(field, sizeof field, " \"%.100s\"", run->field);
    if (run->n == 1)
        vdb_repair_tell(repair, run->kind, "catalog.sqlite", collection, "%.100s: record %s %s%s", collection,
                        run->first_key, run->verbs[0], field);
    else
        vdb_repair_tell(repair, run->kind, "catalog.sqlite", collection, "%.100s: %llu records %s%s: %s to %s",
                        collection, (unsigned long long)run->n, run->verbs[1], field, run->first_key, run->last_key);
    run->n = 0;
}

void vdb_repair_run_add(struct vdb_repair *repair, struct vdb_repair_run *run, const char *collection,
                        const vecdb_key *key, uint64_t place)
{
    if (run->n && place != run->last + 1)
        vdb_repair_run_end(repair, run, collection);
    print_key(key, run->last_key, sizeof run->last_key);
    if (!run->n)
        memcpy(run->first_key, run->last_key, sizeof run->first_key);
    run->n++;
    run->last = place;
}

int vdb_repair_step(void *context, vecdb_error *err)
{
    struct vdb_repair *repair = context;
    const vecdb_work *work = repair->work;
    vecdb_progress progress = {.phase = "repair", .done = repair->n_done, .total = repair->n_total};
    if (work && work->progress && work->progress(work->progress_context, &progress))
        return vdb_fail(err, VECDB_INTERRUPTED, "the repair was interrupted; nothing was changed");
    return VECDB_OK;
}

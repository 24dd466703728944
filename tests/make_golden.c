/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/make_golden.c - writes golden databases and their answers (see golden.h)
 *
 *     make_golden DIRECTORY     into a new directory: <name>.tar.gz, <name>.jsonl
 *
 * What exists is never overwritten: golden files of a version that was released stay as they are. `make golden` is
 * the command for it, and says how to replace those of a version that is not yet.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "golden.h"

static int run(const char *command)
{
    if (!system(command))
        return 0;
    fprintf(stderr, "make_golden: failed: %s\n", command);
    return 1;
}

static int write_one(const char *directory, const struct golden_database *golden)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct golden_text text = {0};
    char path[300], command[1000];
    snprintf(path, sizeof path, "%s/%s", directory, golden->name);
    golden->make(path);
    /* Archived before it is read: whoever opens a database for the first time after a crash changes its files. */
    snprintf(command, sizeof command,
             "tar -C '%s' --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf -"
             " '%s' | gzip -9n >'%s.tar.gz'",
             directory, golden->name, path);
    if (run(command))
        return 1;
    if (golden_answers(path, VECDB_OPEN_EXISTING, &text, &err)) {
        fprintf(stderr, "make_golden: %s: %s\n", path, err.message);
        return 1;
    }
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (run(command))
        return 1;
    strcat(path, ".jsonl");
    FILE *file = fopen(path, "wx");
    if (!file || fwrite(text.bytes, 1, text.n, file) != text.n || fclose(file)) {
        fprintf(stderr, "make_golden: %s: %s\n", path, strerror(errno));
        return 1;
    }
    free(text.bytes);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2 || strchr(argv[1], '\'') || strlen(argv[1]) > 200) {
        fprintf(stderr, "usage: make_golden DIRECTORY\n");
        return 2;
    }
    if (mkdir(argv[1], 0777)) {
        fprintf(stderr, "make_golden: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    for (const struct golden_database *golden = golden_databases; golden->name; golden++)
        if (write_one(argv[1], golden))
            return 1;
    return 0;
}

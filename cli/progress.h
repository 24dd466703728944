/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/progress.h - how far long work has come, on stderr, on a terminal only
 *
 *     notes: 1,000,000 rows  41,200 rows/s  [##############      ] 71 %  7 s left
 */
#ifndef VECDB_CLI_PROGRESS_H
#define VECDB_CLI_PROGRESS_H

#include "cli.h"

struct progress {
    const char *label; /* borrowed */
    const char *unit;  /* "rows" */
    bool shown;
    bool enabled;
    double started_s, last_s;
};

void progress_begin(struct progress *progress, const char *label, const char *unit, bool quiet);
/* `total` 0: unknown. Draws at most ten times a second. */
void progress_show(struct progress *progress, uint64_t done, uint64_t total);
/* Removes the line. */
void progress_end(struct progress *progress);
double progress_seconds(const struct progress *progress);

#endif

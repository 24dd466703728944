/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/progress.c - how far long work has come
 *
 * One line, drawn over itself. The rate is the average since the start: commits come in bursts,
 * and a rate over the last second would jump. No colours, no cursor movement but the carriage
 * return and "erase to the end of the line".
 */
#include "progress.h"

#include <string.h>
#include <unistd.h>

#include "values.h"

#define INTERVAL_S 0.1
#define BAR_WIDTH 20

void progress_begin(struct progress *progress, const char *label, const char *unit, bool quiet)
{
    memset(progress, 0, sizeof *progress);
    progress->label = label;
    progress->unit = unit;
    progress->enabled = !quiet && isatty(STDERR_FILENO);
    progress->started_s = progress->last_s = seconds_now();
}

static void format_duration(double seconds, char out[32])
{
    if (seconds < 100)
        snprintf(out, 32, "%.0f s", seconds);
    else if (seconds < 6000)
        snprintf(out, 32, "%.0f min", seconds / 60);
    else
        snprintf(out, 32, "%.1f h", seconds / 3600);
}

void progress_show(struct progress *progress, uint64_t done, uint64_t total)
{
    double now = seconds_now(), elapsed = now - progress->started_s;
    if (!progress->enabled || now - progress->last_s < INTERVAL_S)
        return;
    progress->last_s = now;
    progress->shown = true;
    double rate = elapsed > 0 ? (double)done / elapsed : 0;
    char count[32], speed[32];
    fprintf(stderr, "\r%.40s: %s %s  %s %s/s", progress->label, format_count(done, count), progress->unit,
            format_count((uint64_t)rate, speed), progress->unit);
    if (total && done <= total) {
        char bar[BAR_WIDTH + 1], left[32];
        size_t filled = (size_t)((double)done / (double)total * BAR_WIDTH);
        memset(bar, ' ', BAR_WIDTH);
        memset(bar, '#', filled);
        bar[BAR_WIDTH] = 0;
        fprintf(stderr, "  [%s] %d %%", bar, (int)((double)done / (double)total * 100));
        if (rate > 0) {
            format_duration((double)(total - done) / rate, left);
            fprintf(stderr, "  %s left", left);
        }
    }
    fputs("\033[K", stderr);
    fflush(stderr);
}

void progress_end(struct progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
    progress->shown = false;
}

double progress_seconds(const struct progress *progress)
{
    return seconds_now() - progress->started_s;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/scrub.h - the background scrub: everything is read again and again, to find damage early
 */
#ifndef VDB_LIB_SCRUB_H
#define VDB_LIB_SCRUB_H

#include <stdbool.h>
#include <stdint.h>

#include "vecdb.h"

struct vdb_scrub;

/* Start the thread, if the options ask for one: vecdb_options.scrub_bytes_per_second. A database in memory and a
 * handle without threads have none. *scrub is NULL then, and when no thread could be had, which is logged. */
int vdb_scrub_start(vecdb *db, struct vdb_scrub **scrub, vecdb_error *err);
void vdb_scrub_stop(struct vdb_scrub *scrub); /* returns soon, whatever the rate; NULL is allowed */

/* Fills the three members of the statistics; NULL is allowed. */
void vdb_scrub_get_stats(struct vdb_scrub *scrub, vecdb_stats *stats);

/* Bytes a second: how long to wait after having taken some. One who takes too much at once waits longer; who has
 * waited for something else gains nothing by it. */
struct vdb_bucket {
    uint64_t bytes_per_second; /* not 0 */
    uint64_t free_at_ns;       /* when all that was taken is paid */
};
uint64_t vdb_bucket_take(struct vdb_bucket *bucket, uint64_t now_ns, uint64_t n_bytes); /* nanoseconds to wait */

#endif

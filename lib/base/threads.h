/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/threads.h - a pool of worker threads, and the clock
 *
 * One pool per database handle. Its threads start with the first job and end with the pool; they
 * block every signal, so that the application's handlers run in its own threads. A job is n
 * tasks, taken one by one by the caller and by idle workers; several callers may run jobs at
 * once. The caller always works itself: a pool without threads, or a busy one, is only slower.
 */
#ifndef VDB_BASE_THREADS_H
#define VDB_BASE_THREADS_H

#include <stddef.h>
#include <stdint.h>

#include "memory.h"

struct vdb_pool;

/* A pool that uses up to `n_threads` threads, callers included; 0: as many as processors. */
int vdb_pool_new(struct vdb_memory *memory, int n_threads, struct vdb_pool **pool, vecdb_error *err);
void vdb_pool_free(struct vdb_pool *pool); /* NULL is allowed; no job may be running */
int vdb_pool_size(const struct vdb_pool *pool);

/* Call task(context, i) for i = 0 .. n_tasks - 1, on at most `n_threads` threads; return when all
 * are done. `pool` may be NULL. */
void vdb_pool_run(struct vdb_pool *pool, int n_threads, size_t n_tasks, void (*task)(void *context, size_t i),
                  void *context);

/* Nanoseconds of a clock that never goes back. */
uint64_t vdb_now_ns(void);

#endif

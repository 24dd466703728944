/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/dispatch.c - which table of kernels this machine can run
 *
 * This file and kernels_scalar.c are the only ones of simd/ that run before the processor was
 * asked, so they must be built for the ABI's floor: see the #error.
 *
 * On x86 a feature counts when the processor has it (CPUID) and the operating system saves its
 * registers (XGETBV): one without the other is a crash or silent damage. On arm64 the kernel
 * answers for both (AT_HWCAP); Advanced SIMD itself belongs to the ABI.
 *
 * CPUID traps to the hypervisor in a virtual machine, some 50 microseconds each, so the answer is
 * kept. The word is written once or several times with the same value; no lock is needed.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "simd/kernels_private.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__AVX__)
#error "dispatch.c must be built without AVX: it decides whether AVX may be used"
#endif
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

/* Bits of the answer. A table needs all of its bits. */
enum feature {
    HAS_AVX2 = 1,
    HAS_AVX512 = 2,
    HAS_VNNI = 4,
    HAS_BF16 = 8,
    HAS_DOTPROD = 16,
    IS_KNOWN = 1 << 30
};

struct tier {
    const struct vdb_kernels *kernels;
    unsigned needs;
};

/* Best first. A table with fewer needs stands below one with more. */
static const struct tier tiers[] = {
#if defined(__x86_64__)
    {&vdb_bf16_kernels, HAS_AVX512 | HAS_VNNI | HAS_BF16},
    {&vdb_vnni_kernels, HAS_AVX512 | HAS_VNNI},
    {&vdb_avx512_kernels, HAS_AVX512},
    {&vdb_avx2_kernels, HAS_AVX2},
#elif defined(__aarch64__)
    {&vdb_dotprod_kernels, HAS_DOTPROD},
    {&vdb_neon_kernels, 0},
#endif
    {&vdb_scalar_kernels, 0},
};
#define N_TIERS (sizeof tiers / sizeof tiers[0])

#if defined(__x86_64__)

/* Register sets that the operating system saves: XCR0. Only where CPUID says OSXSAVE. */
static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static unsigned probe(void)
{
    const uint64_t ymm_state = 0x6, zmm_state = 0xe6; /* xmm, ymm; and mask registers, upper zmm halves, zmm16-31 */
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    const unsigned vnni = bit_AVX512VNNI | bit_AVX512VPOPCNTDQ;
    unsigned eax, ebx, ecx, edx, found = 0;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE) || !(ecx & bit_AVX))
        return 0;
    bool has_fma = ecx & bit_FMA, has_f16c = ecx & bit_F16C, has_popcnt = ecx & bit_POPCNT;
    uint64_t saved = saved_registers();
    if (!has_fma || !has_f16c || !has_popcnt || (saved & ymm_state) != ymm_state)
        return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx & bit_AVX2))
        return 0;
    found = HAS_AVX2;
    unsigned last_subleaf = eax;
    if ((saved & zmm_state) == zmm_state && (ebx & avx512) == avx512) {
        found |= HAS_AVX512;
        if ((ecx & vnni) == vnni)
            found |= HAS_VNNI;
        if (last_subleaf >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & bit_AVX512BF16))
            found |= HAS_BF16;
    }
    return found;
}

#elif defined(__aarch64__)

static unsigned probe(void)
{
    const unsigned long dotprod = 1UL << 20; /* HWCAP_ASIMDDP, which older headers lack */
    return getauxval(AT_HWCAP) & dotprod ? HAS_DOTPROD : 0;
}

#else

static unsigned probe(void)
{
    return 0;
}

#endif

static bool can_run(const struct tier *tier)
{
    static _Atomic unsigned known;
    unsigned found = atomic_load_explicit(&known, memory_order_relaxed);
    if (!found) {
        found = probe() | IS_KNOWN;
        atomic_store_explicit(&known, found, memory_order_relaxed);
    }
    return (found & tier->needs) == tier->needs;
}

const struct vdb_kernels *vdb_kernels_choose(const char *cap)
{
    size_t i = 0;
    if (!cap)
        cap = getenv("VECDB_SIMD");
    if (cap && *cap) /* an unknown name matches nothing and ends at scalar, the last */
        while (i < N_TIERS - 1 && strcmp(tiers[i].kernels->name, cap) != 0)
            i++;
    while (!can_run(&tiers[i]))
        i++;
    return tiers[i].kernels;
}

size_t vdb_kernels_available(const struct vdb_kernels *tables[], size_t limit)
{
    size_t n = 0;
    for (size_t i = 0; i < N_TIERS && n < limit; i++)
        if (can_run(&tiers[i]))
            tables[n++] = tiers[i].kernels;
    return n;
}

/* The equations of a forward pass in C: naive, point by point, and factored, with all that the points share hoisted; and
 * what the machine can do at most.
 *
 * Time of a deployment at a rate and a bandwidth: fixed + sum over operators of max(flops/rate, bytes/bandwidth + onchip).
 * Results have the axes deployment, rate, bandwidth. */

#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define BLOCK 1024 /* bandwidths at once: the times of 9 operators take 36 KB */
#define LARGEST 1e30f /* stands for infinity, which -ffast-math does away with */
#define FEW 20000  /* points that one thread computes before another wakes up */

typedef struct {
    long deployments;
    const long *first;              /* where a deployment's operators start; one more entry ends the last */
    const float *flops, *bytes;     /* of each operator, all repeats */
    const float *onchip;            /* seconds that its on-chip tensors take */
    const float *fixed;             /* seconds of each deployment's collectives */
    const float *all_flops, *all_bytes;
} Work;

typedef struct {
    long rates, bandwidths;
    const float *rate, *bandwidth;
} Grid;

/* Cases of a switch over the number of operators; each is compiled on its own. */
#define ONE(n) case n: OF(n); break;
#define FOUR(n) ONE(n) ONE(n + 1) ONE(n + 2) ONE(n + 3)
#define FOR_EACH_COUNT \
    FOUR(0) FOUR(4) FOUR(8) FOUR(12) FOUR(16) FOUR(20) FOUR(24) FOUR(28) default: OF(count);

static inline long points(const Work *work, const Grid *grid) {
    return work->deployments * grid->rates * grid->bandwidths;
}

static inline float larger(float a, float b) { return a > b ? a : b; }

/* ------------------------------------------------------------------------------------------------- naive */

/* Times of operators at one rate and each of some bandwidths. Where their number is known, the compiler unrolls the loop
 * over them and takes many points at once. */
static inline __attribute__((always_inline)) void sums_of(
    long count, const float *restrict flops, const float *restrict bytes, const float *restrict onchip, float fixed,
    float rate, long width, const float *restrict bandwidth, float *restrict time) {
    float per_flop = 1 / rate;
#pragma omp simd
    for (long k = 0; k < width; k++) {
        float per_byte = 1 / bandwidth[k], sum = fixed;
#pragma GCC unroll 32
        for (long i = 0; i < count; i++) sum += larger(flops[i] * per_flop, bytes[i] * per_byte + onchip[i]);
        time[k] = sum;
    }
}

static void sums(long count, const float *flops, const float *bytes, const float *onchip, float fixed, float rate,
                 long width, const float *bandwidth, float *time) {
#define OF(count) sums_of(count, flops, bytes, onchip, fixed, rate, width, bandwidth, time)
    switch (count) { FOR_EACH_COUNT }
#undef OF
}

static void times_at(const Work *work, long d, float rate, long width, const float *bandwidth, float *time) {
    long start = work->first[d];
    sums(work->first[d + 1] - start, work->flops + start, work->bytes + start, work->onchip + start, work->fixed[d],
         rate, width, bandwidth, time);
}

void latency_naive(const Work *work, const Grid *grid, float *latency) {
    long width = grid->bandwidths;
#pragma omp parallel for collapse(2) schedule(static) if (points(work, grid) > FEW)
    for (long d = 0; d < work->deployments; d++)
        for (long r = 0; r < grid->rates; r++)
            times_at(work, d, grid->rate[r], width, grid->bandwidth, latency + (d * grid->rates + r) * width);
}

/* power: watts drawn always, by the busy matrix units, the busy memory and the busy links. */
void energy_naive(const Work *work, const Grid *grid, const float *power, float *latency, float *energy) {
    long width = grid->bandwidths;
#pragma omp parallel for collapse(2) schedule(static) if (points(work, grid) > FEW)
    for (long d = 0; d < work->deployments; d++)
        for (long r = 0; r < grid->rates; r++) {
            float *restrict time = latency + (d * grid->rates + r) * width;
            float *restrict joules = energy + (d * grid->rates + r) * width;
            const float *restrict bandwidth = grid->bandwidth;
            float always = power[0], memory = power[2] * work->all_bytes[d];
            float rest = power[1] * work->all_flops[d] / grid->rate[r] + power[3] * work->fixed[d];
            times_at(work, d, grid->rate[r], width, bandwidth, time);
#pragma omp simd
            for (long k = 0; k < width; k++) joules[k] = always * time[k] + memory / bandwidth[k] + rest;
        }
}

/* steps: decode steps of a request. */
void request_naive(const Work *prefill, const Work *decode, const Grid *grid, float steps, float *ttft, float *tpot,
                   float *latency) {
    long width = grid->bandwidths;
#pragma omp parallel for collapse(2) schedule(static) if (points(decode, grid) > FEW)
    for (long d = 0; d < decode->deployments; d++)
        for (long r = 0; r < grid->rates; r++) {
            long start = (d * grid->rates + r) * width;
            float *restrict first = ttft + start, *restrict each = tpot + start, *restrict whole = latency + start;
            times_at(prefill, d, grid->rate[r], width, grid->bandwidth, first);
            times_at(decode, d, grid->rate[r], width, grid->bandwidth, each);
#pragma omp simd
            for (long k = 0; k < width; k++) whole[k] = first[k] + steps * each[k];
        }
}

static long least(long a, long b) { return a < b ? a : b; }

static void keep_better(long width, int32_t here, const float *restrict time, float *restrict best,
                        int32_t *restrict at) {
    if (here == 0)
        for (long k = 0; k < width; k++) best[k] = LARGEST;
#pragma omp simd
    for (long k = 0; k < width; k++) {
        at[k] = time[k] < best[k] ? here : at[k];
        best[k] = time[k] < best[k] ? time[k] : best[k];
    }
}

/* The least time over all deployments at each rate and bandwidth, and which deployment has it. */
void best_naive(const Work *work, const Grid *grid, float *best, int32_t *place) {
#pragma omp parallel for schedule(static) if (points(work, grid) > FEW)
    for (long r = 0; r < grid->rates; r++)
        for (long k = 0; k < grid->bandwidths; k += BLOCK) {
            float time[BLOCK];
            long width = least(BLOCK, grid->bandwidths - k), start = r * grid->bandwidths + k;
            for (long d = 0; d < work->deployments; d++) {
                times_at(work, d, grid->rate[r], width, grid->bandwidth + k, time);
                keep_better(width, (int32_t)d, time, best + start, place + start);
            }
        }
}

typedef union {
    float number;
    int32_t bits;
} Bits;

/* The least bandwidth at which a deployment takes no longer than a limit, by halving an interval of bit patterns, which
 * have the order of the numbers; LARGEST where none does. Results have the axes deployment, rate, limit. */
void least_bandwidth(const Work *work, long rates, const float *rate, long limits, const float *limit,
                     float *bandwidth) {
    const Bits lowest = {.number = 1.0f}, highest = {.number = LARGEST};
#pragma omp parallel for collapse(2) schedule(static)
    for (long d = 0; d < work->deployments; d++)
        for (long r = 0; r < rates; r++)
            for (long k = 0; k < limits; k += BLOCK) {
                Bits low[BLOCK], high[BLOCK];
                float middle[BLOCK], time[BLOCK], *restrict found = bandwidth + (d * rates + r) * limits + k;
                const float *restrict most = limit + k;
                long width = least(BLOCK, limits - k);
                for (long j = 0; j < width; j++) low[j] = lowest, high[j] = highest;
                for (int halving = 0; halving < 31; halving++) {
                    for (long j = 0; j < width; j++) {
                        Bits half = {.bits = low[j].bits + (high[j].bits - low[j].bits) / 2};
                        middle[j] = half.number;
                    }
                    times_at(work, d, rate[r], width, middle, time);
#pragma omp simd
                    for (long j = 0; j < width; j++) {
                        low[j].number = time[j] > most[j] ? middle[j] : low[j].number;
                        high[j].number = time[j] > most[j] ? high[j].number : middle[j];
                    }
                }
                for (long j = 0; j < width; j++)
                    found[j] = high[j].number;
            }
}

/* ---------------------------------------------------------------------------------------------- factored */

/* One thread's hoisted times: of each operator's memory at each bandwidth of a block, of its compute at one rate. */
typedef struct {
    float *memory, *compute;
} Hoisted;

static long count_of(const Work *work, long d) { return work->first[d + 1] - work->first[d]; }

static Hoisted hoisted_for(const Work *work) {
    long most = 1;
    for (long d = 0; d < work->deployments; d++)
        if (count_of(work, d) > most) most = count_of(work, d);
    Hoisted made;
    made.memory = aligned_alloc(64, most * BLOCK * sizeof(float));
    made.compute = aligned_alloc(64, (most * sizeof(float) + 63) / 64 * 64);
    return made;
}

static void release(Hoisted hoisted) {
    free(hoisted.memory);
    free(hoisted.compute);
}

static void hoist_memory(Hoisted to, const Work *work, long d, const float *restrict bandwidth, long width) {
    for (long i = 0; i < count_of(work, d); i++) {
        float *restrict row = to.memory + i * BLOCK;
        float bytes = work->bytes[work->first[d] + i], onchip = work->onchip[work->first[d] + i];
#pragma omp simd
        for (long k = 0; k < width; k++) row[k] = bytes / bandwidth[k] + onchip;
    }
}

static void hoist_compute(Hoisted to, const Work *work, long d, float rate) {
    for (long i = 0; i < count_of(work, d); i++) to.compute[i] = work->flops[work->first[d] + i] / rate;
}

static inline __attribute__((always_inline)) void row_of(long count, const float *restrict memory,
                                                         const float *restrict compute, float fixed, long width,
                                                         float *restrict time) {
#pragma omp simd
    for (long k = 0; k < width; k++) {
        float sum = fixed;
#pragma GCC unroll 32
        for (long i = 0; i < count; i++) sum += larger(compute[i], memory[i * BLOCK + k]);
        time[k] = sum;
    }
}

/* Times of a deployment at one rate and a block of bandwidths. */
static void row(Hoisted from, const Work *work, long d, long width, float *time) {
    long count = count_of(work, d);
#define OF(count) row_of(count, from.memory, from.compute, work->fixed[d], width, time)
    switch (count) { FOR_EACH_COUNT }
#undef OF
}

/* Copy a block that is in the cache to where it stays, past the cache if `stream`. */
static void put(float *restrict to, const float *restrict from, long width, int stream) {
    long k = 0;
#if defined(__AVX__)
    if (stream) {
        for (; k < width && ((uintptr_t)(to + k) & 31); k++) to[k] = from[k];
        for (; k + 8 <= width; k += 8) _mm256_stream_ps(to + k, _mm256_loadu_ps(from + k));
    }
#else
    (void)stream;
#endif
    memcpy(to + k, from + k, (width - k) * sizeof(float));
}

/* Parts that the rates of each deployment are cut into, so that every thread has work. */
static long parts(long deployments, long rates) {
    return deployments >= 8 * omp_get_max_threads() ? 1 : least(rates, omp_get_max_threads());
}

void latency_factored(const Work *work, const Grid *grid, int stream, float *restrict latency) {
    long cuts = parts(work->deployments, grid->rates);
#pragma omp parallel if (points(work, grid) > FEW)
    {
        Hoisted hoisted = hoisted_for(work);
        float time[BLOCK] __attribute__((aligned(64)));
#pragma omp for collapse(2) schedule(static)
        for (long d = 0; d < work->deployments; d++)
            for (long part = 0; part < cuts; part++)
                for (long k = 0; k < grid->bandwidths; k += BLOCK) {
                    long width = least(BLOCK, grid->bandwidths - k);
                    hoist_memory(hoisted, work, d, grid->bandwidth + k, width);
                    for (long r = grid->rates * part / cuts; r < grid->rates * (part + 1) / cuts; r++) {
                        hoist_compute(hoisted, work, d, grid->rate[r]);
                        row(hoisted, work, d, width, time);
                        put(latency + (d * grid->rates + r) * grid->bandwidths + k, time, width, stream);
                    }
                }
        release(hoisted);
#if defined(__AVX__)
        _mm_sfence();
#endif
    }
}

void energy_factored(const Work *work, const Grid *grid, const float *power, int stream, float *restrict latency,
                     float *restrict energy) {
    long cuts = parts(work->deployments, grid->rates);
#pragma omp parallel if (points(work, grid) > FEW)
    {
        Hoisted hoisted = hoisted_for(work);
        float time[BLOCK] __attribute__((aligned(64))), joules[BLOCK] __attribute__((aligned(64)));
        float traffic[BLOCK] __attribute__((aligned(64)));
#pragma omp for collapse(2) schedule(static)
        for (long d = 0; d < work->deployments; d++)
            for (long part = 0; part < cuts; part++)
                for (long k = 0; k < grid->bandwidths; k += BLOCK) {
                    long width = least(BLOCK, grid->bandwidths - k);
                    hoist_memory(hoisted, work, d, grid->bandwidth + k, width);
                    for (long j = 0; j < width; j++)
                        traffic[j] = power[2] * work->all_bytes[d] / grid->bandwidth[k + j] + power[3] * work->fixed[d];
                    for (long r = grid->rates * part / cuts; r < grid->rates * (part + 1) / cuts; r++) {
                        long start = (d * grid->rates + r) * grid->bandwidths + k;
                        float busy = power[1] * work->all_flops[d] / grid->rate[r], always = power[0];
                        hoist_compute(hoisted, work, d, grid->rate[r]);
                        row(hoisted, work, d, width, time);
#pragma omp simd
                        for (long j = 0; j < width; j++) joules[j] = always * time[j] + busy + traffic[j];
                        put(latency + start, time, width, stream);
                        put(energy + start, joules, width, stream);
                    }
                }
        release(hoisted);
#if defined(__AVX__)
        _mm_sfence();
#endif
    }
}

void request_factored(const Work *prefill, const Work *decode, const Grid *grid, float steps, int stream,
                      float *restrict ttft, float *restrict tpot, float *restrict latency) {
    long cuts = parts(decode->deployments, grid->rates);
#pragma omp parallel if (points(decode, grid) > FEW)
    {
        Hoisted before = hoisted_for(prefill), after = hoisted_for(decode);
        float first[BLOCK] __attribute__((aligned(64))), each[BLOCK] __attribute__((aligned(64)));
        float whole[BLOCK] __attribute__((aligned(64)));
#pragma omp for collapse(2) schedule(static)
        for (long d = 0; d < decode->deployments; d++)
            for (long part = 0; part < cuts; part++)
                for (long k = 0; k < grid->bandwidths; k += BLOCK) {
                    long width = least(BLOCK, grid->bandwidths - k);
                    hoist_memory(before, prefill, d, grid->bandwidth + k, width);
                    hoist_memory(after, decode, d, grid->bandwidth + k, width);
                    for (long r = grid->rates * part / cuts; r < grid->rates * (part + 1) / cuts; r++) {
                        long start = (d * grid->rates + r) * grid->bandwidths + k;
                        hoist_compute(before, prefill, d, grid->rate[r]);
                        hoist_compute(after, decode, d, grid->rate[r]);
                        row(before, prefill, d, width, first);
                        row(after, decode, d, width, each);
#pragma omp simd
                        for (long j = 0; j < width; j++) whole[j] = first[j] + steps * each[j];
                        put(ttft + start, first, width, stream);
                        put(tpot + start, each, width, stream);
                        put(latency + start, whole, width, stream);
                    }
                }
        release(before);
        release(after);
#if defined(__AVX__)
        _mm_sfence();
#endif
    }
}

#define ROWS 32 /* rates at once, over which a deployment's memory times are shared */

void best_factored(const Work *work, const Grid *grid, float *best, int32_t *place) {
    long tiles = (grid->rates + ROWS - 1) / ROWS, blocks = (grid->bandwidths + BLOCK - 1) / BLOCK;
#pragma omp parallel if (points(work, grid) > FEW)
    {
        Hoisted hoisted = hoisted_for(work);
        float time[BLOCK] __attribute__((aligned(64)));
#pragma omp for collapse(2) schedule(static)
        for (long tile = 0; tile < tiles; tile++)
            for (long block = 0; block < blocks; block++) {
                long k = block * BLOCK, width = least(BLOCK, grid->bandwidths - k);
                for (long d = 0; d < work->deployments; d++) {
                    hoist_memory(hoisted, work, d, grid->bandwidth + k, width);
                    for (long r = tile * ROWS; r < least(grid->rates, (tile + 1) * ROWS); r++) {
                        long start = r * grid->bandwidths + k;
                        hoist_compute(hoisted, work, d, grid->rate[r]);
                        row(hoisted, work, d, width, time);
                        keep_better(width, (int32_t)d, time, best + start, place + start);
                    }
                }
            }
        release(hoisted);
    }
}

static inline __attribute__((always_inline)) void slopes_of(
    long count, const float *restrict memory, const float *restrict compute, const float *restrict flops,
    const float *restrict bytes, float fixed, long width, float *restrict time, float *restrict by_flop,
    float *restrict by_byte) {
#pragma omp simd
    for (long k = 0; k < width; k++) {
        float sum = fixed, waiting_flops = 0, waiting_bytes = 0;
#pragma GCC unroll 32
        for (long i = 0; i < count; i++) {
            float there = memory[i * BLOCK + k], here = compute[i], if_compute = flops[i], if_memory = bytes[i];
            sum += larger(here, there);
            waiting_flops += here > there ? if_compute : 0;
            waiting_bytes += here > there ? 0 : if_memory;
        }
        time[k] = sum;
        by_flop[k] = waiting_flops;
        by_byte[k] = waiting_bytes;
    }
}

/* Times of a deployment, and their derivatives by the seconds per FLOP and per byte. */
static void slopes(Hoisted from, const Work *work, long d, long width, float *time, float *by_flop, float *by_byte) {
    long count = count_of(work, d), start = work->first[d];
#define OF(count)                                                                                                     \
    slopes_of(count, from.memory, from.compute, work->flops + start, work->bytes + start, work->fixed[d], width,      \
              time, by_flop, by_byte)
    switch (count) { FOR_EACH_COUNT }
#undef OF
}

/* Times, and their derivatives by the rate and by the bandwidth. */
void gradient_factored(const Work *work, const Grid *grid, int stream, float *restrict latency, float *restrict by_rate,
                       float *restrict by_bandwidth) {
    long cuts = parts(work->deployments, grid->rates);
#pragma omp parallel if (points(work, grid) > FEW)
    {
        Hoisted hoisted = hoisted_for(work);
        float time[BLOCK] __attribute__((aligned(64))), flops[BLOCK] __attribute__((aligned(64)));
        float bytes[BLOCK] __attribute__((aligned(64))), per_byte[BLOCK] __attribute__((aligned(64)));
#pragma omp for collapse(2) schedule(static)
        for (long d = 0; d < work->deployments; d++)
            for (long part = 0; part < cuts; part++)
                for (long k = 0; k < grid->bandwidths; k += BLOCK) {
                    long width = least(BLOCK, grid->bandwidths - k);
                    hoist_memory(hoisted, work, d, grid->bandwidth + k, width);
                    for (long j = 0; j < width; j++)
                        per_byte[j] = 1 / (grid->bandwidth[k + j] * grid->bandwidth[k + j]);
                    for (long r = grid->rates * part / cuts; r < grid->rates * (part + 1) / cuts; r++) {
                        long start = (d * grid->rates + r) * grid->bandwidths + k;
                        float per_flop = 1 / (grid->rate[r] * grid->rate[r]);
                        hoist_compute(hoisted, work, d, grid->rate[r]);
                        slopes(hoisted, work, d, width, time, flops, bytes);
#pragma omp simd
                        for (long j = 0; j < width; j++) {
                            flops[j] *= -per_flop;
                            bytes[j] *= -per_byte[j];
                        }
                        put(latency + start, time, width, stream);
                        put(by_rate + start, flops, width, stream);
                        put(by_bandwidth + start, bytes, width, stream);
                    }
                }
        release(hoisted);
#if defined(__AVX__)
        _mm_sfence();
#endif
    }
}

/* ------------------------------------------------------------------------------------------------ limits */

/* Write a number everywhere, past the cache if `stream`. */
void fill(float *restrict to, long count, float number, int stream) {
    float block[BLOCK] __attribute__((aligned(64)));
    for (long k = 0; k < BLOCK; k++) block[k] = number;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long k = 0; k < count; k += BLOCK) put(to + k, block, least(BLOCK, count - k), stream);
#if defined(__AVX__)
        _mm_sfence();
#endif
    }
}

#if defined(__AVX512F__)
#define CHAINS 256 /* independent sums: enough to fill the pipelines, few enough for the registers */
#else
#define CHAINS 96
#endif

/* Fused multiply-adds on all threads; the sum keeps them from being dropped. Each of the threads does
 * 2 * CHAINS * rounds operations. */
float multiply_add(long rounds) {
    float total = 0;
#pragma omp parallel reduction(+ : total)
    {
        float sums[CHAINS] __attribute__((aligned(64))), factor = 0.999f + 1e-9f * omp_get_thread_num();
        for (long k = 0; k < CHAINS; k++) sums[k] = (float)k;
        for (long i = 0; i < rounds; i++)
#pragma omp simd
            for (long k = 0; k < CHAINS; k++) sums[k] = sums[k] * factor + 0.001f;
        for (long k = 0; k < CHAINS; k++) total += sums[k];
    }
    return total;
}

long chains(void) { return CHAINS; }

long threads(void) { return omp_get_max_threads(); }

// softmax(scale q k^T + bias) v without a tensor of scores: FlashAttention-2 (Dao 2023, arXiv 2307.08691), for compute capability
// 8.0 and newer. own.rs launches it; attention.ptx is what nvcc makes of it (tools/cuda/kernels.sh).
//
// A block takes 128 queries of one head, 16 to a warp, and walks over the keys in tiles of 64. The scores of a tile are f32 sums
// in registers (mma.sync), scaled in base 2; each query keeps the largest so far and the sum of what it has weighed, and what it
// has gathered is scaled down when the largest grows. Weights are rounded to the type of the values, their sum is not.
// A tile of values travels while the products with its keys are computed, the next tile of keys while its values are gathered.

typedef unsigned int u32;
typedef unsigned short u16;

constexpr int KEYS = 64;
constexpr int THREADS = 256;
constexpr int QUERIES = THREADS / 32 * 16;
constexpr int RUNS = 8;
constexpr float INFINITE = __builtin_huge_valf();

// What is not an array; own.rs has the same struct.
struct How {
    // Between heads and between rows, in numbers: those of a row lie side by side.
    long long q_head, q_row, k_head, k_row, v_head, v_row;
    int queries;
    // Keys that may be looked at.
    int keys;
    // Heads of q that follow each other and share one of k and v.
    int sharing;
    // Whether query i looks at no key behind key i.
    int causal;
    // Before the first key that has no bias.
    int biased;
    // 1/sqrt(D) log2(e), or what stands for it; above zero.
    float scale;
    // Runs of keys: where each ends, and what is added to its scores, times log2(e). Unused ones end at 0.
    int ends[RUNS];
    float bias[RUNS];
};

// Where 8 numbers of a row lie in a tile of rows of D, in numbers: turned by the row, so that the 8 rows that one ldmatrix
// reads at a time lie in different banks.
template <int D> __device__ __forceinline__ int place(int row, int eighth) {
    int turn = D >= 64 ? row & 7 : row >> 1 & 3;
    return row * D + 8 * (eighth ^ turn);
}

__device__ __forceinline__ u32 in_shared(const u16 *at) { return (u32)__cvta_generic_to_shared(at); }

// Begins to copy rows first.. of one head into a tile; rows from `rows` on are zeros.
template <int D> __device__ __forceinline__ void fetch(u16 *tile, const u16 *from, long long row_stride, int first, int rows) {
#pragma unroll
    for (int at = 0; at < KEYS * D / 8 / THREADS; ++at) {
        int piece = at * THREADS + threadIdx.x, row = piece / (D / 8), eighth = piece % (D / 8);
        bool exists = first + row < rows;
        const u16 *source = from + (exists ? first + row : 0) * row_stride + 8 * eighth;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(in_shared(tile + place<D>(row, eighth))),
                     "l"(__cvta_generic_to_global(source)), "r"(exists ? 16 : 0)
                     : "memory");
    }
}

// What was begun is here, for all threads; and what all of them read before may be written over.
__device__ __forceinline__ void arrive() {
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
}

__device__ __forceinline__ void matrices(u32 (&to)[4], const u16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(in_shared(row))
                 : "memory");
}

__device__ __forceinline__ void transposed_matrices(u32 (&to)[4], const u16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(in_shared(row))
                 : "memory");
}

// sums += a b for a [16, 16] and b [16, 8].
template <bool BF16> __device__ __forceinline__ void add_product(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if (BF16) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

template <bool BF16> __device__ __forceinline__ u32 rounded(float low, float high) {
    u32 both;
    if (BF16) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    }
    return both;
}

__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The four lanes that hold a row of sums between them.
__device__ __forceinline__ float largest_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ __forceinline__ float sum_of_row(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ __forceinline__ float bias_of(const How &how, int key) {
    float bias = 0;
#pragma unroll
    for (int run = RUNS - 1; run >= 0; --run) bias = key < how.ends[run] ? how.bias[run] : bias;
    return bias;
}

// Whether the keys of a tile have different biases.
__device__ __forceinline__ bool is_cut(const How &how, int first) {
    bool cut = false;
#pragma unroll
    for (int run = 0; run < RUNS; ++run) cut |= first < how.ends[run] && how.ends[run] < first + KEYS;
    return cut;
}

// The queries of a warp as the left sides of products: lane l holds pairs of rows l/4 and l/4 + 8.
template <int D>
__device__ __forceinline__ void load_queries(u32 (&queries)[D / 16][4], const u16 *q, const How &how, int row, int column) {
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            int its = row + 8 * (part & 1);
            const u16 *at = q + its * how.q_row + 16 * step + 8 * (part >> 1) + column;
            queries[step][part] = its < how.queries ? *(const u32 *)at : 0;
        }
    }
}

// Scores of a tile, not scaled yet: a lane holds columns 8n + column and the next of its two rows.
template <bool BF16, int D>
__device__ __forceinline__ void score(float (&scores)[KEYS / 8][4], const u32 (&queries)[D / 16][4], const u16 *keys, int lane) {
    int row = lane % 8 + lane / 16 * 8, eighth = lane / 8 % 2;
#pragma unroll
    for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
        for (int part = 0; part < 4; ++part) scores[n][part] = 0;
    }
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
#pragma unroll
        for (int pair = 0; pair < KEYS / 16; ++pair) {
            u32 b[4];
            matrices(b, keys + place<D>(16 * pair + row, 2 * step + eighth));
            add_product<BF16>(scores[2 * pair], queries[step], b[0], b[1]);
            add_product<BF16>(scores[2 * pair + 1], queries[step], b[2], b[3]);
        }
    }
}

// Adds to what was gathered the values of a tile, weighed.
template <bool BF16, int D>
__device__ __forceinline__ void gather(float (&gathered)[D / 8][4], const float (&weights)[KEYS / 8][4], const u16 *values, int lane) {
    int row = lane % 16, eighth = lane / 16;
#pragma unroll
    for (int step = 0; step < KEYS / 16; ++step) {
        const float(&left)[4] = weights[2 * step], (&right)[4] = weights[2 * step + 1];
        u32 a[4] = {rounded<BF16>(left[0], left[1]), rounded<BF16>(left[2], left[3]), rounded<BF16>(right[0], right[1]),
                    rounded<BF16>(right[2], right[3])};
#pragma unroll
        for (int pair = 0; pair < D / 16; ++pair) {
            u32 b[4];
            transposed_matrices(b, values + place<D>(16 * step + row, 2 * pair + eighth));
            add_product<BF16>(gathered[2 * pair], a, b[0], b[1]);
            add_product<BF16>(gathered[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

// Scores of a tile become weights; what the rows have gathered is scaled to their new largest score.
template <int D> struct Rows {
    float largest[2], sum[2], gathered[D / 8][4];

    __device__ __forceinline__ void weigh(float (&scores)[KEYS / 8][4], float factor, float shift) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            float most = -INFINITE;
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) most = fmaxf(most, fmaxf(scores[n][2 * row], scores[n][2 * row + 1]));
            most = fmaxf(largest[row], fmaf(largest_of_row(most), factor, shift));
            // Where nothing may be looked at so far, every weight is exp2(-inf).
            float base = most == -INFINITE ? 0 : most;
            float shrink = exp2_of(largest[row] - base), added = 0;
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (int part = 2 * row; part < 2 * row + 2; ++part) {
                    scores[n][part] = exp2_of(fmaf(scores[n][part], factor, shift - base));
                    added += scores[n][part];
                }
            }
            largest[row] = most;
            sum[row] = fmaf(sum[row], shrink, added);
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
                gathered[n][2 * row] *= shrink;
                gathered[n][2 * row + 1] *= shrink;
            }
        }
    }
};

// q [H, C, D], k and v [K, N, D]; out [C, H D]. Blocks (C / 128, H).
template <bool BF16, int D>
__device__ __forceinline__ void attend(const u16 *q, const u16 *k, const u16 *v, u16 *out, const How &how) {
    __shared__ __align__(128) u16 keys[KEYS * D], values[KEYS * D];
    __shared__ float bias[KEYS];
    int lane = threadIdx.x % 32, first = blockIdx.x * QUERIES + threadIdx.x / 32 * 16;
    int row = first + lane / 4, column = lane % 4 * 2;
    int group = blockIdx.y / how.sharing;
    k += group * how.k_head;
    v += group * how.v_head;

    // Keys that the two rows look at, that all rows of the warp do, that any row of the block does.
    int seen[2], by_all = how.keys, by_any = how.keys;
#pragma unroll
    for (int i = 0; i < 2; ++i) seen[i] = how.causal ? min(row + 8 * i + 1, how.keys) : how.keys;
    if (how.causal) {
        by_all = min(first + 1, how.keys);
        by_any = min((int)(blockIdx.x + 1) * QUERIES, how.keys);
    }

    fetch<D>(keys, k, how.k_row, 0, how.keys);
    u32 queries[D / 16][4];
    load_queries<D>(queries, q + blockIdx.y * how.q_head, how, row, column);
    Rows<D> rows = {{-INFINITE, -INFINITE}, {0, 0}, {}};
    for (int start = 0; start < by_any; start += KEYS) {
        float scores[KEYS / 8][4];
        arrive();
        fetch<D>(values, v, how.v_row, start, how.keys);
        score<BF16, D>(scores, queries, keys, lane);
        bool biased = start < how.biased;
        if (threadIdx.x < KEYS) bias[threadIdx.x] = biased ? bias_of(how, start + threadIdx.x) : 0;
        arrive();
        if (start + KEYS < by_any) fetch<D>(keys, k, how.k_row, start + KEYS, how.keys);

        float factor = how.scale, shift = 0;
        if (start + KEYS > by_all || (biased && is_cut(how, start))) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (int part = 0; part < 4; ++part) {
                    int at = 8 * n + column + part % 2;
                    float score = fmaf(scores[n][part], factor, bias[at]);
                    scores[n][part] = start + at < seen[part / 2] ? score : -INFINITE;
                }
            }
            factor = 1;
        } else if (biased) {
            shift = bias[0];
        }
        rows.weigh(scores, factor, shift);
        gather<BF16, D>(rows.gathered, scores, values, lane);
    }

    long long width = (long long)gridDim.y * D;
    float shares[2] = {__frcp_rn(sum_of_row(rows.sum[0])), __frcp_rn(sum_of_row(rows.sum[1]))};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        if (row + 8 * i >= how.queries) continue;
        u16 *to = out + (row + 8 * i) * width + blockIdx.y * D + column;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
            *(u32 *)(to + 8 * n) = rounded<BF16>(rows.gathered[n][2 * i] * shares[i], rows.gathered[n][2 * i + 1] * shares[i]);
        }
    }
}

#define KERNEL(name, BF16, D)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                       \
        name(const u16 *q, const u16 *k, const u16 *v, u16 *out, const How how) {                                               \
        attend<BF16, D>(q, k, v, out, how);                                                                                     \
    }

KERNEL(attention_bf16_32, true, 32)
KERNEL(attention_bf16_64, true, 64)
KERNEL(attention_bf16_128, true, 128)
KERNEL(attention_f16_32, false, 32)
KERNEL(attention_f16_64, false, 64)
KERNEL(attention_f16_128, false, 128)

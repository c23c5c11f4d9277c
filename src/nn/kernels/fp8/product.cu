// Products in floats of 8 bits (e4m3), for compute capability 8.9 and newer. mod.rs launches them; product.ptx is what nvcc makes of
// this (tools/cuda/kernels.sh).
// arch: compute_89
// isa: 8.4
//
// Rows of x become codes with one scale a row: its largest number is 448, the largest of e4m3. A product takes such rows and a
// weight of codes, both along the inputs. A block makes 128 x 128 outputs, 32 x 64 to a warp, from tiles of 64 inputs, two of which
// travel while one is multiplied (cp.async, ldmatrix, mma.sync). The matrix units of some cards keep fewer bits of a sum than f32
// has (DeepSeek-V3, arXiv 2412.19437, 3.3.2; SageAttention2, arXiv 2411.10958, 3.3): what a tile gives is added up outside of them.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

constexpr int THREADS = 256;
constexpr int ROWS = 128;
constexpr int OUTPUTS = 128;
// Inputs of a tile, and tiles that are held at once.
constexpr int INPUTS = 64;
constexpr int STAGES = 3;
// Codes that travel at once; behind those of a row of x lies as much again, which begins with its scale.
constexpr int PIECE = 16;
constexpr float MOST = 448;
// A row without a larger number is taken to have one, so that its scale and one over it are numbers.
constexpr float LEAST = 1e-30f;

// What is not an array; mod.rs has the same struct.
struct How {
    // Between rows of the weight, or of the numbers that become codes: in bytes, or in numbers.
    long long row;
    int rows, inputs, outputs;
    // Between the scales of two outputs: 0 where one is for all.
    int scale_step;
};

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ void load(float (&to)[PIECE], const float *from) {
#pragma unroll
    for (int i = 0; i < PIECE / 4; ++i) {
        float4 four = ((const float4 *)from)[i];
        to[4 * i] = four.x, to[4 * i + 1] = four.y, to[4 * i + 2] = four.z, to[4 * i + 3] = four.w;
    }
}

__device__ __forceinline__ float low(bf16, u32 both) { return __uint_as_float(both << 16); }
__device__ __forceinline__ float high(bf16, u32 both) { return __uint_as_float(both & 0xffff0000); }

__device__ __forceinline__ float low(f16, u32 both) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((u16)both));
    return x;
}

__device__ __forceinline__ float high(f16, u32 both) { return low(f16(), both >> 16); }

template <typename T> __device__ __forceinline__ void load(float (&to)[PIECE], const T *from) {
#pragma unroll
    for (int i = 0; i < PIECE / 8; ++i) {
        uint4 eight = ((const uint4 *)from)[i];
        u32 pairs[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
            to[8 * i + 2 * pair] = low(T(), pairs[pair]);
            to[8 * i + 2 * pair + 1] = high(T(), pairs[pair]);
        }
    }
}

__device__ __forceinline__ u32 codes(float first, float second, float third, float fourth) {
    u16 lower, upper;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(lower) : "f"(second), "f"(first));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(upper) : "f"(fourth), "f"(third));
    return lower | (u32)upper << 16;
}

__device__ __forceinline__ float largest_of_block(float x) {
    __shared__ float largest[THREADS / 32];
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, apart));
    if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = x;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; ++warp) x = fmaxf(x, largest[warp]);
    return x;
}

// Rows of numbers [R, in] to [R, in + PIECE]: codes and the scale they are to be multiplied by. A block a row.
template <typename T> __device__ __forceinline__ void to_codes(const T *x, u8 *out, const How &how) {
    const T *row = x + blockIdx.x * how.row;
    u8 *to = out + blockIdx.x * (long long)(how.inputs + PIECE);
    float numbers[PIECE], most = 0;
    for (int first = PIECE * threadIdx.x; first < how.inputs; first += PIECE * THREADS) {
        load(numbers, row + first);
#pragma unroll
        for (int i = 0; i < PIECE; ++i) most = fmaxf(most, fabsf(numbers[i]));
    }
    most = fmaxf(largest_of_block(most), LEAST);
    float factor = __fdiv_rn(MOST, most);
    for (int first = PIECE * threadIdx.x; first < how.inputs; first += PIECE * THREADS) {
        load(numbers, row + first);
        u32 four[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float *of = numbers + 4 * i;
            four[i] = codes(of[0] * factor, of[1] * factor, of[2] * factor, of[3] * factor);
        }
        *(uint4 *)(to + first) = make_uint4(four[0], four[1], four[2], four[3]);
    }
    if (threadIdx.x == 0) *(uint4 *)(to + how.inputs) = make_uint4(__float_as_uint(__fdiv_rn(most, MOST)), 0, 0, 0);
}

// Where a piece of a row lies in a tile: turned by the row, so that the 8 rows that one ldmatrix reads at a time lie in different
// banks.
__device__ __forceinline__ int place(int row, int piece) { return row * INPUTS + PIECE * (piece ^ row >> 1 & 3); }

__device__ __forceinline__ u32 in_shared(const u8 *at) { return (u32)__cvta_generic_to_shared(at); }

// Begins to copy a tile; what lies beyond rows or inputs is zeros.
__device__ __forceinline__ void fetch(u8 *tile, const u8 *from, long long stride, int first_row, int rows, int first, int inputs) {
#pragma unroll
    for (int at = 0; at < ROWS * INPUTS / PIECE / THREADS; ++at) {
        int index = at * THREADS + threadIdx.x, row = index / (INPUTS / PIECE), piece = index % (INPUTS / PIECE);
        int input = first + PIECE * piece;
        bool exists = first_row + row < rows && input < inputs;
        const u8 *source = from + (exists ? (first_row + row) * stride + input : 0);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(in_shared(tile + place(row, piece))),
                     "l"(__cvta_generic_to_global(source)), "r"(exists ? 16 : 0)
                     : "memory");
    }
}

__device__ __forceinline__ void matrices(u32 (&to)[4], const u8 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(in_shared(row))
                 : "memory");
}

// sums += a b for a [16, 32] and b [32, 8].
__device__ __forceinline__ void add_product(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Adds what a tile of rows and one of outputs give to a warp's 32 x 64 sums: 16 rows at a time.
__device__ __forceinline__ void multiply(float (&sums)[2][8][4], const u8 *x, const u8 *weight, int lane) {
    int row = lane % 16, half = lane / 16, column = lane % 8 + lane / 16 * 8, its_half = lane / 8 % 2;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        u32 a[2][4];
#pragma unroll
        for (int step = 0; step < 2; ++step) matrices(a[step], x + place(16 * m + row, 2 * step + half));
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
            float parts[2][4] = {};
#pragma unroll
            for (int step = 0; step < 2; ++step) {
                u32 b[4];
                matrices(b, weight + place(16 * pair + column, 2 * step + its_half));
                add_product(parts[0], a[step], b[0], b[1]);
                add_product(parts[1], a[step], b[2], b[3]);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sums[m][2 * pair][i] += parts[0][i];
                sums[m][2 * pair + 1][i] += parts[1][i];
            }
        }
    }
}

__device__ __forceinline__ void write(float *at, float x) { *at = x; }
__device__ __forceinline__ void write(bf16 *at, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(at->bits) : "f"(x)); }
__device__ __forceinline__ void write(f16 *at, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(at->bits) : "f"(x)); }

__device__ __forceinline__ void write(float *at, float x, float y) { *(float2 *)at = make_float2(x, y); }

__device__ __forceinline__ void write(bf16 *at, float x, float y) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(*(u32 *)at) : "f"(y), "f"(x));
}

__device__ __forceinline__ void write(f16 *at, float x, float y) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(*(u32 *)at) : "f"(y), "f"(x));
}

// x [C, in + PIECE] as to_codes leaves it, weight [out, in]; out [C, out]. Blocks (C / 128, out / 128).
template <typename T>
__device__ __forceinline__ void product(const u8 *x, const u8 *weight, const float *scales, T *out, const How &how) {
    __shared__ __align__(128) u8 of_x[STAGES][ROWS * INPUTS], of_weight[STAGES][OUTPUTS * INPUTS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first_row = blockIdx.x * ROWS, first_output = blockIdx.y * OUTPUTS;
    int its_row = warp / 2 * 32, its_output = warp % 2 * 64;
    long long x_row = how.inputs + PIECE;
    int tiles = (how.inputs + INPUTS - 1) / INPUTS;
    auto begin = [&](int tile) {
        if (tile < tiles) {
            fetch(of_x[tile % STAGES], x, x_row, first_row, how.rows, tile * INPUTS, how.inputs);
            fetch(of_weight[tile % STAGES], weight, how.row, first_output, how.outputs, tile * INPUTS, how.inputs);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    float sums[2][8][4] = {};
    for (int tile = 0; tile < STAGES - 1; ++tile) begin(tile);
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        // Of all threads; and what all of them have multiplied may be written over.
        __syncthreads();
        begin(tile + STAGES - 1);
        multiply(sums, of_x[tile % STAGES] + its_row * INPUTS, of_weight[tile % STAGES] + its_output * INPUTS, lane);
    }

#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int row = first_row + its_row + 16 * m + 8 * i + lane / 4;
            if (row >= how.rows) continue;
            float of_row = *(const float *)(x + row * x_row + how.inputs);
            T *to = out + row * (long long)how.outputs;
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                int output = first_output + its_output + 8 * n + lane % 4 * 2;
                if (output >= how.outputs) continue;
                float first = sums[m][n][2 * i] * of_row * scales[output * how.scale_step];
                if (output + 1 == how.outputs) {
                    write(to + output, first);
                    continue;
                }
                float second = sums[m][n][2 * i + 1] * of_row * scales[(output + 1) * how.scale_step];
                if (how.outputs % 2 == 0) {
                    write(to + output, first, second);
                } else {
                    write(to + output, first);
                    write(to + output + 1, second);
                }
            }
        }
    }
}

#define KERNELS(word, T)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) to_e4m3_##word(const T *x, u8 *out, const How how) {                  \
        to_codes(x, out, how);                                                                                                  \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                    \
        product_e4m3_##word(const u8 *x, const u8 *weight, const float *scales, T *out, const How how) {                        \
        product(x, weight, scales, out, how);                                                                                   \
    }

KERNELS(bf16, bf16)
KERNELS(f16, f16)
KERNELS(f32, float)

// Numbers of few bits as numbers: blocks of GGUF files and floats of 8 bits, for compute capability 7.5 and newer. mod.rs launches
// it; widen.ptx is what nvcc makes of it (tools/cuda/kernels.sh).
// arch: compute_75
//
// A thread makes one number; those of a warp read one block of 32 numbers, or an eighth of one of 256, and write side by side.
// Products and sums are rounded one after the other, as on the processor, so that the numbers are the same on both; what is
// written is rounded once. Layouts: ggml-org/llama.cpp, ggml-common.h and dequantize_row_* of ggml-quants.c.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

constexpr int THREADS = 256;

// What is not an array; mod.rs has the same struct.
struct How {
    // Between rows of codes, in bytes.
    long long row_bytes;
    // The first of the numbers of a row that are wanted, and how many are.
    int first, count;
    // Between the scales of two rows: 0 where one is for all.
    int scale_step;
};

__device__ __forceinline__ float half_at(const u8 *at) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((u16)(at[0] | at[1] << 8)));
    return x;
}

__device__ __forceinline__ int nibble(const u8 *codes, int i) { return i < 16 ? codes[i] & 15 : codes[i - 16] >> 4; }

__device__ __forceinline__ int fifth(const u8 *bits, int i) { return (bits[i >> 3] >> (i & 7) & 1) << 4; }

// Number i of a block of 32, or of the group g of a block of 256.
struct Q4_0 {
    static constexpr int BYTES = 18, NUMBERS = 32;
    static __device__ float number(const u8 *b, int, int i) { return __fmul_rn(nibble(b + 2, i) - 8, half_at(b)); }
};

struct Q4_1 {
    static constexpr int BYTES = 20, NUMBERS = 32;
    static __device__ float number(const u8 *b, int, int i) {
        return __fadd_rn(__fmul_rn(nibble(b + 4, i), half_at(b)), half_at(b + 2));
    }
};

struct Q5_0 {
    static constexpr int BYTES = 22, NUMBERS = 32;
    static __device__ float number(const u8 *b, int, int i) {
        return __fmul_rn((nibble(b + 6, i) | fifth(b + 2, i)) - 16, half_at(b));
    }
};

struct Q5_1 {
    static constexpr int BYTES = 24, NUMBERS = 32;
    static __device__ float number(const u8 *b, int, int i) {
        return __fadd_rn(__fmul_rn(nibble(b + 8, i) | fifth(b + 4, i), half_at(b)), half_at(b + 2));
    }
};

struct Q8_0 {
    static constexpr int BYTES = 34, NUMBERS = 32;
    static __device__ float number(const u8 *b, int, int i) { return __fmul_rn((signed char)b[2 + i], half_at(b)); }
};

struct Q2_K {
    static constexpr int BYTES = 84, NUMBERS = 256;
    static __device__ float number(const u8 *b, int g, int i) {
        int both = b[2 * g + i / 16], code = b[16 + 32 * (g / 4) + i] >> (2 * (g % 4)) & 3;
        float scale = __fmul_rn(half_at(b + 80), both & 15), least = __fmul_rn(half_at(b + 82), both >> 4);
        return __fsub_rn(__fmul_rn(scale, code), least);
    }
};

struct Q3_K {
    static constexpr int BYTES = 110, NUMBERS = 256;
    static __device__ float number(const u8 *b, int g, int i) {
        const u8 *packed = b + 96;
        int at = 2 * g + i / 16;
        int low = packed[at % 8] >> (4 * (at / 8)) & 15, high = packed[8 + at % 4] >> (2 * (at / 4)) & 3;
        int code = b[32 + 32 * (g / 4) + i] >> (2 * (g % 4)) & 3 | (b[i] >> g & 1) << 2;
        return __fmul_rn(__fmul_rn(half_at(b + 108), (low | high << 4) - 32), code - 4);
    }
};

// The scale and the minimum of a group, of 6 bits each, as Q4_K and Q5_K pack them.
__device__ __forceinline__ void scale_and_least(const u8 *b, int g, float &scale, float &least) {
    const u8 *packed = b + 4;
    int of_scale, of_least;
    if (g < 4) {
        of_scale = packed[g] & 63, of_least = packed[g + 4] & 63;
    } else {
        int both = packed[g + 4];
        of_scale = both & 15 | packed[g - 4] >> 6 << 4, of_least = both >> 4 | packed[g] >> 6 << 4;
    }
    scale = __fmul_rn(half_at(b), of_scale), least = __fmul_rn(half_at(b + 2), of_least);
}

struct Q4_K {
    static constexpr int BYTES = 144, NUMBERS = 256;
    static __device__ float number(const u8 *b, int g, int i) {
        float scale, least;
        scale_and_least(b, g, scale, least);
        return __fsub_rn(__fmul_rn(scale, b[16 + 32 * (g / 2) + i] >> (4 * (g % 2)) & 15), least);
    }
};

struct Q5_K {
    static constexpr int BYTES = 176, NUMBERS = 256;
    static __device__ float number(const u8 *b, int g, int i) {
        float scale, least;
        scale_and_least(b, g, scale, least);
        int code = b[48 + 32 * (g / 2) + i] >> (4 * (g % 2)) & 15 | (b[16 + i] >> g & 1) << 4;
        return __fsub_rn(__fmul_rn(scale, code), least);
    }
};

struct Q6_K {
    static constexpr int BYTES = 210, NUMBERS = 256;
    static __device__ float number(const u8 *b, int g, int i) {
        int half = g / 4, quarter = g % 4;
        int low = b[64 * half + 32 * (quarter % 2) + i] >> (4 * (quarter / 2)) & 15;
        int high = b[128 + 32 * half + i] >> (2 * quarter) & 3;
        float scale = __fmul_rn(half_at(b + 208), (signed char)b[192 + 2 * g + i / 16]);
        return __fmul_rn(scale, (low | high << 4) - 32);
    }
};

// -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113 (ggml-common.h, kvalues_iq4nl), four to a word.
__device__ __forceinline__ float iq4(int code) {
    u32 below = __byte_perm(0xbfad9881, 0xf6eaddcf, code & 7), above = __byte_perm(0x26190d01, 0x71594535, code & 7);
    return (signed char)(code < 8 ? below : above);
}

struct IQ4_NL {
    static constexpr int BYTES = 18, NUMBERS = 32;
    static __device__ float number(const u8 *b, int, int i) { return __fmul_rn(half_at(b), iq4(nibble(b + 2, i))); }
};

struct IQ4_XS {
    static constexpr int BYTES = 136, NUMBERS = 256;
    static __device__ float number(const u8 *b, int g, int i) {
        int low = b[4 + g / 2] >> (4 * (g % 2)) & 15, high = (b[2] | b[3] << 8) >> (2 * g) & 3;
        float scale = __fmul_rn(half_at(b), (low | high << 4) - 32);
        return __fmul_rn(scale, iq4(nibble(b + 8 + 16 * g, i)));
    }
};

// Floats of 8 bits (arXiv 2209.05433, table 1): "blocks" of one number.
struct F8_E4M3 {
    static constexpr int BYTES = 1, NUMBERS = 1;
    static __device__ float number(const u8 *b, int, int) {
        u32 code = *b, sign = (code & 0x80) << 24, magnitude = code & 0x7f;
        if (magnitude == 0x7f) return __uint_as_float(0x7fc00000);
        // Subnormal: eighths of 2^-6. Else the f32 whose exponent is 120 greater.
        float x = magnitude < 8 ? __fmul_rn(magnitude, 1.0f / 512) : __uint_as_float((magnitude << 20) + (120u << 23));
        return __uint_as_float(__float_as_uint(x) | sign);
    }
};

struct F8_E5M2 {
    static constexpr int BYTES = 1, NUMBERS = 1;
    static __device__ float number(const u8 *b, int, int) {
        const u8 half[2] = {0, *b}; // the upper half of an f16
        return half_at(half);
    }
};

__device__ __forceinline__ void write(float *at, float x) { *at = x; }

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ void write(bf16 *at, float x) {
    u32 bits = __float_as_uint(x);
    bool is_number = (bits & 0x7fffffff) <= 0x7f800000;
    at->bits = is_number ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40;
}

__device__ __forceinline__ void write(f16 *at, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(at->bits) : "f"(x)); }

template <typename Kind, typename Out>
__device__ __forceinline__ void widen(const u8 *codes, const float *scales, Out *out, How how) {
    int at = blockIdx.x * THREADS + threadIdx.x;
    if (at >= how.count) return;
    long long row = blockIdx.y;
    int column = how.first + at, in_block = column % Kind::NUMBERS;
    const u8 *block = codes + row * how.row_bytes + (long long)(column / Kind::NUMBERS) * Kind::BYTES;
    float x = Kind::number(block, in_block / 32, in_block % 32);
    if (Kind::NUMBERS == 1) x = __fmul_rn(x, scales[row * how.scale_step]);
    write(out + row * how.count + at, x);
}

#define ENTRY(kind, word, Kind, Out)                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                             \
        widen_##kind##_##word(const u8 *codes, const float *scales, Out *out, const How how) {                        \
        widen<Kind>(codes, scales, out, how);                                                                         \
    }
#define ENTRIES(kind, Kind) ENTRY(kind, bf16, Kind, bf16) ENTRY(kind, f16, Kind, f16) ENTRY(kind, f32, Kind, float)

ENTRIES(q4_0, Q4_0)
ENTRIES(q4_1, Q4_1)
ENTRIES(q5_0, Q5_0)
ENTRIES(q5_1, Q5_1)
ENTRIES(q8_0, Q8_0)
ENTRIES(q2_k, Q2_K)
ENTRIES(q3_k, Q3_K)
ENTRIES(q4_k, Q4_K)
ENTRIES(q5_k, Q5_K)
ENTRIES(q6_k, Q6_K)
ENTRIES(iq4_nl, IQ4_NL)
ENTRIES(iq4_xs, IQ4_XS)
ENTRIES(f8_e4m3, F8_E4M3)
ENTRIES(f8_e5m2, F8_E5M2)

// Numbers as they lie in memory, and the f32 that kernels compute in: for kernels of several files.

typedef unsigned int u32;
typedef unsigned short u16;

struct F32 {
    typedef float Bits;
    static __device__ __forceinline__ float wide(float bits) { return bits; }
    static __device__ __forceinline__ float rounded(float x) { return x; }
};

struct BF16 {
    typedef u16 Bits;
    static __device__ __forceinline__ float wide(u16 bits) { return __uint_as_float((u32)bits << 16); }
    static __device__ __forceinline__ u16 rounded(float x) {
        u16 bits;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
        return bits;
    }
};

struct F16 {
    typedef u16 Bits;
    static __device__ __forceinline__ float wide(u16 bits) {
        float x;
        asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
        return x;
    }
    static __device__ __forceinline__ u16 rounded(float x) {
        u16 bits;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
        return bits;
    }
};

// Numbers that travel at once.
template <typename T> constexpr int WIDE = 16 / sizeof(typename T::Bits);

template <typename T, int N> __device__ __forceinline__ void load(float (&to)[N], const typename T::Bits *from) {
    constexpr int BYTES = N * sizeof(typename T::Bits), EACH = WIDE<T>;
    if constexpr (BYTES % 16 == 0) {
#pragma unroll
        for (int at = 0; at < N; at += EACH) {
            uint4 four = *(const uint4 *)(from + at);
            u32 words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if constexpr (EACH == 4) {
                    to[at + i] = __uint_as_float(words[i]);
                } else {
                    to[at + 2 * i] = T::wide((u16)words[i]);
                    to[at + 2 * i + 1] = T::wide((u16)(words[i] >> 16));
                }
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = T::wide(from[i]);
    }
}

template <typename T, int N> __device__ __forceinline__ void store(typename T::Bits *to, const float (&from)[N]) {
    constexpr int BYTES = N * sizeof(typename T::Bits), EACH = WIDE<T>;
    if constexpr (BYTES % 16 == 0) {
#pragma unroll
        for (int at = 0; at < N; at += EACH) {
            u32 words[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if constexpr (EACH == 4) {
                    words[i] = __float_as_uint(from[at + i]);
                } else {
                    words[i] = T::rounded(from[at + 2 * i]) | (u32)T::rounded(from[at + 2 * i + 1]) << 16;
                }
            }
            *(uint4 *)(to + at) = make_uint4(words[0], words[1], words[2], words[3]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = T::rounded(from[i]);
    }
}

__device__ __forceinline__ float exp_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.44269504f * x));
    return y;
}

// x / (1 + exp(-x))
__device__ __forceinline__ float silu(float x) { return x * __frcp_rn(1 + exp_of(-x)); }

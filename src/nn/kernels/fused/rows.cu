// What transformers do between products, each in one pass over the numbers: norms with what scales and shifts them, gated sums,
// activations, heads that are normed and turned. For compute capability 8.0 and newer; mod.rs says what is launched, rows.ptx is
// what nvcc makes of it (tools/cuda/kernels.sh).
//
// Numbers are widened to f32, computed in it, and rounded once, when they are written. Rows lie side by side. Each kernel is there
// twice: `wide` moves 16 bytes at once, where rows and vectors begin at multiples of them, `any` goes number by number.

#include "../numbers.cuh"

constexpr int THREADS = 128;
// Rows of a block that goes over columns: what is read for each column is read once for them.
constexpr int ROWS = 8;
// Rows of a block that goes over one after another.
constexpr int IN_TURN = 4;
constexpr u32 ALL = ~0u;

// What is not an array; mod.rs has the same struct.
struct How {
    int rows;
    // Numbers of a row.
    int columns;
    // A row of x is so many heads.
    int heads;
    // Rows of each head of the output, and the first to write.
    int tokens, first;
    // Threads that share a head: 2, 4, 8, 16 or 32.
    int lanes;
    // Within the root of a norm.
    float eps;
};

// So many numbers of a vector, or zeros where there is none.
template <typename T, int N> __device__ __forceinline__ void load_or_zeros(float (&to)[N], const void *from, int at) {
    if (from) {
        load<T>(to, (const typename T::Bits *)from + at);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = 0;
    }
}

// x (1 + tanh(u)) / 2 for u = sqrt(2 / pi) (x + 0.044715 x^3), as x / (1 + exp(-2 u)), which does not cancel.
__device__ __forceinline__ float gelu(float x) {
    float u = 0.797884561f * fmaf(0.044715f * x * x, x, x);
    return x * __frcp_rn(1 + exp_of(-2 * u));
}

// The sum over so many lanes that follow each other.
__device__ __forceinline__ float sum_of_lanes(float x, int lanes) {
    for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
    return x;
}

// The sum over all threads of a block.
__device__ __forceinline__ float sum_of_block(float x) {
    __shared__ float sums[THREADS / 32];
    x = sum_of_lanes(x, 32);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; ++warp) x += sums[warp];
    return x;
}

extern __shared__ uint4 room[];

// What a kernel is given: its output, the array it goes over, vectors as it needs them.
template <typename T> struct Given {
    typename T::Bits *out;
    const typename T::Bits *x;
    const void *a, *b, *c, *d;
    How how;
};

template <typename T, int N> __device__ __forceinline__ void copy(typename T::Bits *to, const void *from, long long at) {
    const typename T::Bits *source = (const typename T::Bits *)from + at;
    if constexpr (N % WIDE<T> == 0) {
#pragma unroll
        for (int i = 0; i < N; i += WIDE<T>) *(uint4 *)(to + i) = *(const uint4 *)(source + i);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = source[i];
    }
}

// A block's room: vectors a and b, a row. Each thread keeps what it reads, once, and reads no other's.
template <typename T, typename A, int N> struct Room {
    typename A::Bits *a;
    typename T::Bits *b, *row;
    int columns;

    __device__ __forceinline__ Room(const Given<T> &of) : a((typename A::Bits *)room), columns(of.how.columns) {
        b = (typename T::Bits *)(a + columns);
        row = b + columns;
        each([&](int at) {
            copy<A, N>(a + at, of.a, at);
            if (of.b) copy<T, N>(b + at, of.b, at);
        });
    }

    template <typename F> __device__ __forceinline__ void each(F &&visit) {
#pragma unroll 1
        for (int at = N * threadIdx.x; at < columns; at += N * THREADS) visit(at);
    }

    // The mean of f over the row's numbers.
    template <typename F> __device__ __forceinline__ float mean(F &&f) {
        float sum = 0;
        each([&](int at) {
            float x[N];
            load<T>(x, row + at);
#pragma unroll
            for (int i = 0; i < N; ++i) sum += f(x[i]);
        });
        return sum_of_block(sum) / columns;
    }

    // Visits where each of the block's rows begins, when it is there.
    template <typename F> __device__ __forceinline__ void each_row(const Given<T> &of, F &&visit) {
        int first = blockIdx.x * IN_TURN, end = min(first + IN_TURN, of.how.rows);
#pragma unroll 1
        for (int at = first; at < end; ++at) {
            long long start = (long long)at * columns;
            each([&](int at) { copy<T, N>(row + at, of.x, start + at); });
            visit(start);
        }
    }
};

// out = (1 + a) layer_norm(x) + b; a and b [columns] of x' type. Blocks (rows / IN_TURN).
template <typename T, int N> __device__ __forceinline__ void layer_norm(const Given<T> &of) {
    Room<T, T, N> room(of);
    room.each_row(of, [&](long long start) {
        float mean = room.mean([](float x) { return x; });
        float factor = rsqrtf(room.mean([=](float x) { return (x - mean) * (x - mean); }) + of.how.eps);
        room.each([&](int at) {
            float x[N], scale[N], shift[N];
            load<T>(x, room.row + at);
            load<T>(scale, room.a + at);
            load<T>(shift, room.b + at);
#pragma unroll
            for (int i = 0; i < N; ++i) x[i] = fmaf((x[i] - mean) * factor, 1 + scale[i], shift[i]);
            store<T>(of.out + start + at, x);
        });
    });
}

// out = x / rms(x) a for a [columns] f32; where there is b [columns] of x' type, out += b x / rms(x) a.
template <typename T, int N> __device__ __forceinline__ void rms_norm(const Given<T> &of) {
    Room<T, F32, N> room(of);
    room.each_row(of, [&](long long start) {
        float factor = rsqrtf(room.mean([](float x) { return x * x; }) + of.how.eps);
        room.each([&](int at) {
            float x[N], weight[N], gate[N], sum[N];
            load<T>(x, room.row + at);
            load<F32>(weight, room.a + at);
#pragma unroll
            for (int i = 0; i < N; ++i) x[i] *= factor * weight[i];
            if (of.b) {
                load<T>(gate, room.b + at);
                load<T>(sum, of.out + start + at);
#pragma unroll
                for (int i = 0; i < N; ++i) x[i] = fmaf(gate[i], x[i], sum[i]);
            }
            store<T>(of.out + start + at, x);
        });
    });
}

// Visits the numbers that a thread has of each of its block's rows: blocks (rows / ROWS, columns / (N THREADS)).
template <typename T, int N, typename F> __device__ __forceinline__ void each_row(const Given<T> &of, F &&visit) {
    int column = N * (blockIdx.y * THREADS + threadIdx.x);
    if (column >= of.how.columns) return;
    float a[N], b[N];
    load_or_zeros<T>(a, of.a, column);
    load_or_zeros<T>(b, of.b, column);
    int first = blockIdx.x * ROWS, end = min(first + ROWS, of.how.rows);
    // Unrolled it would make the text longer by half.
#pragma unroll 1
    for (int row = first; row < end; ++row) visit((long long)row * of.how.columns + column, a, b);
}

// out += a (x + b) for a and b [columns].
template <typename T, int N> __device__ __forceinline__ void add_gated(const Given<T> &of) {
    each_row<T, N>(of, [&](long long at, const float(&gate)[N], const float(&bias)[N]) {
        float sum[N], x[N];
        load<T>(sum, of.out + at);
        load<T>(x, of.x + at);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] = fmaf(gate[i], x[i] + bias[i], sum[i]);
        store<T>(of.out + at, sum);
    });
}

// out = f(out + a) for a [columns].
template <typename T, int N, typename F> __device__ __forceinline__ void change(const Given<T> &of, F &&f) {
    each_row<T, N>(of, [&](long long at, const float(&bias)[N], const float(&)[N]) {
        float x[N];
        load<T>(x, of.out + at);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = f(x[i] + bias[i]);
        store<T>(of.out + at, x);
    });
}

template <typename T, int N> __device__ __forceinline__ void add_bias(const Given<T> &of) {
    change<T, N>(of, [](float x) { return x; });
}

template <typename T, int N> __device__ __forceinline__ void add_bias_gelu(const Given<T> &of) {
    change<T, N>(of, [](float x) { return gelu(x); });
}

// out = silu(out) x.
template <typename T, int N> __device__ __forceinline__ void silu_gated(const Given<T> &of) {
    each_row<T, N>(of, [&](long long at, const float(&)[N], const float(&)[N]) {
        float gate[N], x[N];
        load<T>(gate, of.out + at);
        load<T>(x, of.x + at);
#pragma unroll
        for (int i = 0; i < N; ++i) gate[i] = silu(gate[i]) * x[i];
        store<T>(of.out + at, gate);
    });
}

// A head of a block's rows: x [rows, heads D] + a [heads D] becomes rows `first` + row of each head of out [heads, tokens, D].
template <typename T, int N> struct Head {
    const Given<T> &of;
    int columns, dim, first, begin;
    long long in_x, in_out;
    float bias[N];

    __device__ __forceinline__ Head(const Given<T> &of, int head) : of(of), columns(of.how.columns), dim(columns / of.how.heads) {
        int row = blockIdx.x * IN_TURN;
        first = head * dim;
        begin = N * (threadIdx.x % of.how.lanes);
        in_x = (long long)row * columns + first;
        in_out = ((long long)head * of.how.tokens + of.how.first + row) * dim;
        if (begin < dim) load_or_zeros<T>(bias, of.a, first + begin);
    }

    // Visits the numbers that a thread has of each row of it.
    template <typename F> __device__ __forceinline__ void each(F &&visit) {
#pragma unroll 1
        for (int at = begin; at < dim; at += N * of.how.lanes) visit(at);
    }

    __device__ __forceinline__ void read(float (&to)[N], int row, int at) {
        // The bias of a head that its lanes hold at once is read once.
        if (dim > N * of.how.lanes) load_or_zeros<T>(bias, of.a, first + at);
        load<T>(to, of.x + in_x + row * columns + at);
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] += bias[i];
    }

    __device__ __forceinline__ void write(int row, int at, const float (&from)[N]) {
        store<T>(of.out + in_out + row * dim + at, from);
    }
};

// Blocks (rows / IN_TURN).
template <typename T, int N> __device__ __forceinline__ void split_heads(const Given<T> &of) {
    int rows = min(IN_TURN, of.how.rows - (int)blockIdx.x * IN_TURN);
    for (int at = threadIdx.x / of.how.lanes; at < of.how.heads; at += THREADS / of.how.lanes) {
        Head<T, N> head(of, at);
#pragma unroll 1
        for (int row = 0; row < rows; ++row) {
            head.each([&](int at) {
                float x[N];
                head.read(x, row, at);
                head.write(row, at, x);
            });
        }
    }
}

// The same, each head normed by its root mean square and weights b [D], its pairs (2i, 2i + 1) turned by angles whose cosines
// and sines are c and d [rows, D/2]; b, c and d are f32. Room for (1 + IN_TURN) D of them: weights, and cosines beside sines.
template <typename T, int N> __device__ __forceinline__ void rotate_heads(const Given<T> &of) {
    int rows = min(IN_TURN, of.how.rows - (int)blockIdx.x * IN_TURN);
    int dim = of.how.columns / of.how.heads, half = dim / 2, lanes = of.how.lanes;
    float *weights = (float *)room, *turns = weights + dim;
    for (int i = threadIdx.x; i < dim; i += THREADS) weights[i] = ((const float *)of.b)[i];
    for (int i = threadIdx.x; i < rows * half; i += THREADS) {
        long long at = (long long)blockIdx.x * IN_TURN * half + i;
        turns[2 * i] = ((const float *)of.c)[at];
        turns[2 * i + 1] = ((const float *)of.d)[at];
    }
    __syncthreads();
    for (int first = 0; first < of.how.heads; first += THREADS / lanes) {
        int own = first + threadIdx.x / lanes;
        // All lanes of a warp sum, also those that have no head left.
        Head<T, N> head(of, min(own, of.how.heads - 1));
#pragma unroll 1
        for (int row = 0; row < rows; ++row) {
            float x[N], sum = 0;
            head.each([&](int at) {
                head.read(x, row, at);
#pragma unroll
                for (int i = 0; i < N; ++i) sum = fmaf(x[i], x[i], sum);
            });
            float factor = rsqrtf(sum_of_lanes(sum, lanes) / dim + of.how.eps);
            if (own >= of.how.heads) continue;
            head.each([&](int at) {
                // A head that its lanes hold at once is read once.
                if (dim > N * lanes) head.read(x, row, at);
                float turned[N];
#pragma unroll
                for (int i = 0; i < N; i += 2) {
                    const float *turn = turns + row * dim + at + i;
                    float p = x[i] * factor * weights[at + i], q = x[i + 1] * factor * weights[at + i + 1];
                    turned[i] = p * turn[0] - q * turn[1];
                    turned[i + 1] = p * turn[1] + q * turn[0];
                }
                head.write(row, at, turned);
            });
        }
    }
}

#define KERNEL(name, T, N, OPERATION)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) name(T::Bits *out, const T::Bits *x, const void *a, const void *b,       \
                                                               const void *c, const void *d, const How how) {                      \
        OPERATION<T, N>(Given<T>{out, x, a, b, c, d, how});                                                                        \
    }

#define EACH(OPERATION, LEAST)                                                                                                     \
    KERNEL(OPERATION##_f32_wide, F32, WIDE<F32>, OPERATION)                                                                        \
    KERNEL(OPERATION##_f32_any, F32, LEAST, OPERATION)                                                                             \
    KERNEL(OPERATION##_bf16_wide, BF16, WIDE<BF16>, OPERATION)                                                                     \
    KERNEL(OPERATION##_bf16_any, BF16, LEAST, OPERATION)                                                                           \
    KERNEL(OPERATION##_f16_wide, F16, WIDE<F16>, OPERATION)                                                                        \
    KERNEL(OPERATION##_f16_any, F16, LEAST, OPERATION)

EACH(layer_norm, 1)
EACH(rms_norm, 1)
EACH(add_gated, 1)
EACH(add_bias, 1)
EACH(add_bias_gelu, 1)
EACH(silu_gated, 1)
EACH(split_heads, 1)
EACH(rotate_heads, 2)

// What is done to feature maps beside their products, each in one pass: rows normed and put into the window of a convolution, the nine
// pixels of each output put side by side, the statistics of channels. For compute capability 8.0 and newer; mod.rs says what is
// launched, maps.ptx is what nvcc makes of it (tools/cuda/kernels.sh).
//
// Maps are [rows, columns, C], channels fastest. Each kernel is there twice: `wide` moves 16 bytes at once, where channels come in
// multiples of them, `any` goes number by number.

#include "../numbers.cuh"

constexpr int THREADS = 256;

// What is not an array; mod.rs has the same struct.
struct How {
    int rows, columns, channels;
    // The result's, but of statistics.
    int out_rows, out_columns;
    // Rows of the result that come before those of x, and columns of zeros left of it.
    int above, left;
    // Whether those rows are given; else they are zeros.
    int is_given;
    // Nothing, scaled and shifted, or silu of that; of taps how an output is made: same, doubled, halved (Reach in operations.rs); of
    // moments the pixels of a block.
    int way;
};

template <typename T, int N> __device__ __forceinline__ long long first_number() {
    return (blockIdx.x * (long long)THREADS + threadIdx.x) * N;
}

// x [rows, columns, C] to out [out_rows, out_columns, C]: below rows of a window before, with zeros wherever nothing else is. A channel's
// scale and shift lie in `affine` [2, C].
template <typename T, int N>
__device__ __forceinline__ void window(const typename T::Bits *x, const float *affine, const typename T::Bits *above,
                                       typename T::Bits *out, const How &how) {
    long long at = first_number<T, N>();
    if (at >= (long long)how.out_rows * how.out_columns * how.channels) return;
    int channel = at % how.channels, row, column;
    {
        long long pixel = at / how.channels;
        column = pixel % how.out_columns - how.left, row = pixel / how.out_columns - how.above;
    }
    float numbers[N] = {};
    if (row < 0) {
        if (how.is_given) load<T>(numbers, above + at);
    } else if (row < how.rows && column >= 0 && column < how.columns) {
        load<T>(numbers, x + ((long long)row * how.columns + column) * how.channels + channel);
        if (how.way > 0) {
            float scale[N], shift[N];
            load<F32>(scale, affine + channel);
            load<F32>(shift, affine + how.channels + channel);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                numbers[i] = fmaf(numbers[i], scale[i], shift[i]);
                if (how.way > 1) numbers[i] = silu(numbers[i]);
            }
        }
    }
    store<T>(out + at, numbers);
}

// A window x [rows, columns, C] to out [out_rows, out_columns, 9 C]: each of its pixels to wherever an output looks at it.
template <typename Piece, int N>
__device__ __forceinline__ void taps(const Piece *x, Piece *out, const How &how) {
    long long at = first_number<Piece, 1>();
    int pieces = how.channels / N;
    if (at >= (long long)how.rows * how.columns * pieces) return;
    int piece = at % pieces;
    long long pixel = at / pieces;
    int column = pixel % how.columns, row = pixel / how.columns;
    Piece numbers = x[at];
    // Places in the map as it is convolved, from and how many: doubled rows begin half a row in.
    int times = how.way == 1 ? 2 : 1, stride = how.way == 2 ? 2 : 1;
    for (int down = 0; down < times; ++down) {
        for (int across = 0; across < times; ++across) {
            int y = times * row + down - (times - 1), x_ = times * column + across - (times - 1);
#pragma unroll
            for (int tap = 0; tap < 9; ++tap) {
                int of_row = y - tap / 3, of_column = x_ - tap % 3;
                if (of_row < 0 || of_column < 0 || of_row % stride || of_column % stride) continue;
                of_row /= stride, of_column /= stride;
                if (of_row >= how.out_rows || of_column >= how.out_columns) continue;
                out[(((long long)of_row * how.out_columns + of_column) * 9 + tap) * pieces + piece] = numbers;
            }
        }
    }
}

// The mean of each channel over so many pixels of x [rows columns, C], and the sum of its squared deviations from that: to out
// [blocks, 2, C]. Sums are of differences from the first of these pixels, so that little cancels.
template <typename T, int N> __device__ __forceinline__ void moments(const typename T::Bits *x, float *out, const How &how) {
    __shared__ float sums[2][THREADS * N];
    int groups = how.channels / N, lanes = THREADS / groups, group = threadIdx.x % groups, lane = threadIdx.x / groups;
    long long first = blockIdx.x * (long long)how.way, left = (long long)how.rows * how.columns - first;
    int count = left < how.way ? left : how.way;
    x += first * how.channels;
    if (lane < lanes) {
        float from[N], sum[N] = {}, squares[N] = {};
        load<T>(from, x + group * N);
        for (int pixel = lane; pixel < count; pixel += lanes) {
            float numbers[N];
            load<T>(numbers, x + (long long)pixel * how.channels + group * N);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                float off = numbers[i] - from[i];
                sum[i] += off, squares[i] = fmaf(off, off, squares[i]);
            }
        }
        store<F32>(sums[0] + lane * how.channels + group * N, sum);
        store<F32>(sums[1] + lane * how.channels + group * N, squares);
    }
    __syncthreads();
    for (int channel = threadIdx.x; channel < how.channels; channel += THREADS) {
        float sum = 0, squares = 0;
        for (int lane = 0; lane < lanes; ++lane) {
            sum += sums[0][lane * how.channels + channel], squares += sums[1][lane * how.channels + channel];
        }
        float mean = sum / count;
        float *to = out + blockIdx.x * 2ll * how.channels + channel;
        to[0] = T::wide(x[channel]) + mean;
        to[how.channels] = fmaxf(fmaf(-sum, mean, squares), 0);
    }
}

#define WINDOW(word, T, way, N)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                       \
        window_##word##_##way(const T::Bits *x, const float *affine, const T::Bits *above, T::Bits *out, const How how) {       \
        window<T, N>(x, affine, above, out, how);                                                                               \
    }
#define MOMENTS(word, T, way, N)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) moments_##word##_##way(const T::Bits *x, float *out, const How how) { \
        moments<T, N>(x, out, how);                                                                                             \
    }
#define TAPS(word, Piece, way, N)                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) taps_##word##_##way(const Piece *x, Piece *out, const How how) {      \
        taps<Piece, N>(x, out, how);                                                                                            \
    }
#define EACH(word, T)                                                                                                           \
    WINDOW(word, T, wide, WIDE<T>)                                                                                              \
    WINDOW(word, T, any, 1)                                                                                                     \
    MOMENTS(word, T, wide, WIDE<T>)                                                                                             \
    MOMENTS(word, T, any, 1)                                                                                                    \
    TAPS(word, uint4, wide, WIDE<T>)                                                                                            \
    TAPS(word, T::Bits, any, 1)

EACH(bf16, BF16)
EACH(f16, F16)
EACH(f32, F32)

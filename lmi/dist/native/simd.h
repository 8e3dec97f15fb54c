// Vectors as wide as the target's registers, and the number formats that weights and caches have.
//
// Everything is written with the vector extensions of GCC and Clang, so one source serves every
// instruction set; intrinsics stand only where the compilers find no good code of their own.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define LMI_API extern "C" __attribute__((visibility("default")))

namespace lmi {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kTileRows = 12;  // 32 registers: 24 accumulators
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kTileRows = 6;  // 16 registers: 12 accumulators
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kTileRows = 12;
#else
constexpr int kLanes = 4;
constexpr int kTileRows = 6;
#endif

using Floats = float __attribute__((vector_size(kLanes * 4)));
using Ints = int32_t __attribute__((vector_size(kLanes * 4)));
using Words = uint32_t __attribute__((vector_size(kLanes * 4)));
using Halves = uint16_t __attribute__((vector_size(kLanes * 2)));
using Bytes = uint8_t __attribute__((vector_size(kLanes)));

template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits, read as another type");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

template <class Vector>
inline Vector load_as(const void* from) {
    Vector to;
    std::memcpy(&to, from, sizeof(to));
    return to;
}

inline Floats load(const float* from) { return load_as<Floats>(from); }

inline void store(float* to, Floats from) { std::memcpy(to, &from, sizeof(from)); }

inline Floats fill(float value) { return value - Floats{}; }

inline Floats choose(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }

inline Floats maximum(Floats a, Floats b) { return a > b ? a : b; }

// ------------------------------------------------------------------------------- number formats

// The numbers of a tensor's elements; the same values as in library.py.
enum Format : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat8 = 3 };

struct Float32 {
    using Element = float;
    static Floats load(const float* from) { return lmi::load(from); }
    static float read(float from) { return from; }
    static float write(float value) { return value; }
};

struct BFloat16 {
    using Element = uint16_t;
    static Floats load(const uint16_t* from) {
        const Words words = __builtin_convertvector(load_as<Halves>(from), Words);
        return bits_as<Floats>(words << 16);
    }
    static float read(uint16_t from) { return bits_as<float>(uint32_t(from) << 16); }
    // To the nearest, ties to even; every NaN becomes the one quiet NaN, as in torch.
    static uint16_t write(float value) {
        const uint32_t word = bits_as<uint32_t>(value);
        const uint32_t rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
        return value == value ? uint16_t(rounded) : uint16_t(0x7fc0);
    }
};

struct Float16 {
    using Element = uint16_t;
    static Floats load(const uint16_t* from) {
#if defined(__AVX512F__)
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__) && defined(__AVX2__)
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
        Floats to;
        for (int i = 0; i < kLanes; ++i) to[i] = read(from[i]);
        return to;
#endif
    }
    static float read(uint16_t from) {
        const uint32_t sign = uint32_t(from & 0x8000) << 16;
        const uint32_t rest = from & 0x7fff;
        if (rest >= 0x7c00) return bits_as<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
        // The exponent is 112 too small after the shift; the product mends subnormals as well.
        const float magnitude = bits_as<float>(rest << 13) * 0x1p112f;
        return bits_as<float>(sign | bits_as<uint32_t>(magnitude));
    }
    static uint16_t write(float value) {
        const uint32_t word = bits_as<uint32_t>(value);
        const uint16_t sign = uint16_t((word >> 16) & 0x8000);
        const uint32_t magnitude = word & 0x7fffffff;
        if (magnitude > 0x7f800000) return sign | 0x7e00;  // NaN
        if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and above round to infinity
        if (magnitude < 0x38800000) {  // subnormal: the adder's own rounding does the work
            const float shifted = bits_as<float>(magnitude) + 0.5f;
            return sign | uint16_t(bits_as<uint32_t>(shifted) - 0x3f000000);
        }
        const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
        return sign | uint16_t((rounded - 0x38000000) >> 13);
    }
};

// Calls visit with the type that stands for a format; kFloat8 is `with_cache_format`'s.
template <class Visit>
inline void with_format(int32_t format, Visit&& visit) {
    if (format == kBFloat16) {
        visit(BFloat16{});
    } else if (format == kFloat16) {
        visit(Float16{});
    } else {
        visit(Float32{});
    }
}

// ----------------------------------------------------------------------------------- reductions

namespace detail {

// Lane i of one step of the transposing sum: which of the 2 * kLanes lanes of two vectors it takes.
// The first two steps stay inside 128 bits, where shuffles are cheap; the rest move whole quarters.
constexpr int pick(int step, int half, int i) {
    const int quarter = i / 4, place = i % 4;
    if (step < 2) return place / 2 * kLanes + quarter * 4 + place % 2 * 2 + half;
    const int each = kLanes >= 8 ? kLanes / 8 : 1;  // quarters that come from each vector
    const int source = quarter / each, index = quarter % each;
    return source * kLanes + (index * 2 + half) * 4 + place;
}

template <int step, int... lanes>
inline Floats add_pairs(Floats a, Floats b, std::integer_sequence<int, lanes...>) {
    return __builtin_shufflevector(a, b, pick(step, 0, lanes)...) +
           __builtin_shufflevector(a, b, pick(step, 1, lanes)...);
}

// Lane i takes what lane i + by held.
template <int by, int... lanes>
inline Floats rotate(Floats vector, std::integer_sequence<int, lanes...>) {
    return __builtin_shufflevector(vector, vector, ((lanes + by) % kLanes)...);
}

}  // namespace detail

// The sums of kLanes vectors: lane i is the sum over vector i, always added in the same order. The
// vectors are used up.
inline Floats sum_each(Floats (&vectors)[kLanes]) {
    using Lanes = std::make_integer_sequence<int, kLanes>;
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
        vectors[i] = detail::add_pairs<0>(vectors[2 * i], vectors[2 * i + 1], Lanes{});
    }
#pragma GCC unroll 4
    for (int i = 0; i < kLanes / 4; ++i) {
        vectors[i] = detail::add_pairs<1>(vectors[2 * i], vectors[2 * i + 1], Lanes{});
    }
#pragma GCC unroll 2
    for (int i = 0; i < kLanes / 8; ++i) {
        vectors[i] = detail::add_pairs<2>(vectors[2 * i], vectors[2 * i + 1], Lanes{});
    }
    if constexpr (kLanes == 16) {
        vectors[0] = detail::add_pairs<2>(vectors[0], vectors[1], Lanes{});
    }
    return vectors[0];
}

// In halves: lanes 0 + 4, 1 + 5, .. then again, in every build in the same way for its width.
inline float sum(Floats vector) {
    using Lanes = std::make_integer_sequence<int, kLanes>;
    if constexpr (kLanes == 16) vector = vector + detail::rotate<8>(vector, Lanes{});
    if constexpr (kLanes >= 8) vector = vector + detail::rotate<4>(vector, Lanes{});
    vector = vector + detail::rotate<2>(vector, Lanes{});
    return (vector + detail::rotate<1>(vector, Lanes{}))[0];
}

// Of lanes that hold no NaN.
inline float largest(Floats vector) {
    using Lanes = std::make_integer_sequence<int, kLanes>;
    if constexpr (kLanes == 16) vector = maximum(vector, detail::rotate<8>(vector, Lanes{}));
    if constexpr (kLanes >= 8) vector = maximum(vector, detail::rotate<4>(vector, Lanes{}));
    vector = maximum(vector, detail::rotate<2>(vector, Lanes{}));
    return maximum(vector, detail::rotate<1>(vector, Lanes{}))[0];
}

// exp(x) to within 2 ulp; NaN stays NaN, below -104 is 0, above 88.8 infinity. The polynomial is
// that of the Cephes library (Moshier, 1992); the scale is applied in two steps so that
// subnormal results and those near the largest number come out right.
inline Floats exponential(Floats x) {
    x = x < -104.0f ? fill(-104.0f) : x;
    x = x > 89.0f ? fill(89.0f) : x;
    const float magic = 12582912.0f;  // 1.5 * 2**23: adding it rounds to a whole number
    const Floats shifted = x * 1.44269504088896341f + magic;
    const Floats whole = shifted - magic;
    const Ints power = bits_as<Ints>(shifted) - bits_as<int32_t>(magic);
    Floats r = x - whole * 0.693359375f;
    r = r - whole * -2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Ints half = power >> 1;
    p = p * bits_as<Floats>((half + 127) << 23);
    return p * bits_as<Floats>((power - half + 127) << 23);
}

}  // namespace lmi

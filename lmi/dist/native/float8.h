// 8-bit floating point, e4m3: the numbers of torch.float8_e4m3fn.
//
// A code's seven bits of magnitude, moved to where a float16 has its exponent and mantissa, stand
// for a number 2**8 times too small, subnormals too: processors widen float16 themselves.
#pragma once

#include "simd.h"

namespace lmi {

constexpr float kFloat8Factor = 256.0f;
constexpr uint8_t kFloat8Magnitude = 0x7f;  // of a code; all ones are the NaN

namespace detail {

// For processors that do not: the same factor too small. A float32 with the code's bits below an
// exponent of 112 is right but for subnormals, which lack no leading one: 2 * (x - 2**-15) is what
// they mean, and more than x for every other number.
template <class Number, class Bits>
inline Number float8_magnitude(Bits magnitude) {
    const Number whole = bits_as<Number>((magnitude << 20) | 0x38000000u);
    const Number part = (whole - 0x1p-15f) * 2.0f;
    return part < whole ? part : whole;
}

}  // namespace detail

struct Float8 {
    using Element = uint8_t;

    static Floats load(const uint8_t* from) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        const __m256i codes =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
        const __m256i most = _mm256_set1_epi16(kFloat8Magnitude);
        const __m256i missing = _mm256_cmpeq_epi16(_mm256_and_si256(codes, most), most);
        const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16(-0x4080));
        return _mm512_cvtph_ps(_mm256_or_si256(halves, _mm256_srli_epi16(missing, 1))) * kFloat8Factor;
#elif defined(__F16C__) && defined(__AVX2__)
        const __m128i codes = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
        const __m128i most = _mm_set1_epi16(kFloat8Magnitude);
        const __m128i missing = _mm_cmpeq_epi16(_mm_and_si128(codes, most), most);
        const __m128i halves = _mm_and_si128(_mm_slli_epi16(codes, 7), _mm_set1_epi16(-0x4080));
        return _mm256_cvtph_ps(_mm_or_si128(halves, _mm_srli_epi16(missing, 1))) * kFloat8Factor;
#else
        const Words codes = __builtin_convertvector(load_as<Bytes>(from), Words);
        const Words magnitude = codes & kFloat8Magnitude;
        const Words missing = bits_as<Words>(magnitude == kFloat8Magnitude) & 0x7fffffffu;
        const Floats wide = detail::float8_magnitude<Floats>(magnitude) * kFloat8Factor;
        return bits_as<Floats>(bits_as<Words>(wide) | (codes & 0x80) << 24 | missing);
#endif
    }

    static float read(uint8_t from) {
        const uint32_t sign = uint32_t(from & 0x80) << 24, magnitude = from & kFloat8Magnitude;
        if (magnitude == kFloat8Magnitude) return bits_as<float>(sign | 0x7fffffff);
        const float wide = detail::float8_magnitude<float>(magnitude) * kFloat8Factor;
        return bits_as<float>(sign | bits_as<uint32_t>(wide));
    }

    // To the nearest, ties to even; what is larger than 448 becomes 448, as in torch.
    static uint8_t write(float value) {
        const uint32_t word = bits_as<uint32_t>(value);
        const uint8_t sign = uint8_t((word >> 24) & 0x80);
        const uint32_t magnitude = word & 0x7fffffff;
        if (magnitude > 0x7f800000) return sign | kFloat8Magnitude;  // NaN
        if (magnitude >= 0x43e00000) return sign | 0x7e;             // 448
        if (magnitude < 0x3c800000) {  // subnormal: the adder's own rounding does the work
            const float shifted = bits_as<float>(magnitude) + 0x1p14f;
            return sign | uint8_t(bits_as<uint32_t>(shifted) - 0x46800000);
        }
        const uint32_t rounded = magnitude + 0x7ffff + ((magnitude >> 20) & 1);
        return sign | uint8_t((rounded - 0x3c000000) >> 20);
    }

    // kLanes pairs of numbers that are not NaN, kFloat8Factor too small.
    static void load_finite(const uint8_t* from, Floats& low, Floats& high) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        const __m512i codes =
            _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
        const __m512i halves = _mm512_and_si512(_mm512_slli_epi16(codes, 7), _mm512_set1_epi16(-0x4080));
        low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
        high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
#elif defined(__F16C__) && defined(__AVX2__)
        const __m256i codes =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
        const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16(-0x4080));
        low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
        high = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
#else
        for (Floats* half : {&low, &high}) {
            const Words codes = __builtin_convertvector(load_as<Bytes>(from), Words);
            const Floats wide = detail::float8_magnitude<Floats>(codes & kFloat8Magnitude);
            *half = bits_as<Floats>(bits_as<Words>(wide) | (codes & 0x80) << 24);
            from += kLanes;
        }
#endif
    }
};

// `with_format`, for what may be kFloat8 too.
template <class Visit>
inline void with_cache_format(int32_t format, Visit&& visit) {
    if (format == kFloat8) {
        visit(Float8{});
    } else {
        with_format(format, visit);
    }
}

}  // namespace lmi

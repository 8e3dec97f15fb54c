// Rows of float32 become two digits of 15 bits.
#include "digits.h"

#include <algorithm>
#include <cmath>

#include "pairs.h"

namespace lmi {
namespace {

constexpr int32_t kExponents = 0x7f800000;
constexpr int kBits = 29;          // of the largest number, beside its sign
constexpr int kMostExponent = 100;  // smaller numbers than 2**-71 lose precision: they are nothing

// high, low, high, low -> high, high, low, low: the middle two of every four change places.
template <int... places>
inline Shorts pair_digits(Shorts mixed, std::integer_sequence<int, places...>) {
    return __builtin_shufflevector(mixed, mixed, (places / 4 * 4 + places % 2 * 2 + places / 2 % 2)...);
}

inline float power_of_two(int exponent) { return bits_as<float>((exponent + 127) << 23); }

}  // namespace

RunSums write_digits(const float* from, int64_t inputs, int32_t* to) {
    const int64_t whole = inputs / kLanes * kLanes;
    float rest[kLanes] = {};
    std::memcpy(rest, from + whole, size_t(inputs - whole) * sizeof(float));

    // Magnitudes order as their bits do, and those of no number come last.
    Ints most = bits_as<Ints>(load(rest)) & 0x7fffffff;
    for (int64_t k = 0; k < whole; k += kLanes) {
        const Ints size = bits_as<Ints>(load(from + k)) & 0x7fffffff;
        most = size > most ? size : most;
    }
    int32_t largest = 0;
    for (int i = 0; i < kLanes; ++i) largest = std::max(largest, int32_t(most[i]));
    if (largest >= kExponents) {
        std::fill_n(to, (inputs + 1) / 2 * 2, 0);
        return {0, 0, std::nanf("")};
    }
    const int exponent = std::min(kBits - ((largest >> 23) - 126), kMostExponent);
    const Floats factor = fill(power_of_two(exponent));

    Ints high_sum{}, low_sum{};
    const auto digits = [&](const float* numbers) {
        const Ints value = __builtin_convertvector(load(numbers) * factor, Ints);
        const Ints high = (value + (1 << 14)) >> 15, low = value - (high << 15);
        high_sum += high;
        low_sum += low;
        using Places = std::make_integer_sequence<int, 2 * kLanes>;
        return pair_digits(bits_as<Shorts>((high & 0xffff) | (low << 16)), Places{});
    };
    for (int64_t k = 0; k < whole; k += kLanes) {
        const Shorts pairs = digits(from + k);
        std::memcpy(to + k, &pairs, sizeof(pairs));
    }
    if (whole < inputs) {
        const Shorts pairs = digits(rest);
        std::memcpy(to + whole, &pairs, size_t((inputs - whole + 1) / 2 * 2) * sizeof(int32_t));
    }
    RunSums sums{0, 0, power_of_two(-exponent)};
    for (int i = 0; i < kLanes; ++i) {
        sums.high += high_sum[i];
        sums.low += low_sum[i];
    }
    return sums;
}

}  // namespace lmi

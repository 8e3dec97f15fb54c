// The norm of a row, as every operation that takes one takes it: to the same bits.
#pragma once

#include <cmath>
#include <cstdint>

#include "simd.h"

namespace lmi {

inline float sum_of_squares(const float* row, int64_t size) {
    Floats sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * kLanes <= size; i += 4 * kLanes) {
        for (int v = 0; v < 4; ++v) {
            const Floats value = load(row + i + v * kLanes);
            sums[v] += value * value;
        }
    }
    for (; i + kLanes <= size; i += kLanes) sums[0] += load(row + i) * load(row + i);
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < size; ++i) total += row[i] * row[i];
    return total;
}

// RMSNorm (Zhang and Sennrich, 2019).
inline void norm(const float* row, const float* weight, float epsilon, int64_t size, float* out) {
    const float scale = 1.0f / std::sqrt(sum_of_squares(row, size) / float(size) + epsilon);
    for (int64_t i = 0; i < size; ++i) out[i] = row[i] * scale * weight[i];
}

}  // namespace lmi

// The choice of a token from a row of logits.
#include <algorithm>
#include <cmath>
#include <limits>

#include "pool.h"
#include "simd.h"

namespace lmi {
namespace {

constexpr int64_t kSpan = 256;  // ids whose weights are summed before they join the row's total

// The largest number of a row; NaN where it holds one.
float maximum_of(const float* row, int64_t size) {
    Floats most = fill(-std::numeric_limits<float>::infinity());
    Floats poison{};  // keeps any NaN that it meets
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const Floats value = load(row + i);
        most = maximum(value, most);
        poison = value == value ? poison : value;
    }
    float best = largest(most), bad = sum(poison);
    for (; i < size; ++i) {
        best = row[i] > best ? row[i] : best;
        if (row[i] != row[i]) bad = row[i];
    }
    return bad != bad ? bad : best;
}

int64_t argmax(const float* row, int64_t size) {
    const float best = maximum_of(row, size);
    if (!std::isfinite(best)) return -1;
    return std::find(row, row + size, best) - row;
}

int64_t draw(const float* row, int64_t size, float temperature, double uniform) {
    const float best = maximum_of(row, size);
    if (!std::isfinite(best)) return -1;
    const int64_t spans = (size + kSpan - 1) / kSpan;
    float* weights = scratch(kStateScratch, size_t(spans * kSpan + 2 * spans));
    double* sums = reinterpret_cast<double*>(weights + spans * kSpan);
    double total = 0;
    for (int64_t span = 0; span < spans; ++span) {
        float* to = weights + span * kSpan;
        const int64_t count = std::min(kSpan, size - span * kSpan);
        std::copy_n(row + span * kSpan, count, to);
        std::fill(to + count, to + kSpan, -std::numeric_limits<float>::infinity());
        double within = 0;
        for (int64_t i = 0; i < kSpan; i += kLanes) {
            store(to + i, exponential((load(to + i) - best) / temperature));
        }
        for (int64_t i = 0; i < kSpan; ++i) within += double(to[i]);
        sums[span] = within;
        total += within;
    }
    const double goal = uniform * total;
    double passed = 0;
    int64_t span = 0;
    while (span + 1 < spans && passed + sums[span] <= goal) passed += sums[span++];
    // An id without weight is never drawn; where rounding leaves the goal unreached, the last with.
    int64_t drawn = -1;
    for (int64_t i = span * kSpan; i < size && (i < (span + 1) * kSpan || drawn < 0); ++i) {
        if (weights[i] == 0) continue;
        passed += double(weights[i]);
        drawn = i;
        if (passed > goal) return drawn;
    }
    for (int64_t i = span * kSpan; drawn < 0; --i) drawn = weights[i] > 0 ? i : -1;
    return drawn;
}

}  // namespace
}  // namespace lmi

LMI_API void lmi_argmax(const float* logits, int64_t* ids, int64_t rows, int64_t size) {
    lmi::parallel(rows, [&](int64_t row) { ids[row] = lmi::argmax(logits + row * size, size); });
}

// See Kernels.draw; -1 where a row holds a NaN or no finite maximum.
LMI_API void lmi_draw(const float* logits, const double* temperature, const double* uniform,
                      int64_t* ids, int64_t rows, int64_t size) {
    lmi::parallel(rows, [&](int64_t row) {
        ids[row] = lmi::draw(logits + row * size, size, float(temperature[row]), uniform[row]);
    });
}

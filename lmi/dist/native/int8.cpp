// Linear layers of 8-bit weights and 8-bit rows (W8A8): whole-number sums, scaled at the end.
//
// An output is the exact 32-bit sum of products times the row's and its own scale. Exact sums have
// no order, so results do not depend on the batch.
#include "int8.h"
#include "pairs.h"

namespace lmi {

// The same fields as `Int8Struct` in library.py.
struct Int8Linear {
    int64_t inputs;
    int64_t outputs;
    const int8_t* weights;  // (panels, pairs of inputs, kPanel, 2)
    const float* bias;      // (outputs) or null
    const float* scales;    // (outputs)
};

namespace {

constexpr int kAhead = 1024;  // bytes, in each stream of weights
constexpr int64_t kTaskRows = 8 * kTileRows;

using Chars = int8_t __attribute__((vector_size(kLanes * 2)));

// Rows as 8-bit numbers in 16 bits, an even number of each, and their scales.
struct Rows {
    const int16_t* numbers;  // (rows, 2 * pairs)
    const float* scales;     // (rows)
    int64_t pairs;
};

void quantise(const float* from, int64_t inputs, int64_t padded, int16_t* to, float* scale) {
    *scale = row_scale(from, inputs);
    const bool finite = *scale == *scale;
    for (int64_t k = 0; k < inputs; ++k) {
        to[k] = finite ? int16_t(std::nearbyint(from[k] / *scale)) : int16_t(0);
    }
    for (int64_t k = inputs; k < padded; ++k) to[k] = 0;
}

template <int rows>
void tile(const Int8Linear& linear, const Rows& x, int64_t row, int64_t panel, float* out) {
    Ints sums[rows][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) sums[r][0] = sums[r][1] = Ints{};
    const int8_t* weights = linear.weights + panel * x.pairs * 2 * kPanel;
    const int16_t* from = x.numbers + row * 2 * x.pairs;
    for (int64_t k = 0; k < x.pairs; ++k) {
        const int8_t* at = weights + k * 2 * kPanel;
        __builtin_prefetch(at + kAhead);
        const Shorts low = __builtin_convertvector(load_as<Chars>(at), Shorts);
        const Shorts high = __builtin_convertvector(load_as<Chars>(at + 2 * kLanes), Shorts);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Shorts pair = fill_pair(from + (r * x.pairs + k) * 2);
            sums[r][0] += multiply_pairs(low, pair);
            sums[r][1] += multiply_pairs(high, pair);
        }
    }
    const int64_t column = panel * kPanel, columns = std::min<int64_t>(kPanel, linear.outputs - column);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
        float wide[kPanel];
        store(wide, __builtin_convertvector(sums[r][0], Floats));
        store(wide + kLanes, __builtin_convertvector(sums[r][1], Floats));
        float* to = out + (row + r) * linear.outputs + column;
        for (int64_t n = 0; n < columns; ++n) {
            const float value = wide[n] * (x.scales[row + r] * linear.scales[column + n]);
            to[n] = linear.bias ? value + linear.bias[column + n] : value;
        }
    }
}

void multiply(const Int8Linear& linear, const Rows& x, int64_t rows, float* out) {
    over_panels(rows, kTaskRows, linear.outputs, x.pairs * 2 * kPanel, 1,
                [&](int64_t first, int64_t count, int64_t panel, int64_t last) {
                    for (; panel < last; ++panel) {
                        for (int64_t row = first; row < first + count;) {
                            const int64_t height = std::min<int64_t>(kTileRows, first + count - row);
                            with_number<kTileRows>(height, [&](auto number) {
                                tile<number.value>(linear, x, row, panel, out);
                            });
                            row += height;
                        }
                    }
                });
}

}  // namespace
}  // namespace lmi

// weight (outputs, inputs) -> packed, of whole panels and an even number of inputs.
LMI_API void lmi_pack_int8(const int8_t* weight, int64_t outputs, int64_t inputs, int8_t* packed) {
    const int64_t pairs = (inputs + 1) / 2;
    lmi::parallel(lmi::panels_of(outputs), [&](int64_t panel) {
        int8_t* to = packed + panel * pairs * 2 * lmi::kPanel;
        for (int64_t k = 0; k < 2 * pairs; ++k) {
            for (int64_t i = 0; i < lmi::kPanel; ++i) {
                const int64_t n = panel * lmi::kPanel + i;
                const bool exists = k < inputs && n < outputs;
                to[(k / 2 * lmi::kPanel + i) * 2 + k % 2] = exists ? weight[n * inputs + k] : int8_t(0);
            }
        }
    });
}

// out (rows, outputs) = x (rows, inputs), in 8 bits, times the weight, plus the bias.
LMI_API void lmi_int8_linear(const lmi::Int8Linear* linear, const float* x, float* out,
                             int64_t rows) {
    const int64_t pairs = (linear->inputs + 1) / 2;
    // Two 16-bit numbers for each float.
    float* memory = lmi::scratch(lmi::kInputScratch, size_t(rows * (pairs + 1)));
    float* scales = memory;
    int16_t* numbers = reinterpret_cast<int16_t*>(memory + rows);
    lmi::parallel(rows, [&](int64_t row) {
        lmi::quantise(x + row * linear->inputs, linear->inputs, 2 * pairs, numbers + row * 2 * pairs,
                      scales + row);
    });
    lmi::multiply(*linear, {numbers, scales, pairs}, rows, out);
}

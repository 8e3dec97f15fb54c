// The product of rows with a packed weight, whatever the weight is stored as.
//
// Layout: panels of kPanel output features; within a panel the weights of one input feature stand
// side by side, so that a tile of the product keeps its sums in registers, one lane per output.
//
// Rule that makes results independent of the batch: an output is summed over the inputs in order,
// from zero in every block of kBlock inputs, and the blocks' sums are added in order. Tiles,
// threads and chunks choose who computes an output and when, never in which order it is summed.
#pragma once

#include <algorithm>

#include "pool.h"
#include "simd.h"

namespace lmi {

constexpr int kPanel = 2 * kLanes;
constexpr int64_t kBlock = 256;  // a block of a panel in float32 is half of a 32 KiB L1

// Rows of a prefill that one task multiplies by its panels: their inputs of one block stay in L2.
constexpr int64_t kRowBlock = 20 * kTileRows;
// Above this, inputs are walked block by block (all panels per block), so that the block's share of
// the rows stays in L2; below, panel by panel, so that weights stream.
constexpr int64_t kInputBytes = 192 * 1024;
constexpr int64_t kTaskBytes = 192 * 1024;  // of weights: enough that taking a task costs nothing

inline int64_t panels_of(int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }

// Where a tile's sums go: row r, panel p at out + r * stride + p * kPanel.
struct TileOut {
    float* out;
    int64_t stride;
    const float* bias;  // of the first panel, or null; read only after the last block
    int columns;        // of the last panel that exist
    bool first;         // block: nothing has been stored yet
    bool last;          // block: add the bias
};

// The two vectors of one row and panel join what stands at `to`. bias: null for none.
inline void finish_panel(Floats low, Floats high, float* to, const float* bias, bool first) {
    if (!first) {
        low = load(to) + low;
        high = load(to + kLanes) + high;
    }
    if (bias) {
        low = low + load(bias);
        high = high + load(bias + kLanes);
    }
    store(to, low);
    store(to + kLanes, high);
}

// The same for a panel of which only some columns exist.
[[gnu::noinline]] inline void finish_part(Floats low, Floats high, float* to, const float* bias,
                                          bool first, int columns) {
    float sums[kPanel], add[kPanel] = {};
    const size_t bytes = size_t(columns) * sizeof(float);
    if (!first) std::memcpy(sums, to, bytes);
    if (bias) std::memcpy(add, bias, bytes);
    finish_panel(low, high, sums, bias ? add : nullptr, first);
    std::memcpy(to, sums, bytes);
}

// Unrolled by force: sums that are indexed by a variable would live in memory, not in registers.
template <int rows, int panels>
inline void finish_tile(const Floats (&sums)[rows][panels][2], const TileOut& tile) {
    const float* bias = tile.last ? tile.bias : nullptr;
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; ++p) {
            float* to = tile.out + r * tile.stride + p * kPanel;
            const float* add = bias ? bias + p * kPanel : nullptr;
            if (p + 1 < panels || tile.columns == kPanel) {
                finish_panel(sums[r][p][0], sums[r][p][1], to, add, tile.first);
            } else {
                finish_part(sums[r][p][0], sums[r][p][1], to, add, tile.first, tile.columns);
            }
        }
    }
}

// What a tile fetches ahead of time: one line at from + k * step for every input k.
struct Prefetch {
    const char* from;
    int64_t step;
};

// The sums of `rows` rows of x (stride apart) times one float32 panel over `count` inputs.
template <int rows>
void float_tile(const float* x, int64_t stride, const float* weights, int64_t count,
                const TileOut& out, Prefetch prefetch) {
    Floats sums[rows][1][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) sums[r][0][0] = sums[r][0][1] = Floats{};
    for (int64_t k = 0; k < count; ++k) {
        __builtin_prefetch(prefetch.from + k * prefetch.step, 0, 2);
        const Floats low = load(weights + k * kPanel), high = load(weights + k * kPanel + kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
            const Floats value = fill(x[r * stride + k]);
            sums[r][0][0] += value * low;
            sums[r][0][1] += value * high;
        }
    }
    finish_tile<rows, 1>(sums, out);
}

// Calls visit with the number as a constant, from 1 to most.
template <int most, class Visit>
inline void with_number(int64_t number, Visit&& visit) {
    if constexpr (most > 0) {
        if (number == most) return visit(std::integral_constant<int, most>{});
        with_number<most - 1>(number, visit);
    }
}

// Weights has:
//   inputs(), outputs(), bias()
//   kDirectRows         rows up to which `direct` is used, at most kTileRows
//   at_once(rows)       constexpr: panels that `direct` multiplies by so many rows at once
//   panel_bytes()
//   direct<rows, panels>(x, stride, panel, k, count, out)
//                       the sums over inputs [k, k + count) of x, whose rows stand `stride` apart
//   widened(panel, k, count)
//                       the panel's weights of these inputs in float32, until the next call
//   address(panel, k)   where these inputs' weights begin, for fetching them ahead
template <class Weights>
class Product {
public:
    Product(const Weights& weights, const float* x, float* out, int64_t rows)
        : weights_(weights), x_(x), out_(out), rows_(rows), panels_(panels_of(weights.outputs())) {}

    void run() const {
        if (rows_ == 0) return;
        const int64_t row_blocks = (rows_ + kRowBlock - 1) / kRowBlock;
        const int64_t width = Weights::at_once(int(std::min<int64_t>(rows_, kTileRows)));
        int64_t share = std::max<int64_t>(1, kTaskBytes / weights_.panel_bytes());
        share = std::min(share, (panels_ + 2 * thread_count() - 1) / (2 * thread_count()));
        share = (share + width - 1) / width * width;
        const int64_t panel_chunks = (panels_ + share - 1) / share;
        const int64_t rows_each = (rows_ + row_blocks - 1) / row_blocks;
        parallel(row_blocks * panel_chunks, [&](int64_t chunk) {
            const int64_t first_row = chunk / panel_chunks * rows_each;
            const int64_t first_panel = chunk % panel_chunks * share;
            task(first_row, std::min(rows_each, rows_ - first_row), first_panel,
                 std::min(first_panel + share, panels_));
        });
    }

private:
    void task(int64_t row, int64_t rows, int64_t panel, int64_t stop) const {
        const int64_t inputs = weights_.inputs();
        if (rows <= 0) return;
        if (rows <= Weights::kDirectRows) {
            with_number<Weights::kDirectRows>(rows, [&](auto count) {
                stream<count.value, Weights::at_once(count.value)>(row, panel, stop);
            });
        } else if (rows * inputs * int64_t(sizeof(float)) <= kInputBytes) {
            for (int64_t p = panel; p < stop; ++p) {
                for (int64_t k = 0; k < inputs; k += kBlock) block(row, rows, p, k);
            }
        } else {
            for (int64_t k = 0; k < inputs; k += kBlock) {
                for (int64_t p = panel; p < stop; ++p) block(row, rows, p, k);
            }
        }
    }

    // One tile of rows: the weights pass once, several panels at a time.
    template <int rows, int width>
    void stream(int64_t row, int64_t panel, int64_t stop) const {
        const int64_t inputs = weights_.inputs();
        for (; panel + width <= stop; panel += width) {
            for (int64_t k = 0; k < inputs; k += kBlock) {
                weights_.template direct<rows, width>(x_ + row * inputs + k, inputs, panel, k,
                                                      std::min(kBlock, inputs - k),
                                                      target(row, panel, width, k));
            }
        }
        if constexpr (width > 1) stream<rows, 1>(row, panel, stop);
    }

    // Many rows: a block of a panel is turned into float32 once for all of them.
    void block(int64_t row, int64_t rows, int64_t panel, int64_t k) const {
        const int64_t inputs = weights_.inputs();
        const int64_t count = std::min(kBlock, inputs - k);
        const float* weights = weights_.widened(panel, k, count);
        // Tiles of nearly the same height: one row left over would cost as much as four.
        const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
        const int64_t stop = row + rows;
        // Together they fetch the block that follows in memory.
        const char* next = weights_.address(panel, k + count);
        Prefetch prefetch{next, (next - weights_.address(panel, k)) / (count * tiles)};
        for (int64_t tile = tiles; tile > 0; --tile) {
            const int64_t height = (stop - row + tile - 1) / tile;
            with_number<kTileRows>(height, [&](auto number) {
                float_tile<number.value>(x_ + row * inputs + k, inputs, weights, count,
                                         target(row, panel, 1, k), prefetch);
            });
            prefetch.from += count * prefetch.step;
            row += height;
        }
    }

    TileOut target(int64_t row, int64_t panel, int64_t width, int64_t k) const {
        const int64_t column = panel * kPanel, outputs = weights_.outputs();
        const int64_t last_column = column + (width - 1) * kPanel;
        return {out_ + row * outputs + column,
                outputs,
                weights_.bias() ? weights_.bias() + column : nullptr,
                int(std::min<int64_t>(kPanel, outputs - last_column)),
                k == 0,
                k + kBlock >= weights_.inputs()};
    }

    const Weights& weights_;
    const float* x_;
    float* out_;
    const int64_t rows_, panels_;
};

}  // namespace lmi

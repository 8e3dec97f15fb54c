// A packed linear layer, and the tile kernel that every weight format ends in.
//
// Layout: panels of kPanel output features; within a panel the weights of one input feature stand
// side by side, so that a tile of the product keeps its sums in registers, one lane per output.
//
// Rule that makes results independent of the batch: an output is summed over the inputs in order,
// from zero in every block of kBlock inputs, and the blocks' sums are added in order. Tiles,
// threads and chunks choose who computes an output and when, never in which order it is summed.
#pragma once

#include <algorithm>

#include "simd.h"

namespace lmi {

constexpr int kPanel = 2 * kLanes;
constexpr int64_t kBlock = 256;  // a block of a panel in float32 is half of a 32 KiB L1

// How weights are stored in a panel: `kStep` inputs stand together and are loaded at once. The
// panels of a storage are as long as its inputs rounded up to whole steps.

template <class Format>
struct Plain {
    using Element = typename Format::Element;
    static constexpr int64_t kStep = 1;
    // Rows up to which weights are turned wide where they are used, for lack of registers beyond.
    static constexpr int kDirectRows = sizeof(Element) == 4 ? kTileRows : kTileRows * 2 / 3;
    static int64_t place(int64_t k, int64_t column) { return k * kPanel + column; }
    static Floats load(const Element* panel, int64_t k, int vector) {
        return Format::load(panel + k * kPanel + vector * kLanes);
    }
};

// Two inputs' weights for one output share a 32-bit word: turning them wide is a shift for the
// first and a mask for the second, without the shuffles of widening 16-bit numbers.
struct PairedBFloat16 {
    using Element = uint16_t;
    static constexpr int64_t kStep = 2;
    static constexpr int kDirectRows = kTileRows * 2 / 3;
    static int64_t place(int64_t k, int64_t column) {
        const int64_t second = k % 2;
        return (k - second) * kPanel + 2 * column + second;
    }
    static Floats load(const Element* panel, int64_t k, int vector) {
        const int64_t second = k % 2;
        const Words words =
            load_as<Words>(panel + (k - second) * kPanel + 2 * int64_t(vector) * kLanes);
        return bits_as<Floats>(second ? words & 0xffff0000u : words << 16);
    }
};

template <class Visit>
inline void with_storage(int32_t format, Visit&& visit) {
    if (format == kBFloat16) {
        visit(PairedBFloat16{});
    } else if (format == kFloat16) {
        visit(Plain<Float16>{});
    } else {
        visit(Plain<Float32>{});
    }
}

// The same fields as `LinearStruct` in library.py.
struct Linear {
    int32_t format;
    int32_t reserved;
    int64_t inputs;
    int64_t outputs;
    const void* weights;  // packed
    const float* bias;    // (outputs) or null
};

template <class Storage>
inline int64_t panel_length(int64_t inputs) {
    return (inputs + Storage::kStep - 1) / Storage::kStep * Storage::kStep;
}

inline int64_t panels_of(int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }

// Output panels that one tile of `rows` rows keeps in registers at once. Few rows need several for
// enough independent sums in flight.
template <class Storage>
constexpr int panels_at_once(int rows) {
    const int fit = Storage::kDirectRows / rows;
    return fit < 1 ? 1 : fit > 4 ? 4 : fit;
}

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

}  // namespace lmi

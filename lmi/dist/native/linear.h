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

// How the weights of a `Linear` are stored; the same values as in library.py.
enum Storage : int32_t { kStoredFloat32 = 0, kStoredBFloat16 = 1, kStoredFloat16 = 2 };

// The same fields as `LinearStruct` in library.py.
struct Linear {
    int32_t storage;
    int32_t reserved;
    int64_t inputs;
    int64_t outputs;
    const void* weights;  // packed
    const float* bias;    // (outputs) or null
};

inline int64_t panels_of(int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }

// Output panels that one tile of `rows` rows keeps in registers at once. Few rows need several for
// enough independent sums in flight.
constexpr int panels_at_once(int rows) {
    const int fit = kTileRows / rows;
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

inline Floats load_some(const float* from, int count) {
    float lanes[kLanes] = {};
    for (int i = 0; i < count; ++i) lanes[i] = from[i];
    return load(lanes);
}

inline void store_some(float* to, Floats from, int count) {
    float lanes[kLanes];
    store(lanes, from);
    for (int i = 0; i < count; ++i) to[i] = lanes[i];
}

template <int rows, int panels>
inline void finish_tile(const Floats (&sums)[rows][panels][2], const TileOut& tile) {
    for (int r = 0; r < rows; ++r) {
        for (int p = 0; p < panels; ++p) {
            for (int v = 0; v < 2; ++v) {
                const int64_t column = p * kPanel + v * kLanes;
                float* to = tile.out + r * tile.stride + column;
                const int left = p + 1 < panels ? kLanes : tile.columns - v * kLanes;
                Floats value = sums[r][p][v];
                if (left >= kLanes) {
                    if (!tile.first) value = load(to) + value;
                    if (tile.last && tile.bias) value = value + load(tile.bias + column);
                    store(to, value);
                } else if (left > 0) {
                    if (!tile.first) value = load_some(to, left) + value;
                    if (tile.last && tile.bias) value = value + load_some(tile.bias + column, left);
                    store_some(to, value, left);
                }
            }
        }
    }
}

}  // namespace lmi

// Linear layers with float32, bfloat16 and float16 weights: packing and the product.
#include "linear.h"

#include "pool.h"

namespace lmi {
namespace {

// Rows of a prefill that one task multiplies by its panels: their inputs of one block stay in L2.
constexpr int64_t kRowBlock = 20 * kTileRows;
// Above this, inputs are walked block by block (all panels per block), so that the block's share of
// the rows stays in L2; below, panel by panel, so that weights stream.
constexpr int64_t kInputBytes = 192 * 1024;
constexpr int64_t kTaskBytes = 192 * 1024;  // of weights: enough that taking a task costs nothing
constexpr int kAhead = 1024;                // bytes, in each stream of weights

// What a tile fetches ahead of time: one line at from + k * step for every input k. Without `from`,
// the weights of each panel kAhead bytes further on.
struct Prefetch {
    const char* from = nullptr;
    int64_t step = 0;
};

// The sums of `rows` rows of x (stride apart) times `panels` panels over `count` inputs.
template <class Storage, int rows, int panels>
void tile(const float* x, int64_t stride, const typename Storage::Element* weights,
          int64_t panel_stride, int64_t count, const TileOut& out, Prefetch prefetch) {
    constexpr bool streams = panels > 1 || sizeof(typename Storage::Element) < 4;
    Floats sums[rows][panels][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; ++p) sums[r][p][0] = sums[r][p][1] = Floats{};
    }
    const auto add = [&](int64_t k) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; ++p) {
            const auto* panel = weights + p * panel_stride;
            const Floats low = Storage::load(panel, k, 0), high = Storage::load(panel, k, 1);
#pragma GCC unroll 16
            for (int r = 0; r < rows; ++r) {
                const Floats value = fill(x[r * stride + k]);
                sums[r][p][0] += value * low;
                sums[r][p][1] += value * high;
            }
        }
    };
    constexpr int64_t step = Storage::kStep;
    int64_t k = 0;
    for (; k + step <= count; k += step) {
        if (!streams) __builtin_prefetch(prefetch.from + k * prefetch.step, 0, 2);
#pragma GCC unroll 4
        for (int p = 0; streams && p < panels; ++p) {
            const auto* panel = weights + p * panel_stride + k * kPanel;
            __builtin_prefetch(reinterpret_cast<const char*>(panel) + kAhead);
        }
#pragma GCC unroll 2
        for (int64_t i = 0; i < step; ++i) add(k + i);
    }
    if (k < count) add(k);
    finish_tile<rows, panels>(sums, out);
}

template <class Storage, int panels, int rows = kTileRows>
void tile_of(int64_t count_rows, const float* x, int64_t stride,
             const typename Storage::Element* weights, int64_t panel_stride, int64_t count,
             const TileOut& out, Prefetch prefetch) {
    if constexpr (rows > 0) {
        if (count_rows == rows) {
            if constexpr (rows <= Storage::kDirectRows && panels <= panels_at_once<Storage>(rows)) {
                tile<Storage, rows, panels>(x, stride, weights, panel_stride, count, out, prefetch);
            }
            return;
        }
        tile_of<Storage, panels, rows - 1>(count_rows, x, stride, weights, panel_stride, count, out,
                                          prefetch);
    }
}

template <class Storage>
void expand(const typename Storage::Element* from, int64_t count, float* to) {
    for (int64_t k = 0; k < count; k += Storage::kStep) {
        // With a step of two, the second of an odd count is padding: there is room for it.
#pragma GCC unroll 2
        for (int64_t i = 0; i < Storage::kStep; ++i) {
            store(to + (k + i) * kPanel, Storage::load(from + k * kPanel, i, 0));
            store(to + (k + i) * kPanel + kLanes, Storage::load(from + k * kPanel, i, 1));
        }
    }
}

template <class Storage>
class Product {
    using Element = typename Storage::Element;

public:
    Product(const Linear& linear, const float* x, float* out, int64_t rows)
        : linear_(linear), x_(x), out_(out), rows_(rows),
          weights_(static_cast<const Element*>(linear.weights)), panels_(panels_of(linear.outputs)),
          panel_numbers_(panel_length<Storage>(linear.inputs) * kPanel) {}

    void run() const {
        const int64_t row_blocks = (rows_ + kRowBlock - 1) / kRowBlock;
        const int64_t panel_bytes = panel_numbers_ * int64_t(sizeof(Element));
        const int64_t width = panels_at_once<Storage>(int(std::min<int64_t>(rows_, kTileRows)));
        int64_t share = std::max<int64_t>(1, kTaskBytes / panel_bytes);
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
        if (rows <= 0) return;
        if (rows <= Storage::kDirectRows) {
            stream(row, rows, panel, stop);
        } else if (rows * linear_.inputs * int64_t(sizeof(float)) <= kInputBytes) {
            for (int64_t p = panel; p < stop; ++p) {
                for (int64_t k = 0; k < linear_.inputs; k += kBlock) block(row, rows, p, k);
            }
        } else {
            for (int64_t k = 0; k < linear_.inputs; k += kBlock) {
                for (int64_t p = panel; p < stop; ++p) block(row, rows, p, k);
            }
        }
    }

    // One tile of rows: the weights pass once, several panels at a time.
    void stream(int64_t row, int64_t rows, int64_t panel, int64_t stop) const {
        switch (panels_at_once<Storage>(int(rows))) {
            case 4: stream_by<4>(row, rows, panel, stop); break;
            case 3: stream_by<3>(row, rows, panel, stop); break;
            case 2: stream_by<2>(row, rows, panel, stop); break;
            default: stream_by<1>(row, rows, panel, stop);
        }
    }

    template <int width>
    void stream_by(int64_t row, int64_t rows, int64_t panel, int64_t stop) const {
        const int64_t stride = linear_.inputs;
        for (; panel < stop; panel += width) {
            if (panel + width > stop) return stream_by<1>(row, rows, panel, stop);
            const Element* weights = weights_ + panel * panel_numbers_;
            for (int64_t k = 0; k < stride; k += kBlock) {
                const int64_t count = std::min(kBlock, stride - k);
                tile_of<Storage, width>(rows, x_ + row * stride + k, stride, weights + k * kPanel,
                                       panel_numbers_, count, target(row, panel, width, k),
                                       ahead_of(weights + k * kPanel));
            }
        }
    }

    // Many rows: a block of a panel is turned into float32 once for all of them.
    void block(int64_t row, int64_t rows, int64_t panel, int64_t k) const {
        const int64_t stride = linear_.inputs;
        const int64_t count = std::min(kBlock, stride - k);
        const Element* packed = weights_ + panel * panel_numbers_ + k * kPanel;
        const float* weights;
        if constexpr (sizeof(Element) == sizeof(float)) {
            weights = packed;
        } else {
            float* expanded = scratch(kPanelScratch, kBlock * kPanel);
            expand<Storage>(packed, count, expanded);
            weights = expanded;
        }
        // Tiles of nearly the same height: one row left over would cost as much as four.
        const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
        const int64_t stop = row + rows;
        // Together they fetch the block that follows in memory.
        Prefetch prefetch{reinterpret_cast<const char*>(packed + count * kPanel),
                          int64_t(kPanel * sizeof(Element)) / tiles};
        for (int64_t tile = tiles; tile > 0; --tile) {
            const int64_t height = (stop - row + tile - 1) / tile;
            tile_of<Plain<Float32>, 1>(height, x_ + row * stride + k, stride, weights, 0, count,
                                target(row, panel, 1, k), prefetch);
            prefetch.from += count * prefetch.step;
            row += height;
        }
    }

    static Prefetch ahead_of(const Element* weights) {
        return {reinterpret_cast<const char*>(weights) + kAhead, kPanel * sizeof(Element)};
    }

    TileOut target(int64_t row, int64_t panel, int64_t width, int64_t k) const {
        const int64_t column = panel * kPanel;
        const int64_t last_column = column + (width - 1) * kPanel;
        return {out_ + row * linear_.outputs + column,
                linear_.outputs,
                linear_.bias ? linear_.bias + column : nullptr,
                int(std::min<int64_t>(kPanel, linear_.outputs - last_column)),
                k == 0,
                k + kBlock >= linear_.inputs};
    }

    const Linear& linear_;
    const float* x_;
    float* out_;
    const int64_t rows_;
    const Element* weights_;
    const int64_t panels_, panel_numbers_;
};

template <class Storage, class Element = typename Storage::Element>
void pack(const Element* weight, int64_t outputs, int64_t inputs, Element* packed) {
    const int64_t length = panel_length<Storage>(inputs);
    parallel(panels_of(outputs), [&](int64_t panel) {
        Element* to = packed + panel * length * kPanel;
        const int64_t columns = std::min<int64_t>(kPanel, outputs - panel * kPanel);
        const Element* from = weight + panel * kPanel * inputs;
        for (int64_t k = 0; k < length; ++k) {
            for (int64_t n = 0; n < kPanel; ++n) {
                const bool exists = k < inputs && n < columns;
                to[Storage::place(k, n)] = exists ? from[n * inputs + k] : Element{};
            }
        }
    });
}

}  // namespace
}  // namespace lmi

// Numbers that a packed weight of this Format takes: whole panels of whole steps.
LMI_API int64_t lmi_packed_numbers(int32_t format, int64_t outputs, int64_t inputs) {
    int64_t numbers = 0;
    lmi::with_storage(format, [&](auto storage) {
        numbers = lmi::panels_of(outputs) * lmi::kPanel *
                  lmi::panel_length<decltype(storage)>(inputs);
    });
    return numbers;
}

// weight (outputs, inputs) of a Format -> packed.
LMI_API void lmi_pack(int32_t format, const void* weight, int64_t outputs, int64_t inputs,
                      void* packed) {
    lmi::with_storage(format, [&](auto storage) {
        using Element = typename decltype(storage)::Element;
        lmi::pack<decltype(storage)>(static_cast<const Element*>(weight), outputs, inputs,
                                     static_cast<Element*>(packed));
    });
}

// out (rows, outputs) = x (rows, inputs) times the weight, plus the bias.
LMI_API void lmi_linear(const lmi::Linear* linear, const float* x, float* out, int64_t rows) {
    lmi::with_storage(linear->format, [&](auto storage) {
        lmi::Product<decltype(storage)>(*linear, x, out, rows).run();
    });
}

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
constexpr int kPrefetch = 1024;             // bytes ahead in each stream of weights

// sums += rows of x (stride apart) times `panels` panels, over `count` inputs.
template <class Format, int rows, int panels>
void tile(const float* x, int64_t stride, const typename Format::Element* weights,
          int64_t panel_stride, int64_t count, const TileOut& out) {
    Floats sums[rows][panels][2] = {};
    for (int64_t k = 0; k < count; ++k) {
        for (int p = 0; p < panels; ++p) {
            const typename Format::Element* w = weights + p * panel_stride + k * kPanel;
            __builtin_prefetch(reinterpret_cast<const char*>(w) + kPrefetch);
            const Floats low = Format::load(w), high = Format::load(w + kLanes);
            for (int r = 0; r < rows; ++r) {
                const Floats value = fill(x[r * stride + k]);
                sums[r][p][0] += value * low;
                sums[r][p][1] += value * high;
            }
        }
    }
    finish_tile<rows, panels>(sums, out);
}

template <class Format, int panels, int rows = kTileRows>
void tile_of(int64_t count_rows, const float* x, int64_t stride,
             const typename Format::Element* weights, int64_t panel_stride, int64_t count,
             const TileOut& out) {
    if constexpr (rows > 0) {
        if (count_rows == rows) {
            if constexpr (panels <= panels_at_once(rows)) {
                tile<Format, rows, panels>(x, stride, weights, panel_stride, count, out);
            }
            return;
        }
        tile_of<Format, panels, rows - 1>(count_rows, x, stride, weights, panel_stride, count, out);
    }
}

template <class Format>
void expand(const typename Format::Element* from, int64_t count, float* to) {
    for (int64_t k = 0; k < count * kPanel; k += kLanes) store(to + k, Format::load(from + k));
}

template <class Format>
class Product {
    using Element = typename Format::Element;

public:
    Product(const Linear& linear, const float* x, float* out, int64_t rows)
        : linear_(linear), x_(x), out_(out), rows_(rows),
          weights_(static_cast<const Element*>(linear.weights)), panels_(panels_of(linear.outputs)) {}

    void run() const {
        const int64_t row_blocks = (rows_ + kRowBlock - 1) / kRowBlock;
        const int64_t panel_bytes = linear_.inputs * kPanel * int64_t(sizeof(Element));
        const int64_t width = panels_at_once(int(std::min<int64_t>(rows_, kTileRows)));
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
        if (rows <= kTileRows) {
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
        switch (panels_at_once(int(rows))) {
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
            const Element* weights = weights_ + panel * stride * kPanel;
            for (int64_t k = 0; k < stride; k += kBlock) {
                const int64_t count = std::min(kBlock, stride - k);
                tile_of<Format, width>(rows, x_ + row * stride + k, stride, weights + k * kPanel,
                                       stride * kPanel, count, target(row, panel, width, k));
            }
        }
    }

    // Many rows: a block of a panel is turned into float32 once for all of them.
    void block(int64_t row, int64_t rows, int64_t panel, int64_t k) const {
        const int64_t stride = linear_.inputs;
        const int64_t count = std::min(kBlock, stride - k);
        const Element* packed = weights_ + (panel * stride + k) * kPanel;
        const float* weights;
        if constexpr (sizeof(Element) == sizeof(float)) {
            weights = packed;
        } else {
            float* expanded = scratch(kPanelScratch, kBlock * kPanel);
            expand<Format>(packed, count, expanded);
            weights = expanded;
        }
        // Tiles of nearly the same height: one row left over would cost as much as four.
        const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
        const int64_t stop = row + rows;
        for (int64_t tile = tiles; tile > 0; --tile) {
            const int64_t height = (stop - row + tile - 1) / tile;
            tile_of<Float32, 1>(height, x_ + row * stride + k, stride, weights, 0, count,
                                target(row, panel, 1, k));
            row += height;
        }
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
    const int64_t panels_;
};

template <class Element>
void pack(const Element* weight, int64_t outputs, int64_t inputs, Element* packed) {
    parallel(panels_of(outputs), [&](int64_t panel) {
        Element* to = packed + panel * inputs * kPanel;
        const int64_t columns = std::min<int64_t>(kPanel, outputs - panel * kPanel);
        const Element* from = weight + panel * kPanel * inputs;
        for (int64_t k = 0; k < inputs; ++k) {
            for (int64_t n = 0; n < kPanel; ++n) {
                to[k * kPanel + n] = n < columns ? from[n * inputs + k] : Element{};
            }
        }
    });
}

}  // namespace
}  // namespace lmi

// Output features of a panel: what the packed weight's memory is rounded up to.
LMI_API int64_t lmi_panel() { return lmi::kPanel; }

// weight (outputs, inputs) of a Storage -> packed, of the same format, outputs rounded up to whole
// panels.
LMI_API void lmi_pack(int32_t storage, const void* weight, int64_t outputs, int64_t inputs,
                      void* packed) {
    lmi::with_format(storage, [&](auto format) {
        using Element = typename decltype(format)::Element;
        lmi::pack(static_cast<const Element*>(weight), outputs, inputs,
                  static_cast<Element*>(packed));
    });
}

// out (rows, outputs) = x (rows, inputs) times the weight, plus the bias.
LMI_API void lmi_linear(const lmi::Linear* linear, const float* x, float* out, int64_t rows) {
    lmi::with_format(linear->storage, [&](auto format) {
        lmi::Product<decltype(format)>(*linear, x, out, rows).run();
    });
}

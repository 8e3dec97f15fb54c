// Linear layers with float32, bfloat16 and float16 weights: packing and the product.
#include "linear.h"

#include "product.h"

namespace lmi {
namespace {

constexpr int kAhead = 1024;  // bytes, in each stream of weights

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

template <class Storage>
int64_t panel_length(int64_t inputs) {
    return (inputs + Storage::kStep - 1) / Storage::kStep * Storage::kStep;
}

// The `Weights` of a Product.
template <class Storage>
class Dense {
    using Element = typename Storage::Element;

public:
    static constexpr int kDirectRows = Storage::kDirectRows;

    // Few rows need several panels for enough independent sums in flight.
    static constexpr int at_once(int rows) {
        const int fit = kDirectRows / rows;
        return fit < 1 ? 1 : fit > 4 ? 4 : fit;
    }

    explicit Dense(const Linear& linear)
        : linear_(linear), numbers_(panel_length<Storage>(linear.inputs) * kPanel) {}

    int64_t inputs() const { return linear_.inputs; }
    int64_t outputs() const { return linear_.outputs; }
    const float* bias() const { return linear_.bias; }
    int64_t panel_bytes() const { return numbers_ * int64_t(sizeof(Element)); }

    const char* address(int64_t panel, int64_t k) const {
        return reinterpret_cast<const char*>(place(panel, k));
    }

    const float* widened(int64_t panel, int64_t k, int64_t count) const {
        const Element* from = place(panel, k);
        if constexpr (sizeof(Element) == sizeof(float)) {
            return from;
        } else {
            float* to = scratch(kPanelScratch, kBlock * kPanel);
            for (int64_t i = 0; i < count; i += Storage::kStep) {
                // With a step of two, the second of an odd count is padding: there is room for it.
#pragma GCC unroll 2
                for (int64_t j = 0; j < Storage::kStep; ++j) {
                    float* row = to + (i + j) * kPanel;
                    store(row, Storage::load(from + i * kPanel, j, 0));
                    store(row + kLanes, Storage::load(from + i * kPanel, j, 1));
                }
            }
            return to;
        }
    }

    template <int rows, int panels>
    void direct(const float* x, int64_t stride, int64_t panel, int64_t k0, int64_t count,
                const TileOut& out) const {
        const Element* weights = place(panel, k0);
        Floats sums[rows][panels][2];
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
            for (int p = 0; p < panels; ++p) sums[r][p][0] = sums[r][p][1] = Floats{};
        }
        const auto add = [&](int64_t k) {
#pragma GCC unroll 4
            for (int p = 0; p < panels; ++p) {
                const Element* at = weights + p * numbers_;
                const Floats low = Storage::load(at, k, 0), high = Storage::load(at, k, 1);
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
#pragma GCC unroll 4
            for (int p = 0; p < panels; ++p) {
                const Element* at = weights + p * numbers_ + k * kPanel;
                __builtin_prefetch(reinterpret_cast<const char*>(at) + kAhead);
            }
#pragma GCC unroll 2
            for (int64_t i = 0; i < step; ++i) add(k + i);
        }
        if (k < count) add(k);
        finish_tile<rows, panels>(sums, out);
    }

private:
    const Element* place(int64_t panel, int64_t k) const {
        return static_cast<const Element*>(linear_.weights) + panel * numbers_ + k * kPanel;
    }

    const Linear& linear_;
    const int64_t numbers_;  // of a panel
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
        const lmi::Dense<decltype(storage)> weights(*linear);
        lmi::Product(weights, x, out, rows).run();
    });
}

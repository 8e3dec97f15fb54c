// Linear layers whose weights stay FP8 (e4m3) in memory, with a scale per output and group of
// inputs: for processors that multiply no FP8.
//
// A panel holds one byte per output for every input; the numbers are turned wide in registers as
// value * scale, in float32, which is the one rounding that the dense weight has as well.
#include "float8.h"
#include "product.h"

namespace lmi {

// The same fields as `Float8Struct` in library.py.
struct Float8Linear {
    int64_t inputs;
    int64_t outputs;
    const uint8_t* codes;     // packed; none of them NaN
    const float* bias;        // (outputs) or null
    const int32_t* group_of;  // (inputs), rising
    const int32_t* ends;      // (groups): the input behind each group's last
    int64_t groups;
    const float* scales;  // (panels, groups, kPanel), times kFloat8Factor
};

namespace {

constexpr int kAhead = 512;  // bytes, in each stream of codes

// The `Weights` of a Product.
class Scaled {
public:
    static constexpr int kDirectRows = kTileRows * 2 / 3;

    static constexpr int at_once(int rows) { return rows == 1 ? 2 : 1; }

    explicit Scaled(const Float8Linear& linear) : linear_(linear), bytes_(linear.inputs * kPanel) {}

    int64_t inputs() const { return linear_.inputs; }
    int64_t outputs() const { return linear_.outputs; }
    const float* bias() const { return linear_.bias; }
    int64_t panel_bytes() const { return bytes_; }

    const char* address(int64_t panel, int64_t k) const {
        return reinterpret_cast<const char*>(codes(panel, k));
    }

    const float* widened(int64_t panel, int64_t k0, int64_t count) const {
        float* to = scratch(kPanelScratch, kBlock * kPanel) - k0 * kPanel;
        walk<1>(panel, k0, k0 + count, [&](int64_t k, int, Floats low, Floats high) {
            store(to + k * kPanel, low);
            store(to + k * kPanel + kLanes, high);
        });
        return to + k0 * kPanel;
    }

    template <int rows, int panels>
    void direct(const float* x, int64_t stride, int64_t panel, int64_t k0, int64_t count,
                const TileOut& out) const {
        Floats sums[rows][panels][2];
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
            for (int p = 0; p < panels; ++p) sums[r][p][0] = sums[r][p][1] = Floats{};
        }
        const float* from = x - k0;
        walk<panels>(panel, k0, k0 + count, [&](int64_t k, int p, Floats low, Floats high) {
#pragma GCC unroll 16
            for (int r = 0; r < rows; ++r) {
                const Floats value = fill(from[r * stride + k]);
                sums[r][p][0] += value * low;
                sums[r][p][1] += value * high;
            }
        });
        finish_tile<rows, panels>(sums, out);
    }

private:
    const uint8_t* codes(int64_t panel, int64_t k) const {
        return linear_.codes + panel * bytes_ + k * kPanel;
    }

    // use(k, p, low, high) with the weights of every input k of [k, stop), panel by panel.
    template <int panels, class Use>
    [[gnu::always_inline]] void walk(int64_t panel, int64_t k, int64_t stop, Use&& use) const {
        while (k < stop) {
            const int64_t group = linear_.group_of[k];
            const int64_t end = std::min<int64_t>(stop, linear_.ends[group]);
            Floats scales[panels][2];
#pragma GCC unroll 4
            for (int p = 0; p < panels; ++p) {
                const float* at = linear_.scales + ((panel + p) * linear_.groups + group) * kPanel;
                scales[p][0] = load(at);
                scales[p][1] = load(at + kLanes);
            }
            for (; k < end; ++k) {
#pragma GCC unroll 4
                for (int p = 0; p < panels; ++p) {
                    const uint8_t* at = codes(panel + p, k);
                    __builtin_prefetch(at + kAhead);
                    Floats low, high;
                    Float8::load_finite(at, low, high);
                    use(k, p, low * scales[p][0], high * scales[p][1]);
                }
            }
        }
    }

    const Float8Linear& linear_;
    const int64_t bytes_;  // of a panel
};

}  // namespace
}  // namespace lmi

// codes (outputs, inputs) -> packed, in panels. Returns how many of them are NaN.
LMI_API int64_t lmi_pack_float8(const uint8_t* codes, int64_t outputs, int64_t inputs,
                                uint8_t* packed) {
    lmi::parallel(lmi::panels_of(outputs), [&](int64_t panel) {
        uint8_t* to = packed + panel * inputs * lmi::kPanel;
        for (int64_t n = 0; n < lmi::kPanel; ++n) {
            const int64_t output = panel * lmi::kPanel + n;
            for (int64_t k = 0; k < inputs; ++k) {
                to[k * lmi::kPanel + n] = output < outputs ? codes[output * inputs + k] : 0;
            }
        }
    });
    int64_t missing = 0;
    for (int64_t i = 0; i < outputs * inputs; ++i) {
        missing += (codes[i] & lmi::kFloat8Magnitude) == lmi::kFloat8Magnitude;
    }
    return missing;
}

// out (rows, outputs) = x (rows, inputs) times the weight, plus the bias.
LMI_API void lmi_float8_linear(const lmi::Float8Linear* linear, const float* x, float* out,
                               int64_t rows) {
    const lmi::Scaled weights(*linear);
    lmi::Product(weights, x, out, rows).run();
}

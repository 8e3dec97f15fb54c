// Linear layers whose weights stay at 3, 4 or 8 bits in memory, with a scale per group of inputs.
//
// A panel holds one 32-bit word per output for every 32 / bits inputs; the numbers are turned wide
// in registers as (value - zero) * scale, in float32. Groups are runs of inputs: where a checkpoint
// orders them otherwise (act-order), the weight's inputs were put in order, and so are the rows'.
#include "int8.h"
#include "product.h"

namespace lmi {

// The same fields as `GroupedStruct` in library.py.
struct GroupedLinear {
    int32_t bits;
    int32_t scale_format;  // a Format
    int32_t zero_format;   // 0: all are `zero`; 1: bytes; 2: float32
    float zero;
    int32_t rounds_rows;  // whether rows are rounded to 8 bits first
    int32_t reserved;
    int64_t inputs;
    int64_t outputs;
    const uint32_t* words;
    const float* bias;        // (outputs) or null
    const int32_t* group_of;  // (inputs), rising
    int64_t groups;
    const void* scales;    // (panels, groups, kPanel)
    const void* zeros;     // likewise, or null
    const int32_t* order;  // (inputs): the input that stands at each place, or null
};

namespace {

constexpr int kAhead = 512;  // bytes, in each stream of words

// The `Weights` of a Product.
template <int bits>
class Grouped {
    static constexpr int64_t kPerWord = 32 / bits;
    static constexpr uint32_t kMask = (1u << bits) - 1;

public:
    static constexpr int kDirectRows = kTileRows * 2 / 3;

    static constexpr int at_once(int rows) { return rows == 1 ? 2 : 1; }

    explicit Grouped(const GroupedLinear& linear)
        : linear_(linear), words_((linear.inputs + kPerWord - 1) / kPerWord * kPanel) {}

    int64_t inputs() const { return linear_.inputs; }
    int64_t outputs() const { return linear_.outputs; }
    const float* bias() const { return linear_.bias; }
    int64_t panel_bytes() const { return words_ * int64_t(sizeof(uint32_t)); }

    const char* address(int64_t panel, int64_t k) const {
        return reinterpret_cast<const char*>(words(panel, k));
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
    const uint32_t* words(int64_t panel, int64_t k) const {
        return linear_.words + panel * words_ + k / kPerWord * kPanel;
    }

    struct Group {
        Floats zero[2], scale[2];

        Floats wide(Words words, int half) const {
            const Floats value = __builtin_convertvector(bits_as<Ints>(words & kMask), Floats);
            return (value - zero[half]) * scale[half];
        }
    };

    Group group(int64_t panel, int64_t index) const {
        const int64_t at = (panel * linear_.groups + index) * kPanel;
        Group found;
        for (int half = 0; half < 2; ++half) {
            const int64_t place = at + half * kLanes;
            with_format(linear_.scale_format, [&](auto format) {
                using Format = decltype(format);
                const auto* scales = static_cast<const typename Format::Element*>(linear_.scales);
                found.scale[half] = Format::load(scales + place);
            });
            found.zero[half] = fill(linear_.zero);
            if (linear_.zero_format == 1) {
                const Bytes bytes = load_as<Bytes>(static_cast<const char*>(linear_.zeros) + place);
                found.zero[half] = __builtin_convertvector(bytes, Floats);
            } else if (linear_.zero_format == 2) {
                found.zero[half] = load(static_cast<const float*>(linear_.zeros) + place);
            }
        }
        return found;
    }

    // use(k, p, low, high) with the weights of every input k of [k, stop), panel by panel.
    template <int panels, class Use>
    [[gnu::always_inline]] void walk(int64_t panel, int64_t k, int64_t stop, Use&& use) const {
        while (k < stop) {
            const int32_t index = linear_.group_of[k];
            Group groups[panels];
            for (int p = 0; p < panels; ++p) groups[p] = group(panel + p, index);
            // Inputs of a group stand together: where the group ends, so does the run.
            while (k < stop && linear_.group_of[k] == index) {
                const uint32_t* at = words(panel, k);
                const int64_t first = k % kPerWord;
                const int64_t whole = k + kPerWord <= stop && linear_.group_of[k + kPerWord - 1] == index;
                if (first == 0 && whole) {
#pragma GCC unroll 4
                    for (int p = 0; p < panels; ++p) {
                        const uint32_t* here = at + p * words_;
                        __builtin_prefetch(reinterpret_cast<const char*>(here) + kAhead);
                        const Words low = load_as<Words>(here), high = load_as<Words>(here + kLanes);
#pragma GCC unroll 16
                        for (int64_t i = 0; i < kPerWord; ++i) {
                            const int shift = int(i) * bits;
                            use(k + i, p, groups[p].wide(low >> shift, 0),
                                groups[p].wide(high >> shift, 1));
                        }
                    }
                    k += kPerWord;
                } else {
                    const int shift = int(first) * bits;
                    for (int p = 0; p < panels; ++p) {
                        const uint32_t* here = at + p * words_;
                        use(k, p, groups[p].wide(load_as<Words>(here) >> shift, 0),
                            groups[p].wide(load_as<Words>(here + kLanes) >> shift, 1));
                    }
                    ++k;
                }
            }
        }
    }

    const GroupedLinear& linear_;
    const int64_t words_;  // of a panel
};

template <class Visit>
void with_bits(int32_t bits, Visit&& visit) {
    if (bits == 3) {
        visit(std::integral_constant<int, 3>{});
    } else if (bits == 4) {
        visit(std::integral_constant<int, 4>{});
    } else {
        visit(std::integral_constant<int, 8>{});
    }
}

// The rows as the product wants them: in the weight's order, and rounded where it says so. In
// memory of the calling thread.
const float* prepared(const GroupedLinear& linear, const float* x, int64_t rows) {
    if (linear.order == nullptr && !linear.rounds_rows) return x;
    const int64_t inputs = linear.inputs;
    float* memory = scratch(kInputScratch, size_t(rows * inputs));
    parallel(rows, [&](int64_t row) {
        const float* from = x + row * inputs;
        float* to = memory + row * inputs;
        for (int64_t k = 0; k < inputs; ++k) to[k] = from[linear.order ? linear.order[k] : k];
        if (!linear.rounds_rows) return;
        const float scale = row_scale(to, inputs);
        for (int64_t k = 0; k < inputs; ++k) to[k] = std::nearbyint(to[k] / scale) * scale;
    });
    return memory;
}

}  // namespace
}  // namespace lmi

// Output features of a panel.
LMI_API int64_t lmi_panel() { return lmi::kPanel; }

// 32-bit words that a packed weight of so many bits takes.
LMI_API int64_t lmi_low_bit_words(int32_t bits, int64_t outputs, int64_t inputs) {
    const int64_t per_word = 32 / bits;
    return lmi::panels_of(outputs) * lmi::kPanel * ((inputs + per_word - 1) / per_word);
}

// values (outputs, inputs), below 2**bits -> packed words.
LMI_API void lmi_pack_low_bit(int32_t bits, const uint8_t* values, int64_t outputs, int64_t inputs,
                              uint32_t* packed) {
    const int64_t per_word = 32 / bits, words = (inputs + per_word - 1) / per_word;
    lmi::parallel(lmi::panels_of(outputs), [&](int64_t panel) {
        uint32_t* to = packed + panel * words * lmi::kPanel;
        std::fill_n(to, words * lmi::kPanel, 0u);
        const int64_t stop = std::min<int64_t>(outputs, (panel + 1) * lmi::kPanel);
        for (int64_t n = panel * lmi::kPanel; n < stop; ++n) {
            for (int64_t k = 0; k < inputs; ++k) {
                uint32_t& word = to[k / per_word * lmi::kPanel + n % lmi::kPanel];
                word |= uint32_t(values[n * inputs + k]) << (k % per_word * bits);
            }
        }
    });
}

// out (rows, outputs) = x (rows, inputs) times the weight, plus the bias.
LMI_API void lmi_low_bit_linear(const lmi::GroupedLinear* linear, const float* x, float* out,
                                int64_t rows) {
    const float* inputs = lmi::prepared(*linear, x, rows);
    lmi::with_bits(linear->bits, [&](auto bits) {
        const lmi::Grouped<bits.value> weights(*linear);
        lmi::Product(weights, inputs, out, rows).run();
    });
}

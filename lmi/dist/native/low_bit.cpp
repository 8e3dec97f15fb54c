// Linear layers whose weights stay at 3, 4 or 8 bits in memory, with a scale per group of inputs.
//
// A panel holds one 32-bit word per output for every 32 / bits inputs. Each half of a word has each
// other input, so that a shift and a mask make pairs of 16 bits for whole-number products with the
// rows' digits (digits.h). A run's sum is exact; it is turned into float32, scaled, and joins the
// runs before it, in order: a result does not depend on the rows beside it, nor on who computes it.
//
// Runs are stretches of inputs of one group: where a checkpoint orders them otherwise (act-order),
// the weight's inputs were put in order, and so are the rows'.
#include <cmath>

#include "digits.h"
#include "int8.h"
#include "pairs.h"

namespace lmi {

// The same fields as `GroupedStruct` in library.py.
struct GroupedLinear {
    int32_t bits;
    int32_t scale_format;  // a Format
    int32_t zero_format;   // 0: all are `zero`; 1: bytes; 2: float32
    int32_t zero;
    int32_t rounds_rows;  // whether rows are rounded to 8 bits first
    int32_t reserved;
    int64_t inputs;
    int64_t outputs;
    const uint32_t* words;
    const float* bias;  // (outputs) or null
    const Run* runs;
    int64_t run_count;
    int64_t groups;
    const void* scales;    // (panels, groups, kPanel)
    const void* zeros;     // likewise, or null
    const int32_t* order;  // (inputs): the input that stands at each place, or null

    int64_t pairs() const {
        const Run& last = runs[run_count - 1];
        return last.pair + last.pairs();
    }
};

namespace {

constexpr int kAhead = 512;  // bytes, in each stream of words
// Rows whose sums of both digits fit the registers, for one panel.
constexpr int kPairRows = kTileRows / 2;
constexpr int64_t kPairBlock = 16 * kPairRows;  // their digits of a run stay in L2

// a * b + c, rounded once where the processor can: whatever compiles around it, always the same.
inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;
#endif
}

template <int bits>
class Grouped {
public:
    // Pairs of inputs in a word, and where a pair's numbers are in it.
    static constexpr int kPairs = 16 / bits;
    static constexpr uint32_t kMask = ((1u << bits) - 1) * 0x10001u;

    Grouped(const GroupedLinear& linear, const DigitRows& x, float* out)
        : linear_(linear), x_(x), out_(out), words_((x.pairs + kPairs - 1) / kPairs * kPanel) {}

    void run(int64_t rows) const {
        const int64_t bytes = words_ * int64_t(sizeof(uint32_t));
        over_panels(rows, kPairBlock, linear_.outputs, bytes, at_once(rows),
                    [&](int64_t row, int64_t count, int64_t panel, int64_t stop) {
                        if (count > kPairRows) {
                            for (; panel < stop; ++panel) many(row, count, panel);
                        } else {
                            with_number<kPairRows>(count, [&](auto number) {
                                few<number.value, at_once(number.value)>(row, panel, stop);
                            });
                        }
                    });
    }

private:
    static constexpr std::integral_constant<int, 0> kOnly{};  // panel

    // Few rows need several panels for enough independent sums in flight.
    static constexpr int at_once(int64_t rows) { return rows == 1 ? 2 : 1; }

    // Weights are unpacked where they are used.
    template <int rows, int panels>
    void few(int64_t row, int64_t panel, int64_t stop) const {
        const int32_t* digits = x_.row(row);
        const int64_t stride = 2 * x_.pairs;
        for (; panel + panels <= stop; panel += panels) {
            for (int64_t run = 0; run < linear_.run_count; ++run) {
                Sums<rows, panels> sums;
                unpack<panels>(linear_.runs[run], panel, [&](int64_t t, auto p, Shorts low, Shorts high) __attribute__((always_inline)) {
                    sums.add(digits + 2 * t, stride, p, low, high);
                });
                finish(sums, row, panel, run);
            }
        }
        if constexpr (panels > 1) few<rows, 1>(row, panel, stop);
    }

    // A run of a panel is unpacked once for all rows, and its zeros subtracted: the numbers are
    // whole, so the sums are those of `few`.
    void many(int64_t row, int64_t rows, int64_t panel) const {
        Shorts* unpacked = reinterpret_cast<Shorts*>(scratch(kPanelScratch, kBlock / 2 * kPanel));
        for (int64_t run = 0; run < linear_.run_count; ++run) {
            const Run& inputs = linear_.runs[run];
            const Group found = group(inputs, panel);
            const Shorts zeros[2] = {in_pairs(found.zero[0]), in_pairs(found.zero[1])};
            unpack<1>(inputs, panel, [&](int64_t t, auto, Shorts low, Shorts high) {
                unpacked[2 * (t - inputs.pair)] = low - zeros[0];
                unpacked[2 * (t - inputs.pair) + 1] = high - zeros[1];
            });
            // Tiles of nearly the same height.
            const int64_t stop = row + rows;
            int64_t at = row;
            for (int64_t tile = (rows + kPairRows - 1) / kPairRows; tile > 0; --tile) {
                const int64_t height = (stop - at + tile - 1) / tile;
                with_number<kPairRows>(height, [&](auto number) {
                    Sums<number.value, 1> sums;
                    const int32_t* digits = x_.row(at) + 2 * inputs.pair;
                    const int64_t stride = 2 * x_.pairs, pairs = inputs.pairs();
                    for (int64_t t = 0; t < pairs; ++t) {
                        sums.add(digits + 2 * t, stride, kOnly, unpacked[2 * t], unpacked[2 * t + 1]);
                    }
                    repeat<number.value>([&](auto r) __attribute__((always_inline)) {
                        join(sums.high[r][0][0], sums.high[r][0][1], sums.low[r][0][0],
                             sums.low[r][0][1], found, x_.of(at + r, run), at + r, panel, run);
                    });
                });
                at += height;
            }
        }
    }

    static Shorts in_pairs(Ints numbers) { return bits_as<Shorts>(numbers | numbers << 16); }

    // use(t, p, low, high) with the weights of each pair t of the run, for the panel's two halves.
    template <int panels, class Use>
    [[gnu::always_inline]] void unpack(const Run& run, int64_t panel, Use&& use) const {
        const uint32_t* from = linear_.words + panel * words_;
        int64_t t = run.pair;
        const int64_t stop = t + run.pairs();
        const auto part = [&](int64_t pair) __attribute__((always_inline)) {
            const int shift = int(pair % kPairs) * bits;
            repeat<panels>([&](auto p) __attribute__((always_inline)) {
                const uint32_t* at = from + p * words_ + pair / kPairs * kPanel;
                const Words low = load_as<Words>(at), high = load_as<Words>(at + kLanes);
                use(pair, p, bits_as<Shorts>(low >> shift & kMask),
                    bits_as<Shorts>(high >> shift & kMask));
            });
        };
        for (; t < stop && t % kPairs; ++t) part(t);
        for (; t + kPairs <= stop; t += kPairs) {
            repeat<panels>([&](auto p) __attribute__((always_inline)) {
                const uint32_t* at = from + p * words_ + t / kPairs * kPanel;
                __builtin_prefetch(reinterpret_cast<const char*>(at) + kAhead);
                const Words low = load_as<Words>(at), high = load_as<Words>(at + kLanes);
                repeat<kPairs>([&](auto i) __attribute__((always_inline)) {
                    use(t + i, p, bits_as<Shorts>(low >> (i * bits) & kMask),
                        bits_as<Shorts>(high >> (i * bits) & kMask));
                });
            });
        }
        for (; t < stop; ++t) part(t);
    }

    // Sums of both digits over a run.
    template <int rows, int panels>
    struct Sums {
        Ints high[rows][panels][2], low[rows][panels][2];

        [[gnu::always_inline]] Sums() {
            repeat<rows>([&](auto r) __attribute__((always_inline)) {
                repeat<panels>([&](auto p) __attribute__((always_inline)) {
                    high[r][p][0] = high[r][p][1] = low[r][p][0] = low[r][p][1] = Ints{};
                });
            });
        }

        // digits: of the first row's pair; those of the next stand `stride` words on.
        template <class Panel>
        [[gnu::always_inline]] void add(const int32_t* digits, int64_t stride, Panel p, Shorts first,
                                        Shorts second) {
            repeat<rows>([&](auto r) __attribute__((always_inline)) {
                const Shorts above = fill_pair(digits + r * stride);
                add_in_place(high[r][p][0], multiply_pairs(first, above));
                add_in_place(high[r][p][1], multiply_pairs(second, above));
                const Shorts below = fill_pair(digits + r * stride + 1);
                add_in_place(low[r][p][0], multiply_pairs(first, below));
                add_in_place(low[r][p][1], multiply_pairs(second, below));
            });
        }
    };

    // Of one group of inputs and a panel's two halves.
    struct Group {
        Floats scale[2];
        Ints zero[2];
    };

    [[gnu::always_inline]] Group group(const Run& run, int64_t panel) const {
        const int64_t place = (panel * linear_.groups + run.group) * kPanel;
        Group found;
        with_format(linear_.scale_format, [&](auto format) {
            using Format = decltype(format);
            const auto* from = static_cast<const typename Format::Element*>(linear_.scales) + place;
            found.scale[0] = Format::load(from);
            found.scale[1] = Format::load(from + kLanes);
        });
        found.zero[0] = found.zero[1] = Ints{} + (linear_.zero_format == 0 ? linear_.zero : 0);
        if (linear_.zero_format == 1) {
            const char* from = static_cast<const char*>(linear_.zeros) + place;
            found.zero[0] = __builtin_convertvector(load_as<Bytes>(from), Ints);
            found.zero[1] = __builtin_convertvector(load_as<Bytes>(from + kLanes), Ints);
        }
        return found;
    }

    // A run's sums join what stands in the results. The group's zeros are still in the sums.
    template <int rows, int panels>
    [[gnu::always_inline]] void finish(const Sums<rows, panels>& sums, int64_t row, int64_t panel,
                                       int64_t run) const {
        repeat<panels>([&](auto p) __attribute__((always_inline)) {
            const Group found = group(linear_.runs[run], panel + p);
            repeat<rows>([&](auto r) __attribute__((always_inline)) {
                const RunSums& digits = x_.of(row + r, run);
                join(sums.high[r][p][0] - found.zero[0] * digits.high,
                     sums.high[r][p][1] - found.zero[1] * digits.high,
                     sums.low[r][p][0] - found.zero[0] * digits.low,
                     sums.low[r][p][1] - found.zero[1] * digits.low, found, digits, row + r,
                     panel + p, run);
            });
        });
    }

    // Exact sums of a row and a panel's two halves are turned wide and join what stands in the
    // results.
    [[gnu::always_inline]] void join(Ints high, Ints high2, Ints low, Ints low2, const Group& group,
                                     const RunSums& digits, int64_t row, int64_t panel,
                                     int64_t run) const {
        const int64_t column = panel * kPanel;
        Floats sums[2] = {wide(high, low), wide(high2, low2)};
        if (linear_.zero_format == 2) {
            const float all = float(digits.high) * kDigit + float(digits.low);
            const float* zeros = static_cast<const float*>(linear_.zeros) +
                                 (panel * linear_.groups + linear_.runs[run].group) * kPanel;
            sums[0] = fused(load(zeros), fill(-all), sums[0]);
            sums[1] = fused(load(zeros + kLanes), fill(-all), sums[1]);
        }
        const Floats scales[2] = {group.scale[0] * digits.unit, group.scale[1] * digits.unit};
        float* to = out_ + row * linear_.outputs + column;
        const float* before = run > 0 ? to : linear_.bias ? linear_.bias + column : nullptr;
        if (column + kPanel > linear_.outputs) return join_part(sums, scales, before, to, column);
        store(to, fused(sums[0], scales[0], before ? load(before) : Floats{}));
        store(to + kLanes, fused(sums[1], scales[1], before ? load(before + kLanes) : Floats{}));
    }

    // The product with a power of two is exact: how it is fused makes no difference.
    static Floats wide(Ints high, Ints low) {
        return __builtin_convertvector(high, Floats) * kDigit + __builtin_convertvector(low, Floats);
    }

    // A panel of which only some columns exist.
    [[gnu::noinline]] void join_part(const Floats (&sums)[2], const Floats (&scales)[2],
                                     const float* before, float* to, int64_t column) const {
        float joined[kPanel] = {};
        const size_t bytes = size_t(linear_.outputs - column) * sizeof(float);
        if (before) std::memcpy(joined, before, bytes);
        for (int half = 0; half < 2; ++half) {
            float* part = joined + half * kLanes;
            store(part, fused(sums[half], scales[half], load(part)));
        }
        std::memcpy(to, joined, bytes);
    }

    const GroupedLinear& linear_;
    const DigitRows& x_;
    float* out_;
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

// A row in the weight's order, and rounded where it says so. In memory of the calling thread.
const float* prepared(const GroupedLinear& linear, const float* from) {
    if (linear.order == nullptr && !linear.rounds_rows) return from;
    const int64_t inputs = linear.inputs;
    float* to = scratch(kPanelScratch, size_t(inputs));
    for (int64_t k = 0; k < inputs; ++k) to[k] = from[linear.order ? linear.order[k] : k];
    if (!linear.rounds_rows) return to;
    const float scale = row_scale(to, inputs);
    for (int64_t k = 0; k < inputs; ++k) to[k] = std::nearbyint(to[k] / scale) * scale;
    return to;
}

// In memory of the calling thread.
DigitRows digits_of(const GroupedLinear& linear, const float* x, int64_t rows) {
    const int64_t pairs = linear.pairs(), runs = linear.run_count;
    float* memory = scratch(kInputScratch, size_t(rows * (2 * pairs + 3 * runs)));
    int32_t* digits = reinterpret_cast<int32_t*>(memory);
    RunSums* sums = reinterpret_cast<RunSums*>(memory + rows * 2 * pairs);
    parallel(rows, [&](int64_t row) {
        const float* from = prepared(linear, x + row * linear.inputs);
        for (int64_t i = 0; i < runs; ++i) {
            const Run& run = linear.runs[i];
            sums[row * runs + i] =
                write_digits(from + run.first, run.inputs, digits + 2 * (row * pairs + run.pair));
        }
    });
    return {digits, sums, pairs, runs};
}

}  // namespace
}  // namespace lmi

// Output features of a panel.
LMI_API int64_t lmi_panel() { return lmi::kPanel; }

// 32-bit words that a packed weight takes. pairs: of inputs, in all runs.
LMI_API int64_t lmi_low_bit_words(int32_t bits, int64_t outputs, int64_t pairs) {
    const int64_t per_word = 16 / bits;
    return lmi::panels_of(outputs) * lmi::kPanel * ((pairs + per_word - 1) / per_word);
}

// values (outputs, inputs), below 2**bits -> packed words.
LMI_API void lmi_pack_low_bit(int32_t bits, const uint8_t* values, int64_t outputs, int64_t inputs,
                              const lmi::Run* runs, int64_t run_count, uint32_t* packed) {
    const lmi::Run& last = runs[run_count - 1];
    const int64_t per_word = 16 / bits;
    const int64_t words = (last.pair + last.pairs() + per_word - 1) / per_word;
    lmi::parallel(lmi::panels_of(outputs), [&](int64_t panel) {
        uint32_t* to = packed + panel * words * lmi::kPanel;
        std::fill_n(to, words * lmi::kPanel, 0u);
        const int64_t stop = std::min<int64_t>(outputs, (panel + 1) * lmi::kPanel);
        for (int64_t n = panel * lmi::kPanel; n < stop; ++n) {
            for (const lmi::Run* run = runs; run < runs + run_count; ++run) {
                for (int64_t k = 0; k < run->inputs; ++k) {
                    const int64_t pair = run->pair + k / 2;
                    uint32_t& word = to[pair / per_word * lmi::kPanel + n % lmi::kPanel];
                    word |= uint32_t(values[n * inputs + run->first + k])
                            << (pair % per_word * bits + k % 2 * 16);
                }
            }
        }
    });
}

// out (rows, outputs) = x (rows, inputs) times the weight, plus the bias.
LMI_API void lmi_low_bit_linear(const lmi::GroupedLinear* linear, const float* x, float* out,
                                int64_t rows) {
    if (rows == 0) return;
    const lmi::DigitRows digits = lmi::digits_of(*linear, x, rows);
    lmi::with_bits(linear->bits, [&](auto bits) {
        lmi::Grouped<bits.value>(*linear, digits, out).run(rows);
    });
}

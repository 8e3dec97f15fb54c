// Products of pairs of 16-bit numbers, and how layers that sum them share panels among threads.
#pragma once

#include <algorithm>

#include "pool.h"
#include "product.h"
#include "simd.h"

namespace lmi {

using Shorts = int16_t __attribute__((vector_size(kLanes * 4)));

// Two products per lane, summed: of inputs 2k and 2k + 1, for kLanes outputs.
inline Ints multiply_pairs(Shorts weights, Shorts inputs) {
#if defined(__AVX512BW__)
    return bits_as<Ints>(_mm512_madd_epi16(bits_as<__m512i>(weights), bits_as<__m512i>(inputs)));
#elif defined(__AVX2__)
    return bits_as<Ints>(_mm256_madd_epi16(bits_as<__m256i>(weights), bits_as<__m256i>(inputs)));
#elif defined(__SSE2__)
    return bits_as<Ints>(_mm_madd_epi16(bits_as<__m128i>(weights), bits_as<__m128i>(inputs)));
#else
    const Ints w = bits_as<Ints>(weights), x = bits_as<Ints>(inputs);
    return (w << 16 >> 16) * (x << 16 >> 16) + (w >> 16) * (x >> 16);
#endif
}

// Adds to a sum that stays in its register. Whole-number sums may be added in any order, and a
// compiler that uses this freedom in an unrolled loop runs out of registers.
inline void add_in_place(Ints& sum, Ints more) {
    Ints kept = sum + more;
#if defined(__AVX512F__)
    asm("" : "+v"(kept));
#elif defined(__SSE2__)
    asm("" : "+x"(kept));
#endif
    sum = kept;
}

template <class Visit, int... numbers>
[[gnu::always_inline]] inline void visit_each(Visit&& visit, std::integer_sequence<int, numbers...>) {
    (visit(std::integral_constant<int, numbers>{}), ...);
}

// visit(0) .. visit(count - 1), each number a constant: sums indexed by it can live in registers
// however long the body is, where a loop would have to be unrolled first.
template <int count, class Visit>
[[gnu::always_inline]] inline void repeat(Visit&& visit) {
    visit_each(visit, std::make_integer_sequence<int, count>{});
}

// One pair in every lane.
inline Shorts fill_pair(const void* pair) {
    return bits_as<Shorts>(load_as<int32_t>(pair) - Ints{});
}

// task(first row, rows, first panel, last panel + 1) until each of `row_block` rows has met all
// panels. width: panels that are best kept together.
template <class Task>
void over_panels(int64_t rows, int64_t row_block, int64_t outputs, int64_t panel_bytes,
                 int64_t width, Task&& task) {
    const int64_t panels = panels_of(outputs), row_blocks = (rows + row_block - 1) / row_block;
    int64_t share = std::max<int64_t>(1, kTaskBytes / std::max<int64_t>(1, panel_bytes));
    share = std::min(share, (panels + 2 * thread_count() - 1) / (2 * thread_count()));
    share = (share + width - 1) / width * width;
    const int64_t chunks = (panels + share - 1) / share;
    parallel(row_blocks * chunks, [&](int64_t number) {
        const int64_t row = number / chunks * row_block, panel = number % chunks * share;
        task(row, std::min(row_block, rows - row), panel, std::min(panels, panel + share));
    });
}

}  // namespace lmi

// Rows of float32 as whole numbers of 30 bits, in two digits that 16-bit products can take.
//
// A run of inputs shares a scale that is a power of two; a number is high * 2**15 + low in it. Sums
// of products of whole numbers are exact, so they have no order, and what is lost at the ends of
// the 30 bits is less than a sum in float32 loses.
#pragma once

#include <cstdint>

#include "simd.h"

namespace lmi {

// A stretch of inputs with one group; the same fields as a row of `runs` in cpu_linear.py.
struct Run {
    int32_t group;
    int32_t first;   // input
    int32_t inputs;  // at most kBlock, so that 32 bits hold every sum
    int32_t pair;    // where its pairs begin: those of all runs stand one after the other

    int64_t pairs() const { return (inputs + 1) / 2; }
};

constexpr float kDigit = 32768.0f;

// What a run needs beside its digits: their sums, and what a whole number stands for (NaN where a
// number of the run is not finite).
struct RunSums {
    int32_t high, low;
    float unit;
};

struct DigitRows {
    const int32_t* digits;  // (rows, pairs, 2): a pair of high digits, the pair of low ones
    const RunSums* sums;    // (rows, runs)
    int64_t pairs, runs;

    const int32_t* row(int64_t row) const { return digits + row * 2 * pairs; }
    const RunSums& of(int64_t row, int64_t run) const { return sums[row * runs + run]; }
};

// The run's digits of a row; `to` takes two words per pair.
RunSums write_digits(const float* from, int64_t inputs, int32_t* to);

}  // namespace lmi

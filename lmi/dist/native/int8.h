// How a row of float32 numbers becomes one of 8 bits: round(number / scale), ties to even.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lmi {

// max |number| / 127, as in LLM.int8() (Dettmers et al., 2022) without its outliers; NaN where a
// number is not finite, which no 8-bit number could tell.
inline float row_scale(const float* row, int64_t count) {
    float most = 0;
    bool finite = true;
    for (int64_t k = 0; k < count; ++k) {
        const float size = std::fabs(row[k]);
        finite &= size <= 3.4028235e38f;
        most = size > most ? size : most;
    }
    return finite ? std::max(most, 1e-12f) / 127.0f : std::nanf("");
}

}  // namespace lmi

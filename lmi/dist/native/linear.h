// A packed linear layer as Python describes it.
#pragma once

#include <cstdint>

namespace lmi {

// The same fields as `LinearStruct` in library.py.
struct Linear {
    int32_t format;  // a Format of simd.h
    int32_t reserved;
    int64_t inputs;
    int64_t outputs;
    const void* weights;  // packed
    const float* bias;    // (outputs) or null
};

}  // namespace lmi

// The geometry of one attention layer and the memory of its cache.
#pragma once

#include <cstdint>

namespace lmi {

// The same fields as `AttentionStruct` in library.py.
struct Attention {
    int32_t format;  // a Format, of keys and values
    float scaling;   // of the scores, with the scale of the cached keys
    int64_t query_heads, kv_heads, size;
    int64_t rotary;  // leading numbers of a head that are rotated
    int64_t block_size;
    int64_t window;  // tokens that a token sees, with itself; 0 for all before it
    void* keys;      // (blocks, block_size, kv_heads, size)
    void* values;
    // What is cached is K and V times these; and V is what is cached times value_scale.
    float key_factor, value_factor, value_scale;
    int32_t reserved;
};

}  // namespace lmi

// The geometry of one attention layer and the memory of its cache.
#pragma once

#include <cstdint>

namespace lmi {

// The same fields as `AttentionStruct` in library.py.
struct Attention {
    int32_t format;  // a Format, of keys and values
    float scaling;
    int64_t query_heads, kv_heads, size;
    int64_t rotary;  // leading numbers of a head that are rotated
    int64_t block_size;
    int64_t window;  // tokens that a token sees, with itself; 0 for all before it
    void* keys;      // (blocks, block_size, kv_heads, size)
    void* values;
};

}  // namespace lmi

// What a decoder does to each row by itself: embedding, norms, rotation, the gate.
#include <algorithm>

#include "attention.h"
#include "float8.h"
#include "norm.h"
#include "pool.h"
#include "simd.h"

namespace lmi {
namespace {

// Numbers that one task should touch at least: below this, sharing costs more than it saves.
constexpr int64_t kTaskNumbers = 16 * 1024;

// body(row) for all rows, each `numbers` long.
template <class Body>
void for_rows(int64_t rows, int64_t numbers, Body&& body) {
    const int64_t each = std::max<int64_t>(1, kTaskNumbers / std::max<int64_t>(1, numbers));
    parallel((rows + each - 1) / each, [&](int64_t chunk) {
        const int64_t stop = std::min(rows, (chunk + 1) * each);
        for (int64_t row = chunk * each; row < stop; ++row) body(row);
    });
}

void silu_mul(const float* gate, const float* up, int64_t size, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const Floats value = load(gate + i);
        store(out + i, value / (exponential(-value) + 1.0f) * load(up + i));
    }
    if (i == size) return;
    Floats value{}, factor{};
    for (int64_t j = i; j < size; ++j) {
        value[j - i] = gate[j];
        factor[j - i] = up[j];
    }
    value = value / (exponential(-value) + 1.0f) * factor;
    for (int64_t j = i; j < size; ++j) out[j] = value[j - i];
}

// The head's normed and rotated numbers: the first `rotary` in halves, the others as they are.
void rotate(float* head, const float* rope, int64_t rotary) {
    const int64_t half = rotary / 2;
    for (int64_t i = 0; i < half; ++i) {
        const float cosine = rope[i], sine = rope[half + i];
        const float low = head[i], high = head[half + i];
        head[i] = low * cosine - high * sine;
        head[half + i] = high * cosine + low * sine;
    }
}

struct RotateAndWrite {
    const Attention& shape;
    const float* qkv;
    const float* rope;
    const int64_t* positions;
    const int64_t* slots;
    const float* query_norm;  // (size) or null
    const float* key_norm;
    float epsilon;
    float* query;

    template <class Format>
    void row(int64_t row) const {
        using Element = typename Format::Element;
        const int64_t size = shape.size, numbers = shape.kv_heads * size;
        const float* from = qkv + row * (shape.query_heads * size + 2 * numbers);
        const float* angles = rope + positions[row] * shape.rotary;
        float* to = query + row * shape.query_heads * size;
        for (int64_t head = 0; head < shape.query_heads; ++head) {
            turn(from + head * size, query_norm, angles, to + head * size);
        }
        const float* key = from + shape.query_heads * size;
        const float* value = key + numbers;
        float* turned = scratch(kKeyScratch, size_t(numbers));
        for (int64_t head = 0; head < shape.kv_heads; ++head) {
            turn(key + head * size, key_norm, angles, turned + head * size);
        }
        Element* keys = static_cast<Element*>(shape.keys) + slots[row] * numbers;
        Element* values = static_cast<Element*>(shape.values) + slots[row] * numbers;
        for (int64_t i = 0; i < numbers; ++i) {
            keys[i] = Format::write(turned[i] * shape.key_factor);
        }
        for (int64_t i = 0; i < numbers; ++i) {
            values[i] = Format::write(value[i] * shape.value_factor);
        }
    }

private:
    void turn(const float* head, const float* weight, const float* angles, float* to) const {
        if (weight) {
            norm(head, weight, epsilon, shape.size, to);
        } else {
            std::copy_n(head, shape.size, to);
        }
        rotate(to, angles, shape.rotary);
    }
};

}  // namespace
}  // namespace lmi

// table (vocabulary, size) of a Format, ids (rows) -> out (rows, size).
LMI_API void lmi_embed(int32_t format, const void* table, const int64_t* ids, float* out,
                       int64_t rows, int64_t size) {
    lmi::with_format(format, [&](auto kind) {
        using Kind = decltype(kind);
        const auto* numbers = static_cast<const typename Kind::Element*>(table);
        lmi::for_rows(rows, size, [&](int64_t row) {
            const auto* from = numbers + ids[row] * size;
            for (int64_t i = 0; i < size; ++i) out[row * size + i] = Kind::read(from[i]);
        });
    });
}

LMI_API void lmi_rms_norm(const float* rows, const float* weight, float* out, int64_t count,
                          int64_t size, float epsilon) {
    lmi::for_rows(count, size, [&](int64_t row) {
        lmi::norm(rows + row * size, weight, epsilon, size, out + row * size);
    });
}

// residual += delta; out = the norm of the new residual.
LMI_API void lmi_add_rms_norm(float* residual, const float* delta, const float* weight, float* out,
                              int64_t count, int64_t size, float epsilon) {
    lmi::for_rows(count, size, [&](int64_t row) {
        float* to = residual + row * size;
        const float* from = delta + row * size;
        for (int64_t i = 0; i < size; ++i) to[i] += from[i];
        lmi::norm(to, weight, epsilon, size, out + row * size);
    });
}

// gate_up (rows, 2 * size) -> out (rows, size)
LMI_API void lmi_silu_mul(const float* gate_up, float* out, int64_t rows, int64_t size) {
    lmi::for_rows(rows, 4 * size, [&](int64_t row) {
        const float* gate = gate_up + row * 2 * size;
        lmi::silu_mul(gate, gate + size, size, out + row * size);
    });
}

// See Kernels.rotate_and_write. The norms may be null.
LMI_API void lmi_rotate_and_write(const lmi::Attention* shape, const float* qkv, const float* rope,
                                  const int64_t* positions, const int64_t* slots,
                                  const float* query_norm, const float* key_norm, float epsilon,
                                  float* query, int64_t rows) {
    const lmi::RotateAndWrite job{*shape,     qkv,      rope,    positions, slots,
                                  query_norm, key_norm, epsilon, query};
    lmi::with_cache_format(shape->format, [&](auto format) {
        const int64_t numbers = (shape->query_heads + 2 * shape->kv_heads) * shape->size;
        lmi::for_rows(rows, numbers, [&](int64_t row) { job.row<decltype(format)>(row); });
    });
}

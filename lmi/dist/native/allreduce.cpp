// Sums over ranks through shared memory, always taken in the order of the ranks and in float32.
//
// One-shot: every rank reads all buffers and sums them itself. Two-shot: every rank sums its slice,
// then all gather the slices; fewer bytes for one more rendezvous. An element's bits are the same
// either way, and on every rank.
#include <algorithm>
#include <cstring>

#include "norm.h"
#include "pool.h"
#include "ranks.h"
#include "simd.h"

namespace lmi {
namespace {

// Messages of at least this size are summed in slices. Measured with two ranks (benchmarks/
// collectives.py); more ranks gain from slices earlier, and at this size still lose little.
constexpr int64_t kSliceBytes = 32 * 1024;
// What one thread of a rank sums at least.
constexpr int64_t kTaskNumbers = 16 * 1024;
// Slices begin at lines of their own.
constexpr int64_t kSliceElements = int64_t(kLine) / 2;

enum Kind : uint64_t { kAllReduce = 1, kAddNorm = 2, kAllGather = 3 };

uint64_t call_of(Kind kind, uint64_t detail, int64_t size) {
    return uint64_t(kind) << 60 | (detail & 0xfffff) << 40 | uint64_t(size & 0xffffffffff);
}

template <class Format>
void store_as(typename Format::Element* to, Floats value) {
    for (int i = 0; i < kLanes; ++i) to[i] = Format::write(value[i]);
}
template <>
void store_as<Float32>(float* to, Floats value) {
    store(to, value);
}

// to[i] = parts[0][i] + parts[1][i] + .. ; `to` may be one of the parts.
template <class Format, int fixed>
void add(const typename Format::Element* const* parts, int count, int64_t size,
         typename Format::Element* to) {
    if (fixed != 0) count = fixed;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        Floats total = Format::load(parts[0] + i);
        for (int part = 1; part < count; ++part) total += Format::load(parts[part] + i);
        store_as<Format>(to + i, total);
    }
    for (; i < size; ++i) {
        float total = Format::read(parts[0][i]);
        for (int part = 1; part < count; ++part) total += Format::read(parts[part][i]);
        to[i] = Format::write(total);
    }
}

// The sum over ranks of [begin, end): ours from `mine`, the others' from their buffers.
template <class Format>
void sum_ranks(Ranks& ranks, const typename Format::Element* mine, int64_t begin, int64_t end,
               typename Format::Element* to) {
    using Element = typename Format::Element;
    const int64_t tasks = (end - begin + kTaskNumbers - 1) / kTaskNumbers;
    if (tasks == 0) return;
    parallel(tasks, [&](int64_t task) {
        const int64_t from = begin + task * kTaskNumbers;
        const int64_t size = std::min(kTaskNumbers, end - from);
        const Element* parts[kMaxRanks];
        for (int rank = 0; rank < ranks.size(); ++rank) {
            parts[rank] = (rank == ranks.rank() ? mine : ranks.buffer<Element>(rank)) + from;
        }
        if (ranks.size() == 2) {
            add<Format, 2>(parts, 2, size, to + from);
        } else {
            add<Format, 0>(parts, ranks.size(), size, to + from);
        }
    });
}

template <class Element>
void copy(const Element* from, int64_t begin, int64_t end, Element* to) {
    std::memcpy(to + begin, from + begin, size_t(end - begin) * sizeof(Element));
}

// Where the slice of a rank begins, in units of `grain`.
int64_t slice(int64_t size, int64_t grain, int rank, int ranks) {
    const int64_t grains = (size + grain - 1) / grain;
    return std::min(size, grains * rank / ranks * grain);
}

template <class Format>
int32_t one_shot(Ranks& ranks, typename Format::Element* data, int64_t size, uint64_t call) {
    using Element = typename Format::Element;
    copy(data, 0, size, ranks.buffer<Element>(ranks.rank()));
    if (const int32_t outcome = ranks.arrive(call, ranks.timeout())) return outcome;
    sum_ranks<Format>(ranks, data, 0, size, data);
    return kDone;
}

template <class Format>
int32_t two_shot(Ranks& ranks, typename Format::Element* data, int64_t size, uint64_t call) {
    using Element = typename Format::Element;
    const auto begin = [&](int rank) { return slice(size, kSliceElements, rank, ranks.size()); };
    const int me = ranks.rank();
    Element* shared = ranks.buffer<Element>(me);
    copy(data, 0, begin(me), shared);
    copy(data, begin(me + 1), size, shared);
    if (const int32_t outcome = ranks.arrive(call, ranks.timeout())) return outcome;
    sum_ranks<Format>(ranks, data, begin(me), begin(me + 1), shared);
    copy(shared, begin(me), begin(me + 1), data);
    if (const int32_t outcome = ranks.reduce()) return outcome;
    for (int step = 1; step < ranks.size(); ++step) {
        const int rank = (me + step) % ranks.size();
        copy(ranks.buffer<Element>(rank), begin(rank), begin(rank + 1), data);
    }
    return kDone;
}

template <class Format>
int32_t all_reduce(Ranks& ranks, typename Format::Element* data, int64_t size, uint64_t call) {
    const int64_t most = int64_t(ranks.buffer_bytes() / sizeof(*data));
    for (int64_t done = 0; done < size; done += most) {
        const int64_t piece = std::min(most, size - done);
        const bool sliced = piece * int64_t(sizeof(*data)) >= kSliceBytes;
        ranks.next();
        const int32_t outcome = sliced ? two_shot<Format>(ranks, data + done, piece, call)
                                       : one_shot<Format>(ranks, data + done, piece, call);
        if (outcome != kDone) return outcome;
    }
    return kDone;
}

// -------------------------------------------------------------- the sum, the residual and the norm

struct Norm {
    float* residual;
    const float* delta;
    const float* weight;
    float* out;
    int64_t rows;
    int64_t width;
    float epsilon;
};

// residual += the sum of the parts, all of one row; out = its norm.
void add_norm(const Norm& norm, int64_t row, const float* const* parts, int count) {
    float* residual = norm.residual + row * norm.width;
    float* out = norm.out + row * norm.width;
    int64_t i = 0;
    for (; i + kLanes <= norm.width; i += kLanes) {
        Floats total = load(parts[0] + i);
        for (int part = 1; part < count; ++part) total += load(parts[part] + i);
        store(residual + i, load(residual + i) + total);
    }
    for (; i < norm.width; ++i) {
        float total = parts[0][i];
        for (int part = 1; part < count; ++part) total += parts[part][i];
        residual[i] += total;
    }
    lmi::norm(residual, norm.weight, norm.epsilon, norm.width, out);
}

// body(row) for all rows, shared among the rank's threads.
template <class Body>
void for_rows(const Norm& norm, Body&& body) {
    const int64_t each = std::max<int64_t>(1, kTaskNumbers / norm.width);
    parallel((norm.rows + each - 1) / each, [&](int64_t task) {
        const int64_t stop = std::min(norm.rows, (task + 1) * each);
        for (int64_t row = task * each; row < stop; ++row) body(row);
    });
}

int32_t norm_one_shot(Ranks& ranks, const Norm& norm, uint64_t call) {
    copy(norm.delta, 0, norm.rows * norm.width, ranks.buffer<float>(ranks.rank()));
    if (const int32_t outcome = ranks.arrive(call, ranks.timeout())) return outcome;
    for_rows(norm, [&](int64_t row) {
        const float* parts[kMaxRanks];
        for (int rank = 0; rank < ranks.size(); ++rank) {
            const float* all = rank == ranks.rank() ? norm.delta : ranks.buffer<float>(rank);
            parts[rank] = all + row * norm.width;
        }
        add_norm(norm, row, parts, ranks.size());
    });
    return kDone;
}

// The slices are whole rows.
int32_t norm_two_shot(Ranks& ranks, const Norm& norm, uint64_t call) {
    const auto begin = [&](int rank) {
        return slice(norm.rows, 1, rank, ranks.size()) * norm.width;
    };
    const int me = ranks.rank();
    float* shared = ranks.buffer<float>(me);
    copy(norm.delta, 0, begin(me), shared);
    copy(norm.delta, begin(me + 1), norm.rows * norm.width, shared);
    if (const int32_t outcome = ranks.arrive(call, ranks.timeout())) return outcome;
    sum_ranks<Float32>(ranks, norm.delta, begin(me), begin(me + 1), shared);
    if (const int32_t outcome = ranks.reduce()) return outcome;
    for_rows(norm, [&](int64_t row) {
        int owner = 0;
        while (begin(owner + 1) <= row * norm.width) ++owner;
        const float* part = ranks.buffer<float>(owner) + row * norm.width;
        add_norm(norm, row, &part, 1);
    });
    return kDone;
}

int32_t add_rms_norm(Ranks& ranks, Norm norm) {
    const int64_t rows = norm.rows;
    const int64_t most = int64_t(ranks.buffer_bytes() / sizeof(float)) / norm.width;
    const uint64_t call = call_of(kAddNorm, uint64_t(norm.width), rows);
    for (int64_t done = 0; done < rows; done += most) {
        norm.rows = std::min(most, rows - done);
        const int64_t bytes = norm.rows * norm.width * int64_t(sizeof(float));
        const bool sliced = bytes >= kSliceBytes && norm.rows >= ranks.size();
        ranks.next();
        const int32_t outcome =
            sliced ? norm_two_shot(ranks, norm, call) : norm_one_shot(ranks, norm, call);
        if (outcome != kDone) return outcome;
        norm.residual += norm.rows * norm.width;
        norm.delta += norm.rows * norm.width;
        norm.out += norm.rows * norm.width;
    }
    return kDone;
}

// ------------------------------------------------------------------------------------- the gather

// Bytes [begin, end) of a rank's (rows, width) part to their places in (rows, ranks * width).
void place(const uint8_t* from, int64_t begin, int64_t end, int64_t width, int rank, int ranks,
           uint8_t* to) {
    for (int64_t at = begin; at < end;) {
        const int64_t row = at / width, column = at % width;
        const int64_t size = std::min(width - column, end - at);
        std::memcpy(to + (row * ranks + rank) * width + column, from + (at - begin), size_t(size));
        at += size;
    }
}

int32_t all_gather(Ranks& ranks, const uint8_t* mine, uint8_t* to, int64_t rows, int64_t width) {
    const int64_t most = int64_t(ranks.buffer_bytes());
    const uint64_t call = call_of(kAllGather, uint64_t(width), rows);
    for (int64_t begin = 0; begin < rows * width; begin += most) {
        const int64_t end = std::min(rows * width, begin + most);
        ranks.next();
        std::memcpy(ranks.buffer<uint8_t>(ranks.rank()), mine + begin, size_t(end - begin));
        if (const int32_t outcome = ranks.arrive(call, ranks.timeout())) return outcome;
        for (int rank = 0; rank < ranks.size(); ++rank) {
            const uint8_t* part =
                rank == ranks.rank() ? mine + begin : ranks.buffer<uint8_t>(rank);
            place(part, begin, end, width, rank, ranks.size(), to);
        }
    }
    return kDone;
}

}  // namespace
}  // namespace lmi

using lmi::Ranks;

// data: `size` numbers of the format, contiguous; becomes their sum over the ranks.
LMI_API int32_t lmi_ranks_all_reduce(Ranks* ranks, void* data, int64_t size, int32_t format) {
    int32_t outcome = lmi::kDone;
    const uint64_t call = lmi::call_of(lmi::kAllReduce, uint64_t(format), size);
    lmi::with_format(format, [&](auto type) {
        using Format = decltype(type);
        outcome = lmi::all_reduce<Format>(
            *ranks, static_cast<typename Format::Element*>(data), size, call);
    });
    return outcome;
}

// A row must fit a buffer. residual, delta, out: (rows, width) float32; weight: (width) float32.
LMI_API int32_t lmi_ranks_add_rms_norm(Ranks* ranks, float* residual, const float* delta,
                                       const float* weight, float* out, int64_t rows,
                                       int64_t width, float epsilon) {
    return lmi::add_rms_norm(*ranks, {residual, delta, weight, out, rows, width, epsilon});
}

// mine: (rows, width) bytes; to: (rows, ranks * width) bytes.
LMI_API int32_t lmi_ranks_all_gather(Ranks* ranks, const void* mine, void* to, int64_t rows,
                                     int64_t width) {
    return lmi::all_gather(*ranks, static_cast<const uint8_t*>(mine), static_cast<uint8_t*>(to),
                           rows, width);
}

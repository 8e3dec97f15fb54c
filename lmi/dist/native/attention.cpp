// Causal attention of packed rows over a paged KV cache: prefill, decode and everything between.
//
// The online softmax of FlashAttention (Dao et al., 2022) over blocks of kKeys keys; every
// kPartition keys it starts anew, and the partitions' results are joined in order, as PagedAttention
// V2 and FlashDecoding do (Kwon et al., 2023; Dao et al., 2023).
//
// Rule that makes a row's result independent of what is computed beside it: blocks and partitions
// are counted from the sequence's first token. A row alone and a row of a long prefill meet the same
// keys in the same blocks and sum them in the same order, whichever threads compute the partitions.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attention.h"
#include "float8.h"
#include "pool.h"
#include "simd.h"

namespace lmi {
namespace {

constexpr int64_t kKeys = 32;
constexpr int64_t kPartition = 512;
// (row, head) pairs that share the keys of one KV head in one task: their state stays in L1.
constexpr int64_t kPairs = 48;
// Partitions of one tile are tasks of their own only where there are fewer tiles than this per
// thread: else the joining costs more than it balances.
constexpr int64_t kTilesPerThread = 4;

// Up to so many pairs read float32 keys where they are; more copy them, because keys that stand
// whole tokens apart fall into few places of L1.
constexpr int64_t kDirectPairs = 4;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t padded(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// Rows of one sequence that share one KV head's keys.
struct Tile {
    int64_t first_row;   // in the batch
    int64_t rows;
    int64_t position;    // of the first row in its sequence
    const int32_t* table;
};

// What a pair of row and head knows of the keys that it has met: maximum, sum of weights, and the
// weighted sum of values, `width` numbers. `seen` is 0 or 1.
struct State {
    float* numbers;
    float& most() { return numbers[0]; }
    float& total() { return numbers[1]; }
    float& seen() { return numbers[2]; }
    float* values() { return numbers + kLanes; }

    static int64_t floats(int64_t width) { return width + kLanes; }

    void clear(int64_t width) {
        most() = -kInfinity;
        total() = 0;
        seen() = 0;
        std::fill_n(values(), width, 0.0f);
    }
};

void scale(float* numbers, float factor, int64_t width) {
    for (int64_t i = 0; i < width; i += kLanes) store(numbers + i, load(numbers + i) * factor);
}

// 0, 1, 2, ..
Ints places() {
    Ints lanes;
    for (int i = 0; i < kLanes; ++i) lanes[i] = i;
    return lanes;
}

Floats load_some(const float* from, int count) {
    float lanes[kLanes] = {};
    std::copy_n(from, count, lanes);
    return load(lanes);
}

float exponential_of(float x) { return exponential(fill(x))[0]; }

// The keys and values of one block, as pointers to `width` float32 numbers each.
struct KeyBlock {
    const float* keys[kKeys];
    const float* values[kKeys];
};

// One row and head, and the places of a block that it sees.
struct Meeting {
    const float* query;
    State state;
    int64_t from, to;
};
constexpr int kMeetings = 4;

class Batch {
public:
    Batch(const Attention& shape, const float* query, float* out, const int32_t* spans,
          int64_t sequences, const int32_t* tables, int64_t table_width)
        : shape_(shape), query_(query), out_(out), spans_(spans), sequences_(sequences),
          tables_(tables), table_width_(table_width), width_(padded(shape.size)), group_(shape.query_heads / shape.kv_heads),
          tile_rows_(std::max<int64_t>(1, kPairs / group_)) {}

    void run() {
        int64_t tiles = 0, longest = 0;
        for (int64_t s = 0; s < sequences_; ++s) {
            tiles += tiles_of(s);
            longest = std::max<int64_t>(longest, spans_[3 * s + 2]);
        }
        if (tiles == 0) return;
        const int64_t jobs = tiles * shape_.kv_heads;
        const int64_t partitions = (longest + kPartition - 1) / kPartition;
        if (partitions == 1 || jobs >= kTilesPerThread * thread_count()) {
            parallel(jobs, [&](int64_t job) { whole(tile_at(job / shape_.kv_heads), head(job)); });
        } else {
            split(jobs, partitions);
        }
    }

private:
    int64_t head(int64_t job) const { return job % shape_.kv_heads; }

    int64_t tiles_of(int64_t sequence) const {
        return (spans_[3 * sequence + 1] + tile_rows_ - 1) / tile_rows_;
    }

    Tile tile_at(int64_t index) const {
        int64_t s = 0;
        for (; index >= tiles_of(s); ++s) index -= tiles_of(s);
        const int64_t first = spans_[3 * s], rows = spans_[3 * s + 1], total = spans_[3 * s + 2];
        const int64_t start = index * tile_rows_;
        return {first + start, std::min(tile_rows_, rows - start), total - rows + start,
                tables_ + s * table_width_};
    }

    int64_t pairs(const Tile& tile) const { return tile.rows * group_; }

    // The first key that a row at this position sees.
    int64_t first_key(int64_t position) const {
        return shape_.window == 0 ? 0 : std::max<int64_t>(0, position + 1 - shape_.window);
    }

    // All partitions of a tile, one after the other.
    void whole(const Tile& tile, int64_t head) const {
        const int64_t each = State::floats(width_);
        float* memory = scratch(kStateScratch, size_t(2 * pairs(tile) * each));
        float* part = memory + pairs(tile) * each;
        const int64_t start = first_key(tile.position) / kPartition;
        const int64_t stop = (tile.position + tile.rows - 1) / kPartition;
        for (int64_t partition = start; partition <= stop; ++partition) {
            const bool first = partition == start;
            attend(tile, head, partition, first ? memory : part);
            for (int64_t pair = 0; !first && pair < pairs(tile); ++pair) {
                join({memory + pair * each}, {part + pair * each});
            }
        }
        for (int64_t pair = 0; pair < pairs(tile); ++pair) {
            finish(tile, head, pair, {memory + pair * each});
        }
    }

    // Every partition of every tile by itself, then the joining.
    void split(int64_t jobs, int64_t partitions) const {
        const int64_t each = State::floats(width_);
        const int64_t most = std::min(tile_rows_, longest_span()) * group_;
        float* memory = scratch(kJoinScratch, size_t(jobs * partitions * most * each));
        const auto states = [&](int64_t job, int64_t partition) {
            return memory + (job * partitions + partition) * most * each;
        };
        parallel(jobs * partitions, [&](int64_t index) {
            const int64_t job = index / partitions, partition = index % partitions;
            const Tile tile = tile_at(job / shape_.kv_heads);
            if (partition < first_key(tile.position) / kPartition) return;
            if (partition > (tile.position + tile.rows - 1) / kPartition) return;
            attend(tile, head(job), partition, states(job, partition));
        });
        parallel(jobs, [&](int64_t job) {
            const Tile tile = tile_at(job / shape_.kv_heads);
            const int64_t start = first_key(tile.position) / kPartition;
            const int64_t stop = (tile.position + tile.rows - 1) / kPartition;
            for (int64_t pair = 0; pair < pairs(tile); ++pair) {
                const State whole{states(job, start) + pair * each};
                for (int64_t partition = start + 1; partition <= stop; ++partition) {
                    join(whole, {states(job, partition) + pair * each});
                }
                finish(tile, head(job), pair, whole);
            }
        });
    }

    int64_t longest_span() const {
        int64_t rows = 0;
        for (int64_t s = 0; s < sequences_; ++s) rows = std::max<int64_t>(rows, spans_[3 * s + 1]);
        return rows;
    }

    void join(State whole, State part) const {
        if (part.seen() == 0) return;
        const int64_t numbers = State::floats(width_);
        if (whole.seen() == 0) {
            std::copy_n(part.numbers, numbers, whole.numbers);
            return;
        }
        const float most = part.most() > whole.most() ? part.most() : whole.most();
        const float ours = exponential_of(whole.most() - most);
        const float theirs = exponential_of(part.most() - most);
        whole.most() = most;
        whole.total() = whole.total() * ours + part.total() * theirs;
        for (int64_t i = 0; i < width_; i += kLanes) {
            const Floats mine = load(whole.values() + i) * ours;
            store(whole.values() + i, mine + load(part.values() + i) * theirs);
        }
    }

    void finish(const Tile& tile, int64_t head, int64_t pair, State state) const {
        const int64_t row = tile.first_row + pair / group_;
        const int64_t query_head = head * group_ + pair % group_;
        float* to = out_ + (row * shape_.query_heads + query_head) * shape_.size;
        const float share = shape_.value_scale / state.total();
        for (int64_t i = 0; i < shape_.size; ++i) to[i] = state.values()[i] * share;
    }

    // The states of a tile's pairs over one partition of the keys.
    void attend(const Tile& tile, int64_t head, int64_t partition, float* states) const {
        with_cache_format(shape_.format, [&](auto format) {
            attend_in<decltype(format)>(tile, head, partition, states);
        });
    }

    template <class Format>
    void attend_in(const Tile& tile, int64_t head, int64_t partition, float* states) const {
        const int64_t each = State::floats(width_);
        for (int64_t pair = 0; pair < pairs(tile); ++pair) {
            State{states + pair * each}.clear(width_);
        }
        const int64_t last = tile.position + tile.rows - 1;
        const int64_t stop = std::min(last + 1, (partition + 1) * kPartition);
        int64_t key = std::max(first_key(tile.position), partition * kPartition) / kKeys * kKeys;
        for (; key < stop; key += kKeys) {
            KeyBlock block;
            fetch<Format>(tile, head, key, stop, block);
            Meeting meetings[kMeetings];
            int count = 0;
            for (int64_t pair = 0; pair < pairs(tile); ++pair) {
                const int64_t row = pair / group_, position = tile.position + row;
                const int64_t from = std::max<int64_t>(first_key(position) - key, 0);
                const int64_t to = std::min(kKeys, position + 1 - key);
                if (from >= to) continue;
                const int64_t query_head = head * group_ + pair % group_;
                const int64_t at = (tile.first_row + row) * shape_.query_heads + query_head;
                meetings[count++] = {query_ + at * shape_.size, {states + pair * each}, from, to};
                if (count == kMeetings) {
                    meet(meetings, count, block);
                    count = 0;
                }
            }
            meet(meetings, count, block);
        }
    }

    // Pointers to the keys and values of [key, key + kKeys), of which those from `stop` on are not
    // there: these places point at the last one. What is not float32, does not fill whole vectors
    // or is read by many pairs is copied.
    template <class Format>
    void fetch(const Tile& tile, int64_t head, int64_t key, int64_t stop, KeyBlock& block) const {
        using Element = typename Format::Element;
        const bool direct = sizeof(Element) == sizeof(float) && width_ == shape_.size &&
                            pairs(tile) <= kDirectPairs;
        float* keys = direct ? nullptr : scratch(kKeyScratch, size_t(kKeys * width_));
        float* values = direct ? nullptr : scratch(kValueScratch, size_t(kKeys * width_));
        const int64_t count = std::min(kKeys, stop - key);
        Cursor here(*this, tile, key), ahead(*this, tile, key + kKeys);
        for (int64_t j = 0; j < count; ++j) {
            if (key + kKeys + j < stop) prefetch<Element>((ahead.next() + head) * shape_.size);
            const int64_t at = (here.next() + head) * shape_.size;
            const Element* from_key = static_cast<const Element*>(shape_.keys) + at;
            const Element* from_value = static_cast<const Element*>(shape_.values) + at;
            if constexpr (sizeof(Element) == sizeof(float)) {
                if (direct) {
                    block.keys[j] = from_key;
                    block.values[j] = from_value;
                    continue;
                }
            }
            widen<Format>(from_key, keys + j * width_);
            widen<Format>(from_value, values + j * width_);
            block.keys[j] = keys + j * width_;
            block.values[j] = values + j * width_;
        }
        for (int64_t j = count; j < kKeys; ++j) {
            block.keys[j] = block.keys[count - 1];
            block.values[j] = block.values[count - 1];
        }
    }

    // Walks over a sequence's tokens: where each one's heads begin, counted in heads. Without a
    // division per token, which would cost more than a product of vectors.
    class Cursor {
    public:
        Cursor(const Batch& batch, const Tile& tile, int64_t token)
            : block_size_(batch.shape_.block_size), heads_(batch.shape_.kv_heads),
              block_(tile.table + token / block_size_), offset_(token % block_size_) {}

        int64_t next() {
            const int64_t slot = *block_ * block_size_ + offset_;
            if (++offset_ == block_size_) {
                offset_ = 0;
                ++block_;
            }
            return slot * heads_;
        }

    private:
        const int64_t block_size_, heads_;
        const int32_t* block_;
        int64_t offset_;
    };

    // A head's numbers are too short a run for the processor to see the next one coming.
    template <class Element>
    void prefetch(int64_t at) const {
        const char* key = reinterpret_cast<const char*>(static_cast<const Element*>(shape_.keys) + at);
        const char* value =
            reinterpret_cast<const char*>(static_cast<const Element*>(shape_.values) + at);
        for (int64_t byte = 0; byte < shape_.size * int64_t(sizeof(Element)); byte += 64) {
            __builtin_prefetch(key + byte);
            __builtin_prefetch(value + byte);
        }
    }

    template <class Format>
    void widen(const typename Format::Element* from, float* to) const {
        int64_t i = 0;
        for (; i + kLanes <= shape_.size; i += kLanes) store(to + i, Format::load(from + i));
        for (; i < shape_.size; ++i) to[i] = Format::read(from[i]);
        for (; i < width_; ++i) to[i] = 0;
    }

    // Some rows and heads meet a block. Step by step for all of them: what one waits for, the
    // others fill.
    void meet(const Meeting* meetings, int count, const KeyBlock& block) const {
        alignas(64) float scores[kMeetings][kKeys];
        for (int64_t j = 0; j < kKeys; j += kLanes) {
            for (int i = 0; i < count; ++i) {
                store(scores[i] + j, dots(meetings[i].query, block.keys + j) * shape_.scaling);
            }
        }
        for (int i = 0; i < count; ++i) weigh(meetings[i], scores[i]);
        for (int i = 0; i < count; ++i) {
            Meeting meeting = meetings[i];
            add_values(scores[i], block, meeting.from, meeting.to, meeting.state.values());
        }
    }

    // Turns scores into weights, and the state to the new maximum.
    void weigh(const Meeting& meeting, float* scores) const {
        constexpr int kVectors = int(kKeys / kLanes);
        const bool whole = meeting.from == 0 && meeting.to == kKeys;
        State state = meeting.state;
        Floats weights[kVectors];
        Floats most = fill(-kInfinity);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
            weights[v] = load(scores + v * kLanes);
            if (!whole) weights[v] = choose(seen(meeting, v), weights[v], fill(-kInfinity));
            most = maximum(weights[v], most);
        }
        const float before = state.most();
        const float now = std::max(largest(most), before);
        Floats sums{};
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
            weights[v] = exponential(weights[v] - now);
            if (!whole) weights[v] = choose(seen(meeting, v), weights[v], Floats{});
            sums += weights[v];
            store(scores + v * kLanes, weights[v]);
        }
        if (state.seen() != 0 && now != before) {
            const float factor = exponential_of(before - now);
            state.total() *= factor;
            scale(state.values(), factor, width_);
        }
        state.most() = now;
        state.seen() = 1;
        state.total() += sum(sums);
    }

    static Ints seen(const Meeting& meeting, int vector) {
        const Ints place = places() + int32_t(vector * kLanes);
        return (place >= int32_t(meeting.from)) & (place < int32_t(meeting.to));
    }

    // The products of a query with kLanes keys.
    Floats dots(const float* query, const float* const* keys) const {
        const float* key[kLanes];
        Floats sums[kLanes];
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j) {
            key[j] = keys[j];
            sums[j] = Floats{};
        }
        int64_t i = 0;
        for (; i + kLanes <= shape_.size; i += kLanes) {
            const Floats part = load(query + i);
#pragma GCC unroll 16
            for (int j = 0; j < kLanes; ++j) sums[j] += part * load(key[j] + i);
        }
        if (i < shape_.size) {  // the keys are padded with zeros, the query is not
            const Floats part = load_some(query + i, int(shape_.size - i));
#pragma GCC unroll 16
            for (int j = 0; j < kLanes; ++j) sums[j] += part * load(key[j] + i);
        }
        return sum_each(sums);
    }

    // values += weights times the block's values, key by key.
    void add_values(const float* weights, const KeyBlock& block, int64_t from, int64_t to,
                    float* values) const {
        int64_t at = 0;
        at = add_spans<8>(weights, block, from, to, at, values);
        at = add_spans<4>(weights, block, from, to, at, values);
        at = add_spans<2>(weights, block, from, to, at, values);
        add_spans<1>(weights, block, from, to, at, values);
    }

    // As many runs of `vectors` vectors as there are from `at` on; returns where the next begins.
    template <int vectors>
    int64_t add_spans(const float* weights, const KeyBlock& block, int64_t from, int64_t to,
                      int64_t at, float* values) const {
        for (; at + vectors * kLanes <= width_; at += vectors * kLanes) {
            Floats sums[vectors];
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) sums[v] = load(values + at + v * kLanes);
            for (int64_t j = from; j < to; ++j) {
                const Floats weight = fill(weights[j]);
                const float* value = block.values[j] + at;
#pragma GCC unroll 8
                for (int v = 0; v < vectors; ++v) sums[v] += weight * load(value + v * kLanes);
            }
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) store(values + at + v * kLanes, sums[v]);
        }
        return at;
    }

    const Attention& shape_;
    const float* query_;
    float* out_;
    const int32_t* spans_;
    const int64_t sequences_;
    const int32_t* tables_;
    const int64_t table_width_, width_, group_, tile_rows_;
};

}  // namespace
}  // namespace lmi

// See Kernels.attention. spans (sequences, 3), tables (sequences, table_width).
LMI_API void lmi_attention(const lmi::Attention* shape, const float* query, float* out,
                           const int32_t* spans, int64_t sequences, const int32_t* tables,
                           int64_t table_width) {
    lmi::Batch(*shape, query, out, spans, sequences, tables, table_width).run();
}

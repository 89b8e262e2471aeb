// Gather rows and sum them by segment, and sort entries into segments by a counting sort.
#include <algorithm>

#include "cells.h"
#include "parallel.h"
#include "simd.h"

namespace tcformer {
namespace {

// Entries times channels per task.
constexpr int64_t kTaskFloats = 1 << 16;
// Rows are prefetched this many entries ahead, because they are scattered in memory.
constexpr int64_t kAhead = 8;

struct Segments {
  const float* rows;
  int64_t channels;
  const int64_t* index;
  const int64_t* offsets;
  const float* weight;
  int64_t count;
};

// The sum of segment `s`, for VECTORS * kLanes channels from channel `c` on.
template <bool WEIGHTED, int VECTORS>
void sum_vectors(const Segments& all, int64_t s, int64_t c, float* out) {
  const int64_t last = all.offsets[all.count] - 1;
  Vec sum[VECTORS] = {};
  for (int64_t e = all.offsets[s]; e < all.offsets[s + 1]; ++e) {
    const float* const row = all.rows + all.index[e] * all.channels + c;
    const float* const later = all.rows + all.index[std::min(e + kAhead, last)] * all.channels + c;
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
      __builtin_prefetch(later + v * kLanes);
      const Vec value = load(row + v * kLanes);
      sum[v] += WEIGHTED ? value * all.weight[e] : value;
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v) store(out + v * kLanes, sum[v]);
}

template <bool WEIGHTED>
void sum_channel(const Segments& all, int64_t s, int64_t c, float* out) {
  float sum = 0;
  for (int64_t e = all.offsets[s]; e < all.offsets[s + 1]; ++e) {
    const float value = all.rows[all.index[e] * all.channels + c];
    sum += WEIGHTED ? value * all.weight[e] : value;
  }
  *out = sum;
}

template <bool WEIGHTED>
void sum_segments(const Segments& all, float* out) {
  const int64_t entries = all.offsets[all.count] - all.offsets[0];
  const int64_t tasks = std::clamp<int64_t>((entries + all.count) * all.channels / kTaskFloats, 1, all.count);
  run_tasks(tasks, num_threads(), [&](int64_t task) {
    for (int64_t s = all.count * task / tasks; s < all.count * (task + 1) / tasks; ++s) {
      float* const row = out + s * all.channels;
      int64_t c = 0;
      for (; c + 8 * kLanes <= all.channels; c += 8 * kLanes) sum_vectors<WEIGHTED, 8>(all, s, c, row + c);
      for (; c + 2 * kLanes <= all.channels; c += 2 * kLanes) sum_vectors<WEIGHTED, 2>(all, s, c, row + c);
      for (; c < all.channels; ++c) sum_channel<WEIGHTED>(all, s, c, row + c);
    }
  });
}

}  // namespace
}  // namespace tcformer

// rows (any, channels), index (entries,), offsets (segments + 1,), weight (entries,) or null -> (segments, channels)
TCFORMER_EXPORT int tcformer_segment_sum(const float* rows, const int64_t* index, const int64_t* offsets,
                                         const float* weight, int64_t segments, int64_t channels, float* out) {
  using namespace tcformer;
  return guarded([&] {
    if (segments == 0) return;
    const Segments all{rows, channels, index, offsets, weight, segments};
    if (weight) sum_segments<true>(all, out);
    else sum_segments<false>(all, out);
  });
}

// weight (entries,), offsets (segments + 1,) -> (segments,)
TCFORMER_EXPORT int tcformer_segment_total(const float* weight, const int64_t* offsets, int64_t segments, float* out) {
  for (int64_t s = 0; s < segments; ++s) {
    float sum = 0;
    for (int64_t e = offsets[s]; e < offsets[s + 1]; ++e) sum += weight[e];
    out[s] = sum;
  }
  return 0;
}

// row (batch, entries) in [0, rows) -> order (batch * entries,), offsets (batch * rows + 1,)
TCFORMER_EXPORT int tcformer_sort_by_row(const int64_t* row, int64_t batch, int64_t entries, int64_t rows,
                                         int64_t* order, int64_t* offsets) {
  using namespace tcformer;
  return guarded([&] {
    run_tasks(batch, entries < 1024 ? 1 : num_threads(), [&](int64_t b) {
      Buffer<int64_t> buffer;
      const int64_t first = b * entries;
      int64_t* const start = starts_of(row + first, entries, rows, buffer);
      for (int64_t r = 0; r < rows; ++r) offsets[b * rows + r] = first + start[r];
      for (int64_t e = 0; e < entries; ++e) order[first + start[row[first + e]]++] = first + e;
    });
    offsets[batch * rows] = batch * entries;
  });
}

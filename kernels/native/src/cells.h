// Cells of the token grid, sorted by the token or the pixel that they belong to.
#pragma once

#include <algorithm>

#include "parallel.h"

namespace tcformer {

constexpr double kEpsilon = 1e-6;  // kernels/constants.py

// A counting sort: the places at which the entries of each value in [0, values) begin once they are sorted, and the
// end. Who places an entry moves the start of its value on, so after all of them start[v - 1] is where v began; also
// for v = 0.
inline int64_t* starts_of(const int64_t* value, int64_t entries, int64_t values, Buffer<int64_t>& buffer) {
  int64_t* const start = buffer.get(values + 2) + 1;
  std::fill_n(start - 1, values + 2, int64_t{0});
  for (int64_t e = 0; e < entries; ++e) ++start[value[e] + 1];
  for (int64_t v = 0; v < values; ++v) start[v + 1] += start[v];
  return start;
}

}  // namespace tcformer

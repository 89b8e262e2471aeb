// Which tokens and pixels share cells: the `Links` of kernels/token_map/plan.py, sorted, with weights in float64.
// token_conv.cpp makes its own, in the order in which its sums have always been added.
#include <algorithm>

#include "cells.h"
#include "parallel.h"

namespace tcformer {
namespace {

// Less is not worth a second thread.
constexpr int64_t kFewCells = 1024;

struct Arrays {
  int64_t* index;
  int64_t* offsets;
  double* mean_weight;
  double* backward_weight;
};

// The links of one image, written to the beginning of `links`; its offsets begin at 0. Returns the number of entries.
int64_t link_image(const int64_t* row, const int64_t* other, int64_t cells, int64_t rows, int64_t others,
                   int64_t first_other, const Arrays& links) {
  Buffer<int64_t> row_starts, other_starts, cell_buffer, other_buffer;
  int64_t* const row_start = starts_of(row, cells, rows, row_starts);
  int64_t* const other_start = starts_of(other, cells, others, other_starts);
  // Sorted by the other row and then, stably, by the row.
  int64_t* const sorted = cell_buffer.get(cells);
  int64_t* const other_of = other_buffer.get(cells);
  for (int64_t c = 0; c < cells; ++c) sorted[other_start[other[c]]++] = c;
  for (int64_t i = 0; i < cells; ++i) other_of[row_start[row[sorted[i]]]++] = other[sorted[i]];

  int64_t entry = 0;
  for (int64_t r = 0; r < rows; ++r) {
    links.offsets[r] = entry;
    const int64_t begin = row_start[r - 1], end = row_start[r];
    const double cells_of_row = static_cast<double>(end - begin) + kEpsilon;
    for (int64_t i = begin; i < end; ++entry) {
      const int64_t o = other_of[i], first = i;
      while (i < end && other_of[i] == o) ++i;
      const double shared = static_cast<double>(i - first);
      links.index[entry] = first_other + o;
      links.mean_weight[entry] = shared / cells_of_row;
      links.backward_weight[entry] = shared / (static_cast<double>(other_start[o] - other_start[o - 1]) + kEpsilon);
    }
  }
  return entry;
}

}  // namespace
}  // namespace tcformer

// row (batch, cells) in [0, rows), other (batch, cells) in [0, others) -> index (batch * cells,),
// offsets (batch * rows + 1,), mean_weight (batch * cells,), backward_weight (batch * cells,)
TCFORMER_EXPORT int tcformer_link_rows(const int64_t* row, const int64_t* other, int64_t batch, int64_t cells,
                                       int64_t rows, int64_t others, int64_t* index, int64_t* offsets,
                                       double* mean_weight, double* backward_weight) {
  using namespace tcformer;
  return guarded([&] {
    Buffer<int64_t> buffer;
    int64_t* const entries = buffer.get(batch);
    run_tasks(batch, cells < kFewCells ? 1 : num_threads(), [&](int64_t b) {
      const int64_t at = b * cells;
      const Arrays links{index + at, offsets + b * rows, mean_weight + at, backward_weight + at};
      entries[b] = link_image(row + at, other + at, cells, rows, others, b * others, links);
    });
    int64_t total = 0;
    for (int64_t b = 0; b < batch; ++b) {  // the entries of all images without gaps
      const int64_t at = b * cells;
      for (int64_t r = 0; r < rows; ++r) offsets[b * rows + r] += total;
      std::copy_n(index + at, entries[b], index + total);
      std::copy_n(mean_weight + at, entries[b], mean_weight + total);
      std::copy_n(backward_weight + at, entries[b], backward_weight + total);
      total += entries[b];
    }
    offsets[batch * rows] = total;
    std::fill(index + total, index + batch * cells, int64_t{0});
    std::fill(mean_weight + total, mean_weight + batch * cells, 0.0);
    std::fill(backward_weight + total, backward_weight + batch * cells, 0.0);
  });
}

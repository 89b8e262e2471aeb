// Token convolution: y = skip * x + map2token(conv(token2map(x)) + bias), followed by GELU if requested, and its
// gradients.
//
// All steps are computed for a few channels of one image at a time, so that their maps stay in a core's second-level
// cache. The backward pass computes the map before the convolution, and the input of GELU, again, which is faster than
// writing and reading them.
#include "cells.h"
#include "depthwise.h"

namespace tcformer {
namespace {

// Maximum size of a thread's data of an image. A little more than the second-level cache is still faster than narrower
// blocks of channels (AMD EPYC, cache of 1 MB).
constexpr int64_t kCachedBytes = 1200 * 1024;

// A sparse matrix for each image, in compressed sparse row format.
struct SparseMatrices {
  int64_t images, rows;
  Buffer<int64_t> begins;
  Buffer<int32_t> columns;
  Buffer<float> mean_weights, backward_weights;
  int64_t* begin;  // (images, rows + 1), the position in the arrays below where each row begins
  int32_t* column;
  float* mean_weight;      // cells that row and column share / cells of the row
  float* backward_weight;  // cells that row and column share / cells of the column

  SparseMatrices(int64_t num_images, int64_t num_rows, int64_t cells)
      : images(num_images), rows(num_rows), begin(begins.get(images * (rows + 1))),
        column(columns.get(images * cells)), mean_weight(mean_weights.get(images * cells)),
        backward_weight(backward_weights.get(images * cells)) {}

  const int64_t* begin_of(int64_t image) const { return begin + image * (rows + 1); }
};

// The number of cells that each pixel and each token share. There are far fewer pairs than cells.
struct Links {
  int64_t images, tokens, height, width;
  SparseMatrices by_pixel, by_token;

  // plan: token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets
  Links(const int64_t* const (&plan)[6], int64_t num_images, int64_t num_tokens, int64_t map_height,
        int64_t map_width, int64_t cells)
      : images(num_images), tokens(num_tokens), height(map_height), width(map_width),
        by_pixel(images, pixels(), cells), by_token(images, tokens, cells) {
    run_tasks(images, num_threads(), [&](int64_t b) {
      const int64_t* const token_of_cell = plan[0] + b * cells;
      const int64_t* const token_offsets = plan[2] + b * tokens;
      Buffer<int64_t> last;
      int64_t* const seen = last.get(std::max(tokens, pixels()));
      fill(by_pixel, b, cells, plan[4], plan[5], token_of_cell, token_offsets, tokens, seen);
      fill(by_token, b, cells, plan[1] + token_offsets[0], token_offsets, plan[3], plan[5], pixels(), seen);
    });
  }
  int64_t pixels() const { return height * width; }

 private:
  // Fill the matrix of image `b`. Row r has the cells from position offsets[r] - offsets[0] of `cells` on, and a cell
  // is in column column_of_cell[cell].
  static void fill(SparseMatrices& out, int64_t b, int64_t num_cells, const int64_t* cells, const int64_t* offsets,
                   const int64_t* column_of_cell, const int64_t* column_offsets, int64_t columns, int64_t* seen) {
    std::fill_n(seen, columns, int64_t{-1});
    int64_t next = b * num_cells;
    int64_t* const begin = out.begin + b * (out.rows + 1);
    for (int64_t r = 0; r < out.rows; ++r) {
      begin[r] = next;
      for (int64_t e = offsets[r] - offsets[0]; e < offsets[r + 1] - offsets[0]; ++e) {
        const int64_t column = column_of_cell[cells[e]];
        if (seen[column] < begin[r]) {  // not in this row yet
          seen[column] = next;
          out.column[next] = static_cast<int32_t>(column);
          out.mean_weight[next++] = 0;
        }
        out.mean_weight[seen[column]] += 1;
      }
      const float own = factor(offsets, r);
      for (int64_t e = begin[r]; e < next; ++e) {
        out.backward_weight[e] = out.mean_weight[e] * factor(column_offsets, out.column[e]);
        out.mean_weight[e] *= own;
      }
    }
    begin[out.rows] = next;
  }
  static float factor(const int64_t* offsets, int64_t i) {
    return static_cast<float>(1 / (static_cast<double>(offsets[i + 1] - offsets[i]) + kEpsilon));
  }
};

// Arrays of a thread for one block of channels. The maps have a border of zeros.
struct Memory {
  Buffer<float> buffers[5];
  int64_t sizes[5] = {};

  // Filled with zeros when allocated.
  float* get(int which, int64_t floats) {
    float* const data = buffers[which].get(floats);
    if (sizes[which] < floats) std::fill_n(data, floats, 0.0f);
    sizes[which] = std::max(sizes[which], floats);
    return data;
  }
};
enum { kX, kMap, kConvolved, kGradToken, kGradMap };

template <int VECTORS>
class TokenConv {
 public:
  static constexpr int64_t kStride = VECTORS * kLanes;

  TokenConv(const Links& links, const Parameters& parameters, const float* x, int64_t channels, bool gelu)
      : links_(links), parameters_(parameters), x_(x), channels_(channels), gelu_(gelu) {}

  void forward(float* y) const {
    for_each_block<VECTORS, Memory>(links_.images, channels_, [&](const Block& block, Memory& memory) {
      const float* const x = load_x(block, memory);
      const float* const convolved = convolve(block, draw_map(block, x, memory), memory);
      for (int64_t n = 0; n < links_.tokens; ++n) {
        Vec value[VECTORS];
        read_token(block, n, x, convolved, value);
        float* const out = y + place(block, n);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) copy_out(gelu_ ? gelu(value[v]) : value[v], v, block.width, out);
      }
    });
  }

  void backward(const float* grad_y, float* grad_x, ParameterGradients& gradients) const {
    for_each_block<VECTORS, Memory>(links_.images, channels_, [&](const Block& block, Memory& memory) {
      const float* const x = load_x(block, memory);
      const float* const map = draw_map(block, x, memory);
      const float* const grad_token = through_activation(block, grad_y, x, map, memory, gradients);
      const float* const grad_map = grad_of_map(block, grad_token, memory, gradients);
      correlate(block, map, grad_map, gradients);
      const float* const grad_before = convolve_back(block, grad_map, memory);
      for (int64_t n = 0; n < links_.tokens; ++n) {
        Vec sum[VECTORS];
        multiply(links_.by_token, links_.by_token.backward_weight, links_.by_token.begin_of(block.image), n,
                 grad_before, sum);
        float* const out = grad_x + place(block, n);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
          const Vec direct = parameters_.skip(block.channel + v * kLanes) * load(grad_token + n * kStride + v * kLanes);
          copy_out(sum[v] + direct, v, block.width, out);
        }
      }
    });
  }

 private:
  int64_t place(const Block& block, int64_t token) const {
    return (block.image * links_.tokens + token) * channels_ + block.channel;
  }
  int64_t row_floats() const { return (links_.width + 2) * kStride; }
  int64_t map_floats() const { return (links_.height + 2) * row_floats(); }
  // The pixel to the left of the first of row i, where i is from -1 to the height.
  template <class Float>
  Float* map_row(Float* map, int64_t i) const {
    return map + (i + 1) * row_floats();
  }

  const float* load_x(const Block& block, Memory& memory) const {
    float* const out = memory.get(kX, links_.tokens * kStride);
    for (int64_t n = 0; n < links_.tokens; ++n)
      copy_in<VECTORS>(x_ + place(block, n), block.width, out + n * kStride);
    return out;
  }

  // sum = row `r` of a matrix with the entries `weights`, times the rows (columns, kStride) of `source`
  static void multiply(const SparseMatrices& matrix, const float* weights, const int64_t* begin, int64_t r,
                       const float* source, Vec (&sum)[VECTORS]) {
    for (int v = 0; v < VECTORS; ++v) sum[v] = Vec{};
    for (int64_t e = begin[r]; e < begin[r + 1]; ++e) {
      const float* const row = source + matrix.column[e] * kStride;
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[v] += load(row + v * kLanes) * weights[e];
    }
  }

  // The map: every pixel is the mean of its cells' tokens.
  const float* draw_map(const Block& block, const float* x, Memory& memory) const {
    float* const map = memory.get(kMap, map_floats());
    const int64_t* const begin = links_.by_pixel.begin_of(block.image);
    for (int64_t i = 0, p = 0; i < links_.height; ++i)
      for (int64_t j = 0; j < links_.width; ++j, ++p) {
        Vec sum[VECTORS];
        multiply(links_.by_pixel, links_.by_pixel.mean_weight, begin, p, x, sum);
        float* const out = map_row(map, i) + (j + 1) * kStride;
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) store(out + v * kLanes, sum[v]);
      }
    return map;
  }

  const float* convolve(const Block& block, const float* map, Memory& memory) const {
    float* const out = memory.get(kConvolved, links_.pixels() * kStride);
    for (int v = 0; v < VECTORS; ++v) {
      Vec taps[kTaps];
      parameters_.taps(block.channel + v * kLanes, false, taps);
      const Vec bias = parameters_.bias(block.channel + v * kLanes);
      for (int64_t i = 0; i < links_.height; ++i) {
        float* const row = out + i * links_.width * kStride + v * kLanes;
        convolve_row(rows_around(map, i, v), links_.width, kStride, taps, bias, row);
      }
    }
    return out;
  }

  struct Rows {
    const float* rows[3];
    using Three = const float* const[3];
    operator const Three&() const { return rows; }
  };
  Rows rows_around(const float* map, int64_t i, int v) const {
    return {{map_row(map, i - 1) + v * kLanes, map_row(map, i) + v * kLanes, map_row(map, i + 1) + v * kLanes}};
  }

  // The input of the activation.
  void read_token(const Block& block, int64_t n, const float* x, const float* convolved, Vec (&value)[VECTORS]) const {
    const SparseMatrices& matrix = links_.by_token;
    multiply(matrix, matrix.mean_weight, matrix.begin_of(block.image), n, convolved, value);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v)
      value[v] += parameters_.skip(block.channel + v * kLanes) * load(x + n * kStride + v * kLanes);
  }

  // The gradient of the input of the activation; also computes that of `skip`.
  const float* through_activation(const Block& block, const float* grad_y, const float* x, const float* map,
                                  Memory& memory, ParameterGradients& gradients) const {
    const float* const convolved = gelu_ ? convolve(block, map, memory) : nullptr;
    float* const grad_token = memory.get(kGradToken, links_.tokens * kStride);
    Vec grad_skip[VECTORS] = {};
    for (int64_t n = 0; n < links_.tokens; ++n) {
      float* const grad = grad_token + n * kStride;
      copy_in<VECTORS>(grad_y + place(block, n), block.width, grad);
      if (gelu_) {
        Vec value[VECTORS];
        read_token(block, n, x, convolved, value);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v)
          store(grad + v * kLanes, load(grad + v * kLanes) * gelu_derivative(value[v]));
      }
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v)
        grad_skip[v] += load(grad + v * kLanes) * load(x + n * kStride + v * kLanes);
    }
    for (int v = 0; v < VECTORS; ++v)
      store(gradients.of(block.image, kSkipSum, block.channel + v * kLanes), grad_skip[v]);
    return grad_token;
  }

  // The gradient of the convolution's result; also computes that of `bias`.
  const float* grad_of_map(const Block& block, const float* grad_token, Memory& memory,
                           ParameterGradients& gradients) const {
    float* const map = memory.get(kGradMap, map_floats());
    const int64_t* const begin = links_.by_pixel.begin_of(block.image);
    Vec grad_bias[VECTORS] = {};
    for (int64_t i = 0, p = 0; i < links_.height; ++i)
      for (int64_t j = 0; j < links_.width; ++j, ++p) {
        Vec sum[VECTORS];
        multiply(links_.by_pixel, links_.by_pixel.backward_weight, begin, p, grad_token, sum);
        float* const out = map_row(map, i) + (j + 1) * kStride;
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
          store(out + v * kLanes, sum[v]);
          grad_bias[v] += sum[v];
        }
      }
    for (int v = 0; v < VECTORS; ++v)
      store(gradients.of(block.image, kBiasSum, block.channel + v * kLanes), grad_bias[v]);
    return map;
  }

  // The gradient of the taps.
  void correlate(const Block& block, const float* map, const float* grad_map, ParameterGradients& gradients) const {
    for (int v = 0; v < VECTORS; ++v) {
      Vec sums[kTaps] = {};
      for (int64_t i = 0; i < links_.height; ++i)
        correlate_row(rows_around(map, i, v), map_row(grad_map, i) + kStride + v * kLanes, links_.width, kStride, sums);
      for (int tap = 0; tap < kTaps; ++tap)
        store(gradients.of(block.image, tap, block.channel + v * kLanes), sums[tap]);
    }
  }

  // The gradient of the map before the convolution.
  const float* convolve_back(const Block& block, const float* grad_map, Memory& memory) const {
    float* const out = memory.get(kConvolved, links_.pixels() * kStride);
    for (int v = 0; v < VECTORS; ++v) {
      Vec taps[kTaps];
      parameters_.taps(block.channel + v * kLanes, true, taps);
      for (int64_t i = 0; i < links_.height; ++i) {
        float* const row = out + i * links_.width * kStride + v * kLanes;
        convolve_row(rows_around(grad_map, i, v), links_.width, kStride, taps, Vec{}, row);
      }
    }
    return out;
  }

  const Links& links_;
  const Parameters& parameters_;
  const float* const x_;
  const int64_t channels_;
  const bool gelu_;
};

// Call `run` with the largest number of vectors per block for which a thread's data fits kCachedBytes.
template <class Run>
void with_vectors(const Links& links, int64_t token_rows, int64_t map_rows, int64_t channels, const Run& run) {
  const int64_t pixels = (links.height + 2) * (links.width + 2);
  const int64_t bytes = (token_rows * links.tokens + map_rows * pixels) * kLanes * static_cast<int64_t>(sizeof(float));
  const int64_t most = std::min(kCachedBytes / bytes, ceil_div(channels, kLanes));
  if (most >= 4) run(std::integral_constant<int, 4>{});
  else if (most >= 2) run(std::integral_constant<int, 2>{});
  else run(std::integral_constant<int, 1>{});
}

}  // namespace
}  // namespace tcformer

// For the arguments see kernels/native/ops.py.
TCFORMER_EXPORT int tcformer_token_conv(
    const float* x, const float* weight, const float* bias, const float* skip, const int64_t* token_of_cell,
    const int64_t* token_cells, const int64_t* token_offsets, const int64_t* pixel_of_cell, const int64_t* pixel_cells,
    const int64_t* pixel_offsets, int64_t images, int64_t tokens, int64_t channels, int64_t height, int64_t width,
    int64_t cells, int64_t gelu, float* y) {
  using namespace tcformer;
  return guarded([&] {
    const Links links({token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets}, images,
                      tokens, height, width, cells);
    const Parameters parameters(weight, bias, skip, channels);
    with_vectors(links, 1, 2, channels, [&](auto vectors) {
      TokenConv<vectors>(links, parameters, x, channels, gelu != 0).forward(y);
    });
  });
}

TCFORMER_EXPORT int tcformer_token_conv_backward(
    const float* grad_y, const float* x, const float* weight, const float* bias, const float* skip,
    const int64_t* token_of_cell, const int64_t* token_cells, const int64_t* token_offsets,
    const int64_t* pixel_of_cell, const int64_t* pixel_cells, const int64_t* pixel_offsets, int64_t images,
    int64_t tokens, int64_t channels, int64_t height, int64_t width, int64_t cells, int64_t gelu, float* grad_x,
    float* grad_weight, float* grad_bias, float* grad_skip) {
  using namespace tcformer;
  return guarded([&] {
    const Links links({token_of_cell, token_cells, token_offsets, pixel_of_cell, pixel_cells, pixel_offsets}, images,
                      tokens, height, width, cells);
    const Parameters parameters(weight, bias, skip, channels);
    ParameterGradients gradients(images, channels);
    with_vectors(links, 2, 3, channels, [&](auto vectors) {
      TokenConv<vectors>(links, parameters, x, channels, gelu != 0).backward(grad_y, grad_x, gradients);
    });
    gradients.total(grad_weight, grad_bias, grad_skip);
  });
}

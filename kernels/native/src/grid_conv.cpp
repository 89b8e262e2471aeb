// Depth-wise 3x3 convolution of tokens that are the pixels of a map, followed by GELU if requested, and its gradients.
//
// A few channels of one image pass row by row through buffers of three rows, so every number is read from memory once.
// The input of GELU is computed again for the gradient.
#include "depthwise.h"

namespace tcformer {
namespace {

// Buffer of the last three rows of a map, with a pixel of zeros at both ends, and of one row of zeros.
class Ring {
 public:
  Ring(int64_t width, int64_t stride) : floats_((width + 2) * stride), data_(buffer_.get(4 * floats_)) {
    std::fill_n(data_, 4 * floats_, 0.0f);
  }
  // Row `i`, beginning with the pixel to the left of the first.
  float* row(int64_t i) { return data_ + i % 3 * floats_; }
  const float* row_or_zeros(int64_t i, int64_t height) { return i >= 0 && i < height ? row(i) : data_ + 3 * floats_; }

 private:
  int64_t floats_;
  Buffer<float> buffer_;
  float* data_;
};

class GridConv {
 public:
  static constexpr int kVectors = 4;
  static constexpr int64_t kStride = kVectors * kLanes;

  GridConv(const Parameters& parameters, const float* x, int64_t images, int64_t height, int64_t width,
           int64_t channels, bool gelu)
      : parameters_(parameters), x_(x), images_(images), height_(height), width_(width), channels_(channels),
        gelu_(gelu) {}

  void forward(float* y) const {
    for_each_block<kVectors, Buffer<float>>(images_, channels_, [&](const Block& block, Buffer<float>& memory) {
      float* const row = memory.get(width_ * kStride);
      Ring x(width_, kStride);
      load_row(block, x_, 0, x);
      for (int64_t i = 0; i < height_; ++i) {
        load_row(block, x_, i + 1, x);
        convolve(block, x, i, false, row);
        if (gelu_) store_row(block, i, row, y, [](Vec value) { return gelu(value); });
        else store_row(block, i, row, y, [](Vec value) { return value; });
      }
    });
  }

  void backward(const float* grad_y, float* grad_x, ParameterGradients& gradients) const {
    for_each_block<kVectors, Buffer<float>>(images_, channels_, [&](const Block& block, Buffer<float>& memory) {
      float* const row = memory.get(width_ * kStride);
      Ring x(width_, kStride), grad(width_, kStride);
      Vec sums[kVectors][kTaps + 1] = {};
      load_row(block, x_, 0, x);
      for (int64_t i = 0; i <= height_; ++i) {
        if (i < height_) {
          load_row(block, x_, i + 1, x);
          load_row(block, grad_y, i, grad);
          if (gelu_) {
            convolve(block, x, i, false, row);
            float* const g = grad.row(i) + kStride;
            for (int64_t f = 0; f < width_ * kStride; f += kLanes)
              store(g + f, load(g + f) * gelu_derivative(load(row + f)));
          }
          add_parameter_gradients(x, grad, i, sums);
        }
        if (i > 0) {
          convolve(block, grad, i - 1, true, row);
          store_row(block, i - 1, row, grad_x, [](Vec value) { return value; });
        }
      }
      for (int v = 0; v < kVectors; ++v)
        for (int sum = 0; sum <= kTaps; ++sum)
          store(gradients.of(block.image, sum, block.channel + v * kLanes), sums[v][sum]);
    });
  }

 private:
  int64_t place(const Block& block, int64_t i, int64_t j) const {
    return ((block.image * height_ + i) * width_ + j) * channels_ + block.channel;
  }

  void load_row(const Block& block, const float* source, int64_t i, Ring& ring) const {
    if (i >= height_) return;
    float* const out = ring.row(i) + kStride;
    for (int64_t j = 0; j < width_; ++j)
      copy_in<kVectors>(source + place(block, i, j), block.width, out + j * kStride);
  }

  // out (width, kStride) = the convolution of row i. `flipped`: for the backward pass, without bias.
  void convolve(const Block& block, Ring& ring, int64_t i, bool flipped, float* out) const {
    for (int v = 0; v < kVectors; ++v) {
      Vec taps[kTaps];
      parameters_.taps(block.channel + v * kLanes, flipped, taps);
      const Vec bias = flipped ? Vec{} : parameters_.bias(block.channel + v * kLanes);
      const float* const rows[3] = {ring.row_or_zeros(i - 1, height_) + v * kLanes, ring.row(i) + v * kLanes,
                                    ring.row_or_zeros(i + 1, height_) + v * kLanes};
      convolve_row(rows, width_, kStride, taps, bias, out + v * kLanes);
    }
  }

  // Store `function` of a row (width, kStride) in row i of a map like x.
  template <class Function>
  void store_row(const Block& block, int64_t i, const float* row, float* map, const Function& function) const {
    float* out = map + place(block, i, 0);
    for (int64_t j = 0; j < width_; ++j, row += kStride, out += channels_)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) copy_out(function(load(row + v * kLanes)), v, block.width, out);
  }

  // Add the contribution of row i to the gradients of taps and bias.
  void add_parameter_gradients(Ring& x, Ring& grad, int64_t i, Vec (&sums)[kVectors][kTaps + 1]) const {
    for (int v = 0; v < kVectors; ++v) {
      const float* const rows[3] = {x.row_or_zeros(i - 1, height_) + v * kLanes, x.row(i) + v * kLanes,
                                    x.row_or_zeros(i + 1, height_) + v * kLanes};
      const float* const g = grad.row(i) + kStride + v * kLanes;
      Vec taps[kTaps] = {}, bias = {};
      correlate_row(rows, g, width_, kStride, taps);
      for (int64_t j = 0; j < width_; ++j) bias += load(g + j * kStride);
      for (int tap = 0; tap < kTaps; ++tap) sums[v][tap] += taps[tap];
      sums[v][kBiasSum] += bias;
    }
  }

  const Parameters& parameters_;
  const float* const x_;
  const int64_t images_, height_, width_, channels_;
  const bool gelu_;
};

}  // namespace
}  // namespace tcformer

// x, y (images, height * width, channels); `skip` (channels,) may be null.
TCFORMER_EXPORT int tcformer_grid_conv(const float* x, const float* weight, const float* bias, const float* skip,
                                       int64_t images, int64_t height, int64_t width, int64_t channels, int64_t gelu,
                                       float* y) {
  using namespace tcformer;
  return guarded([&] {
    const Parameters parameters(weight, bias, skip, channels, true);
    GridConv(parameters, x, images, height, width, channels, gelu != 0).forward(y);
  });
}

// `grad_skip` may be null.
TCFORMER_EXPORT int tcformer_grid_conv_backward(const float* grad_y, const float* x, const float* weight,
                                                const float* bias, const float* skip, int64_t images, int64_t height,
                                                int64_t width, int64_t channels, int64_t gelu, float* grad_x,
                                                float* grad_weight, float* grad_bias, float* grad_skip) {
  using namespace tcformer;
  return guarded([&] {
    const Parameters parameters(weight, bias, skip, channels, true);
    ParameterGradients gradients(images, channels);
    GridConv(parameters, x, images, height, width, channels, gelu != 0).backward(grad_y, grad_x, gradients);
    gradients.total(grad_weight, grad_bias, grad_skip, true);
  });
}

// Common parts of the two depth-wise 3x3 convolutions. Features are processed in blocks of channels, VECTORS * kLanes
// floats per pixel or token; the last block is padded with zeros. Channels are independent.
#pragma once

#include <algorithm>

#include "gelu.h"
#include "parallel.h"

namespace tcformer {

constexpr int kTaps = 9;
// Sums that make up the parameters' gradients: nine taps, bias, skip.
constexpr int kSums = kTaps + 2;
constexpr int kBiasSum = kTaps, kSkipSum = kTaps + 1;

// A block of channels of an image.
struct Block {
  int64_t image, channel, width;  // channel: the first one; width: number of channels, at most VECTORS * kLanes
};

inline int64_t padded_channels(int64_t channels) { return ceil_div(channels, 4 * kLanes) * 4 * kLanes; }

// weight (channels, 9), bias and skip (channels,), rearranged with channels last and padded with zeros.
class Parameters {
 public:
  // A null `skip` counts as 0. `in_middle`: add skip to the middle tap instead.
  Parameters(const float* weight, const float* bias, const float* skip, int64_t channels, bool in_middle = false)
      : padded_(padded_channels(channels)), data_(buffer_.get(kSums * padded_)) {
    std::fill_n(data_, kSums * padded_, 0.0f);
    for (int64_t c = 0; c < channels; ++c) {
      for (int tap = 0; tap < kTaps; ++tap) data_[tap * padded_ + c] = weight[c * kTaps + tap];
      data_[kBiasSum * padded_ + c] = bias[c];
      if (skip) data_[(in_middle ? kTaps / 2 : kSkipSum) * padded_ + c] += skip[c];
    }
  }
  // The nine taps of kLanes channels; `flipped` for the backward pass.
  void taps(int64_t channel, bool flipped, Vec (&taps)[kTaps]) const {
    for (int tap = 0; tap < kTaps; ++tap)
      taps[tap] = load(data_ + (flipped ? kTaps - 1 - tap : tap) * padded_ + channel);
  }
  Vec bias(int64_t channel) const { return load(data_ + kBiasSum * padded_ + channel); }
  Vec skip(int64_t channel) const { return load(data_ + kSkipSum * padded_ + channel); }

 private:
  int64_t padded_;
  Buffer<float> buffer_;
  float* data_;
};

// Sums over each image; `total` adds them over images in ascending order.
class ParameterGradients {
 public:
  ParameterGradients(int64_t images, int64_t channels)
      : images_(images), channels_(channels), padded_(padded_channels(channels)),
        data_(buffer_.get(images * kSums * padded_)) {}

  float* of(int64_t image, int sum, int64_t channel) { return data_ + (image * kSums + sum) * padded_ + channel; }

  // grad_skip may be null; `from_middle`: take it from the middle tap.
  void total(float* grad_weight, float* grad_bias, float* grad_skip, bool from_middle = false) {
    for (int sum = 0; sum < kSums; ++sum)
      for (int64_t image = 1; image < images_; ++image)
        for (int64_t c = 0; c < channels_; ++c) *of(0, sum, c) += *of(image, sum, c);
    for (int64_t c = 0; c < channels_; ++c) {
      for (int tap = 0; tap < kTaps; ++tap) grad_weight[c * kTaps + tap] = *of(0, tap, c);
      grad_bias[c] = *of(0, kBiasSum, c);
      if (grad_skip) grad_skip[c] = *of(0, from_middle ? kTaps / 2 : kSkipSum, c);
    }
  }

 private:
  int64_t images_, channels_, padded_;
  Buffer<float> buffer_;
  float* data_;
};

template <int VECTORS>
inline void copy_in(const float* source, int64_t width, float* out) {
  if (width == VECTORS * kLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) store(out + v * kLanes, load(source + v * kLanes));
  } else {
    std::fill_n(out, VECTORS * kLanes, 0.0f);
    std::memcpy(out, source, width * sizeof(float));
  }
}

// Store vector `v` of a block of `width` channels.
inline void copy_out(Vec value, int v, int64_t width, float* out) {
  const int64_t here = width - v * kLanes;
  if (here >= kLanes) store(out + v * kLanes, value);
  else if (here > 0) std::memcpy(out + v * kLanes, &value, here * sizeof(float));
}

// One row of a convolution, for kLanes channels. `rows` are the three input rows, each beginning with the pixel to the
// left of the first; pixels are `stride` floats apart, also in `out`.
inline void convolve_row(const float* const (&rows)[3], int64_t width, int64_t stride, const Vec (&taps)[kTaps],
                         Vec bias, float* out) {
  Vec window[3][3];
  for (int r = 0; r < 3; ++r) {
    window[r][0] = load(rows[r]);
    window[r][1] = load(rows[r] + stride);
  }
  for (int64_t j = 0; j < width; ++j) {
    Vec sum = bias;
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
      window[r][2] = load(rows[r] + (j + 2) * stride);
#pragma GCC unroll 3
      for (int c = 0; c < 3; ++c) sum += taps[3 * r + c] * window[r][c];
      window[r][0] = window[r][1];
      window[r][1] = window[r][2];
    }
    store(out + j * stride, sum);
  }
}

// Add the contribution of one row to the gradients of the taps; `rows` as above, `grad` points to the row's first
// pixel.
inline void correlate_row(const float* const (&rows)[3], const float* grad, int64_t width, int64_t stride,
                          Vec (&sums)[kTaps]) {
  Vec window[3][3], row_sums[kTaps] = {};  // summed per row first, which is more exact than one long sum
  for (int r = 0; r < 3; ++r) {
    window[r][0] = load(rows[r]);
    window[r][1] = load(rows[r] + stride);
  }
  for (int64_t j = 0; j < width; ++j) {
    const Vec g = load(grad + j * stride);
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
      window[r][2] = load(rows[r] + (j + 2) * stride);
#pragma GCC unroll 3
      for (int c = 0; c < 3; ++c) row_sums[3 * r + c] += g * window[r][c];
      window[r][0] = window[r][1];
      window[r][1] = window[r][2];
    }
  }
  for (int tap = 0; tap < kTaps; ++tap) sums[tap] += row_sums[tap];
}

// Call `run(block, memory)` for all blocks of channels of all images, on all threads. Each thread has its own `Memory`.
template <int VECTORS, class Memory, class Run>
void for_each_block(int64_t images, int64_t channels, const Run& run) {
  const int64_t blocks = ceil_div(channels, VECTORS * kLanes);
  std::atomic<int64_t> next{0};
  run_workers(std::min(num_threads(), images * blocks), [&] {
    Memory memory;
    for (int64_t i; (i = next.fetch_add(1)) < images * blocks;) {
      const int64_t channel = i % blocks * VECTORS * kLanes;
      run(Block{i / blocks, channel, std::min<int64_t>(channels - channel, VECTORS * kLanes)}, memory);
    }
  });
}

}  // namespace tcformer

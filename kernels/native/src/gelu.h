// Exact GELU, x * Phi(x) where Phi is the normal distribution function, and its derivative, on vectors.
#pragma once

#include <initializer_list>

#include "simd.h"

namespace tcformer {

#if defined(__AVX512F__)

// A piecewise polynomial function with 32 pieces on [-6, 6], 0 below and constant above. One permutation of two
// registers looks up a coefficient for 16 lanes.
struct Pieces {
  static constexpr int kCount = 32, kDegree = 5;
  static constexpr float kEnd = 6.0f, kLast = 5.999f;  // kLast is in the last piece even after rounding
  static constexpr float kPerUnit = kCount / (2 * kEnd);
  alignas(64) float coefficient[kDegree + 1][kCount];

  inline Vec operator()(Vec x) const {
    const auto below = x < -kEnd;
    x = x > kLast ? broadcast(kLast) : x;
    const IntVec piece = __builtin_convertvector(x * kPerUnit + kCount / 2, IntVec);
    const Vec t = x * kPerUnit - __builtin_convertvector(piece - kCount / 2, Vec);
    auto look_up = [&](int power) {
      return __builtin_shuffle(load(coefficient[power]), load(coefficient[power] + kLanes), piece);
    };
    Vec y = look_up(kDegree);
#pragma GCC unroll 8
    for (int power = kDegree - 1; power >= 0; --power) y = y * t + look_up(power);
    return below ? Vec{} : y;
  }
};

extern const Pieces kNormalCdf, kGeluDerivative;

inline Vec normal_cdf(Vec x) { return kNormalCdf(x); }
inline Vec gelu_derivative(Vec x) { return kGeluDerivative(x); }

#else

// erf by the rational function that Eigen and XLA use; exactly 1 for |z| >= 4.
inline Vec normal_cdf(Vec x) {
  Vec z = x * 0.70710678118654752f;
  z = z < -4.0f ? broadcast(-4.0f) : z;
  z = z > 4.0f ? broadcast(4.0f) : z;
  const Vec s = z * z;
  Vec p = broadcast(-2.72614225801306e-10f);
  for (float a : {2.77068142495902e-08f, -2.10102402082508e-06f, -5.69250639462346e-05f, -7.34990630326855e-04f,
                  -2.95459980854025e-03f, -1.60960333262415e-02f})
    p = p * s + a;
  Vec q = broadcast(-1.45660718464996e-05f);
  for (float b : {-2.13374055278905e-04f, -1.68282697438203e-03f, -7.37332916720468e-03f, -1.42647390514189e-02f})
    q = q * s + b;
  return 0.5f + 0.5f * (z * p / q);
}

// e^x for x in [-87, 0]: 2^n times the power series of the remainder.
inline Vec exp_of_negative(Vec x) {
  const IntVec n = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, IntVec);
  const Vec whole = __builtin_convertvector(n, Vec);
  const Vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vec y = broadcast(1.0f / 5040);
  for (float a : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) y = y * r + a;
  const IntVec bits = (n + 127) << 23;
  Vec power;
  std::memcpy(&power, &bits, sizeof power);
  return y * power;
}

// Phi(x) + x * phi(x)
inline Vec gelu_derivative(Vec x) {
  Vec t = x * x * -0.5f;
  t = t < -87.0f ? broadcast(-87.0f) : t;
  return normal_cdf(x) + x * (0.39894228040143268f * exp_of_negative(t));
}

#endif

inline Vec gelu(Vec x) { return x * normal_cdf(x); }

}  // namespace tcformer

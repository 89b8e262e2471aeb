#include "gelu.h"

#if defined(__AVX512F__)

#include <cmath>

namespace tcformer {
namespace {

constexpr double kPi = 3.14159265358979323846;

double cdf(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

double derivative(double x) { return cdf(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * kPi); }

// Each piece interpolates the function at Chebyshev nodes. The first piece is corrected so that it starts at exactly 0.
Pieces fit(double (*function)(double)) {
  constexpr int kNodes = Pieces::kDegree + 1;
  Pieces pieces;
  for (int piece = 0; piece < Pieces::kCount; ++piece) {
    double node[kNodes], difference[kNodes];
    for (int i = 0; i < kNodes; ++i) {
      node[i] = (1 + std::cos(kPi * (i + 0.5) / kNodes)) / 2;
      difference[i] = function((piece + node[i] - Pieces::kCount / 2) / Pieces::kPerUnit);
      if (piece == 0) difference[i] -= function(-Pieces::kEnd) * (1 - node[i]);
    }
    for (int order = 1; order < kNodes; ++order)  // Newton's divided differences
      for (int i = kNodes - 1; i >= order; --i)
        difference[i] = (difference[i] - difference[i - 1]) / (node[i] - node[i - order]);
    double power[kNodes] = {difference[kNodes - 1]};  // expanded into powers of t
    for (int i = kNodes - 2; i >= 0; --i) {
      for (int j = kNodes - 1; j > 0; --j) power[j] = power[j - 1] - node[i] * power[j];
      power[0] = difference[i] - node[i] * power[0];
    }
    for (int j = 0; j < kNodes; ++j) pieces.coefficient[j][piece] = static_cast<float>(power[j]);
  }
  return pieces;
}

}  // namespace

const Pieces kNormalCdf = fit(cdf);
const Pieces kGeluDerivative = fit(derivative);

}  // namespace tcformer

#endif

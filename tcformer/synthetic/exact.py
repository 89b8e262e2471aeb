"""Arithmetic that gives the same bits on every x86-64 CPU, so that generated files are the same bytes everywhere.

Libraries choose their code by the CPU: BLAS, libm, and OpenCV's and NumPy's vectorized loops round differently with and
without fused multiply-add. The generators therefore use

- NumPy for elementwise +, -, *, / and sqrt, for sums, means and `einsum`, and for random numbers (the tails of normal
  numbers call log1p: what depends on them is rounded, and camera noise is made without them, see `render._noise`);
- numba without fast-math, which never fuses a multiplication with an addition;
- the functions below instead of matrix products (BLAS), sin, cos, exp and atan2 (libm, NumPy);
- OpenCV for drawing, outlines, JPEG files and the Gaussian blur of bytes, which is computed in integers;
- Pillow for scaling (`resize`), whose resampling has one implementation.

The elementary functions are fdlibm's polynomials (Sun Microsystems, 1993); they err by one or two units in the last
place. tests/tcformer/synthetic/test_same_bytes.py generates datasets as on a CPU without vector extensions.
"""

from __future__ import annotations

import math
from functools import reduce

import numba
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

Array = NDArray[np.float64]

_FROM_SCALAR = "float64(float64)"
_LARGEST_EXPONENT = 700.0


@numba.njit("float64(float64, int64)", cache=True)
def _sine_of_turned(x: float, quarters: int) -> float:
    """Sine of x + quarters * pi / 2."""
    nearest = np.floor(x * 0.6366197723675814 + 0.5)  # 2 / pi
    # pi / 2 as a sum of three numbers; the products with the first two are exact.
    r = x - nearest * 1.57079632673412561417e00
    r = r - nearest * 6.07710050630396597660e-11
    r = r - nearest * 2.02226624879595063154e-21
    quadrant = (int(nearest) + quarters) % 4
    z = r * r
    if quadrant % 2 == 0:
        p = 2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
        p = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * p)
        value = r + r * z * (-1.66666666666666324348e-01 + z * p)
    else:
        p = -2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
        p = -1.38888888888741095749e-03 + z * (2.48015872894767294178e-05 + z * p)
        value = 1.0 - (0.5 * z - z * z * (4.16666666666666019037e-02 + z * p))
    return value if quadrant < 2 else -value


@numba.njit(_FROM_SCALAR, cache=True)
def sine(x: float) -> float:
    """Sine of x, radians, for |x| up to about a million."""
    return _sine_of_turned(x, 0)


@numba.njit(_FROM_SCALAR, cache=True)
def cosine(x: float) -> float:
    """Cosine of x, radians, for |x| up to about a million."""
    return _sine_of_turned(x, 1)


@numba.njit(_FROM_SCALAR, cache=True)
def exponential(x: float) -> float:
    """e to the power of x; 0 for x below -700.

    Raises:
        ValueError: if x is above 700.
    """
    if x > _LARGEST_EXPONENT:
        raise ValueError("exponential: expected a number up to 700")
    if x < -_LARGEST_EXPONENT:
        return 0.0
    k = np.floor(x * 1.44269504088896338700 + 0.5)  # 1 / ln 2
    high, low = x - k * 6.93147180369123816490e-01, k * 1.90821492927058770002e-10
    r = high - low
    t = r * r
    p = 6.61375632143793436117e-05 + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08)
    c = r - t * (1.66666666666666019037e-01 + t * (-2.77777777770155933842e-03 + t * p))
    return math.ldexp(1.0 - ((low - r * c / (2.0 - c)) - high), int(k))


@numba.njit("float64(float64, float64)", cache=True)
def arctangent2(y: float, x: float) -> float:
    """The angle of the vector (x, y), radians, -pi to pi; 0 for the zero vector."""
    larger, smaller = max(abs(x), abs(y)), min(abs(x), abs(y))
    if larger == 0.0:
        return 0.0
    t = smaller / larger
    start = 0.0
    if t > 0.4142135623730950:  # tan(pi / 8)
        t = (t - 1.0) / (t + 1.0)
        start = math.pi / 4
    z = t * t
    p = 4.97687799461593236017e-02 + z * (-3.65315727442169155270e-02 + z * 1.62858201153657823623e-02)
    p = 6.66107313738753120669e-02 + z * (-5.83357013379057348645e-02 + z * p)
    p = 9.09088713343650656196e-02 + z * (-7.69187620504482999495e-02 + z * p)
    p = 1.42857142725034663711e-01 + z * (-1.11111104054623557880e-01 + z * p)
    p = 3.33333333333329318027e-01 + z * (-1.99999999998764832476e-01 + z * p)
    angle = start + (t - t * z * p)
    if abs(y) > abs(x):
        angle = math.pi / 2 - angle
    if x < 0:
        angle = math.pi - angle
    return -angle if y < 0 else angle


@numba.njit("float64(float64[:], float64[:])", cache=True)
def dot(a: Array, b: Array) -> float:
    """Sum of the products of two vectors (n,)."""
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@numba.njit("float64[::1](float64[:, :], float64[:])", cache=True)
def _matrix_times_vector(a: Array, b: Array) -> Array:
    result = np.zeros(a.shape[0])
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            result[i] += a[i, k] * b[k]
    return result


@numba.njit("float64[:, ::1](float64[:, :], float64[:, :])", cache=True)
def _matrix_times_matrix(a: Array, b: Array) -> Array:
    result = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                result[i, j] += a[i, k] * b[k, j]
    return result


def product(*factors: Array) -> Array:
    """Product of small matrices, from left to right; the last factor may be a vector."""
    return reduce(lambda a, b: _matrix_times_matrix(a, b) if b.ndim == 2 else _matrix_times_vector(a, b), factors)


def resize(image: NDArray, size: tuple[int, int], method: Resampling) -> NDArray:
    """Scale an image to `size` (height, width).

    Args:
        image: (h, w, 3) uint8 or (h, w) float32.
        size: height and width of the result.
        method: of interpolation; where the image shrinks, each method averages over the pixels that become one.
    """
    return np.array(Image.fromarray(image).resize((size[1], size[0]), method))

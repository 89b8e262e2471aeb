"""RandAugment as timm's "rand-m9-mstd0.5-inc1", and colour jitter, with a numpy generator.

timm draws from the global generators of Python and numpy, but here a sample must depend only on its own generator. The
operations, their ranges and their rounding are timm's. All operations get stronger with the magnitude ("inc1").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from tcformer.data.images import IMAGE_MEAN

if TYPE_CHECKING:
    from PIL.Image import Image

Rng = np.random.Generator

#: Colour of pixels that a geometric operation maps from outside the image.
_FILL: Final = tuple(min(255, round(255 * mean)) for mean in IMAGE_MEAN)


def rand_augment(image: Image, magnitude: float, magnitude_std: float, rng: Rng) -> Image:
    """Apply two operations, drawn with replacement, each with the probability 1/2.

    Args:
        image: RGB.
        magnitude: mean magnitude in [0, 10].
        magnitude_std: standard deviation of the magnitude, which is drawn for each operation and clipped to [0, 10].
        rng: the only source of randomness.
    """
    for name in rng.choice(sorted(OPERATIONS), 2):
        if rng.random() < 0.5:
            level = float(np.clip(rng.normal(magnitude, magnitude_std), 0, 10)) / 10
            image = OPERATIONS[name](image, level, rng)
    return image


def color_jitter(image: Image, strength: float, rng: Rng) -> Image:
    """Change brightness, contrast and saturation in random order, each by a factor in 1 ± `strength`."""
    from PIL import ImageEnhance

    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for i in rng.permutation(3):
        image = enhancers[i](image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return image


def _sign(rng: Rng) -> float:
    return -1.0 if rng.random() < 0.5 else 1.0


def _affine(image: Image, matrix: tuple[float, ...]) -> Image:
    from PIL.Image import Resampling, Transform

    return image.transform(image.size, Transform.AFFINE, matrix, resample=Resampling.BICUBIC, fillcolor=_FILL)


def _auto_contrast(image: Image, level: float, rng: Rng) -> Image:
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def _equalize(image: Image, level: float, rng: Rng) -> Image:
    from PIL import ImageOps

    return ImageOps.equalize(image)


def _invert(image: Image, level: float, rng: Rng) -> Image:
    from PIL import ImageOps

    return ImageOps.invert(image)


def _rotate(image: Image, level: float, rng: Rng) -> Image:
    from PIL.Image import Resampling

    return image.rotate(_sign(rng) * 30 * level, resample=Resampling.BICUBIC, fillcolor=_FILL)


def _posterize(image: Image, level: float, rng: Rng) -> Image:
    # At the highest level no bit is left, which gives black. Pillow's own posterize does not allow that.
    mask = ~((1 << (8 - 4 + int(4 * level))) - 1)
    return image.point([i & mask for i in range(256)] * 3)


def _solarize(image: Image, level: float, rng: Rng) -> Image:
    from PIL import ImageOps

    return ImageOps.solarize(image, 256 - min(256, int(256 * level)))


def _solarize_add(image: Image, level: float, rng: Rng) -> Image:
    add = min(128, int(110 * level))
    return image.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3)


def _enhance(enhancer: str) -> Callable[[Image, float, Rng], Image]:
    def operation(image: Image, level: float, rng: Rng) -> Image:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, enhancer)(image).enhance(max(0.1, 1 + _sign(rng) * 0.9 * level))

    return operation


def _shear_x(image: Image, level: float, rng: Rng) -> Image:
    return _affine(image, (1, _sign(rng) * 0.3 * level, 0, 0, 1, 0))


def _shear_y(image: Image, level: float, rng: Rng) -> Image:
    return _affine(image, (1, 0, 0, _sign(rng) * 0.3 * level, 1, 0))


def _translate_x(image: Image, level: float, rng: Rng) -> Image:
    return _affine(image, (1, 0, _sign(rng) * 0.45 * level * image.size[0], 0, 1, 0))


def _translate_y(image: Image, level: float, rng: Rng) -> Image:
    return _affine(image, (1, 0, 0, 0, 1, _sign(rng) * 0.45 * level * image.size[1]))


#: Operations by timm's names; each takes an RGB image, a level in [0, 1] and a generator.
OPERATIONS: Final[dict[str, Callable[[Image, float, Rng], Image]]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Rotate": _rotate,
    "PosterizeIncreasing": _posterize,
    "SolarizeIncreasing": _solarize,
    "SolarizeAdd": _solarize_add,
    "ColorIncreasing": _enhance("Color"),
    "ContrastIncreasing": _enhance("Contrast"),
    "BrightnessIncreasing": _enhance("Brightness"),
    "SharpnessIncreasing": _enhance("Sharpness"),
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateXRel": _translate_x,
    "TranslateYRel": _translate_y,
}

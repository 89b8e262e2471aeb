"""What a user chooses about the generated people. No field has a default: params.yaml states each one.

Two settings that work well, for `GenerateWholebody` (the rest is a matter of amount):

=====================  ==================  ==================
field                  easy                full
=====================  ==================  ==================
people                 (1, 2)              (1, 4)
figure_height          (0.75, 0.95)        (0.55, 0.95)
yaw_deg                20.0                35.0
back_view_fraction     0.0                 0.15
camera_pitch_deg       3.0                 8.0
pose_variety           0.85                1.0
crop_fraction          0.0                 0.3
occluder_fraction      0.0                 0.15
crowd_fraction         0.02                0.05
clutter                0.25                1.0
photo_fraction         0.2                 0.5
light_range            (0.9, 1.1)          (0.7, 1.3)
=====================  ==================  ==================

`easy` shows mostly frontal, whole figures, one or two of them, in front of calm backgrounds: a small network
learns from a thousand of them in minutes on a processor. `full` has every posture and view direction, people
cut by the border of the picture or hidden behind furniture, and busy backgrounds.

The mean pose of the training set, placed in every true box, scores a body AP of about 0.02 on `easy` people
and of less than 0.01 on `full` ones. With pose_variety 0.35 it scores 0.15: then a network that learned
nothing but the mean looks good.

The same for `GenerateFace`; the fractions of `full` are WFLW's:

=====================  ==================  ==================
field                  easy                full
=====================  ==================  ==================
face_size              (0.5, 0.68)         (0.5, 0.68)
yaw_deg                12.0                18.0
large_yaw_deg          (30.0, 60.0)        (35.0, 75.0)
pitch_deg, roll_deg    6.0, 6.0            10.0, 10.0
pose_fraction          0.15                0.13
expression_fraction    0.2                 0.13
illumination_fraction  0.2                 0.28
make_up_fraction       0.15                0.08
occlusion_fraction     0.2                 0.29
blur_fraction          0.2                 0.31
clutter                0.25                1.0
photo_fraction         0.2                 0.5
light_range            (0.9, 1.1)          (0.7, 1.3)
=====================  ==================  ==================

The mean shape of 400 training faces, placed in the crops of 200 test faces, has an NME of 0.19 on `easy` faces
and of 0.26 on `full` ones.
"""

from __future__ import annotations

from dataclasses import fields

from tcformer.errors import UserError
from tcformer.parameters import parameters


@parameters
class GenerateWholebody:
    """A data set of people with 133 key points in the format of COCO-WholeBody V1.0."""

    seed: int
    """Every picture is a function of (seed, split, index) and of the options alone."""
    train_images: int
    """Number of pictures in train2017."""
    val_images: int
    """Number of pictures in val2017."""
    image_size: tuple[int, int]
    """Height and width of the pictures, pixels."""
    people: tuple[int, int]
    """Fewest and most people of a picture (crowds in the distance not counted); few are likelier."""
    figure_height: tuple[float, float]
    """Smallest and largest height of the group of people, as a fraction of the picture's height."""
    yaw_deg: float
    """Standard deviation of the direction people face, degrees; 0 = everybody faces the camera."""
    back_view_fraction: float
    """Fraction of people who face away from the camera, 0 to 1."""
    camera_pitch_deg: float
    """Standard deviation of the camera's pitch, degrees; positive pitch looks down."""
    pose_variety: float
    """0 = everybody stands with the arms near the body; 1 = all postures (walking, running, sitting,
    squatting, lunging, dancing, lying) and arms anywhere; between: that fraction of postures and of arms
    varies."""
    crop_fraction: float
    """Fraction of pictures so close that people are cut by the border, 0 to 1."""
    occluder_fraction: float
    """Fraction of pictures with a piece of furniture in front of somebody, 0 to 1."""
    crowd_fraction: float
    """Fraction of pictures with a group of tiny people in the distance, annotated as a crowd, 0 to 1."""
    clutter: float
    """0 = plain background, 1 = strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds taken from photographs (those inside scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of a picture relative to a well exposed one."""
    supersampling: int
    """Each pixel is the mean of this number squared of samples; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


@parameters
class GenerateImagenet:
    """A small classification data set of people in ImageNet's folder layout: the classes are postures, view
    directions and framings (`tcformer.synthetic.imagenet.CLASSES`)."""

    seed: int
    """Every picture is a function of (seed, split, class, index) and of the options alone."""
    train_images_per_class: int
    """Number of pictures of each class under train/."""
    val_images_per_class: int
    """Number of pictures of each class under val/."""
    image_size: tuple[int, int]
    """Height and width of the pictures, pixels."""
    yaw_deg: float
    """Standard deviation of the direction people face about that of their class, degrees."""
    camera_pitch_deg: float
    """Standard deviation of the camera's pitch, degrees."""
    clutter: float
    """0 = plain background, 1 = strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds taken from photographs (those inside scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of a picture relative to a well exposed one."""
    supersampling: int
    """Each pixel is the mean of this number squared of samples; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


@parameters
class GenerateFace:
    """A data set of single faces with 98 landmarks and six attributes in the format of WFLW."""

    seed: int
    """Every picture is a function of (seed, split, index) and of the options alone."""
    train_images: int
    """Number of faces, one a picture, in the training list."""
    test_images: int
    """Number of faces in the test list."""
    image_size: tuple[int, int]
    """Height and width of the pictures, pixels."""
    face_size: tuple[float, float]
    """Smallest and largest longer side of the landmarks' box, as a fraction of the picture's shorter side."""
    yaw_deg: float
    """Standard deviation of the direction a face without large pose looks, degrees; 0 = into the camera."""
    large_yaw_deg: tuple[float, float]
    """Smallest and largest angle by which a face of large pose is turned to either side, degrees."""
    pitch_deg: float
    """Standard deviation of the nod up or down, degrees; 1.6 times this for large pose."""
    roll_deg: float
    """Standard deviation of the head's tilt to a shoulder, degrees; 1.6 times this for large pose."""
    pose_fraction: float
    """Fraction of faces of large pose, 0 to 1; like the next five, at least one a split unless it is 0."""
    expression_fraction: float
    """Fraction of faces with a strong expression, 0 to 1."""
    illumination_fraction: float
    """Fraction of faces in hard light (from the side or below, coloured, too dark, too bright), 0 to 1."""
    make_up_fraction: float
    """Fraction of faces with make-up, 0 to 1."""
    occlusion_fraction: float
    """Fraction of faces partly hidden by glasses, a mask or an object, 0 to 1."""
    blur_fraction: float
    """Fraction of blurred pictures, 0 to 1."""
    clutter: float
    """0 = plain background, 1 = strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds taken from photographs (those inside scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of a picture without hard light, relative to a well exposed one."""
    supersampling: int
    """Each pixel is the mean of this number squared of samples; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


@parameters
class GenerateMesh:
    """A data set of single people with the parameters of an SMPL-format body: a training set as SPIN's files, a
    test set as 3DPW's, and the body model.

    How far a small network gets in minutes depends on the background: tcformer_nano at 64 pixels, trained for 12
    epochs on 2000 people of yaw_deg 30, pose_variety 0.9 and shape_variety 0.3, has 0.74 times the MPJPE and 0.78
    times the PA-MPJPE of the mean body with clutter and photo_fraction 0, but 0.80 and 0.85 times with 0.25 and 0.2.
    """

    seed: int
    """Every picture is a function of (seed, split, index) and of the options alone."""
    train_images: int
    """Number of pictures, one person each, of the training set."""
    test_images: int
    """Number of frames of the test set, in sequences of 25 that show one person."""
    image_size: tuple[int, int]
    """Height and width of the pictures, pixels."""
    figure_height: tuple[float, float]
    """Smallest and largest height of the person, as a fraction of the picture's height."""
    yaw_deg: float
    """Standard deviation of the direction people face, degrees; 0 = everybody faces the camera."""
    back_view_fraction: float
    """Fraction of people who face away from the camera, 0 to 1."""
    camera_pitch_deg: float
    """Standard deviation of the camera's pitch, degrees; positive pitch looks down."""
    pose_variety: float
    """0 = everybody stands with the arms near the body; 1 = all postures and arms anywhere."""
    shape_variety: float
    """0 = everybody has the mean body; 1 = all bodies, children among them. How tall somebody is hardly shows in a
    crop, but counts in the MPJPE: at 1 the true pose on the mean body is off by 70 mm."""
    occluder_fraction: float
    """Fraction of pictures with a piece of furniture in front of the person, 0 to 1."""
    clutter: float
    """0 = plain background, 1 = strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds taken from photographs (those inside scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of a picture relative to a well exposed one."""
    supersampling: int
    """Each pixel is the mean of this number squared of samples; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


_LEAST_AND_MOST: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "train_images": (0, 500_000),
    "val_images": (0, 500_000),
    "train_images_per_class": (0, 100_000),
    "val_images_per_class": (0, 100_000),
    "test_images": (0, 500_000),
    "image_size": (32, 4096),
    "people": (1, 20),
    "figure_height": (0.05, 2.0),
    "yaw_deg": (0, 180),
    "back_view_fraction": (0, 1),
    "camera_pitch_deg": (0, 45),
    "pose_variety": (0, 1),
    "shape_variety": (0, 1),
    "crop_fraction": (0, 1),
    "occluder_fraction": (0, 1),
    "crowd_fraction": (0, 1),
    "face_size": (0.1, 0.9),
    "large_yaw_deg": (0, 90),
    "pitch_deg": (0, 45),
    "roll_deg": (0, 180),
    "pose_fraction": (0, 1),
    "expression_fraction": (0, 1),
    "illumination_fraction": (0, 1),
    "make_up_fraction": (0, 1),
    "occlusion_fraction": (0, 1),
    "blur_fraction": (0, 1),
    "clutter": (0, 1),
    "photo_fraction": (0, 1),
    "light_range": (0.1, 4.0),
    "supersampling": (1, 4),
    "jpeg_quality": (1, 100),
}
_RANGES = ("people", "figure_height", "light_range", "face_size", "large_yaw_deg")


def check(options: GenerateWholebody | GenerateImagenet | GenerateFace | GenerateMesh) -> None:
    """Raise UserError for a value outside what can be drawn, or a range whose ends are swapped."""
    for field in fields(options):
        value = getattr(options, field.name)
        least, most = _LEAST_AND_MOST[field.name]
        values = value if isinstance(value, tuple) else (value,)
        if not all(least <= each <= most for each in values):
            raise UserError(f"{field.name}: expected {least} to {most}, found {value}; change it in params.yaml")
        if field.name in _RANGES and values[0] > values[1]:
            raise UserError(
                f"{field.name}: expected the smaller value first, found {value}; swap the two in params.yaml"
            )

"""The options of generated datasets. No field has a default: params.yaml states each one.

Two settings of `GenerateWholebody` that work well; the other fields only change amount and quality:

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

`easy` shows one or two whole people, mostly from the front, on calm backgrounds: a small network learns from a
thousand images in minutes on a CPU. `full` has all postures and view directions, people who are cut by the border of
the image or hidden behind furniture, and busy backgrounds.

The mean pose of the training set, placed in each true box, has a body AP of about 0.02 on `easy` people and of less
than 0.01 on `full` ones. With pose_variety 0.35 it has 0.15: then a network that has learned only the mean pose looks
good.

Two settings of `GenerateFace`; the fractions of `full` are those of WFLW:

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

The mean shape of 400 training faces, placed in the crops of 200 test faces, has an NME of 0.19 on `easy` faces and of
0.26 on `full` ones.
"""

from __future__ import annotations

from dataclasses import fields

from tcformer.errors import UserError
from tcformer.parameters import parameters


@parameters
class GenerateWholebody:
    """A dataset of people with 133 keypoints in the format of COCO-WholeBody V1.0."""

    seed: int
    """Each image depends only on (seed, split, index) and on the other options."""
    train_images: int
    """Number of images in train2017."""
    val_images: int
    """Number of images in val2017."""
    image_size: tuple[int, int]
    """Height and width of the images, pixels."""
    people: tuple[int, int]
    """Smallest and largest number of people in an image, crowds not counted; small numbers are more likely."""
    figure_height: tuple[float, float]
    """Smallest and largest height of the group of people, as a fraction of the image's height."""
    yaw_deg: float
    """Standard deviation of the direction that people face, degrees; 0: all face the camera."""
    back_view_fraction: float
    """Fraction of people who face away from the camera, 0 to 1."""
    camera_pitch_deg: float
    """Standard deviation of the camera's pitch, degrees; positive pitch looks down."""
    pose_variety: float
    """Fraction of postures and arms that vary: 0: all people stand with the arms near the body; 1: all postures
    (walking, running, sitting, squatting, lunging, dancing, lying) and all directions of the arms."""
    crop_fraction: float
    """Fraction of images so close that the border cuts people, 0 to 1."""
    occluder_fraction: float
    """Fraction of images with a piece of furniture in front of a person, 0 to 1."""
    crowd_fraction: float
    """Fraction of images with a group of tiny people in the distance, annotated as a crowd, 0 to 1."""
    clutter: float
    """0: plain background; 1: strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds from photographs (the ones in scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of an image relative to a well exposed one."""
    supersampling: int
    """Samples per pixel in each direction; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


@parameters
class GenerateImagenet:
    """A small classification dataset of people in ImageNet's folder layout.

    The classes are postures, view directions and framings (`tcformer.synthetic.imagenet.CLASSES`).
    """

    seed: int
    """Each image depends only on (seed, split, class, index) and on the other options."""
    train_images_per_class: int
    """Number of images of each class under train/."""
    val_images_per_class: int
    """Number of images of each class under val/."""
    image_size: tuple[int, int]
    """Height and width of the images, pixels."""
    yaw_deg: float
    """Standard deviation of the direction that people face about the direction of their class, degrees."""
    camera_pitch_deg: float
    """Standard deviation of the camera's pitch, degrees."""
    clutter: float
    """0: plain background; 1: strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds from photographs (the ones in scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of an image relative to a well exposed one."""
    supersampling: int
    """Samples per pixel in each direction; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


@parameters
class GenerateFace:
    """A dataset of single faces with 98 landmarks and six attributes in the format of WFLW."""

    seed: int
    """Each image depends only on (seed, split, index) and on the other options."""
    train_images: int
    """Number of faces, one per image, in the training list."""
    test_images: int
    """Number of faces in the test list."""
    image_size: tuple[int, int]
    """Height and width of the images, pixels."""
    face_size: tuple[float, float]
    """Smallest and largest longer side of the landmarks' box, as a fraction of the image's shorter side."""
    yaw_deg: float
    """Standard deviation of the direction in which a face without large pose looks, degrees; 0: into the camera."""
    large_yaw_deg: tuple[float, float]
    """Smallest and largest angle by which a face with large pose is turned to either side, degrees."""
    pitch_deg: float
    """Standard deviation of the nod up or down, degrees; 1.6 times this for large pose."""
    roll_deg: float
    """Standard deviation of the head's tilt to a shoulder, degrees; 1.6 times this for large pose."""
    pose_fraction: float
    """Fraction of faces with large pose, 0 to 1. Unless it is 0, each split of six or more has one; likewise below."""
    expression_fraction: float
    """Fraction of faces with a strong expression, 0 to 1."""
    illumination_fraction: float
    """Fraction of faces in hard light (from the side or below, coloured, too dark or too bright), 0 to 1."""
    make_up_fraction: float
    """Fraction of faces with make-up, 0 to 1."""
    occlusion_fraction: float
    """Fraction of faces partly hidden by glasses, a mask or an object, 0 to 1."""
    blur_fraction: float
    """Fraction of blurred images, 0 to 1."""
    clutter: float
    """0: plain background; 1: strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds from photographs (the ones in scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of an image without hard light, relative to a well exposed one."""
    supersampling: int
    """Samples per pixel in each direction; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


@parameters
class GenerateMesh:
    """A dataset of single people with the parameters of an SMPL-format body.

    It consists of a training set in SPIN's format, a test set in 3DPW's format, and the body model.

    What a small network learns in minutes depends on the background. tcformer_nano at 64 pixels, trained for 12 epochs
    on 2000 people with yaw_deg 30, pose_variety 0.9 and shape_variety 0.3, has 0.74 times the MPJPE and 0.78 times the
    PA-MPJPE of the mean body if clutter and photo_fraction are 0, but 0.80 and 0.85 times if they are 0.25 and 0.2.
    """

    seed: int
    """Each image depends only on (seed, split, index) and on the other options."""
    train_images: int
    """Number of images of the training set, one person each."""
    test_images: int
    """Number of frames of the test set; each sequence of 25 frames shows one person."""
    image_size: tuple[int, int]
    """Height and width of the images, pixels."""
    figure_height: tuple[float, float]
    """Smallest and largest height of the person, as a fraction of the image's height."""
    yaw_deg: float
    """Standard deviation of the direction that people face, degrees; 0: all face the camera."""
    back_view_fraction: float
    """Fraction of people who face away from the camera, 0 to 1."""
    camera_pitch_deg: float
    """Standard deviation of the camera's pitch, degrees; positive pitch looks down."""
    pose_variety: float
    """As for `GenerateWholebody`."""
    shape_variety: float
    """0: all people have the mean body; 1: all bodies, children among them. A person's height hardly shows in a crop
    but counts in the MPJPE: at 1, the true pose on the mean body has an MPJPE of 70 mm."""
    occluder_fraction: float
    """Fraction of images with a piece of furniture in front of the person, 0 to 1."""
    clutter: float
    """0: plain background; 1: strong patterns and up to a dozen objects."""
    photo_fraction: float
    """Fraction of backgrounds from photographs (the ones in scikit-image's wheel), 0 to 1."""
    light_range: tuple[float, float]
    """Smallest and largest exposure of an image relative to a well exposed one."""
    supersampling: int
    """Samples per pixel in each direction; 2 looks clean, 1 is faster."""
    jpeg_quality: int
    """JPEG quality, 1 to 100."""


_LIMITS: dict[str, tuple[float, float]] = {
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
    """Check the values of options.

    Raises:
        UserError: if a value is outside its limits, or the ends of a range are swapped.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        least, most = _LIMITS[field.name]
        values = value if isinstance(value, tuple) else (value,)
        if not all(least <= each <= most for each in values):
            raise UserError(f"{field.name}: expected {least} to {most}, found {value}; change it in params.yaml")
        if field.name in _RANGES and values[0] > values[1]:
            raise UserError(
                f"{field.name}: expected the smaller value first, found {value}; swap the two in params.yaml"
            )

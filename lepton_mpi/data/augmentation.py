"""What is done to training rows at random: the words of ``--augment``, checked. ``augmentation_kernels.py`` does it.

Words are checked alone, before any file is opened, and again with the shape of the rows. Imports no NumPy:
``config.py`` needs it for ``--help``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.wording import did_you_mean

_NAMES = ("flip", "crop", "noise")
_EXPECTED = "flip, crop=PIXELS or noise=DEVIATION"


@dataclass(frozen=True)
class Augmentation:
    """What is done to a row each time it is read for training.

    Attributes
    ----------
    flip
        Images are mirrored left to right, every second time on average.
    crop
        Images are surrounded by so many pixels of 0 on each side, and a part of the old size is cut out of that,
        with each place of it as likely as any other. 0: none.
    noise
        Standard deviation of the normal noise that is added to each value after it was normalised. 0: none.
    """

    flip: bool = False
    crop: int = 0
    noise: float = 0.0


def check_words(words: Sequence[str]) -> Augmentation | None:
    """What the words ask for, whatever the rows are; None for no words.

    Raises
    ------
    ConfigurationError
        For unknown words, words that come twice, and numbers that cannot be meant.
    """
    asked = {}
    for word in words:
        name, equals, number = word.partition("=")
        if name not in _NAMES:
            raise _wrong(_EXPECTED, f"{word!r}{did_you_mean(name, _NAMES)}")
        if name in asked:
            raise _wrong("each word once", f"{name} twice in {' '.join(words)!r}")
        if name == "flip" and equals:
            raise _wrong("flip without a number", repr(word))
        asked[name] = True if name == "flip" else _NUMBERS[name](word, number)
    return Augmentation(**asked) if asked else None


def parse(words: Sequence[str], shape: tuple[int, ...] | None) -> Augmentation | None:
    """What the words ask for, for rows of this shape, None if none of their inputs is numbers; None for no words.

    Raises
    ------
    ConfigurationError
        As ``check_words``; for rows without numbers; and for flip or crop of rows that are not images, or are smaller
        than what is cropped.
    """
    augmentation = check_words(words)
    if augmentation and shape is None:
        raise _wrong("rows with numbers in them", "tokens or categories alone")
    if augmentation and shape is not None and (augmentation.flip or augmentation.crop):
        name = "flip" if augmentation.flip else "crop"
        if not _is_image(shape):
            hint = ", which has its channels in front" if len(shape) == 3 else ""
            raise ConfigurationError(
                f"--augment {name}: expected images, rows of shape (height, width) or (height, width, channels), "
                f"got rows of shape {shape}{hint}"
            )
        smaller = min(shape[:2])
        if augmentation.crop > smaller:
            raise ConfigurationError(
                f"--augment crop: expected at most {smaller} pixels, the smaller side of images of shape "
                f"{shape}, got {augmentation.crop}"
            )
    return augmentation


def image_size(feature_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels, as the kernel takes them; rows that are no images are one line of one channel."""
    if not _is_image(feature_shape):
        return 1, prod(feature_shape), 1
    height, width, *channels = feature_shape
    return height, width, *(channels or [1])


def _is_image(shape: tuple[int, ...]) -> bool:
    """Whether a row is (height, width) or (height, width, channels), as ``prepare`` writes images.

    (1, 28, 28) and (3, 32, 32) are what channels in front look like: there, left and right are elsewhere.
    """
    channels_first = len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4
    return len(shape) in (2, 3) and not channels_first


def _pixels(word: str, number: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) > 0):
        raise _wrong("crop=PIXELS, a whole number of at least 1", repr(word))
    return int(number)


def _deviation(word: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise _wrong("noise=DEVIATION, a finite number above 0", repr(word))
    return value


_NUMBERS = {"crop": _pixels, "noise": _deviation}


def _wrong(expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(f"--augment: expected {expected}, got {got}")

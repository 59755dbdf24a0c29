"""Images, of folders by class or named by a table, read by Pillow (the extra ``images``)."""

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lepton_mpi.errors import DataError, LauncherError, LeptonError
from lepton_mpi.extras import pip_install
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Source
from lepton_mpi.prepare.readers.class_folders import IMAGES, list_classes
from lepton_mpi.prepare.readers.file_rows import FilePart, FileRows, Unreadable
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line

_GREY = ("L", "1", "LA")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
# Formats of several images in a file.
_SEVERAL = ("GIF", "TIFF", "WEBP")
# EXIF's number of the orientation, and those that are not upright.
_ORIENTATION, _TURNED = 0x0112, range(2, 9)
# What is done about warnings is one for the process, whose threads may be ranks of a test.
_ONE_AT_A_TIME = threading.Lock()


def open_images(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Rows uint8 of shape (height, width) or (height, width, 3), by class. Collective."""
    found = None
    with world.agreeing():
        _pillow()
        if world.rank == 0:
            found = list_classes(inputs, IMAGES, options)
    found = world.comm.bcast(found)
    rows = [FileRows.of_classes(files, inputs[0].path) for files in found.files]
    facts = {"format": "images by class", "class_names": found.names}
    return image_source(rows, options, world, tuple(found.notes), facts)


def image_source(
    rows: list[FileRows], options: Options, world, notes: tuple[str, ...], facts: dict[str, Any]
) -> Source:
    """Rows of these files, of the colour and size of the first. Collective. ``facts`` are fields of ``Source``."""
    look = None
    with world.agreeing():
        _pillow()
        if world.rank == 0:
            look = _look_at_first([path for some in rows for path in some.paths], options)
    colour, shape = world.comm.bcast(look)
    parts = [ImagePart(some, colour, shape, options) for some in rows]
    size = options.image_size
    resized = (f"resized to {size[0]}x{size[1]}",) if size else ()
    return Source(
        tuple(parts), row_shape=shape, notes=(f"{colour} images", *resized, *notes), **facts
    )


def _look_at_first(paths: list[Path], options: Options) -> tuple[str, tuple[int, ...]]:
    """Colour and shape of the first image that can be read. Raises DataError."""
    for path in paths:
        try:
            colour = options.colour
            if colour == "auto":
                colour = "grey" if _mode(path) in _GREY else "rgb"
            image, _ = read_image(path, colour, options.image_size, None, options.colour)
            return colour, image.shape
        except Unreadable:
            if options.unreadable != "drop":
                raise
    raise DataError(f"{paths[0]}: expected an image that can be read, got none of {len(paths)}")


def _pillow():
    try:
        from PIL import Image
    except ImportError:
        raise LauncherError(f"images are read by Pillow: {pip_install('images')}") from None
    return Image


def _mode(path: Path) -> str:
    image_class = _pillow()
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", image_class.DecompressionBombWarning)
            with image_class.open(path) as image:
                return image.mode
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> Unreadable:
    hint = "--unreadable drop leaves such files out"
    return Unreadable(f"{path}: not a readable image: {one_line(error)}; {hint}")


def read_image(
    path: Path,
    colour: str,
    size: tuple[int, int] | None,
    expected: tuple[int, ...] | None,
    asked: str,
) -> tuple[np.ndarray, list[str]]:
    """Pixels, uint8, of the shape ``expected``, upright; and what the user should know. Raises DataError naming the file.

    ``asked`` is --colour: with auto, an image of the other kind than the first is refused, since turning it would be silent.
    """
    try:
        image, mode, notes = _loaded(path, colour)
    except LeptonError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise _unreadable(path, error) from None
    kind = "grey" if mode in _GREY else "rgb"
    if mode not in (*_GREY, *_COLOUR):
        raise DataError(f"{path}: expected an image of 8 bits a colour, got mode {mode}")
    if asked == "auto" and kind != colour:
        raise DataError(
            f"{path}: expected a {colour} image as the first one, got {kind}; see --colour"
        )
    if size is not None:
        image = image.resize(size[::-1], _pillow().Resampling.BILINEAR)
    pixels = np.array(image, np.uint8)
    if expected is not None and pixels.shape != expected:
        raise DataError(
            f"{path}: expected {expected[0]}x{expected[1]} pixels as in the first image, got "
            f"{pixels.shape[0]}x{pixels.shape[1]}; see --image-size"
        )
    return pixels, notes


def _loaded(path: Path, colour: str) -> tuple[Any, str, list[str]]:
    """The image, upright and of this colour; its mode; and what Pillow warns of.

    Raises whatever Pillow does, also for one too large to be meant well.
    """
    image_class, notes = _pillow(), []
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.simplefilter("error", image_class.DecompressionBombWarning)
        with image_class.open(path) as image:
            image.load()
            mode = image.mode
            if image.format in _SEVERAL and _has_second(path):
                notes.append("file of several images, of which the first is read")
            if mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                notes.append("image whose transparency is left out")
            upright, turned = _upright(image)
            notes += ["image turned as its EXIF says"] * turned
            converted = upright.convert("L" if colour == "grey" else "RGB")
    texts = {one_line(warning.message).split(". ")[0][:100] for warning in told}
    notes += [f"image of which Pillow warns: {text}" for text in sorted(texts)]
    return converted, mode, notes


def _has_second(path: Path) -> bool:
    with _pillow().open(path) as image:
        try:
            image.seek(1)
        except EOFError:
            return False
    return True


def _upright(image: Any) -> tuple[Any, bool]:
    """The image as viewers show it, and whether it had to be turned; EXIF that cannot be read says nothing."""
    from PIL import ImageOps

    try:
        if image.getexif().get(_ORIENTATION) not in _TURNED:
            return image, False
        return ImageOps.exif_transpose(image), True
    except Exception:
        warnings.warn("EXIF that cannot be read", stacklevel=1)
        return image, False


class ImagePart(FilePart):
    """Images of one split; see ``Part``."""

    def __init__(
        self, files: FileRows, colour: str, shape: tuple[int, ...], options: Options
    ) -> None:
        super().__init__(files, np.empty((0, *shape), np.uint8), options)
        self._colour, self._row_shape, self._options = colour, shape, options

    def read_file(self, path: Path) -> tuple[np.ndarray, list[str]]:
        """Pixels of one image. Raises DataError."""
        size, asked = self._options.image_size, self._options.colour
        return read_image(path, self._colour, size, self._row_shape, asked)

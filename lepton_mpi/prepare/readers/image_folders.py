"""Folders of images by class, read by Pillow (the extra ``images``)."""

import warnings
from pathlib import Path

import numpy as np

from lepton_mpi.errors import DataError, LauncherError, LeptonError
from lepton_mpi.prepare.options import Options
from lepton_mpi.prepare.readers import Block, RowPart, Source
from lepton_mpi.prepare.readers.class_folders import IMAGES, ClassFiles, list_classes
from lepton_mpi.prepare.readers.inputs import Input
from lepton_mpi.wording import one_line

_GREY = ("L", "1", "LA")
_COLOUR = ("RGB", "RGBA", "P", "CMYK", "YCbCr")


def open_images(inputs: tuple[Input, ...], options: Options, world) -> Source:
    """Rows uint8 of shape (height, width) or (height, width, 3). Collective."""
    found = None
    with world.agreeing():
        _pillow()
        if world.rank == 0:
            files, names = list_classes(inputs, IMAGES)
            first = files[0].paths[0]
            colour = options.colour
            if colour == "auto":
                colour = "grey" if _mode(first) in _GREY else "rgb"
            shape = read_image(first, colour, options.image_size, None, options.colour).shape
            found = files, names, colour, shape
    files, names, colour, shape = world.comm.bcast(found)
    parts = [ImagePart(some, inputs[0].path, colour, shape, options) for some in files]
    resized = (
        (f"resized to {options.image_size[0]}x{options.image_size[1]}",)
        if options.image_size
        else ()
    )
    return Source(
        tuple(parts),
        "images by class",
        shape,
        class_names=names,
        notes=(f"{colour} images", *resized),
    )


def _pillow():
    try:
        from PIL import Image
    except ImportError:
        raise LauncherError("images are read by Pillow: pip install 'lepton_mpi[images]'") from None
    return Image


def _mode(path: Path) -> str:
    image_class = _pillow()
    try:
        with image_class.open(path) as image:
            return image.mode
    except Exception as error:
        raise DataError(f"{path}: not a readable image: {one_line(error)}") from None


def read_image(
    path: Path,
    colour: str,
    size: tuple[int, int] | None,
    expected: tuple[int, ...] | None,
    asked: str,
) -> np.ndarray:
    """Pixels, uint8, of the shape ``expected``. Raises DataError naming the file.

    ``asked`` is --colour: with auto, an image of the other kind than the first is refused, since turning it would be silent.
    """
    image_class = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error"
            )  # Pillow warns of images that are too large to be meant well
            with image_class.open(path) as image:
                kind = (
                    "grey"
                    if image.mode in _GREY
                    else "rgb"
                    if image.mode in _COLOUR
                    else image.mode
                )
                if kind not in ("grey", "rgb"):
                    raise DataError(
                        f"{path}: expected an image of 8 bits a colour, got mode {kind}"
                    )
                if asked == "auto" and kind != colour:
                    raise DataError(
                        f"{path}: expected a {colour} image as the first one, got {kind}; see --colour"
                    )
                image = image.convert("L" if colour == "grey" else "RGB")
                if size is not None:
                    image = image.resize(size[::-1], image_class.Resampling.BILINEAR)
                pixels = np.array(image, np.uint8)
    except LeptonError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise DataError(f"{path}: not a readable image: {one_line(error)}") from None
    if expected is not None and pixels.shape != expected:
        raise DataError(
            f"{path}: expected {expected[0]}x{expected[1]} pixels as in the first image, got "
            f"{pixels.shape[0]}x{pixels.shape[1]}; see --image-size"
        )
    return pixels


class ImagePart(RowPart):
    """Images of one split; see ``Part``."""

    def __init__(
        self, files: ClassFiles, folder: Path, colour: str, shape: tuple[int, ...], options: Options
    ) -> None:
        name = folder.name + (f"/{files.split}" if files.split else "")
        super().__init__(name, files.split, len(files.paths), int(np.prod(shape)), options.block)
        self._files, self._colour, self._shape, self._options = files, colour, shape, options

    def read_rows(self, start: int, stop: int) -> Block:
        """Rows [start, stop). Raises DataError."""
        size, asked = self._options.image_size, self._options.colour
        images = [
            read_image(path, self._colour, size, self._shape, asked)
            for path in self._files.paths[start:stop]
        ]
        codes = np.array(self._files.codes[start:stop], np.int64)
        return Block(np.stack(images), codes, {}, first_row=start)

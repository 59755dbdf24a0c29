"""Files of weights that Keras 3 writes, and its outputs, with which ``test_keras_pretrained.py`` compares those of the same weights here.

    KERAS_BACKEND=torch PYTHONPATH=. python -m tests.serial.keras_pretrained

with keras and torch writes them anew to ``keras_pretrained.npz`` beside this file, which holds the bytes of each file. Inputs are functions of fixed
numbers and need NumPy only.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
ROWS, CLASSES = 3, 5
ROW_SHAPES = {
    "mlp": (12,),
    "logistic": (12,),
    "cnn": (10, 9, 3),
    # Two blocks name what they add in one order, two in the other; stride 2 pads one place on each side, as here.
    "resnet8, body first": (19, 18, 3),
    "resnet8, shortcut first": (19, 18, 3),
}


def rows(case: str) -> np.ndarray:
    """Numbers, float32."""
    shape = (ROWS, *ROW_SHAPES[case])
    return np.random.default_rng(7).standard_normal(shape).astype("f4")


def stored(case: str, folder: Path) -> tuple[Path, np.ndarray]:
    """The file that Keras wrote, and its outputs."""
    path = folder / "model.weights.h5"
    with np.load(FILE) as file:
        path.write_bytes(file[f"{case}/file"].tobytes())
        return path, file[f"{case}/logits"]


def main() -> None:
    """Write the file."""
    import keras

    found = {}
    for number, case in enumerate(ROW_SHAPES):
        keras.utils.set_random_seed(number)
        model = keras_model(case)
        generator = np.random.default_rng(number)
        model.set_weights([_moved(generator, a) for a in model.get_weights()])
        # An optimizer and generators of random numbers are in the file, too.
        model.compile("adam", "mse")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.weights.h5")
            model.save_weights(path)
            found[f"{case}/file"] = np.frombuffer(path.read_bytes(), np.uint8)
        found[f"{case}/logits"] = np.asarray(model.predict(rows(case), verbose=0))
    np.savez_compressed(FILE, keras=np.array(keras.__version__), **found)


def _moved(generator: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """So that nothing is 0 or 1, and outputs differ; variances stay above 0."""
    return 1.5 * array if array.ndim > 1 else array + generator.uniform(0.1, 0.9, array.shape)


def keras_model(case: str) -> Any:
    import keras
    from keras import layers

    x = given = keras.Input(ROW_SHAPES[case])
    if case == "mlp":
        x = layers.Dense(8, "relu")(x)
    elif case == "logistic":
        return keras.Sequential([given, layers.Dense(1)])
    elif case == "cnn":
        for channels in (3, 4):
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(_norm()(x))
            x = layers.MaxPooling2D(2)(x)
        x = layers.Dense(8, "relu")(layers.Flatten()(x))
        x = layers.Dropout(0.2)(x)
    else:
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(_norm()(x))
        for outputs, stride in ((4, 1), (8, 2), (16, 2)):
            x = _block(x, outputs, stride, case.endswith("shortcut first"))
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(given, layers.Dense(CLASSES)(x))


def _norm() -> Any:
    from keras import layers

    return layers.BatchNormalization(epsilon=1e-5)


def _block(x: Any, outputs: int, stride: int, is_shortcut_first: bool) -> Any:
    from keras import layers

    y = layers.ZeroPadding2D(1)(x)
    y = layers.Conv2D(outputs, 3, stride, use_bias=False)(y)
    y = layers.ReLU()(_norm()(y))
    y = layers.Conv2D(outputs, 3, padding="same", use_bias=False)(y)
    y = _norm()(y)
    if stride > 1:
        x = _norm()(layers.Conv2D(outputs, 1, stride, use_bias=False)(x))
    return layers.ReLU()(layers.Add()([x, y] if is_shortcut_first else [y, x]))


if __name__ == "__main__":
    main()

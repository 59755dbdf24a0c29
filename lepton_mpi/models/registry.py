"""Models by name."""

from math import prod
from typing import Any

from lepton_mpi.errors import ConfigurationError
from lepton_mpi.registry import is_own_file, load


def make_model(config: Any, data: Any, threaded: bool = False) -> Any:
    """The model that ``config.model`` names, or ``FILE.py:NAME``, called as ``NAME(feature_shape, output_count)``.

    Parameters
    ----------
    config : lepton_mpi.options.config.Config
    data : lepton_mpi.data.dataset.DataSet
        Of its ``class_count`` and ``target_count``, the one that is not None or 0 is the number of outputs.
    threaded
        Whether matrix products shall use the threads of BLAS.

    Raises
    ------
    ConfigurationError
    """
    name, features, loss = config.model, prod(data.feature_shape), config.loss
    if name == "mlp":
        from lepton_mpi.models.mlp import Mlp

        if loss == "auto":
            loss = "cross_entropy" if data.class_count else "mse"
        widths = (features, *config.hidden, data.output_count)
        return Mlp(widths, threaded, config.activation, config.dropout, loss, config.huber_delta)
    if name == "logistic":
        from lepton_mpi.models.logistic import Logistic

        if data.class_count != 2:
            raise ConfigurationError(
                f"--model logistic: expected data of 2 classes, got {data.outputs_text}; take --model mlp --hidden "
                "(no width) for more"
            )
        return Logistic(features)
    if not is_own_file(name):
        raise ConfigurationError(f"--model: expected mlp, logistic or FILE.py:NAME, got {name!r}")
    return load("--model", name)(data.feature_shape, data.output_count)

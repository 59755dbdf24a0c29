"""JAX: a pytree over all ranks, in and outside of ``jit``, and a loss function as a model of ``fit``."""

from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs jax, which is not installed")

import jax.numpy as jnp  # noqa: E402

import lepton_mpi.jax  # noqa: E402
from lepton_mpi.errors import ConfigurationError, RankError  # noqa: E402
from lepton_mpi.options.config import Config  # noqa: E402
from lepton_mpi.run.fit import train  # noqa: E402
from tests.parallel.alone import trained_alone  # noqa: E402
from tests.parallel.conftest import folder, limited, world  # noqa: E402, F401
from tests.parallel.together import refused, together  # noqa: E402

FILE = Path(__file__)


def _params(key):
    first, last = jax.random.split(key)
    return {
        "layers": [
            {"w": jax.random.normal(first, (64, 33)) / 8, "b": jnp.zeros(33)},
            {"w": jax.random.normal(last, (33, 10)) / 6, "b": jnp.zeros(10)},
        ]
    }


def _hidden(params, rows):
    first = params["layers"][0]
    return jnp.tanh(rows.x.reshape(len(rows.x), -1) @ first["w"] + first["b"])


def _scores(params, rows):
    return _hidden(params, rows) @ params["layers"][1]["w"] + params["layers"][1]["b"]


def _loss(params, rows):
    return _nats(_scores(params, rows), rows.y)


def _nats(scores, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), y[:, None], 1).mean()


def _dropping_loss(params, rows):
    hidden = _hidden(params, rows)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.7, (33,)))(rows.keys)
    last = params["layers"][1]
    return _nats(jnp.where(kept, hidden / 0.7, 0) @ last["w"] + last["b"], rows.y)


def network(feature_shape, output_count):
    """For --model."""
    return lepton_mpi.jax.model(_loss, _params, predict=_scores)


def dropping(feature_shape, output_count):
    """For --model."""
    return lepton_mpi.jax.model(_dropping_loss, _params, predict=_scores)


# -- a pytree ------------------------------------------------------------------------------------------


def _tree(rank):
    return {
        "w": jnp.arange(6.0).reshape(2, 3) * (rank + 1),
        "more": (jnp.full((), rank, jnp.float32), jnp.zeros((0, 3))),
        "half": jnp.full(5, rank, jnp.bfloat16),
    }


@pytest.mark.parametrize("inside", [False, True], ids=["outside of jit", "inside of jit"])
@pytest.mark.parametrize("op", ["mean", "sum", "max"])
def test_a_tree_over_all_ranks(world, inside, op):  # noqa: F811
    """Every leaf, in its type; what was given stays."""
    given = _tree(world.rank)
    call = lambda tree: lepton_mpi.jax.allreduce(tree, op)  # noqa: E731
    found = (jax.jit(call) if inside else call)(given)
    n = world.size
    of_ranks = {"mean": (n - 1) / 2, "sum": n * (n - 1) / 2, "max": n - 1}[op]
    of_w = {"mean": (n + 1) / 2, "sum": n * (n + 1) / 2, "max": n}[op]
    with together(world):
        assert np.array_equal(found["w"], np.arange(6.0).reshape(2, 3) * of_w)
        assert float(found["more"][0]) == of_ranks and found["more"][1].shape == (0, 3)
        assert found["half"].dtype == jnp.bfloat16 and float(found["half"][0]) == of_ranks
        assert isinstance(found["w"], jax.Array)
        assert np.array_equal(given["w"], np.arange(6.0).reshape(2, 3) * (world.rank + 1))


def test_many_inside_of_one_program_come_in_its_order(world):  # noqa: F811
    """Also where the first has to wait for a matrix product and the second for nothing, on one rank more than on another."""

    @jax.jit
    def program(x, rank):
        found = []
        for number in range(8):
            slow = x @ x if (number + world.rank) % 2 else x
            found.append(lepton_mpi.jax.allreduce({f"{number}": slow.mean() * 0 + number + rank}))
        return [next(iter(each.values())) for each in found]

    found = program(jnp.ones((300, 300)), world.rank)
    outside = lepton_mpi.jax.allreduce(jnp.float32(world.rank))
    with together(world):
        assert [float(each) for each in found] == [k + (world.size - 1) / 2 for k in range(8)]
        assert float(outside) == (world.size - 1) / 2


def test_in_a_scan_and_in_a_loop_of_steps(world):  # noqa: F811
    """Losses of gradient descent on all ranks' rows are those of one rank with all rows."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((96, 8)).astype(np.float32)
    y = x @ np.arange(8, dtype=np.float32)
    mine = slice(world.rank, None, world.size)

    def loss(w, x, y):
        return ((x @ w["w"] + w["b"] - y) ** 2).mean()

    def steps(x, y, combine):
        def step(w, _):
            value, gradient = combine(jax.value_and_grad(loss)(w, x, y))
            return jax.tree.map(lambda a, g: a - 0.05 * g, w, gradient), value

        begin = {"w": jnp.zeros(8), "b": jnp.zeros(())}
        return jax.jit(lambda w: jax.lax.scan(step, w, None, 60)[1])(begin)

    found = steps(x[mine], y[mine], lepton_mpi.jax.allreduce)
    alone = steps(x, y, lambda tree: tree)
    with together(world):
        if 96 % world.size == 0:  # else a mean of means is another one
            assert np.allclose(found, alone, rtol=1e-5, atol=1e-6)


def test_broadcast_and_wrong_calls(world):  # noqa: F811
    """Rank 0's tree; other names, types and operations are named on all ranks."""
    found = lepton_mpi.jax.broadcast({"codes": jnp.arange(3) + 10 * world.rank})
    with together(world):
        assert found["codes"].tolist() == [0, 1, 2]
    with pytest.raises(ConfigurationError, match="op: expected mean, sum"):
        lepton_mpi.jax.allreduce(jnp.ones(2), "median")
    if world.size > 1:
        with refused(world, RankError, "what is combined differs"):
            lepton_mpi.jax.allreduce({f"of {world.rank}": jnp.ones(2)})


# -- a model of fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["network", "dropping"])
def test_a_function_as_a_model(world, name):  # noqa: F811
    """Losses, and here bits, of one rank; the parameters come back in their tree."""
    config = Config(
        **{"data": "digits", "model": f"{FILE}:{name}", "epochs": 3, "progress": "none"},
        # 1 150 rows in equal parts: every other number of rows is one more program to compile.
        **{"learning_rate": 0.01, "global_batch": 50, "micro_batch": 10},
    )
    result = train(config, world)
    with together(world):
        assert result["test_accuracy"] > 0.85
        if world.rank == 0:
            assert result["weights_digest"] == trained_alone(config)
        weights = result["params"]["layers"][0]["w"]
        assert np.array_equal(weights, result["parameters"]["layers/0/w"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": lambda p, rows: _scores(p, rows)}, "loss: expected a scalar, got shape"),
        ({"params": {"codes": jnp.arange(3)}}, "params codes: expected floats, got int32"),
        ({"reduction": "none"}, "reduction: expected 'mean' or 'sum'"),
        ({"reduction": "sum"}, "loss: expected the sum over the rows of a micro-batch"),
    ],
)
def test_a_mistake_is_named(world, options, message):  # noqa: F811
    """On every rank that computes."""
    given = {"loss": _loss, "params": _params} | options
    with pytest.raises(ConfigurationError) as raised:
        model = lepton_mpi.jax.model(given.pop("loss"), given.pop("params"), **given)
        train(Config(data="digits", epochs=1, progress="none"), world, model)
    with together(world):
        assert message in str(raised.value)


def test_float64_needs_the_option_of_jax(world):  # noqa: F811
    """Else JAX would compute in float32 and say nothing."""
    config = Config(data="digits", model=f"{FILE}:network", dtype="float64", epochs=1)
    with refused(world, ConfigurationError, "jax_enable_x64"):
        train(config, world)

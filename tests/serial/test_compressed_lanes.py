"""Compressed sums between hosts, which are threads here: the same bits everywhere, nothing lost, bytes as by the formula."""

from time import monotonic, sleep
from types import SimpleNamespace

import numpy as np
import pytest

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.between_hosts.lanes import SEGMENT_BYTES, LaneExchange
from lepton_mpi.collectives.compressing import exchange
from lepton_mpi.collectives.compressing.compression import (
    Compression,
    is_of_codec,
    residuals_of,
    undelivered,
)
from lepton_mpi.collectives.compressing.exchange import Counted, Slice
from lepton_mpi.collectives.compressing.vector_lanes import PairExchange
from lepton_mpi.collectives.messages.threads import ThreadWorld, run_ranks
from lepton_mpi.strategies.registry import CODECS
from lepton_mpi.vectors import Layout
from tests import reference_codecs

SHAPES = {"w": (60, 40), "b": (40,), "mean": (7,), "v": (9, 5, 11), "narrow": (2, 3)}
LAYOUT = Layout(SHAPES)
TEXTS = (
    *("fp16", "bf16", "int8", "int4", "sign"),
    *("topk:0.05", "topk:0.05,sampled", "randomk:0.05", "powersgd:2"),
)
codecs = pytest.mark.parametrize("text", TEXTS)
ROUNDS = 6


def _codec(text: str, dtype=np.float32):
    name, _, option = text.partition(":")
    return CODECS.find(name)(option, np.dtype(dtype))


def _group(host: int, hosts: int) -> SimpleNamespace:
    """One rank a host."""
    return SimpleNamespace(
        **{"host_index": host, "host_count": hosts, "lane_count": 1, "local_rank": 0},
        host_array=lambda shape, dtype, name: np.zeros(shape, dtype),
    )


def _compression(host: int, hosts: int, text: str, exact=("mean",), after=0) -> Compression:
    made = Compression(_group(host, hosts), _codec(text), LAYOUT, seed=3, exact=exact, after=after)
    made.slices(made.buckets([(0, LAYOUT.size)]))
    return made


def _nodes(host: int, round_: int, node_count: int) -> np.ndarray:
    generator = np.random.default_rng([host, round_])
    return generator.standard_normal((node_count, LAYOUT.size)).astype(np.float32)


def _host(compression: Compression, worlds, host: int, node_count: int, runs_at_random: bool):
    """Sums of all rounds, and the bytes of one, on one host."""
    transports = [Counted(world.transport(host)) for world in worlds]
    rows = np.zeros((max(1, node_count), LAYOUT.size), np.float32)
    of = Slice(
        *(list(rows[:node_count]), rows[0], compression._residual),
        *(compression._owner_residual, 0, compression.key),
        compression._exact_in(0, LAYOUT.size),
    )
    if not compression._owner_residual.size:
        of.owner_residual = np.zeros(0, np.float32)
    lane, random = compression.lane_of(of, transports), np.random.default_rng(host)
    found = []
    for round_ in range(ROUNDS):
        compression.step = round_ + 1
        rows[:node_count] = _nodes(host, round_, node_count)
        before = sum(transport.sent_bytes for transport in transports)
        if runs_at_random:
            _run_at_random(lane, random)
        else:
            exchange.run([lane])
        found.append(rows[0].copy())
    return found, sum(transport.sent_bytes for transport in transports) - before


def _run_at_random(lane, random: np.random.Generator) -> None:
    """As ``OverlappedSum`` does: no sums before all parts have left."""
    lane.start_receiving()
    sleep(random.random() * 0.002)
    lane.start_sending()
    limit = monotonic() + 20
    while not lane.has_left or not lane.is_summed:
        assert not lane.poll(sends_sums=False)
        assert monotonic() < limit, "the exchange does not come to its end"
        sleep(0)
    while not lane.poll():
        assert monotonic() < limit, "the exchange does not come to its end"
        sleep(0)


def _all_hosts(text: str, counts: list[int], rendezvous=False, runs_at_random=False, after=0):
    hosts = len(counts)
    worlds = [ThreadWorld(hosts, rendezvous=rendezvous) for _ in range(6 if after else 4)]
    made = [_compression(host, hosts, text, after=after) for host in range(hosts)]

    def rank(transport):
        me = transport.rank
        return _host(made[me], worlds, me, counts[me], runs_at_random)

    return made, run_ranks(ThreadWorld(hosts), rank)


@codecs
@pytest.mark.parametrize("counts", [[1, 1], [1, 2, 1], [2, 0, 1], [1, 1, 1, 1]], ids=str)
def test_hosts_end_with_the_same_bits_and_nothing_is_lost(text, counts):
    """Whatever nodes they have; with all residuals the sums are those of all vectors, and what is exact always is."""
    made, results = _all_hosts(text, counts)
    sums = [found for found, _ in results]
    for other in sums[1:]:
        for one, another in zip(sums[0], other, strict=True):
            np.testing.assert_array_equal(one, another)
    given = [
        sum(_nodes(host, round_, count).sum(axis=0) for host, count in enumerate(counts))
        for round_ in range(ROUNDS)
    ]
    left = sum(each._residual.astype(float) for each in made)
    if made[0]._has_owners:
        left = left + sum(each._own_part(each._owner_residual).astype(float) for each in made)
    total = sum(one.astype(float) for one in sums[0])
    scale = max(np.abs(np.array(given)).max(), np.abs(left).max())
    np.testing.assert_allclose(total + left, np.sum(given, axis=0), rtol=0, atol=1e-5 * scale)
    start, stop = LAYOUT.bounds[2]
    for one, expected in zip(sums[0], given, strict=True):
        np.testing.assert_allclose(one[start:stop], expected[start:stop], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 7, 40_000])
def test_a_pair_of_hosts_has_the_bits_of_three_steps_in_half_the_messages(count):
    """Of any length, in one segment and in several, where ``LaneExchange`` sends parts, and then sums."""

    def sums(is_pair: bool) -> list[tuple[np.ndarray, int]]:
        worlds = [ThreadWorld(2), ThreadWorld(2)]

        def host(transport):
            draws = np.random.default_rng([transport.rank, count])
            values = draws.standard_normal(count).astype(np.float32)
            parts, sums = (Counted(world.transport(transport.rank)) for world in worlds)
            starts = [[0], [1]]
            exchange.run(
                [
                    PairExchange(values, parts)
                    if is_pair
                    else LaneExchange(
                        *(parts, [values], values, starts, 0, count), sum_transport=sums
                    )
                ]
            )
            return values, parts.sent_messages + sums.sent_messages

        return run_ranks(ThreadWorld(2), host)

    expected, many = sums(False)[0]
    for found, few in sums(True):
        np.testing.assert_array_equal(found, expected)
        assert few == -(-4 * count // SEGMENT_BYTES) and (few < many or count < 2)


@pytest.mark.slow(but_every=5)
@codecs
@pytest.mark.parametrize("rendezvous", [False, True])
@pytest.mark.parametrize("counts", [[1, 2, 1], [1, 2]], ids=str)
def test_an_exchange_that_is_polled_has_the_bits_of_one_that_runs(text, rendezvous, counts):
    _, polled = _all_hosts(text, counts, rendezvous, runs_at_random=True)
    _, run = _all_hosts(text, counts)
    for (one, sent), (other, also_sent) in zip(polled, run, strict=True):
        np.testing.assert_array_equal(one, other)
        assert sent == also_sent


@pytest.mark.slow(but_every=5)
@codecs
@pytest.mark.parametrize("runs_at_random", [False, True])
def test_a_warm_up_sums_vectors_as_they_are(text, runs_at_random, monkeypatch):
    """And leaves nothing out; what comes then has the bits of a run that begins there."""
    after, counts = 3, [1, 2, 1]
    made, results = _all_hosts(text, counts, runs_at_random=runs_at_random, after=after)
    sums = [found for found, _ in results]
    for round_ in range(ROUNDS):
        for other in sums[1:]:
            np.testing.assert_array_equal(sums[0][round_], other[round_])
    for round_ in range(after):
        given = [_nodes(host, round_, count).sum(axis=0) for host, count in enumerate(counts)]
        np.testing.assert_allclose(sums[0][round_], np.sum(given, axis=0), rtol=0, atol=1e-5)

    def nodes(host, round_, count, plain=_nodes):
        return plain(host, round_, count) if round_ >= after else np.zeros((count, LAYOUT.size))

    monkeypatch.setitem(globals(), "_nodes", nodes)
    _, alone = _all_hosts(text, counts, after=after)
    for round_ in range(after, ROUNDS):
        np.testing.assert_array_equal(sums[0][round_], alone[0][0][round_])
    monkeypatch.undo()
    _, never = _all_hosts(text, counts)
    assert (sums[0][after] != never[0][0][after]).any()
    assert any(each._residual.any() for each in made)


@codecs
@pytest.mark.parametrize("hosts", [2, 3, 4])
def test_bytes_sent_are_those_of_the_formula(text, hosts):
    codec, count = _codec(text), LAYOUT.size
    _, results = _all_hosts(text, [1] * hosts)

    def of_vector(size: int, host: int) -> int:
        """By an exchange of so many elements as they are."""
        bounds = chunk_bounds(size, hosts)
        own = bounds[host + 1] - bounds[host]
        return 4 * (size - own + (hosts - 1) * own)

    for host, (_, sent) in enumerate(results):
        if text.startswith("powersgd"):
            sums = [(60, 40), (45, 11)]
            exact = count - sum(m * n for m, n in sums)
            expected = of_vector(exact + 2 * sum(m for m, _ in sums), host)
            expected += of_vector(2 * sum(n for _, n in sums), host)
        else:
            expected = of_vector(7, host)
            parts = np.diff(chunk_bounds(count, hosts)).tolist()
            if codec.sums_payloads:
                expected += of_vector(codec.sent_bytes(count) // 4, host)
            elif codec.is_sparse or hosts == 2:
                expected += (hosts - 1) * codec.sent_bytes(count)
            else:
                others = [n for other, n in enumerate(parts) if other != host]
                expected += sum(map(codec.sent_bytes, others))
                expected += (hosts - 1) * codec.sent_bytes(parts[host])
        assert sent == expected


@codecs
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_on_one_host_is_none_on_all(text, value, monkeypatch):
    """In every parameter in turn, on the last host."""
    for start, stop in LAYOUT.bounds:
        place = (start + stop) // 2

        def nodes(host, round_, count, place=place, plain=_nodes):
            found = plain(host, round_, count)
            if host == 1:
                found[0, place] = value
            return found

        monkeypatch.setitem(globals(), "_nodes", nodes)
        with np.errstate(invalid="ignore"):
            _, results = _all_hosts(text, [1, 1])
        monkeypatch.undo()
        for found, _ in results:
            assert not np.isfinite(found[0]).all(), place


def test_powersgd_is_that_of_numpy():
    """Three steps with a warm start, of three hosts; the first Q is what the first step has drawn."""
    made, results = _all_hosts("powersgd:2", [1, 1, 1])
    for start, (m, n) in ((0, (60, 40)), (LAYOUT.bounds[3][0], (45, 11))):
        span = slice(start, start + m * n)
        key = np.array([made[0].__class__.key(_at_step(made[0], 1), exchange.SUM, start)])
        words = reference_codecs.counter_random.numbers(key, n * 2)
        q = ((words >> np.uint64(11)) * 2.0**-52 - 1).reshape(n, 2)
        left = [np.zeros((m, n)) for _ in range(3)]
        for round_ in range(3):
            given = [_nodes(host, round_, 1)[0, span].reshape(m, n) for host in range(3)]
            matrices = [one + other for one, other in zip(given, left, strict=True)]
            expected, q, left = reference_codecs.powersgd(matrices, q)
            found = results[0][0][round_][span].reshape(m, n)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def _at_step(compression: Compression, step: int) -> Compression:
    compression.step = step
    return compression


def test_a_parameter_is_cut_where_rows_and_columns_are_fewest():
    """A convolution's weights before their outputs, an image of another order likewise; thin ones are sent as they are."""
    codec = _codec("powersgd:4")
    assert codec.matrix((3, 3, 64, 64)) == (576, 64)
    assert codec.matrix((64, 64, 3, 3)) == (64, 576)
    assert codec.matrix((60, 40)) == (60, 40)
    assert codec.matrix((3, 3, 1, 4)) is codec.matrix((40,)) is codec.matrix(()) is None
    assert codec.sent_bytes((3, 3, 64, 64)) == 4 * 4 * 640


def test_columns_that_depend_on_others_are_0():
    """Also of a matrix of 0; orthonormal are the others, though nearly parallel."""
    from lepton_mpi.collectives.compressing.powersgd_kernels import draw_columns, orthonormalise

    generator = np.random.default_rng(0)
    p = np.zeros((50, 5))
    p[:, 0] = generator.standard_normal(50)
    p[:, 1] = 3 * p[:, 0]
    p[:, 2] = p[:, 0] + 1e-9 * generator.standard_normal(50)
    p[:, 4] = generator.standard_normal(50)
    orthonormalise(p, np.zeros((5, 50)))
    np.testing.assert_array_equal(np.abs(p).max(axis=0) > 0, [True, False, True, False, True])
    kept = p[:, [0, 2, 4]]
    np.testing.assert_allclose(kept.T @ kept, np.eye(3), atol=1e-12)
    draw_columns(np.uint64(1), True, p)
    assert (np.abs(p).max(axis=0) > 0).all()
    np.testing.assert_array_equal(p[:, [0, 2, 4]], kept)


# -- residuals of another number of hosts --------------------------------------------------------------------


def _state(hosts: int, text: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(hosts)
    names = [f"residual.{host}" for host in range(hosts)]
    names += {"int8": ["residual.owner"] if hosts > 2 else [], "powersgd:2": ["powersgd.q"]}.get(
        text, []
    )
    return {name: generator.standard_normal(LAYOUT.size).astype(np.float32) for name in names}


@pytest.mark.parametrize("text", ["int8", "topk:0.05", "powersgd:2"])
@pytest.mark.parametrize("before", [1, 2, 3, 5])
@pytest.mark.parametrize("now", [2, 3, 4])
def test_the_sum_of_residuals_is_kept_on_any_number_of_hosts(text, before, now):
    """On the same number each is what it was; an element of the owners' residual is with one host."""
    state = _state(before, text)
    made = [_compression(host, now, text) for host in range(now)]
    for compression in made:
        compression.restore(state)
    residuals = residuals_of(state)
    if before == now:
        for compression, residual in zip(made, residuals, strict=True):
            np.testing.assert_array_equal(compression._residual, residual)
    found = sum(compression._residual.astype(float) for compression in made)
    if text == "int8" and now == 2:  # whose sums are not encoded
        residuals = [r for name, r in state.items() if name.startswith("residual.")]
    np.testing.assert_allclose(found, sum(r.astype(float) for r in residuals), rtol=0, atol=1e-5)
    if text == "int8" and now > 2 and before > 2:
        owned = [compression._owner_residual for compression in made]
        assert all(np.count_nonzero(part) for part in owned)
        np.testing.assert_array_equal(sum(owned), state["residual.owner"])
    if text == "powersgd:2":
        for compression in made:
            np.testing.assert_array_equal(compression._warm, state["powersgd.q"])


def test_what_is_left_is_all_of_it():
    state = _state(3, "int8")
    found = undelivered(state, LAYOUT.size, np.dtype(np.float32))
    np.testing.assert_allclose(found, sum(state.values()), rtol=0, atol=1e-6)
    assert all(map(is_of_codec, state)) and not is_of_codec("momentum")


def test_a_residual_that_is_missing_is_an_error():
    state = _state(3, "int8")
    del state["residual.1"]
    with pytest.raises(ValueError, match=r"expected residuals residual\.0, residual\.1, got"):
        _compression(0, 2, "int8").restore(state)
    with pytest.raises(ValueError, match=r"expected no residual\.owner with topk"):
        _compression(0, 2, "topk:0.1").restore(_state(3, "int8"))

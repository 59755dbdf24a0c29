"""Several hosts, emulated by network namespaces; skipped where there is no root for them."""

import numpy as np
import pytest

from lepton_mpi.run import checkpoint
from tests.faults import jobs
from tests.split_runs import digests_program, printed_digests

TRAIN = ("-m", "lepton_mpi.train", "--epochs", "2", "--progress", "none", "--metrics")
_SAYING = ("-m", "lepton_mpi.train", "--epochs", "2", "--progress", "plain", "--metrics")


def _run_over_hosts(ranks_per_host: list[str], *words: str, **environment: str) -> str:
    """Standard output of ``python WORDS`` on two hosts."""
    ended = jobs.run_over_hosts(ranks_per_host, *words, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _digest_over_hosts(folder, ranks_per_host: list[str], **environment: str) -> str:
    path = folder / "hosts.jsonl"
    _run_over_hosts(ranks_per_host, *TRAIN, str(path), **environment)
    assert jobs.metrics(path)[0]["hosts"] == 2
    return jobs.metrics(path)[-1]["weights_digest"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks_per_host", "policy"),
    [(["2"], "slot"), (["2"], "node"), (["1", "2"], "slot")],
    ids=["two and two", "dealt in turn", "one and two"],
)
def test_hosts_and_the_order_of_ranks_change_no_bit(tmp_path, ranks_per_host, policy):
    """The weights are those of one rank, also where the launcher deals ranks to the hosts in turn."""
    alone = tmp_path / "alone.jsonl"
    job = jobs.run(1, *TRAIN, str(alone), cwd=tmp_path)
    assert job.code == 0, job.text
    mapping = {"PRTE_MCA_rmaps_default_mapping_policy": policy}
    found = _digest_over_hosts(tmp_path, ranks_per_host, **mapping)
    assert found == jobs.metrics(alone)[-1]["weights_digest"]


@pytest.mark.slow
def test_parameters_are_whole_where_they_are_saved(tmp_path):
    """In the middle of an epoch, when sums of many buckets are still on their way, and at the end."""
    alone, path = tmp_path / "alone.jsonl", tmp_path / "hosts.jsonl"
    more = ("--bucket-bytes", "3000", "--checkpoint-steps", "7", "--checkpoint")
    job = jobs.run(1, *TRAIN, str(alone), *more, str(tmp_path / "one"), cwd=tmp_path)
    assert job.code == 0, job.text
    _run_over_hosts(["2"], *TRAIN, str(path), *more, str(tmp_path / "two"))
    assert jobs.metrics(path)[0]["hosts"] == 2
    assert jobs.metrics(path)[-1]["weights_digest"] == jobs.metrics(alone)[-1]["weights_digest"]
    saved = [sorted((tmp_path / name).glob("step-*.h5")) for name in ("one", "two")]
    assert len(saved[0]) > 1
    for mine, others in zip(*saved, strict=True):
        first, second = checkpoint.read(mine), checkpoint.read(others)
        np.testing.assert_array_equal(first.parameters, second.parameters)


@pytest.mark.slow
def test_means_that_overlap_steps_have_the_bits_of_one_host(tmp_path):
    """DiLoCo merges after the same steps, whenever messages come; how much of the exchange was hidden is said where there is one."""
    alone, path = tmp_path / "alone.jsonl", tmp_path / "hosts.jsonl"
    own = ("--strategy", "diloco", "--sync-every", "6", "--fragments", "2", "--overlap-steps", "4")
    job = jobs.run(4, *_SAYING, str(alone), *own, cwd=tmp_path)
    assert job.code == 0, job.text
    assert "merged 4 steps later (mixing 0.5, one host: no exchange to hide)" in job.out
    assert "hidden_share" not in jobs.metrics(alone)[-1]
    said = _run_over_hosts(["2"], *_SAYING, str(path), *own)
    assert "of the exchange between hosts hidden behind compute" in said
    first, last = jobs.metrics(alone)[-1], jobs.metrics(path)[-1]
    assert last["weights_digest"] == first["weights_digest"]
    assert 0 < last["hidden_share"] <= 1


@pytest.mark.slow
def test_every_model_has_the_digest_of_one_rank_on_two_hosts(tmp_path):
    """Activations, dropout, clipping and regression, with Adam and with momentum, after 3 epochs."""
    program = tmp_path / "runs.py"
    program.write_text(digests_program())
    alone = jobs.run(1, str(program), cwd=tmp_path)
    assert alone.code == 0, alone.text
    found = _run_over_hosts(["2"], str(program), PYTHONPATH=str(jobs.ROOT))
    assert printed_digests(found) == printed_digests(alone.out)


@pytest.mark.slow
def test_ranks_of_several_hosts_meet_within_a_step(tmp_path):
    """For normalisation over all micro-batches, while sums of the step before are on their way."""
    words = ("--model", "cnn", "--norm", "sync_batch", "--bucket-bytes", "3000")
    alone, path = tmp_path / "alone.jsonl", tmp_path / "hosts.jsonl"
    job = jobs.run(1, *TRAIN, str(alone), *words, cwd=tmp_path)
    assert job.code == 0, job.text
    _run_over_hosts(["2"], *TRAIN, str(path), *words)
    assert jobs.metrics(path)[0]["hosts"] == 2
    assert jobs.metrics(path)[-1]["weights_digest"] == jobs.metrics(alone)[-1]["weights_digest"]


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize(
    "words",
    [
        ("--check-every", "1", "--micro-batch", "4", "--bucket-bytes", "3000"),
        ("--check-every", "2", "--strategy", "delayed"),
        ("--check-every", "2", "--balance", "auto", "--dtype", "float64"),
        ("--on-nan", "skip", "--check-every", "1", "--bucket-bytes", "3000"),
    ],
    ids=" ".join,
)
def test_gradients_are_compared_while_others_update(tmp_path, words):
    """A rank computes one a second time before the others learn that it is done, and may write new parameters. No bit changes."""
    alone, path = tmp_path / "alone.jsonl", tmp_path / "hosts.jsonl"
    job = jobs.run(1, *TRAIN, str(alone), *words, cwd=tmp_path)
    assert job.code == 0, job.text
    _run_over_hosts(["2"], *TRAIN, str(path), *words)
    events = [record["event"] for record in jobs.metrics(path)]
    assert events.count("check") >= 18 and "drift" not in events
    assert jobs.metrics(path)[-1]["weights_digest"] == jobs.metrics(alone)[-1]["weights_digest"]


@pytest.mark.slow
def test_a_run_of_one_rank_goes_on_over_two_hosts(tmp_path):
    """From the middle of an epoch, with the optimizer's state on every host."""
    alone, saved = tmp_path / "alone.jsonl", tmp_path / "saved"
    saving = ("--checkpoint", str(saved), "--checkpoint-steps", "35")  # of 36 steps
    job = jobs.run(1, *TRAIN, str(alone), *saving, cwd=tmp_path)
    assert job.code == 0, job.text
    path = tmp_path / "hosts.jsonl"
    _run_over_hosts(["2"], *TRAIN, str(path), "--resume", str(saved / "step-00000035.h5"))
    start, _, end = jobs.metrics(path)
    assert start["hosts"] == 2
    assert end["weights_digest"] == jobs.metrics(alone)[-1]["weights_digest"]


@pytest.mark.slow(but_every=2)
@pytest.mark.parametrize("ranks_per_host", [["2"], ["1", "2"]], ids=["two and two", "one and two"])
def test_vectors_are_summed_over_hosts(ranks_per_host):
    """Every way to hand one over, on two hosts."""
    tests = ("tests/parallel/test_allreduce.py", "-k", "copied or two_level and float32")
    said = _run_over_hosts(ranks_per_host, "-m", "pytest", "-q", *tests)
    assert " passed" in said, said


@pytest.mark.slow
@pytest.mark.parametrize("ranks_per_host", [["2"], ["1", "2"]], ids=["two and two", "one and two"])
def test_groups_over_hosts(ranks_per_host):
    """Groups on one host and over both, of ranks in another order than the hosts'."""
    said = _run_over_hosts(ranks_per_host, "-m", "pytest", "-q", "tests/parallel/test_groups.py")
    assert " passed" in said, said


@pytest.mark.slow(but_every=4)
@pytest.mark.parametrize("ranks_per_host", [["2"], ["1", "2"]], ids=["two and two", "one and two"])
@pytest.mark.parametrize(
    "which",
    [
        "turned and (allreduce or reduce_scatterv)",
        "turned and moves and (bool or float32)",
        "differ",
    ],
)
def test_a_communicator_over_hosts(ranks_per_host, which):
    """Every verb, of ranks in another order than the hosts', and calls that do not fit together."""
    tests = ("tests/parallel/test_communicator.py", "-k", which)
    said = _run_over_hosts(ranks_per_host, "-m", "pytest", "-q", *tests)
    assert " passed" in said, said


_FAMILY_ON_THE_WIRE = """
import numpy as np
from pathlib import Path
from lepton_mpi.collectives.communicator import Communicator
from lepton_mpi.world.world import run

def sent():
    return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())

def main(world):
    one = Communicator(world)
    N, size = 4 << 20, world.size
    whole, part = np.zeros(N // 4, np.float32), np.zeros(N // 4 // size, np.float32)
    calls = {
        "allreduce": lambda: one.allreduce(whole),
        "broadcast": lambda: one.broadcast(whole, 0),
        "reduce": lambda: one.reduce(whole, 0),
        "allgather": lambda: one.allgather(whole, part),
        "reduce_scatter": lambda: one.reduce_scatter(part, whole),
        "alltoall": lambda: one.alltoall(np.empty_like(whole), whole),
    }
    for name, call in calls.items():
        call()
        world.comm.Barrier()
        before = sent()
        for _ in range(3):
            call()
        world.comm.Barrier()
        counts = world.comm.allgather((sent() - before) / 3 / N)
        if world.rank == 0:
            print("WIRE", name, max(counts))
    one.close()

raise SystemExit(run(main))
"""


def test_what_a_communicator_sends_is_the_least_there_can_be(tmp_path):
    """Within 3 % of the bound, headers of Ethernet, IP and TCP aside; two hosts of two ranks, parts of N bytes."""
    program = tmp_path / "family.py"
    program.write_text(_FAMILY_ON_THE_WIRE)
    said = _run_over_hosts(["2"], str(program), PYTHONPATH=str(jobs.ROOT))
    found = {
        words[1]: float(words[2])
        for words in map(str.split, said.splitlines())
        if words and words[0] == "WIRE"
    }
    # Of N; what all ranks of a host have together is N / 2.
    bounds = {"allreduce": 1.0, "broadcast": 1.0, "reduce": 1.0}
    bounds |= {"allgather": 0.5, "reduce_scatter": 0.5, "alltoall": 1.0}
    assert found.keys() == bounds.keys(), said
    # 1500 bytes carry 1448, with 14 more of Ethernet that the interface counts.
    headers = 1514 / 1448
    for name, bound in bounds.items():
        assert found[name] < 1.03 * headers * bound, (name, found[name], bound)
        assert found[name] > 0.97 * bound, (name, found[name], bound)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["int8", "topk:0.05", "powersgd:2"])
def test_a_compressed_run_goes_on_with_its_residuals(tmp_path, codec):
    """On as many hosts with the bits of one that did not stop; on one host with what was left out."""
    whole, path, alone = (tmp_path / f"{name}.jsonl" for name in ("whole", "on", "alone"))
    words = ("--compress", codec, "--bucket-bytes", "20000")
    saving = ("--checkpoint", str(tmp_path / "saved"), "--checkpoint-steps", "35")  # of 36 steps
    said = _run_over_hosts(["2"], *_SAYING, str(whole), *words, *saving)
    assert f"between hosts {codec}" in said and "times less than uncompressed" in said
    resume = ("--resume", str(tmp_path / "saved" / "step-00000035.h5"))
    _run_over_hosts(["2"], *TRAIN, str(path), *words, *resume)
    first, last = jobs.metrics(whole)[-1], jobs.metrics(path)[-1]
    assert last["weights_digest"] == first["weights_digest"]
    assert first["compression_ratio"] > 3.5
    saved = checkpoint.read(tmp_path / "saved" / "step-00000035.h5")
    assert {"residual.0", "residual.1"} <= saved.state.keys()
    job = jobs.run(2, "-m", "lepton_mpi.train", *resume, "--metrics", str(alone), cwd=tmp_path)
    assert job.code == 0, job.text
    assert "one host: nothing is compressed" in job.out


@pytest.mark.slow(but_every=3)
@pytest.mark.parametrize("codec", ["int8", "topk:0.01", "powersgd:8"])
def test_what_is_counted_is_what_the_network_counts(tmp_path, codec):
    """Bytes that a host's interface sends in 10 steps, headers and all, are within 3 % of what the strategy says."""
    hook, found = tmp_path / "wire.py", tmp_path / "bytes"
    hook.write_text(_WIRE.replace("FOUND", str(found)))
    words = ("--hidden", "1024", "1024", "--compress", codec, "--hook", f"{hook}:Wire")
    _run_over_hosts(["2"], *TRAIN, str(tmp_path / "m.jsonl"), *words)
    for host in (0, 2):
        sent, counted = map(float, (tmp_path / f"bytes{host}").read_text().split())
        assert abs(sent / (counted / 2) - 1) < 0.03, (sent, counted)


_WIRE = """
from pathlib import Path

from lepton_mpi import QuietHook


class Wire(QuietHook):
    def __init__(self, run):
        self.before = ()

    def after_step(self, run):
        if run.step not in (5, 15):
            return
        run.strategy.finish()
        counted = run.strategy.figures()["sent_bytes_per_step"] * run.step
        (line,) = [line for line in open("/proc/self/net/dev") if "eth0" in line]
        now = int(line.split(":")[1].split()[8]), counted
        if run.step == 15 and run.world.local_rank == 0:
            first, last = zip(self.before, now, strict=True)
            text = " ".join(str(after - before) for before, after in (first, last))
            Path(f"FOUND{run.world.rank}").write_text(text)
        self.before = now
"""

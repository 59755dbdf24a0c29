"""What ``benchmarks.slow_network`` makes of its runs, and the switch that has a delay."""

import subprocess
import sys

import pytest

from benchmarks import slow_network
from benchmarks.emulated_hosts import EmulatedHosts, why_not
from benchmarks.slow_network import CODECS, OVERLAP, STEPS, TRAINING
from lepton_mpi.options import names, sources


@pytest.mark.parametrize(
    "words", [*STEPS.values(), *TRAINING.values(), *OVERLAP.values()], ids=" ".join
)
def test_every_way_is_one_that_train_takes(words):
    """The words of each run make a configuration."""
    chosen = sources.from_command_line([*slow_network._TRAINED, *words])
    assert chosen.config.epochs == 4


def test_each_kind_of_codec_is_measured():
    """fp16 is as long as bf16."""
    found = {codec.partition(":")[0] for codec in CODECS}
    assert found | {"none", "fp16"} == names.CODECS.keys() | {"auto"}


def test_a_row_is_of_the_epochs_after_the_first():
    """Medians over all launches; counted by the strategy, or by the formula where it counts nothing."""
    end = {
        "epoch_seconds": [9.0, 6.0, 12.0],
        "epoch_bytes": [999, 606, 618],
        "parameter_bytes": 100,
        "epoch_losses": [1.0, 0.9, 0.8],
        "time_split": {},
        "hidden_share": 0.5,
    }
    row = slow_network._steps_row("sync", [end, end | {"epoch_seconds": [9.0, 6.0, 6.0]}])
    assert row["step_seconds"] == 6.0 / 6 and row["bytes_per_step"] == 612 / 6
    assert row["counted"] == 100 and row["off"] == pytest.approx(0.02)
    row = slow_network._steps_row("sync, int8", [end | {"sent_bytes_per_step": 51.0}])
    assert row["counted"] == 25.5 and row["bytes_per_step"] == 612 / 24


def test_what_is_beside_sync():
    """Nothing where there is no such row."""
    sync = {"way": "sync", "step_seconds": 3.0, "bytes_per_step": 400.0, "score": 0.9}
    other = {"way": "diloco", "step_seconds": 0.5, "bytes_per_step": 10.0, "score": 0.91}
    found = slow_network.beside_sync(other, [sync])
    assert found == {"faster": 6.0, "fewer": 40.0, "below_sync": pytest.approx(-0.01)}
    assert slow_network.beside_sync(other, []) == {}


_ANSWER = """
import socket
with socket.create_server(("", 5300)) as server:
    print("up", flush=True)
    connection, _ = server.accept()
    while word := connection.recv(1 << 20):
        connection.sendall(word)
"""
_ASK = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 5300))
for _ in range(5):
    began = time.perf_counter()
    connection.sendall(b"x")
    connection.recv(1)
    print(time.perf_counter() - began)
sent, back = bytes(range(256)) * 1000, b""
connection.sendall(sent)
while len(back) < len(sent):
    back += connection.recv(1 << 20)
print(back == sent)
"""


def test_packets_come_late_and_whole():
    """There and back takes twice the delay, and what is more than a packet arrives as it was sent."""
    if reason := why_not():
        pytest.skip(reason)
    with EmulatedHosts([1, 1], "100mbit", delay_ms=15) as hosts:
        command = hosts.command_in(1, [sys.executable, "-c", _ANSWER])
        server = hosts.start(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "up\n"
        said = hosts.run_in(0, [sys.executable, "-c", _ASK, hosts.addresses[1]], 60).split()
        server.stdout.close()
        server.wait(20)
    times, whole = [float(each) for each in said[:-1]], said[-1]
    assert min(times) >= 0.030 and whole == "True"

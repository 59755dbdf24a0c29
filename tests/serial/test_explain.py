"""``python -m lepton_mpi explain``: what it prints, what it draws, and how it refuses."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from lepton_mpi import launcher
from lepton_mpi.collectives.explaining.trace import trace
from lepton_mpi.collectives.explaining.trace_picture import svg
from lepton_mpi.collectives.schedules.algorithms import COLLECTIVES
from lepton_mpi.collectives.schedules.schedule import Collective
from lepton_mpi.commands.explain import COMMAND, explain

EVERY = [
    (c, algorithm) for c, algorithms in COLLECTIVES.items() for algorithm in algorithms.values()
]
SVG = "{http://www.w3.org/2000/svg}"

RING_OF_3 = """\
ring, allreduce, 3 ranks
The vector has 3 chunks: a b c; a2 is chunk a of rank 2.
Elements: a [0, 3)   b [3, 5)   c [5, 7)

at the start ([new], | kept for later)
  rank 0    a0   b0   c0
  rank 1    a1   b1   c1
  rank 2    a2   b2   c2

step 1 of 4
  add     0 --a--> 1   1 --b--> 2   2 --c--> 0
  rank 0    a0      b0     [c0+c2]
  rank 1   [a0+a1]  b1      c1
  rank 2    a2     [b1+b2]  c2

step 2 of 4
  add     0 --c--> 1   1 --a--> 2   2 --b--> 0
  rank 0    a0        [b1+b2+b0]  c0+c2
  rank 1    a0+a1      b1        [c0+c2+c1]
  rank 2   [a0+a1+a2]  b1+b2      c2

step 3 of 4
  copy    0 --b--> 1   1 --c--> 2   2 --a--> 0
  rank 0   [a0+a1+a2]  b1+b2+b0   c0+c2
  rank 1    a0+a1     [b1+b2+b0]  c0+c2+c1
  rank 2    a0+a1+a2   b1+b2     [c0+c2+c1]

step 4 of 4
  copy    0 --a--> 1   1 --b--> 2   2 --c--> 0
  rank 0    a0+a1+a2   b1+b2+b0  [c0+c2+c1]
  rank 1   [a0+a1+a2]  b1+b2+b0   c0+c2+c1
  rank 2    a0+a1+a2  [b1+b2+b0]  c0+c2+c1

In the end every rank has every contribution to every chunk once, added in the same order everywhere: checked.
Order of additions in chunk a: a0+a1+a2

                                       here       at least
steps                                     4              2
sent by the busiest rank            1.333 N        1.333 N
received by the busiest rank        1.333 N        1.333 N
added by the busiest rank          0.6667 N       0.6667 N
elements sent, N = 7                     10             10
bytes sent, float32                      40             40"""


def test_the_ring_of_three_is_told_step_by_step():
    """The whole text for one case, against one worked out by hand."""
    assert explain(["ring", "--ranks", "3", "--count", "7"]) == RING_OF_3


@pytest.mark.slow(but_every=7)
@pytest.mark.parametrize("ranks", [1, 2, 5, 8, 16, 17, 64])
@pytest.mark.parametrize(
    "collective, algorithm", EVERY, ids=lambda value: getattr(value, "name", None)
)
def test_everything_can_be_explained(collective, algorithm, ranks):
    """Every algorithm, few ranks and many, names itself and its cost and fits the page."""
    name = algorithm.name.replace("_", "-")
    text = explain([name, "--collective", collective.value, "--ranks", str(ranks)])
    assert text.startswith(f"{algorithm.name}, {collective.value}, {ranks} rank")
    assert re.search(r"^steps +\d+ +\d+$", text, re.MULTILINE)
    assert max(len(line) for line in text.splitlines()) <= 140


def test_every_step_and_every_transfer_is_listed():
    """As many arrows as the schedule has receives."""
    for collective, algorithm in EVERY:
        ranks = 5 if collective is Collective.ALLTOALL else 6  # which has ranks * ranks chunks
        text = explain([algorithm.name, "--collective", collective.value, "--ranks", f"{ranks}"])
        transfers = [
            r
            for rank in range(ranks)
            for step in algorithm.steps(ranks, rank)
            for r in step.receives
        ]
        assert text.count("> ") == len(transfers), algorithm
        assert len(re.findall(r"^step \d+ of", text, re.MULTILINE)) == len(
            algorithm.steps(ranks, 0)
        )


def test_many_ranks_are_cut_short():
    """4096 ranks: what rank 0 does, its first and last steps, and the costs."""
    text = explain(["ring", "--ranks", "4096"])
    assert "… 8179 more …" in text and "step 8190" in text
    assert re.search(r"^steps +8190 +12$", text, re.MULTILINE)
    assert "checked" not in text


def test_without_a_name_all_algorithms_are_compared():
    """One line for each algorithm of the collective, and one for the bounds."""
    text = explain(["--ranks", "5", "--collective", "reduce_scatter"])
    assert [line.split()[:2] for line in text.splitlines()[2:]] == [
        ["ring", "4"],
        ["circulant", "3"],
        ["pairwise", "4"],
        ["at", "least"],
    ]


def test_hosts_are_given_by_their_numbers_of_ranks():
    """The number of ranks follows from the hosts."""
    assert explain(["two_level", "--hosts", "1,2"]).startswith("two_level, allreduce, 3 ranks")
    assert explain(["two_level", "--hosts", "1,2", "--ranks", "3"]) == explain(
        ["two_level", "--hosts", "1,2"]
    )


REFUSED = {
    "rnig": "expected one of ring, .*, got 'rnig', did you mean ring\\?",
    "circulant --collective broadcast": "broadcast algorithm: expected one of binomial, .*, got 'circulant'",
    "ring --collective all_reduce": "--collective: expected one of .*, did you mean allreduce\\?",
    "ring --rnaks 4": "unknown option --rnaks, did you mean --ranks\\?",
    "ring --ranks 0": "--ranks: expected a whole number of at least 1, got '0'",
    "ring --ranks four": "--ranks: expected a whole number of at least 1, got 'four'",
    "ring --ranks": "--ranks: expected a whole number of at least 1, got none",
    "ring --count -1": "--count: expected",
    "ring 4": r"expected \[ALGORITHM\], got also '4'",
    "ring --hosts 2,2": "--hosts: expected the algorithm two_level, got ring",
    "two_level --hosts 2,x": "--hosts: expected whole numbers of at least 1, such as 2,2, got '2,x'",
    "two_level --hosts 2,2 --ranks 5": "--hosts: expected numbers that add up to 5",
    "ring --ranks 17 --svg x.svg": "--svg: expected --ranks of at most 16, got 17",
    "ring --svg /nowhere/x.svg": "--svg: cannot write /nowhere/x.svg: No such file",
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_words_are_refused_in_one_line(words, capsys):
    """Exit code 2, one line on stderr that says what was expected, nothing on stdout."""
    assert COMMAND.start(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.match(
        f"lepton_mpi explain: {REFUSED[words]}" if words != "rnig" else ".*" + REFUSED[words], err
    )


def test_only_the_first_rank_prints_and_draws(monkeypatch, capsys, tmp_path):
    """Under a launcher the job says it once."""
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(launcher, "_COMPLAINT_SECONDS", 0.0)
    assert COMMAND.start(["ring", "--svg", str(tmp_path / "ring.svg")]) == 0
    assert COMMAND.start(["no_such"]) == 2
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "ring.svg").exists()


def test_explaining_starts_neither_mpi_nor_numpy():
    """It is there at once, also where no MPI is installed."""
    code = (
        "import sys; from lepton_mpi.commands.explain import COMMAND; COMMAND.start(['ring']); "
        "sys.exit(bool({'mpi4py', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# The picture


@pytest.mark.slow(but_every=7)
@pytest.mark.parametrize("ranks", [1, 2, 5, 16])
@pytest.mark.parametrize(
    "collective, algorithm", EVERY, ids=lambda value: getattr(value, "name", None)
)
def test_the_picture_shows_every_rank_step_and_transfer(collective, algorithm, ranks):
    """Well-formed, every rank named, every step named once, one arrow head a transfer, nothing outside."""
    picture = ElementTree.fromstring(svg(trace(algorithm, ranks)))
    words = [text.text for text in picture.iter(f"{SVG}text")]
    steps = algorithm.steps(ranks, 0)
    assert {f"rank {rank}" for rank in range(ranks)} <= set(words)
    assert [word for word in words if word.startswith("step ")] == [
        f"step {n}" for n in range(1, len(steps) + 1)
    ]
    heads = [path for path in picture.iter(f"{SVG}path") if path.get("d").endswith("z")]
    assert len(heads) == sum(
        len(s.receives) for rank in range(ranks) for s in algorithm.steps(ranks, rank)
    )
    width, height = float(picture.get("width")), float(picture.get("height"))
    for shape in [*picture.iter(f"{SVG}text"), *list(picture.iter(f"{SVG}rect"))[1:]]:
        assert 0 <= float(shape.get("x")) <= width and 0 <= float(shape.get("y")) <= height


def test_bars_show_whose_contributions_are_in():
    """In a ring of 4 the filled part of the cells grows by one bar for each addition or copy of more."""
    traced = trace(COLLECTIVES[EVERY[0][0]]["ring"], 4)
    contributions = sum(
        len(value.ranks) for step in traced.steps for row in step.values for value in row
    )
    picture = ElementTree.fromstring(svg(traced))
    rects = list(picture.iter(f"{SVG}rect"))[1:]
    cell = max(float(r.get("width")) for r in rects if r.get("fill-opacity") == "0.13")
    filled = [
        r
        for r in rects
        if r.get("fill") != "none" and r.get("fill-opacity") is None and r.get("rx") is None
    ]
    # The last state of a row of columns is drawn again at the start of the next.
    repeated = sum(len(value.ranks) for row in traced.steps[3].values for value in row)
    assert sum(float(r.get("width")) for r in filled) == pytest.approx(
        (contributions + repeated) * cell / 4, rel=0.01
    )


def test_a_picture_is_written_where_it_is_asked_for(tmp_path):
    """``--svg FILE``."""
    path = tmp_path / "tree.svg"
    explain(["double_binary_tree", "--ranks", "7", "--svg", str(path)])
    assert path.read_text("utf-8") == svg(trace(COLLECTIVES[EVERY[0][0]]["double_binary_tree"], 7))

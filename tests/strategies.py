"""Hypothesis strategies."""

from hypothesis import strategies as st

from lepton_mpi.collectives.schedules.schedule import Action, Receive, Send, Step

CHUNK_COUNT = 4


@st.composite
def schedules(draw: st.DrawFn) -> list[list[Step]]:
    """Steps by rank that keep the first two promises of ``schedule.py`` and have no purpose at all."""
    world_size = draw(st.integers(2, 4))
    steps = draw(st.lists(_step_of_all(world_size), max_size=6))
    return [[step[rank] for step in steps] for rank in range(world_size)]


@st.composite
def _step_of_all(draw: st.DrawFn, world_size: int) -> list[Step]:
    sends = [[] for _ in range(world_size)]
    receives = [[] for _ in range(world_size)]
    sent = [set() for _ in range(world_size)]
    copied = [set() for _ in range(world_size)]
    received = [set() for _ in range(world_size)]
    for _ in range(draw(st.integers(0, 2 * world_size))):
        source = draw(st.integers(0, world_size - 1))
        dest = (source + draw(st.integers(1, world_size - 1))) % world_size
        start = draw(st.integers(0, CHUNK_COUNT - 1))
        stop = draw(st.integers(start + 1, CHUNK_COUNT))
        action = draw(st.sampled_from((Action.ADD, Action.COPY)))
        chunks = set(range(start, stop))
        copies = chunks if action is Action.COPY else set()
        if chunks & received[dest] or copies & sent[dest] or chunks & copied[source]:
            continue
        sends[source].append(Send(dest, start, stop))
        receives[dest].append(Receive(source, start, stop, action))
        sent[source] |= chunks
        copied[dest] |= copies
        received[dest] |= chunks
    return [Step(tuple(s), tuple(r)) for s, r in zip(sends, receives, strict=True)]

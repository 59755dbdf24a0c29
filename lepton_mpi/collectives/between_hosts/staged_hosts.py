"""The collectives of ranks on several hosts, on arrays of any origin: staged inside each host, messages between ranks of different ones.

    allreduce, reduce   every host folds a chunk to a slice for each lane | lane l of host h completes part h of its slice
                        | and sends it to all hosts, or to that of the root | the ranks of a host share the slices
    broadcast           the root's host shares a chunk | its lanes pass their slices from host to host | each host shares them
    all-gather          a block goes to one rank of each host, which shares it
    reduce-scatter      every host folds the block of a rank elsewhere and sends the sum to it, which folds those of all hosts
    the others          blocks go from rank to rank

Bytes that a host sends, of N on H hosts: allreduce 2 (H-1)/H N, broadcast and reduce N, all-gather (H-1) times its own blocks,
reduce-scatter N less its own blocks: the lower bounds. Sums of 16-bit floats travel in float32 until they are complete.
Hosts may have different numbers of ranks: there are as many lanes as the smallest host has ranks.

Each call begins with an agreement: the ranks of a host compare what they were told, the first ranks of the hosts
exchange that or what is wrong with it, and all ranks read the verdict. Where blocks have lengths of their own these follow.
A rank waits in memory only for ranks that wait there, too (``_meet``), and lets messages go on meanwhile: so two hosts never wait
for each other's bytes. A rank of another host that dies ends the job by MPI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np

from lepton_mpi.chunks import chunk_bounds
from lepton_mpi.collectives.between_hosts.agreement import Agreement
from lepton_mpi.collectives.calls import NUMBER_OF, Block, Combination, Fingerprint
from lepton_mpi.collectives.group import Group
from lepton_mpi.collectives.messages.mail import MPI_LOCK, memory_at, wait_for
from lepton_mpi.collectives.within_host.flags import HostFlags
from lepton_mpi.collectives.within_host.row_fold_kernels import FOLDS
from lepton_mpi.collectives.within_host.row_folds import OPERATION_CODES
from lepton_mpi.collectives.within_host.staging import StagedCollectives
from lepton_mpi.errors import ConfigurationError, LeptonError

# Of one part of a chunk, see SEGMENT_BYTES of lanes.py: what is longer is asked for first, behind megabytes on their way.
PART_BYTES = 60 << 10
_PARTIAL, _COMPLETE = 11, 12
_NOTHING: Block = (0, 0)

# Of the calls inside a host, whose ranks have agreed on the arguments.
_REDUCE = Fingerprint(NUMBER_OF["reduce_scatterv"])
_SPREAD = Fingerprint(NUMBER_OF["allgatherv"])
_EXCHANGE = Fingerprint(NUMBER_OF["alltoallv"])


class StagedHosts:
    """See ``Ways``. Making one is collective over the group.

    Parameters
    ----------
    group : Group
    staging_bytes : int
        Upper bound of the memory that the ranks of a host share.
    """

    def __init__(self, group: Group, staging_bytes: int) -> None:
        self._host = StagedCollectives(group, staging_bytes)
        with MPI_LOCK:
            self._comm = group.collective_comm.Dup()
        self._flags, self._round = HostFlags(group, 1), 0
        self._agreement = Agreement(group, self._comm, self._host, self._meet)
        self._hosts, self._here = group.ranks_of_hosts, group.host_index
        self._local, self._size = group.local_rank, group.size
        self._lanes, self._ranks = group.lane_count, self._hosts[self._here]
        self._room: dict[str, np.ndarray] = {}

    def meet(self, told: Fingerprint) -> None:
        """See ``Ways``."""
        self._agreement.reach(lambda: self._host.meet(told), told)

    def refuse(self, error: LeptonError) -> None:
        """See ``Ways``."""
        self._agreement.reach(lambda: self._host.refuse(error), Fingerprint(0))

    def close(self) -> None:
        """Give back the communicator; does nothing the second time."""
        if self._comm:
            with MPI_LOCK:
                self._comm.Free()

    # -- reductions ------------------------------------------------------------------------------

    def reduce(self, told: Fingerprint, array: Block, combination: Combination) -> None:
        """See ``Ways``."""
        self.meet(told)
        address, count = array[0], array[1] // combination.item_bytes
        width = PART_BYTES // combination.item_bytes * self._lanes * len(self._hosts)
        chunks = [
            _Chunk(self, told.root, combination, address, start, min(start + width, count), n % 3)
            for n, start in enumerate(range(0, count, width))
        ]
        # The parts of a chunk are on the wire while the host folds the next one.
        for number in range(len(chunks) + 2):
            if number < len(chunks):
                chunks[number].fold_host()
            if 0 < number <= len(chunks):
                chunks[number - 1].fold_hosts()
            if number > 1:
                chunks[number - 2].share()

    def reduce_mapped(
        self, told: Fingerprint, addresses: Sequence[int], combination: Combination
    ) -> None:
        """ConfigurationError: ranks of other hosts cannot read them."""
        raise ConfigurationError("arrays in shared memory are reduced on one host alone")

    def reduce_blocks(
        self, told: Fingerprint, output: Block, inputs: Sequence[Block], combination: Combination
    ) -> None:
        """See ``Ways``."""
        self._check_own("reduce_scatterv", inputs, output)
        self.meet(self._with_lengths(told, inputs))
        item, wide = combination.item_bytes, combination.wide_bytes
        requests, elements = [], output[1] // item
        sums = self.room("sums", len(self._hosts) * elements * wide)
        for host, ranks in enumerate(self._hosts):
            if host != self._here:
                place = sums + host * elements * wide
                sender = ranks[self._local % len(ranks)]
                requests.append(self.receive((place, elements * wide), sender, _PARTIAL))
        share = sum(inputs[rank][1] for _, rank in self._away(self._local)) // item * wide
        partial = self.room("partial", share)
        for host, group in self._turns():
            blocks = [inputs[rank] if rank is not None else _NOTHING for rank in group]
            length = blocks[self._local][1]
            own = sums + host * elements * wide if host == self._here else partial
            self.here(
                lambda own=own, length=length, blocks=blocks: self._host.reduce_blocks(
                    _REDUCE, (own, length), blocks, combination, is_partial=True
                )
            )
            rank = group[self._local]
            if host != self._here and rank is not None:
                requests.append(self.send((partial, length // item * wide), rank, _PARTIAL))
                partial += length // item * wide
        wait_for(requests)
        rows = [sums + host * elements * wide for host in range(len(self._hosts))]
        self.complete(combination, rows, output[0], elements)

    # -- moves -----------------------------------------------------------------------------------

    def spread(
        self,
        told: Fingerprint,
        source: Block | None,
        targets: Sequence[Block | None],
        lengths: tuple[Sequence[int], Sequence[int]] | None = None,
        others_want_it: bool = True,
    ) -> None:
        """See ``Ways``."""
        if told.verb == NUMBER_OF["broadcast"]:
            block = source or targets[told.root]
            assert block is not None
            self.meet(told)
            self._broadcast(block, told.root)
        elif told.verb == NUMBER_OF["gather"]:
            assert lengths is not None and source is not None
            sent = [source if size else _NOTHING for size in lengths[0]]
            self.exchange(told, [target or _NOTHING for target in targets], sent)
        else:
            assert source is not None
            blocks = [target for target in targets if target is not None]
            self._check_own("allgatherv", blocks, source)
            self.meet(self._with_lengths(told, blocks))
            self._gather_to_all(source, blocks)

    def _broadcast(self, block: Block, root: int) -> None:
        """From host to host, slice by slice."""
        home = next(host for host, ranks in enumerate(self._hosts) if root in ranks)
        position = (self._here - home) % len(self._hosts)
        width, sends = PART_BYTES * self._lanes, []
        for start in range(0, block[1], width):
            chunk = block[0] + start, min(width, block[1] - start)
            slices = self.slices(chunk, 1)
            own = slices[self._local]
            if position and own[1]:
                before = self._hosts[(self._here - 1) % len(self._hosts)][self._local]
                wait_for([self.receive(own, before, _COMPLETE)])
            if position == 0:
                whole = [chunk if rank == root else None for rank in self._ranks]
                source = chunk if self._ranks[self._local] == root else None
                self.share(source, whole)
            if position + 1 < len(self._hosts) and own[1]:
                after = self._hosts[(self._here + 1) % len(self._hosts)][self._local]
                sends.append(self.send(own, after, _COMPLETE))
            if position:
                self.share(own, slices)
        wait_for(sends)

    def _gather_to_all(self, source: Block, targets: Sequence[Block]) -> None:
        requests = []
        for _, rank in self._away(self._local):
            requests.append(self.receive(targets[rank], rank, _COMPLETE))
        for host, ranks in enumerate(self._hosts):
            if host != self._here:
                requests.append(self.send(source, ranks[self._local % len(ranks)], _COMPLETE))
        self.share(source, [targets[rank] for rank in self._ranks])
        wait_for(requests)
        for host, group in self._turns():
            if host != self._here:
                blocks = [targets[rank] if rank is not None else _NOTHING for rank in group]
                self.share(blocks[self._local], blocks)

    def exchange(
        self, told: Fingerprint, outputs: Sequence[Block], inputs: Sequence[Block]
    ) -> None:
        """See ``Ways``."""
        self.meet(told)
        if told.verb != NUMBER_OF["alltoall"]:
            sent, expected = ([size for _, size in blocks] for blocks in (inputs, outputs))
            self._agreement.compare_lengths(told, sent, expected)
        away = [rank for rank in range(self._size) if rank not in self._ranks]
        requests = [
            self.receive(outputs[rank], rank, _COMPLETE) for rank in away if outputs[rank][1]
        ]
        # Not all to the same rank first.
        away.sort(key=lambda rank: (rank - self._ranks[self._local]) % self._size)
        requests += [self.send(inputs[rank], rank, _COMPLETE) for rank in away if inputs[rank][1]]
        mine = [[blocks[rank] for rank in self._ranks] for blocks in (outputs, inputs)]
        self.here(lambda: self._host.exchange(_EXCHANGE, *mine))
        wait_for(requests)

    # -- who has what ----------------------------------------------------------------------------

    def _turns(self) -> list[tuple[int, list[int | None]]]:
        """Each host's ranks in turns, one for each rank of this host, or None where there is none left."""
        count, turns = len(self._ranks), []
        for host, ranks in enumerate(self._hosts):
            padded = [*ranks, *[None] * (-len(ranks) % count)]
            turns += [(host, padded[at : at + count]) for at in range(0, len(padded), count)]
        return turns

    def _away(self, local: int) -> list[tuple[int, int]]:
        """Hosts and numbers of the ranks elsewhere that a rank of this host stands for, in the order of ``_turns``."""
        return [
            (host, rank)
            for host, group in self._turns()
            if host != self._here and (rank := group[local]) is not None
        ]

    def slices(self, chunk: Block, item_bytes: int) -> list[Block]:
        """The slice of each rank of this host; none of those on no lane."""
        bounds = [bound * item_bytes for bound in chunk_bounds(chunk[1] // item_bytes, self._lanes)]
        found = [(chunk[0] + start, stop - start) for start, stop in pairwise(bounds)]
        return found + [_NOTHING] * (len(self._ranks) - self._lanes)

    def _check_own(self, verb: str, blocks: Sequence[Block], own: Block) -> None:
        rank = self._ranks[self._local]
        if blocks[rank][1] != own[1]:
            raise ConfigurationError(
                f"{verb}: rank {rank}: expected {blocks[rank][1]} bytes as in its own place of the list, got {own[1]}"
            )

    def _with_lengths(self, told: Fingerprint, blocks: Sequence[Block]) -> Fingerprint:
        """Lengths that every rank knows are compared by a checksum."""
        if told.byte_count:
            return told
        lengths = np.array([size for _, size in blocks], np.int64)
        return told._replace(byte_count=crc32(lengths.tobytes()) if lengths.any() else 0)

    # -- steps -----------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Wait for the ranks of this host, and let messages go on."""
        self._round += 1
        self._flags.raise_own(0, self._round)
        while not self._flags.all_raised(0, self._round):
            with MPI_LOCK:
                self._comm.Iprobe()
            os.sched_yield()

    def here(self, call: Callable[[], None]) -> None:
        """A call of the ranks of this host, once all of them are there."""
        self._meet()
        call()

    def share(self, source: Block | None, targets: Sequence[Block | None]) -> None:
        """Inside this host."""
        sent = [source[1] if source else 0] * len(self._ranks)
        expected = [target[1] if target else 0 for target in targets]
        self.here(lambda: self._host.spread(_SPREAD, source, targets, (sent, expected)))

    def send(self, block: Block, to: int, tag: int):
        with MPI_LOCK:
            return self._comm.Isend(memory_at(*block), to, tag)

    def receive(self, block: Block, source: int, tag: int):
        with MPI_LOCK:
            return self._comm.Irecv(memory_at(*block), source, tag)

    def room(self, name: str, byte_count: int) -> int:
        """Address of memory that is kept from call to call."""
        if name not in self._room or self._room[name].size < byte_count:
            self._room[name] = np.empty(max(byte_count, 1), np.uint8)
        return self._room[name].ctypes.data

    def complete(
        self, combination: Combination, rows: Sequence[int], out: int, elements: int
    ) -> None:
        """Combine the partial results at the addresses ``rows``."""
        table = np.array(rows, np.int64)
        fold = FOLDS[combination.wide, combination.stored]
        operation = OPERATION_CODES[combination.operation]
        fold(table.ctypes.data, len(rows), out, elements, operation, float(self._size))


class _Chunk:
    """Elements [start, stop) of an allreduce or reduce, in three steps. ``turn`` names its memory."""

    def __init__(
        self,
        ways: StagedHosts,
        root: int,
        combination: Combination,
        address: int,
        start: int,
        stop: int,
        turn: int,
    ) -> None:
        self._ways, self._root, self._how = ways, root, combination
        item = combination.item_bytes
        self._slices = ways.slices((address + start * item, (stop - start) * item), item)
        self._own, self._turn = self._slices[ways._local], turn
        self._bounds = chunk_bounds(self._own[1] // item, len(ways._hosts))
        self._peers = [ranks[ways._local] if self._own[1] else 0 for ranks in ways._hosts]
        self._requests: list = []

    def _part(self, host: int) -> int:
        return self._bounds[host + 1] - self._bounds[host]

    def fold_host(self) -> None:
        """This rank's slice, and off with its parts."""
        ways, wide = self._ways, self._how.wide_bytes
        elements = self._own[1] // self._how.item_bytes
        self._partial = ways.room(f"partial {self._turn}", elements * wide)
        mine = self._part(ways._here) * wide
        arrived = ways.room(f"sums {self._turn}", len(self._peers) * mine)
        self._rows = [arrived + host * mine for host in range(len(self._peers))]
        self._rows[ways._here] = self._partial + self._bounds[ways._here] * wide
        for host, peer in enumerate(self._peers):
            if host != ways._here and mine:
                self._requests.append(ways.receive((self._rows[host], mine), peer, _PARTIAL))
        what = _REDUCE, (self._partial, self._own[1]), self._slices, self._how
        ways.here(lambda: ways._host.reduce_blocks(*what, is_partial=True))
        for host, peer in enumerate(self._peers):
            length = self._part(host) * wide
            if host != ways._here and length:
                part = self._partial + self._bounds[host] * wide, length
                self._requests.append(ways.send(part, peer, _PARTIAL))

    def fold_hosts(self) -> None:
        """This host's part of the slice, and off to those who want it."""
        ways, item = self._ways, self._how.item_bytes
        wait_for(self._requests)
        here, hosts = ways._here, range(len(self._peers))
        wanted = [host for host in hosts if self._root < 0 or self._root in ways._hosts[host]]
        # A reduction leaves the arrays of all but the root as they are.
        in_place = self._root < 0
        self._result = self._own[0] if in_place else ways.room(f"result {self._turn}", self._own[1])
        parts = [
            (self._result + self._bounds[host] * item, self._part(host) * item) for host in hosts
        ]
        self._requests = [
            ways.receive(parts[host], self._peers[host], _COMPLETE)
            for host in hosts
            if here in wanted and host != here and parts[host][1]
        ]
        if parts[here][1]:
            ways.complete(self._how, self._rows, parts[here][0], self._part(here))
            self._requests += [
                ways.send(parts[here], self._peers[host], _COMPLETE)
                for host in wanted
                if host != here
            ]

    def share(self) -> None:
        """The slices, among the ranks of a host that wants them."""
        ways, root = self._ways, self._root
        wait_for(self._requests)
        if root >= 0 and root not in ways._ranks:
            return
        is_mine = root < 0 or root == ways._ranks[ways._local]
        source = self._result, self._own[1]
        targets = self._slices if is_mine else [None] * len(self._slices)
        lengths = (
            [source[1] if root < 0 or rank == root else 0 for rank in ways._ranks],
            [block[1] if block else 0 for block in targets],
        )
        ways.here(lambda: ways._host.spread(_SPREAD, source, targets, lengths))

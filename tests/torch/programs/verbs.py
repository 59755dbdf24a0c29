"""Every call of c10d on every kind of tensor, held against what torch computes on one rank from the same contributions."""

from inspect import signature

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional

import lepton_mpi.torch  # noqa: F401

OPERATIONS = {
    "SUM": lambda rows: rows.sum(0),
    "PRODUCT": lambda rows: rows.prod(0),
    "MAX": lambda rows: rows.amax(0),
    "MIN": lambda rows: rows.amin(0),
}
BITS = {"BAND": torch.bitwise_and, "BOR": torch.bitwise_or, "BXOR": torch.bitwise_xor}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def contribution(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Small whole numbers that depend on rank and index, so that every sum is exact in every type."""
    numbers = (torch.arange(count) * 3 + rank * 5) % 4 + 1
    return (numbers % 2).to(dtype) if dtype is torch.bool else numbers.to(dtype)


def reductions(rank: int, size: int) -> None:
    for dtype in (*FLOATS, *INTEGERS):
        for count in (0, 1, size, 1031):
            rows = torch.stack([contribution(one, count, dtype) for one in range(size)])
            wide = rows.to(torch.float64) if dtype.is_floating_point else rows.to(torch.int64)
            for name, combine in OPERATIONS.items():
                if count == 0 and name in ("MAX", "MIN"):
                    continue
                tensor = contribution(rank, count, dtype)
                dist.all_reduce(tensor, getattr(dist.ReduceOp, name))
                assert torch.equal(tensor, combine(wide).to(dtype)), (name, dtype, count, tensor)
            if not dtype.is_floating_point:
                for name, combine in BITS.items():
                    tensor, expected = contribution(rank, count, dtype), rows[0]
                    for row in rows[1:]:
                        expected = combine(expected, row)
                    dist.all_reduce(tensor, getattr(dist.ReduceOp, name))
                    assert torch.equal(tensor, expected), (name, dtype, count)
            else:
                tensor = contribution(rank, count, dtype)
                dist.all_reduce(tensor, dist.ReduceOp.AVG)
                assert torch.equal(tensor, (wide.sum(0) / size).to(dtype)), (dtype, count)
    truth = torch.tensor([rank == 0, True, False])
    dist.all_reduce(truth)
    assert truth.tolist() == [True, True, False]
    pairs = torch.full((3,), complex(rank, 1))
    dist.all_reduce(pairs)
    assert pairs.tolist() == [complex(sum(range(size)), size)] * 3
    root = size - 1
    tensor = torch.full((5,), float(rank))
    dist.reduce(tensor, root)
    assert tensor.tolist() == [float(sum(range(size)) if rank == root else rank)] * 5
    for output, source in ((torch.empty(2), torch.arange(2.0 * size)),):
        dist.reduce_scatter_tensor(output, source)
        assert output.tolist() == [size * 2.0 * rank, size * (2.0 * rank + 1)]
    uneven = [torch.full((one + 1,), float(rank)) for one in range(size)]
    output = torch.empty(rank + 1)
    dist.reduce_scatter(output, uneven)
    assert output.tolist() == [float(sum(range(size)))] * (rank + 1)
    several = [torch.ones(3), torch.full((2,), 2.0)]
    dist.all_reduce_coalesced(several)
    assert [one.tolist() for one in several] == [[size] * 3, [2 * size] * 2]


def moves(rank: int, size: int) -> None:
    ranks = range(size)
    for dtype in (*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.float8_e4m3fn):
        mine = contribution(rank, 7, torch.float32).to(dtype)
        parts = [torch.empty_like(mine) for _ in ranks]
        dist.all_gather(parts, mine)
        for one in ranks:
            expected = contribution(one, 7, torch.float32).to(dtype)
            assert torch.equal(parts[one].view(torch.uint8), expected.view(torch.uint8)), dtype
        tensor = mine.clone()
        dist.broadcast(tensor, size - 1)
        expected = contribution(size - 1, 7, torch.float32).to(dtype)
        assert torch.equal(tensor.view(torch.uint8), expected.view(torch.uint8))
    uneven = [torch.empty(one) for one in ranks]
    dist.all_gather(uneven, torch.full((rank,), float(rank)))
    assert [part.tolist() for part in uneven] == [[float(one)] * one for one in ranks]
    whole = torch.empty(2 * size)
    dist.all_gather_into_tensor(whole, torch.full((2,), float(rank)))
    assert whole.tolist() == [one for one in ranks for _ in range(2)]
    across = torch.empty(3, 4).t()
    assert not across.is_contiguous()
    dist.broadcast(across.fill_(rank), 0)
    assert (across == 0).all()
    columns = torch.full((4, 3), float(rank)).t()
    dist.all_reduce(columns)
    assert (columns == sum(ranks)).all()
    parts = [torch.empty(1) for _ in ranks] if rank == 0 else None
    dist.gather(torch.tensor([float(rank)]), parts, 0)
    assert rank or [part.item() for part in parts] == list(ranks)
    parts = [torch.tensor([10.0 + one]) for one in ranks] if rank == 0 else None
    part = torch.empty(1)
    dist.scatter(part, parts, 0)
    assert part.item() == 10 + rank
    swapped = torch.empty(size)
    dist.all_to_all_single(swapped, torch.arange(float(size)) + 10 * rank)
    assert swapped.tolist() == [rank + 10 * one for one in ranks]
    sizes = [one + 1 for one in ranks]
    swapped = torch.empty(size * (rank + 1), 2)
    source = torch.full((sum(sizes), 2), float(rank))
    dist.all_to_all_single(swapped, source, [rank + 1] * size, sizes)
    assert swapped[:, 1].tolist() == [one for one in ranks for _ in range(rank + 1)]
    outputs = [torch.empty(rank + 1) for _ in ranks]
    dist.all_to_all(outputs, [torch.full((one + 1,), float(rank)) for one in ranks])
    assert [part.tolist() for part in outputs] == [[float(one)] * (rank + 1) for one in ranks]


def objects(rank: int, size: int) -> None:
    found = [None] * size
    dist.all_gather_object(found, {"rank": rank, "text": "x" * rank})
    assert found == [{"rank": one, "text": "x" * one} for one in range(size)]
    told = [f"from {rank}"]
    dist.broadcast_object_list(told, 0)
    assert told == ["from 0"]
    given = [None]
    dist.scatter_object_list(given, [one * 2 for one in range(size)] if rank == 0 else None, 0)
    assert given == [rank * 2]


def messages(rank: int, size: int) -> None:
    if size == 1:
        return
    right, left = (rank + 1) % size, (rank - 1) % size
    # Larger than what MPI sends at once: both sides must be able to send first.
    sent = dist.isend(torch.full((1_000_000,), float(rank)), right)
    came = torch.empty(1_000_000)
    dist.recv(came, left)
    sent.wait()
    assert (came == left).all()
    if rank == 0:
        tensor = torch.empty(1)
        assert {dist.recv(tensor) for _ in range(size - 1)} == set(range(1, size))
    else:
        dist.send(torch.tensor([1.0]), 0)
    dist.barrier()  # a receive from any rank would take what is sent next, too
    across = torch.zeros(2, 3).t()
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, torch.full((3, 2), float(rank)), right),
            dist.P2POp(dist.irecv, across, left),
        ]
    )
    for work in works:
        work.wait()
    assert (across == left).all()
    dist.group.WORLD.monitored_barrier()


def turned_group(rank: int, size: int) -> None:
    if "sort_ranks" not in signature(dist.new_group).parameters:  # before torch 2.9
        return
    backwards = dist.new_group(list(range(size))[::-1], sort_ranks=False)
    assert dist.get_group_rank(backwards, rank) == size - 1 - rank
    parts = [torch.empty(1) for _ in range(size)]
    dist.all_gather(parts, torch.tensor([float(rank)]), group=backwards)
    assert [part.item() for part in parts] == list(range(size))[::-1]


def groups(rank: int, size: int) -> None:
    turned_group(rank, size)
    even = dist.new_group(list(range(0, size, 2)))
    if rank % 2 == 0:
        tensor = torch.ones(1)
        dist.all_reduce(tensor, group=even)
        assert tensor.item() == len(range(0, size, 2))
    half = [one for one in range(size) if one % 2 == rank % 2]
    split = dist.group.WORLD.split_group(half)
    tensor = torch.tensor([float(rank)])
    split.allreduce([tensor]).wait()
    assert tensor.item() == sum(half)
    split.shutdown()
    # Two groups whose calls the ranks begin in different orders.
    other = dist.new_group(list(range(size)))
    tensors = [torch.ones(100_000), torch.ones(100_000)]
    order = (0, 1) if rank % 2 else (1, 0)
    works = [
        dist.all_reduce(tensors[one], group=(None, other)[one], async_op=True) for one in order
    ]
    for work in works:
        work.wait()
    assert all((tensor == size).all() for tensor in tensors)


def asynchronous(rank: int, size: int) -> None:
    tensors = [torch.full((10,), float(one)) for one in range(20)]
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    last = torch.ones(3)
    dist.all_reduce(last)  # after all of them, since calls of a group keep their order
    assert all(work.is_completed() for work in works[:-1])
    for number, (tensor, work) in enumerate(zip(tensors, works, strict=True)):
        work.wait()
        assert work.is_success() and work.exception() is None
        assert (tensor == number * size).all()
    future = dist.all_reduce(last, async_op=True).get_future()
    doubled = future.then(lambda done: done.value()[0] * 2)
    assert doubled.wait()[0] == 2 * size * size
    with dist._coalescing_manager(async_ops=True) as together:
        dist.all_reduce(tensors[0])
        dist.all_reduce(tensors[1])
    together.wait()
    assert (tensors[1] == size * size).all()


def functional_calls(rank: int, size: int) -> None:
    world = dist.group.WORLD
    wait = functional.wait_tensor
    assert (wait(functional.all_reduce(torch.ones(3), "sum", world)) == size).all()
    gathered = wait(functional.all_gather_tensor(torch.full((2,), float(rank)), 0, world))
    assert gathered.tolist() == [one for one in range(size) for _ in range(2)]
    part = wait(functional.reduce_scatter_tensor(torch.arange(2.0 * size), "sum", 0, world))
    assert part.tolist() == [size * 2.0 * rank, size * (2.0 * rank + 1)]
    source = torch.arange(float(size)) + 10 * rank
    swapped = wait(functional.all_to_all_single(source, None, None, world))
    assert swapped.tolist() == [rank + 10 * one for one in range(size)]


def refusals(rank: int, size: int) -> None:
    """Wrong arguments are errors before anything is sent."""
    wrong = [
        lambda: dist.all_reduce(torch.ones(2), dist.ReduceOp.BAND),
        lambda: dist.all_reduce(torch.ones(2, dtype=torch.int32), dist.ReduceOp.AVG),
        lambda: dist.all_gather([torch.empty(1)] * (size + 1), torch.ones(1)),
        lambda: dist.all_gather_into_tensor(torch.empty(size * 2 + 1), torch.ones(2)),
    ]
    for call in wrong:
        try:
            call()
        except ValueError as error:
            assert "expected" in str(error) or "no " in str(error)
        else:
            raise AssertionError("no error")


def main() -> None:
    dist.init_process_group("lepton")
    rank, size = dist.get_rank(), dist.get_world_size()
    parts = (reductions, moves, objects, messages, groups, asynchronous, functional_calls)
    for part in (*parts, refusals):
        part(rank, size)
        dist.barrier()
        if rank == 0:
            print(part.__name__, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""Activations that wait for the backward pass in half the memory: a plan's kept arrays as bfloat16, between two of its calls.

    call      forward                loss   backward
              a   b  pack  c   d      L      d'  c'  unpack  b'   a'
    b/out         |---|                                |-----|          of the run's type, twice
    b/out, packed     |--------------------------------|                2 bytes a number

An array is packed after the last call of the forward pass that has it, and unpacked before the first one behind the loss. The forward
pass and the loss keep their bits. Gradients are those at the rounded activations, each off by at most 2**-8 of itself. Values between layers are
packed, and kept memory of which a layer says so (``Memory.rounds``): statistics are small, and many numbers depend on each. A ReLU's
mask is made of its output, which rounding leaves positive or 0 (``Layer.before_relu``): made of a rounded input it would be
another for one in some hundred numbers, and gradients off by 4 % in place of 0.2 % (resnet20).
An array that only the loss lies between is left as it is: it would be unpacked at once.

Cost: each number is read and written twice more, 12 bytes beside the 8 or more of the two passes. Source: ``packing_kernels.py``.
"""

from collections.abc import Iterable

import numpy as np

from lepton_mpi.layers.placement import Buffer, place
from lepton_mpi.layers.plan import Call, Key, Plan, Ref

# Calls from the last of the forward pass to the first of the backward pass between which packing an array saves nothing.
_NEAR = 2
_PACKED = np.dtype(np.uint16)


def pack(plan: Plan) -> Plan:
    """The plan of a training step with its kept arrays packed; ``plan`` is used up."""
    head = next(number for number, call in enumerate(plan.calls) if call.does == "head")
    gaps = _gaps(plan, head)
    packed = Plan(plan.rows, lasting=plan.lasting)
    for number, call in enumerate(plan.calls):
        due = [key for key, (_, first) in gaps.items() if first == number]
        packed.calls += [_turned("unpack", key, call, plan.buffers[key]) for key in due]
        packed.calls.append(_renamed(call, gaps) if number > head else call)
        over = [key for key, (last, _) in gaps.items() if last == number]
        packed.calls += [_turned("pack", key, call, plan.buffers[key]) for key in over]
    _declare(packed, plan.buffers)
    packed.arena_bytes = place(list(packed.buffers.values()))
    return packed


def _gaps(plan: Plan, head: int) -> dict[Key, tuple[int, int]]:
    """Arrays that are worth it, each with the last call that has it up to the head's, and the first behind it."""
    uses: dict[Key, list[int]] = {}
    for number, call in enumerate(plan.calls):
        for ref in call.refs():
            uses.setdefault(ref.key, []).append(number)
    # The loss may have put the gradient in its place.
    gradients = {ref.key for ref in plan.calls[head].grad_xs if ref}
    gaps = {}
    for key, numbers in uses.items():
        before, behind = ([n for n in numbers if (n > head) == is_behind] for is_behind in (0, 1))
        is_kept = before and behind and behind[0] - before[-1] > _NEAR
        if is_kept and key in plan.buffers and plan.buffers[key].rounds and key not in gradients:
            gaps[key] = before[-1], behind[0]
    return gaps


def _keys(key: Key) -> tuple[Key, Key]:
    """Of an array while it is packed, and of the one that it is unpacked to."""
    return ("packed", key), ("unpacked", key)


def _turned(does: str, key: Key, call: Call, buffer: Buffer) -> Call:
    packed, unpacked = (Ref(each, buffer.shape) for each in _keys(key))
    if does == "pack":
        return Call("pack", call.node, (Ref(key, buffer.shape),), packed)
    return Call("unpack", call.node, (packed,), unpacked)


def _renamed(call: Call, gaps: Iterable[Key]) -> Call:
    """A call of the backward pass that reads what is unpacked."""

    def new(ref: Ref) -> Ref:
        return Ref(_keys(ref.key)[1], ref.shape) if ref.key in gaps else ref

    return call._replace(
        xs=tuple(map(new, call.xs)),
        out=call.out and new(call.out),
        grad_out=call.grad_out and new(call.grad_out),
        grad_xs=tuple(ref and new(ref) for ref in call.grad_xs),
        memory={name: new(ref) for name, ref in call.memory.items()},
    )


def _declare(plan: Plan, before: dict[Key, Buffer]) -> None:
    """Buffers of all that the calls have, with their lives."""
    for number, call in enumerate(plan.calls):
        for ref in call.refs():
            if ref.key in plan.lasting:
                continue
            if ref.key not in plan.buffers:
                plan.buffers[ref.key] = _buffer(ref.key, before, number)
            plan.buffers[ref.key].last = number


def _buffer(key: Key, before: dict[Key, Buffer], number: int) -> Buffer:
    if key in before:
        old = before[key]
        return Buffer(old.name, old.shape, old.dtype, number, number, rounds=old.rounds)
    what, of = key
    old = before[of]
    if what == "packed":
        return Buffer(f"{old.name}, packed", old.shape, _PACKED, number, number, holds="bfloat16")
    return Buffer(f"{old.name}, unpacked", old.shape, old.dtype, number, number)

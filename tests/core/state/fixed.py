"""A fixed log of some thousand entries, and what it comes to: ``python -m tests.core.state.fixed``
prints the digest, so that it can be had from interpreters that hash differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from kvtwist.core.state.answers import encode_answer
from kvtwist.core.state.commands import (
    Advance,
    CloseSession,
    Command,
    Condition,
    Expire,
    OpenSession,
    SetGeneration,
    Write,
    encode,
)
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Delete, Get, Increment, Operation, Put

ENTRIES = 4000


def commands() -> Iterator[Command]:
    """The log: always the same."""
    random = Random(20)
    opened = [0]
    for index in range(1, ENTRIES + 1):
        stamp_ms, generation = 10 * index, 1 + index // 1000
        match random.randrange(20):
            case _ if index % 1000 == 0:
                yield SetGeneration(stamp_ms, generation - 1, generation)
            case 0:
                opened.append(index)
                yield OpenSession(stamp_ms, generation, random.choice([500, 50_000]))
            case 1:
                yield CloseSession(stamp_ms, generation, random.choice(opened))
            case 2:
                yield Expire(stamp_ms, stamp_ms - random.randrange(100), random.randrange(20))
            case 3:
                yield Advance(stamp_ms - random.randrange(50))
            case _:
                yield Write(
                    stamp_ms,
                    generation - random.randrange(20) // 19,
                    random.choice(opened[-8:]),
                    index - random.randrange(min(index, 300)),
                    max(0, index - random.randrange(900)),
                    tuple(_operation(random) for _ in range(random.randrange(1, 4))),
                    tuple(_condition(random) for _ in range(random.randrange(20) // 19)),
                    random.randrange(2),
                )


def machine() -> tuple[StateMachine, list[bytes]]:
    """The machine that has applied the log, and its answers."""
    applied = StateMachine(Contents(1))
    answers = [
        encode_answer(applied.apply(index, encode(command)))
        for index, command in enumerate(commands(), 1)
    ]
    return applied, answers


def _operation(random: Random) -> Operation:
    key = b"%d" % random.randrange(800)
    match random.randrange(6):
        case 0:
            return Delete(key)
        case 1:
            return Increment(b"n" + key, random.randrange(-5, 5))
        case 2:
            return Get(key)
        case 3:
            return Put(key, key * 3, random.choice([50, 5000, 500_000]))
        case _:
            return Put(key, random.randbytes(20))


def _condition(random: Random) -> Condition:
    return Condition(b"%d" % random.randrange(800), 0)


if __name__ == "__main__":
    print(machine()[0].digest().hex())

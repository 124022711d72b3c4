"""What the commands of the wire are to a replicated partition: entries of its log, and the answers
to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.protocols import amp

from kvtwist.core.state.answers import (
    Answer,
    NotWritten,
    Refused,
    Written,
)
from kvtwist.core.state.commands import NO_SESSION, Command, Write
from kvtwist.core.state.operations import Delete, Operation, Put
from kvtwist.core.state.outcomes import Changed, Mismatch
from kvtwist.core.state.records import Record
from kvtwist.errors import KvtwistError, NodeFault, Unavailable
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments


def proposal(
    command: type[amp.Command], arguments: Arguments, generation: int
) -> Callable[[int], Command]:
    """Makes the entry that asks for *command*, given its stamp in log time.

    :param generation: of the partition, for a request that does not say for which it was sent.
    """
    operation = _OPERATIONS[command](arguments)
    return lambda stamp_ms: Write(stamp_ms, generation, NO_SESSION, 0, 0, (operation,))


def answer_to(command: type[amp.Command], answer: Answer) -> Arguments:
    """The answer to *command*, when its entry has got *answer*.

    :raises KvtwistError: when it was refused.
    """
    return _ANSWERS[command](answer)


def seen(record: Record | None) -> Arguments:
    """The answer to a `Get`."""
    if record is None:
        return {"version": 0, "value": None}
    return {"version": record.version, "value": record.value}


def _put(arguments: Arguments) -> Operation:
    return Put(arguments["key"], arguments["value"])


def _delete(arguments: Arguments) -> Operation:
    return Delete(arguments["key"], arguments["version"])


def _compare_and_set(arguments: Arguments) -> Operation:
    return Put(arguments["key"], arguments["value"], version=arguments["version"])


_OPERATIONS: Mapping[type[amp.Command], Callable[[Arguments], Operation]] = {
    commands.Put: _put,
    commands.Delete: _delete,
    commands.CompareAndSet: _compare_and_set,
}


def _was_put(answer: Answer) -> Arguments:
    match answer:
        case Written((Changed(version),)):
            return {"version": version}
    raise _odd(answer)


def _was_conditional(answer: Answer) -> Arguments:
    match answer:
        case Written((Changed(version),)):
            return {"done": True, "version": version, "value": None}
        case Written():  # there was nothing to delete
            return {"done": False, "version": 0, "value": None}
        case NotWritten((Mismatch(_, version, value),)):
            return {"done": False, "version": version, "value": value}
    raise _odd(answer)


_ANSWERS: Mapping[type[amp.Command], Callable[[Answer], Arguments]] = {
    commands.Put: _was_put,
    commands.Delete: _was_conditional,
    commands.CompareAndSet: _was_conditional,
}


def _odd(answer: Answer) -> KvtwistError:
    if isinstance(answer, Refused):
        return Unavailable(f"the partition refuses it: {answer}")
    return NodeFault(f"the partition's answer makes no sense: {answer}")

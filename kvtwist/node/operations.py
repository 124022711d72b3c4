"""What the commands of the wire are to a replicated partition: entries of its log, and the answers
to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.protocols import amp

from kvtwist.core.state.answers import (
    Answer,
    BelowMark,
    BeyondWindow,
    NotWritten,
    Refused,
    SessionOpened,
    TooManyAnswers,
    TooManySessions,
    UnknownSession,
    Written,
    WrongGeneration,
)
from kvtwist.core.state.commands import NO_SESSION, Command, OpenSession, Write
from kvtwist.core.state.operations import Delete, Increment, Operation, Put
from kvtwist.core.state.outcomes import Changed, Counted, Mismatch, NotANumber, OutOfRange
from kvtwist.core.state.records import Record
from kvtwist.errors import KvtwistError, NodeFault, SessionRefused
from kvtwist.errors import NotANumber as NotANumberError
from kvtwist.errors import OutOfRange as OutOfRangeError
from kvtwist.errors import WrongGeneration as WrongGenerationError
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments
from kvtwist.wire.once import unpack_once


def proposal(
    command: type[amp.Command], arguments: Arguments, generation: int
) -> Callable[[int], Command]:
    """Makes the entry that asks for *command*, given its stamp in log time.

    :param generation: of the partition, for a request that does not say for which it was sent.
    :raises MalformedRequest: when what it says of its session cannot be read.
    """
    if command is commands.OpenSession:
        idle_ms = arguments["idle_ms"]
        return lambda stamp_ms: OpenSession(stamp_ms, generation, idle_ms)
    operations = (_OPERATIONS[command](arguments),)
    said = arguments["once"]
    if said is None:
        return lambda stamp_ms: Write(stamp_ms, generation, NO_SESSION, 0, 0, operations)
    once = unpack_once(said)
    return lambda stamp_ms: Write(stamp_ms, *once, operations)


def answer_to(command: type[amp.Command], answer: Answer, generation: int = 0) -> Arguments:
    """The answer to *command*, when its entry has got *answer*.

    :param generation: the one that `proposal` was given, for an `OpenSession`.
    :raises KvtwistError: when it was refused, or could not be done.
    """
    if isinstance(answer, Refused):
        raise refusal(answer)
    if isinstance(answer, SessionOpened):
        return {"session": answer.session, "generation": generation}
    return _ANSWERS[command](answer)


def refusal(answer: Refused) -> KvtwistError:
    """The error for an entry that was not looked at. It says nothing of the attempts before."""
    match answer:
        case WrongGeneration(carried, own):
            return WrongGenerationError(
                f"it was sent for generation {carried} of the partition, whose own is {own}",
                generation=own,
            )
        case UnknownSession(session):
            return SessionRefused(
                f"there is no session {session} (any more): it has expired, or was never opened",
                reason="unknown",
            )
        case BelowMark(seq, mark):
            return SessionRefused(
                f"seq {seq} was answered: the session's lowest unanswered one is {mark}",
                reason="below_mark",
            )
        case BeyondWindow(seq, mark):
            return SessionRefused(
                f"seq {seq} is too far above the session's lowest unanswered one, {mark}",
                reason="beyond_window",
            )
        case TooManyAnswers(limit):
            return SessionRefused(
                f"the partition keeps {limit:,} answers, as many as it may: later",
                reason="too_many_answers",
            )
        case TooManySessions(limit):
            return SessionRefused(
                f"the partition has {limit:,} sessions, as many as it may: write without one, or "
                "wait until some have expired",
                reason="too_many_sessions",
            )


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


def _increment(arguments: Arguments) -> Operation:
    return Increment(arguments["key"], arguments["delta"])


_OPERATIONS: Mapping[type[amp.Command], Callable[[Arguments], Operation]] = {
    commands.Put: _put,
    commands.Delete: _delete,
    commands.CompareAndSet: _compare_and_set,
    commands.Increment: _increment,
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
            # Of a retry the value is not known any more, only the version.
            return {"done": False, "version": version, "value": value}
    raise _odd(answer)


def _was_counted(answer: Answer) -> Arguments:
    match answer:
        case Written((Counted() as counted,)):
            return counted_or_raise(counted)
        case NotWritten((NotANumber() | OutOfRange() as failed,)):
            return counted_or_raise(failed)
    raise _odd(answer)


def counted_or_raise(outcome: Counted | NotANumber | OutOfRange) -> Arguments:
    """The answer to an `Increment`.

    :raises NotANumber: when there is something that cannot be added to.
    """
    match outcome:
        case Counted(version, number):
            return {"version": version, "total": number}
        case NotANumber(_, version):
            raise NotANumberError(
                f"not incremented: what is there, at version {version}, is no decimal int64",
                version=version,
            )
        case OutOfRange(_, version):
            raise OutOfRangeError(
                f"not incremented: the sum with what is there, at version {version}, is no int64",
                version=version,
            )


_ANSWERS: Mapping[type[amp.Command], Callable[[Answer], Arguments]] = {
    commands.Put: _was_put,
    commands.Delete: _was_conditional,
    commands.CompareAndSet: _was_conditional,
    commands.Increment: _was_counted,
}


def _odd(answer: Answer) -> KvtwistError:
    return NodeFault(f"the partition's answer makes no sense: {answer}")

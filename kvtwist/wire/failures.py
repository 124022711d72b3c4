"""Errors as they cross the wire.

An AMP error is a code and a description. Ours say in the description one line for people and, if
the error has typed details, a second line of JSON for programs; the exception that comes out at the
other end equals the one that went in.
"""

from __future__ import annotations

import json
from typing import Any

from kvtwist.errors import (
    DiskFull,
    HelloRefused,
    KvtwistError,
    MalformedRequest,
    NodeFault,
    NotANumber,
    NotLeader,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    Refused,
    SessionRefused,
    TooLarge,
    Unavailable,
    UnknownCommand,
    WrongGeneration,
)

DESCRIPTION_BYTES_MAX = 16384

CLASSES: tuple[type[KvtwistError], ...] = (
    DiskFull,
    HelloRefused,
    MalformedRequest,
    NodeFault,
    NotANumber,
    NotLeader,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    Refused,
    SessionRefused,
    TooLarge,
    Unavailable,
    UnknownCommand,
    WrongGeneration,
)
_BY_CODE = {cls.code.encode(): cls for cls in CLASSES}


def crosses_the_wire(error: BaseException) -> bool:
    """Whether *error* can be told to the other end as what it is."""
    return isinstance(error, CLASSES)


def write_failure(error: KvtwistError) -> tuple[bytes, bytes]:
    """The code and description of *error*.

    Local refinements cross as the nearest class that has a code: a `NotSent` is `Unavailable` to
    the other end.
    """
    code: str = next(
        cls.__dict__["code"] for cls in type(error).__mro__ if cls.__dict__.get("code")
    )
    text = _cut(" ".join(str(error).split()), DESCRIPTION_BYTES_MAX // 2)
    details = error.details()
    if not details:
        return code.encode(), text
    typed = json.dumps(details, separators=(",", ":"), default=repr).encode()
    if len(text) + 1 + len(typed) > DESCRIPTION_BYTES_MAX:
        return code.encode(), text
    return code.encode(), text + b"\n" + typed


def read_failure(code: bytes, description: bytes) -> KvtwistError:
    """The exception that a peer meant by *code* and *description*; never fails.

    A code that this release does not know says nothing of the outcome: `OutcomeUnknown`.
    """
    line, _, typed = description.decode("utf-8", "replace").partition("\n")
    text = " ".join(line.split())
    cls = _BY_CODE.get(code)
    if cls is None:
        return OutcomeUnknown(f"{text} (the peer's error code is {code[:40]!r})")
    plain = cls(text)
    try:
        error = cls(text, **_details(cls, typed))
    except (ValueError, TypeError, RecursionError):
        return plain
    # Whoever reads a detail relies on its type: a peer that says another one has said nothing.
    is_sensible = all(
        type(said) is type(plain.details()[name]) for name, said in error.details().items()
    )
    return error if is_sensible else plain


def _cut(text: str, bytes_max: int) -> bytes:
    """The text in UTF-8, cut between two characters if it is too long."""
    data = text.encode("utf-8", "replace")[:bytes_max]
    return data.decode("utf-8", "ignore").encode()


def pack_failure(error: KvtwistError) -> bytes:
    """*error* as one string, for answers that have an error for each key."""
    code, description = write_failure(error)
    return code + b"\0" + description


def unpack_failure(packed: bytes) -> KvtwistError:
    """The error that `pack_failure` wrote; never fails."""
    code, _, description = packed.partition(b"\0")
    return read_failure(code, description)


def _details(cls: type[KvtwistError], typed: str) -> dict[str, Any]:
    said = json.loads(typed) if typed else {}
    if not isinstance(said, dict):
        raise ValueError("the details are not a JSON object")
    return {name: said[name] for name in cls.detail_names if name in said}

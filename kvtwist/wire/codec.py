"""Boxes of typed commands, read and written without AMP's generic machinery.

Stock AMP goes through each argument with half a dozen calls and conversions of its name, which
took most of the time of a small request. Here each command's declared arguments are laid out once;
then a request or an answer is one pass over them and one ``join``. The bytes are the same: the
property tests hold this codec against ``amp.Command``'s own, both ways.

In: a command's arguments or answer, as a dictionary. Out: the bytes of its box; and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from twisted.protocols import amp

from kvtwist.wire.arguments import Blob, Blobs, Int64, Natural, Numbers, joined, piece_name
from kvtwist.wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    KEY_BYTES_MAX,
    LARGE_BYTES,
    VALUE_BYTES_MAX,
    Box,
    Parts,
    pair,
)

Values: TypeAlias = dict[str, Any]
_Write: TypeAlias = Callable[[list[Any], Any], None]
_Read: TypeAlias = Callable[[bytes, Box], Any]

_END: Final = b"\0\0"
_ASK_PREFIX: Final = bytes((0, len(ASK))) + ASK
_ANSWER_PREFIX: Final = bytes((0, len(ANSWER))) + ANSWER
_TRUE: Final = b"True"
_FALSE: Final = b"False"
_LARGE_PIECES: Final = 48
"""A box of fewer pieces is not large, or is made of pieces that have been copied anyway."""


def _counted(value: bytes) -> bytes:
    """A value after its length."""
    if len(value) > VALUE_BYTES_MAX:
        raise ValueError(f"an AMP value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
    return len(value).to_bytes(2, "big") + value


def _unjoined(pieces: list[Any]) -> bytes | Parts:
    parts = Parts(pieces)
    return parts if len(parts) > LARGE_BYTES else bytes(parts)


class _Field(NamedTuple):
    """One declared argument."""

    name: str
    wire_name: bytes
    optional: bool
    write: _Write
    read: _Read


class _Layout:
    """The arguments of a command, or of its answer, laid out for one pass."""

    __slots__ = ("_fields", "_required", "_writers")

    def __init__(self, declared: list[tuple[bytes, amp.Argument]]) -> None:
        self._fields = [_field(*each) for each in declared]
        self._required = [field.name for field in self._fields if not field.optional]
        self._writers = {field.name: field.write for field in self._fields}

    def write(self, pieces: list[Any], values: Mapping[str, Any]) -> list[Any]:
        """The box that begins with *pieces*, in pieces; what is not declared is left out."""
        writers = self._writers
        for name, value in values.items():
            if value is not None and (write := writers.get(name)) is not None:
                try:
                    write(pieces, value)
                except (ValueError, TypeError):
                    raise
                except Exception as error:
                    raise ValueError(f"{name}: {error}") from error
        for name in self._required:
            if values.get(name) is None:
                raise ValueError(f"{name} is missing")
        pieces.append(_END)
        return pieces

    def read(self, box: Box) -> Values:
        """The values in *box*; keys that are not declared are passed over."""
        values: Values = {}
        for name, wire_name, optional, _, read in self._fields:
            data = box.get(wire_name)
            if data is not None:
                try:
                    values[name] = read(data, box)
                except Exception as error:
                    raise ValueError(f"{name}: {error}") from error
            elif optional:
                values[name] = None
            else:
                raise ValueError(f"{name} is missing")
        return values


class Codec:
    """The codec of one command.

    :raises ValueError, TypeError: from every method, when a value is missing or of another type.
    """

    __slots__ = ("_answer", "_arguments", "_header", "command")

    def __init__(self, command: type[amp.Command]) -> None:
        self.command = command
        self._header = pair(COMMAND, command.commandName)
        self._arguments = _Layout(command.arguments)
        self._answer = _Layout(command.response)

    def request(self, tag: bytes, arguments: Mapping[str, Any]) -> bytes | Parts:
        """The box that asks for the command; its answer will carry *tag*. Not joined if large."""
        begin = [_ASK_PREFIX, _counted(tag), self._header]
        pieces = self._arguments.write(begin, arguments)
        return b"".join(pieces) if len(pieces) < _LARGE_PIECES else _unjoined(pieces)

    def notice(self, arguments: Mapping[str, Any]) -> bytes | Parts:
        """The box of a command that wants no answer: it has no tag. Not joined if large."""
        pieces = self._arguments.write([self._header], arguments)
        return b"".join(pieces) if len(pieces) < _LARGE_PIECES else _unjoined(pieces)

    def answer(self, tag: bytes, answer: Mapping[str, Any]) -> bytes | Parts:
        """The box that answers the request with *tag*. Not joined if large."""
        pieces = self._answer.write([_ANSWER_PREFIX, _counted(tag)], answer)
        return b"".join(pieces) if len(pieces) < _LARGE_PIECES else _unjoined(pieces)

    def write_request(self, tag: bytes, arguments: Mapping[str, Any]) -> bytes:
        """The bytes of a request, of any size."""
        return bytes(self.request(tag, arguments))

    def write_answer(self, tag: bytes, answer: Mapping[str, Any]) -> bytes:
        """The bytes of an answer, of any size."""
        return bytes(self.answer(tag, answer))

    def read_arguments(self, box: Box) -> Values:
        """The arguments in a request; keys that are not declared are passed over."""
        return self._arguments.read(box)

    def read_answer(self, box: Box) -> Values:
        """The values in an answer; keys that are not declared are passed over."""
        return self._answer.read(box)


def _field(wire_name: bytes, argument: amp.Argument) -> _Field:
    name = wire_name.decode()
    for kind, write, read in (
        (Blob, _blob_writer, _blob_reader),
        (Blobs, _packed_writer, _packed_reader),
        (Numbers, _packed_writer, _packed_reader),
        (Natural, _number_writer, _number_reader),
        (Int64, _number_writer, _number_reader),
        (amp.Boolean, _boolean_writer, _boolean_reader),
    ):
        if type(argument) is kind:
            return _Field(
                name,
                wire_name,
                argument.optional,
                write(wire_name, argument),
                read(wire_name, argument),
            )
    return _Field(
        name,
        wire_name,
        argument.optional,
        _any_writer(wire_name, argument),
        _any_reader(wire_name, argument),
    )


# -- the types of the hot commands, each without a call that it can do without ------------------


def _blob_writer(wire_name: bytes, _: amp.Argument) -> _Write:
    prefix = bytes((0, len(wire_name))) + wire_name

    def write(pieces: list[Any], value: bytes) -> None:
        if type(value) is not bytes:
            raise TypeError(f"bytes are needed here, not {type(value).__name__}")
        size = len(value)
        if size <= VALUE_BYTES_MAX:
            pieces += (prefix, size.to_bytes(2, "big"), value)
        else:
            _write_large(pieces, wire_name, memoryview(value))

    return write


def _write_large(pieces: list[Any], wire_name: bytes, value: memoryview) -> None:
    """In pieces that are views: nothing is copied before the box is joined."""
    for number, at in enumerate(range(0, len(value), VALUE_BYTES_MAX), start=1):
        name = wire_name if number == 1 else piece_name(wire_name, number)
        piece = value[at : at + VALUE_BYTES_MAX]
        pieces += (bytes((0, len(name))), name, len(piece).to_bytes(2, "big"), piece)


def _blob_reader(wire_name: bytes, _: amp.Argument) -> _Read:
    second = piece_name(wire_name, 2)

    def read(data: bytes, box: Box) -> bytes:
        if len(data) < VALUE_BYTES_MAX and second not in box:
            return data
        return joined(wire_name, data, box)

    return read


def _packed_writer(wire_name: bytes, argument: Any) -> _Write:
    write_blob, to_bytes = _blob_writer(wire_name, argument), argument.to_bytes
    return lambda pieces, value: write_blob(pieces, to_bytes(value))


def _packed_reader(wire_name: bytes, argument: Any) -> _Read:
    read_blob, from_bytes = _blob_reader(wire_name, argument), argument.from_bytes
    return lambda data, box: from_bytes(read_blob(data, box))


def _number_writer(wire_name: bytes, argument: amp.Argument) -> _Write:
    prefix = bytes((0, len(wire_name))) + wire_name
    to_string = argument.toString

    def write(pieces: list[Any], value: int) -> None:
        digits = to_string(value)
        pieces += (prefix, len(digits).to_bytes(2, "big"), digits)

    return write


def _number_reader(_: bytes, argument: amp.Argument) -> _Read:
    from_string = argument.fromString
    return lambda data, _: from_string(data)


def _boolean_writer(wire_name: bytes, _: amp.Argument) -> _Write:
    true, false = pair(wire_name, _TRUE), pair(wire_name, _FALSE)

    def write(pieces: list[Any], value: bool) -> None:
        pieces.append(true if value else false)

    return write


def _boolean_reader(_: bytes, argument: amp.Argument) -> _Read:
    from_string = argument.fromString
    return lambda data, _: from_string(data)


# -- all other types: AMP's own way ---------------------------------------------------------------


def _any_writer(wire_name: bytes, argument: amp.Argument) -> _Write:
    name = wire_name.decode()

    def write(pieces: list[Any], value: Any) -> None:
        strings: dict[bytes, bytes] = {}
        argument.toBox(wire_name, strings, {name: value}, None)
        for key, data in strings.items():
            if len(data) > VALUE_BYTES_MAX:
                raise ValueError(f"{name} has more than {VALUE_BYTES_MAX} bytes")
            assert len(key) <= KEY_BYTES_MAX
            pieces.append(pair(key, data))

    return write


def _any_reader(wire_name: bytes, argument: amp.Argument) -> _Read:
    name = wire_name.decode()

    def read(_: bytes, box: Box) -> Any:
        objects: Values = {}
        argument.fromBox(wire_name, box, objects, None)
        return objects[name]

    return read


_CODECS: Final[dict[type[amp.Command], Codec]] = {}


def codec_of(command: type[amp.Command]) -> Codec:
    """The codec of *command*; laid out at its first use."""
    codec = _CODECS.get(command)
    if codec is None:
        codec = _CODECS[command] = Codec(command)
    return codec

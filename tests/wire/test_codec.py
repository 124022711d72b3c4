"""The codec against ``amp.Command``'s own reading and writing, which it takes the place of."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.arguments import (
    INT64_MIN,
    NATURAL_MAX,
    Blob,
    Blobs,
    Int64,
    Natural,
    Numbers,
    Rows,
)
from kvtwist.wire.boxes import ANSWER, ASK, COMMAND, Box, BoxReader, write_box
from kvtwist.wire.codec import Codec, codec_of
from kvtwist.wire.commands import COMMANDS, Delete, Get, GetMany, Hello, Put, Status
from tests.wire.loopback import WIDE_OPEN, cut_at, pieces
from tests.wire.properties import examples

Command = type[amp.Command]
Pairs = list[tuple[bytes, amp.Argument]]

texts = st.text(max_size=9)
lengths = st.sampled_from([65_534, 65_535, 65_536, 131_070, 131_071, 200_000])
_blobs = st.binary(max_size=20) | lengths.map(lambda size: (b"%d." % size * size)[:size])
_small_rows = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 65_535)] * width), max_size=5)
)
OF_TYPE: dict[type, Callable[[Any], st.SearchStrategy[Any]]] = {
    Natural: lambda _: st.integers(0, NATURAL_MAX),
    Int64: lambda _: st.integers(INT64_MIN, NATURAL_MAX),
    Blob: lambda _: _blobs,
    Blobs: lambda _: st.lists(st.none() | _blobs, max_size=3),
    Numbers: lambda _: st.lists(st.integers(0, NATURAL_MAX), max_size=4).map(tuple),
    Rows: lambda _: _small_rows.map(tuple),
    amp.Boolean: lambda _: st.booleans(),
    amp.Unicode: lambda _: texts,
    amp.ListOf: lambda argument: st.lists(value_of(argument.elementType), max_size=3),
    amp.AmpList: lambda argument: st.lists(values_of(argument.subargs), max_size=3),
}
garbage = st.sampled_from(
    [b"", b"\xff\xff", b"1", b"-1", b"True", b"9" * 300, b"\0\1a", b"x" * 65_535]
)


def value_of(argument: amp.Argument) -> st.SearchStrategy[Any]:
    """What an argument can be."""
    value = OF_TYPE[type(argument)](argument)
    return st.none() | value if argument.optional else value


def values_of(pairs: Pairs) -> st.SearchStrategy[dict[str, Any]]:
    """What a list of arguments can be."""
    return st.fixed_dictionaries({name.decode(): value_of(kind) for name, kind in pairs})


def said_with(pairs: Callable[[Command], Pairs]) -> st.SearchStrategy[tuple[Command, Any]]:
    """A command, and arguments or an answer of it."""
    return st.sampled_from(COMMANDS).flatmap(
        lambda command: st.tuples(st.just(command), values_of(pairs(command)))
    )


requests = said_with(lambda command: command.arguments)
answers = said_with(lambda command: command.response)

quickly = examples(60)


def received(data: bytes) -> Box:
    """The one box in *data*, which stock AMP has to find there too."""
    (box,) = BoxReader(WIDE_OPEN).feed(data)
    assert amp.parseString(data) == [box]
    return box


def outcome(read: Callable[[], Any]) -> Any:
    """What reading gives: a value, or that it cannot be read."""
    try:
        return read()
    except Exception:
        return "malformed"


class StockTests(SynchronousTestCase):
    """The same bytes, the same values."""

    @quickly
    @given(requests, st.binary(max_size=9))
    def test_requests(self, said: tuple[Command, Any], tag: bytes) -> None:
        """Else our requests are others than those that the command classes document."""
        command, arguments = said
        box = received(codec_of(command).write_request(tag, arguments))
        envelope = {COMMAND: command.commandName, ASK: tag}
        self.assertEqual(box, command.makeArguments(arguments, None) | envelope)
        self.assertEqual(codec_of(command).read_arguments(dict(box)), arguments)
        self.assertEqual(command.parseArguments(amp.AmpBox(box), None), arguments)

    @quickly
    @given(answers, st.binary(max_size=9))
    def test_answers(self, said: tuple[Command, Any], tag: bytes) -> None:
        """Else our answers are others than those that the command classes document."""
        command, answer = said
        box = received(codec_of(command).write_answer(tag, answer))
        self.assertEqual(box, command.makeResponse(answer, None) | {ANSWER: tag})
        self.assertEqual(codec_of(command).read_answer(dict(box)), answer)
        self.assertEqual(command.parseResponse(amp.AmpBox(box), None), answer)

    @quickly
    @given(requests, st.data())
    def test_damaged_requests(self, said: tuple[Command, Any], data: st.DataObject) -> None:
        """Else what one end refuses the other takes for something."""
        command, arguments = said
        box: Box = dict(command.makeArguments(arguments, None))
        damage(box, data)
        self.assertEqual(
            outcome(lambda: codec_of(command).read_arguments(dict(box))),
            outcome(lambda: command.parseArguments(amp.AmpBox(box), None)),
        )

    @quickly
    @given(answers, st.data())
    def test_damaged_answers(self, said: tuple[Command, Any], data: st.DataObject) -> None:
        """The same."""
        command, answer = said
        box: Box = dict(command.makeResponse(answer, None))
        damage(box, data)
        self.assertEqual(
            outcome(lambda: codec_of(command).read_answer(dict(box))),
            outcome(lambda: command.parseResponse(amp.AmpBox(box), None)),
        )


def damage(box: Box, data: st.DataObject) -> None:
    """Take away some pairs of a box, and change others."""
    for key in list(box):
        match data.draw(st.sampled_from(["keep", "keep", "drop", "change"])):
            case "drop":
                del box[key]
            case "change":
                box[key] = data.draw(garbage)


class CodecTests(SynchronousTestCase):
    """One codec."""

    def test_all_types_are_met(self) -> None:
        """Else a type of argument is in the protocol that the tests here never try."""
        for command in COMMANDS:
            for _, kind in (*command.arguments, *command.response):
                self.assertIn(type(kind), OF_TYPE)

    def test_missing(self) -> None:
        """Else half a request is sent, or carried out; the error says which half."""
        codec = codec_of(Put)
        for arguments in ({"key": b"k"}, {"key": b"k", "value": None}):
            error = self.assertRaises(ValueError, codec.write_request, b"1", arguments)
            self.assertEqual(str(error), "value is missing")
        error = self.assertRaises(ValueError, codec.read_arguments, {b"key": b"k"})
        self.assertEqual(str(error), "value is missing")
        self.assertRaises(ValueError, codec.write_answer, b"1", {})
        self.assertRaises(ValueError, codec.read_answer, {})

    def test_wrong_types(self) -> None:
        """Else a mistake in the caller's code is found at the other end."""
        for command, arguments in (
            (Put, {"key": "text", "value": b"v"}),
            (Put, {"key": bytearray(b"k"), "value": b"v"}),
            (Delete, {"key": b"k", "version": "1"}),
            (Delete, {"key": b"k", "version": -1}),
            (GetMany, {"keys": ["text"]}),
            (GetMany, {"keys": b"k"}),
        ):
            with self.assertRaises((TypeError, ValueError)):
                codec_of(command).write_request(b"1", arguments)

    def test_too_long(self) -> None:
        """Else a list that no AMP value can hold breaks the stream for all that follows."""
        features = fine(Hello.arguments) | {"features": ["f" * 40_000] * 2}
        error = self.assertRaises(ValueError, codec_of(Hello).write_request, b"1", features)
        self.assertIn("features", str(error))
        self.assertRaises(ValueError, codec_of(Get).write_request, b"t" * 65_536, {"key": b"k"})

    def test_unknown_keys_in_a_box(self) -> None:
        """Else a node refuses the requests of the next release, which say more."""
        box = {b"key": b"k", b"colour": b"blue", b"key2": b"", b"": b""}
        self.assertEqual(
            codec_of(Get).read_arguments(box),
            {"key": b"k", "trace": None, "keyspace": None, "timeout_ms": None, "forwarded": None},
        )

    def test_large_values_are_not_copied_twice(self) -> None:
        """Else a 16 MiB value costs the reactor twice its time."""
        value = b"v" * (1 << 20)
        data = codec_of(Put).write_request(b"1", {"key": b"k", "value": value})
        self.assertEqual(received(data), by_stock(Put, {"key": b"k", "value": value}, b"1"))

    def test_one_codec_for_each_command(self) -> None:
        """Else each request lays out its command anew, and costs ten times as much."""
        self.assertIs(codec_of(Get), codec_of(Get))
        self.assertIs(codec_of(Get).command, Get)
        self.assertIsNot(codec_of(Get), codec_of(Put))
        self.assertIsInstance(codec_of(Status), Codec)


def by_stock(command: Command, arguments: dict[str, Any], tag: bytes) -> Box:
    """A request's box, as stock AMP makes it."""
    box = command.makeArguments(arguments, None) | {COMMAND: command.commandName, ASK: tag}
    return received(write_box(box))


class StockReceiver:
    """What stock AMP makes of a stream that comes in chunks.

    :ivar boxes: the boxes that it has found.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.boxes: list[amp.AmpBox] = []
        parser = amp.BinaryBoxProtocol(self)
        parser.makeConnection(StringTransport())
        for chunk in chunks:
            parser.dataReceived(chunk)

    def startReceivingBoxes(self, _: object) -> None:
        """Nothing to do."""

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Take down a box."""
        self.boxes.append(box)

    def stopReceivingBoxes(self, _: object) -> None:
        """Nothing to do."""


class StreamTests(SynchronousTestCase):
    """A row of requests, or of answers, in a stream that is cut anywhere: what is read has to be
    what was said, whichever end is stock AMP."""

    def assert_understood(
        self, command: Command, kind: str, said: list[Any], cut: Callable[[bytes], list[bytes]]
    ) -> None:
        """Both directions: our bytes read by stock AMP, and its bytes read by us."""
        codec = codec_of(command)
        write: Callable[[bytes, Any], bytes]
        read: Callable[[Box], Any]
        if kind == "requests":
            write, read = codec.write_request, codec.read_arguments
            make, parse = command.makeArguments, command.parseArguments
            envelope = {COMMAND: command.commandName}
        else:
            write, read = codec.write_answer, codec.read_answer
            make, parse = command.makeResponse, command.parseResponse
            envelope = {}
        tagged = [(b"%x" % number, each) for number, each in enumerate(said)]
        ours = b"".join(write(tag, each) for tag, each in tagged)
        stock = b""
        for tag, each in tagged:
            box = amp.AmpBox(make(each, None))
            box.update(envelope | {ASK if kind == "requests" else ANSWER: tag})
            stock += box.serialize()
        received = StockReceiver(cut(ours)).boxes
        self.assertEqual([parse(box, None) for box in received], said)
        reader = BoxReader(WIDE_OPEN)
        boxes = [box for chunk in cut(stock) for box in reader.feed(chunk)]
        self.assertFalse(reader.is_inside_box)
        self.assertEqual([read(box) for box in boxes], said)

    def test_every_command(self) -> None:
        """Else one command of the protocol cannot be used from a stock program, or not with some
        values, or not over a network that cuts the stream just there."""
        for command in COMMANDS:
            for kind, pairs in (("requests", command.arguments), ("answers", command.response)):
                self.exchange(command, kind, pairs)

    def exchange(self, command: Command, kind: str, pairs: Pairs) -> None:
        """Try one command's requests, or its answers."""

        @examples(15)
        @given(
            st.lists(values_of(pairs), min_size=1, max_size=3),
            st.lists(st.integers(0, 1 << 20), max_size=12),
        )
        def check(said: list[dict[str, Any]], places: list[int]) -> None:
            self.assert_understood(command, kind, said, lambda data: cut_at(data, places))

        check()

    def test_values_of_every_size(self) -> None:
        """Else a value whose last piece is full, or empty, is read with a piece too few."""
        for size in (0, 1, 65_534, 65_535, 65_536, 131_069, 131_070, 131_071, 196_605, 1 << 20):
            value = (b"%d." % size * size)[:size]
            get = {"version": 1, "value": value, "applied": None, "leader": None}
            put = {"key": value, "value": value, "trace": value} | dict.fromkeys(
                ("once", "keyspace", "timeout_ms", "forwarded")
            )
            for cut in (lambda data: [data], pieces(1000), pieces(65_535), pieces(65_536)):
                self.assert_understood(Get, "answers", [get, get], cut)
                self.assert_understood(Put, "requests", [put, put], cut)

    def test_byte_by_byte(self) -> None:
        """The same, over the worst of networks."""
        said = {"key": b"k", "value": b"v" * 66_000, "trace": b""} | dict.fromkeys(
            ("once", "keyspace", "timeout_ms", "forwarded")
        )
        small: dict[str, Any] = said | {"value": b"v", "forwarded": True, "timeout_ms": 1}
        self.assert_understood(Put, "requests", [small, small], pieces(1))


def values_by_name(pairs: Pairs) -> list[tuple[str, amp.Argument]]:
    """The arguments under their names."""
    return [(name.decode(), kind) for name, kind in pairs]


class StrangerTests(SynchronousTestCase):
    """Values that do not fit."""

    def test_nothing_else_is_raised(self) -> None:
        """Else a caller that guards itself as documented fails all the same; or a number with a
        fraction is sent as another number."""
        otherwise: set[str] = set()
        for command in COMMANDS:
            for pairs, write in (
                (command.arguments, codec_of(command).write_request),
                (command.response, codec_of(command).write_answer),
            ):
                for name, kind in values_by_name(pairs):
                    for wrong in WRONG[type(kind)]:
                        end = ended(partial(write, b"1", fine(pairs) | {name: wrong}))
                        if end not in (TypeError, ValueError, UnicodeEncodeError):
                            otherwise.add(f"{type(kind).__name__} {wrong!r}: {end}")
        self.assertEqual(sorted(otherwise), [])

    def test_each_missing(self) -> None:
        """Else half a request is sent or carried out, or half an answer is taken for one."""
        for command in COMMANDS:
            codec = codec_of(command)
            arguments, answer = fine(command.arguments), fine(command.response)
            for name, kind in values_by_name(command.arguments):
                self.missing(
                    name, kind, arguments, dict(command.makeArguments(arguments, None)),
                    codec.write_request, codec.read_arguments,
                )  # fmt: skip
            for name, kind in values_by_name(command.response):
                self.missing(
                    name, kind, answer, dict(command.makeResponse(answer, None)),
                    codec.write_answer, codec.read_answer,
                )  # fmt: skip

    def missing(
        self,
        name: str,
        kind: amp.Argument,
        values: dict[str, Any],
        box: Box,
        write: Callable[[bytes, Any], bytes],
        read: Callable[[Box], dict[str, Any]],
    ) -> None:
        """Leave one argument out."""
        del box[name.encode()]
        rest = {other: value for other, value in values.items() if other != name}
        if kind.optional:
            self.assertIsNone(read(box)[name])
            self.assertNotIn(name.encode(), received(write(b"1", rest)))
            self.assertEqual(write(b"1", rest), write(b"1", rest | {name: None}))
        else:
            for call in (lambda: read(box), lambda: write(b"1", rest)):
                error = self.assertRaises(ValueError, call)
                self.assertIn(name, str(error))

    def test_unknown_keys_anywhere(self) -> None:
        """Else a node refuses the requests, or the answers, of the next release."""
        for command in COMMANDS:
            codec = codec_of(command)
            for pairs, read, make in (
                (command.arguments, codec.read_arguments, command.makeArguments),
                (command.response, codec.read_answer, command.makeResponse),
            ):
                box: Box = dict(make(fine(pairs), None))
                more = {b"colour": b"blue", b"zzz.2": b"v" * 65_535, b"_strange": b"\xff"}
                self.assertEqual(read(more | box), read(box))


FINE: dict[type, Any] = {
    Natural: 1,
    Int64: -1,
    Blob: b"v",
    Blobs: [b"v", None],
    Numbers: (1,),
    Rows: ((0, 1),),
    amp.Boolean: True,
    amp.Unicode: "text",
    amp.ListOf: ["text"],
    amp.AmpList: [{"name": "n", "identity": "i", "address": "a"}],
}


WRONG: dict[type, list[Any]] = {
    Natural: [1.5, -1, 1 << 63, "1", b"1"],
    Int64: [1.5, -(1 << 63) - 1, 1 << 63, "1", b"1"],
    Blob: ["text", 1, bytearray(b"k"), [b"k"]],
    Blobs: [["text"], [1], 1, b"k"],
    Numbers: [["1"], [1.5], [-1], [1 << 63], [1 << 64], 1],
    Rows: [[("1",)], [(1.5,)], [(-1,)], [(1 << 16,)], [(1,), (1, 2)], [1], 1],
    amp.Boolean: [],  # to stock AMP too, anything is true or false
    amp.Unicode: [b"text", 1, "\ud800", "t" * 70_000],
    amp.ListOf: [[b"text"], [1], 1, ["t" * 40_000] * 2],
    amp.AmpList: [[{}], [{"name": "n"}], [1], 1],
}


def fine(pairs: Pairs) -> dict[str, Any]:
    """Values that fit."""
    return {name: FINE[type(kind)] for name, kind in values_by_name(pairs)}


def ended(call: Callable[[], object]) -> type | None:
    """The class of the exception that a call ends with."""
    try:
        call()
    except Exception as error:
        return type(error)
    return None


class MemoryTests(SynchronousTestCase):
    """T5, and the reactor's time: how often a large value is copied."""

    value_bytes = 16 << 20

    def peak(self, call: Callable[[], Any]) -> float:
        """How much memory *call* needs at most, in sizes of the value."""
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1] / self.value_bytes
        finally:
            tracemalloc.stop()

    def test_writing(self) -> None:
        """Else each piece of a large value is copied on its own, and then again."""
        arguments = {"key": b"k", "value": b"v" * self.value_bytes}
        self.assertLess(self.peak(lambda: codec_of(Put).write_request(b"1", arguments)), 1.1)
        answer = {"version": 1, "value": arguments["value"]}
        self.assertLess(self.peak(lambda: codec_of(Get).write_answer(b"1", answer)), 1.1)

    def test_reading(self) -> None:
        """The same, for the pieces that come in; and all together, a put needs no more than two
        and a half times the memory of its value."""
        value = b"v" * self.value_bytes
        data = codec_of(Put).write_request(b"1", {"key": b"k", "value": value})
        reader = BoxReader(WIDE_OPEN)

        def read() -> None:
            for at in range(0, len(data), 1 << 16):
                for box in reader.feed(data[at : at + (1 << 16)]):
                    self.assertEqual(len(codec_of(Put).read_arguments(box)["value"]), len(value))

        self.assertLess(self.peak(read), 2.2)

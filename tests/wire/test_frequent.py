"""The frequent boxes: the codec's bytes, and taken only if the codec would read the same."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire import frequent
from kvtwist.wire.applied import CLUSTER_ID_BYTES
from kvtwist.wire.arguments import NATURAL_MAX
from kvtwist.wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    VALUE_BYTES_MAX,
    Box,
    BoxReader,
    size_bytes,
    write_box,
)
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import Get, Put, RaftMessages
from kvtwist.wire.frequent import APPLIED_BYTES
from kvtwist.wire.once import ONCE_BYTES
from tests.wire.loopback import WIDE_OPEN
from tests.wire.properties import examples

TAG, KEY, VALUE, APPLIED = b"1a", b"key", b"value", b"a" * APPLIED_BYTES
ONCE = b"o" * ONCE_BYTES
CLUSTER, MESSAGES = b"c" * CLUSTER_ID_BYTES, b"messages of replicas"

quickly = examples(60)
tags = st.binary(max_size=255)
blobs = st.binary(max_size=40) | st.sampled_from(
    [size * b"x" for size in (255, 256, 257, VALUE_BYTES_MAX)]
)
versions = st.integers(0, NATURAL_MAX) | st.sampled_from([0, 10**18 - 1, 10**18, NATURAL_MAX])
onces = st.binary(min_size=ONCE_BYTES, max_size=ONCE_BYTES)
applieds = st.binary(min_size=APPLIED_BYTES, max_size=APPLIED_BYTES)
junk = st.binary(max_size=30)

Pairs = list[tuple[bytes, bytes]]

REQUESTS: list[Pairs] = [
    [(ASK, TAG), (COMMAND, b"Get"), (b"key", KEY), (b"timeout_ms", b"50")],
    [(ASK, TAG), (COMMAND, b"Put"), (b"key", KEY), (b"value", VALUE), (b"timeout_ms", b"50")],
    [
        (ASK, TAG),
        (COMMAND, b"Put"),
        (b"key", KEY),
        (b"value", VALUE),
        (b"once", ONCE),
        (b"timeout_ms", b"50"),
    ],
]
ANSWERS: list[Pairs] = [
    [(ANSWER, TAG), (b"version", b"7"), (b"applied", APPLIED)],
    [(ANSWER, TAG), (b"version", b"7"), (b"value", VALUE), (b"applied", APPLIED)],
]
TOLD: list[Pairs] = [
    [
        (COMMAND, b"RaftMessages"),
        (b"cluster", CLUSTER),
        (b"messages", MESSAGES),
        (b"willing", willing),
    ]
    for willing in (b"True", b"False")
]
FORMS = REQUESTS + ANSWERS + TOLD
KEYS = sorted(
    {key for form in FORMS for key, _ in form} | {b"value.2", b"messages.2", b"trace", b"forwarded"}
)
VALUES = [
    b"",
    TAG,
    KEY,
    APPLIED,
    APPLIED[1:],
    ONCE,
    ONCE[1:],
    CLUSTER,
    CLUSTER[1:],
    b"RaftMessages",
    b"True",
    b"False",
    b"Get",
    b"Put",
    b"Delete",
    b"-1",
    b"1 ",
    b"9" * 18,
    b"9" * 19,
    b"0" * 20,
    b"x" * VALUE_BYTES_MAX,
]

any_pair = st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES))


@st.composite
def nearly(draw: st.DrawFn, forms: list[Pairs]) -> bytes:
    """A frequent box in which a pair, or a byte, may be another one."""
    pairs = list(draw(st.sampled_from(forms)))
    at = draw(st.integers(0, len(pairs)))
    change = draw(st.sampled_from(["none", "another", "new", "gone", "swapped", "twice", "byte"]))
    if change == "another" and at < len(pairs):
        pairs[at] = (pairs[at][0], draw(st.sampled_from(VALUES)))
    elif change == "new":
        pairs.insert(at, draw(any_pair))
    elif change == "gone":
        del pairs[at : at + 1]
    elif change == "swapped":
        pairs[at:] = reversed(pairs[at:])
    elif change == "twice":
        pairs[at:at] = pairs[at : at + 1]
    data = bytearray(b"".join(write_box({key: value})[:-2] for key, value in pairs) + b"\0\0")
    if change == "byte":
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def one_box(data: bytes) -> Box:
    """The one box that *data* is."""
    (box,) = BoxReader(WIDE_OPEN).feed(data)
    return box


class WritingTests(SynchronousTestCase):
    """Stock AMP reads these boxes because they are what the codec writes."""

    @given(tags, blobs, st.integers(1, NATURAL_MAX))
    @quickly
    def test_get(self, tag: bytes, key: bytes, timeout_ms: int) -> None:
        """Else a node misunderstands a get."""
        data = frequent.get_body(key, frequent.request_end(timeout_ms))
        wanted = {"key": key, "timeout_ms": timeout_ms}
        self.assertEqual(
            frequent.ASK_HEADS[len(tag)] + tag + data, codec_of(Get).write_request(tag, wanted)
        )

    @given(tags, blobs, blobs, st.integers(1, NATURAL_MAX))
    @quickly
    def test_put(self, tag: bytes, key: bytes, value: bytes, timeout_ms: int) -> None:
        """Else a node writes something else."""
        data = frequent.put_body(key, value, frequent.request_end(timeout_ms))
        wanted = {"key": key, "value": value, "timeout_ms": timeout_ms}
        self.assertEqual(
            frequent.ASK_HEADS[len(tag)] + tag + data, codec_of(Put).write_request(tag, wanted)
        )

    @given(tags, versions, blobs, applieds)
    @quickly
    def test_answers(self, tag: bytes, version: int, value: bytes, applied: bytes) -> None:
        """Else a client misunderstands an answer."""
        head = frequent.ANSWER_HEADS[len(tag)] + tag
        seen: dict[str, Any] = {"version": version, "applied": applied}
        put = codec_of(Put).write_answer(tag, seen)
        self.assertEqual(head + frequent.put_answer(version, applied), put)
        found = codec_of(Get).write_answer(tag, {"version": version, "value": value} | seen)
        self.assertEqual(head + frequent.get_answer(version, value, applied), found)
        nothing = codec_of(Get).write_answer(tag, seen | {"version": 0, "value": None})
        self.assertEqual(head + frequent.nothing_answer(applied), nothing)


class ReadingTests(SynchronousTestCase):
    """What is read in place is what the ordinary way would read."""

    @given(junk, tags, blobs, st.none() | blobs, st.none() | onces, junk)
    @quickly
    def test_requests(
        self,
        before: bytes,
        tag: bytes,
        key: bytes,
        value: bytes | None,
        once: bytes | None,
        after: bytes,
    ) -> None:
        """Else no request of our client's ever takes the short way."""
        end, once = frequent.request_end(5000), None if value is None else once
        get = frequent.get_body(key, end)
        body = get if value is None else frequent.put_body(key, value, end, once)
        stream = before + frequent.ASK_HEADS[len(tag)] + tag + body
        read = frequent.read_request(stream + after, len(before))
        self.assertEqual(read, (tag, key, value, once, b"5000", len(stream)))
        assert read is not None
        self.assertEqual(frequent.value_bytes(read), size_bytes(one_box(stream[len(before) :])))

    @given(junk, tags, versions, st.none() | blobs, junk)
    @quickly
    def test_answers(
        self, before: bytes, tag: bytes, version: int, value: bytes | None, after: bytes
    ) -> None:
        """Else no answer of our node's ever does."""
        if value is None:
            body = frequent.put_answer(version, APPLIED)
        else:
            body = frequent.get_answer(version, value, APPLIED)
        stream = before + frequent.ANSWER_HEADS[len(tag)] + tag + body
        read = frequent.read_answer(stream + after, len(before))
        if version < 10**18:
            self.assertEqual(read, (tag, version, value, len(stream)))
        else:
            self.assertIsNone(read, "so long a number has to be checked")

    @given(junk, blobs, st.booleans(), junk)
    @quickly
    def test_messages(self, before: bytes, messages: bytes, willing: bool, after: bytes) -> None:
        """Else no messages of our nodes' ever do. Those that have just one full piece do too."""
        said = {"cluster": CLUSTER, "messages": messages, "willing": willing}
        stream = before + bytes(codec_of(RaftMessages).notice(said))
        read = frequent.read_messages(stream + after, len(before))
        self.assertEqual(read, (CLUSTER, messages, willing, len(stream)))

    def test_messages_in_pieces(self) -> None:
        """Else the end of what is long is taken for something else, or lost."""
        said = {"cluster": CLUSTER, "messages": b"m" * (VALUE_BYTES_MAX + 1), "willing": True}
        self.assertIsNone(frequent.read_messages(bytes(codec_of(RaftMessages).notice(said)), 0))

    @given(st.sampled_from(FORMS), st.data())
    @quickly
    def test_half_a_box(self, form: Pairs, data: st.DataObject) -> None:
        """Else what a chunk cuts off is lost, or a value comes out short."""
        whole = write_box(dict(form))
        cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
        self.assertIsNone(frequent.read_request(cut, 0))
        self.assertIsNone(frequent.read_answer(cut, 0))
        self.assertIsNone(frequent.read_messages(cut, 0))

    @given(nearly(REQUESTS))
    @example(write_box(dict(REQUESTS[0])))
    @example(write_box(dict(REQUESTS[1])))
    @example(write_box(dict(REQUESTS[2])))
    @examples(200)
    def test_whatever_is_taken_as_a_request(self, data: bytes) -> None:
        """Else a box that the ordinary way refuses, or reads otherwise, is carried out."""
        read = frequent.read_request(data, 0)
        if read is None:
            return
        tag, key, value, once, digits, end = read
        box = one_box(data[:end])
        command = Get if value is None else Put
        self.assertEqual((box.pop(ASK), box.pop(COMMAND)), (tag, command.commandName))
        self.assertEqual((box.pop(b"once", None), box[b"timeout_ms"]), (once, digits))
        said = codec_of(command).read_arguments(box)
        self.assertGreaterEqual(said.pop("timeout_ms"), 0)
        left = {name: what for name, what in said.items() if what is not None}
        self.assertEqual(left, {"key": key} | ({} if value is None else {"value": value}))

    @given(nearly(ANSWERS))
    @example(write_box(dict(ANSWERS[0])))
    @example(write_box(dict(ANSWERS[1])))
    @examples(200)
    def test_whatever_is_taken_as_an_answer(self, data: bytes) -> None:
        """Else a caller gets what no node has said."""
        read = frequent.read_answer(data, 0)
        if read is None:
            return
        tag, version, value, end = read
        box = one_box(data[:end])
        self.assertEqual(box.pop(ANSWER), tag)
        said = codec_of(Get).read_answer(box)
        self.assertEqual((said["version"], said["value"]), (version, value))
        self.assertEqual(codec_of(Put).read_answer(box)["version"], version)

    @given(nearly(TOLD))
    @example(write_box(dict(TOLD[0])))
    @example(write_box(dict(TOLD[1])))
    @examples(200)
    def test_whatever_is_taken_as_messages(self, data: bytes) -> None:
        """Else a replica is told what no other one has said."""
        read = frequent.read_messages(data, 0)
        if read is None:
            return
        cluster, messages, willing, end = read
        box = one_box(data[:end])
        self.assertEqual(box.pop(COMMAND), RaftMessages.commandName)
        said = codec_of(RaftMessages).read_arguments(box)
        left = {name: what for name, what in said.items() if what is not None}
        self.assertEqual(left, {"cluster": cluster, "messages": messages, "willing": willing})

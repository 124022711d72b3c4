"""Raft messages as bytes: what is read is what was written, and nothing else is read at all."""

from __future__ import annotations

import struct
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind, Message, Snapshot
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    InstallSnapshot,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from kvtwist.errors import MalformedRequest
from kvtwist.wire.arguments import NATURAL_MAX
from kvtwist.wire.raft import Item, read_messages, write_messages
from tests.wire.properties import examples

numbers = st.one_of(st.integers(0, 5), st.integers(0, NATURAL_MAX), st.just(NATURAL_MAX))
configurations = st.builds(
    lambda ids, voters: Configuration(tuple(sorted(ids[:voters])), tuple(sorted(ids[voters:]))),
    st.lists(st.integers(1, NATURAL_MAX), unique=True, max_size=7),
    st.integers(0, 7),
)
entry_data = st.one_of(
    st.tuples(st.just(EntryKind.NOOP), st.just(b"")),
    st.tuples(st.just(EntryKind.DATA), st.binary(max_size=40)),
    st.tuples(st.just(EntryKind.CONFIGURATION), configurations.map(Configuration.encode)),
)


@st.composite
def appends(draw: st.DrawFn) -> AppendRequest:
    """A leader's entries: in order, and of no later term than its own."""
    said = draw(st.lists(entry_data, max_size=5))
    terms = sorted(draw(st.lists(numbers, min_size=len(said) + 2, max_size=len(said) + 2)))
    prev_index = draw(st.integers(0, NATURAL_MAX))
    entries = tuple(
        Entry(prev_index + place, terms[place], *of) for place, of in enumerate(said, start=1)
    )
    sender, to, commit = draw(numbers), draw(numbers), draw(numbers)
    return AppendRequest(sender, to, terms[-1], prev_index, terms[0], entries, commit)


snapshots = st.builds(Snapshot, numbers, numbers, configurations, st.binary(max_size=60))
ours = (numbers, numbers, numbers)
truths = st.booleans()
BY_KIND: dict[type, st.SearchStrategy[Message]] = {
    Heartbeat: st.builds(Heartbeat, *ours, numbers, numbers, truths),
    HeartbeatResponse: st.builds(HeartbeatResponse, *ours, numbers),
    AppendRequest: appends(),
    AppendResponse: st.builds(AppendResponse, *ours, numbers, truths, numbers, numbers),
    PreVoteRequest: st.builds(PreVoteRequest, *ours, numbers, numbers),
    PreVoteResponse: st.builds(PreVoteResponse, *ours, truths),
    VoteRequest: st.builds(VoteRequest, *ours, numbers, numbers, truths),
    VoteResponse: st.builds(VoteResponse, *ours, truths),
    InstallSnapshot: st.builds(InstallSnapshot, *ours, snapshots),
    TimeoutNow: st.builds(TimeoutNow, *ours),
    ReadIndexRequest: st.builds(ReadIndexRequest, *ours, numbers),
    ReadIndexResponse: st.builds(ReadIndexResponse, *ours, numbers, numbers),
    HigherTerm: st.builds(HigherTerm, *ours),
}
messages = st.one_of(*BY_KIND.values())
items = st.lists(st.tuples(numbers, messages), max_size=6)


def sealed(body: bytes) -> bytes:
    """A payload with a good checksum, whatever is in it."""
    return struct.pack(">I", crc32(body)) + body


class RoundTripTests(SynchronousTestCase):
    """What is read is what was written."""

    def test_every_kind_is_here(self) -> None:
        """Else a kind of message that was added later is never tried."""
        self.assertEqual(set(BY_KIND), set(Message.__args__))

    @examples(400)
    @given(items)
    def test_any_messages(self, said: list[Item]) -> None:
        """Else a replica is told something else than was said: a vote, a commit, an entry."""
        payloads = write_messages(said)
        self.assertEqual([item for payload in payloads for item in read_messages(payload)], said)
        self.assertEqual(len(payloads), bool(said))

    def test_none(self) -> None:
        """Else a node's sign of life is refused when it has nothing to say."""
        self.assertEqual(write_messages([]), [])
        self.assertEqual(read_messages(b""), [])

    def test_types(self) -> None:
        """Else a 1 passes for ``True``, or a number for an entry's kind, until somebody asks."""
        entry = Entry(8, 3, EntryKind.NOOP)
        said: list[Item] = [
            (2, Heartbeat(1, 2, 3, 4, 5, True)),
            (2, AppendRequest(1, 2, 3, 7, 3, (entry,), 7)),
        ]
        (payload,) = write_messages(said)
        (_, heartbeat), (_, append) = read_messages(payload)
        assert isinstance(heartbeat, Heartbeat)
        assert isinstance(append, AppendRequest)
        self.assertIs(heartbeat.quiesce, True)
        self.assertIs(type(append.entries), tuple)
        self.assertIs(append.entries[0].kind, EntryKind.NOOP)
        self.assertIs(type(append.entries[0].data), bytes)


class DamageTests(SynchronousTestCase):
    """Whatever else comes is refused, and nothing else happens."""

    @examples(400)
    @given(items.filter(bool), st.data())
    def test_damaged(self, said: list[Item], data: st.DataObject) -> None:
        """Else a bit that fell over on the way becomes a vote or an entry."""
        (payload,) = write_messages(said)
        at = data.draw(st.integers(0, len(payload) - 1))
        flipped = bytearray(payload)
        flipped[at] ^= 1 << data.draw(st.integers(0, 7))
        more = payload + data.draw(st.binary(min_size=1, max_size=50))
        for damaged in (bytes(flipped), payload[:at] if at else payload[1:], more):
            self.assertRaises(MalformedRequest, read_messages, damaged)

    @examples(400)
    @given(items.filter(bool), st.data())
    def test_with_a_good_checksum(self, said: list[Item], data: st.DataObject) -> None:
        """Else a node of another make, or one with a bug, takes this one down: what comes is
        refused, or is messages, which have exactly these bytes."""
        (payload,) = write_messages(said)
        body = bytearray(payload[4:])
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(body)))
            put = data.draw(st.binary(max_size=9))
            body[at : at + data.draw(st.integers(0, 9))] = put
        self.check_any(sealed(bytes(body)))

    @examples(400)
    @given(st.binary(max_size=120))
    def test_anything(self, body: bytes) -> None:
        """The same, for bytes from anywhere."""
        self.check_any(body)
        self.check_any(sealed(body))

    def check_any(self, payload: bytes) -> None:
        """It is refused, or written again as it was."""
        try:
            read = read_messages(payload)
        except MalformedRequest:
            return
        self.assertEqual(b"".join(write_messages(read)), payload)

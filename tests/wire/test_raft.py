"""Raft messages as bytes: what is read is what was written, and nothing else is read at all."""

from __future__ import annotations

import struct
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind, Message, Settings, Snapshot
from kvtwist.core.raft.log import ENTRY_OVERHEAD_BYTES
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
from kvtwist.wire.boxes import LARGE_BYTES, BoxLimits, BoxReader, OversizedBox
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import RaftMessages
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.raft import (
    ENTRIES_MAX,
    PAYLOAD_BYTES_MAX,
    Item,
    entry_bytes_for,
    payload_bytes_for,
    read_messages,
    write_messages,
)
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


COMMON = "0000000000000102 0000000000000001 0000000000000002 0000000000000005"
THREE = "01 0002 0001 0000000000000001 0000000000000002 0000000000000003"
"""A configuration of two voters and a learner."""
configuration = Configuration((1, 2), (3,))
entries = (
    Entry(17, 3, EntryKind.NOOP),
    Entry(18, 4, EntryKind.DATA, b"data"),
    Entry(19, 5, EntryKind.CONFIGURATION, configuration.encode()),
)

# Nodes of all releases have to read these: one may be added, none changed. All are of group 258,
# from replica 1 to replica 2, of term 5.
VECTORS: dict[Message, str] = {
    Heartbeat(1, 2, 5, 6, 7, True): f"01 01 {COMMON} 0000000000000006 0000000000000007 01",
    HeartbeatResponse(1, 2, 5, 6): f"02 01 {COMMON} 0000000000000006",
    AppendRequest(1, 2, 5, 16, 3, (), 9): (
        f"03 01 {COMMON} 0000000000000010 0000000000000003 0000000000000009 00000000"
    ),
    AppendRequest(1, 2, 5, 16, 3, entries, 9): (
        f"03 01 {COMMON} 0000000000000010 0000000000000003 0000000000000009 00000003"
        "0000000000000003 00 00000000 0000000000000004 01 00000004 0000000000000005 02 0000001d"
        f"64617461 {THREE}"
    ),
    AppendResponse(1, 2, 5, 6, True, 7, 8): (
        f"04 01 {COMMON} 0000000000000006 01 0000000000000007 0000000000000008"
    ),
    PreVoteRequest(1, 2, 5, 6, 7): f"05 01 {COMMON} 0000000000000006 0000000000000007",
    PreVoteResponse(1, 2, 5, True): f"06 01 {COMMON} 01",
    VoteRequest(1, 2, 5, 6, 7, True): f"07 01 {COMMON} 0000000000000006 0000000000000007 01",
    VoteResponse(1, 2, 5, False): f"08 01 {COMMON} 00",
    InstallSnapshot(1, 2, 5, Snapshot(6, 4, configuration, b"data")): (
        f"09 01 {COMMON} 0000000000000006 0000000000000004 0000001d 00000004 {THREE} 64617461"
    ),
    TimeoutNow(1, 2, 5): f"0a 01 {COMMON}",
    ReadIndexRequest(1, 2, 5, 6): f"0b 01 {COMMON} 0000000000000006",
    ReadIndexResponse(1, 2, 5, 6, 7): f"0c 01 {COMMON} 0000000000000006 0000000000000007",
    HigherTerm(1, 2, 5): f"0d 01 {COMMON}",
}


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


class FormatTests(SynchronousTestCase):
    """The bytes."""

    def test_vectors(self) -> None:
        """Else nodes of two releases no longer understand each other, and no group of a cluster
        that is being upgraded has a majority."""
        self.assertEqual({type(message) for message in VECTORS}, set(BY_KIND))
        for message, digits in VECTORS.items():
            payload = sealed(bytes.fromhex(digits))
            self.assertEqual(write_messages([(258, message)]), [payload])
            self.assertEqual(read_messages(payload), [(258, message)])

    def test_checksum(self) -> None:
        """The same, for the checksum."""
        payload = struct.pack(">I", 0x902AF146) + bytes.fromhex(f"0d 01 {COMMON}")
        self.assertEqual(read_messages(payload), [(258, HigherTerm(1, 2, 5))])

    def test_sizes(self) -> None:
        """Else the heartbeats of all groups, ten times a second between each two nodes, take a
        part of the network that was meant for data."""
        groups = range(2, 66)
        for message, size in (
            (Heartbeat(1, 2, 5, 6, 7), 51),
            (HeartbeatResponse(1, 2, 5, 7), 42),
            (AppendRequest(1, 2, 5, 6, 5, (), 6), 62),
            (AppendResponse(1, 2, 5, 6), 59),
        ):
            (payload,) = write_messages([(group, message) for group in groups])
            self.assertEqual(len(payload), 4 + 64 * size)
            box = codec_of(RaftMessages).notice({"cluster": b"c" * 16, "messages": payload})
            self.assertLess(len(box) - len(payload), 80)


class PayloadTests(SynchronousTestCase):
    """What goes into one payload."""

    def boxes(self, payloads: list[bytes]) -> list[bytes]:
        """The boxes of some payloads, with all that a box can have."""
        said = {"cluster": b"c" * 16, "willing": True, "trace": b"t" * 2000, "keyspace": 0}
        codec = codec_of(RaftMessages)
        return [bytes(codec.notice({**said, "messages": payload})) for payload in payloads]

    def test_many(self) -> None:
        """Else a thousand messages make a box that has to be cut, or a thousand boxes."""
        said: list[Item] = [
            (group, AppendRequest(1, 2, 5, 0, 0, (Entry(1, 1, data=b"d" * (group * 7)),), 0))
            for group in range(1000)
        ]
        payloads = write_messages(said)
        self.assertEqual(len(payloads), 1 + sum(map(len, payloads)) // PAYLOAD_BYTES_MAX)
        for box in self.boxes(payloads):
            self.assertLessEqual(len(box), LARGE_BYTES)
        self.assertEqual([item for payload in payloads for item in read_messages(payload)], said)

    def test_edge(self) -> None:
        """Else a message that just fits, or just does not, is lost or makes a box too large."""
        for over in (-1, 0, 1):
            room = PAYLOAD_BYTES_MAX - 4 - 2 * 34
            snapshot = Snapshot(1, 1, configuration, b"d" * (room - 58 - 29 + over))
            said: list[Item] = [
                (2, TimeoutNow(1, 2, 5)),
                (2, InstallSnapshot(1, 2, 5, snapshot)),
                (3, TimeoutNow(1, 2, 5)),
            ]
            payloads = write_messages(said)
            self.assertEqual(len(payloads), 2 if over > 0 else 1)
            self.assertLessEqual(max(map(len, payloads)), PAYLOAD_BYTES_MAX)
            self.assertEqual([item for each in payloads for item in read_messages(each)], said)

    def test_large(self) -> None:
        """Else a large value is never replicated, or takes the heartbeats of all groups with it."""
        large = AppendRequest(1, 2, 5, 0, 0, (Entry(1, 1, data=b"d" * (3 << 20)),), 0)
        said: list[Item] = [(2, TimeoutNow(1, 2, 5)), (3, large), (4, TimeoutNow(1, 2, 5))]
        payloads = write_messages(said)
        self.assertEqual([read_messages(each) for each in payloads], [[item] for item in said])

    def test_longer_than_allowed(self) -> None:
        """T7: else a box of some megabytes is read as a million messages, each many times larger
        in memory than on the wire."""
        body = bytes.fromhex(f"0d 01 {COMMON}") * (PAYLOAD_BYTES_MAX // 34)
        self.assertEqual(len(read_messages(sealed(body))), PAYLOAD_BYTES_MAX // 34)
        self.assertRaises(MalformedRequest, read_messages, sealed(body + body))

    def test_entries_max(self) -> None:
        """The same, for entries without data."""
        for count in (ENTRIES_MAX, ENTRIES_MAX + 1):
            noop = bytes.fromhex("0000000000000005 00 00000000")
            head = bytes.fromhex(f"03 01 {COMMON} {8 * '00'} {8 * '00'} {8 * '00'}")
            body = head + struct.pack(">I", count) + noop * count
            noops = tuple(Entry(1 + at, 5, EntryKind.NOOP) for at in range(count))
            message = AppendRequest(1, 2, 5, 0, 0, noops, 0)
            if count <= ENTRIES_MAX:
                self.assertEqual(read_messages(sealed(body)), [(258, message)])
                self.assertEqual(write_messages([(258, message)]), [sealed(body)])
            else:
                self.assertRaises(MalformedRequest, read_messages, sealed(body))
                self.assertRaises(ValueError, write_messages, [(258, message)])
        self.assertGreater(ENTRIES_MAX, Settings().append_bytes_max // ENTRY_OVERHEAD_BYTES)

    def test_for_limits(self) -> None:
        """Else a node that takes only small boxes refuses what it is sent, again and again: it
        never follows."""
        for limits in (
            BoxLimits.for_values_of(1),
            BoxLimits.for_values_of(16 << 20),
            BoxLimits.of_bytes(10_000),
            BoxLimits(64 << 20, 50),
        ):
            entry = Entry(1, 1, data=b"d" * entry_bytes_for(limits))
            said: list[Item] = [(2, AppendRequest(1, 2, 5, 0, 0, (entry,), 0))]
            said += [(group, TimeoutNow(1, 2, 5)) for group in range(5_000)]
            payloads = write_messages(said, payload_bytes_for(limits))
            read: list[Item] = []
            for box in self.boxes(payloads):
                (each,) = BoxReader(limits).feed(box)
                self.assertNotIsInstance(each, OversizedBox)
                read += read_messages(codec_of(RaftMessages).read_arguments(each)["messages"])
            self.assertEqual(read, said)
        self.assertEqual(payload_bytes_for(DEFAULT_LIMITS.boxes), PAYLOAD_BYTES_MAX)

    def test_misfits(self) -> None:
        """Else a bug of ours is sent to others, who take it for a fact, or for damage."""
        for message in (
            Heartbeat(1, 2, -1, 0),
            Heartbeat(1, 2, 1 << 64, 0),
            AppendRequest(1, 2, 5, 7, 5, (Entry(9, 5),), 7),
            AppendRequest(1, 2, 5, 7, 5, (Entry(8, 5), Entry(8, 5)), 7),
            AppendRequest(1, 2, 5, 7, 5, (Entry(8, -5),), 7),
        ):
            self.assertRaises(ValueError, write_messages, [(2, message)])


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

    def refused(self, digits: str) -> str:
        """Why a payload with a good checksum is refused; that stands in one line."""
        error = self.assertRaises(MalformedRequest, read_messages, sealed(bytes.fromhex(digits)))
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_unknown(self) -> None:
        """Else a replica passes over what a later release has said, or guesses at it."""
        fine = f"0d 01 {COMMON}"
        self.assertIn("kind 14, version 1", self.refused(f"{fine} 0e 01 {COMMON}"))
        self.assertIn("kind 13, version 2", self.refused(f"{fine} 0d 02 {COMMON}"))
        self.assertIn("kind 0, version 0", self.refused("00 00"))
        numbers = "0000000000000007 0000000000000005 0000000000000007"
        why = self.refused(f"03 01 {COMMON} {numbers} 00000001 0000000000000005 03 00000000")
        self.assertIn("an entry in a message of kind 3", why)

    def test_senseless(self) -> None:
        """Else a replica is given what it cannot go on from, and stops."""
        append = f"03 01 {COMMON} 0000000000000007 0000000000000003 0000000000000007"
        noop = "00 00000000"
        for digits in (
            f"{append} 00000001 0000000000000002 {noop}",  # before the previous one's term
            f"{append} 00000002 0000000000000004 {noop} 0000000000000003 {noop}",
            f"{append} 00000001 0000000000000006 {noop}",  # after its leader's term
            f"{append} 00000001 0000000000000004 02 00000001 07",  # no configuration
            f"{append} 00000001 0000000000000004 01 00000002 07",  # cut off
            f"{append} 00000002 0000000000000004 {noop}",
            f"{append} 00000002 0000000000000004 {noop} 0000000000000004",
            f"{append} ffffffff",
            f"09 01 {COMMON} 0000000000000006 0000000000000004 00000001 00000000 07",
            f"09 01 {COMMON} 0000000000000006 0000000000000004 0000001d 00000002 {THREE} 07",
            f"09 01 {COMMON} 0000000000000006 0000000000000004 0000001d ffffffff {THREE}",
            f"06 01 {COMMON} 02",
            f"0d 01 {COMMON.replace('0', '8', 1)}",  # a group of more than 63 bits
            f"0d 01 {COMMON} 0d",
        ):
            self.refused(digits)

    def check_any(self, payload: bytes) -> None:
        """It is refused, or written again as it was."""
        try:
            read = read_messages(payload)
        except MalformedRequest:
            return
        self.assertEqual(b"".join(write_messages(read)), payload)

"""What waits for a transport: bursts, fairness between large and small, and an honest count."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.boxes import ASK, COMMAND, Box, BoxReader, write_box
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import Get, Put
from kvtwist.wire.fragments import FRAGMENT, FRAGMENT_BYTES_MAX, PIECE_BYTES_MAX, Joiner
from kvtwist.wire.outbox import BURST_BYTES, Outbox
from tests.wire.loopback import WIDE_OPEN
from tests.wire.properties import examples

MIB = 1 << 20
BUFFER_BYTES_MAX = 1 << 16


def answer(number: int, size: int) -> bytes:
    """An answer with a value of that size."""
    return codec_of(Get).write_answer(b"%d" % number, {"version": 1, "value": b"v" * size})


def request(number: int, size: int = 2 * MIB) -> bytes:
    """A large request."""
    arguments = {"key": b"k", "value": b"v" * size}
    return codec_of(Put).write_request(b"%d" % number, arguments)


class Sender:
    """An outbox and its transport.

    :ivar bursts: what was written between two times that the transport was empty.
    """

    def __init__(self, joins: bool = True) -> None:
        self.bursts: list[list[bytes]] = [[]]
        self.outbox = Outbox(self._write, lambda: joins)

    def _write(self, data: bytes) -> None:
        self.bursts[-1].append(data)
        if sum(map(len, self.bursts[-1])) > BUFFER_BYTES_MAX:
            self.outbox.pause()

    @property
    def writes(self) -> list[bytes]:
        """All that was written."""
        return [data for burst in self.bursts for data in burst]

    def empty(self) -> None:
        """The transport has sent everything."""
        self.bursts.append([])
        if self.outbox.is_paused:
            self.outbox.resume()

    def empty_all(self) -> list[Box]:
        """Go on until nothing waits; what the other end has read."""
        while self.outbox.is_paused:
            self.empty()
        return self.read()

    def read(self) -> list[Box]:
        """What the other end has read, large boxes joined."""
        reader, joiner = BoxReader(WIDE_OPEN), Joiner(WIDE_OPEN)
        boxes: list[Box] = []
        for box in reader.feed(b"".join(self.writes)):
            whole = joiner.feed(box) if box.get(COMMAND) == FRAGMENT else box
            if whole is not None:
                boxes.append(whole)
        assert not reader.is_inside_box
        assert not joiner.reader.is_inside_box
        return boxes


def whole(*boxes: bytes) -> list[Box]:
    """The boxes as they are read."""
    return [one for data in boxes for one in BoxReader(WIDE_OPEN).feed(data)]


def sorted_boxes(boxes: Iterable[Box]) -> list[bytes]:
    """In an order that does not depend on who has overtaken whom."""
    return sorted(map(write_box, boxes))


class OutboxTests(SynchronousTestCase):
    """The order in which boxes leave."""

    @examples(40)
    @given(st.lists(st.integers(0, 3 * MIB) | st.integers(0, 100), max_size=12), st.booleans())
    def test_all_arrive(self, sizes: list[int], joins: bool) -> None:
        """Else an answer is lost, sent twice or damaged because another one was large."""
        sender = Sender(joins)
        boxes = [answer(number, size) for number, size in enumerate(sizes)]
        for number, box in enumerate(boxes):
            sender.outbox.put(box)
            if number % 3 == 2:
                sender.empty()
        self.assertEqual(sorted_boxes(sender.empty_all()), sorted(boxes))
        self.assertEqual((sender.outbox.unread_bytes, sender.outbox.behind_bytes), (0, 0))

    def test_at_the_limit(self) -> None:
        """Else a box is cut that need not be, or one goes out whole that is too long."""
        head = len(answer(1, 60_000 * 17)) - 60_000 * 17  # the same for all these lengths
        for size in (FRAGMENT_BYTES_MAX - 1, FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX + 1):
            sender = Sender()
            box = answer(1, size - head)
            self.assertEqual(len(box), size)
            sender.outbox.put(box)
            self.assertEqual(sender.empty_all(), whole(box))
            writes = sender.writes
            self.assertEqual(writes == [box], size <= FRAGMENT_BYTES_MAX)
            self.assertLessEqual(max(map(len, writes)), FRAGMENT_BYTES_MAX)

    def test_one_piece_at_a_time(self) -> None:
        """Else the transport is given the whole value, and what comes next waits behind it."""
        for joins in (True, False):
            sender = Sender(joins)
            sender.outbox.put(answer(1, 16 * MIB))
            sender.empty_all()
            self.assertTrue(all(len(burst) <= 1 for burst in sender.bursts))
            pieces = -(-len(answer(1, 16 * MIB)) // PIECE_BYTES_MAX)
            self.assertEqual(len(sender.writes), pieces)

    def test_small_overtakes(self) -> None:
        """Else a small answer waits for the whole of a large one."""
        sender = Sender()
        sender.outbox.put(answer(1, 16 * MIB))
        sender.outbox.put(answer(2, 10))
        sender.empty()
        self.assertEqual(sender.bursts[1][0], answer(2, 10))
        self.assertEqual(sender.empty_all(), whole(answer(2, 10), answer(1, 16 * MIB)))

    def test_small_does_not_starve_large(self) -> None:
        """Else a large value never arrives at a peer that always has something small to say."""
        sender = Sender()
        sender.outbox.put(answer(1, 16 * MIB))
        for number in range(20):
            for each in range(100):
                sender.outbox.put(answer(1000 + 100 * number + each, 1000))
            sender.empty()
        self.assertIn(whole(answer(1, 16 * MIB))[0], sender.read())

    def test_not_cut_for_who_cannot_join(self) -> None:
        """Else a stock client gets boxes that it has never heard of; or another answer in the
        middle of a large one, and the stream is out of step."""
        sender = Sender(joins=False)
        sender.outbox.put(answer(1, 3 * MIB))
        sender.outbox.put(answer(2, 10))
        sender.outbox.put(answer(3, 2 * MIB))
        sender.empty_all()
        stream = b"".join(sender.writes)
        self.assertEqual(stream, answer(1, 3 * MIB) + answer(2, 10) + answer(3, 2 * MIB))

    def test_one_large_after_the_other(self) -> None:
        """Else the receiver has to hold as many unfinished values as the sender likes."""
        sender = Sender()
        boxes = [answer(number, 3 * MIB) for number in (1, 2, 3)]
        for box in boxes:
            sender.outbox.put(box)
        self.assertEqual(sender.empty_all(), whole(*boxes))

    def test_bursts(self) -> None:
        """Else many small answers are given to the transport at once, and nobody knows how many of
        them have been read."""
        sender = Sender()
        for number in range(1000):
            sender.outbox.put(answer(number, 1000))
        self.assertEqual(len(sender.empty_all()), 1000)
        longest = max(sum(map(len, burst)) for burst in sender.bursts)
        self.assertLess(longest, BUFFER_BYTES_MAX + BURST_BYTES + 2000)


class CountTests(SynchronousTestCase):
    """Rule 1: how much is unread."""

    def test_unread(self) -> None:
        """Else a reader that is slow but steady is cut off for what it has read long ago."""
        sender = Sender()
        boxes = [answer(number, 10_000) for number in range(100)]
        for box in boxes:
            sender.outbox.put(box)
        total = sum(map(len, boxes))
        while sender.outbox.is_paused:
            taken = sum(len(data) for burst in sender.bursts[:-1] for data in burst)
            self.assertEqual(sender.outbox.unread_bytes, sender.outbox.behind_bytes)
            uncounted = total - taken - sender.outbox.unread_bytes
            self.assertIn(uncounted, range(BUFFER_BYTES_MAX))
            sender.empty()
        self.assertEqual(sender.outbox.unread_bytes, 0)

    def test_the_one_under_way(self) -> None:
        """Else an answer as large as the setting allows is itself over the limit; but memory that
        it takes is counted."""
        sender = Sender()
        sender.outbox.put(answer(1, 16 * MIB))
        size = len(answer(1, 16 * MIB))
        self.assertEqual((sender.outbox.unread_bytes, sender.outbox.behind_bytes), (size, 0))
        self.assertFalse(sender.outbox.has_enough)
        sender.empty()
        self.assertEqual(sender.outbox.unread_bytes, size - PIECE_BYTES_MAX)
        sender.outbox.put(answer(2, 2 * MIB))
        self.assertEqual(sender.outbox.behind_bytes, len(answer(2, 2 * MIB)))
        self.assertTrue(sender.outbox.has_enough)

    def test_enough(self) -> None:
        """Else a node goes on working for somebody who takes no answers while a large one is under
        way; or it stops although there is next to nothing that waits."""
        for over in (0, 1):
            sender = Sender()
            sender.outbox.put(answer(1, 16 * MIB))
            head = len(answer(2, BURST_BYTES - 100)) - (BURST_BYTES - 100)
            sender.outbox.put(answer(2, BURST_BYTES - head + over))
            self.assertEqual(sender.outbox.behind_bytes, BURST_BYTES + over)
            self.assertEqual(sender.outbox.has_enough, bool(over))

    def test_full_of_small(self) -> None:
        """Else a peer that does not read small answers is worked for without end."""
        sender = Sender()
        for number in range(7):
            self.assertFalse(sender.outbox.has_enough)
            sender.outbox.put(answer(number, 10_000))
        self.assertTrue(sender.outbox.has_enough)
        sender.empty()
        self.assertFalse(sender.outbox.has_enough)

    def test_cleared(self) -> None:
        """Else what a lost connection had to send stays in memory."""
        sender = Sender()
        for number in range(3):
            sender.outbox.put(answer(number, 3 * MIB))
            sender.outbox.put(answer(10 + number, 10))
        sender.outbox.clear()
        self.assertEqual((sender.outbox.unread_bytes, sender.outbox.behind_bytes), (0, 0))
        before = len(sender.writes)
        sender.empty()
        self.assertEqual(len(sender.writes), before)

    def test_flushed(self) -> None:
        """Else a node that stops loses the rest of an answer, or what it still says afterwards."""
        sender = Sender()
        sender.outbox.put(answer(1, 3 * MIB))
        sender.outbox.put(answer(2, 10))
        sender.outbox.flush()
        sender.outbox.put(answer(3, 10))
        self.assertEqual(len(sender.bursts), 1)
        self.assertEqual(sender.read(), whole(answer(2, 10), answer(1, 3 * MIB), answer(3, 10)))


class WithdrawnTests(SynchronousTestCase):
    """Rule 3: requests that nobody waits for any more."""

    def test_not_begun(self) -> None:
        """Else a slow connection is busy with values whose writers have long been told that they
        are too late, those that come in time are late because of them, and all are kept."""
        for size in (10, 2 * MIB):
            sender = Sender()
            sender.outbox.put(request(0))  # fills the transport
            for number in (1, 2, 3, 4):
                sender.outbox.put(request(number, size))
            behind_bytes = sender.outbox.behind_bytes
            gone = sender.outbox.withdraw({b"2", b"4", b"5"})
            self.assertEqual(gone, {b"2", b"4"})
            gone_bytes = 2 * len(request(2, size))
            self.assertEqual(sender.outbox.behind_bytes, behind_bytes - gone_bytes)
            left = sorted(box[ASK] for box in sender.empty_all())
            self.assertEqual(left, [b"0", b"1", b"3"])
            self.assertEqual(sender.outbox.unread_bytes, 0)

    def test_begun(self) -> None:
        """Else the stream is out of step: what follows is taken for the rest of it."""
        for joins in (True, False):
            sender = Sender(joins)
            sender.outbox.put(request(1))
            self.assertEqual(sender.outbox.withdraw({b"1"}), set())
            self.assertEqual([box[ASK] for box in sender.empty_all()], [b"1"])

    def test_answers_stay(self) -> None:
        """Else answers are thrown away because a request of ours has the same tag."""
        sender = Sender()
        for number in (1, 2):
            sender.outbox.put(answer(number, 2 * MIB))
            sender.outbox.put(answer(number, 10))
        self.assertEqual(sender.outbox.withdraw({b"1", b"2"}), set())
        self.assertEqual(len(sender.empty_all()), 4)

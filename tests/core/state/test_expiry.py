"""Log time, and what it ends."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.answers import Advanced, Expired, Written
from kvtwist.core.state.commands import Advance, Condition, Expire
from kvtwist.core.state.logtime import LogClock
from kvtwist.core.state.machine import SCAN_DUE_MAX
from kvtwist.core.state.operations import Delete, Increment, Put
from kvtwist.core.state.outcomes import Changed, Counted, Unchanged
from kvtwist.core.state.records import Record
from tests.core.state.machines import new


class LogTimeTests(SynchronousTestCase):
    """The machine's clock."""

    def test_keeps_the_highest(self) -> None:
        """A leader's clock may be behind the one before: log time never goes back, or records
        would come back to life."""
        machine = new()
        self.assertEqual(machine.feed(Advance(50)), Advanced(50))
        self.assertEqual(machine.feed(Advance(20)), Advanced(50))
        machine.do(Put(b"a", b""), stamp_ms=70)
        self.assertEqual(machine.log_time_ms, 70)


class RecordTests(SynchronousTestCase):
    """Records that expire."""

    def setUp(self) -> None:
        self.machine = new()

    def test_due_is_gone(self) -> None:
        """From its time on a record is absent for every read and write, and not before; on
        replicas that have removed it, and on those that have not."""
        self.machine.do(Put(b"a", b"1", ttl_ms=10), stamp_ms=100)
        self.assertEqual(self.machine.next_due_ms(), 110)
        self.machine.pass_to(109)
        self.assertEqual(self.machine.get(b"a"), Record(b"1", 1, 1, 110))
        self.machine.pass_to(110)
        self.assertEqual(self.machine.get(b"a"), None)
        self.assertEqual(self.machine.scan().records, [])
        self.assertEqual(self.machine.do(Delete(b"a")), Written((Unchanged(),)))
        self.assertEqual(self.machine.do(conditions=[Condition(b"a", 0)]), Written(()))
        self.assertEqual(self.machine.key_count, 1)

    def test_made_again(self) -> None:
        """A key that was due and is written again is a new one, and is not removed for the old."""
        self.machine.do(Put(b"a", b"1", ttl_ms=10))
        self.machine.do(Increment(b"n", 5), Put(b"n", b"9", ttl_ms=10))
        self.machine.pass_to(10)
        self.assertEqual(self.machine.do(Increment(b"n")), Written((Counted(4, 1),)))
        self.assertEqual(self.machine.do(Put(b"a", b"2", version=0)), Written((Changed(5),)))
        self.assertEqual(self.machine.feed(Expire(10, 10)), Expired(0, 0, False))
        self.assertEqual(self.machine.get(b"a"), Record(b"2", version=5, created=5))

    def test_put_ends_the_old_time(self) -> None:
        """A record that was made to stay does not go when its former self would have."""
        self.machine.do(Put(b"a", b"1", ttl_ms=10))
        self.machine.do(Put(b"a", b"2"))
        self.machine.do(Put(b"b", b"1", ttl_ms=10))
        self.machine.do(Put(b"b", b"2", ttl_ms=20))
        self.assertEqual(self.machine.feed(Expire(15, 15)), Expired(0, 0, False))
        self.assertEqual(len(self.machine.scan().records), 2)
        self.assertEqual(self.machine.next_due_ms(), 20)

    def test_increment_keeps_the_time(self) -> None:
        """A counter for one minute ends with the minute, however often it counts."""
        self.machine.do(Put(b"n", b"1", ttl_ms=10))
        self.machine.do(Increment(b"n"), stamp_ms=5)
        self.assertEqual(self.machine.get(b"n"), Record(b"2", 2, 1, 10))

    def test_delete_ends_the_time(self) -> None:
        """Else the time of a deleted record would hit the next one under its key."""
        self.machine.do(Put(b"a", b"1", ttl_ms=10))
        self.machine.do(Delete(b"a"))
        self.assertEqual(self.machine.next_due_ms(), None)

    def test_longest_time(self) -> None:
        """A time past the end of the clock is the end of the clock, not an error or soon."""
        self.machine.do(Put(b"a", b"1", ttl_ms=2**64 - 1), stamp_ms=10)
        self.assertEqual(self.machine.get(b"a"), Record(b"1", 1, 1, 2**64 - 1))
        self.assertEqual(self.machine.feed(Expire(11, 2**64 - 1)), Expired(0, 0, False))
        self.assertEqual(self.machine.reborn().digest(), self.machine.digest())

    def test_expire_never_looks_ahead(self) -> None:
        """An entry that names a later time than the log's removes nothing that still counts."""
        self.machine.do(Put(b"a", b"1", ttl_ms=10))
        self.machine.open(idle_ms=10)
        self.assertEqual(self.machine.feed(Expire(9, 1000)), Expired(0, 0, False))
        self.assertEqual(self.machine.feed(Expire(10, 9)), Expired(0, 0, False))
        self.assertEqual(self.machine.feed(Expire(10, 10)), Expired(1, 1, False))

    def test_bounded_work(self) -> None:
        """A million records that are due at once do not stop the node for seconds: so many for
        each entry, sessions first, the longest due first, and the answer says whether to go on."""
        for number in range(5):
            self.machine.do(Put(b"%d" % number, b"", ttl_ms=10 - number))
        self.machine.open(idle_ms=3)
        self.machine.open(idle_ms=2)
        self.machine.pass_to(10)
        self.assertEqual(self.machine.feed(Expire(10, 10, 1)), Expired(1, 0, True))
        self.assertEqual(self.machine.next_due_ms(), 3)
        self.assertEqual(self.machine.feed(Expire(10, 10, 3)), Expired(1, 2, True))
        left = [key for key, _ in self.machine._contents.items(b"", None)]
        self.assertEqual([key[4:] for key in left], [b"0", b"1", b"2"])
        self.assertEqual(self.machine.feed(Expire(10, 10, 3)), Expired(0, 3, False))
        self.assertEqual((self.machine.key_count, self.machine.data_bytes), (0, 0))
        self.assertEqual(self.machine.feed(Expire(10, 10, 0)), Expired(0, 0, False))

    def test_removal_is_a_change(self) -> None:
        """Whoever follows a partition by its versions has to notice that a record went."""
        self.machine.do(Put(b"a", b"1", ttl_ms=10), Put(b"b", b"1", ttl_ms=10))
        self.machine.feed(Expire(10, 10))
        self.assertEqual(self.machine.do(Put(b"a", b"")), Written((Changed(5),)))


class ScanTests(SynchronousTestCase):
    """Pages of records."""

    def test_pages(self) -> None:
        """Page by page, each key once, in byte order, from *start* on, before *end*."""
        machine = new()
        keys = sorted([b"", b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff"])
        for key in reversed(keys):
            machine.do(Put(key, key))
        found, start = [], b""
        for _ in range(4):
            page = machine.scan(start, limit=2)
            found += [key for key, _ in page.records]
            if page.following is None:
                break
            start = page.following
        self.assertEqual(found, keys)
        self.assertEqual(
            [key for key, _ in machine.scan(b"a", b"b").records], [b"a", b"a\0", b"ab"]
        )
        self.assertEqual(machine.scan(b"b", b"a"), ([], None))

    def test_due_records_are_passed_over_in_bounds(self) -> None:
        """A page that finds nothing but what is due ends all the same, and says where to go on."""
        machine = new()
        for number in range(SCAN_DUE_MAX + 5):
            machine.do(Put(b"%06d" % number, b"", ttl_ms=1))
        machine.do(Put(b"x", b""))
        machine.pass_to(1)
        page = machine.scan()
        self.assertEqual(page, ([], b"%06d" % SCAN_DUE_MAX))
        assert page.following is not None
        self.assertEqual([key for key, _ in machine.scan(page.following).records], [b"x"])


class LogClockTests(SynchronousTestCase):
    """The leader's side."""

    def test_counts_from_leadership(self) -> None:
        """Time without a leader does not count: nothing expires that nobody could renew."""
        clock = LogClock(5000, now_seconds=1_000_000.0)
        self.assertEqual(clock.stamp_ms(1_000_000.0), 5000)
        self.assertEqual(clock.stamp_ms(1_000_000.0625), 5062)

    def test_never_falls(self) -> None:
        """Even if the clock that it is given does."""
        clock = LogClock(0, now_seconds=10.0)
        self.assertEqual(clock.stamp_ms(11.0), 1000)
        self.assertEqual(clock.stamp_ms(10.5), 1000)
        self.assertEqual(clock.stamp_ms(9.0), 1000)

    def test_goes_on_from_the_leader_before(self) -> None:
        """Entries of the one before are applied later: from their time on this one counts, else
        the group's clock would stand for as long as it was behind."""
        clock = LogClock(0, now_seconds=10.0)
        clock.applied(400, now_seconds=10.125)
        self.assertEqual(clock.stamp_ms(10.125), 400)
        self.assertEqual(clock.stamp_ms(10.25), 525)
        clock.applied(450, now_seconds=10.5)
        self.assertEqual(clock.stamp_ms(10.5), 775)

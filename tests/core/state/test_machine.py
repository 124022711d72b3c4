"""Same entries, same state, on every replica; and entries that must stop one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.answers import Written, encode_answer
from kvtwist.core.state.commands import Advance, encode
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.state.operations import Get, Put
from kvtwist.core.state.outcomes import Changed
from tests.core.state import fixed
from tests.core.state.machines import Fed, new

CHECKOUT = Path(__file__).resolve().parents[3]

# What the fixed log comes to. A release that gets another has changed what committed entries mean,
# or the form of a snapshot: replicas of two releases in one cluster would part.
DIGEST = "d3c83a30c5c78cd01dfe0fb68d0ab1aed0eb24a88e8176cd734ad39682f0c4cc"


class DeterminismTests(SynchronousTestCase):
    """R17."""

    def test_digest_of_fixed_log(self) -> None:
        """R17: the same log means the same in every release."""
        applied, _ = fixed.machine()
        self.assertEqual(applied.digest().hex(), DIGEST)

    def test_fixed_log_is_worth_it(self) -> None:
        """X1: the log meets what it is there for."""
        applied, answers = fixed.machine()
        kinds = Counter(answer[0] for answer in answers)
        for kind in (1, 2, 3, 4, 5, 6, 7, 0x10, 0x11, 0x12):
            self.assertGreater(kinds[kind], 2, f"kind {kind}")
        self.assertGreater(applied.key_count, 1000)
        self.assertGreater(applied.session_count, 2)

    def test_hash_seed(self) -> None:
        """R17: what depends on how an interpreter hashes differs between replicas."""
        digests = {
            subprocess.run(
                [sys.executable, "-m", "tests.core.state.fixed"],
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            ).stdout.strip()
            for seed in ("0", "1", "12345")
        }
        self.assertEqual(digests, {DIGEST})

    def test_restored_replica_goes_on_alike(self) -> None:
        """R13, R17: a replica that came from a snapshot somewhere in the log gives the same
        answers from there on, and ends the same."""
        steady, expected = fixed.machine()
        replica = new()
        replica._contents.generation = 1
        answers = []
        for index, command in enumerate(fixed.commands(), 1):
            answers.append(encode_answer(replica.feed(command)))
            if index % 700 == 0:
                replica = replica.reborn(4096)
        self.assertEqual(answers, expected)
        self.assertEqual(replica.digest(), steady.digest())


class EntryTests(SynchronousTestCase):
    """One entry after the other."""

    def setUp(self) -> None:
        self.machine: Fed = new()

    def test_stops_at_what_it_cannot_read(self) -> None:
        """A replica that went on past an entry it could not read would hold something else than
        the others. What it has stays as it was, and a later release can go on from there."""
        self.machine.do(Put(b"a", b"1"))
        before = self.machine.digest()
        put = encode(Advance(5))
        for data, error in (
            (b"\x63\x01later", UnknownKind),
            (b"\x05\x02later", UnknownKind),
            (put[:-1], MalformedBytes),
            (put + b"\0", MalformedBytes),
            (b"", MalformedBytes),
            (b"\x05", MalformedBytes),
        ):
            self.assertRaises(error, self.machine.apply, 2, data)
            self.assertEqual(self.machine.digest(), before)
        self.machine.apply(2, put)

    def test_order_of_entries(self) -> None:
        """An entry that is left out, or applied twice, must be noticed at once."""
        entry = encode(Advance(5))
        for index in (0, 2):
            self.assertRaises(AssertionError, self.machine.apply, index, entry)
            self.assertRaises(AssertionError, self.machine.skip, index)
        self.machine.apply(1, entry)
        self.machine.skip(2)
        self.assertRaises(AssertionError, self.machine.apply, 2, entry)
        self.machine.apply(3, entry)
        self.assertEqual(self.machine.applied_index, 3)

    def test_reads_change_nothing(self) -> None:
        """Reads are not in the log: if they left traces, replicas would part over who reads."""
        self.machine.do(Put(b"a", b"1", ttl_ms=5), Put(b"b", b"2"))
        self.machine.pass_to(9)
        before = self.machine.digest()
        self.machine.get(b"a")
        self.machine.scan(limit=1)
        self.machine.next_due_ms()
        list(self.machine.snapshot().chunks())
        self.assertEqual(self.machine.digest(), before)
        self.assertEqual(self.machine.key_count, 2)

    def test_records_are_no_work_for_the_collector(self) -> None:
        """Else a full collection with a million keys would hold up the node for most of a second:
        longer than it takes the others to think that it is dead."""
        self.machine.do(*[Put(b"%d" % number, b"x") for number in range(100)])
        gc.collect()
        kept = [stored for _, stored in self.machine._contents._records.freeze()]
        self.assertEqual(len(kept), 100)
        self.assertFalse(any(gc.is_tracked(stored) for stored in kept))

    def test_large_value_is_kept_as_it_is(self) -> None:
        """A value of the largest size goes through an entry whole."""
        value = b"x" * (16 << 20)
        self.assertEqual(self.machine.do(Put(b"a", value), Get(b"z")).results[0], Changed(1))  # type: ignore[union-attr]
        record = self.machine.get(b"a")
        assert record is not None
        self.assertEqual(record.value, value)
        self.assertEqual(self.machine.data_bytes, (16 << 20) + 5)
        self.assertEqual(self.machine.do(Put(b"a", b"")), Written((Changed(2),)))
        self.assertEqual(self.machine.data_bytes, 5)

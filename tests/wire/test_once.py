"""What a write carries that may be sent twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import MalformedRequest
from kvtwist.wire.once import ONCE_BYTES, Once, pack_once, unpack_once
from tests.wire.properties import examples

numbers = st.integers(0, (1 << 64) - 1)


class OnceTests(SynchronousTestCase):
    """Four numbers."""

    def test_format(self) -> None:
        """Else two implementations of the protocol name different writes with the same bytes."""
        data = b"".join(number.to_bytes(8, "big") for number in (1, 2, 3, 4))
        self.assertEqual(unpack_once(data), Once(1, 2, 3, 4))
        self.assertEqual(pack_once(1, 2, 3, 4), data)
        once = unpack_once(data)
        self.assertEqual((once.generation, once.session, once.seq), (1, 2, 3))
        self.assertEqual(once.lowest_unanswered, 4)

    @examples(60)
    @given(st.tuples(numbers, numbers.filter(bool), numbers, numbers))
    def test_round_trip(self, fields: tuple[int, int, int, int]) -> None:
        """The same, for all numbers that a log entry can have."""
        self.assertEqual(unpack_once(pack_once(*fields)), fields)

    def test_malformed(self) -> None:
        """Else a write is taken for another; or for one without a session, by somebody who will
        send it again."""
        for data in (b"", b"x" * (ONCE_BYTES - 1), b"x" * (ONCE_BYTES + 1), pack_once(1, 0, 3, 4)):
            self.assertRaises(MalformedRequest, unpack_once, data)

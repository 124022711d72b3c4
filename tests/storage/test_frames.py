"""Checksums around what is kept: what the disk has changed is never served (S3)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import StoreDamaged
from kvtwist.storage.frames import opened, sealed


class FrameTests(SynchronousTestCase):
    @given(st.binary(max_size=40), st.binary(max_size=200))
    def test_both_ways(self, key: bytes, payload: bytes) -> None:
        """What was sealed comes back."""
        self.assertEqual(opened(key, sealed(key, payload)), payload)

    @given(st.binary(max_size=20), st.binary(max_size=60), st.data())
    def test_any_changed_bit_is_noticed(
        self, key: bytes, payload: bytes, data: st.DataObject
    ) -> None:
        """One flipped bit, anywhere."""
        frame = bytearray(sealed(key, payload))
        bit = data.draw(st.integers(0, len(frame) * 8 - 1))
        frame[bit // 8] ^= 1 << bit % 8
        self.assertRaises(StoreDamaged, opened, key, bytes(frame))

    @given(st.binary(max_size=20), st.binary(max_size=60), st.data())
    def test_cut_off_and_longer(self, key: bytes, payload: bytes, data: st.DataObject) -> None:
        """A frame of another length is none."""
        frame = sealed(key, payload)
        cut = data.draw(st.integers(0, len(frame) - 1))
        self.assertRaises(StoreDamaged, opened, key, frame[:cut])
        self.assertRaises(StoreDamaged, opened, key, frame + b"\0")

    def test_under_another_key(self) -> None:
        """A value that turns up in the wrong place is damage too."""
        self.assertRaises(StoreDamaged, opened, b"other", sealed(b"key", b"value"))

    def test_a_later_format(self) -> None:
        """A frame of a format to come is not guessed at."""
        frame = sealed(b"key", b"value")
        self.assertRaises(StoreDamaged, opened, b"key", b"\x02" + frame[1:])

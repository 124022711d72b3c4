"""What every engine must do: one suite, which each implementation passes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kvtwist.storage.engine import NOT_CACHED, Batch, Engine

_keys = st.binary(min_size=1, max_size=3)
_operations = st.one_of(
    st.tuples(st.just("put"), _keys, st.binary(max_size=4)),
    st.tuples(st.just("delete"), _keys, st.just(b"")),
    st.tuples(st.just("delete_range"), _keys, _keys),
)
_batches = st.lists(st.lists(_operations, max_size=6), max_size=6)

END = b"\xff" * 8


def batch_of(*operations: tuple[str, bytes, bytes]) -> Batch:
    """A batch of these, each (method, key, value or end)."""
    batch = Batch()
    for name, key, other in operations:
        if name == "delete":
            batch.delete(key)
        else:
            getattr(batch, name)(key, other)
    return batch


def perform(model: dict[bytes, bytes], operations: list[tuple[str, bytes, bytes]]) -> None:
    """Do the same to a dictionary, in the most naive way."""
    for name, key, other in operations:
        if name == "put":
            model[key] = other
        elif name == "delete":
            model.pop(key, None)
        else:
            for each in [each for each in model if key <= each < other]:
                del model[each]


class EngineContract:
    """Mix into a test case that has `make_engine`."""

    def make_engine(self) -> Engine:
        raise NotImplementedError

    def filled(self: Any, *pairs: tuple[bytes, bytes]) -> Engine:
        engine: Engine = self.make_engine()
        batch = Batch()
        for key, value in pairs:
            batch.put(key, value)
        engine.commit(batch, sync=True)
        return engine

    def test_put_and_get(self: Any) -> None:
        """What was written is read, empty and binary values too."""
        engine = self.filled((b"a", b"1"), (b"b", b""), (b"\0\xff", b"\0" * 100_000))
        self.assertEqual(engine.get(b"a"), b"1")
        self.assertEqual(engine.get(b"b"), b"")
        self.assertEqual(engine.get(b"\0\xff"), b"\0" * 100_000)
        self.assertIsNone(engine.get(b"c"))

    def test_many_at_once(self: Any) -> None:
        """Each value goes to its own key, whatever the order, and whichever are not there."""
        engine = self.filled((b"a", b"1"), (b"b", b""), (b"c", b"3"))
        self.assertEqual(
            engine.get_many([b"c", b"absent", b"b", b"a", b"c"]), [b"3", None, b"", b"1", b"3"]
        )
        self.assertEqual(engine.get_many([]), [])

    def test_an_empty_batch(self: Any) -> None:
        """It syncs what was committed before it, and changes nothing."""
        engine = self.filled((b"a", b"1"))
        engine.commit(batch_of(), sync=True)
        self.assertEqual(list(engine.scan(b"", END)), [(b"a", b"1")])

    def test_what_is_in_memory_is_read_without_waiting(self: Any) -> None:
        """Else each hot read would cost a trip to a thread."""
        engine = self.filled((b"a", b"1"), (b"empty", b""))
        self.assertEqual(engine.get_cached(b"a"), b"1")
        self.assertEqual(engine.get_cached(b"empty"), b"")
        self.assertIn(engine.get_cached(b"absent"), (None, NOT_CACHED))

    def test_delete(self: Any) -> None:
        """What was removed is gone; to remove what is not there is no error."""
        engine = self.filled((b"a", b"1"))
        engine.commit(batch_of(("delete", b"a", b""), ("delete", b"absent", b"")), sync=False)
        self.assertIsNone(engine.get(b"a"))

    def test_the_end_of_a_range_stays(self: Any) -> None:
        """Ranges are half open, here and in RocksDB: an off-by-one would take a neighbour's key."""
        engine = self.filled((b"a", b"1"), (b"b", b"2"), (b"b\0", b"3"), (b"c", b"4"))
        engine.commit(batch_of(("delete_range", b"b", b"c")), sync=False)
        self.assertEqual(list(engine.scan(b"", END)), [(b"a", b"1"), (b"c", b"4")])

    def test_an_empty_range_removes_nothing(self: Any) -> None:
        """A range whose end is before its start is empty, not everything."""
        engine = self.filled((b"a", b"1"), (b"b", b"2"))
        engine.commit(batch_of(("delete_range", b"b", b"a")), sync=False)
        self.assertEqual(len(list(engine.scan(b"", END))), 2)

    def test_the_last_operation_on_a_key_counts(self: Any) -> None:
        """A batch is in order: a log that is cut off and written again depends on it."""
        engine = self.filled()
        engine.commit(
            batch_of(
                ("put", b"a", b"1"),
                ("delete_range", b"a", b"b"),
                ("put", b"a", b"2"),
                ("put", b"b", b"3"),
                ("delete", b"b", b""),
            ),
            sync=True,
        )
        self.assertEqual(list(engine.scan(b"", END)), [(b"a", b"2")])

    def test_scans_are_in_byte_order(self: Any) -> None:
        """Pages of a scan are merged by that order."""
        keys = [b"", b"\0", b"a", b"a\0", b"aa", b"b", b"\x7f", b"\x80", b"\xff"]
        engine = self.filled(*((b"k" + key, b"v") for key in reversed(keys)))
        found = [key for key, _ in engine.scan(b"k", b"l")]
        self.assertEqual(found, sorted(b"k" + key for key in keys))
        self.assertEqual([key for key, _ in engine.scan(b"ka", b"kb")], [b"ka", b"ka\0", b"kaa"])

    def test_a_view_stays_as_it_was(self: Any) -> None:
        """A snapshot that is sent while writes go on is one moment's, or it is nobody's."""
        engine = self.filled((b"a", b"1"), (b"b", b"2"))
        with engine.view() as view:
            engine.commit(
                batch_of(("put", b"a", b"9"), ("delete", b"b", b""), ("put", b"c", b"3")),
                sync=False,
            )
            self.assertEqual(list(view.scan(b"", END)), [(b"a", b"1"), (b"b", b"2")])
            self.assertEqual(view.get(b"a"), b"1")
            self.assertIsNone(view.get(b"c"))
        self.assertEqual(list(engine.scan(b"", END)), [(b"a", b"9"), (b"c", b"3")])

    def test_a_scan_goes_on_while_others_write(self: Any) -> None:
        """It shows each key once, and none that it was not to show."""
        engine = self.filled(*((b"%03d" % number, b"v") for number in range(100)))
        seen = []
        for key, _ in engine.scan(b"", END):
            seen.append(key)
            engine.commit(batch_of(("delete", key, b""), ("put", b"x" + key, b"v")), sync=False)
            if len(seen) == 50:
                break
        self.assertEqual(seen, [b"%03d" % number for number in range(50)])

    def test_size_and_compaction(self: Any) -> None:
        """They can be asked for at any time, and lose nothing."""
        engine = self.filled((b"a", b"1" * 1000))
        self.assertGreater(engine.size_bytes(), 0)
        engine.compact(b"", END)
        engine.reopen()
        self.assertEqual(engine.get(b"a"), b"1" * 1000)

    def test_it_is_a_dictionary(self: Any) -> None:
        """Any batches leave what they leave in a dictionary."""

        @settings(max_examples=40, deadline=None)
        @given(_batches)
        def check(batches: list[list[tuple[str, bytes, bytes]]]) -> None:
            engine: Engine = self.make_engine()
            model: dict[bytes, bytes] = {}
            for operations in batches:
                engine.commit(batch_of(*operations), sync=False)
                perform(model, operations)
                self.assertEqual(list(engine.scan(b"", END)), sorted(model.items()))
                for _, key, _ in operations:
                    self.assertEqual(engine.get(key), model.get(key))
                    self.assertIn(engine.get_cached(key), (model.get(key), NOT_CACHED))
            engine.close()

        check()

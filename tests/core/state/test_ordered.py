"""The ordered map, beside a dictionary that is sorted each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state import ordered
from kvtwist.core.state.ordered import Frozen, Ordered
from tests.wire.properties import examples

numbers = st.integers(0, 40)
steps = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "remove", "freeze"]), numbers), max_size=120
)


def key_of(number: int) -> bytes:
    """Keys of different lengths, one of them empty."""
    return b"\xff" * (number % 3) + bytes([number]) * (number > 0)


class OrderedTests(SynchronousTestCase):
    """Leaves so small that splits and merges are common (X3)."""

    def setUp(self) -> None:
        self.patch(ordered, "LEAF_KEYS_MAX", 4)
        self.patch(ordered, "LEAF_KEYS_MIN", 2)

    @examples(200)
    @given(steps, numbers, numbers)
    def test_beside_dictionary(self, taken: list[tuple[str, int]], start: int, end: int) -> None:
        """A key out of order is missed by scans; a view that changes makes a snapshot of a state
        that never was."""
        tree: Ordered[int] = Ordered()
        model: dict[bytes, int] = {}
        views: list[tuple[Frozen[int], list[tuple[bytes, int]]]] = []
        for at, (what, number) in enumerate(taken, 1):
            key = key_of(number)
            if what == "put":
                self.assertEqual(tree.put(key, at), model.get(key))
                model[key] = at
            elif what == "freeze":
                views.append((tree.freeze(), sorted(model.items())))
            elif key in model:
                self.assertEqual(tree.remove(key), model.pop(key))
            else:
                self.assertRaises(KeyError, tree.remove, key)
        self.assertEqual(list(tree.items()), sorted(model.items()))
        self.assertEqual(len(tree), len(model))
        for number in range(41):
            self.assertEqual(tree.get(key_of(number)), model.get(key_of(number)))
        first, last = key_of(start), key_of(end)
        self.assertEqual(
            list(tree.items(first, last)),
            sorted(item for item in model.items() if first <= item[0] < last),
        )
        for view, items in views:
            self.assertEqual(list(view), items)
            self.assertEqual(len(view), len(items))


class ShapeTests(SynchronousTestCase):
    """With leaves as they are."""

    def leaves(self, tree: Ordered[int]) -> list[int]:
        """How many keys each leaf has."""
        return self.leaves_of(tree.freeze())

    def leaves_of(self, view: Frozen[int]) -> list[int]:
        """The same, of a view."""
        return [len(leaf) for leaf in view._leaves]

    def test_leaves_stay_small(self) -> None:
        """Else a change after a freeze would copy everything at once, and stall the node."""
        tree: Ordered[int] = Ordered()
        for number in range(20_000):
            tree.put(b"%d" % (number * 7919 % 20_000), number)
        leaves = self.leaves(tree)
        self.assertLessEqual(max(leaves), ordered.LEAF_KEYS_MAX)
        self.assertLess(len(leaves), 3 * 20_000 // ordered.LEAF_KEYS_MAX)
        for number in range(20_000):
            if number % 100:
                tree.remove(b"%d" % number)
        self.assertLess(len(self.leaves(tree)), 12)

    def test_keys_in_order_fill_leaves(self) -> None:
        """Else a restored replica would take twice the leaves of the one it copies."""
        tree: Ordered[int] = Ordered()
        for number in range(10 * ordered.LEAF_KEYS_MAX):
            tree.put(b"%06d" % number, number)
        self.assertEqual(self.leaves(tree), [ordered.LEAF_KEYS_MAX] * 10)

    def test_view_outlives_the_leaves_before_it(self) -> None:
        """A leaf that moves into the place of an emptied one is still the frozen view's too."""
        for emptied in range(4):
            tree: Ordered[int] = Ordered()
            for number in range(4 * ordered.LEAF_KEYS_MAX):
                tree.put(b"%06d" % number, number)
            expected = list(tree.items())
            view = tree.freeze()
            first = emptied * ordered.LEAF_KEYS_MAX
            for number in range(first, first + ordered.LEAF_KEYS_MAX):
                tree.remove(b"%06d" % number)
            self.assertEqual(self.leaves_of(view), [ordered.LEAF_KEYS_MAX] * 4)
            for number in range(4 * ordered.LEAF_KEYS_MAX):
                tree.put(b"%06d" % number, -1)
            self.assertEqual(list(view), expected)

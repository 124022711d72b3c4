"""The picture of the ring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.cli.picture import COLUMNS, MARKS, ROWS, draw_ring, mark_of

TERMINAL_COLUMNS = 80


def name_of(number: int) -> str:
    """A member's name."""
    return f"node-{number}"


def draw(owners: Sequence[int], members: int) -> list[str]:
    """The picture for the owners of the partitions, as numbers from 0 on."""
    owned = Counter(owners)
    legend = [
        (name_of(number), str(owned[number]), f"{owned[number] / len(owners):.1%}")
        for number in range(members)
    ]
    return draw_ring([name_of(number) for number in owners], legend)


def circle(lines: list[str]) -> list[str]:
    """The part with the circle, each line at its full width."""
    return [line[:COLUMNS].ljust(COLUMNS) for line in lines]


def marks(lines: list[str]) -> set[str]:
    """The characters that the circle is made of."""
    return set("".join(circle(lines))) - {" "}


class DrawRingTests(SynchronousTestCase):
    """Pictures of rings."""

    def test_clockwise_from_the_top(self) -> None:
        """The picture would show the partitions mirrored, or turned, and nothing would be where
        `kvcli where` says it is."""
        rows = circle(draw([0, 1, 2, 3], 4))[:ROWS]
        middle, half = ROWS // 2, COLUMNS // 2
        corners = {
            "A": [row[half + 1 :] for row in rows[: middle - 1]],
            "B": [row[half + 1 :] for row in rows[middle + 2 :]],
            "C": [row[: half - 1] for row in rows[middle + 2 :]],
            "D": [row[: half - 1] for row in rows[: middle - 1]],
        }
        for mark, corner in corners.items():
            self.assertEqual(set("".join(corner)) - {" "}, {mark})

    def test_first_partition_is_at_the_top(self) -> None:
        """Partition 0 would have to be searched for."""
        for partitions in (2, 4, 8, 16, 32, 64):
            top = circle(draw([0] + [1] * (partitions - 1), 2))[0]
            self.assertEqual(top[COLUMNS // 2], "A", partitions)
            self.assertEqual(top[COLUMNS // 2 - 1], "B", partitions)

    def test_last_partition_is_left_of_the_top(self) -> None:
        """The ring would seem to end somewhere else than where it begins."""
        for partitions in (2, 4, 8, 16, 32, 64):
            top = circle(draw([1] * (partitions - 1) + [0], 2))[0]
            self.assertEqual(top[COLUMNS // 2 - 1], "A", partitions)
            self.assertEqual(top[COLUMNS // 2], "B", partitions)

    def test_one_partition(self) -> None:
        """The smallest ring would be a traceback."""
        self.assertEqual(marks(draw([0], 1)), {"A"})

    def test_most_partitions(self) -> None:
        """The largest ring would be a traceback, or fill the screen."""
        lines = draw([number * 4 // 4096 for number in range(4096)], 4)
        self.assertEqual(len(lines), ROWS)
        self.assertEqual(circle(lines), circle(draw([0, 1, 2, 3], 4)))

    def test_one_member(self) -> None:
        """A lone member would share its ring with somebody who is not there."""
        lines = draw([0] * 64, 1)
        self.assertEqual(marks(lines), {"A"})
        self.assertIn("100.0%", "\n".join(lines))

    def test_many_members(self) -> None:
        """A large cluster would be a traceback, or lack its last members."""
        lines = draw([number % 80 for number in range(4096)], 80)
        self.assertGreater(len(lines), 80)
        shown = "\n".join(lines)
        for number in range(80):
            self.assertIn(f"{mark_of(number)}  {name_of(number)} ", shown)
        self.assertTrue(marks(lines) <= set(MARKS))

    def test_marks_repeat(self) -> None:
        """The 65th member would have no letter."""
        self.assertEqual(len(set(MARKS)), len(MARKS))
        self.assertNotIn(" ", MARKS)
        self.assertEqual(mark_of(0), "A")
        self.assertEqual(mark_of(len(MARKS)), "A")

    def test_member_without_partitions(self) -> None:
        """A member that owns nothing would be missing from the list."""
        lines = draw([0, 0], 2)
        self.assertEqual(marks(lines), {"A"})
        (row,) = [line for line in lines if "node-1" in line]
        self.assertIn("0.0%", row)

    def test_legend(self) -> None:
        """One could not tell whose letter it is, and how much its member has."""
        lines = [line[COLUMNS:].strip() for line in draw([0, 0, 0, 1], 2)]
        self.assertIn("A  node-0           3  75.0%", lines)
        self.assertIn("B  node-1           1  25.0%", lines)
        self.assertIn("4 partitions, clockwise; 0 is at the top.", lines)

    def test_fits_a_terminal(self) -> None:
        """The lines would wrap, and nobody would see a circle."""
        for line in draw([number % 3 for number in range(64)], 3):
            self.assertLessEqual(len(line), TERMINAL_COLUMNS, line)

    @settings(deadline=None)
    @given(
        st.integers(1, 9).flatmap(
            lambda members: st.integers(0, 12).flatmap(
                lambda exponent: st.tuples(
                    st.just(members),
                    st.lists(
                        st.integers(0, members - 1), min_size=1 << min(exponent, 6), max_size=64
                    ).map(lambda owners: owners * (1 << max(0, exponent - 6))),
                )
            )
        )
    )
    def test_all_letters_are_owners(self, drawn: tuple[int, list[int]]) -> None:
        """A letter on the ring would stand for nobody, or an owner of much have no letter."""
        members, owners = drawn
        lines = draw(owners, members)
        self.assertEqual(len(lines), max(ROWS, members + 4))
        self.assertTrue(all(line == line.rstrip() for line in lines))
        self.assertTrue(marks(lines) <= {mark_of(owner) for owner in owners})
        if len(owners) <= 16:
            self.assertEqual(marks(lines), {mark_of(owner) for owner in owners})

"""A picture of the ring for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvtwist.cli.show import counted, table

ROWS = 17
COLUMNS = 2 * ROWS
"""A character is about twice as high as it is wide, so that this is a circle."""
MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+*"


def mark_of(index: int) -> str:
    """The character for the member with *index*; marks repeat when there are very many members."""
    return MARKS[index % len(MARKS)]


def draw_ring(owners: Sequence[str], legend: Sequence[tuple[str, str, str]]) -> list[str]:
    """Lines of a picture.

    :param owners: the owner of each partition, in the order of the ring.
    :param legend: for each member its name, partitions and share.
    """
    marks = {name: mark_of(at) for at, (name, _, _) in enumerate(legend)}
    circle = _circle([marks[name] for name in owners])
    key = table(
        ("", "MEMBER", "PARTITIONS", "SHARE"),
        [(marks[name], name, partitions, share) for name, partitions, share in legend],
    )
    notes = [
        *key,
        "",
        f"{counted(len(owners), 'partition')}, clockwise; 0 is at the top.",
        "Each letter is the owner of the",
        "partition that lies there.",
    ]
    height = max(len(circle), len(notes))
    top = (height - len(notes)) // 2
    right = [""] * top + notes + [""] * (height - top - len(notes))
    left = circle + [" " * COLUMNS] * (height - len(circle))
    return [f"{a:<{COLUMNS}}    {b}".rstrip() for a, b in zip(left, right, strict=True)]


def _circle(marks: Sequence[str]) -> list[str]:
    """The circle: each cell shows the partition whose arc it lies in, clockwise from the top."""
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    steps = 8 * COLUMNS
    for step in range(steps):
        turn = (step + 0.5) / steps
        x = math.sin(2 * math.pi * turn) * (COLUMNS - 2) / 2 + (COLUMNS - 1) / 2
        y = -math.cos(2 * math.pi * turn) * (ROWS - 1) / 2 + (ROWS - 1) / 2
        grid[round(y)][round(x)] = marks[int(turn * len(marks))]
    return ["".join(row) for row in grid]

"""How a bug is planted: a patch of running code, undone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


class Patch:
    """What was replaced, and what stood there."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def replace(self, owner: Any, name: str, made: Callable[[Any], Any]) -> None:
        """Put in place of ``owner.name`` what *made* makes of it."""
        before = owner.__dict__[name]
        setattr(owner, name, made(before))
        self._undo.append(lambda: setattr(owner, name, before))

    def replace_item(self, table: Any, key: Any, made: Callable[[Any], Any]) -> None:
        """The same, in a table."""
        before = table[key]
        table[key] = made(before)
        self._undo.append(lambda: table.__setitem__(key, before))

    @property
    def is_planted(self) -> bool:
        """Whether anything is replaced now."""
        return bool(self._undo)

    def undo(self) -> None:
        """Have everything as it was."""
        while self._undo:
            self._undo.pop()()


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug.

    :ivar plant: plants it.
    :ivar what: it is, in a line.
    """

    name: str
    what: str
    plant: Callable[[Patch], None]


MUTANTS: dict[str, Mutant] = {}
"""All of them, by name."""


def mutant(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Add the bug that the function plants; its docstring says what it is."""
    name = plant.__name__
    assert plant.__doc__ and name not in MUTANTS
    MUTANTS[name] = Mutant(name, " ".join(plant.__doc__.split()), plant)
    return plant


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """While inside, the code has that bug; ``None``: it is as it is."""
    patch = Patch()
    try:
        if name is not None:
            MUTANTS[name].plant(patch)
        yield
    finally:
        patch.undo()


def instead(made: Any) -> Callable[[Any], Any]:
    """For `Patch.replace`: *made*, whatever was there."""
    return lambda _: made

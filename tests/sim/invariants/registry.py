"""What an invariant is here: a function that says what is wrong, or nothing.

Each belongs to one place in a member's work, and is asked there every time. Its name is what a
failure prints; its docstring says where it comes from. "Figure 2" and "figure 3" are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Check = TypeVar("Check", bound=Callable[..., str | None])


class Violation(Exception):
    """An invariant does not hold.

    :ivar invariant: its name.
    """

    def __init__(self, invariant: str, wrong: str) -> None:
        super().__init__(f"{invariant}: {wrong}")
        self.invariant = invariant


PLACES: dict[str, list[Callable[..., str | None]]] = {}
"""The invariants, by the place where they are asked."""


def holds(place: str) -> Callable[[Check], Check]:
    """Ask the function at *place*."""

    def register(check: Check) -> Check:
        PLACES.setdefault(place, []).append(check)
        return check

    return register


def ask(checks: list[Callable[..., str | None]], *arguments: Any) -> None:
    """Ask all *checks*.

    :raises Violation: when one finds something wrong.
    """
    for check in checks:
        wrong = check(*arguments)
        if wrong is not None:
            raise Violation(check.__name__, wrong)


def names() -> list[str]:
    """All invariants."""
    return sorted({check.__name__ for checks in PLACES.values() for check in checks})

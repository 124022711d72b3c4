"""What `setup.py` lists to be compiled can be: a list that cannot is found long before a compiler
is asked."""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

import kvtwist

CHECKOUT = Path(__file__).resolve().parents[1]


def listed() -> set[str]:
    """The modules that are to be compiled."""
    for statement in ast.parse((CHECKOUT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "COMPILED":
            folders: dict[str, str] = ast.literal_eval(statement.value)
            return {
                f"kvtwist.{folder.replace('/', '.')}.{name}"
                for folder, names in folders.items()
                for name in names.split()
            }
    raise AssertionError("there is no list in setup.py")


def classes(module: ModuleType) -> Iterator[type]:
    """Those that *module* defines."""
    for each in vars(module).values():
        if isinstance(each, type) and each.__module__ == module.__name__:
            yield each


def wrong_with(made: type, compiled: set[str]) -> list[str]:
    """What of a class's bases keeps it, or them, from being compiled."""
    bases = [
        base for base in made.__mro__[1:] if base.__module__.startswith(("kvtwist", "twisted"))
    ]
    if made.__module__ in compiled:
        return [f"{made} is built upon {base}" for base in bases if base.__module__ not in compiled]
    return [f"{made} is built upon {base}" for base in bases if base.__module__ in compiled]


class ListTests(SynchronousTestCase):
    """The list."""

    def test_they_are_there(self) -> None:
        """A module that was renamed stays compiled."""
        for name in listed():
            self.assertTrue((CHECKOUT / f"{name.replace('.', '/')}.py").exists(), name)

    def test_their_classes(self) -> None:
        """An installation that was compiled starts: no class of Twisted's under one that is
        compiled, none that is compiled under one that is not."""
        compiled = listed()
        for found in pkgutil.walk_packages(kvtwist.__path__, "kvtwist."):
            if found.name.endswith("__main__"):
                continue
            for made in classes(import_module(found.name)):
                self.assertEqual(wrong_with(made, compiled), [])

    def test_what_is_wrong(self) -> None:
        """The rule finds what breaks it."""

        class Base:
            __module__ = "kvtwist.base"

        class Derived(Base):
            __module__ = "kvtwist.derived"

        self.assertEqual(wrong_with(Derived, {"kvtwist.base", "kvtwist.derived"}), [])
        self.assertEqual(wrong_with(Derived, set()), [])
        self.assertEqual(len(wrong_with(Derived, {"kvtwist.base"})), 1)
        self.assertEqual(len(wrong_with(Derived, {"kvtwist.derived"})), 1)

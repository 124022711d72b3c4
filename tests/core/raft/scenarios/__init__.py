"""Golden scenarios: commands to a group, and all that came of them.

A file is read from the top. Lines with ``#`` in front are for the reader: the first ones say what
the file shows, and what a user would lose if it went wrong. Lines with ``> `` in front are commands
(`tests.core.raft.scenarios.language`). What stands below a command, indented, is its trace: every
`Ready` in full, every message that arrives, every change of role, every answer to a user.

A file passes when its commands give exactly its traces. It is as true as whoever read it: hold each
line against the papers before it is committed, and never rewrite one to make a test pass.

    python -m tests.core.raft.scenarios                       compare all
    python -m tests.core.raft.scenarios --rewrite [NAME ...]  write the traces anew
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.core.raft.scenarios.language import Scenario

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Of all scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def path_of(name: str) -> Path:
    """Where one is."""
    return FOLDER / f"{name}.txt"


def replayed(text: str) -> str:
    """A scenario's text as it should be: its own comments and commands, with true traces.

    :raises AssertionError: when a command fails; it says which one.
    """
    return "".join(f"{line}\n" for line in _replay(text.splitlines()))


def _replay(lines: list[str]) -> Iterator[str]:
    scenario = Scenario()
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            yield line
        elif line.startswith("> "):
            yield line
            try:
                said = scenario.run(line[2:])
            except Exception as error:
                raise AssertionError(f"line {number}: {line}: {error!r}") from error
            for each in said:
                yield f"  {each}"

"""Hello: what the two ends of a connection say of themselves, and whether they belong together.

Pure rules; the exchange itself is one `Hello` command. The end that is asked refuses, so that the
reason is said once, in the same words to both logs. The end that asks checks the answer too, since
the other end may be an older release.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kvtwist.errors import HelloRefused
from kvtwist.wire.boxes import BoxLimits
from kvtwist.wire.commands import PROTOCOL_VERSION
from kvtwist.wire.fragments import FEATURE as FRAGMENTS
from kvtwist.wire.fragments import FRAGMENT_BYTES_MAX

_FRAGMENT_PAIRS_MAX = 32


@dataclass(frozen=True, slots=True)
class Greeting:
    """The arguments, and the answer, of `kvtwist.wire.commands.Hello`; see there."""

    version_min: int = PROTOCOL_VERSION
    version_max: int = PROTOCOL_VERSION
    cluster_id: str = ""
    name: str = ""
    identity: str = ""
    address: str = ""
    expected_identity: str = ""
    started_ms: int = 0
    features: tuple[str, ...] = ()
    auth: bytes = b""

    def arguments(self) -> dict[str, Any]:
        """As the arguments of a `Hello`."""
        return asdict(self)

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Greeting:
        """From the arguments, or the answer, of a `Hello`."""
        said = {name: arguments[name] for name in cls.__dataclass_fields__}
        return cls(**said | {"features": tuple(said["features"])})

    @property
    def joins_fragments(self) -> bool:
        """Whether a large box may be sent to the speaker in fragments."""
        return FRAGMENTS in self.features

    @property
    def who(self) -> str:
        """The speaker, for people."""
        if not self.name:
            return "this client"
        return f"{shown(self.name)} at {shown(self.address)}" if self.address else shown(self.name)


def features(limits: BoxLimits) -> tuple[str, ...]:
    """What one who takes boxes of that size can do, beside what every release can.

    Whoever takes no box as large as a fragment has large boxes sent whole, and refuses them.
    """
    joins = (
        limits.box_bytes_max >= FRAGMENT_BYTES_MAX and limits.box_pairs_max >= _FRAGMENT_PAIRS_MAX
    )
    return (FRAGMENTS,) if joins else ()


def shown(text: str) -> str:
    """A peer's text as it may stand in a message: what it says of itself can be anything."""
    harmless = "".join(letter if letter.isprintable() else "?" for letter in text[:80])
    return harmless if len(text) <= 80 else f"{harmless}..."


def objection(mine: Greeting, theirs: Greeting) -> HelloRefused | None:
    """What *I* have against talking to *them*: the refusal to send, or ``None``."""
    return (
        _versions(mine, theirs)
        or _clusters(mine, theirs)
        or _identities(mine, theirs)
        or _names(mine, theirs)
    )


def came_later(mine: Greeting, theirs: Greeting) -> bool:
    """Of two nodes with one name: whether I am the one that has to go. They say the opposite."""
    return (mine.started_ms, mine.identity) > (theirs.started_ms, theirs.identity)


def same_name_elsewhere(mine: Greeting, theirs: Greeting) -> bool:
    """Whether two nodes use one name."""
    return bool(mine.name) and mine.name == theirs.name and mine.address != theirs.address


def _versions(mine: Greeting, theirs: Greeting) -> HelloRefused | None:
    if theirs.version_min <= mine.version_max and mine.version_min <= theirs.version_max:
        return None
    return HelloRefused(
        f"{mine.who} speaks protocol versions {mine.version_min} to {mine.version_max}, "
        f"{theirs.who} speaks {theirs.version_min} to {theirs.version_max}: "
        "run releases of kvtwist that share a version",
        reason="version",
    )


def _clusters(mine: Greeting, theirs: Greeting) -> HelloRefused | None:
    if not mine.cluster_id or not theirs.cluster_id or mine.cluster_id == theirs.cluster_id:
        return None
    return HelloRefused(
        f"{mine.who} belongs to cluster {shown(mine.cluster_id[:8])}, "
        f"{theirs.who} to cluster {shown(theirs.cluster_id[:8])}: check --peers",
        reason="cluster",
    )


def _identities(mine: Greeting, theirs: Greeting) -> HelloRefused | None:
    if not theirs.expected_identity or theirs.expected_identity == mine.identity:
        return None
    return HelloRefused(
        f"{mine.who} has the identity {mine.identity[:8]}, "
        f"not {shown(theirs.expected_identity[:8])} that {theirs.who} expects there: "
        "another node has its address, or it has lost its data",
        reason="identity",
    )


def _names(mine: Greeting, theirs: Greeting) -> HelloRefused | None:
    if not same_name_elsewhere(mine, theirs):
        return None
    return HelloRefused(
        f"the name {mine.name} is already used by the node at {mine.address}: "
        f"start the node at {shown(theirs.address)} with another --id",
        reason="name",
    )

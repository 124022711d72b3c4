"""What is true of the whole group: what nobody in it can know, and everybody is held against.

The ledger only remembers. What must hold is in `tests.sim.invariants`.
"""

from __future__ import annotations

from kvtwist.core.raft import Configuration, Entry, EntryKind, Role
from tests.sim.disk import Disk, Image
from tests.sim.machine import Answer
from tests.sim.member import Member

Before = tuple[int, EntryKind, bytes]
"""The term of the entry before one, and that one's kind and data."""


class View:
    """What was seen of one member so far.

    :ivar number: of its latest Ready in this life.
    :ivar emitted_index: the last entry that it had when it took that.
    :ivar emitted_leading: the term that it led then; 0: it did not.
    :ivar handed_index: the last entry that it was given to apply, or has in a snapshot.
    :ivar configurations: those in its log, with their places; the first is where the log begins.
    :ivar match: in its present leadership, by replica.
    :ivar has_sent_entries: as a leader, since it was last looked at.
    :ivar is_silent: as a leader, it was quiescent.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.begin()

    def begin(self) -> None:
        """It has started."""
        member = self.member
        image, raft = member.disk.written, member.raft
        self.number = 0
        self.emitted_index = image.last_index
        self.emitted_leading = 0
        self.handed_index = member.machine.applied
        self.configurations = configurations_of(image)
        self.match: dict[int, int] = {}
        self.seen: tuple[object, ...] = ()
        self.term = raft.term if raft is not None else 0
        self.vote = raft.vote if raft is not None else 0
        self.commit = raft.commit_index if raft is not None else 0
        self.applied = member.machine.applied
        self.role = Role.FOLLOWER
        self.leading_term = 0
        self.has_sent_entries = False
        self.is_silent = False

    def take_entries(self, entries: tuple[Entry, ...]) -> None:
        """*entries* take the place of what it had from there on."""
        first = entries[0].index
        while self.configurations[-1][0] >= first:
            self.configurations.pop()
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                place = (entry.index, Configuration.decode(entry.data))
                self.configurations.append(place)


def configurations_of(image: Image) -> list[tuple[int, Configuration]]:
    """Those in a log, with their places; the first one is where it begins."""
    return [
        (image.compacted_index, image.configuration),
        *(
            (entry.index, Configuration.decode(entry.data))
            for entry in image.entries
            if entry.kind is EntryKind.CONFIGURATION
        ),
    ]


class Ledger:
    """What has happened in the group.

    :param configuration: that it begins with.
    :ivar views: of all members that there ever were.
    :ivar leaders: by term.
    :ivar leader_logs: by term: the term of each entry of its log, from index 0 on.
    :ivar committed: every entry that somebody knew to be committed; at 0 nothing.
    :ivar commit_terms: in which term each of them was committed.
    :ivar configurations: the committed ones, with their places.
    :ivar entries: by index and term, every entry that was in anybody's log.
    :ivar votes: by voter and term: whom for.
    :ivar answers: of the state machine, by index.
    :ivar digests: of the state machine, by index.
    :ivar asked: reads that were asked for, and what was committed then.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.views: dict[int, View] = {}
        self.leaders: dict[int, int] = {}
        self.leader_logs: dict[int, list[int]] = {}
        self.committed: list[Entry] = [Entry(0, 0, EntryKind.NOOP)]
        self.commit_terms = [0]
        self.configurations: list[tuple[int, Configuration]] = [(0, configuration)]
        self.entries: dict[tuple[int, int], Before] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.answers: dict[int, Answer | None] = {}
        self.digests: dict[int, bytes] = {}
        self.asked: dict[bytes, int] = {}

    @property
    def commit_index(self) -> int:
        """The last entry that anybody knows to be committed."""
        return len(self.committed) - 1

    @property
    def configuration(self) -> Configuration:
        """The latest that is committed."""
        return self.configurations[-1][1]

    def configuration_at(self, index: int) -> Configuration:
        """The one in force at a committed entry."""
        return next(each for place, each in reversed(self.configurations) if place <= index)

    def commit(self, entry: Entry, term: int) -> None:
        """The next entry is known to be committed: the leader of *term* has done it."""
        self.committed.append(entry)
        self.commit_terms.append(term)
        if entry.kind is EntryKind.CONFIGURATION:
            self.configurations.append((entry.index, Configuration.decode(entry.data)))

    def disk(self, replica: int) -> Disk | None:
        """The disk of *replica*, if there is such a one."""
        view = self.views.get(replica)
        return None if view is None else view.member.disk

    def agrees(self, image: Image, index: int, term: int) -> bool:
        """Whether a disk has everything up to *index* as the leader of *term* has it."""
        if index <= image.compacted_index:
            return index <= self.commit_index
        held, log = image.term_at(index), self.leader_logs.get(term)
        if held is None or log is None or index >= len(log):
            return False
        return held == log[index]


def holders(ledger: Ledger, voters: tuple[int, ...], entry: Entry) -> int:
    """On how many of the voters' disks *entry* is certain to survive."""
    count = 0
    for voter in voters:
        disk = ledger.disk(voter)
        if disk is None:
            continue
        image = disk.durable
        # What is compacted there was applied there: the checks of applying have seen to it.
        if entry.index <= image.compacted_index or image.term_at(entry.index) == entry.term:
            count += 1
    return count

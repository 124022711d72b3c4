"""The commands of a scenario; see the package for how a file looks.

======================================  ==========================================================
``group N [setting=value ...]``         N voters, 1 to N, on empty disks
``disk R [term= vote= commit=           R starts with this on its disk: entries of these terms, of
applied= terms=1,1,2]``                 which so many are applied
``new R``                               R starts on an empty disk, and knows of nobody
``chance R 0.5``                        what R draws for its election timers from now on
``tick N [R ...]``                      N ticks for these replicas; for all
``timeout R``                           R alone ticks, until it has something to say
``elect R``                             ``timeout R``, then ``settle``
``suspect R``                           R is told that its leader's node is silent
``propose R DATA ...``                  a user writes at R; ``x*100`` is a hundred of them
``read R NAME ...``                     users read at R, all in one turn
``change R add|promote|demote|remove R``  a change of the membership
``transfer R R``                        leadership is to be handed to another one
``deliver [WHICH]``                     the messages that are under way arrive
``drop [WHICH]``, ``repeat [WHICH]``    they do not; they do, and come once more later
``settle``                              deliver until there are none
``cut R->R ...``, ``heal``              nothing sent that way arrives; everything does again
``partition R R | R ...``               nothing gets from one side to another one
``hold R``                              R's writes wait
``persist R [N]``                       the first N of them are done, else all; acknowledged once
``release R``                           all of them are, and no more are held
``crash R ...``, ``restart R ...``      R forgets what it has not written; starts from its disk
``compact R [INDEX]``                   R drops its log up to there, else what it has applied
``snapshot R R``                        the snapshot that was wanted, of what is applied by now
``sent R R ok|failed``                  what became of it
``status [R ...]``, ``log R``           what R knows; its log, and how far it is on its disk
``wire``                                what is under way
``quietly COMMAND``                     without its trace: what other scenarios show
======================================  ==========================================================

WHICH is any of ``R->R`` (``*`` for any replica), the name of a kind of message, and ``#n`` for the
n-th of those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from kvtwist.core.raft import (
    AddLearner,
    Change,
    Configuration,
    Demote,
    Dropped,
    HardState,
    Message,
    Promote,
    Remove,
    Restored,
    Role,
    Settings,
)
from tests.core.raft.scenarios import trace
from tests.core.raft.scenarios.group import Group, restored

MESSAGES_MAX = 2000
"""That one ``settle`` delivers; more, and they never end."""

TICKS_MAX = 100

_CHANGES: dict[str, Callable[[int], Change]] = {
    "add": AddLearner,
    "promote": Promote,
    "demote": Demote,
    "remove": Remove,
}
_Command = Callable[["Scenario", list[str]], None]
_T = TypeVar("_T", bound=_Command)

COMMANDS: dict[str, _Command] = {}


def _command(act: _T) -> _T:
    COMMANDS[act.__name__.removeprefix("do_")] = act
    return act


class Scenario:
    """One run of one.

    :ivar said: the trace so far.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.group = Group(self.say)

    def say(self, line: str) -> None:
        """One more line of the trace."""
        self.said.append(line)

    def run(self, command: str) -> list[str]:
        """Do what it says; its trace."""
        word, *rest = command.split()
        if word == "quietly":
            self.run(" ".join(rest))
            return []
        self.said.clear()
        COMMANDS[word](self, rest)
        return list(self.said)

    # -- who there is -------------------------------------------------------------------------

    @_command
    def do_group(self, words: list[str]) -> None:
        given = dict(word.split("=") for word in words[1:])
        numbers: dict[str, Any] = {name: int(value) for name, value in given.items()}
        self.group.found(int(words[0]), replace(Settings(), **numbers))

    @_command
    def do_disk(self, words: list[str]) -> None:
        given = dict(word.split("=") for word in words[1:])
        term, vote, commit, applied = (
            int(given.get(name, 0)) for name in ("term", "vote", "commit", "applied")
        )
        terms = [int(each) for each in given.get("terms", "").split(",") if each]
        hard = HardState(term, vote, commit)
        self.group.add(int(words[0]), restored(self.group.first, hard, terms, applied))

    @_command
    def do_new(self, words: list[str]) -> None:
        self.group.add(int(words[0]), Restored(Configuration()))

    # -- time ---------------------------------------------------------------------------------

    @_command
    def do_chance(self, words: list[str]) -> None:
        self.group.nodes[int(words[0])].chance = float(words[1])

    @_command
    def do_tick(self, words: list[str]) -> None:
        self.group.tick([int(each) for each in words[1:]] or self.group.up(), int(words[0]))

    @_command
    def do_timeout(self, words: list[str]) -> None:
        replica = int(words[0])
        raft = self.group.raft(replica)
        for _ in range(TICKS_MAX):
            raft.tick()
            if raft.has_ready():
                break
        self.group.work(replica)

    @_command
    def do_elect(self, words: list[str]) -> None:
        self.do_timeout(words)
        self.do_settle([])
        assert self.group.raft(int(words[0])).role is Role.LEADER, "it was not elected"

    @_command
    def do_suspect(self, words: list[str]) -> None:
        self.group.raft(int(words[0])).suspect()
        self.group.work(int(words[0]))

    # -- what users want ----------------------------------------------------------------------

    @_command
    def do_propose(self, words: list[str]) -> None:
        replica = int(words[0])
        fate = self.group.propose(replica, [_data(word) for word in words[1:]])
        if isinstance(fate, Dropped):
            self._say_dropped(replica, fate)
        self.group.work(replica)

    @_command
    def do_read(self, words: list[str]) -> None:
        replica = int(words[0])
        for context in words[1:]:
            self._say_dropped(replica, self.group.raft(replica).read_index(context.encode()))
        self.group.work(replica)

    @_command
    def do_change(self, words: list[str]) -> None:
        replica = int(words[0])
        fate = self.group.raft(replica).propose_membership(_CHANGES[words[1]](int(words[2])))
        if isinstance(fate, Dropped):
            self._say_dropped(replica, fate)
        self.group.work(replica)

    @_command
    def do_transfer(self, words: list[str]) -> None:
        replica = int(words[0])
        self._say_dropped(replica, self.group.raft(replica).transfer_leadership(int(words[1])))
        self.group.work(replica)

    def _say_dropped(self, replica: int, fate: Dropped | None) -> None:
        if fate is not None:
            self.say(f"{replica} drops it: {fate.reason.value}; leader {fate.leader}")

    # -- messages -----------------------------------------------------------------------------

    @_command
    def do_deliver(self, words: list[str]) -> None:
        for message in self._taken(words):
            self.group.deliver(message)

    @_command
    def do_drop(self, words: list[str]) -> None:
        for message in self._taken(words):
            self.say(f"{trace.message(message)} (dropped)")

    @_command
    def do_repeat(self, words: list[str]) -> None:
        taken = self._taken(words)
        self.group.wire += taken
        for message in taken:
            self.group.deliver(message)

    @_command
    def do_settle(self, _: list[str]) -> None:
        for _count in range(MESSAGES_MAX):
            if not self.group.wire:
                return
            self.group.deliver(self.group.wire.pop(0))
        raise AssertionError("the messages never end")

    def _taken(self, words: list[str]) -> list[Message]:
        """The messages that are meant, off the wire."""
        found = list(self.group.wire)
        for word in words:
            if word.startswith("#"):
                found = [found[int(word[1:]) - 1]]
            elif "->" in word:
                ends = word.split("->")
                found = [
                    each
                    for each in found
                    if all(
                        end in ("*", str(replica))
                        for end, replica in zip(ends, (each.sender, each.to), strict=True)
                    )
                ]
            else:
                found = [each for each in found if type(each).__name__ == word]
        assert found, "there is no such message"
        for message in found:
            at = next(at for at, each in enumerate(self.group.wire) if each is message)
            del self.group.wire[at]
        return found

    @_command
    def do_cut(self, words: list[str]) -> None:
        for word in words:
            sender, to = map(int, word.split("->"))
            self.group.cuts.add((sender, to))

    @_command
    def do_partition(self, words: list[str]) -> None:
        sides = [set(map(int, side.split())) for side in " ".join(words).split("|")]
        self.group.cuts |= {
            (sender, to)
            for here in sides
            for there in sides
            if here is not there
            for sender in here
            for to in there
        }

    @_command
    def do_heal(self, _: list[str]) -> None:
        self.group.cuts.clear()

    # -- disks --------------------------------------------------------------------------------

    @_command
    def do_hold(self, words: list[str]) -> None:
        self.group.nodes[int(words[0])].is_held = True

    @_command
    def do_persist(self, words: list[str]) -> None:
        replica = int(words[0])
        writes = self.group.nodes[replica].writes
        self.group.persist(replica, int(words[1]) if words[1:] else len(writes))

    @_command
    def do_release(self, words: list[str]) -> None:
        node = self.group.nodes[int(words[0])]
        node.is_held = False
        if node.writes:
            self.group.persist(node.replica, len(node.writes))

    @_command
    def do_crash(self, words: list[str]) -> None:
        for word in words:
            self.group.crash(int(word))

    @_command
    def do_restart(self, words: list[str]) -> None:
        for word in words:
            self.group.nodes[int(word)].start()
            self.do_status([word])

    # -- compaction and snapshots -------------------------------------------------------------

    @_command
    def do_compact(self, words: list[str]) -> None:
        replica = int(words[0])
        raft = self.group.raft(replica)
        index = int(words[1]) if words[1:] else raft.applied_index
        self.group.nodes[replica].disk.compact(raft.describe(index))
        raft.compact(index)
        self.do_log(words[:1])

    @_command
    def do_snapshot(self, words: list[str]) -> None:
        replica, to = map(int, words)
        raft, disk = self.group.raft(replica), self.group.nodes[replica].disk
        raft.send_snapshot(to, raft.describe(raft.applied_index, b" ".join(disk.state)))
        self.group.work(replica)

    @_command
    def do_sent(self, words: list[str]) -> None:
        replica, to = map(int, words[:2])
        self.group.raft(replica).snapshot_sent(to, delivered=words[2] == "ok")
        self.group.work(replica)

    # -- to look at ---------------------------------------------------------------------------

    @_command
    def do_status(self, words: list[str]) -> None:
        for replica in [int(word) for word in words] or self.group.up():
            raft = self.group.raft(replica)
            quiescent = ", quiescent" if raft.is_quiescent else ""
            self.say(
                f"{replica} {raft.role.value} term {raft.term} vote {raft.vote}"
                f" leader {raft.leader} commit {raft.commit_index} applied {raft.applied_index}"
                f" last {raft.last_index}/{raft.log.last_term}"
                f" {trace.configuration(raft.configuration)}{quiescent}"
            )
            for other, progress in raft.progress().items():
                self.say(
                    f"    {other} {progress.sending.value} match {progress.match}"
                    f" next {progress.next}"
                )

    @_command
    def do_log(self, words: list[str]) -> None:
        replica = int(words[0])
        log = self.group.raft(replica).log
        row = log.entries(log.first_index, log.last_index)
        self.say(
            f"{replica} log {log.compacted_index}/{log.compacted_term} {trace.entries(row)}"
            f" commit {log.commit_index} durable {log.durable_index}"
        )

    @_command
    def do_wire(self, _: list[str]) -> None:
        for message in self.group.wire:
            self.say(trace.message(message))


def _data(word: str) -> bytes:
    text, _, times = word.partition("*")
    return text.encode() * int(times or 1)

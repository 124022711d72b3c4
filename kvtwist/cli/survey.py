"""Asks the nodes of a cluster, all at once, how they are.

A node that does not answer within `ASK_SECONDS` is silent, for the reason that is known; nothing
here is asked twice, so that a cluster that is down is seen as quickly as one that is well.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from kvtwist.client import Client
from kvtwist.client.table import Table
from kvtwist.core.address import Address
from kvtwist.core.description import Description
from kvtwist.core.health import Verdict, judge, judge_in_memory
from kvtwist.core.topology import Member
from kvtwist.errors import KvtwistError, Unavailable
from kvtwist.wire import commands
from kvtwist.wire.codec import Values
from kvtwist.wire.descriptions import read_descriptions

ASK_SECONDS = 1.0
IS_OPEN = "open"
_OF_ANOTHER = "it belongs to another cluster, or to none yet"


class Survey:
    """What the nodes have said.

    :ivar table: the topology; ``None``: nobody who was asked belongs to a cluster.
    :ivar answers: to `Status`, or why there is none, by the address that was asked.
    :ivar described: the replicas of each member that has told of them, by its name.
    """

    def __init__(self, client: Client) -> None:
        self.table: Table | None = None
        self.answers: dict[Address, Values | str] = {}
        self.described: dict[str, list[Description]] = {}
        self._client = client
        self._untold: dict[str, str] = {}

    # -- asking -------------------------------------------------------------------------------

    async def begin(self, addresses: Iterable[Address]) -> None:
        """Ask the nodes at *addresses*, and one of them for the topology.

        :raises Unavailable: when they belong to a cluster, and none of them tells of it.
        """
        await self._ask(addresses)
        founded = [
            address
            for address, answer in self.answers.items()
            if isinstance(answer, dict) and answer["cluster_id"]
        ]
        troubles = []
        for address in founded:
            try:
                ask = self._client.ask(address, commands.DescribeTopology, {}, ASK_SECONDS)
                self.table = Table.from_answer(await ask)
                return
            except KvtwistError as error:
                troubles.append(f"{address} ({_brief(error, address)})")
        if troubles:
            raise Unavailable(f"nobody tells who has what: {', '.join(troubles)}")

    async def go_on(self, members: Iterable[Member], first: int, count: int | None) -> None:
        """Ask those of *members* that were not asked yet, and each for its replicas.

        :param count: how many, from group *first* on; ``None``: all.
        """
        members = list(members)
        heard = self.by_name()
        await self._ask(
            member.address
            for member in members
            if member.name not in heard and member.address not in self.answers
        )
        where = {answer["name"]: address for address, answer in self._of_cluster().items()}
        asked = [
            Deferred.fromCoroutine(self._describe(member.name, where[member.name], first, count))
            for member in members
            if member.name in where
        ]
        await gatherResults(asked)

    async def _ask(self, addresses: Iterable[Address]) -> None:
        addresses = list(addresses)
        answers = [self._client.status(address).addErrback(_why, address) for address in addresses]
        told = await gatherResults(answers)
        self.answers.update(zip(addresses, told, strict=True))

    async def _describe(self, name: str, address: Address, first: int, count: int | None) -> None:
        """Ask one node; a page after the other, if it is all that is wanted."""
        assert self.table is not None
        members = [member.name for member in self.table.members]
        told: list[Description] = []
        try:
            while True:
                most = commands.DESCRIPTIONS_MAX if count is None else count - len(told)
                wanted = {"first": first, "count": most}
                ask = self._client.ask(address, commands.DescribeReplicas, wanted, ASK_SECONDS)
                answer = await ask
                told += read_descriptions(answer, members)
                following = answer["following"]
                if following <= first or (count is not None and len(told) >= count):
                    break
                first = following
        except KvtwistError as error:
            self._untold[name] = _brief(error, address)
        except ValueError as error:
            self._untold[name] = f"its answer cannot be read: {error}"
        else:
            self.described[name] = told

    # -- what was said --------------------------------------------------------------------------

    def _of_cluster(self) -> dict[Address, Values]:
        cluster_id = self.table.cluster_id if self.table else ""
        return {
            address: answer
            for address, answer in self.answers.items()
            if isinstance(answer, dict) and answer["cluster_id"] == cluster_id
        }

    def by_name(self) -> dict[str, Values]:
        """The members' answers. A node is who it says it is, at whichever of its addresses."""
        return {answer["name"]: answer for answer in self._of_cluster().values()}

    def silent(self) -> dict[str, str]:
        """The members that were asked and did not say what they were asked for: why."""
        assert self.table is not None
        heard = self.by_name()
        silent = dict(self._untold)
        for member in self.table.members:
            if member.name not in heard:
                answer = self.answers.get(member.address, "not asked")
                silent[member.name] = answer if isinstance(answer, str) else _OF_ANOTHER
        return silent

    def disks(self) -> dict[str, str]:
        """The members whose disk takes no writes: why."""
        return {
            name: answer["trouble"] or answer["condition"]
            for name, answer in self.by_name().items()
            if answer["condition"] not in (None, IS_OPEN)
        }

    def verdicts(self, partitions: Iterable[int]) -> list[Verdict]:
        """How these partitions are."""
        table, silent, disks, said = self.table, self.silent(), self.disks(), self._by_partition()
        assert table is not None
        verdicts = []
        for partition in partitions:
            row_of = tuple(member.name for member in table.replicas[partition])
            verdicts.append(
                judge(partition, row_of, said.get(partition, {}), silent, disks)
                if table.settings.durable
                else judge_in_memory(partition, row_of, silent)
            )
        return verdicts

    def verdict_of_meta(self) -> Verdict | None:
        """How the meta group is, as far as somebody has a replica of it."""
        said = self._by_partition().get(None, {})
        if self.table is None or not said:
            return None
        members = tuple(member.name for member in self.table.members)
        return judge(None, members, said, self.silent(), self.disks())

    def _by_partition(self) -> dict[int | None, dict[str, Description]]:
        """What each member says of its replica, by partition."""
        said: dict[int | None, dict[str, Description]] = {}
        for name, rows in self.described.items():
            for row in rows:
                said.setdefault(row.partition, {})[name] = row
        return said


def _why(failure: Failure, address: Address) -> str:
    error = failure.value
    if not isinstance(error, KvtwistError):
        failure.raiseException()
    return _brief(error, address)


def _brief(error: KvtwistError, address: Address) -> str:
    """Why a node did not answer, without saying again which."""
    said = str(error)
    for beginning in (f"{address} cannot be reached: ", f"{address}: "):
        said = said.removeprefix(beginning)
    return said

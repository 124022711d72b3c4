"""A client on Twisted's own AMP: the command classes are all it needs of kvtwist."""

from twisted.internet import defer, endpoints, task
from twisted.protocols import amp

from kvtwist.wire.commands import Get, Put


async def main(reactor):
    node = endpoints.clientFromString(reactor, "tcp:127.0.0.1:8001")
    protocol = await endpoints.connectProtocol(node, amp.AMP())
    await protocol.callRemote(Put, key=b"user:42", value=b"alice")
    answer = await protocol.callRemote(Get, key=b"user:42")
    print(answer["value"].decode())


task.react(lambda reactor: defer.ensureDeferred(main(reactor)))

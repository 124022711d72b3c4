"""A node inside a Twisted application of your own: ``twistd -n -y examples/embedded.tac``.

The node is an ordinary service. It shares the reactor with whatever else the application does; here
that is a web page which counts its visits in the store.
"""

from twisted.application import internet, service
from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred
from twisted.web import resource, server

from kvtwist.client import Client
from kvtwist.core.address import parse_address
from kvtwist.errors import KvtwistError
from kvtwist.service import Node, NodeConfig


class Visits(resource.Resource):
    """One page."""

    isLeaf = True

    def __init__(self, client):
        super().__init__()
        self.client = client

    def render_GET(self, request):
        """Count a visit."""
        Deferred.fromCoroutine(self.count(request))
        return server.NOT_DONE_YET

    async def count(self, request):
        """Read, add one, write only if nobody else has written in between."""
        try:
            record = await self.client.get("visits")
            visits = int(record.value) + 1 if record else 1
            version = record.version if record else 0
            await self.client.compare_and_set("visits", str(visits), version)
            request.write(b"visit %d\n" % visits)
        except KvtwistError as error:
            request.setResponseCode(503)
            request.write(str(error).encode() + b"\n")
        request.finish()


application = service.Application("visits")

node = Node(reactor, NodeConfig(name="node-1", listen=parse_address(":8001")))
node.setServiceParent(application)

page = server.Site(Visits(Client(reactor, ":8001")))
web = endpoints.serverFromString(reactor, "tcp:8080:interface=127.0.0.1")
internet.StreamServerEndpointService(web, page).setServiceParent(application)

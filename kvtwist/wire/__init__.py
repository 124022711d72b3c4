"""What crosses the network: AMP boxes, typed commands, errors, greetings and connections.

`kvtwist.wire.commands` is the protocol's documentation. Both ends share everything in here; what a
node *does* with a command stands in `kvtwist.node`, what a client does with an answer in
`kvtwist.client`.
"""

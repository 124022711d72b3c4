"""The shells: what a node does with the network, thin and in Twisted.

The rules that they follow stand in `kvtwist.core`, the words that they say in `kvtwist.wire`.
`kvtwist.service` puts them together.
"""

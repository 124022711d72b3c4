package main

import (
	"fmt"
	"net/rpc"
	"sort"
)

const tokensPerNode = 128

type token struct {
	position   uint32
	connection *rpc.Client
}

// rpcClient finds each key's node on a ring of its own, and keeps one connection to every node.
type rpcClient struct {
	ring []token
}

// dialRPC connects to nodes node-1, node-2, ... on the loopback ports given. Their tokens are those of
// kvtwist.core.ring.
func dialRPC(ports []string) (Client, error) {
	client := &rpcClient{}
	for number, port := range ports {
		connection, err := rpc.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return nil, err
		}
		for count := 0; count < tokensPerNode; count++ {
			label := fmt.Sprintf("node-%d#%d", number+1, count)
			client.ring = append(client.ring, token{murmur3([]byte(label)), connection})
		}
	}
	sort.Slice(client.ring, func(i, j int) bool {
		return client.ring[i].position < client.ring[j].position
	})
	return client, nil
}

func (client *rpcClient) put(key string, value []byte) error {
	var isNew bool
	return client.owner(key).Call("Store.Put", Pair{key, value}, &isNew)
}

func (client *rpcClient) get(key string) ([]byte, error) {
	var value []byte
	err := client.owner(key).Call("Store.Get", key, &value)
	return value, err
}

// owner is the node of the first token after the key's position, going round at the end.
func (client *rpcClient) owner(key string) *rpc.Client {
	position := murmur3([]byte(key))
	index := sort.Search(len(client.ring), func(i int) bool {
		return client.ring[i].position > position
	})
	return client.ring[index%len(client.ring)].connection
}

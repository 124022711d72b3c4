//go:build etcd

package main

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/clientv3"
)

const requestSecondsMax = 20

func init() {
	dials["etcd"] = func(ports []string) (Client, error) { return dialEtcd(endpoints(ports)) }
	dials["etcd-leader"] = dialEtcdLeader
}

// etcdClient is etcd's own client, one for all callers. What it reads is linearizable: its default.
type etcdClient struct {
	*clientv3.Client
}

func endpoints(ports []string) []string {
	var found []string
	for _, port := range ports {
		found = append(found, "127.0.0.1:"+port)
	}
	return found
}

// dialEtcd asks all members in turns.
func dialEtcd(endpoints []string) (Client, error) {
	config := clientv3.Config{Endpoints: endpoints, DialTimeout: requestSecondsMax * time.Second}
	client, err := clientv3.New(config)
	return etcdClient{client}, err
}

// dialEtcdLeader asks only the member that leads, which need not pass anything on.
func dialEtcdLeader(ports []string) (Client, error) {
	all := endpoints(ports)
	client, err := clientv3.New(clientv3.Config{Endpoints: all})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	end := time.Now().Add(requestSecondsMax * time.Second)
	for time.Now().Before(end) {
		for _, endpoint := range all {
			within, cancel := context.WithTimeout(context.Background(), time.Second)
			status, err := client.Status(within, endpoint)
			cancel()
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				return dialEtcd([]string{endpoint})
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, errors.New("etcd has no leader")
}

func (client etcdClient) put(key string, value []byte) error {
	within, cancel := context.WithTimeout(context.Background(), requestSecondsMax*time.Second)
	defer cancel()
	_, err := client.Client.Put(within, key, string(value))
	return err
}

func (client etcdClient) get(key string) ([]byte, error) {
	within, cancel := context.WithTimeout(context.Background(), requestSecondsMax*time.Second)
	defer cancel()
	answer, err := client.Client.Get(within, key)
	if err != nil || len(answer.Kvs) == 0 {
		return nil, err
	}
	return answer.Kvs[0].Value, nil
}

package main

import "sync"

// Pair is what Put takes.
type Pair struct {
	Key   string
	Value []byte
}

// Store is a map that many connections may use at once.
type Store struct {
	mutex  sync.RWMutex
	values map[string][]byte
}

func newStore() *Store {
	return &Store{values: make(map[string][]byte)}
}

// Put writes one key. The answer, whether the key was new, is there because net/rpc wants one.
func (store *Store) Put(pair Pair, isNew *bool) error {
	store.mutex.Lock()
	defer store.mutex.Unlock()
	_, found := store.values[pair.Key]
	store.values[pair.Key] = pair.Value
	*isNew = !found
	return nil
}

// Get reads one key; a missing one has no bytes.
func (store *Store) Get(key string, value *[]byte) error {
	store.mutex.RLock()
	defer store.mutex.RUnlock()
	*value = store.values[key]
	return nil
}

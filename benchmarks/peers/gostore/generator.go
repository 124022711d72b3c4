package main

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Sample is what one measurement saw; benchmarks/_workload.py says what its fields mean.
type Sample struct {
	Operations int64   `json:"operations"`
	Seconds    float64 `json:"seconds"`
	Failed     int64   `json:"failed"`
	Error      string  `json:"error"`
}

// Generator puts a store under load.
type Generator struct {
	client *Client
	keys   []string
	next   uint64 // index of the next key, for all measurements but fill; grows for ever
}

func newGenerator(client *Client, keys []string) *Generator {
	return &Generator{client: client, keys: keys}
}

// answer makes the measurement that is asked for.
func (generator *Generator) answer(
	operation string, value []byte, inFlight int, seconds float64,
) (Sample, error) {
	put := func(key string) error { return generator.client.put(key, value) }
	get := func(key string) error { _, err := generator.client.get(key); return err }
	switch operation {
	case "fill":
		return generator.fill(put, value, inFlight, seconds)
	case "put":
		return measure(put, generator.endless, inFlight, seconds), nil
	case "get":
		return measure(get, generator.endless, inFlight, seconds), nil
	}
	return Sample{}, errors.New("unknown operation " + operation)
}

// fill puts every key once, and sees that a value comes back as it was put.
func (generator *Generator) fill(
	put func(string) error, value []byte, inFlight int, seconds float64,
) (Sample, error) {
	var next uint64
	once := func() (string, bool) {
		index := atomic.AddUint64(&next, 1) - 1
		if index >= uint64(len(generator.keys)) {
			return "", false
		}
		return generator.keys[index], true
	}
	sample := measure(put, once, inFlight, seconds)
	got, err := generator.client.get(generator.keys[0])
	if err == nil && sample.Failed == 0 && !bytes.Equal(got, value) {
		err = errors.New("what was put is not what was got")
	}
	return sample, err
}

// endless draws the next key, the first one again after the last.
func (generator *Generator) endless() (string, bool) {
	index := atomic.AddUint64(&generator.next, 1) - 1
	return generator.keys[index%uint64(len(generator.keys))], true
}

// measure makes calls, inFlight of them at any time, until the keys or the time run out.
func measure(
	call func(string) error, draw func() (string, bool), inFlight int, seconds float64,
) Sample {
	var sample Sample
	var mutex sync.Mutex
	var workers sync.WaitGroup
	started := time.Now()
	end := started.Add(time.Duration(seconds * float64(time.Second)))
	for count := 0; count < inFlight; count++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			done, failed, trouble := work(call, draw, end)
			mutex.Lock()
			defer mutex.Unlock()
			sample.Operations += done
			sample.Failed += failed
			if trouble != "" {
				sample.Error = trouble
			}
		}()
	}
	workers.Wait()
	sample.Seconds = time.Since(started).Seconds()
	return sample
}

// work is one of the callers.
func work(
	call func(string) error, draw func() (string, bool), end time.Time,
) (done, failed int64, trouble string) {
	for {
		key, left := draw()
		if !left || !time.Now().Before(end) {
			return done, failed, trouble
		}
		if err := call(key); err != nil {
			failed++
			trouble = err.Error()
			continue
		}
		done++
	}
}

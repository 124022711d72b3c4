package main

import (
	"bytes"
	"errors"
	"sort"
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
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
}

// Generator puts a store under load.
type Generator struct {
	client Client
	keys   []string
	next   uint64 // index of the next key, for all measurements but fill; grows for ever
}

func newGenerator(client Client, keys []string) *Generator {
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
	var latencies []time.Duration
	started := time.Now()
	end := started.Add(time.Duration(seconds * float64(time.Second)))
	for count := 0; count < inFlight; count++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			took, failed, trouble := work(call, draw, end)
			mutex.Lock()
			defer mutex.Unlock()
			latencies = append(latencies, took...)
			sample.Failed += failed
			if trouble != "" {
				sample.Error = trouble
			}
		}()
	}
	workers.Wait()
	sample.Seconds = time.Since(started).Seconds()
	sample.Operations = int64(len(latencies))
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	sample.P50, sample.P99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
	return sample
}

// quantile is how long that share of calls took at most, in ms; 0 if there are none.
func quantile(latencies []time.Duration, share float64) float64 {
	if len(latencies) == 0 {
		return 0
	}
	index := int(float64(len(latencies)) * share)
	return float64(latencies[index].Microseconds()) / 1000
}

// work is one of the callers; how long each call took that went well.
func work(
	call func(string) error, draw func() (string, bool), end time.Time,
) (took []time.Duration, failed int64, trouble string) {
	for {
		key, left := draw()
		begun := time.Now()
		if !left || !begun.Before(end) {
			return took, failed, trouble
		}
		if err := call(key); err != nil {
			failed++
			trouble = err.Error()
			continue
		}
		took = append(took, time.Since(begun))
	}
}

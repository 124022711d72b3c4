// Command gostore is a key-value store on Go's net/rpc, and a load generator for it; built with
// "-tags etcd" it is one for etcd too.
//
//	gostore serve PORT
//	gostore load (rpc | etcd | etcd-leader) KEYS_FILE PORT...
//
// The generator reads lines "OPERATION VALUE_BYTES IN_FLIGHT SECONDS" and answers each with a line
// of JSON, as benchmarks/_load.py does for Python. "fill" puts every key once.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/rpc"
	"os"
	"strings"
)

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		log.Fatal(serve(os.Args[2]))
	case len(os.Args) > 4 && os.Args[1] == "load" && dials[os.Args[2]] != nil:
		if err := load(dials[os.Args[2]], os.Args[3], os.Args[4:]); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatal("usage: gostore serve PORT | gostore load KIND KEYS_FILE PORT...")
	}
}

// Client is what is put under load.
type Client interface {
	put(key string, value []byte) error
	get(key string) ([]byte, error)
}

// Dial connects to servers on the loopback ports given.
type Dial func(ports []string) (Client, error)

// dials has each kind of client that was built in.
var dials = map[string]Dial{"rpc": dialRPC}

// serve answers calls until the process is ended.
func serve(port string) error {
	if err := rpc.RegisterName("Store", newStore()); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	rpc.Accept(listener)
	return nil
}

// load answers questions until nobody asks any more.
func load(dial Dial, keysFile string, ports []string) error {
	content, err := os.ReadFile(keysFile)
	if err != nil {
		return err
	}
	client, err := dial(ports)
	if err != nil {
		return err
	}
	generator := newGenerator(client, strings.Fields(string(content)))
	answers := json.NewEncoder(os.Stdout)
	questions := bufio.NewScanner(os.Stdin)
	for questions.Scan() {
		var operation string
		var valueBytes, inFlight int
		var seconds float64
		_, err := fmt.Sscan(questions.Text(), &operation, &valueBytes, &inFlight, &seconds)
		if err != nil {
			return err
		}
		value := bytes.Repeat([]byte("v"), valueBytes)
		sample, err := generator.answer(operation, value, inFlight, seconds)
		if err != nil {
			return err
		}
		if err := answers.Encode(sample); err != nil {
			return err
		}
	}
	return questions.Err()
}

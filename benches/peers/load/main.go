// Command load runs one workload against one system, and prints what it found as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// The systems, each of which is told how to be reached: HOST:PORT, or a URL.
var peers = map[string]func(target, mode string) (peer, error){
	"redis":           openRedis,
	"nats":            openNats,
	"kafka":           openKafka,
	"rabbitmq":        openRabbit,
	"rabbitmq-stream": openRabbitStream,
	"pgmq":            openPgmq,
}

// plan is what is asked for.
type plan struct {
	workload  string
	topic     string
	size      int
	seconds   float64
	messages  uint64
	rate      float64
	serverPid int
	// tried is a shape that takes the place of the peer's own.
	tried string
}

func main() {
	var asked plan
	name := flag.String("peer", "", "the system")
	target := flag.String("target", "", "where it listens")
	mode := flag.String("mode", "", "how to use it, where there is a choice")
	flag.StringVar(&asked.workload, "workload", "", "unary, pipelined, batched, catch-up, both or latency")
	flag.StringVar(&asked.topic, "topic", "bench", "a topic that is not there yet")
	flag.IntVar(&asked.size, "size", 100, "bytes of a payload, from 32")
	flag.Float64Var(&asked.seconds, "seconds", 5, "how long to publish, and how long to read at the most")
	flag.Uint64Var(&asked.messages, "messages", 0, "the most messages to publish before catching up; 0 for any number")
	flag.Float64Var(&asked.rate, "rate", 5000, "messages a second, when latency is measured")
	flag.IntVar(&asked.serverPid, "server-pid", 0, "the process whose CPU time, and its children's, to tell")
	flag.StringVar(&asked.tried, "shape", "", "PUBLISHERSxBATCHxIN_FLIGHT, to try others than the peer's own")
	flag.Parse()
	if err := measure(*name, *target, *mode, asked); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func measure(name, target, mode string, asked plan) error {
	open, known := peers[name]
	if !known {
		return fmt.Errorf("there is no peer %q", name)
	}
	if asked.size < 32 {
		return errors.New("a payload has 32 bytes at the least")
	}
	// Whatever hangs, the run ends.
	bound := time.Duration((4*asked.seconds + 60) * float64(time.Second))
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()

	system, err := open(target, mode)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer system.close()
	if err := system.create(ctx, asked.topic); err != nil {
		return fmt.Errorf("create the topic: %w", err)
	}
	found, err := asked.run(ctx, system)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

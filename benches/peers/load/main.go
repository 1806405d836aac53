// Command load runs one workload against one system, and prints the results as JSON.
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

// peers opens each system by its name. The target is HOST:PORT or a URL.
var peers = map[string]func(target, mode string) (peer, error){
	"redis":           openRedis,
	"nats":            openNats,
	"kafka":           openKafka,
	"rabbitmq":        openRabbit,
	"rabbitmq-stream": openRabbitStream,
	"pgmq":            openPgmq,
}

// plan is the workload to run.
type plan struct {
	workload  string
	topic     string
	size      int
	seconds   float64
	messages  uint64
	rate      float64
	serverPid int
	// tried, if not empty, replaces the peer's own shape.
	tried string
}

func main() {
	var asked plan
	name := flag.String("peer", "", "the system")
	target := flag.String("target", "", "its address")
	mode := flag.String("mode", "", "how to use the system, where there is a choice")
	flag.StringVar(&asked.workload, "workload", "", "unary, pipelined, batched, catch-up, both or latency")
	flag.StringVar(&asked.topic, "topic", "bench", "a topic that does not exist yet")
	flag.IntVar(&asked.size, "size", 100, "the size of a payload in bytes, at least 32")
	flag.Float64Var(&asked.seconds, "seconds", 5, "how long to publish, and the longest time to read")
	flag.Uint64Var(&asked.messages, "messages", 0, "the most messages to publish before catching up; 0 for no limit")
	flag.Float64Var(&asked.rate, "rate", 5000, "messages per second in the latency workload")
	flag.IntVar(&asked.serverPid, "server-pid", 0, "the process whose CPU time to report, with its children's")
	flag.StringVar(&asked.tried, "shape", "", "PUBLISHERSxBATCHxIN_FLIGHT, instead of the peer's own shape")
	flag.Parse()
	if err := measure(*name, *target, *mode, asked); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func measure(name, target, mode string, asked plan) error {
	open, known := peers[name]
	if !known {
		return fmt.Errorf("unknown peer %q", name)
	}
	if asked.size < 32 {
		return errors.New("a payload must have at least 32 bytes")
	}
	// Ends the run even if something hangs.
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

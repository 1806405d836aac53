package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// peer is a system under test, used through its own client.
type peer interface {
	// create creates a topic and, where the system needs one, a consumer's position at its start.
	create(ctx context.Context, topic string) error
	// shape returns the shape of load with which the system publishes best.
	shape(workload string) shape
	// publisher opens one of the publishers of the shape; they are numbered from 0.
	publisher(ctx context.Context, topic, workload string, number int) (publisher, error)
	// consume passes stored and new messages to got until ctx ends. Its position outlives the
	// consumer; the last one is stored before consume returns.
	consume(ctx context.Context, topic string, got func(payload []byte)) error
	close()
}

// publisher publishes for one caller at a time.
type publisher interface {
	// send publishes. It calls done once, from any goroutine, when all payloads are acknowledged or
	// one failed.
	send(ctx context.Context, payloads [][]byte, done func(error))
	close() error
}

// flusher is a publisher that holds acknowledgements back until it knows that nothing more follows.
type flusher interface {
	flush(ctx context.Context) error
}

// shape is how a load is spread: over how many publishers, in sends of how many messages, and with
// how many sends in flight.
type shape struct {
	publishers int
	batch      int
	inFlight   int
	// parallel gives each send a goroutine, for clients whose send waits for the answer.
	parallel bool
}

// asynchronousShape is the shape for clients whose acknowledgements come later. batched is how the
// system publishes batches best.
func asynchronousShape(workload string, batched shape) shape {
	switch workload {
	case "unary":
		return shape{publishers: 256, batch: 1, inFlight: 1}
	case "pipelined":
		return shape{publishers: 64, batch: 1, inFlight: 256}
	case "latency":
		return shape{publishers: 1, batch: 1, inFlight: 256}
	}
	return batched
}

// synchronousShape is the shape for clients whose send waits for the answer, and which pipeline the
// payloads of one send. batched is how the system publishes batches best.
func synchronousShape(workload string, batched shape) shape {
	switch workload {
	case "unary":
		return shape{publishers: 256, batch: 1, inFlight: 1}
	case "pipelined":
		return shape{publishers: 64, batch: 256, inFlight: 1}
	case "latency":
		return shape{publishers: 1, batch: 1, inFlight: 256, parallel: true}
	}
	return batched
}

// result has the field names of `trunkline bench`.
type result struct {
	Published *published `json:"published,omitempty"`
	Consumed  *consumed  `json:"consumed,omitempty"`
	// ServerCPU is the server's CPU seconds while the workload was measured.
	ServerCPU float64 `json:"server_cpu_seconds,omitempty"`
}

func (p plan) run(ctx context.Context, system peer) (*result, error) {
	switch p.workload {
	case "unary", "pipelined", "batched":
		return p.publish(ctx, system)
	case "catch-up":
		return p.catchUp(ctx, system)
	case "both", "latency":
		return p.both(ctx, system)
	}
	return nil, fmt.Errorf("unknown workload %q", p.workload)
}

func (p plan) publish(ctx context.Context, system peer) (*result, error) {
	meter, err := newMeter(p.serverPid)
	if err != nil {
		return nil, err
	}
	stored, err := p.publishAll(ctx, system, p.workload)
	if err != nil {
		return nil, err
	}
	cpu, err := meter.read()
	return &result{Published: stored, ServerCPU: cpu}, err
}

// catchUp publishes first, and then measures how fast the messages are read.
func (p plan) catchUp(ctx context.Context, system peer) (*result, error) {
	stored, err := p.publishAll(ctx, system, "batched")
	if err != nil {
		return nil, err
	}
	meter, err := newMeter(p.serverPid)
	if err != nil {
		return nil, err
	}
	reading := startReading(ctx, system, p.topic, false)
	received, err := reading.until(stored.Messages, p.duration())
	if err != nil {
		return nil, err
	}
	cpu, err := meter.read()
	return &result{Published: stored, Consumed: received, ServerCPU: cpu}, err
}

// both publishes while a consumer reads.
func (p plan) both(ctx context.Context, system peer) (*result, error) {
	meter, err := newMeter(p.serverPid)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reading := startReading(ctx, system, p.topic, true)
	go func() {
		if err := reading.failure(); err != nil {
			cancel(err)
		}
	}()
	stored, err := p.publishAll(ctx, system, p.workload)
	if err != nil {
		return nil, err
	}
	received, err := reading.until(stored.Messages, p.duration())
	if err != nil {
		return nil, err
	}
	cpu, err := meter.read()
	return &result{Published: stored, Consumed: received, ServerCPU: cpu}, err
}

func (p plan) duration() time.Duration {
	return time.Duration(p.seconds * float64(time.Second))
}

// consumed is what was read.
type consumed struct {
	Messages  uint64             `json:"messages"`
	Seconds   float64            `json:"seconds"`
	Rate      float64            `json:"messages_per_second"`
	Complete  bool               `json:"complete"`
	Delivered map[string]float64 `json:"delivered_ms,omitempty"`
}

// reading is a running consumer.
type reading struct {
	began    time.Time
	messages atomic.Uint64
	// last is when the last message came, in nanoseconds after the reading began.
	last      atomic.Int64
	delivered *times
	stop      context.CancelFunc
	ended     chan struct{}
	err       error
}

func startReading(ctx context.Context, system peer, topic string, aged bool) *reading {
	ctx, stop := context.WithCancel(ctx)
	r := &reading{began: time.Now(), delivered: newTimes(), stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = system.consume(ctx, topic, func(payload []byte) {
			r.last.Store(int64(time.Since(r.began)))
			r.messages.Add(1)
			if !aged {
				return
			}
			if elapsed, known := age(payload); known {
				r.delivered.add(elapsed, 1)
			}
		})
	}()
	return r
}

// failure waits for the end of the reading and returns its error.
func (r *reading) failure() error {
	<-r.ended
	return r.err
}

// until waits for this many messages in total, but no longer than atMost, and ends the reading.
func (r *reading) until(messages uint64, atMost time.Duration) (*consumed, error) {
	const interval = 2 * time.Millisecond
	deadline := time.Now().Add(atMost)
	for r.messages.Load() < messages && time.Now().Before(deadline) {
		select {
		case <-r.ended:
			return nil, errors.Join(errors.New("the consumer ended early"), r.err)
		case <-time.After(interval):
		}
	}
	received, took := r.messages.Load(), time.Duration(r.last.Load()).Seconds()
	r.stop()
	if err := r.failure(); err != nil {
		return nil, fmt.Errorf("consume: %w", err)
	}
	if received == 0 {
		return nil, errors.New("no message was delivered")
	}
	return &consumed{
		Messages: received, Seconds: took, Rate: float64(received) / took,
		Complete: received >= messages, Delivered: r.delivered.milliseconds(),
	}, nil
}

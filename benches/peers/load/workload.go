package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// peer is a system that is measured, by its own client.
type peer interface {
	// create makes a topic, and a consumer's position at its beginning where one has to be made.
	create(ctx context.Context, topic string) error
	// shape tells by how many and in what portions the system is published to best.
	shape(workload string) shape
	// publisher opens publisher number of those that the shape asks for.
	publisher(ctx context.Context, topic, workload string, number int) (publisher, error)
	// consume hands out what is there and what comes until ctx ends, with a position that outlives
	// the consumer, and stores the last position before it returns.
	consume(ctx context.Context, topic string, got func(payload []byte)) error
	close()
}

// publisher publishes for one caller at a time.
type publisher interface {
	// send publishes. It calls done once, from wherever, when all is acknowledged or something failed.
	send(ctx context.Context, payloads [][]byte, done func(error))
	close() error
}

// flusher is a publisher that holds acknowledgements back until it is told that nothing more comes.
type flusher interface {
	flush(ctx context.Context) error
}

// shape is how a system is published to.
type shape struct {
	publishers int
	batch      int
	inFlight   int
	// parallel is for clients whose send waits for the answer: each gets a goroutine.
	parallel bool
}

// result has the field names of `trunkline bench`.
type result struct {
	Published *published `json:"published,omitempty"`
	Consumed  *consumed  `json:"consumed,omitempty"`
	// CPU seconds of the server, while the workload was measured.
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
	return nil, fmt.Errorf("there is no workload %q", p.workload)
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

// catchUp publishes first, and then measures how fast all of it is read.
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
	had, err := reading.until(stored.Messages, p.duration())
	if err != nil {
		return nil, err
	}
	cpu, err := meter.read()
	return &result{Published: stored, Consumed: had, ServerCPU: cpu}, err
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
	had, err := reading.until(stored.Messages, p.duration())
	if err != nil {
		return nil, err
	}
	cpu, err := meter.read()
	return &result{Published: stored, Consumed: had, ServerCPU: cpu}, err
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

// reading is a consumer at work.
type reading struct {
	began    time.Time
	messages atomic.Uint64
	// last is when the last message came, from when the reading began.
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
			if old, told := age(payload); told {
				r.delivered.add(old, 1)
			}
		})
	}()
	return r
}

// failure waits for the end of the reading.
func (r *reading) failure() error {
	<-r.ended
	return r.err
}

// until waits for so many messages in all, for so long at the most, and ends the reading.
func (r *reading) until(messages uint64, atMost time.Duration) (*consumed, error) {
	const look = 2 * time.Millisecond
	deadline := time.Now().Add(atMost)
	for r.messages.Load() < messages && time.Now().Before(deadline) {
		select {
		case <-r.ended:
			return nil, errors.Join(errors.New("the consumer ended early"), r.err)
		case <-time.After(look):
		}
	}
	had, took := r.messages.Load(), time.Duration(r.last.Load()).Seconds()
	r.stop()
	if err := r.failure(); err != nil {
		return nil, fmt.Errorf("consume: %w", err)
	}
	if had == 0 {
		return nil, errors.New("no message was delivered")
	}
	return &consumed{
		Messages: had, Seconds: took, Rate: float64(had) / took,
		Complete: had >= messages, Delivered: r.delivered.milliseconds(),
	}, nil
}

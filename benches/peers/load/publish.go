package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// published is what was published and acknowledged.
type published struct {
	Messages     uint64             `json:"messages"`
	Seconds      float64            `json:"seconds"`
	Rate         float64            `json:"messages_per_second"`
	Acknowledged map[string]float64 `json:"acknowledged_ms"`
}

// publishing is the state that all publishers of a run share.
type publishing struct {
	plan
	shape
	began time.Time
	ends  time.Time
	taken atomic.Uint64
	acked atomic.Uint64
	fail  context.CancelCauseFunc
}

// publishAll publishes until the time is up and everything is acknowledged.
func (p plan) publishAll(ctx context.Context, system peer, workload string) (*published, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	run := &publishing{plan: p, shape: system.shape(workload), fail: fail}
	if p.tried != "" {
		if _, err := fmt.Sscanf(p.tried, "%dx%dx%d", &run.publishers, &run.batch, &run.inFlight); err != nil {
			return nil, fmt.Errorf("the shape %q: %w", p.tried, err)
		}
	}
	publishers := make([]publisher, run.publishers)
	for number := range publishers {
		opened, err := system.publisher(ctx, p.topic, workload, number)
		if err != nil {
			return nil, fmt.Errorf("open a publisher: %w", err)
		}
		publishers[number] = opened
	}
	run.began = time.Now()
	run.ends = run.began.Add(p.duration())
	// Publishers share histograms, because hundreds of them would take a lot of memory.
	acknowledged := make([]*times, min(run.publishers, 16))
	for i := range acknowledged {
		acknowledged[i] = newTimes()
	}
	var all sync.WaitGroup
	for number, one := range publishers {
		all.Go(func() { run.publish(ctx, one, acknowledged[number%len(acknowledged)]) })
	}
	all.Wait()
	took := time.Since(run.began).Seconds()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	for _, one := range publishers {
		if err := one.close(); err != nil {
			return nil, fmt.Errorf("close a publisher: %w", err)
		}
	}
	for _, others := range acknowledged[1:] {
		acknowledged[0].addAll(others)
	}
	messages := run.acked.Load()
	return &published{
		Messages: messages, Seconds: took, Rate: float64(messages) / took,
		Acknowledged: acknowledged[0].milliseconds(),
	}, nil
}

// publish runs one publisher, with up to inFlight sends at a time.
func (p *publishing) publish(ctx context.Context, to publisher, acknowledged *times) {
	slots := make(chan struct{}, p.inFlight)
	for {
		first, due, more := p.take(ctx)
		if !more {
			break
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if p.workload != "latency" {
			due = time.Since(beginning)
		}
		made := payloads(first, p.batch, p.size, due)
		done := func(err error) {
			if err != nil {
				p.fail(err)
			} else {
				acknowledged.add(time.Since(beginning)-due, p.batch)
				p.acked.Add(uint64(p.batch))
			}
			<-slots
		}
		if p.parallel && p.inFlight > 1 {
			go to.send(ctx, made, done)
		} else {
			to.send(ctx, made, done)
		}
	}
	if held, ok := to.(flusher); ok && ctx.Err() == nil {
		if err := held.flush(ctx); err != nil {
			p.fail(err)
		}
	}
	// All slots are free once everything is acknowledged.
	for range p.inFlight {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// take waits until the next message is due, and returns its number and due time; false at the end.
func (p *publishing) take(ctx context.Context) (uint64, time.Duration, bool) {
	if ctx.Err() != nil || !time.Now().Before(p.ends) {
		return 0, 0, false
	}
	first := p.taken.Add(uint64(p.batch)) - uint64(p.batch)
	if p.messages > 0 && first+uint64(p.batch) > p.messages {
		return 0, 0, false
	}
	if p.workload != "latency" {
		return first, 0, true
	}
	due := p.began.Add(time.Duration(float64(first) / p.rate * float64(time.Second)))
	if !due.Before(p.ends) {
		return 0, 0, false
	}
	sleepUntil(due)
	return first, due.Sub(beginning), true
}

// sleepUntil lets the operating system wake the thread, as `trunkline bench` does: the Go runtime's
// timers may be late by as much as an acknowledgement takes.
func sleepUntil(due time.Time) {
	for left := time.Until(due); left > 0; left = time.Until(due) {
		wait := syscall.NsecToTimespec(left.Nanoseconds())
		// If a signal interrupts the sleep, the loop sleeps again.
		_ = syscall.Nanosleep(&wait, nil)
	}
}

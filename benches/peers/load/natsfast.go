package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// The server acknowledges every natsFlow messages; natsFlows such portions may be unacknowledged.
const natsFlow, natsFlows = 1_000, 8

// natsFast publishes into one endless batch, which the server acknowledges in portions.
type natsFast struct {
	js    jetstream.JetStream
	topic string
	fast  jetstreamext.FastPublisher

	mutex   sync.Mutex
	sent    uint64
	waiting []natsPortion
	failed  error
}

type natsPortion struct {
	until uint64
	done  func(error)
}

func newNatsFast(js jetstream.JetStream, topic string) (*natsFast, error) {
	n := &natsFast{js: js, topic: topic}
	fast, err := jetstreamext.NewFastPublisher(js,
		jetstreamext.FastPublishFlowControl{Flow: natsFlow, MaxOutstandingAcks: natsFlows, AckTimeout: natsPatience},
		jetstreamext.WithFastPublisherErrorHandler(func(err error) { go n.answer(0, err) }))
	n.fast = fast
	return n, err
}

func (n *natsFast) send(_ context.Context, payloads [][]byte, done func(error)) {
	n.mutex.Lock()
	n.sent += uint64(len(payloads))
	n.waiting = append(n.waiting, natsPortion{n.sent, done})
	n.mutex.Unlock()
	for _, payload := range payloads {
		ack, err := n.fast.Add(n.topic, payload)
		if err != nil {
			n.answer(0, err)
			return
		}
		n.answer(ack.AckSequence, nil)
	}
}

// answer completes the portions that are acknowledged, or, after an error, all of them.
func (n *natsFast) answer(until uint64, err error) {
	n.mutex.Lock()
	var completed []natsPortion
	for len(n.waiting) > 0 && (err != nil || n.waiting[0].until <= until) {
		completed = append(completed, n.waiting[0])
		n.waiting = n.waiting[1:]
	}
	n.mutex.Unlock()
	for _, portion := range completed {
		portion.done(err)
	}
}

// flush ends the batch, so that the server acknowledges the rest.
func (n *natsFast) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, natsPatience)
	defer cancel()
	ack, err := n.fast.Close(ctx)
	if err != nil {
		return fmt.Errorf("end the batch: %w", err)
	}
	n.answer(ack.BatchSize, nil)
	return nil
}

func (n *natsFast) close() error {
	n.js.Conn().Close()
	return nil
}

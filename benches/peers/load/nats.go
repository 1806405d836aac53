package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const natsConsumer = "consumer"

// natsPatience is how long to wait for an acknowledgement.
const natsPatience = 30 * time.Second

type natsPeer struct {
	target string
	// mode is how batches are published: async, atomic or fast.
	mode string
	// connections are shared by the unary callers.
	connections []*nats.Conn
}

func openNats(target, mode string) (peer, error) {
	n := &natsPeer{target: target, mode: mode}
	for range 4 {
		connection, err := nats.Connect("nats://" + target)
		if err != nil {
			n.close()
			return nil, err
		}
		n.connections = append(n.connections, connection)
	}
	return n, nil
}

func (n *natsPeer) close() {
	for _, connection := range n.connections {
		connection.Close()
	}
}

func (n *natsPeer) create(ctx context.Context, topic string) error {
	js, err := jetstream.New(n.connections[0])
	if err != nil {
		return err
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: topic, Subjects: []string{topic}, Storage: jetstream.FileStorage, Replicas: 1,
		AllowAtomicPublish: n.mode == "atomic", AllowBatchPublish: n.mode == "fast",
	})
	if err != nil {
		return err
	}
	_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: natsConsumer,
		// One acknowledgement covers all messages before it, which is the least work.
		AckPolicy: jetstream.AckAllPolicy, MaxAckPending: -1,
	})
	return err
}

func (n *natsPeer) shape(workload string) shape {
	batched := shape{publishers: 4, batch: 100, inFlight: 20}
	switch n.mode {
	case "atomic":
		batched = shape{publishers: 8, batch: 1_000, inFlight: 1}
	case "fast":
		// The client limits itself, and receives acknowledgements only while it sends.
		batched = shape{publishers: 4, batch: 1_000, inFlight: 1_000}
	}
	return asynchronousShape(workload, batched)
}

func (n *natsPeer) publisher(_ context.Context, topic, workload string, number int) (publisher, error) {
	if workload == "unary" {
		js, err := jetstream.New(n.connections[number%len(n.connections)])
		return &natsCaller{js: js, topic: topic}, err
	}
	connection, err := nats.Connect("nats://" + n.target)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(connection, jetstream.WithDefaultTimeout(natsPatience),
		jetstream.WithPublishAsyncMaxPending(1_000_000), jetstream.WithPublishAsyncTimeout(natsPatience))
	if err != nil {
		return nil, err
	}
	batches := workload == "batched" || workload == "both"
	switch {
	case batches && n.mode == "atomic":
		return &natsAtomic{js: js, topic: topic}, nil
	case batches && n.mode == "fast":
		return newNatsFast(js, topic)
	}
	return newNatsAsync(js, topic), nil
}

// natsCaller waits for each acknowledgement.
type natsCaller struct {
	js    jetstream.JetStream
	topic string
}

func (n *natsCaller) send(ctx context.Context, payloads [][]byte, done func(error)) {
	_, err := n.js.Publish(ctx, n.topic, payloads[0])
	done(err)
}

func (n *natsCaller) close() error { return nil }

// natsAsync publishes messages one by one, and is acknowledged later.
type natsAsync struct {
	js    jetstream.JetStream
	topic string
	sent  chan natsSent
}

type natsSent struct {
	futures []jetstream.PubAckFuture
	done    func(error)
}

func newNatsAsync(js jetstream.JetStream, topic string) *natsAsync {
	n := &natsAsync{js: js, topic: topic, sent: make(chan natsSent, 1_024)}
	go func() {
		for sent := range n.sent {
			sent.done(natsWait(sent.futures))
		}
	}()
	return n
}

func natsWait(futures []jetstream.PubAckFuture) error {
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			return err
		}
	}
	return nil
}

func (n *natsAsync) send(_ context.Context, payloads [][]byte, done func(error)) {
	futures := make([]jetstream.PubAckFuture, 0, len(payloads))
	for _, payload := range payloads {
		future, err := n.js.PublishAsync(n.topic, payload)
		if err != nil {
			done(err)
			return
		}
		futures = append(futures, future)
	}
	n.sent <- natsSent{futures, done}
}

func (n *natsAsync) close() error {
	close(n.sent)
	n.js.Conn().Close()
	return nil
}

// natsAtomic publishes batches that are stored either completely or not at all.
type natsAtomic struct {
	js    jetstream.JetStream
	topic string
}

func (n *natsAtomic) send(ctx context.Context, payloads [][]byte, done func(error)) {
	messages := make([]*nats.Msg, len(payloads))
	for i, payload := range payloads {
		messages[i] = &nats.Msg{Subject: n.topic, Data: payload, Header: nats.Header{}}
	}
	flow := jetstreamext.BatchFlowControl{AckFirst: false, AckTimeout: natsPatience}
	ack, err := jetstreamext.PublishMsgBatch(ctx, n.js, messages, flow)
	if err == nil && ack.BatchSize != uint64(len(payloads)) {
		err = fmt.Errorf("%d of %d messages were stored", ack.BatchSize, len(payloads))
	}
	done(err)
}

func (n *natsAtomic) close() error {
	n.js.Conn().Close()
	return nil
}

func (n *natsPeer) consume(ctx context.Context, topic string, got func([]byte)) error {
	js, err := jetstream.New(n.connections[0])
	if err != nil {
		return err
	}
	consumer, err := js.Consumer(ctx, topic, natsConsumer)
	if err != nil {
		return err
	}
	const ahead, ackEvery = 10_000, 1_000
	var last jetstream.Msg
	unacknowledged := 0
	// The first failure ends the consumer.
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	handle := func(message jetstream.Msg) {
		got(message.Data())
		last = message
		if unacknowledged++; unacknowledged < ackEvery {
			return
		}
		unacknowledged = 0
		if err := message.Ack(); err != nil {
			fail(err)
		}
	}
	consuming, err := consumer.Consume(handle, jetstream.PullMaxMessages(ahead),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { fail(err) }))
	if err != nil {
		return err
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	consuming.Stop()
	<-consuming.Closed()
	if err != nil {
		return err
	}
	// Waits until the server has confirmed the last position.
	lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), natsPatience)
	defer cancel()
	if unacknowledged == 0 {
		return n.connections[0].FlushWithContext(lasting)
	}
	return last.DoubleAck(lasting)
}

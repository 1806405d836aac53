package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type kafkaPeer struct {
	target      string
	compression kgo.CompressionCodec
	admin       *kgo.Client
	caller      *kgo.Client
}

// openKafka takes the name of a compression as its mode.
func openKafka(target, mode string) (peer, error) {
	codecs := map[string]kgo.CompressionCodec{
		"lz4": kgo.Lz4Compression(), "none": kgo.NoCompression(),
		"snappy": kgo.SnappyCompression(), "zstd": kgo.ZstdCompression(),
	}
	codec, known := codecs[mode]
	if !known {
		return nil, fmt.Errorf("unknown compression %q", mode)
	}
	admin, err := kgo.NewClient(kgo.SeedBrokers(target))
	return &kafkaPeer{target: target, compression: codec, admin: admin}, err
}

func (k *kafkaPeer) close() {
	k.admin.Close()
	if k.caller != nil {
		k.caller.Close()
	}
}

// create creates a topic with one partition, so that its messages have one order.
func (k *kafkaPeer) create(ctx context.Context, topic string) error {
	answer, err := kadm.NewClient(k.admin).CreateTopic(ctx, 1, 1, nil, topic)
	return errors.Join(err, answer.Err)
}

func (k *kafkaPeer) shape(workload string) shape {
	return asynchronousShape(workload, shape{publishers: 2, batch: 1_000, inFlight: 32})
}

func (k *kafkaPeer) publisher(ctx context.Context, topic, workload string, _ int) (publisher, error) {
	if workload != "unary" {
		client, err := k.producer(ctx, workload)
		return &kafkaPublisher{client: client, topic: topic, own: true}, err
	}
	// All unary callers share one client.
	if k.caller == nil {
		client, err := k.producer(ctx, workload)
		if err != nil {
			return nil, err
		}
		k.caller = client
	}
	return &kafkaPublisher{client: k.caller, topic: topic}, nil
}

func (k *kafkaPeer) producer(ctx context.Context, workload string) (*kgo.Client, error) {
	linger := time.Duration(0)
	if workload == "batched" || workload == "both" {
		linger = 5 * time.Millisecond
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(k.target),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(linger),
		kgo.ProducerBatchMaxBytes(1_000_000),
		kgo.MaxBufferedRecords(1_000_000),
		kgo.ProducerBatchCompression(k.compression),
	)
	if err != nil {
		return nil, err
	}
	return client, client.Ping(ctx)
}

type kafkaPublisher struct {
	client *kgo.Client
	topic  string
	own    bool
}

func (k *kafkaPublisher) send(ctx context.Context, payloads [][]byte, done func(error)) {
	var waiting atomic.Int64
	waiting.Store(int64(len(payloads)))
	var failed atomic.Pointer[error]
	for _, payload := range payloads {
		k.client.Produce(ctx, &kgo.Record{Topic: k.topic, Value: payload}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
			if waiting.Add(-1) > 0 {
				return
			}
			if err := failed.Load(); err != nil {
				done(*err)
			} else {
				done(nil)
			}
		})
	}
}

func (k *kafkaPublisher) close() error {
	if k.own {
		k.client.Close()
	}
	return nil
}

func (k *kafkaPeer) consume(ctx context.Context, topic string, got func([]byte)) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(k.target),
		kgo.ConsumerGroup("group"),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(100*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			break
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(record *kgo.Record) { got(record.Value) })
		client.MarkCommitRecords(fetches.Records()...)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return client.CommitMarkedOffsets(last)
}

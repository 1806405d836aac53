package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// Names that every stream uses.
const (
	redisField    = "m"
	redisGroup    = "group"
	redisConsumer = "consumer"
)

// redisRead is how many messages are read at a time.
const redisRead = 1_000

type redisPeer struct {
	target string
	client rueidis.Client
}

func openRedis(target, _ string) (peer, error) {
	client, err := connectRedis(target, 2)
	return &redisPeer{target: target, client: client}, err
}

// connectRedis opens a client with 2^scale connections.
func connectRedis(target string, scale int) (rueidis.Client, error) {
	if scale == 0 {
		scale = -1 // the client replaces 0 with its default
	}
	return rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       []string{target},
		ForceSingleClient: true,
		DisableCache:      true,
		AlwaysPipelining:  true,
		PipelineMultiplex: scale,
		// By default, the client treats pipelines of more than 2,000 commands as blocking.
		BlockingPipeline: 100_000,
	})
}

func (r *redisPeer) create(ctx context.Context, topic string) error {
	create := r.client.B().XgroupCreate().Key(topic).Group(redisGroup).Id("0").Mkstream().Build()
	return r.client.Do(ctx, create).Error()
}

func (r *redisPeer) shape(workload string) shape {
	return synchronousShape(workload, shape{publishers: 4, batch: 1_000, inFlight: 2, parallel: true})
}

func (r *redisPeer) publisher(_ context.Context, topic, workload string, _ int) (publisher, error) {
	if workload == "unary" {
		// All callers share one client, which combines concurrent commands.
		return &redisPublisher{client: r.client, topic: topic, shared: true}, nil
	}
	client, err := connectRedis(r.target, 0)
	return &redisPublisher{client: client, topic: topic}, err
}

func (r *redisPeer) close() { r.client.Close() }

type redisPublisher struct {
	client rueidis.Client
	topic  string
	shared bool
}

func (r *redisPublisher) send(ctx context.Context, payloads [][]byte, done func(error)) {
	commands := make(rueidis.Commands, len(payloads))
	for i, payload := range payloads {
		commands[i] = r.client.B().Xadd().Key(r.topic).Id("*").
			FieldValue().FieldValue(redisField, rueidis.BinaryString(payload)).Build()
	}
	if len(commands) == 1 {
		done(r.client.Do(ctx, commands[0]).Error())
		return
	}
	var failed error
	for _, answer := range r.client.DoMulti(ctx, commands...) {
		if failed = answer.Error(); failed != nil {
			break
		}
	}
	done(failed)
}

func (r *redisPublisher) close() error {
	if !r.shared {
		r.client.Close()
	}
	return nil
}

func (r *redisPeer) consume(ctx context.Context, topic string, got func([]byte)) error {
	client, release := r.client.Dedicate()
	defer release()
	var read []string
	// Messages that were read are acknowledged in the pipeline that reads the next ones.
	for ctx.Err() == nil {
		var commands rueidis.Commands
		if len(read) > 0 {
			commands = append(commands, r.acknowledge(topic, read))
		}
		commands = append(commands, r.client.B().Xreadgroup().Group(redisGroup, redisConsumer).
			Count(redisRead).Block(100).Streams().Key(topic).Id(">").Build())
		// Not cancelled with ctx, so that the last position is stored.
		answers := client.DoMulti(context.WithoutCancel(ctx), commands...)
		if len(answers) == 2 {
			if err := answers[0].Error(); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
		}
		var err error
		if read, err = redisEntries(answers[len(answers)-1], topic, got); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	if len(read) == 0 {
		return nil
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return client.Do(last, r.acknowledge(topic, read)).Error()
}

func (r *redisPeer) acknowledge(topic string, read []string) rueidis.Completed {
	return r.client.B().Xack().Key(topic).Group(redisGroup).Id(read...).Build()
}

// redisEntries passes the payloads to got, and returns the ids. It parses the answer itself, because
// the client would make a map of each entry.
func redisEntries(answer rueidis.RedisResult, topic string, got func([]byte)) ([]string, error) {
	streams, err := answer.AsMap()
	if rueidis.IsRedisNil(err) {
		return nil, nil // no messages
	}
	if err != nil {
		return nil, err
	}
	stream := streams[topic]
	entries, err := stream.ToArray()
	if err != nil {
		return nil, err
	}
	read := make([]string, 0, len(entries))
	for i := range entries {
		entry, err := entries[i].ToArray()
		if err != nil {
			return nil, err
		}
		if len(entry) != 2 {
			return nil, errors.New("an entry is not an id and its fields")
		}
		id, err := entry[0].ToString()
		if err != nil {
			return nil, err
		}
		fields, err := entry[1].AsStrSlice()
		if err != nil {
			return nil, err
		}
		if len(fields) != 2 {
			return nil, errors.New("an entry has unexpected fields")
		}
		got([]byte(fields[1]))
		read = append(read, id)
	}
	return read, nil
}

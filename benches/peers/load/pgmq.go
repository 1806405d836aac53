package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pgmqRead is how many messages are read and then deleted at a time.
const pgmqRead = 1_000

// Messages of pgmq are JSON: the database converts each payload to a JSON string.
const (
	pgmqSend = `select pgmq.send($1, to_jsonb($2::text))`
	pgmqMany = `select count(*) from pgmq.send_batch($1, array(select to_jsonb(m) from unnest($2::text[]) as m))`
	pgmqNext = `select msg_id, message::text from pgmq.read($1, 60, $2)`
	pgmqGone = `select count(*) from pgmq.delete($1, $2::bigint[])`
)

type pgmqPeer struct {
	pool *pgxpool.Pool
	url  string
}

// openPgmq takes the number of sessions that unary calls share as its mode.
func openPgmq(target, mode string) (peer, error) {
	sessions := 64
	if mode != "" {
		number, err := strconv.Atoi(mode)
		if err != nil {
			return nil, err
		}
		sessions = number
	}
	config, err := pgxpool.ParseConfig(target)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(sessions)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	return &pgmqPeer{pool: pool, url: target}, err
}

func (p *pgmqPeer) close() { p.pool.Close() }

func (p *pgmqPeer) create(ctx context.Context, topic string) error {
	_, err := p.pool.Exec(ctx, "select pgmq.create($1)", topic)
	return err
}

func (p *pgmqPeer) shape(workload string) shape {
	return synchronousShape(workload, shape{publishers: 4, batch: 1_000, inFlight: 1})
}

func (p *pgmqPeer) publisher(ctx context.Context, topic, workload string, _ int) (publisher, error) {
	switch workload {
	case "unary", "latency":
		return &pgmqCaller{pool: p.pool, topic: topic}, nil
	case "pipelined":
		connection, err := pgx.Connect(ctx, p.url)
		if err != nil {
			return nil, err
		}
		_, err = connection.Prepare(ctx, "send", pgmqSend)
		return &pgmqPipeline{connection: connection, topic: topic}, err
	}
	connection, err := pgx.Connect(ctx, p.url)
	return &pgmqBatches{connection: connection, topic: topic}, err
}

// pgmqCaller sends one message per statement, over a pool that all callers share.
type pgmqCaller struct {
	pool  *pgxpool.Pool
	topic string
}

func (p *pgmqCaller) send(ctx context.Context, payloads [][]byte, done func(error)) {
	_, err := p.pool.Exec(ctx, pgmqSend, p.topic, string(payloads[0]))
	done(err)
}

func (p *pgmqCaller) close() error { return nil }

// pgmqPipeline sends one message per statement, each in its own transaction, without waiting for
// earlier answers.
type pgmqPipeline struct {
	connection *pgx.Conn
	topic      string
}

func (p *pgmqPipeline) send(ctx context.Context, payloads [][]byte, done func(error)) {
	done(p.sendAll(ctx, payloads))
}

func (p *pgmqPipeline) sendAll(ctx context.Context, payloads [][]byte) error {
	pipeline := p.connection.PgConn().StartPipeline(ctx)
	topic := []byte(p.topic)
	for _, payload := range payloads {
		pipeline.SendQueryPrepared("send", [][]byte{topic, payload}, nil, nil)
		if err := pipeline.Sync(); err != nil {
			return errors.Join(err, pipeline.Close())
		}
	}
	err := pgmqAnswers(pipeline, len(payloads))
	return errors.Join(err, pipeline.Close())
}

func pgmqAnswers(pipeline *pgconn.Pipeline, count int) error {
	for range count {
		answer, err := pipeline.GetResults()
		if err != nil {
			return err
		}
		rows, ok := answer.(*pgconn.ResultReader)
		if !ok {
			return fmt.Errorf("got a %T instead of rows", answer)
		}
		if _, err := rows.Close(); err != nil {
			return err
		}
		if _, err := pipeline.GetResults(); err != nil { // the end of the transaction
			return err
		}
	}
	return nil
}

func (p *pgmqPipeline) close() error { return p.connection.Close(context.Background()) }

// pgmqBatches sends many messages per statement.
type pgmqBatches struct {
	connection *pgx.Conn
	topic      string
}

func (p *pgmqBatches) send(ctx context.Context, payloads [][]byte, done func(error)) {
	texts := make([]string, len(payloads))
	for i, payload := range payloads {
		texts[i] = string(payload)
	}
	var stored int
	err := p.connection.QueryRow(ctx, pgmqMany, p.topic, texts).Scan(&stored)
	if err == nil && stored != len(payloads) {
		err = fmt.Errorf("%d of %d messages were stored", stored, len(payloads))
	}
	done(err)
}

func (p *pgmqBatches) close() error { return p.connection.Close(context.Background()) }

func (p *pgmqPeer) consume(ctx context.Context, topic string, got func([]byte)) error {
	connection, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return err
	}
	// Messages that were read are deleted even after ctx is cancelled.
	lasting := context.WithoutCancel(ctx)
	defer connection.Close(lasting)
	for ctx.Err() == nil {
		read, err := pgmqPortion(lasting, connection, topic, got)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if len(read) == 0 {
			continue
		}
		if _, err := connection.Exec(lasting, pgmqGone, topic, read); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	return nil
}

func pgmqPortion(ctx context.Context, from *pgx.Conn, topic string, got func([]byte)) ([]int64, error) {
	rows, err := from.Query(ctx, pgmqNext, topic, pgmqRead)
	if err != nil {
		return nil, err
	}
	var read []int64
	var id int64
	var text []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &text}, func() error {
		var payload string
		if err := json.Unmarshal(text, &payload); err != nil {
			return err
		}
		got([]byte(payload))
		read = append(read, id)
		return nil
	})
	return read, err
}

// Sql_pgx publishes in transactions of pgx, and prints what was published until it is interrupted.
// DATABASE_URL is the broker's database. The example is a module of its own, so that the package does
// not depend on pgx.
//
//	cd examples/sql_pgx && go run . TOPIC CONSUMER
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"

	"github.com/jackc/pgx/v5"
	trunkline "github.com/trunkline/trunkline/clients/go"
)

const table = `create table if not exists orders (
	id bigint generated always as identity primary key, item text not null)`

type order struct {
	ID   int64  `json:"id"`
	Item string `json:"item"`
}

var errDeclined = errors.New("the payment was declined")

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: sql_pgx TOPIC CONSUMER")
	}
	topic, consumerID := os.Args[1], os.Args[2]
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	_, err = conn.Exec(ctx, table)
	check(err)
	_, err = conn.Exec(ctx, "select trunkline.create_topic($1, if_missing => true)", topic)
	check(err)
	for _, item := range []string{"one coffee", "two teas", "three cakes"} {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return placeOrder(ctx, tx, topic, item) })
		if !errors.Is(err, errDeclined) {
			check(err)
		}
	}

	client, err := trunkline.Dial(cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051"))
	check(err)
	consumer, err := client.NewConsumer(ctx, trunkline.ConsumerConfig{Topic: topic, ID: consumerID})
	check(err)
	for message, err := range consumer.Messages(ctx) {
		if ctx.Err() != nil {
			break
		}
		check(err)
		fmt.Printf("%s %s\n", message.Key, message.Payload)
	}
	check(consumer.Close(context.WithoutCancel(ctx)))
}

// placeOrder stores an order and publishes it, both with the transaction.
func placeOrder(ctx context.Context, tx pgx.Tx, topic, item string) error {
	placed := order{Item: item}
	err := tx.QueryRow(ctx, "insert into orders (item) values ($1) returning id", item).Scan(&placed.ID)
	if err != nil {
		return err
	}
	// The cast says that the payload is JSON. The key is text then.
	publish := "select trunkline.publish_later($1, $2::jsonb, $3)"
	if _, err := tx.Exec(ctx, publish, topic, placed, strconv.FormatInt(placed.ID, 10)); err != nil {
		return err
	}
	if item == "two teas" {
		return errDeclined // Nobody ever sees the order or its message.
	}
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

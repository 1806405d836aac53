// Bench compares the package with the raw stubs: it publishes and consumes the same messages through
// both, in turns, and prints messages per second.
//
//	go run ./bench -messages 500000 -size 100
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go"
)

var (
	target   = flag.String("target", cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051"), "where the broker is")
	messages = flag.Int("messages", 500_000, "how many messages are published and consumed each way")
	size     = flag.Int("size", 100, "bytes of a message")
	rounds   = flag.Int("rounds", 4, "how many turns the messages are divided into")
)

// A way publishes and consumes messages of a topic.
type way struct {
	name    string
	publish func(ctx context.Context, client *trunkline.Client, topic string, payload []byte, count int) error
	consume func(ctx context.Context, client *trunkline.Client, topic string) (int, error)
	took    struct{ publishing, consuming time.Duration }
}

func main() {
	flag.Parse()
	if err := compare(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func compare(ctx context.Context) error {
	client, err := trunkline.Dial(*target)
	if err != nil {
		return err
	}
	defer client.Close()
	raw := &way{name: "raw stubs", publish: publishRaw, consume: consumeRaw}
	pkg := &way{name: "package", publish: publish, consume: consume}
	for round := range *rounds {
		ways := []*way{raw, pkg}
		if round%2 == 1 {
			ways = []*way{pkg, raw}
		}
		if err := turn(ctx, client, ways); err != nil {
			return err
		}
	}
	count := float64(*messages / *rounds * *rounds)
	fmt.Printf("%.0f messages of %d bytes\n%-10s %14s %14s\n", count, *size, "", "publish/s", "consume/s")
	for _, way := range []*way{raw, pkg} {
		fmt.Printf("%-10s %14.0f %14.0f\n", way.name, count/way.took.publishing.Seconds(), count/way.took.consuming.Seconds())
	}
	fmt.Printf("%-10s %13.0f%% %13.0f%%\n", "ratio",
		100*raw.took.publishing.Seconds()/pkg.took.publishing.Seconds(),
		100*raw.took.consuming.Seconds()/pkg.took.consuming.Seconds())
	return nil
}

// turn publishes a share of the messages each way, and consumes it each way.
func turn(ctx context.Context, client *trunkline.Client, ways []*way) error {
	payload := make([]byte, *size)
	count := *messages / *rounds
	var topic string
	for _, way := range ways {
		topic = fmt.Sprint("bench-", time.Now().UnixNano())
		if err := client.EnsureTopic(ctx, topic); err != nil {
			return err
		}
		began := time.Now()
		if err := way.publish(ctx, client, topic, payload, count); err != nil {
			return fmt.Errorf("publish through the %s: %w", way.name, err)
		}
		way.took.publishing += time.Since(began)
	}
	for _, way := range ways {
		began := time.Now()
		consumed, err := way.consume(ctx, client, topic)
		if err != nil {
			return fmt.Errorf("consume through the %s: %w", way.name, err)
		}
		way.took.consuming += time.Since(began)
		if consumed != count {
			return fmt.Errorf("consumed %d messages through the %s, and published %d", consumed, way.name, count)
		}
	}
	return nil
}

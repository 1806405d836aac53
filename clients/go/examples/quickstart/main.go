// Quickstart publishes a message and prints every message that the consumer has not received yet.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func main() {
	target := cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051")
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	topics := trunkline.NewTopicServiceClient(conn)
	producers := trunkline.NewProducerServiceClient(conn)
	consumers := trunkline.NewConsumerServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	_, err = topics.CreateTopic(ctx, &trunkline.CreateTopicRequest{Topic: "orders"})
	check(err)
	_, err = producers.RegisterProducer(ctx, &trunkline.RegisterProducerRequest{Topic: "orders", ProducerId: "shop"})
	check(err)
	_, err = consumers.RegisterConsumer(ctx, &trunkline.RegisterConsumerRequest{Topic: "orders", ConsumerId: "billing"})
	check(err)

	published, err := producers.Publish(ctx, &trunkline.PublishRequest{
		Topic: "orders", ProducerId: "shop",
		Messages: []*trunkline.NewMessage{{Key: []byte("table 7"), Payload: []byte("one coffee")}},
	})
	check(err)
	fmt.Println("published at offset", published.FirstOffset)

	frames, err := consumers.Consume(ctx, &trunkline.ConsumeRequest{
		Topic: "orders", ConsumerId: "billing", Stop: &trunkline.ConsumeRequest_UntilCaughtUp{UntilCaughtUp: true},
	})
	check(err)
	for frame, err := frames.Recv(); err != io.EOF; frame, err = frames.Recv() {
		check(err)
		for _, message := range frame.GetBatch().GetMessages() {
			fmt.Printf("consumed %d: %s\n", message.Offset, message.Payload)
		}
	}
}

// check ends the program on an error, unless an earlier run has created this already.
func check(err error) {
	if err != nil && status.Code(err) != codes.AlreadyExists {
		log.Fatal(err)
	}
}

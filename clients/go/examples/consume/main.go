// Consume prints a topic's messages as they come, until it is interrupted.
//
//	go run ./examples/consume TOPIC CONSUMER
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/trunkline/trunkline/clients/go/examples/consume/consumer"
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: consume TOPIC CONSUMER")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := consume(ctx, os.Args[1], os.Args[2])
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func consume(ctx context.Context, topic, id string) error {
	target := cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051")
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	service := trunkline.NewConsumerServiceClient(conn)
	if err := register(ctx, service, topic, id); err != nil {
		return err
	}
	reader := consumer.Consumer{Service: service, Topic: topic, ID: id, Heartbeat: 5 * time.Second}
	for message, err := range reader.Messages(ctx) {
		if err != nil {
			return err
		}
		fmt.Printf("%d %s\n", message.GetOffset(), message.GetPayload())
	}
	return nil
}

func register(ctx context.Context, service trunkline.ConsumerServiceClient, topic, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := service.RegisterConsumer(ctx, &trunkline.RegisterConsumerRequest{Topic: topic, ConsumerId: id})
	if status.Code(err) == codes.AlreadyExists {
		return nil
	}
	return err
}

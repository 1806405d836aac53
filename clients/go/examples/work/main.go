// Work works on the messages of a subscription, with the stubs, until there are no more.
//
//	go run ./examples/work TOPIC SUBSCRIPTION
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"unicode/utf8"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc"
)

type workerStream = grpc.BidiStreamingClient[pb.SubscribeRequest, pb.SubscribeResponse]

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: work TOPIC SUBSCRIPTION")
	}
	client, err := trunkline.Dial(cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051"))
	if err == nil {
		err = work(context.Background(), client, os.Args[1], os.Args[2])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func work(ctx context.Context, client *trunkline.Client, topic, id string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err := client.Subscriptions.CreateSubscription(ctx, &pb.CreateSubscriptionRequest{Topic: topic, SubscriptionId: id, IfMissing: true})
	if err != nil {
		return err
	}
	stream, err := client.Subscriptions.Subscribe(ctx)
	if err != nil {
		return err
	}
	open := &pb.OpenSubscription{Topic: topic, SubscriptionId: id}
	if err := send(stream, &pb.SubscribeRequest{Request: &pb.SubscribeRequest_Open{Open: open}}); err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, delivery := range event.GetDeliveries().GetDeliveries() {
			settle := &pb.SettleMessages{}
			for i, message := range delivery.GetBatch().GetMessages() {
				settlement := handle(message, delivery.GetAttempts()[i])
				settlement.Delivery, settlement.Offsets = delivery.GetDelivery(), []int64{message.GetOffset()}
				settle.Settlements = append(settle.Settlements, settlement)
			}
			if err := send(stream, &pb.SubscribeRequest{Request: &pb.SubscribeRequest_Settle{Settle: settle}}); err != nil {
				return err
			}
		}
		if event.GetCaughtUp() != nil {
			return finish(stream) // Without this, it waits for new messages for ever.
		}
	}
}

// handle says what becomes of a message: a Retry would have it delivered again.
func handle(message *pb.Message, attempt int32) *pb.Settlement {
	if !utf8.Valid(message.GetPayload()) {
		reject := &pb.Reject{Reason: "the payload is not text"}
		return &pb.Settlement{Verdict: &pb.Settlement_Reject{Reject: reject}}
	}
	fmt.Printf("%d %s (attempt %d)\n", message.GetOffset(), message.GetPayload(), attempt)
	return &pb.Settlement{Verdict: &pb.Settlement_Acknowledge{Acknowledge: &pb.Acknowledge{}}}
}

// send leaves it to Recv to say why a stream has ended.
func send(stream workerStream, request *pb.SubscribeRequest) error {
	if err := stream.Send(request); err != io.EOF {
		return err
	}
	return nil
}

// finish closes this side. The stream ends once everything that was settled is stored.
func finish(stream workerStream) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

package main

import (
	"context"
	"fmt"
	"io"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// As in the package.
const (
	batchMessages = 4_000
	maxInFlight   = 8
)

func publishRaw(ctx context.Context, client *trunkline.Client, topic string, payload []byte, count int) error {
	registered, err := client.Producers.RegisterProducer(ctx, &pb.RegisterProducerRequest{Topic: topic, ProducerId: "raw", Fence: true})
	if err != nil {
		return err
	}
	stream, err := client.Producers.PublishStream(ctx)
	if err != nil {
		return err
	}
	sent, stored := 0, 0
	for stored < count {
		for sent < count && sent-stored < maxInFlight*batchMessages {
			sequence := int64(sent)
			request := &pb.PublishStreamRequest{
				Topic: topic, ProducerId: "raw", ProducerEpoch: registered.GetProducer().GetEpoch(), Sequence: &sequence,
			}
			for range min(batchMessages, count-sent) {
				request.Messages = append(request.Messages, &pb.NewMessage{Payload: payload})
			}
			if err := stream.Send(request); err != nil {
				return err
			}
			sent += len(request.Messages)
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if refusal := answer.GetRefusal(); refusal != nil {
			return fmt.Errorf("refused: %v", refusal)
		}
		stored += int(answer.GetReceipt().GetCount())
	}
	return stream.CloseSend()
}

// consumeRaw commits once, at the end.
func consumeRaw(ctx context.Context, client *trunkline.Client, topic string) (int, error) {
	_, err := client.Consumers.RegisterConsumer(ctx, &pb.RegisterConsumerRequest{Topic: topic, ConsumerId: "raw"})
	if err != nil {
		return 0, err
	}
	stream, err := client.Consumers.Consume(ctx, &pb.ConsumeRequest{
		Topic: topic, ConsumerId: "raw", CommitMode: pb.CommitMode_COMMIT_MODE_MANUAL,
		Stop: &pb.ConsumeRequest_UntilCaughtUp{UntilCaughtUp: true},
	})
	if err != nil {
		return 0, err
	}
	var consumed int
	var epoch, position int64
	for {
		frame, err := stream.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			return consumed, err
		}
		if attached := frame.GetAttached(); attached != nil {
			epoch = attached.GetEpoch()
		}
		for _, message := range frame.GetBatch().GetMessages() {
			if len(message.Payload) == *size {
				consumed++
			}
			position = message.GetOffset() + 1
		}
	}
	_, err = client.Consumers.Commit(ctx, &pb.CommitRequest{Topic: topic, ConsumerId: "raw", Epoch: epoch, Position: position})
	return consumed, err
}

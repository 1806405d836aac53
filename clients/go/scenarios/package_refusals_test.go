package scenarios

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type publishStream = pb.ProducerService_PublishStreamServer

// A scriptedBroker registers every producer, and does on its next stream what the test says.
type scriptedBroker struct {
	pb.UnimplementedProducerServiceServer
	streams chan func(publishStream) error
	ended   chan struct{} // Closed when the test is over.
}

// serveScript returns a broker for a single test, and its address.
func serveScript(t *testing.T) (*scriptedBroker, string) {
	t.Helper()
	broker := &scriptedBroker{streams: make(chan func(publishStream) error, 2), ended: make(chan struct{})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	succeeds(t, err)
	server := grpc.NewServer()
	pb.RegisterProducerServiceServer(server, broker)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	t.Cleanup(func() { close(broker.ended) })
	return broker, listener.Addr().String()
}

func (broker *scriptedBroker) RegisterProducer(context.Context, *pb.RegisterProducerRequest) (*pb.RegisterProducerResponse, error) {
	return &pb.RegisterProducerResponse{Producer: &pb.Producer{Epoch: 1}}, nil
}

func (broker *scriptedBroker) PublishStream(stream publishStream) error {
	select {
	case next := <-broker.streams:
		return next(stream)
	case <-broker.ended:
		return nil
	}
}

// receive waits for some requests.
func receive(stream publishStream, count int) error {
	for range count {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	return nil
}

// A broker may have stored what it did not answer before a break, although it refuses the repetition.
func TestARefusalAfterABreakIsNoAnswerToWhatWasSentBefore(t *testing.T) {
	t.Parallel()
	expired, err := status.New(codes.Unauthenticated, "the token has expired").
		WithDetails(&errdetails.ErrorInfo{Reason: "TOKEN_EXPIRED", Domain: "trunkline"})
	succeeds(t, err)
	for name, refusal := range map[string]struct {
		code   codes.Code
		reason string
		refuse func(publishStream) error
	}{
		"repetition": {codes.FailedPrecondition, "PRODUCER_FENCED", func(stream publishStream) error {
			refusal := &pb.PublishRefusal{Code: int32(codes.FailedPrecondition), Reason: "PRODUCER_FENCED", Message: "another instance publishes"}
			if err := stream.Send(&pb.PublishStreamResponse{Result: &pb.PublishStreamResponse_Refusal{Refusal: refusal}}); err != nil {
				return err
			}
			<-stream.Context().Done()
			return nil
		}},
		"stream": {codes.Unauthenticated, "TOKEN_EXPIRED", func(publishStream) error { return expired.Err() }},
	} {
		t.Run(name, func(t *testing.T) {
			broker, target := serveScript(t)
			messages, logger := logTo()
			config := trunkline.ProducerConfig{Topic: "orders", ID: shop, MaxBatchMessages: 1}
			producer, err := connect(t, target, logger).NewProducer(deadline(t), config)
			succeeds(t, err)
			t.Cleanup(func() { abandon(producer.Close) })
			publish := func(number int) trunkline.Receipt {
				receipt, err := producer.Publish(deadline(t), numbered(number, 1)[0])
				succeeds(t, err)
				return receipt
			}
			refuses := func(err error) *trunkline.Error { return fails(t, err, refusal.code, refusal.reason) }

			broker.streams <- func(stream publishStream) error {
				if err := receive(stream, 1); err != nil {
					return err
				}
				return status.Error(codes.Unavailable, "the connection breaks")
			}
			lost := publish(0)
			messages.expect(t, "a producer lost its stream", "the connection breaks")
			var others []trunkline.Receipt // The last one exceeds the requests that may be unanswered.
			for number := range 8 {
				others = append(others, publish(1+number))
			}
			broker.streams <- func(stream publishStream) error {
				if err := receive(stream, 2); err != nil {
					return err
				}
				return refusal.refuse(stream)
			}

			_, err = lost.Offset(deadline(t))
			unknown := fails(t, err, codes.Unavailable, "OUTCOME_UNKNOWN")
			_, err = producer.Publish(deadline(t), numbered(9, 1)[0])
			equal(t, "names the refusal", strings.HasPrefix(unknown.Message, "not answered before the producer ended: "+err.Error()), true)
			equal(t, "its cause is the refusal", errors.Is(unknown, refuses(err)), true)
			for _, receipt := range others {
				_, err := receipt.Offset(deadline(t))
				refuses(err)
			}
			fails(t, producer.Flush(deadline(t)), codes.Unavailable, "OUTCOME_UNKNOWN")
			fails(t, producer.Close(deadline(t)), codes.Unavailable, "OUTCOME_UNKNOWN")
		})
	}
}

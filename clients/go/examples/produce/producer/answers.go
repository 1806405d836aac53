package producer

import (
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type answer struct {
	receipt *trunkline.PublishReceipt
	err     error
}

// receive returns the answers of a stream; the last one is an error.
func receive(stream trunkline.ProducerService_PublishStreamClient) <-chan answer {
	// With room for all answers, so that the goroutine never blocks on a caller that has left.
	answers := make(chan answer, maxInFlight+1)
	go func() {
		for {
			response, err := stream.Recv()
			if err == nil {
				err = refusal(response.GetRefusal())
			}
			answers <- answer{response.GetReceipt(), err}
			if err != nil {
				return
			}
		}
	}()
	return answers
}

// refusal returns the error that the unary Publish would have returned; nil if there is no refusal.
func refusal(refused *trunkline.PublishRefusal) error {
	if refused == nil {
		return nil
	}
	refusal := status.New(codes.Code(refused.GetCode()), refused.GetMessage())
	detailed, err := refusal.WithDetails(
		&errdetails.ErrorInfo{Domain: "trunkline", Reason: refused.GetReason(), Metadata: refused.GetMetadata()},
		&errdetails.RetryInfo{RetryDelay: refused.GetRetryDelay()},
	)
	if err != nil {
		return refusal.Err()
	}
	return detailed.Err()
}

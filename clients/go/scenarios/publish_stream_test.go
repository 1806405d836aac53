package scenarios

import (
	"io"
	"testing"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

func TestTenThousandMessagesInAStream(t *testing.T) {
	topic := newTopic(t)
	const requests, each = 100, 100
	stream, err := topic.producers.PublishStream(deadline(t))
	succeeds(t, err)
	publish := func(sequence int64) {
		t.Helper()
		succeeds(t, stream.Send(&pb.PublishStreamRequest{
			Topic:      topic.name,
			ProducerId: shop,
			Messages:   numbered(int(sequence), each),
			Sequence:   &sequence,
		}))
	}
	answer := func() *pb.PublishStreamResponse {
		t.Helper()
		response, err := stream.Recv()
		succeeds(t, err)
		return response
	}
	stored := func(firstOffset int64, duplicate bool) {
		t.Helper()
		response := answer()
		receipt := response.GetReceipt()
		if receipt == nil {
			t.Fatalf("got %v, want a receipt", response)
		}
		equal(t, "first offset", receipt.GetFirstOffset(), firstOffset)
		equal(t, "count", receipt.GetCount(), each)
		equal(t, "duplicate", receipt.GetDuplicate(), duplicate)
	}

	for request := range int64(requests) {
		publish(request * each)
	}
	for request := range int64(requests) {
		stored(request*each, false)
	}

	const last, next = (requests - 1) * each, requests * each
	publish(last)
	publish(next + each)
	publish(next)
	stored(last, true)
	refusal := answer().GetRefusal()
	equal(t, "reason", refusal.GetReason(), "SEQUENCE_GAP")
	equal(t, "code", codes.Code(refusal.GetCode()), codes.OutOfRange)
	stored(next, false)

	succeeds(t, stream.CloseSend())
	_, err = stream.Recv()
	equal(t, "end", err, io.EOF)
}

package scenarios

import (
	"bytes"
	"testing"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func TestKeysHeadersAndUnicode(t *testing.T) {
	topic := newTopic(t)
	sent := []*pb.NewMessage{
		{
			Payload: []byte("grüße, 世界, 🚂"),
			Key:     []byte("schlüssel"),
			Headers: map[string]string{"sprache": "größtenteils", "列車": "🚂"},
		},
		{Payload: []byte{0xff, 0x00, 0xfe}},
		{Payload: []byte("its key is empty"), Key: []byte{}},
		{},
	}
	topic.publish(sent[0], sent[1])
	topic.publish(sent[2], sent[3])

	stream := topic.consume(&pb.ConsumeRequest{})
	got := stream.messages(len(sent))
	for i, message := range got {
		same := &pb.NewMessage{Payload: message.GetPayload(), Key: message.Key, Headers: message.GetHeaders()}
		if !proto.Equal(same, sent[i]) {
			t.Errorf("message %d: got %v, want %v", i, same, sent[i])
		}
		equal(t, "producer", message.GetProducerId(), shop)
		if !message.GetPublishTime().IsValid() || message.GetPublishTime().GetSeconds() == 0 {
			t.Errorf("message %d: its publish time is %v", i, message.GetPublishTime())
		}
		if i > 0 && message.GetPublishTime().AsTime().Before(got[i-1].GetPublishTime().AsTime()) {
			t.Errorf("message %d was published before its predecessor", i)
		}
	}
}

func TestOneMebibyteMessage(t *testing.T) {
	topic := newTopic(t)
	const mebibyte = 1 << 20
	largest := &pb.NewMessage{Payload: bytes.Repeat([]byte{'x'}, mebibyte)}
	topic.publish(largest)
	_, err := topic.producers.Publish(deadline(t), &pb.PublishRequest{
		Topic:      topic.name,
		ProducerId: shop,
		Messages:   []*pb.NewMessage{{Payload: bytes.Repeat([]byte{'x'}, mebibyte+1)}},
	})
	refused(t, err, codes.InvalidArgument, "INVALID_FIELD")

	stream := topic.consume(&pb.ConsumeRequest{Stop: untilCaughtUp})
	var got []*pb.Message
	for _, frame := range stream.rest() {
		got = append(got, frame.GetBatch().GetMessages()...)
	}
	equal(t, "number of messages", len(got), 1)
	equal(t, "the payload came back as it was", bytes.Equal(got[0].GetPayload(), largest.GetPayload()), true)
}

package trunkline

import (
	"math"
	"time"
	"unicode/utf8"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A ConsumerConfig says who consumes, and how.
type ConsumerConfig struct {
	Topic string
	ID    string
	// Start is where the consumer begins if it is registered now: [Latest], [AtOffset] or [AtTime]. By
	// default, it begins at the oldest message.
	Start Start
	// ManualCommit leaves it to the caller to finish messages with [Consumer.Commit]. By default, a
	// message is finished when the caller asks for the next one.
	ManualCommit bool
	// UntilCaughtUp ends the consumer when nothing is left to read.
	UntilCaughtUp bool
	// TakeOver takes the lease from its holder. By default, the consumer waits for it.
	TakeOver bool
	// ClientName is the name by which others see the holder of the lease: at most 255 bytes.
	ClientName string
	// MaxInFlight is how many messages may be delivered beyond the committed position; 0 for no limit.
	MaxInFlight int
	// Heartbeat is how often an idle stream shows that it is alive: 100 ms to 60 s, by default 5 s. A
	// stream that is silent for three times as long is opened again.
	Heartbeat time.Duration
}

// A Start is where a new consumer begins.
type Start func(*pb.RegisterConsumerRequest)

// Latest begins with the first message that is published from now on.
func Latest() Start {
	start := &pb.RegisterConsumerRequest_Edge{Edge: pb.LogEdge_LOG_EDGE_LATEST}
	return func(request *pb.RegisterConsumerRequest) { request.Start = start }
}

// AtOffset begins with the message at an offset.
func AtOffset(offset int64) Start {
	start := &pb.RegisterConsumerRequest_Offset{Offset: offset}
	return func(request *pb.RegisterConsumerRequest) { request.Start = start }
}

// AtTime begins with the first message that was stored at a time or later.
func AtTime(t time.Time) Start {
	start := &pb.RegisterConsumerRequest_Time{Time: timestamppb.New(t)}
	return func(request *pb.RegisterConsumerRequest) { request.Start = start }
}

func (c *ConsumerConfig) complete() (problem error) {
	if c.ID == "" {
		return invalid("ID", "must not be empty")
	}
	if !utf8.ValidString(c.ClientName) {
		return invalid("ClientName", "must be UTF-8")
	}
	setting(&problem, "MaxInFlight", &c.MaxInFlight, 0, 0, math.MaxInt32)
	setting(&problem, "Heartbeat", &c.Heartbeat, 5*time.Second, 100*time.Millisecond, time.Minute)
	return problem
}

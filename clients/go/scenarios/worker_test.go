package scenarios

import (
	"cmp"
	"context"
	"io"
	"testing"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const resize = "resize"

// A job is a message that a worker has.
type job struct {
	delivery, offset int64
	attempts         int32
	payload          string
}

// A worker's stream.
type worker struct {
	t      *testing.T
	events grpc.BidiStreamingClient[pb.SubscribeRequest, pb.SubscribeResponse]
	cancel context.CancelFunc
}

// subscribe creates the subscription resize, which delivers messages again at once.
func (topic *topic) subscribe(policy *pb.DeliveryPolicy) {
	topic.t.Helper()
	policy.MinBackoff = durationpb.New(0)
	_, err := topic.subscriptions.CreateSubscription(deadline(topic.t), &pb.CreateSubscriptionRequest{
		Topic:          topic.name,
		SubscriptionId: resize,
		Policy:         policy,
	})
	succeeds(topic.t, err)
}

func (topic *topic) subscription() *pb.Subscription {
	topic.t.Helper()
	answer, err := topic.subscriptions.GetSubscription(deadline(topic.t), &pb.GetSubscriptionRequest{
		Topic:          topic.name,
		SubscriptionId: resize,
	})
	succeeds(topic.t, err)
	return answer.GetSubscription()
}

// work opens a stream; topic and subscription are filled in.
func (topic *topic) work(open *pb.OpenSubscription) *worker {
	topic.t.Helper()
	open.Topic, open.SubscriptionId = topic.name, cmp.Or(open.SubscriptionId, resize)
	ctx, cancel := context.WithCancel(deadline(topic.t))
	topic.t.Cleanup(cancel)
	events, err := topic.subscriptions.Subscribe(ctx)
	succeeds(topic.t, err)
	succeeds(topic.t, events.Send(&pb.SubscribeRequest{Request: &pb.SubscribeRequest_Open{Open: open}}))
	return &worker{topic.t, events, cancel}
}

// next returns the next event.
func (worker *worker) next() *pb.SubscribeResponse {
	worker.t.Helper()
	event, err := worker.events.Recv()
	succeeds(worker.t, err)
	return event
}

// jobs waits for so many messages, and skips all other events.
func (worker *worker) jobs(count int) []job {
	worker.t.Helper()
	var jobs []job
	for len(jobs) < count {
		jobs = append(jobs, jobsOf(worker.next().GetDeliveries().GetDeliveries())...)
	}
	equal(worker.t, "number of messages", len(jobs), count)
	return jobs
}

func (worker *worker) settle(requestID int64, settlements ...*pb.Settlement) {
	worker.t.Helper()
	settle := &pb.SettleMessages{RequestId: requestID, Settlements: settlements}
	succeeds(worker.t, worker.events.Send(&pb.SubscribeRequest{Request: &pb.SubscribeRequest_Settle{Settle: settle}}))
}

// settled waits for the next answer, which must be to this request. It returns how many messages the
// settlements applied to.
func (worker *worker) settled(requestID int64) int32 {
	worker.t.Helper()
	for {
		settled := worker.next().GetSettled()
		if settled == nil {
			continue
		}
		equal(worker.t, "request_id", settled.GetRequestId(), requestID)
		var applied int32
		for _, messages := range settled.GetApplied() {
			applied += messages
		}
		return applied
	}
}

// close closes the worker's side, and waits until the stream ends OK.
func (worker *worker) close() {
	worker.t.Helper()
	succeeds(worker.t, worker.events.CloseSend())
	for {
		_, err := worker.events.Recv()
		if err == io.EOF {
			return
		}
		succeeds(worker.t, err)
	}
}

// receive takes so many messages, in as many calls as that needs.
func (topic *topic) receive(count int) []job {
	topic.t.Helper()
	var jobs []job
	for len(jobs) < count {
		received, err := topic.subscriptions.Receive(deadline(topic.t), &pb.ReceiveRequest{
			Topic:          topic.name,
			SubscriptionId: resize,
			MaxMessages:    int32(count - len(jobs)),
			Wait:           durationpb.New(10 * time.Second),
		})
		succeeds(topic.t, err)
		if len(received.GetDeliveries()) == 0 {
			topic.t.Fatalf("no more messages came after %v", jobs)
		}
		jobs = append(jobs, jobsOf(received.GetDeliveries())...)
	}
	return jobs
}

// settle returns how many messages each settlement applied to.
func (topic *topic) settle(settlements ...*pb.Settlement) []int32 {
	topic.t.Helper()
	settled, err := topic.subscriptions.Settle(deadline(topic.t), &pb.SettleRequest{
		Topic:          topic.name,
		SubscriptionId: resize,
		Settlements:    settlements,
	})
	succeeds(topic.t, err)
	return settled.GetApplied()
}

func jobsOf(deliveries []*pb.Delivery) []job {
	var jobs []job
	for _, delivery := range deliveries {
		for i, message := range delivery.GetBatch().GetMessages() {
			jobs = append(jobs, job{
				delivery: delivery.GetDelivery(),
				offset:   message.GetOffset(),
				attempts: delivery.GetAttempts()[i],
				payload:  string(message.GetPayload()),
			})
		}
	}
	return jobs
}

func offsets(jobs []job) []int64 {
	var offsets []int64
	for _, job := range jobs {
		offsets = append(offsets, job.offset)
	}
	return offsets
}

var acknowledge = &pb.Settlement{Verdict: &pb.Settlement_Acknowledge{Acknowledge: &pb.Acknowledge{}}}

func retry(delay time.Duration) *pb.Settlement {
	return &pb.Settlement{Verdict: &pb.Settlement_Retry{Retry: &pb.Retry{Delay: durationpb.New(delay)}}}
}

func reject(reason string) *pb.Settlement {
	return &pb.Settlement{Verdict: &pb.Settlement_Reject{Reject: &pb.Reject{Reason: reason}}}
}

func extend(by time.Duration) *pb.Settlement {
	return &pb.Settlement{Verdict: &pb.Settlement_Extend{Extend: &pb.Extend{By: durationpb.New(by)}}}
}

// one settles a message by its offset.
func one(job job, verdict *pb.Settlement) *pb.Settlement {
	settlement := proto.CloneOf(verdict)
	settlement.Delivery, settlement.Offsets = job.delivery, []int64{job.offset}
	return settlement
}

// all settles each of the deliveries that the messages came in, without naming offsets.
func all(jobs []job, verdict *pb.Settlement) []*pb.Settlement {
	var settlements []*pb.Settlement
	for i, job := range jobs {
		if i == 0 || job.delivery != jobs[i-1].delivery {
			settlement := proto.CloneOf(verdict)
			settlement.Delivery = job.delivery
			settlements = append(settlements, settlement)
		}
	}
	return settlements
}

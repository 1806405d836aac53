package scenarios

import (
	"testing"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

func TestStandbyAndTakeOver(t *testing.T) {
	topic := newTopic(t)
	holder := topic.consume(&pb.ConsumeRequest{ClientName: "ann"})
	holder.attached()

	standby := topic.consume(&pb.ConsumeRequest{ClientName: "bob"})
	equal(t, "holder", standby.next().GetStandby().GetHolder(), "ann")

	impatient := topic.consume(&pb.ConsumeRequest{OnBusy: pb.OnBusy_ON_BUSY_FAIL})
	refused(t, impatient.end(), codes.FailedPrecondition, "LEASE_HELD")

	taker := topic.consume(&pb.ConsumeRequest{ClientName: "cleo", OnBusy: pb.OnBusy_ON_BUSY_TAKE_OVER})
	taker.attached()
	refused(t, holder.end(), codes.Aborted, "LEASE_TAKEN_OVER")

	taker.cancel()
	standby.attached()
}

func TestCancelFreesTheLease(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 1000)...)

	cancelled := topic.consume(&pb.ConsumeRequest{MaxBatchMessages: 10})
	messages := cancelled.messages(10)
	cancelled.cancel()

	next := topic.consume(&pb.ConsumeRequest{OnBusy: pb.OnBusy_ON_BUSY_WAIT})
	position := next.attached().GetPosition()
	if end := messages[len(messages)-1].GetOffset() + 1; position < end {
		t.Errorf("the position is %d, but every message before %d was delivered", position, end)
	}
	equal(t, "first message", next.messages(1)[0].GetOffset(), position)
}

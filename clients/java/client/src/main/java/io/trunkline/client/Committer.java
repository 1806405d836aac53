package io.trunkline.client;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import io.trunkline.v1.CommitRequest;
import io.trunkline.v1.CommitResponse;
import io.trunkline.v1.ConsumeRequestOrBuilder;
import java.util.concurrent.Future;

/**
 * Commits what the caller has finished with, in the background and call by call; the newest position stands for all
 * before it. A call that fails is made again after a pause, and ends nothing: if the stream is concerned, it ends too.
 */
final class Committer {
    private static final long INTERVAL_MILLIS = 100;

    private final TrunklineClient client;
    private final CommitRequest template;
    /** How many finished messages may wait for a commit. */
    private final int maxWaiting;
    private final Backoff backoff = new Backoff();
    /** Behind the last message that the caller has finished with. */
    private long finished;
    /** Behind the last message of this epoch's stream: no commit may exceed it. */
    private long delivered;
    private long committed;
    private long epoch;
    /** Whether the broker has refused the epoch, so that commits wait for the next one. */
    private boolean isEpochOver;
    /** How many seeks there were. What belongs to an earlier number is void. */
    private int seeks;
    private boolean isCalling;
    /** The next call; null if none is planned. */
    private Future<?> planned;
    /** Why the last call failed; null if it did not. */
    private StatusRuntimeException failure;
    /** How many calls the broker has refused for a reason that a retry need not remedy. */
    private long refusals;
    private boolean isClosed;

    Committer(TrunklineClient client, ConsumeRequestOrBuilder stream) {
        this.client = client;
        template = CommitRequest.newBuilder()
                .setTopic(stream.getTopic())
                .setConsumerId(stream.getConsumerId())
                .build();
        // A broker that limits what is in flight must get a commit before it may send no more.
        maxWaiting = stream.getMaxInFlight() > 0 ? Math.max(1, stream.getMaxInFlight() / 2) : Integer.MAX_VALUE;
    }

    /** Records that a stream got the lease, or that a seek began a new epoch, which voids what came before. */
    synchronized void begin(long newEpoch, long position, boolean isSeek) {
        if (isSeek) {
            finished = 0;
            committed = 0;
            seeks++;
        }
        epoch = newEpoch;
        isEpochOver = false;
        committed = Math.max(committed, position);
        delivered = position;
        commitInTime();
    }

    /** Records that the stream has delivered all messages before an offset. */
    synchronized void deliver(long end) {
        delivered = end;
        commitInTime();
    }

    /** Records that the caller has finished with all messages before an offset. */
    synchronized void finish(long end) {
        finished = Math.max(finished, end);
        commitInTime();
    }

    /** Throws the refusal that the last call met, if a retry need not remedy it. */
    synchronized void check() {
        if (failure != null && !Errors.isTransient(failure)) throw new TrunklineException(failure);
    }

    /**
     * Waits until everything that is finished is committed. Returns false if the stream must be read before: it has a
     * new epoch, or a seek.
     *
     * @throws StatusRuntimeException if the broker refuses, or if the deadline is over
     */
    synchronized boolean settle(long deadline) throws InterruptedException {
        var refusalsBefore = refusals;
        commit();
        while (committed < finished) {
            if (!isCalling && committable() <= committed) return false;
            if (refusals > refusalsBefore) throw failure;
            var left = NANOSECONDS.toMillis(deadline - System.nanoTime());
            if (left <= 0) throw tooLate();
            wait(left);
        }
        return true;
    }

    /** Commits no more. */
    synchronized void close() {
        isClosed = true;
        cancelPlanned();
    }

    StatusRuntimeException tooLate() {
        var problem = "messages from offset %d on could not be committed, and will be delivered again"
                .formatted(committed);
        return Errors.unavailable(failure == null ? problem : problem + ": " + failure.getMessage(), failure);
    }

    private long committable() {
        return isClosed || isEpochOver ? 0 : Math.min(finished, delivered);
    }

    private void commitInTime() {
        if (committable() <= committed) return;
        if (failure == null && finished - committed >= maxWaiting) commit();
        else if (!isCalling && planned == null) plan(INTERVAL_MILLIS);
    }

    private void plan(long millis) {
        planned = client.schedule(this::commit, millis);
    }

    private void cancelPlanned() {
        if (planned != null) planned.cancel(false);
        planned = null;
    }

    private synchronized void commit() {
        cancelPlanned();
        var position = committable();
        if (isCalling || position <= committed) return;
        isCalling = true;
        client.commit(template.toBuilder().setEpoch(epoch).setPosition(position).build(), new Answer(position));
    }

    private void recordStored(long position, boolean isVoid) {
        backoff.reset();
        failure = null;
        if (!isVoid) committed = Math.max(committed, position);
        commitInTime();
    }

    private void recordFailure(StatusRuntimeException why) {
        failure = why;
        if (!Errors.isTransient(why)) refusals++;
        if (!isClosed) plan(backoff.millisAfter(why));
    }

    /** The answer to one call. */
    private final class Answer implements StreamObserver<CommitResponse> {
        private final long position;
        private final long epochThen = epoch;
        private final int seeksThen = seeks;

        Answer(long position) {
            this.position = position;
        }

        @Override
        public void onNext(CommitResponse stored) {}

        @Override
        public void onCompleted() {
            end(null);
        }

        @Override
        public void onError(Throwable failed) {
            end((StatusRuntimeException) failed);
        }

        private void end(StatusRuntimeException error) {
            synchronized (Committer.this) {
                isCalling = false;
                // COMMIT_BEHIND: the position is further on already.
                if (error == null || Errors.reason(error).equals("COMMIT_BEHIND")) {
                    recordStored(position, seeksThen != seeks);
                } else if (error.getStatus().getCode() != Status.Code.ABORTED || Errors.isTransient(error)) {
                    recordFailure(error);
                } else {
                    // The lease is lost, or a seek moved the position: the stream says which.
                    isEpochOver = epochThen == epoch;
                    failure = null;
                    commitInTime();
                }
                Committer.this.notifyAll();
            }
        }
    }
}

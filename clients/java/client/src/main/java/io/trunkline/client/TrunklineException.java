package io.trunkline.client;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Why the broker refused, why it was not reached, or which argument no broker would accept. */
public final class TrunklineException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Status.Code code;
    private final com.google.rpc.Status status;

    /** Reads the details of an error of the stubs, which becomes the cause. */
    public TrunklineException(StatusRuntimeException cause) {
        super(cause.getMessage(), cause);
        code = cause.getStatus().getCode();
        status = StatusProto.fromThrowable(cause);
    }

    /** The gRPC code. */
    public Status.Code code() {
        return code;
    }

    /** The reason for programs, {@code TOPIC_NOT_FOUND} for example; empty if no broker gave one. */
    public String reason() {
        return detail(ErrorInfo.getDefaultInstance()).getReason();
    }

    /** Every value that the message names. */
    public Map<String, String> metadata() {
        return detail(ErrorInfo.getDefaultInstance()).getMetadataMap();
    }

    /** How long the broker asks to wait before a retry. */
    public Optional<Duration> retryDelay() {
        var info = detail(RetryInfo.getDefaultInstance());
        if (!info.hasRetryDelay()) return Optional.empty();
        return Optional.of(Duration.ofSeconds(info.getRetryDelay().getSeconds(), info.getRetryDelay().getNanos()));
    }

    /** The fields that are invalid, and why. */
    public List<BadRequest.FieldViolation> fieldViolations() {
        return detail(BadRequest.getDefaultInstance()).getFieldViolationsList();
    }

    @SuppressWarnings("unchecked")
    private <T extends Message> T detail(T absent) {
        try {
            for (var detail : status.getDetailsList()) {
                if (detail.is(absent.getClass())) return (T) detail.unpack(absent.getClass());
            }
        } catch (InvalidProtocolBufferException unreadable) {
            // The code and the message say what is left to say.
        }
        return absent;
    }
}

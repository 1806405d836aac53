package io.trunkline.client;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.trunkline.v1.PublishRefusal;
import java.util.Map;

/** Makes errors with the details that a broker's have, and says which errors a retry can remedy. */
final class Errors {
    static TrunklineException invalid(String field, String problem) {
        return invalid(field, problem, Map.of("field", field));
    }

    static TrunklineException overLimit(String field, int actual, int limit, String unit) {
        var problem = "has %d %s, and the limit is %d".formatted(actual, unit, limit);
        return invalid(field, problem, Map.of("field", field, "limit", String.valueOf(limit)));
    }

    private static TrunklineException invalid(String field, String problem, Map<String, String> metadata) {
        var violation = BadRequest.FieldViolation.newBuilder().setField(field).setDescription(problem);
        var violations = BadRequest.newBuilder().addFieldViolations(violation).build();
        return new TrunklineException(error(
                Status.Code.INVALID_ARGUMENT.value(), field + " " + problem, "INVALID_FIELD", metadata, violations));
    }

    /** The error that the unary call would have ended with. */
    static StatusRuntimeException of(PublishRefusal refusal) {
        var retry = RetryInfo.newBuilder().setRetryDelay(refusal.getRetryDelay()).build();
        var details = refusal.hasRetryDelay() ? new Message[] {retry} : new Message[0];
        return error(refusal.getCode(), refusal.getMessage(), refusal.getReason(), refusal.getMetadataMap(), details);
    }

    private static StatusRuntimeException error(
            int code, String message, String reason, Map<String, String> metadata, Message... details) {
        var info = ErrorInfo.newBuilder().setDomain("trunkline").setReason(reason).putAllMetadata(metadata);
        var status = com.google.rpc.Status.newBuilder().setCode(code).setMessage(message);
        status.addDetails(Any.pack(info.build()));
        for (var detail : details) status.addDetails(Any.pack(detail));
        return StatusProto.toStatusRuntimeException(status.build());
    }

    static StatusRuntimeException unavailable(String problem) {
        return unavailable(problem, null);
    }

    static StatusRuntimeException unavailable(String problem, Throwable cause) {
        return Status.UNAVAILABLE.withDescription(problem).withCause(cause).asRuntimeException();
    }

    /** The error of messages that may be stored or not. */
    static StatusRuntimeException unknownOutcome(String problem, Throwable cause) {
        var unknown = error(Status.Code.UNAVAILABLE.value(), problem, "OUTCOME_UNKNOWN", Map.of());
        return unknown.getStatus().withCause(cause).asRuntimeException(unknown.getTrailers());
    }

    /** The thread stays interrupted. */
    static TrunklineException interrupted() {
        Thread.currentThread().interrupt();
        return new TrunklineException(
                Status.CANCELLED.withDescription("the thread was interrupted").asRuntimeException());
    }

    /**
     * Whether to try again. Nothing that is repeated here is done twice, even if the outcome of the first try is
     * unknown.
     */
    static boolean isTransient(StatusRuntimeException error) {
        var known = new TrunklineException(error);
        if (known.retryDelay().isPresent()) return true;
        return switch (known.code()) {
            case UNAVAILABLE -> true;
            // A broker gives a reason. Without one, a proxy or gRPC made the error out of a broken stream: the last
            // one if a server thinks that the connection has too many pings.
            case CANCELLED, UNKNOWN, INTERNAL, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED -> known.reason().isEmpty();
            default -> false;
        };
    }

    static String reason(StatusRuntimeException error) {
        return new TrunklineException(error).reason();
    }

    private Errors() {}
}

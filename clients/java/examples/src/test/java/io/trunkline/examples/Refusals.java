package io.trunkline.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.BadRequest.FieldViolation;
import com.google.rpc.ErrorInfo;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;

/** Checks of the errors that calls are refused with. */
final class Refusals {
    /** Checks why a call was refused, and returns its ErrorInfo. */
    static ErrorInfo assertRefused(Code code, String reason, StatusException refused)
            throws InvalidProtocolBufferException {
        assertEquals(code, refused.getStatus().getCode(), refused::getMessage);
        var info = detail(ErrorInfo.class, refused);
        assertEquals("trunkline", info.getDomain());
        assertEquals(reason, info.getReason());
        return info;
    }

    static FieldViolation violation(StatusException refused) throws InvalidProtocolBufferException {
        return detail(BadRequest.class, refused).getFieldViolations(0);
    }

    private static <T extends Message> T detail(Class<T> type, StatusException refused)
            throws InvalidProtocolBufferException {
        for (var detail : StatusProto.fromThrowable(refused).getDetailsList()) {
            if (detail.is(type)) return detail.unpack(type);
        }
        throw new AssertionError("the error has no " + type.getSimpleName(), refused);
    }

    private Refusals() {}
}

package io.trunkline.examples;

import io.grpc.CallCredentials;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.util.concurrent.Executor;

/**
 * A token, which says who is calling. {@code stub.withCallCredentials(token)} sends it with each call.
 * Without TLS, use it only for a broker on this machine.
 */
public final class BearerToken extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final String token;

    public BearerToken(String token) {
        this.token = token;
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
        var headers = new Metadata();
        headers.put(AUTHORIZATION, "Bearer " + token);
        applier.apply(headers);
    }

    /** Connects to a broker whose certificate must be signed by the authority in this file, in PEM. */
    public static ManagedChannel connect(String target, File authority) throws IOException {
        var tls = TlsChannelCredentials.newBuilder().trustManager(authority).build();
        return Grpc.newChannelBuilder(target, tls).build();
    }
}

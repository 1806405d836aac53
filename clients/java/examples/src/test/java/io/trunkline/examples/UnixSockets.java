package io.trunkline.examples;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import javax.net.SocketFactory;

/** Takes JDBC, which knows TCP alone, to the tests' PostgreSQL, which listens on a Unix socket alone. */
public final class UnixSockets extends SocketFactory {
    private final UnixDomainSocketAddress address;

    /** The driver gives it what the connection's {@code socketFactoryArg} says: the socket's path. */
    public UnixSockets(String path) {
        address = UnixDomainSocketAddress.of(path);
    }

    @Override
    public Socket createSocket() throws IOException {
        return new UnixSocket(SocketChannel.open(address));
    }

    @Override
    public Socket createSocket(String host, int port) {
        throw new UnsupportedOperationException("the driver connects its sockets itself");
    }

    @Override
    public Socket createSocket(String host, int port, InetAddress from, int fromPort) {
        return createSocket(host, port);
    }

    @Override
    public Socket createSocket(InetAddress host, int port) {
        return createSocket(host.getHostName(), port);
    }

    @Override
    public Socket createSocket(InetAddress host, int port, InetAddress from, int fromPort) {
        return createSocket(host, port);
    }

    /** Options are set on a TCP socket that is never connected, and change nothing. */
    private static final class UnixSocket extends Socket {
        private final SocketChannel channel;

        UnixSocket(SocketChannel channel) {
            this.channel = channel;
        }

        @Override
        public boolean isConnected() {
            return true;
        }

        @Override
        public InputStream getInputStream() {
            return Channels.newInputStream(channel);
        }

        @Override
        public OutputStream getOutputStream() {
            return Channels.newOutputStream(channel);
        }

        @Override
        public void close() throws IOException {
            channel.close();
            super.close();
        }
    }
}

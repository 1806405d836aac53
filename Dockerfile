# Builds the broker: docker build --tag trunkline .
FROM rust:1-bookworm AS build
WORKDIR /src
# The dependencies, in layers of their own: they are built again only when these two files change.
# Each target that Cargo.toml names needs a file, however empty.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src examples tests/it tests/faults benches \
    && touch src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs build.rs examples/quickstart.rs \
        tests/it/main.rs tests/faults/main.rs benches/inner.rs
RUN cargo build --release --locked --bin trunkline
# Sources may be older than the empty files, which Cargo would then take for the newer ones.
COPY . .
RUN touch build.rs src/lib.rs src/main.rs && cargo build --release --locked --bin trunkline

# The image holds no PostgreSQL: set TRUNKLINE_DATABASE_URL_FILE or TRUNKLINE_DATABASE_URL.
# It listens on all addresses, so it also needs certificates (compose.tls.yaml shows how to mount
# them), or TRUNKLINE_INSECURE=true if everyone who reaches the container may use the broker.
# The console and the metrics are served within the container only, unless TRUNKLINE_HTTP is
# 0.0.0.0:8080, which needs the same.
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Trunkline" \
      org.opencontainers.image.description="A streaming message broker that lives in PostgreSQL" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
# The authorities that a system trusts: for a database, a collector or an identity provider.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/trunkline /usr/local/bin/trunkline
# A number, so that Kubernetes can tell that it is not root. Files that are mounted must be readable
# for it.
USER 10001:10001
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=40s CMD ["trunkline", "health"]
ENTRYPOINT ["trunkline"]
CMD ["serve", "--listen", "0.0.0.0:50051"]

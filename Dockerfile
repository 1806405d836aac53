FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin trunkline

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Trunkline" \
      org.opencontainers.image.description="A streaming message broker that lives in PostgreSQL" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --user-group --no-create-home trunkline
COPY --from=build /src/target/release/trunkline /usr/local/bin/trunkline
USER trunkline
EXPOSE 50051 8080
# The image contains no PostgreSQL: set TRUNKLINE_DATABASE_URL.
# It listens on all addresses, so it also needs certificates (compose.tls.yaml shows how to mount
# them), or TRUNKLINE_INSECURE=true if everyone who reaches the container may use the broker.
# The console and the metrics are served within the container only, unless TRUNKLINE_HTTP is
# 0.0.0.0:8080, which needs the same.
HEALTHCHECK --interval=10s --timeout=6s --start-period=40s CMD ["trunkline", "health"]
ENTRYPOINT ["trunkline"]
CMD ["serve", "--listen", "0.0.0.0:50051"]

# docker build -t docex-proxy .
# docker build --target docexctl -t docexctl .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
# By name, so that nothing else of a working copy is sent along.
COPY cmd cmd
COPY configs configs
COPY internal internal
COPY metrics metrics
COPY pool pool
COPY provision provision
COPY proxy proxy
COPY registry registry
COPY router router
RUN CGO_ENABLED=0 go build -trimpath -o /out/ ./cmd/docex-proxy ./cmd/docexctl
# The place of the master key. A new volume takes its owner from here.
RUN install -d -m 0700 -o 65532 -g 65532 /out/etc/docex

# With a shell, for jobs that run several verbs.
FROM busybox:1 AS docexctl
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/etc/docex /etc/docex
COPY --from=build /out/docexctl /usr/local/bin/
USER 65532:65532
ENV DOCEX_MASTER_KEY_FILE=/etc/docex/master.key
ENTRYPOINT ["docexctl"]

# Without a shell there is no HEALTHCHECK; ask /healthz and /readyz on port 9127 from outside.
FROM scratch AS docex-proxy
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/etc/docex /etc/docex
COPY --from=build /out/docex-proxy /usr/local/bin/
USER 65532:65532
ENV DOCEX_PROXY_LISTEN=0.0.0.0:6432 DOCEX_PROXY_HTTP=0.0.0.0:9127 DOCEX_PROXY_MASTER_KEY_FILE=/etc/docex/master.key
EXPOSE 6432 9127
ENTRYPOINT ["/usr/local/bin/docex-proxy"]
CMD ["serve"]

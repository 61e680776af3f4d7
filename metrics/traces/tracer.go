package traces

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	queued        = 4096 // finished spans that wait to be sent; further ones are left out
	exportTimeout = 10 * time.Second
)

// Options is what a Tracer is made with.
type Options struct {
	Endpoint string      // host:port, OTLP over HTTP
	Sample   float64     // the share of logins and of transactions that are traced
	TLS      *tls.Config // nil: in the clear
	Version  string      // of the program
	Logger   *slog.Logger
}

// Tracer begins spans and sends them. A nil Tracer traces nothing.
type Tracer struct {
	sample   float64
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// New makes a Tracer. It connects when there is something to send. What the OTEL_EXPORTER_OTLP variables say, such as
// headers, holds unless Options say otherwise.
func New(ctx context.Context, o Options) (*Tracer, error) {
	sender := []otlptracehttp.Option{
		otlptracehttp.WithEndpoint(o.Endpoint), otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: exportTimeout, MaxElapsedTime: exportTimeout}),
	}
	if o.TLS == nil {
		sender = append(sender, otlptracehttp.WithInsecure())
	} else {
		sender = append(sender, otlptracehttp.WithTLSClientConfig(o.TLS))
	}
	exporter, err := otlptracehttp.New(ctx, sender...)
	if err != nil {
		return nil, err
	}
	from := resource.NewSchemaless(attribute.String("service.name", "docex-proxy"), attribute.String("service.version", o.Version))
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // it is decided by Sampled, before there is anything to sample
		sdk.WithResource(from),
		sdk.WithBatcher(&quiet{SpanExporter: exporter, logger: o.Logger}, sdk.WithMaxQueueSize(queued), sdk.WithExportTimeout(exportTimeout)),
	)
	return &Tracer{sample: o.Sample, provider: provider, tracer: provider.Tracer("github.com/docex-proxy/docex-proxy")}, nil
}

// Sampled draws whether the next thing is traced.
func (t *Tracer) Sampled() bool { return t != nil && rand.Float64() < t.sample }

// Close sends what waits to be sent, for as long as ctx lets it.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

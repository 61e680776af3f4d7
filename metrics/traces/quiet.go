package traces

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// complaintPause lies between two lines in the log about a collector that does not take spans, at least.
const complaintPause = time.Minute

// quiet is an exporter that keeps its failures to itself, but for a line in the log now and then. The library would hand
// them to a handler that the whole process shares.
type quiet struct {
	sdk.SpanExporter
	logger *slog.Logger
	last   atomic.Pointer[time.Time] // when the log was told
	lost   atomic.Int64              // spans since
}

// ExportSpans implements sdk.SpanExporter.
func (q *quiet) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := q.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	lost, now, last := q.lost.Add(int64(len(spans))), time.Now(), q.last.Load()
	if (last == nil || now.Sub(*last) >= complaintPause) && q.last.CompareAndSwap(last, &now) {
		q.lost.Add(-lost)
		q.logger.Warn("cannot send traces", "spans", lost, "error", err)
	}
	return nil
}

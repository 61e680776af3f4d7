package e2e_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is an OpenTelemetry collector that keeps what it is sent.
type receiver struct {
	*httptest.Server
	mutex sync.Mutex // guards what follows
	spans []*trace.Span
	bytes []byte // all that has come, uncompressed
}

func receive(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(r.take))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(w http.ResponseWriter, request *http.Request) {
	body, err := uncompressed(request)
	var message collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &message)
	}
	if err != nil || request.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(request.URL, err), http.StatusBadRequest)
		return
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.bytes = append(r.bytes, body...)
	for _, resource := range message.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			r.spans = append(r.spans, scope.Spans...)
		}
	}
}

func uncompressed(request *http.Request) ([]byte, error) {
	if request.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(request.Body)
	}
	reader, err := gzip.NewReader(request.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

// settings are those of a proxy that traces everything to the receiver.
func (r *receiver) settings() settings {
	return settings{"traces.endpoint": strings.TrimPrefix(r.URL, "http://"), "traces.insecure": "true", "traces.sample": "1"}
}

// told is what the receiver has been told of logins or of transactions, in their order: a line for each, with the spans
// within it.
func (r *receiver) told(name string) []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	slices.SortFunc(r.spans, func(a, b *trace.Span) int { return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano)) })
	var lines []string
	for _, span := range r.spans {
		if span.Name != name {
			continue
		}
		line := describe(span)
		for _, other := range r.spans {
			if bytes.Equal(other.ParentSpanId, span.SpanId) {
				line += " > " + describe(other)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func describe(span *trace.Span) string {
	var words []string
	for _, attribute := range span.Attributes {
		if attribute.Key != "docex.session_id" && attribute.Key != "docex.server_process_id" && attribute.Key != "db.system.name" {
			words = append(words, strings.TrimPrefix(attribute.Key, "docex.")+"="+value(attribute.Value))
		}
	}
	return strings.Join(append([]string{span.Name}, words...), " ")
}

func value(v *common.AnyValue) string {
	switch v := v.Value.(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *common.AnyValue_ArrayValue:
		var all []string
		for _, element := range v.ArrayValue.Values {
			all = append(all, value(element))
		}
		return strings.Join(all, ",")
	}
	return fmt.Sprint(v)
}

func TestLoginsAndTransactionsAreTracedWhateverCarriesThem(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "traced")
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			r := receive(t)
			changed := r.settings()
			changed["io"], changed["servers.main.max_connections"], changed["timeouts.queue_wait"] = driver, "1", "300ms"
			p := s.startProxy(t, changed)

			first, second := p.connect(t, a), p.connect(t, a)
			execute(t, first, "SELECT 'sesame'")
			execute(t, first, "BEGIN", "SELECT 1", "COMMIT")
			execute(t, first, "BEGIN")
			if code := failure(t, second, "SELECT 2"); code != "53300" {
				t.Errorf("SQLSTATE %s", code)
			}
			execute(t, first, "ROLLBACK")
			execute(t, second, "LISTEN news")
			execute(t, second, "SELECT 3")
			wrong := configure(t, p.dsn(a))
			wrong.Password = "openthedoor"
			if _, err := pgx.ConnectConfig(bounded(t), wrong); err == nil {
				t.Error("let in")
			}
			if err := p.stop(); err != nil { // which sends what is left
				t.Fatal(err)
			}

			const tenant = " tenant_id=traced isolation=role"
			const whole = "transaction" + tenant + " server=main transactions=1 > queue"
			sessions := []string{
				"session" + tenant + " > route > authenticate", "session" + tenant + " > route > authenticate",
				"session" + tenant + " db.response.status_code=28P01 > route > authenticate db.response.status_code=28P01",
			}
			if got := r.told("session"); !slices.Equal(got, sessions) {
				t.Errorf("sessions\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(sessions, "\n"))
			}
			transactions := []string{
				whole, whole, whole,
				"transaction" + tenant + " db.response.status_code=53300 transactions=1 > queue db.response.status_code=53300",
				whole, // LISTEN itself: that it has pinned the session is asked when it is over
				"transaction" + tenant + " pins=listen transactions=1",
			}
			if got := r.told("transaction"); !slices.Equal(got, transactions) {
				t.Errorf("transactions\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(transactions, "\n"))
			}
			r.holdsNothing(t, "SELECT", "sesame", "openthedoor", a.password)
		})
	}
}

// holdsNothing fails when one of the texts is anywhere in what the receiver got.
func (r *receiver) holdsNothing(t *testing.T, texts ...string) {
	t.Helper()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, text := range texts {
		if bytes.Contains(r.bytes, []byte(text)) {
			t.Errorf("%q is in what was sent", text)
		}
	}
}

func TestACollectorThatIsGoneHoldsNobodyUp(t *testing.T) {
	s := theSite(t)
	r := receive(t)
	changed := r.settings()
	r.Close()
	p := s.startProxy(t, changed)
	conn := p.connect(t, s.tenant(t, "traced"))
	for range 100 {
		execute(t, conn, "SELECT 1")
	}
	began := time.Now()
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if n := strings.Count(p.logged(), "traces"); n == 0 || n > 3 {
		t.Errorf("%d lines in the log", n)
	}
}

func TestTracesThatAreOffLeaveNoTrace(t *testing.T) {
	s := theSite(t)
	r := receive(t)
	changed := r.settings()
	changed["traces.sample"] = "0"
	p := s.startProxy(t, changed)
	conn := p.connect(t, s.tenant(t, "traced"))
	for range 100 {
		execute(t, conn, "SELECT 1")
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if sessions, transactions := r.told("session"), r.told("transaction"); len(sessions)+len(transactions) > 0 {
		t.Errorf("%v %v", sessions, transactions)
	}
}

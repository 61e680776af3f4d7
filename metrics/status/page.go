package status

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"uptime": uptime, "rate": rate, "milliseconds": milliseconds, "label": label,
}).Parse(pageText))

// longestFilter bounds what may be looked for, in bytes: more than a tenant's name has.
const longestFilter = 300

// policy lets the page's own style and script run, and ask where the page came from; nothing else.
const policy = "default-src 'none'; style-src 'nonce-%[1]s'; script-src 'nonce-%[1]s'; connect-src 'self'; img-src data:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// view is what the page is made of.
type view struct {
	*Figures
	Nonce, Filter string
}

// Page serves the page, with figures in it for a browser that runs no script. ?tenant= shows those tenants whose names
// contain a text.
func (b *Board) Page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		filter := filterOf(r)
		v := view{Figures: b.look(r.Context()).only(filter), Nonce: rand.Text(), Filter: filter}
		var text bytes.Buffer
		if err := page.Execute(&text, v); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Security-Policy", fmt.Sprintf(policy, v.Nonce))
		answer(w, "text/html; charset=utf-8", text.Bytes())
	})
}

// JSON serves the figures alone, with the same parameter.
func (b *Board) JSON() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, filter := b.look(r.Context()), filterOf(r)
		text, err := s.encoded()
		if filter != "" {
			text, err = json.Marshal(s.only(filter))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		answer(w, "application/json", text)
	})
}

func filterOf(r *http.Request) string {
	text := r.URL.Query().Get("tenant")
	return text[:min(len(text), longestFilter)]
}

func answer(w http.ResponseWriter, kind string, text []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.Write(text) //nolint:errcheck // the reader may be gone, which is its own affair
}

// uptime, rate and milliseconds write numbers as the script does.
func uptime(seconds int64) string {
	days, hours, minutes := seconds/86400, seconds/3600%24, seconds/60%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, seconds%60)
	}
	return fmt.Sprintf("%d s", seconds)
}

func rate(perSecond *float64) string {
	switch {
	case perSecond == nil:
		return "–"
	case *perSecond == 0 || *perSecond >= 10:
		return strconv.FormatFloat(*perSecond, 'f', 0, 64)
	}
	return strconv.FormatFloat(*perSecond, 'f', 1, 64)
}

func milliseconds(ms *float64) string {
	switch {
	case ms == nil:
		return "–"
	case *ms < 1:
		return strconv.FormatFloat(*ms, 'f', 2, 64) + " ms"
	case *ms < 10:
		return strconv.FormatFloat(*ms, 'f', 1, 64) + " ms"
	case *ms < 1000:
		return strconv.FormatFloat(*ms, 'f', 0, 64) + " ms"
	}
	return strconv.FormatFloat(*ms/float64(time.Second/time.Millisecond), 'f', 1, 64) + " s"
}

// label is a state in words.
func label(state string) string {
	if state == "" {
		return "unknown"
	}
	return state
}

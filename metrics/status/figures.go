package status

import "time"

// Figures is what the page shows, and status.json is.
type Figures struct {
	Version  string    `json:"version"`
	Now      time.Time `json:"now"`    // when the figures were taken
	Uptime   int64     `json:"uptime"` // seconds
	Ready    bool      `json:"ready"`
	Reason   string    `json:"reason,omitempty"` // why it is not ready
	Draining bool      `json:"draining"`

	All      Sum       `json:"all"`
	Servers  []Server  `json:"servers"`
	Tenants  []Tenant  `json:"tenants"` // the most active ones first
	Rest     Sum       `json:"rest"`    // those that are not among Tenants
	Refusals []Refusal `json:"refusals"`
}

// Server is one Postgres server of the configuration.
type Server struct {
	Name     string `json:"name"`
	Used     int    `json:"used"` // connections, those that are being opened included
	Max      int    `json:"max"`
	Idle     int    `json:"idle"`
	Waiting  int    `json:"waiting"`  // sessions that wait for a connection
	Failures int64  `json:"failures"` // connections that failed, since the proxy began
}

// Tenant is what one tenant does.
type Tenant struct {
	Name    string `json:"tenant"`
	State   string `json:"state"`   // a word of the registry's, "paused", or "" where nobody knows
	Clients int    `json:"clients"` // sessions
	Active  int    `json:"active"`  // server connections in use
	Waiting int    `json:"waiting"` // sessions that wait for a server connection
	// Rate is transactions a second, P99 the milliseconds that 99 of 100 did not exceed; nil where they are not known.
	Rate *float64 `json:"tps"`
	P99  *float64 `json:"p99_ms"`
	Pins int64    `json:"pins"` // since the proxy began
}

// Sum is tenants together.
type Sum struct {
	Tenants int     `json:"tenants"`
	Clients int     `json:"clients"`
	Active  int     `json:"active"`
	Waiting int     `json:"waiting"`
	Rate    float64 `json:"tps"`
	Pins    int64   `json:"pins"`
}

func (s *Sum) add(t *Tenant, tenants int) {
	s.Tenants += tenants
	s.Clients += t.Clients
	s.Active += t.Active
	s.Waiting += t.Waiting
	s.Pins += t.Pins
	if t.Rate != nil {
		s.Rate += *t.Rate
	}
}

// Refusal is how many clients were turned away for one reason, since the proxy began.
type Refusal struct {
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
}

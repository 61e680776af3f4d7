// Package status is the page that people look at: one file of HTML that asks for JSON once a second, and shows what that
// says of tenants, servers and refusals. It is given what it shows as functions, and changes nothing.
//
// It owns the page, its headers, the form of the JSON and their bounds. It does not measure, and knows neither pools nor
// the registry by themselves.
//
// The one invariant: what is shown is worked out at most once a second, however many look, and not at all while nobody
// does.
package status

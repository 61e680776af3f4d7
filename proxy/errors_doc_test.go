package proxy

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// composed are the errors whose words are put together where they arise, here or in package relay.
var composed = []string{
	`28P01 password authentication failed for user "USER"`,
	`53300 too many failed logins from this address for this tenant`,
	`53300 no server connection became free in DURATION`,
	`53300 the tenant has used up its N transactions a second for longer than one may wait`,
	`08006 cannot connect to server "NAME"`,
	`08006 the server connection could not be brought to the session's settings: …`,
	`08P01 invalid frontend message type N`,
	`08P01 invalid message length`,
	`26000 prepared statement "NAME" does not exist`,
	`26000 unnamed prepared statement does not exist`,
	`42P05 prepared statement "NAME" already exists`,
	`0A000 cached plan must not change result type`,
	`54000 too many prepared statements in this session`,
	`54000 prepared statement is too long`,
	`58000 internal error of the proxy`,
}

func TestThePageOfErrorsHasAllOfThemAndNoOther(t *testing.T) {
	words := strings.NewReplacer("%t", "TENANT", "%s", "SOURCE", "%d", "DETAIL", "%i", "TENANT")
	known := make(map[string]bool)
	for _, text := range composed {
		known[text] = true
	}
	for _, v := range slices.Concat(slices.Collect(maps.Values(refusals)), slices.Collect(maps.Values(own))) {
		if v.message != "" { // else it is that of a wrong password
			known[v.code+" "+words.Replace(v.message)] = true
		}
	}
	page, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| (\\w{5}) \\| `(.+?)` \\| .{20,} \\|$").FindAllStringSubmatch(string(page), -1) {
		text := row[1] + " " + row[2]
		if !known[text] {
			t.Errorf("docs/errors.md has %q, which nobody says", text)
		}
		delete(known, text)
	}
	for text := range known {
		t.Errorf("docs/errors.md lacks %q", text)
	}
}

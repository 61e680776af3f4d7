package registry_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	reasonEmpty   = "Tenant ID cannot be empty"
	reasonLong    = "Tenant ID cannot exceed 30 characters (PostgreSQL identifier limit)"
	reasonLetters = "Tenant ID must contain only letters, numbers, and underscores, and must start with a letter or " +
		"underscore (PostgreSQL identifier rules)"
)

func reasonSystem(id string) string {
	return "Tenant ID '" + id + "' matches system tenant pattern. " +
		"System tenant IDs (matching '^_docex_.*_$') are reserved."
}

func TestParseTenantIDAcceptsWhatDocEXAccepts(t *testing.T) {
	for _, text := range []string{"acme", "Acme", "ACME", "_a", "_", "docex_system", "public", "pg_x", "_docex_", "a1",
		strings.Repeat("x", 30)} {
		id, err := registry.ParseTenantID(text)
		if err != nil || string(id) != text {
			t.Errorf("ParseTenantID(%q) = %q, %v", text, id, err)
		}
	}
}

func TestParseTenantIDRejectsInDocEXsOwnWords(t *testing.T) {
	for text, reason := range map[string]string{
		"":                      reasonEmpty,
		"_docex_system_":        reasonSystem("_docex_system_"),
		"_docex_x_":             reasonSystem("_docex_x_"),
		"_docex__":              reasonSystem("_docex__"),
		"_docex_a-b_":           reasonSystem("_docex_a-b_"),
		strings.Repeat("x", 31): reasonLong,
		strings.Repeat("-", 31): reasonLong,
		"acme-corp":             reasonLetters,
		"1abc":                  reasonLetters,
		"tenant.x":              reasonLetters,
		"é":                     reasonLetters,
		" acme":                 reasonLetters,
		"acme ":                 reasonLetters,
		"a\x00b":                reasonLetters,
		"acme\n":                "Tenant ID cannot have leading or trailing whitespace",
		"acme\n\n":              reasonLetters,
		strings.Repeat("é", 16): reasonLetters, // 16 characters in 32 bytes
		strings.Repeat("é", 31): reasonLong,
	} {
		id, err := registry.ParseTenantID(text)
		invalid, ok := errors.AsType[*registry.InvalidTenantIDError](err)
		if !ok || id != "" {
			t.Errorf("ParseTenantID(%q) = %q, %v", text, id, err)
			continue
		}
		if invalid.Reason != reason || err.Error() != reason || invalid.Text != text {
			t.Errorf("ParseTenantID(%q): reason %q for %q, want %q", text, invalid.Reason, invalid.Text, reason)
		}
		if invalid.System != strings.HasPrefix(reason, "Tenant ID '") {
			t.Errorf("ParseTenantID(%q): System is %v", text, invalid.System)
		}
	}
}

func TestALoginPermitsItsTenantsUntilItExpires(t *testing.T) {
	end := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	one := registry.Login{Tenants: []registry.TenantID{"acme"}, ValidUntil: end}
	all := registry.Login{AllTenants: true}
	if !one.Permits("acme") || one.Permits("globex") || one.Permits("ACME") || !all.Permits("globex") {
		t.Error("Permits does not follow the login's tenants")
	}
	if one.Expired(end.Add(-time.Nanosecond)) || !one.Expired(end) || all.Expired(end) {
		t.Error("Expired does not follow the login's ValidUntil")
	}
}

func FuzzParseTenantID(f *testing.F) {
	for _, seed := range []string{"", "acme", "_docex_system_", "_docex_", "acme-corp", "acme\n", "é", "\xff", "1abc",
		strings.Repeat("x", 30), strings.Repeat("x", 31)} {
		f.Add(seed)
	}
	accepted := regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]{0,29}\z`)
	reserved := regexp.MustCompile(`\A_docex_.*_\z`)
	f.Fuzz(func(t *testing.T, text string) {
		id, err := registry.ParseTenantID(text)
		want := accepted.MatchString(text) && !reserved.MatchString(text)
		if (err == nil) != want {
			t.Fatalf("ParseTenantID(%q) = %q, %v", text, id, err)
		}
		if err == nil && (string(id) != text || id.IsSystem()) {
			t.Fatalf("ParseTenantID(%q) = %q, system %v", text, id, id.IsSystem())
		}
		if err != nil && (id != "" || err.Error() == "") {
			t.Fatalf("ParseTenantID(%q) = %q with error %q", text, id, err)
		}
	})
}

package proxy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy"
	"github.com/docex-proxy/docex-proxy/router"
)

func TestEveryReasonOfTheRouterHasItsSQLSTATE(t *testing.T) {
	for reason, want := range map[error]string{
		router.ErrNoTenant: "28000", router.ErrTenantConflict: "28000", router.ErrInvalidTenant: "28000", router.ErrNoUser: "28000",
		router.ErrUserContext: "28000", router.ErrSystemTenant: "42501", router.ErrUnknownTenant: "28P01", router.ErrUnknownLogin: "28P01",
		router.ErrNotPermitted: "28P01", router.ErrLoginExpired: "28P01", router.ErrNotAdopted: "55000", router.ErrSuspended: "55000",
		router.ErrDeleted: "55000", router.ErrProvisioning: "55000", router.ErrMoving: "57P03", router.ErrUnsupported: "0A000",
		router.ErrUnknownIsolate: "0A000", router.ErrNotAllowed: "0A000", router.ErrWrongDatabase: "3D000", router.ErrBadOptions: "08P01",
		router.ErrSettingRefused: "42501", router.ErrPoolMode: "22023", router.ErrRoute: "22023", router.ErrNoReplica: "0A000", router.ErrRegistryOffline: "08006",
	} {
		refusal := &router.Refusal{Err: reason, Tenant: "acme", Source: "the suffix of the user name", Detail: "detail"}
		code, message, hint, metric := proxy.Judge(refusal, false)
		if code != want || message == "" || metric == "" || metric == "internal" {
			t.Errorf("%v: %s %q, counted as %q; want %s", reason, code, message, metric, want)
		}
		if strings.Contains(message+hint, "%") {
			t.Errorf("%v: a placeholder is left: %q, %q", reason, message, hint)
		}
	}
}

func TestWhatAStrangerMustNotLearnLooksLikeAWrongPassword(t *testing.T) {
	_, want, _, _ := proxy.Judge(scram.ErrWrongPassword, false)
	for _, reason := range []error{router.ErrUnknownTenant, router.ErrUnknownLogin, router.ErrNotPermitted, router.ErrLoginExpired} {
		code, message, hint, _ := proxy.Judge(&router.Refusal{Err: reason, Tenant: "acme", Source: "x"}, false)
		if code != "28P01" || message != want || hint != "" {
			t.Errorf("%v: %s %q %q, want %q", reason, code, message, hint, want)
		}
	}
	code, message, hint, _ := proxy.Judge(&router.Refusal{Err: router.ErrUnknownTenant, Tenant: "acme", Source: "x"}, true)
	if code != "3D000" || message != `tenant "acme" is not provisioned` || !strings.Contains(hint, "docexctl tenant create acme") {
		t.Errorf("exposed: %s %q %q", code, message, hint)
	}
}

func TestErrorsOfTheServersSideDoNotLeakDetails(t *testing.T) {
	secret := errors.New("dial tcp 10.1.2.3:5432: password=hunter2")
	for _, err := range []error{&pool.ConnectError{Server: "main", Err: secret}, fmt.Errorf("unforeseen: %w", secret)} {
		_, message, hint, _ := proxy.Judge(err, true)
		if strings.Contains(message+hint, "hunter2") || strings.Contains(message+hint, "10.1.2.3") {
			t.Errorf("the client is told %q, %q", message, hint)
		}
	}
}

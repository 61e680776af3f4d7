//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// followed starts a standby, without which the server acknowledges nothing from then on, and a proxy that knows of it.
func followed(ctx context.Context, s *site) (err error) {
	s.standby, err = localpg.Start(ctx, localpg.Options{
		BinDir: s.options.BinDir, DataDir: s.path("standby"), StandbyOf: s.cluster, Settings: s.options.Settings, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if err := s.sql(ctx, database, sql); err != nil {
			return err
		}
	}
	host, port, err := net.SplitHostPort(s.server.address)
	if err != nil {
		return err
	}
	other := strconv.Itoa(s.standby.Port())
	s.environment = []string{
		fmt.Sprintf("DOCEX_PROXY_SERVERS_MAIN_HOST=%s,%s", host, s.standby.Host()),
		fmt.Sprintf("DOCEX_PROXY_SERVERS_MAIN_PORT=%s,%s", port, other),
		"DOCEX_PROXY_REGISTRY_DSN=" + strings.Replace(s.registryDSN, s.registry.address, s.registry.address+","+net.JoinHostPort(s.standby.Host(), other), 1),
	}
	if err := s.proxy.Stop(); err != nil {
		return err
	}
	s.clients.reset()
	return s.startProxy(ctx)
}

// promoted makes the standby the server.
func promoted(ctx context.Context, s *site) error {
	if s.standby == nil {
		return errors.New("there is no standby")
	}
	s.cluster, s.standby = s.standby, nil
	s.options.DataDir = s.path("standby")
	return s.sql(ctx, database, "SELECT pg_promote()")
}

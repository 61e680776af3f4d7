package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/configs"
)

func serveCommand() *cobra.Command {
	standard := configs.Default()
	var file, clientsAddress, statusAddress string
	command := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve until SIGTERM or SIGINT, then let transactions finish",
		Args:  noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			load := func() (*configs.Config, error) {
				config, err := configs.Load(file)
				if err != nil {
					return nil, err
				}
				if command.Flags().Changed("listen") {
					config.Listen = clientsAddress
				}
				if command.Flags().Changed("http") {
					config.HTTP = statusAddress
				}
				return config, config.Validate()
			}
			config, err := load()
			if err != nil {
				return err
			}
			takeover := newTakeover()
			defer takeover.stop()
			clients, status, err := listen(config, takeover.listen)
			if err != nil {
				return err
			}
			defer closeListeners(clients, status)
			return serveOn(command.Context(), config, load, takeover, clients, status, command.ErrOrStderr(), func() {
				printReady(command.OutOrStdout(), clients, status)
			})
		},
	}
	flags := command.Flags()
	flags.StringVar(&file, "config", "", "configuration `FILE`; without it defaults and environment hold")
	flags.StringVar(&clientsAddress, "listen", standard.Listen, "`ADDRESS` for clients, instead of the file's")
	flags.StringVar(&statusAddress, "http", standard.HTTP, "`ADDRESS` for metrics and status, instead of the file's; empty turns it off")
	return command
}

// listen opens the listeners. status is nil when it is off.
func listen(config *configs.Config, open func(name, address string) (net.Listener, error)) (clients, status net.Listener, err error) {
	if clients, err = open("clients", config.Listen); err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	if config.HTTP == "" {
		return clients, nil, nil
	}
	if status, err = open("status", config.HTTP); err != nil {
		clients.Close()
		return nil, nil, fmt.Errorf("http: %w", err)
	}
	return clients, status, nil
}

// listenTCP opens a listener, whatever its name.
func listenTCP(_, address string) (net.Listener, error) { return net.Listen("tcp", address) }

// closeListeners closes what a run may not have closed because it never began.
func closeListeners(clients, status net.Listener) {
	clients.Close()
	if status != nil {
		status.Close()
	}
}

// serveOn makes the graph and runs it on listeners that are open already, until ctx ends. load reads the configuration
// again, nil where there is no file.
func serveOn(ctx context.Context, config *configs.Config, load func() (*configs.Config, error), takeover *takeover, clients, status net.Listener, logs io.Writer, ready func()) error {
	logger, err := newLogger(config.Log, logs)
	if err != nil {
		return err
	}
	p, err := prepare(config)
	if err != nil {
		return err
	}
	if p.passwords == nil {
		logger.Warn("no master_key_file: servers have to let the proxy in without a password")
	}
	logger.Info("starting", "io", p.io(), "reactors", p.reactors)
	g, err := newGraph(ctx, config, p, takeover, logger)
	if err != nil {
		return err
	}
	g.load = load
	return g.run(ctx, clients, status, ready)
}

// printReady tells whoever has started the program, in one line, that clients are accepted and where.
func printReady(w io.Writer, clients, status net.Listener) {
	at := "off"
	if status != nil {
		at = status.Addr().String()
	}
	fmt.Fprintf(w, "ready: clients on %s, http on %s\n", clients.Addr(), at)
}

const (
	httpTimeout = 10 * time.Second
	httpGrace   = 2 * time.Second // for a request that is being answered at the end
)

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadTimeout: httpTimeout, WriteTimeout: httpTimeout, MaxHeaderBytes: 16 << 10}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), httpGrace)
	defer stop()
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // a browser keeps connections open on which it asks for nothing
	}
	<-failed
	return errors.Join(err, server.Close())
}

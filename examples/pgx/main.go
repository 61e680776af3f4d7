// Command pgx connects to the proxy with pgx and prints the schema that its tenant works in:
//
//	DSN='postgres://LOGIN:PASSWORD@127.0.0.1:6432/?options=-c%20docex.tenant_id%3Dacme' go run ./examples/pgx
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	config, err := pgx.ParseConfig(os.Getenv("DSN"))
	if err != nil {
		return err
	}
	// pgx can also name the tenant as a startup parameter of its own:
	//	config.RuntimeParams["docex.tenant_id"] = "acme"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var schema string
	if err := conn.QueryRow(ctx, "select current_schema()").Scan(&schema); err != nil {
		return err
	}
	fmt.Println(schema)
	return nil
}

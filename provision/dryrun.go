package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	verifierPattern    = regexp.MustCompile(`SCRAM-SHA-256\$[^']*`)
	placeholderPattern = regexp.MustCompile(`\$[1-9][0-9]*`)
	// readingPattern is what changes nothing: queries, and the transaction's own frame.
	readingPattern = regexp.MustCompile(`(?i)^(select|begin|rollback|commit)\b`)
)

// recorder is a pgx.QueryTracer that hands over the statements which change something.
type recorder func(statement string)

// TraceQueryStart implements pgx.QueryTracer.
func (r recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	sql := strings.TrimRight(strings.TrimSpace(data.SQL), ";")
	if readingPattern.MatchString(sql) {
		return ctx
	}
	if len(data.Args) > 0 {
		sql = placeholderPattern.ReplaceAllStringFunc(sql, func(placeholder string) string {
			n, err := strconv.Atoi(placeholder[1:])
			if err != nil || n > len(data.Args) {
				return placeholder
			}
			return literal(data.Args[n-1])
		})
	}
	r(shown(sql))
	return ctx
}

// shown is a statement as a dry run shows it.
func shown(sql string) string {
	sql = strings.TrimRight(strings.TrimSpace(sql), ";")
	return verifierPattern.ReplaceAllLiteralString(sql, "SCRAM-SHA-256$[redacted]") + ";"
}

// TraceQueryEnd implements pgx.QueryTracer.
func (recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// literal shows a statement's argument as SQL.
func literal(argument any) string {
	switch v := argument.(type) {
	case nil:
		return "NULL"
	case time.Time:
		return quoteLiteral(v.Format(time.RFC3339Nano))
	case []byte:
		return quoteLiteral(string(v)) // an encoded json value
	}
	v := reflect.ValueOf(argument)
	switch v.Kind() {
	case reflect.String:
		return quoteLiteral(v.String())
	case reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64:
		return fmt.Sprint(argument)
	default:
		encoded, err := json.Marshal(argument)
		if err != nil {
			return "NULL /* " + err.Error() + " */"
		}
		return quoteLiteral(string(encoded))
	}
}

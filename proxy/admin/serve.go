package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"
)

// longestCommand bounds one message, in bytes.
const longestCommand = 64 << 10

// The types of columns (Postgres documentation, section 52.64).
const (
	oidText = 25
	oidInt8 = 20
)

// parameters are what clients want to know of a server before they go on.
var parameters = [][2]string{
	{"server_version", "15.0 (docex-proxy console)"},
	{"server_encoding", "UTF8"},
	{"client_encoding", "UTF8"},
	{"DateStyle", "ISO, MDY"},
	{"TimeZone", "UTC"},
	{"integer_datetimes", "on"},
	{"standard_conforming_strings", "on"},
	{"is_superuser", "on"},
}

// Serve greets a client that has proved who it is, and answers its commands until it says goodbye, which is no error. The
// connection's owner ends it by closing it, and bounds how long one may be silent.
func (c *Console) Serve(ctx context.Context, conn io.ReadWriter) error {
	var out []byte
	for _, p := range parameters {
		out = put(out, &pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	out = put(out, &pgproto3.BackendKeyData{})
	out = ready(out)
	failed := false // the rest of an extended query is skipped
	for {
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		kind, body, err := read(conn)
		switch {
		case err != nil:
			return err
		case kind == 'X':
			return nil
		case kind == 'Q':
			out = ready(c.query(ctx, out, strings.TrimRight(string(body), "\x00")))
		case kind == 'S':
			failed, out = false, ready(out)
		case failed:
		default:
			failed, out = true, refuse(out, errUnsupported)
		}
	}
}

// read reads one message, framed and capped here.
func read(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > longestCommand {
		return 0, nil, fmt.Errorf("admin: a message of %d bytes", length)
	}
	body = make([]byte, length-4)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// put appends a message. One that cannot be encoded is longer than a gigabyte, which none of these is.
func put(out []byte, m pgproto3.BackendMessage) []byte {
	if longer, err := m.Encode(out); err == nil {
		return longer
	}
	return out
}

func ready(out []byte) []byte { return put(out, &pgproto3.ReadyForQuery{TxStatus: 'I'}) }

// query answers the commands of one text, up to the first that fails.
func (c *Console) query(ctx context.Context, out []byte, text string) []byte {
	empty := true
	for command := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(command) == "" {
			continue
		}
		empty = false
		t, err := c.run(ctx, command)
		if err != nil {
			return refuse(out, err)
		}
		out = t.encode(out)
	}
	if empty {
		out = put(out, &pgproto3.EmptyQueryResponse{})
	}
	return out
}

func refuse(out []byte, err error) []byte {
	response := pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000", Message: err.Error()}
	if e, ok := errors.AsType[*Error](err); ok {
		response.Code, response.Hint = e.Code, e.Hint
	}
	return put(out, &response)
}

func (t *table) encode(out []byte) []byte {
	if t.columns != nil {
		description := pgproto3.RowDescription{}
		for _, c := range t.columns {
			field := pgproto3.FieldDescription{Name: []byte(c.name), DataTypeOID: oidText, DataTypeSize: -1, TypeModifier: -1}
			if c.integer {
				field.DataTypeOID, field.DataTypeSize = oidInt8, 8
			}
			description.Fields = append(description.Fields, field)
		}
		out = put(out, &description)
	}
	for _, row := range t.rows {
		values := make([][]byte, len(row))
		for i, value := range row {
			switch v := value.(type) {
			case string:
				values[i] = []byte(strings.ReplaceAll(v, "\x00", ""))
			case int64:
				values[i] = strconv.AppendInt(nil, v, 10)
			}
		}
		out = put(out, &pgproto3.DataRow{Values: values})
	}
	return put(out, &pgproto3.CommandComplete{CommandTag: []byte(t.tag)})
}

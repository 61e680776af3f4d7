package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answerPatience is for one step of a script.
const answerPatience = 20 * time.Second

// session is a logged in connection on which the test speaks the protocol itself.
type session struct {
	*pgproto3.Frontend
	conn       net.Conn
	at         endpoint
	pid        uint32 // of BackendKeyData, with its secret
	key        []byte
	parameters map[string]string // what was reported at the start
	ids        identities
}

// dial logs in with further startup parameters.
func dial(t testing.TB, at endpoint, parameters map[string]string) *session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerPatience)
	defer cancel()
	config, err := pgconn.ParseConfig(at.dsn())
	if err != nil {
		t.Fatal(err)
	}
	// As most drivers do.
	config.RuntimeParams["application_name"] = "compat"
	for name, value := range parameters {
		config.RuntimeParams[name] = value
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SyncConn(ctx); err != nil {
		t.Fatal(err)
	}
	h, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	return &session{
		Frontend: pgproto3.NewFrontend(h.Conn, h.Conn), conn: h.Conn, at: at, pid: h.PID, key: h.SecretKey,
		parameters: h.ParameterStatuses, ids: make(identities),
	}
}

// say writes messages at once.
func (s *session) say(messages ...pgproto3.FrontendMessage) error {
	if err := s.conn.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return err
	}
	for _, m := range messages {
		s.Send(m)
	}
	return s.Flush()
}

// answers reads until the step is over, and writes down each message in a line.
func (s *session) answers(st step) (lines []string) {
	for ready := st.ready; ready > 0 || st.until != ""; {
		message, err := s.Receive()
		if err != nil {
			return append(lines, "the connection ended: "+ending(err))
		}
		kind := typeName(message)
		lines = append(lines, s.ids.written(kind, message))
		if kind == "ReadyForQuery" {
			ready--
		}
		if kind == st.until {
			return lines
		}
	}
	return lines
}

// typeName is the name of a message in the protocol's documentation.
func typeName(message any) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", message), "*pgproto3.")
}

// ending is what kind of end a connection had: a deadline tells a hang from a goodbye.
func ending(err error) string {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "by the test's patience"
	}
	return "by the server"
}

// cancel sends a cancel request for the session, and waits until it has been dealt with.
func (s *session) cancel() error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(s.at.host, s.at.port), answerPatience)
	if err != nil {
		return err
	}
	defer conn.Close()
	const cancelRequestCode = 80877102
	request := binary.BigEndian.AppendUint32(nil, uint32(12+len(s.key)))
	request = binary.BigEndian.AppendUint32(request, cancelRequestCode)
	request = append(binary.BigEndian.AppendUint32(request, s.pid), s.key...)
	if _, err := conn.Write(request); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(answerPatience)) //nolint:errcheck // a read that hangs is ended by the test
	conn.Read(make([]byte, 1))                           //nolint:errcheck // its end is the answer
	return nil
}

// identities numbers what two runs have different numbers for: a table is "the first table" in both.
type identities map[string]string

func (i identities) of(kind, number string) string {
	name, known := i[kind+number]
	if !known {
		name = fmt.Sprintf("%s-%d", kind, len(i)+1)
		i[kind+number] = name
	}
	return name
}

var (
	tableOID = regexp.MustCompile(`"TableOID":([1-9][0-9]*)`)
	typeOID  = regexp.MustCompile(`"DataTypeOID":([1-9][0-9]{4,})`)
	process  = regexp.MustCompile(`"PID":[0-9]+|process [0-9]+`)
	// What is empty says nothing, and the line of its source where Postgres found an error is nobody's business. The
	// routine is: postgres.js decides by it what to try again.
	silent = regexp.MustCompile(`"(File|Line|Type)":("[^"]*"|[0-9]+),?|"[A-Za-z]+":(""|null|0|\[\]),?`)
)

// written is one line for a message.
func (i identities) written(kind string, message any) string {
	text, err := json.Marshal(message)
	if err != nil {
		return kind + " " + err.Error()
	}
	line := tableOID.ReplaceAllStringFunc(string(text), func(found string) string { return `"TableOID":` + i.of("table", found) })
	line = typeOID.ReplaceAllStringFunc(line, func(found string) string { return `"DataTypeOID":` + i.of("type", found) })
	line = silent.ReplaceAllString(process.ReplaceAllString(line, "process"), "")
	return kind + " " + strings.ReplaceAll(line, ",}", "}")
}

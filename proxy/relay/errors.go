package relay

// Error is an error that the machine itself raises, as Postgres would word it.
type Error struct {
	Severity string // FATAL ends the session, ERROR does not
	Code     string // SQLSTATE
	Message  string
	Hint     string
	// File and Routine say where Postgres raises it; drivers decide by the routine. "" where only a proxy does.
	File, Routine string
}

func (e *Error) Error() string { return e.Severity + ": " + e.Message + " (SQLSTATE " + e.Code + ")" }

// Append writes the error as an ErrorResponse (section 55.8 names the fields).
func (e *Error) Append(b []byte) []byte {
	b, at := begin(b, 'E')
	b = appendString(append(b, 'S'), e.Severity)
	b = appendString(append(b, 'V'), e.Severity)
	b = appendString(append(b, 'C'), e.Code)
	b = appendString(append(b, 'M'), e.Message)
	if e.Hint != "" {
		b = appendString(append(b, 'H'), e.Hint)
	}
	if e.Routine != "" {
		b = appendString(append(b, 'F'), e.File)
		b = appendString(append(b, 'R'), e.Routine)
	}
	return end(append(b, 0), at)
}

func protocolViolation(message string) *Error {
	return &Error{Severity: "FATAL", Code: "08P01", Message: message}
}

// noSuchStatement is for a Bind ('B') or a Describe ('D').
func noSuchStatement(name []byte, kind byte) *Error {
	switch {
	case len(name) > 0:
		return &Error{Severity: "ERROR", Code: "26000", Message: `prepared statement "` + string(name) + `" does not exist`,
			File: "prepare.c", Routine: "FetchPreparedStatement"}
	case kind == 'B':
		return &Error{Severity: "ERROR", Code: "26000", Message: "unnamed prepared statement does not exist",
			File: "postgres.c", Routine: "exec_bind_message"}
	}
	return &Error{Severity: "ERROR", Code: "26000", Message: "unnamed prepared statement does not exist",
		File: "postgres.c", Routine: "exec_describe_statement_message"}
}

func statementExists(name []byte) *Error {
	return &Error{Severity: "ERROR", Code: "42P05", Message: `prepared statement "` + string(name) + `" already exists`,
		File: "prepare.c", Routine: "StorePreparedStatement"}
}

// planChanged is Postgres's answer for a statement whose rows are not any more what they were when it was prepared.
func planChanged() *Error {
	return &Error{Severity: "ERROR", Code: "0A000", Message: "cached plan must not change result type",
		File: "plancache.c", Routine: "RevalidateCachedQuery"}
}

func tooManyStatements() *Error {
	return &Error{
		Severity: "ERROR", Code: "54000", Message: "too many prepared statements in this session",
		Hint: "Close statements that are no longer needed, or raise limits.client_statements.",
	}
}

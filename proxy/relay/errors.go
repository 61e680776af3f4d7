package relay

// Error is an error that the machine itself raises, as Postgres would word it.
type Error struct {
	Severity string // FATAL ends the session, ERROR does not
	Code     string // SQLSTATE
	Message  string
	Hint     string
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
	return end(append(b, 0), at)
}

func protocolViolation(message string) *Error {
	return &Error{Severity: "FATAL", Code: "08P01", Message: message}
}

func noSuchStatement(name []byte) *Error {
	if len(name) == 0 {
		return &Error{Severity: "ERROR", Code: "26000", Message: "unnamed prepared statement does not exist"}
	}
	return &Error{Severity: "ERROR", Code: "26000", Message: `prepared statement "` + string(name) + `" does not exist`}
}

func statementExists(name []byte) *Error {
	return &Error{Severity: "ERROR", Code: "42P05", Message: `prepared statement "` + string(name) + `" already exists`}
}

func tooManyStatements() *Error {
	return &Error{
		Severity: "ERROR", Code: "54000", Message: "too many prepared statements in this session",
		Hint: "Close statements that are no longer needed, or raise limits.client_statements.",
	}
}

package proxy

import "io"

// DecodeStartup reads one opening packet as session.open does.
func DecodeStartup(r io.Reader) (code uint32, parameters map[string]string, err error) {
	code, body, err := readStartupPacket(r)
	if err != nil || code>>16 != 3 {
		return code, nil, err
	}
	parameters, err = decodeStartup(body)
	return code, parameters, err
}

// Judge gives what a client is told of an error.
func Judge(err error, expose bool) (code, message, hint, reason string) {
	v := judge(err, "alice.acme", expose)
	return v.code, v.message, v.hint, v.reason
}

// DecodeSASLInitial reads the body of a SASLInitialResponse.
func DecodeSASLInitial(body []byte) (mechanism string, data []byte, err error) {
	m, err := decodeSASLInitial(body)
	return m.AuthMechanism, m.Data, err
}

// Package secret derives the passwords of server roles from one master key, so that no password of a tenant is
// stored anywhere: docexctl writes the verifier of a derived password into Postgres, the proxy derives the same
// password when it connects. It owns the key file's format and who may read
// a file that holds a key, and nothing else.
package secret

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const keyLength = 32 // bytes

// Key is a master key. The zero Key derives nothing: Password panics.
type Key struct{ key []byte }

// New draws a random key.
func New() Key {
	key := make([]byte, keyLength)
	rand.Read(key) // never fails: crypto/rand ends the process instead
	return Key{key: key}
}

// Load reads a key file: 64 hexadecimal digits, one line. A file that CheckPrivate refuses is not read.
func Load(path string) (Key, error) {
	if err := CheckPrivate(path); err != nil {
		return Key{}, fmt.Errorf("master key: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Key{}, fmt.Errorf("master key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keyLength {
		return Key{}, fmt.Errorf("master key: %s does not hold %d hexadecimal digits", path, 2*keyLength)
	}
	return Key{key: key}, nil
}

// LoadOrCreate reads a key file, or writes a new one with mode 0600 where none is. Created reports which.
func LoadOrCreate(path string) (key Key, created bool, err error) {
	key, err = Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Key{}, false, fmt.Errorf("master key: %w", err)
	}
	key = New()
	switch err := publish(path, hex.EncodeToString(key.key)+"\n"); {
	case errors.Is(err, fs.ErrExist):
		key, err = Load(path)
		return key, false, err
	case err != nil:
		return Key{}, false, fmt.Errorf("master key: %w", err)
	}
	return key, true, nil
}

// publish makes a file appear with its whole content, or fails with fs.ErrExist: of two that start at once one wins,
// and the other finds what the winner wrote.
func publish(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".master-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Link(file.Name(), path)
}

// Password derives the password of a server role: base64url(HMAC-SHA-256(key, "role" NUL role NUL generation NUL)), 43 characters.
func (k Key) Password(role string, generation int) string {
	return base64.RawURLEncoding.EncodeToString(k.Derive("role", role, strconv.Itoa(generation)))
}

// Derive returns 32 bytes that depend on the key and on every part.
func (k Key) Derive(parts ...string) []byte {
	if len(k.key) == 0 {
		panic("secret: Derive on the zero Key")
	}
	mac := hmac.New(sha256.New, k.key)
	for _, part := range parts {
		mac.Write([]byte(part))
		mac.Write([]byte{0}) // no part holds a NUL, so the parts cannot run into each other
	}
	return mac.Sum(nil)
}

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/proxy"
)

// credentials is credentials.json: all that a program needs to use what dev has made.
type credentials struct {
	Proxy    proxyAddress    `json:"proxy"`
	Postgres postgresAddress `json:"postgres"`
	Logins   []tenantLogin   `json:"logins"`
	AppLogin loginPassword   `json:"app_login"` // for every tenant
	Admin    adminLogin      `json:"admin"`
}

type proxyAddress struct {
	Host string `json:"host"`
	Port int    `json:"port"`
	HTTP string `json:"http"` // host:port, "" when it is off
}

type postgresAddress struct {
	Host      string `json:"host"`
	Port      int    `json:"port"`
	Database  string `json:"database"`
	Superuser string `json:"superuser"` // needs no password from this machine
}

type tenantLogin struct {
	Tenant   string `json:"tenant"`
	Login    string `json:"login"`
	Password string `json:"password"`
	DSN      string `json:"dsn"`
}

type loginPassword struct {
	Login    string `json:"login"`
	Password string `json:"password"`
}

type adminLogin struct {
	loginPassword
	DSN string `json:"dsn"`
}

const adminDatabase = proxy.ConsoleDatabase

func newCredentials(made devMade, clients, status net.Addr, cluster *localpg.Cluster) credentials {
	host, port := reachable(clients)
	c := credentials{
		Proxy:    proxyAddress{Host: host, Port: port},
		Postgres: postgresAddress{Host: cluster.Host(), Port: cluster.Port(), Database: devDatabase, Superuser: cluster.Superuser()},
		Logins:   []tenantLogin{},
		AppLogin: loginPassword{made.app.name, made.app.password},
	}
	if status != nil {
		statusHost, statusPort := reachable(status)
		c.Proxy.HTTP = net.JoinHostPort(statusHost, strconv.Itoa(statusPort))
	}
	for _, login := range made.tenants {
		c.Logins = append(c.Logins, tenantLogin{
			Tenant: string(login.tenant), Login: login.name, Password: login.password,
			// The tenant in the user's name is what every driver can send.
			DSN: clientDSN(login.name+"."+string(login.tenant), login.password, host, port, login.database),
		})
	}
	c.Admin = adminLogin{loginPassword{made.admin.name, made.admin.password},
		clientDSN(made.admin.name, made.admin.password, host, port, adminDatabase)}
	return c
}

// reachable is where a client of this machine finds a listener.
func reachable(address net.Addr) (host string, port int) {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return address.String(), 0
	}
	if tcp.IP.IsUnspecified() {
		return "127.0.0.1", tcp.Port
	}
	return tcp.IP.String(), tcp.Port
}

func clientDSN(user, password, host string, port int, database string) string {
	dsn := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, password),
		Host:     net.JoinHostPort(host, strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return dsn.String()
}

// derivedLoginPassword is 43 characters that need no quoting in a URL or a shell.
func derivedLoginPassword(key secret.Key, login string) string {
	return base64.RawURLEncoding.EncodeToString(key.Derive("dev login", login))
}

// write replaces the file whole: a reader finds the old one or the new one.
func (c credentials) write(path string) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// print shows how each tenant is reached.
func (c credentials) print(w io.Writer) {
	for _, login := range c.Logins {
		fmt.Fprintf(w, "psql '%s'\n", login.DSN)
	}
}

package sqldb

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

// A cause says in one sentence why a database cannot be used, and what to change. It is an
// ErrBusy if waiting may mend it.
type cause struct {
	text  string
	waits bool
	err   error // of the server or the driver
}

// Error implements error.
func (c *cause) Error() string {
	var said error = c.err
	if e, ok := errors.AsType[*pgconn.PgError](c.err); ok {
		said = e // without the connection, which the driver describes at length
	}
	text := strings.Join(strings.Fields(said.Error()), " ")
	switch {
	case c.text == "" && c.waits:
		return ErrBusy.Error() + ": " + text
	case c.text == "":
		return text
	}
	return c.text + " (" + text + ")"
}

// Unwrap implements error.
func (c *cause) Unwrap() []error {
	if c.waits {
		return []error{c.err, ErrBusy}
	}
	return []error{c.err}
}

// networkCause is the cause of what no error of the server says: what came before its first word, and its role. silent is the text
// for a server that did not answer at all.
func networkCause(err error, silent string) *cause {
	if errors.Is(err, ErrReadOnly) {
		return &cause{"the server is a standby, or read-only: a primary is needed", true, err}
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return &cause{"the host " + e.Name + " is not known: correct it, unless the name is yet to come", true, err}
	}
	if isCertificate(err) {
		return &cause{"the certificate of the server is not accepted: name the authority that has signed it in the URL (sslrootcert for PostgreSQL), and the host as the certificate does", false, err}
	}
	return &cause{silent, true, err}
}

// isCertificate reports whether a certificate was not accepted.
func isCertificate(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	return verification || authority || host || invalid
}

// postgresCause explains why there is no connection, or why its first statements failed.
func postgresCause(err error) error {
	e, answered := errors.AsType[*pgconn.PgError](err)
	if !answered {
		switch text := err.Error(); {
		case strings.Contains(text, "server refused TLS connection"):
			return &cause{"the server does not speak TLS, which the URL demands: turn it on there (ssl = on), or set sslmode=disable", false, err}
		case strings.Contains(text, "read only connection"), strings.Contains(text, "server is in hot standby mode"):
			return &cause{"the server is a standby, or read-only: a primary is needed", true, fmt.Errorf("%w: %w", ErrReadOnly, err)}
		}
		return networkCause(err, "the server does not answer, or not as PostgreSQL: see that it runs, and that host and port are right")
	}
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(e.Message, t) })
	}
	c := &cause{err: err}
	switch {
	case e.Code == "28P01":
		c.text = "the server denies this user or password: correct them in the URL, or change the role (ALTER ROLE … PASSWORD)"
	case e.Code == "28000" && has("no pg_hba.conf entry") && has("no encryption", "SSL off"):
		c.text = "pg_hba.conf of the server does not let this user into this database from this address without TLS: set sslmode=require in the URL, or add a line to pg_hba.conf"
	case e.Code == "28000" && has("pg_hba.conf"):
		c.text = "pg_hba.conf of the server does not let this user into this database from this address: add a line for them"
	case strings.HasPrefix(e.Code, "28"):
		c.text = "the server does not let this user in: make the role (CREATE ROLE … LOGIN PASSWORD …), or correct the URL"
	case e.Code == "3D000":
		c.text = "there is no such database: make it (CREATE DATABASE … ENCODING 'UTF8'), or correct its name in the URL"
	case e.Code == "3F000":
		c.text = "no schema of the search_path exists: make one (CREATE SCHEMA), or change the search_path of the role"
	case e.Code == "42501" && has("for database"):
		c.text = "the role may not connect to this database: GRANT CONNECT ON DATABASE … TO …"
	case e.Code == "42501" && has("for schema"):
		c.text = "the role may not create tables in this schema: GRANT USAGE, CREATE ON SCHEMA … TO …, or make the role the owner of the database"
	case e.Code == "42501":
		c.text = "the role lacks a right to Watchword's tables: it must own them (ALTER TABLE … OWNER TO …)"
	case e.Code == "42704" || e.Code == "22023", e.Code == "08P01" && has("startup parameter"):
		c.text = "the server does not know an option of the URL, or a value of it: correct or remove that"
	case e.Code == "57P03":
		c.text, c.waits = "the server is starting, stopping or recovering: wait until it takes connections", true
	case e.Code == "25006":
		c.text, c.waits = "the server takes no writes: it is a standby, or read-only: a primary is needed", true
	case e.Code == "53300":
		c.text, c.waits = "the server has no connection left: raise its max_connections, or lower database.max_connections of the replicas", true
	default: // a PgBouncer without a server (08P01), out of resources, shut down, an I/O or internal error
		c.waits = slices.Contains([]string{"08", "53", "57", "58", "XX"}, e.Code[:min(2, len(e.Code))]) || postgresKind(err) != other
	}
	return c
}

// mysqlCause is postgresCause for MySQL and MariaDB.
func mysqlCause(err error) error {
	e, answered := errors.AsType[*mysql.MySQLError](err)
	if !answered {
		for refusal, text := range map[error]string{
			mysql.ErrNoTLS:             "the server does not speak TLS, which the URL demands: turn it on there, or remove tls from the URL",
			mysql.ErrUnknownPlugin:     "the user logs in by a plugin that is not supported: give the user a password (mysql_native_password, caching_sha2_password or ed25519)",
			mysql.ErrCleartextPassword: "the user logs in by a password in the clear: give the user another plugin",
			mysql.ErrOldPassword:       "the user has a password of the form before MySQL 4.1: set it anew",
			mysql.ErrNativePassword:    "the user logs in by mysql_native_password, which the URL forbids: remove allowNativePasswords",
		} {
			if errors.Is(err, refusal) {
				return &cause{text, false, err}
			}
		}
		return networkCause(err, "the server does not answer, or not as MySQL: see that it runs, and that host and port are right")
	}
	c := &cause{err: err}
	switch e.Number {
	case 1045, 1698: // ER_ACCESS_DENIED_ERROR, and without a password
		c.text = "the server denies this user or password, for this address and with or without TLS: correct the URL, or change the user (ALTER USER … IDENTIFIED BY …)"
	case 1044, 1142, 1143, 1227, 1370: // ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, …
		c.text = "the user lacks rights on this database: GRANT ALL ON database.* TO user, or correct the name of the database in the URL"
	case 1049: // ER_BAD_DB_ERROR
		c.text = "there is no such database: make it (CREATE DATABASE … CHARACTER SET utf8mb4), or correct its name in the URL"
	case 1130: // ER_HOST_NOT_PRIVILEGED
		c.text = "the server lets no user in from this address: make the user for it (CREATE USER …@'%'), or see its bind-address"
	case 1129: // ER_HOST_IS_BLOCKED
		c.text = "the server has blocked this address after many failed connections: run FLUSH HOSTS there"
	case 1862, 1820, 3118, 4151: // ER_MUST_CHANGE_PASSWORD_LOGIN, ER_MUST_CHANGE_PASSWORD, ER_ACCOUNT_HAS_BEEN_LOCKED
		c.text = "the user is locked, or the password has expired: unlock the user (ALTER USER … ACCOUNT UNLOCK), or set the password anew"
	case 3159: // ER_SECURE_TRANSPORT_REQUIRED
		c.text = "the server demands TLS: add tls=true to the URL"
	case 1193, 1231: // ER_UNKNOWN_SYSTEM_VARIABLE, ER_WRONG_VALUE_FOR_VAR
		c.text = "the server does not know an option of the URL, or a value of it: correct or remove that"
	case 1047: // ER_UNKNOWN_COM_ERROR
		c.text, c.waits = "the node of the cluster is not ready: it joins, or has lost the majority: wait, or mend the cluster", true
	case 1040, 1203, 1226: // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
		c.text, c.waits = "the server or the user has no connection left: raise max_connections there, or lower database.max_connections of the replicas", true
	case 1290, 1792, 1836: // read-only
		c.text, c.waits = "the server takes no writes: it is a replica, or read-only: a primary is needed", true
	case 1053: // ER_SERVER_SHUTDOWN
		c.text, c.waits = "the server is shutting down: start it again", true
	default:
		c.waits = mysqlKind(err) != other
	}
	return c
}

// schemaCause returns the cause of an error if the schema cannot be read or changed; nil: it
// is another error.
func (db *DB) schemaCause(err error) error {
	switch db.dialect {
	case Postgres:
		if e, answered := errors.AsType[*pgconn.PgError](err); answered && slices.Contains([]string{"42501", "3F000", "25006"}, e.Code) {
			return postgresCause(err)
		}
	case MySQL:
		if e, answered := errors.AsType[*mysql.MySQLError](err); answered && slices.Contains([]uint16{1044, 1142, 1143, 1227, 1370, 1290, 1792, 1836}, e.Number) {
			return mysqlCause(err)
		}
	}
	return nil
}

// ErrEncoding: the database does not keep all of Unicode.
var ErrEncoding = errors.New("the encoding of the database")

// checkEncoding returns an ErrEncoding unless the database keeps all of Unicode.
func checkEncoding(encoding string) error {
	if encoding == "UTF8" {
		return nil
	}
	return fmt.Errorf("%w is %s, which does not hold every name: make a new one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move the data there with pg_dump", ErrEncoding, encoding)
}

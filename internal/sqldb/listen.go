package sqldb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoNotifications: this database has no notifications, or a pooler in front of it
// does not pass them on, as PgBouncer in transaction mode.
var ErrNoNotifications = errors.New("sqldb: no notifications come through here")

const (
	// proofTimeout is how long the notification of prove may take.
	proofTimeout = 3 * time.Second
	// quietTimeout is how long a connection may bring no notification before it is
	// tested.
	quietTimeout = 15 * time.Second
)

// Listen calls heard with the payload of every notification (NOTIFY) on a channel until
// ctx ends or the connection is lost, and returns the reason. It has a connection of its
// own outside the pool. It calls ready when a notification is known to arrive; earlier
// ones are lost.
func (db *DB) Listen(ctx context.Context, channel string, ready func(), heard func(payload string)) error {
	if db.dialect != Postgres {
		return ErrNoNotifications
	}
	var conn *pgx.Conn
	err := db.credentials.connect(func(url string) error {
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			return errors.New("the database's URL cannot be read")
		}
		cfg.ConnectTimeout = dialTimeout
		maps.Copy(cfg.RuntimeParams, postgresForm)
		cfg.RuntimeParams["application_name"] = "watchword bell"
		cfg.ValidateConnect = postgresIsPrimary // a standby has no notifications
		conn, err = pgx.ConnectConfig(ctx, cfg)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqldb: listen: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(ctx) // on an error, too, it is closed
	}()
	if direct, err := isDirect(ctx, conn); err != nil {
		return fmt.Errorf("sqldb: listen: %w", err)
	} else if !direct {
		return ErrNoNotifications
	}
	// It is idle for long, and PostgreSQL before 14 does not know the setting.
	const patient = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
	if _, err := conn.Exec(ctx, patient); err != nil {
		return fmt.Errorf("sqldb: listen: %w", err)
	}
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return fmt.Errorf("sqldb: listen: %w", err)
	}
	if err := db.prove(ctx, conn, channel); err != nil {
		return err
	}
	ready()
	for {
		payload, err := wait(ctx, conn, quietTimeout)
		switch {
		case err == nil:
			heard(payload)
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("sqldb: listen: %w", err)
		default:
			ping, cancel := context.WithTimeout(ctx, dialTimeout)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				return fmt.Errorf("sqldb: listen: %w", err)
			}
		}
	}
}

// isDirect reports whether the connection leads to one backend of the server. A pooler
// gives clients a process id that it made up, and would leave LISTEN behind on a
// connection that another client has next.
func isDirect(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var backend uint32
	err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&backend)
	return backend == conn.PgConn().PID(), err
}

// prove sends a notification through the pool and waits for it.
func (db *DB) prove(ctx context.Context, conn *pgx.Conn, channel string) error {
	proof := "proof " + rand.Text()
	var ignored any
	if err := db.QueryRow(ctx, "SELECT pg_notify(?, ?)", channel, proof).Scan(&ignored); err != nil {
		return fmt.Errorf("sqldb: listen: %w", err)
	}
	deadline := time.Now().Add(proofTimeout)
	for {
		payload, err := wait(ctx, conn, time.Until(deadline))
		switch {
		case err == nil && payload == proof:
			return nil
		case err == nil:
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			return ErrNoNotifications
		default:
			return fmt.Errorf("sqldb: listen: %w", err)
		}
	}
}

func wait(ctx context.Context, conn *pgx.Conn, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = ctx.Err()
		}
		return "", err
	}
	return n.Payload, nil
}

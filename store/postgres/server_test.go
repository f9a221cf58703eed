package postgres

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/internal/services"
)

// shared is the server of all tests but those that kill theirs.
var shared *services.Set

func TestMain(m *testing.M) { services.Main(m, &shared, services.Postgres) }

// onServer runs a statement on the server's own database.
func onServer(t testing.TB, server *services.Service, statement string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatal(err)
	}
}

var databases atomic.Int64

// newDatabase makes an empty database and gives its URL.
func newDatabase(t testing.TB, server *services.Service) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	onServer(t, server, "create database "+name)
	t.Cleanup(func() { onServer(t, server, "drop database if exists "+name+" with (force)") })
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// testOptions are of a new database on the shared server.
func testOptions(t testing.TB) Options {
	return Options{URL: newDatabase(t, shared.Postgres), Logf: t.Logf}
}

// openTest opens a store or ends the test.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

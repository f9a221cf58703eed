package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// Report is what Inspect finds of a server.
type Report struct {
	Address  string // host:port of the one that answers
	Version  string // such as 15.8
	Major    int
	Database string
	Answers  time.Duration // to a query that reads nothing
	Standby  bool          // it only reads
	// Fsync, FullPageWrites and SynchronousCommit are its settings of these names, as a connection of ours has them.
	Fsync, FullPageWrites, SynchronousCommit string
	Connections                              int // that anybody has open now, this one not counted
	MaxConnections                           int // for those who are no superusers
}

// OldestVersion is the first major version that the schema works with; NodeConnections how many connections a node opens at most.
const (
	OldestVersion   = 14
	NodeConnections = 24
)

// Inspect asks a server what it is and how it is set, and changes nothing. URL is as for Open. Its errors are of one line and without the
// password.
func Inspect(ctx context.Context, url string) (r Report, err error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return r, oneLine(err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return r, oneLine(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r.Address = conn.PgConn().Conn().RemoteAddr().String()
	began := time.Now()
	if err := conn.Ping(ctx); err != nil {
		return r, oneLine(err)
	}
	r.Answers = time.Since(began)
	var number, reserved string
	err = conn.QueryRow(ctx, `select current_setting('server_version'), current_setting('server_version_num'), current_database(),
		pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
		(select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()),
		current_setting('max_connections')::int, current_setting('superuser_reserved_connections')`).Scan(
		&r.Version, &number, &r.Database, &r.Standby, &r.Fsync, &r.FullPageWrites, &r.SynchronousCommit,
		&r.Connections, &r.MaxConnections, &reserved)
	if err != nil {
		return r, oneLine(err)
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return r, fmt.Errorf("server_version_num is %q", number)
	}
	r.Major = n / 10000
	if n, err := strconv.Atoi(reserved); err == nil {
		r.MaxConnections -= n
	}
	return r, nil
}

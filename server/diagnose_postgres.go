package server

import (
	"context"
	"fmt"
	"net/url"

	"github.com/meshtalk/meshtalk/store/postgres"
)

func diagnosePostgres(ctx context.Context, o Options) []Finding {
	if o.Postgres.URL == "" {
		return nil
	}
	const key = "store.postgres.url"
	r, err := postgres.Inspect(ctx, o.Postgres.URL)
	if err != nil {
		return []Finding{away(key, postgresAddress(o.Postgres.URL), err)}
	}
	return []Finding{judgePostgres(r), judgeDurability(r), judgeConnections(r)}
}

// postgresAddress is host:port of a URL without what is secret in it; "" if it has none.
func postgresAddress(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	if u.Port() == "" && u.Host != "" {
		return u.Host + ":5432"
	}
	return u.Host
}

func judgePostgres(r postgres.Report) Finding {
	f := Finding{
		Check: "store.postgres.url",
		Value: fmt.Sprintf("%s, PostgreSQL %s, database %s, answers in %s", r.Address, r.Version, r.Database, short(r.Answers)),
	}
	switch {
	case r.Major < postgres.OldestVersion:
		return f.but(Failure, fmt.Sprintf("older than %d", postgres.OldestVersion), "the server does not start",
			fmt.Sprintf("pg_upgradecluster, to PostgreSQL %d or newer", postgres.OldestVersion))
	case r.Standby:
		return f.but(Failure, "a standby, which only reads", "messages: none is kept",
			"another store.postgres.url: several hosts and target_session_attrs=read-write find the primary")
	}
	return f
}

// judgeDurability: what the server has committed must be on its disk.
func judgeDurability(r postgres.Report) Finding {
	f := Finding{
		Check: "postgres durability",
		Value: fmt.Sprintf("fsync %s, full_page_writes %s, synchronous_commit %s", r.Fsync, r.FullPageWrites, r.SynchronousCommit),
	}
	const lost = "durability: acknowledged messages are lost when that host crashes"
	for _, s := range []struct{ name, value string }{
		{"fsync", r.Fsync}, {"full_page_writes", r.FullPageWrites}, {"synchronous_commit", r.SynchronousCommit},
	} {
		if s.value == "off" {
			return f.but(Failure, s.name+" is off", lost,
				fmt.Sprintf(`psql -c "alter system set %s = on" -c "select pg_reload_conf()" (and look for it in: select * from pg_db_role_setting)`, s.name))
		}
	}
	return f
}

func judgeConnections(r postgres.Report) Finding {
	f := Finding{
		Check: "postgres connections",
		Value: fmt.Sprintf("%d of %d in use, a node opens up to %d", r.Connections, r.MaxConnections, postgres.NodeConnections),
	}
	if free := r.MaxConnections - r.Connections; free < postgres.NodeConnections {
		return f.but(Warning, fmt.Sprintf("%d are left", max(free, 0)), "unless those in use are this node's: its start, and its speed under load",
			fmt.Sprintf(`psql -c "alter system set max_connections = %d" (and a restart of PostgreSQL), or fewer who use it`, 2*r.MaxConnections))
	}
	return f
}

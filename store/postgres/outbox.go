package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/meshtalk/meshtalk/store"
)

// oldestEvents are those of a partition with their messages, up to $3 bytes of content. A message that was recalled since has its content from
// table recalled.
const oldestEvents = `select e.id, e.kind, e.ts, coalesce(u.name, ''), v.name, e.seq, e.found, e.message_kind, e.msgid, coalesce(f.name, ''), e.sent, e.message_ts,
		e.type, e.content, e.message_target, e.large
	from (select o.*, m.seq is not null found, coalesce(m.kind, 0) message_kind, coalesce(m.msgid, '00000000-0000-0000-0000-000000000000') msgid,
			coalesce(m.sender, 0) sender, coalesce(m.id, '') sent, coalesce(m.ts, 0) message_ts, coalesce(m.type, 0) as type,
			coalesce(m.content, r.content) as content, coalesce(m.target, 0) message_target, coalesce(m.large, false) large,
			sum(coalesce(octet_length(m.content), octet_length(r.content))) over (order by o.id rows between unbounded preceding and 1 preceding) size
		from (select * from outbox where part = $1 order by id limit $2) o
		left join messages m on o.bucket > 0 and m.bucket = o.bucket and m.conv = o.conv and m.seq = o.seq and m.bucket >= (select first_bucket from meta)
		left join recalled r on r.conv = m.conv and r.seq = m.seq
	) e
	join convs v on v.id = e.conv
	left join users u on u.id = e.usr
	left join users f on f.id = e.sender
	where coalesce(e.size, 0) < $3 order by e.id`

// Outbox implements store.Store.
func (s *Store) Outbox(ctx context.Context, partition, limit int) (events []store.Event, err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if !s.opts.Outbox {
		return nil, nil
	}
	rows, err := s.reads.Query(ctx, oldestEvents, partition, max(limit, 1), pageBytes)
	if err != nil {
		return nil, s.failed("outbox", err)
	}
	var kind, messageKind int16
	var id, seq, target int64
	var sent []byte
	var found bool
	var e store.Event
	var m store.Message
	scans := []any{&id, &kind, &e.TS, &e.User, &e.Conv, &seq, &found, &messageKind, &m.MsgID, &m.From, &sent, &m.TS, &m.Type, &m.Content, &target, &m.Large}
	_, err = pgx.ForEachRow(rows, scans, func() error {
		event := e
		event.ID, event.Kind, event.Seq = uint64(id), store.EventKind(kind), uint64(seq)
		if found {
			message := m
			message.Kind, message.Conv, message.Seq, message.ID = store.Kind(messageKind), e.Conv, event.Seq, string(sent)
			message.Content = slices.Clone(m.Content)
			if message.Kind == store.Recall {
				message.Target = uint64(target)
			}
			event.Message = &message
		}
		events = append(events, event)
		return nil
	})
	return events, s.failed("outbox", err)
}

// Published implements store.Store. The content of a recalled message goes with the event of the recall, which comes after the message's.
func (s *Store) Published(ctx context.Context, partition int, ids []uint64) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if len(ids) == 0 {
		return nil
	}
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = int64(id)
	}
	return s.again(ctx, "outbox", func() error {
		_, err := s.reads.Exec(ctx, `with gone as (delete from outbox where part = $1 and id = any($2::bigint[]) returning kind, conv, target)
			delete from recalled r using gone g where g.kind = 2 and r.conv = g.conv and r.seq = g.target`, partition, list)
		return err
	})
}

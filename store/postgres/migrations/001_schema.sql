-- The schema of store/postgres. docs/postgres.md tells why it is cut like this.
--
-- Names of users and conversations stand once, in users and convs; everything else refers to their ids. A bucket is a day since the
-- Unix epoch, in UTC. Times are milliseconds since the Unix epoch. 0 stands for "none" where a column is not null.

-- +goose Up

-- One row: what the whole store agrees on.
create table meta (
    one          boolean primary key default true check (one),
    epoch        text not null,          -- identity of the store; see docs/postgres.md, "Restoring a backup"
    first_bucket int not null default 0, -- messages and inbox entries of earlier days are gone
    first_repeat int not null default 0  -- repeats of earlier days are not recognised any more
);
insert into meta (epoch) values (replace(gen_random_uuid()::text, '-', ''));

-- One row per partition of the log, moved by the first statement of every commit: the fence against a second owner.
create table offsets (
    part    int primary key,
    next    bigint not null default 0, -- the log's offset after the last commit
    commits bigint not null default 0, -- moves with every commit, also where there is no log
    owner   uuid                       -- the process of the last commit
);

-- Numbers commits, so that messages of one millisecond have an order.
create sequence commits cache 1;

-- Inbox heads. A commit moves the rows of its users in the order of their ids, and so keeps them locked to its end; the row is narrow and most
-- updates stay on its page (no column that changes is indexed).
create table users (
    id     bigint generated always as identity primary key, -- for commits: move heads
    name   text collate "C" not null,
    head   bigint not null default 0, -- the newest number given
    first  bigint not null default 0, -- the number at which a commit last began a day
    bucket int not null default 0     -- the day of the newest entry
) with (fillfactor = 70);
create unique index users_name on users (name); -- from a name to its id, for everything that has a user

-- The first number of each day in which a user got something: which days a page is in, and where an inbox begins.
create table user_days (
    usr    bigint not null,
    bucket int not null,
    first  bigint not null,
    primary key (usr, bucket) -- the days of one user
);

-- Conversations and their heads.
create table convs (
    id          bigint generated always as identity primary key, -- for commits: lock and move heads
    name        text collate "C" not null,
    a           bigint not null default 0, -- the users of a private conversation, as in its name
    b           bigint not null default 0,
    head        bigint not null default 0,
    ts          bigint not null default 0, -- of the newest message or event
    bucket      int not null default 0,
    events      int not null default 0,    -- recall events so far
    from_a      int not null default 0,    -- messages of a so far
    last_seq    bigint not null default 0, -- the newest message; events are no activity
    last_ts     bigint not null default 0,
    last_ord    bigint not null default 0,
    last_bucket int not null default 0,
    last_a      bigint not null default 0, -- the newest message of a, of b
    last_b      bigint not null default 0
) with (fillfactor = 70);
create unique index convs_name on convs (name);    -- from a name to its id
create index convs_a on convs (a) where a > 0;     -- a user's private conversations, for the list
create index convs_b on convs (b) where b > 0;     -- the same, for the other one

-- As user_days, for conversations.
create table conv_days (
    conv   bigint not null,
    bucket int not null,
    first  bigint not null,
    primary key (conv, bucket)
);

-- Messages and recall events, partitioned by day: retention detaches and drops whole days. The partitions are made by the store.
create table messages (
    conv    bigint not null,
    seq     bigint not null,
    ts      bigint not null,
    ord     bigint not null,   -- order of commits over all conversations
    sender  bigint not null,   -- users.id; 0 = the system
    type    bigint not null,
    target  bigint not null,   -- recall event: the message it took back; message: the event that took it back
    bucket  int not null,
    events  int not null,      -- recall events of the conversation up to here, itself counted
    from_a  int not null,      -- private: messages of a up to here, itself counted
    msgid   uuid not null,
    kind    smallint not null, -- store.Kind
    large   boolean not null,
    id      bytea not null,
    content bytea,             -- null for events and for what was recalled
    primary key (conv, seq, bucket) -- history; a message by its number, for inbox pages, recalls, lists
) partition by range (bucket);

-- Inbox entries: references to messages, in the same day as their message.
create table inbox (
    usr    bigint not null,
    n      bigint not null,
    conv   bigint not null,
    seq    bigint not null,
    bucket int not null,
    primary key (usr, n, bucket) -- pages of one inbox
) partition by range (bucket);

-- What repeats are recognised by, partitioned by some days.
create table repeats (
    msgid       uuid not null,
    seq         bigint not null, -- what a repeat is answered with
    ts          bigint not null,
    fingerprint bigint not null, -- of kind, conversation, type, target and content
    bucket      int not null,
    primary key (msgid, bucket)  -- one look-up per message and partition
) partition by range (bucket);

create table groups (
    id           bigint primary key, -- of the conversation
    size         int not null default 0,
    large_bucket int not null default 0,    -- the day of the newest message without inbox entries
    large_first  bigint not null default 0, -- the first of them
    deleted      boolean not null default false
);

create table members (
    grp    bigint not null,
    name   text collate "C" not null,
    usr    bigint not null,
    joined bigint not null,   -- the group's head at the join
    primary key (grp, name)   -- pages in byte order; is this user a member
);
create index members_usr on members (usr); -- the groups of a user

-- Positions. Written every second by each node, in one statement per table, and only forward.
create table positions (
    usr      bigint not null,
    terminal text collate "C" not null,
    pos      bigint not null,
    primary key (usr, terminal) -- the terminals of a user
) with (fillfactor = 70);

create table large_positions (
    usr      bigint not null,
    grp      bigint not null,
    terminal text collate "C" not null,
    pos      bigint not null,
    primary key (usr, grp, terminal) -- of a user's login
) with (fillfactor = 70);

create table reads (
    usr  bigint not null,
    conv bigint not null,
    pos  bigint not null,
    primary key (usr, conv) -- of a line of the list
) with (fillfactor = 70);

-- When a user was last online, and from which time on its tokens count.
create table marks (
    usr     bigint primary key,
    seen    bigint not null default 0,
    revoked bigint not null default 0
) with (fillfactor = 70);

-- What is to be told to business services. Rows leave as soon as they are published, so the table is short and must be vacuumed often.
create table outbox (
    part   int not null,
    id     bigint generated always as identity,
    kind   smallint not null, -- store.EventKind
    ts     bigint not null,
    usr    bigint not null,
    conv   bigint not null,
    seq    bigint not null,
    bucket int not null,      -- of the message
    target bigint not null,   -- of a recall event
    primary key (part, id)    -- the oldest of a partition; those that were published
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0);

-- The content of a recalled message until both of its events are published.
create table recalled (
    conv    bigint not null,
    seq     bigint not null,
    content bytea,
    primary key (conv, seq)
);

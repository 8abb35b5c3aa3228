-- What the registrar stores. Times are seconds since 1970; bytes are base64url.

-- A registration. The identifier is in plain text in `claims` while it is pending, and then in
-- `statement`.
CREATE TABLE registrations (
    id TEXT PRIMARY KEY,
    ap TEXT NOT NULL,
    sii_mac TEXT NOT NULL,
    region TEXT NOT NULL,
    -- 0 register, 1 prefer
    purpose BIGINT NOT NULL,
    language TEXT,
    claims TEXT,
    statement TEXT,
    -- src/state.rs
    state BIGINT NOT NULL,
    since BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    iat BIGINT NOT NULL,
    exp BIGINT NOT NULL,
    heartbeat_at BIGINT NOT NULL DEFAULT 0,
    -- 0 not in the feed, 1 to be added, 2 in the feed, 3 to be removed
    feed BIGINT NOT NULL DEFAULT 0,
    code_mac TEXT,
    code_expires_at BIGINT NOT NULL,
    tries_left BIGINT NOT NULL,
    resends BIGINT NOT NULL DEFAULT 0,
    resend_at BIGINT NOT NULL
);
-- All registrations of an identifier, or those of one application provider.
CREATE INDEX registrations_sii ON registrations (sii_mac, ap);
-- What a sweep or an erasure has to look at: never the whole table.
CREATE INDEX registrations_due ON registrations (state, due_at);
CREATE INDEX registrations_feed ON registrations (since) WHERE feed IN (1, 3);

-- The last six codes that were sent for an identifier, the newest first. Its row is also what
-- transactions about the same identifier wait for.
CREATE TABLE siis (
    sii_mac TEXT PRIMARY KEY,
    code_1 BIGINT NOT NULL DEFAULT 0,
    code_2 BIGINT NOT NULL DEFAULT 0,
    code_3 BIGINT NOT NULL DEFAULT 0,
    code_4 BIGINT NOT NULL DEFAULT 0,
    code_5 BIGINT NOT NULL DEFAULT 0,
    code_6 BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX siis_newest ON siis (code_1);

-- What stays of a mapping that is over: a consent signed at this time or before counts no more.
CREATE TABLE tombstones (
    sii_mac TEXT NOT NULL,
    state BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (sii_mac, at, state)
);
CREATE INDEX tombstones_at ON tombstones (at);

-- Replies to requests that may be sent again.
CREATE TABLE replies (
    ap TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    status BIGINT NOT NULL,
    body TEXT NOT NULL,
    retry_after BIGINT,
    -- The registration that it is about, so that both are erased together.
    registration TEXT,
    at BIGINT NOT NULL,
    PRIMARY KEY (ap, key)
);
CREATE INDEX replies_at ON replies (at);
CREATE INDEX replies_registration ON replies (registration) WHERE registration IS NOT NULL;

-- Preferences, each with the registration whose key made it.
CREATE TABLE preferences (
    -- SHA-256 of the line.
    name TEXT PRIMARY KEY,
    registration TEXT NOT NULL,
    region TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    line TEXT NOT NULL,
    feed BIGINT NOT NULL,
    -- 0 while it counts.
    ended_at BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX preferences_registration ON preferences (registration);
CREATE INDEX preferences_ended ON preferences (ended_at) WHERE ended_at > 0;
CREATE INDEX preferences_feed ON preferences (feed) WHERE feed IN (1, 3);

-- Batches of the feed that were closed: their first lines.
CREATE TABLE feed_batches (
    seq BIGINT PRIMARY KEY,
    header TEXT NOT NULL
);
-- Their other lines. What an added line says is in the row of its registration or preference, so
-- that it is erased with that row; what stays is its digest.
CREATE TABLE feed_lines (
    seq BIGINT NOT NULL,
    position BIGINT NOT NULL,
    -- 1 a mapping is added, 2 a preference is added, 3 either is removed
    kind BIGINT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (seq, position)
);

-- Mappings of new holders, until the other discovery providers have acknowledged them.
CREATE TABLE events (
    registration TEXT NOT NULL,
    dp TEXT NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    PRIMARY KEY (registration, dp)
);
CREATE INDEX events_next ON events (next_at);

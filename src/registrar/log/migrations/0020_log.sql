-- The log. Bytes are base64url without padding.
CREATE TABLE log_state (
    id BIGINT PRIMARY KEY,
    -- Entries.
    size BIGINT NOT NULL,
    -- The newest tree that was signed: no other of its size ever is.
    signed_size BIGINT NOT NULL,
    signed_root TEXT NOT NULL
);
INSERT INTO log_state (id, size, signed_size, signed_root) VALUES (1, 0, 0, '');
CREATE TABLE log_entries (
    place BIGINT PRIMARY KEY,
    entry TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
);
CREATE TABLE log_tiles (
    level BIGINT NOT NULL,
    number BIGINT NOT NULL,
    hashes TEXT NOT NULL,
    PRIMARY KEY (level, number)
);
CREATE TABLE log_manifests (
    name TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    place BIGINT NOT NULL UNIQUE,
    -- Entries of the tree of the epoch before; 0 where there was none.
    previous BIGINT NOT NULL,
    digest TEXT NOT NULL,
    -- Made once the entry is stored.
    proof TEXT,
    PRIMARY KEY (name, epoch)
);
CREATE TABLE log_requests (
    caller TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (caller, name)
);
CREATE INDEX log_requests_at ON log_requests (at);

-- The registrar's: statements on their way to the log, and where they are in it.
CREATE TABLE log_statements (
    jti TEXT PRIMARY KEY,
    -- Empty once the statement is deleted.
    salt TEXT NOT NULL,
    hash TEXT NOT NULL,
    queued_at BIGINT NOT NULL,
    -- Where it is in the log; null until the log has acknowledged it.
    place BIGINT
);
CREATE INDEX log_statements_waiting ON log_statements (queued_at) WHERE place IS NULL;

-- A user: the key that signs the list of clients, the list, and who may have key packages.
CREATE TABLE key_users (
    ssi TEXT PRIMARY KEY,
    uk TEXT NOT NULL,
    list TEXT NOT NULL,
    version BIGINT NOT NULL,
    policy TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);
-- The clients of the list.
CREATE TABLE key_clients (
    ssi TEXT NOT NULL,
    client TEXT NOT NULL,
    signature_key TEXT NOT NULL,
    PRIMARY KEY (ssi, client)
);
-- What a client's packages can be used for. A client has one or two of them.
CREATE TABLE key_kinds (
    ssi TEXT NOT NULL,
    client TEXT NOT NULL,
    kind TEXT NOT NULL,
    suite BIGINT NOT NULL,
    capabilities TEXT NOT NULL,
    PRIMARY KEY (ssi, client, kind)
);
-- Key packages. One that was given out keeps its row until it expires, without its content: so it
-- is known whose Welcome it is, and it cannot be uploaded again.
CREATE TABLE key_packages (
    reference TEXT PRIMARY KEY,
    init TEXT NOT NULL UNIQUE,
    ssi TEXT NOT NULL,
    client TEXT NOT NULL,
    kind TEXT NOT NULL,
    last_resort BIGINT NOT NULL,
    taken_at BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    package TEXT NOT NULL
);
CREATE INDEX key_packages_free ON key_packages (ssi, client, kind, last_resort, not_after)
    WHERE taken_at = 0;
CREATE INDEX key_packages_not_after ON key_packages (not_after);
CREATE INDEX key_packages_taken ON key_packages (taken_at) WHERE taken_at > 0 AND package <> '';
-- Identifiers that an issuer's mapping gives to a user, under a key.
CREATE TABLE key_identifiers (
    sii_mac TEXT PRIMARY KEY,
    ssi TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX key_identifiers_ssi ON key_identifiers (ssi);
-- Consent: state 1 asked, 2 granted, 3 revoked; an empty room stands for every room.
CREATE TABLE key_consents (
    ssi TEXT NOT NULL,
    requester TEXT NOT NULL,
    room TEXT NOT NULL,
    state BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (ssi, requester, room)
);
-- What a requester has asked in an hour.
CREATE TABLE key_limits (
    requester TEXT NOT NULL,
    hour BIGINT NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (requester, hour)
);
CREATE INDEX key_limits_hour ON key_limits (hour);

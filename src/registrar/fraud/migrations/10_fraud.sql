-- Messages and money by the hour (numbers of one prefix, addresses of one domain) or by the day
-- (budget of an application provider). `name` says what is counted; prefixes and domains are in it
-- as HMAC alone. `period` is when the hour or the day began. Crowded counters have several parts.
CREATE TABLE fraud_counts (
    name TEXT NOT NULL,
    period BIGINT NOT NULL,
    part BIGINT NOT NULL,
    messages BIGINT NOT NULL,
    money BIGINT NOT NULL,
    PRIMARY KEY (name, period, part)
);

-- Codes sent and entered, by the day and by what an application provider sends them to. Those sent
-- in the slice of time `slice` are `fresh`, those of the slice before `recent`, all others
-- `settled`: these should have been entered. A new `sample` begins with every closing.
CREATE TABLE fraud_conversions (
    name TEXT NOT NULL,
    period BIGINT NOT NULL,
    sample BIGINT NOT NULL,
    part BIGINT NOT NULL,
    slice BIGINT NOT NULL,
    fresh BIGINT NOT NULL,
    recent BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    entered BIGINT NOT NULL,
    PRIMARY KEY (name, period, sample, part)
);

-- What was closed because too few codes were entered: until when, and for how many hours.
CREATE TABLE fraud_closings (
    name TEXT NOT NULL PRIMARY KEY,
    sample BIGINT NOT NULL,
    hours BIGINT NOT NULL,
    until BIGINT NOT NULL
);

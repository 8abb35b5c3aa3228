//! Bounds of the rules against fraud, each with its reason.

use std::time::Duration;

/// Numbers of one prefix (the number without its last four digits) that get a code in an hour, over
/// all application providers, by default. A prefix has 10 000 numbers, so honest users reach this
/// only where many people of one block of numbers register in the same hour.
pub const FRAUD_PREFIX_AN_HOUR: u64 = 20;
/// Addresses of one email domain that get a code in an hour, over all application providers, by
/// default. A message by email costs nothing that a fraudster could earn, so this protects
/// mailboxes and the sender's reputation alone: a company may register all its people on one
/// morning.
pub const FRAUD_DOMAIN_AN_HOUR: u64 = 1_000;
/// Codes of a day, sent long enough ago to have been entered, from which a rate says something.
pub const FRAUD_CONVERSION_SENT: u64 = 50;
/// Fewest of a hundred codes that honest users enter.
pub const FRAUD_CONVERSION_PERCENT: u64 = 20;
/// A code counts as not entered once it was sent in a slice of time before the last one: five to
/// ten minutes ago. A code is valid for ten minutes, and nearly all are entered within two.
pub const FRAUD_SLICE_SECONDS: u64 = 300;
/// First time that something is closed for, in hours; each further time it is closed for twice as
/// long.
pub const FRAUD_CLOSED_HOURS: u64 = 1;
/// Longest time that something is closed for, in hours: the rules count by days.
pub const FRAUD_CLOSED_HOURS_MAX: u64 = 24;
/// How long after the end of a closing the next one is still twice as long.
pub const FRAUD_CLOSINGS_KEPT_SECONDS: u64 = 7 * 86_400;
/// How long counts of an hour or a day are kept after it began. A clock that is set back finds them
/// again.
pub const FRAUD_COUNTS_KEPT_SECONDS: u64 = 2 * 86_400;
/// Counters through which every request of an application provider passes are this many rows, each
/// with its share of the bound. A row is locked until its transaction is on the disk, which takes
/// 3 to 5 ms on a cheap one, and 200 registrations a second change it 400 times: on such a disk,
/// one row let 122 a second pass, eight rows 403, without the rest of a registration.
pub const FRAUD_PARTS: u64 = 8;
/// A budget of fewer messages a day is one row, for nothing gets crowded there.
pub const FRAUD_PARTS_MESSAGES_MIN: u64 = 10_000;
/// A budget of money is one row unless each part has so many times the highest price: what is left
/// of a part in the end is less than one price.
pub const FRAUD_PARTS_PRICES_MIN: u64 = 100;
/// Largest count, rate, price or sum of money in a rule: far from the end of a 64-bit column.
pub const FRAUD_NUMBER_MAX: u64 = 1_000_000_000_000;

/// How long a check for a recycled number may take.
pub const RECYCLING_TIME: Duration = Duration::from_secs(5);
/// Most checks at once; further ones are not made.
pub const RECYCLING_CHECKS_MAX: usize = 64;
/// Longest reply to a check. It is one object with one member.
pub const RECYCLING_REPLY_BYTES_MAX: usize = 16 << 10;
/// Longest bearer token. Those with signed claims have some 2 KiB.
pub const RECYCLING_TOKEN_BYTES_MAX: u64 = 16 << 10;

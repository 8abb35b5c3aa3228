//! Numbers of 32 bits, as they are on the wire: varints, which may hold more.
//!
//! prost keeps the lower 32 bits of a larger varint, so that shard 2^32 would be read as shard 0.
//! Whoever decodes a message calls [`check`] with the list of its number fields; a unit test
//! compares the lists with `message.rs`.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::request::Malformed;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holds {
    /// One or more uint32.
    U32,
    /// One or more int32, or values of an enum.
    I32,
    /// A message with such fields.
    Message(&'static [Field]),
}

/// A field of a message: its number, its name in docs/wire.md, what it holds.
pub(super) type Field = (u32, &'static str, Holds);

pub(super) const PIR_PARAMETER_REQUEST: &[Field] =
    &[(1, "protocol_version", Holds::U32), (4, "pir_scheme", Holds::I32)];

const LIMITS: &[Field] = &[
    (1, "queries_per_batch", Holds::U32),
    (2, "batches_in_flight", Holds::U32),
    (3, "bundles_per_connection", Holds::U32),
    (4, "deadline_ms", Holds::U32),
];

pub(super) const PIR_PARAMETER_RESPONSE: &[Field] = &[
    (1, "protocol_version", Holds::U32),
    (4, "response_status", Holds::I32),
    (5, "pir_scheme", Holds::I32),
    (19, "limits", Holds::Message(LIMITS)),
    (20, "retry_after_ms", Holds::U32),
];

pub(super) const PUBLIC_PARAMETERS: &[Field] = &[
    (3, "shard_count", Holds::U32),
    (4, "value_len", Holds::U32),
    (5, "pack_rows", Holds::U32),
    (6, "packs", Holds::U32),
    (7, "columns", Holds::U32),
    (8, "response_bits", Holds::U32),
    (9, "hint_bits", Holds::U32),
    (16, "shard_records_min", Holds::U32),
];

pub(super) const PIR_REQUEST: &[Field] = &[
    (1, "protocol_version", Holds::U32),
    (4, "pir_scheme", Holds::I32),
    (5, "shard", Holds::U32),
    (18, "deadline_ms", Holds::U32),
    (19, "pack", Holds::U32),
];

pub(super) const PIR_RESPONSE: &[Field] = &[
    (1, "protocol_version", Holds::U32),
    (4, "response_status", Holds::I32),
    (18, "retry_after_ms", Holds::U32),
];

pub(super) const HINT_REQUEST: &[Field] = &[(2, "shards", Holds::U32)];

pub(super) const HINT: &[Field] = &[(1, "shard", Holds::U32), (5, "response_status", Holds::I32)];

/// Refuses a message one of whose numbers does not fit 32 bits.
///
/// # Errors
/// The field that is too large, or `message` where it is no protobuf message.
pub(super) fn check(
    message: &'static str,
    mut body: &[u8],
    fields: &[Field],
) -> Result<(), Malformed> {
    let unreadable = |error: DecodeError| Malformed::unreadable(message, &error);
    while body.has_remaining() {
        let (tag, wire_type) = decode_key(&mut body).map_err(unreadable)?;
        let field = fields.iter().find(|(known, ..)| *known == tag);
        match (field, wire_type) {
            (Some(&(_, name, holds)), WireType::Varint) => {
                narrow(name, holds, decode_varint(&mut body).map_err(unreadable)?)?;
            }
            (Some(&(_, name, holds)), WireType::LengthDelimited) => {
                let bytes = decode_varint(&mut body).map_err(unreadable)?;
                let Some((mut inner, rest)) =
                    usize::try_from(bytes).ok().and_then(|bytes| body.split_at_checked(bytes))
                else {
                    return Err(Malformed::new(name, "cut off", format!("{bytes} bytes")));
                };
                body = rest;
                if let Holds::Message(fields) = holds {
                    check(message, inner, fields)?;
                    continue;
                }
                // Repeated numbers may come packed.
                while inner.has_remaining() {
                    narrow(name, holds, decode_varint(&mut inner).map_err(unreadable)?)?;
                }
            }
            _ => skip_field(wire_type, tag, &mut body, DecodeContext::default())
                .map_err(unreadable)?,
        }
    }
    Ok(())
}

fn narrow(name: &'static str, holds: Holds, value: u64) -> Result<(), Malformed> {
    let fits = match holds {
        Holds::U32 => u32::try_from(value).is_ok(),
        // Negative ones are sign-extended to 64 bits; some write them in 32.
        Holds::I32 => i32::try_from(value as i64).is_ok() || u32::try_from(value).is_ok(),
        Holds::Message(_) => true,
    };
    if fits { Ok(()) } else { Err(Malformed::new(name, "a number above 2^32", "below 2^32")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ALL: [(&str, &[Field]); 8] = [
        ("PirParameterRequest", PIR_PARAMETER_REQUEST),
        ("Limits", LIMITS),
        ("PirParameterResponse", PIR_PARAMETER_RESPONSE),
        ("PublicParameters", PUBLIC_PARAMETERS),
        ("PirRequest", PIR_REQUEST),
        ("PirResponse", PIR_RESPONSE),
        ("HintRequest", HINT_REQUEST),
        ("Hint", HINT),
    ];

    /// The number fields of every message of message.rs, as its attributes say.
    fn written() -> BTreeMap<String, Vec<(u32, String)>> {
        let mut messages: BTreeMap<String, Vec<(u32, String)>> = BTreeMap::new();
        let (mut message, mut tag) = (String::new(), None);
        for line in include_str!("message.rs").lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("pub struct ") {
                message = rest.split(' ').next().unwrap().to_owned();
            } else if let Some(rest) = line.strip_prefix("#[prost(") {
                let number = rest.starts_with("uint32") || rest.starts_with("int32");
                let nested = rest.starts_with("message, optional");
                let found = rest.split("tag = \"").nth(1).and_then(|rest| rest.split('"').next());
                tag = found.filter(|_| number || nested).map(|tag| tag.parse().unwrap());
            } else if let Some(rest) = line.strip_prefix("pub ")
                && let Some(tag) = tag.take()
            {
                let name = rest.split(':').next().unwrap().to_owned();
                messages.entry(message.clone()).or_default().push((tag, name));
            }
        }
        messages
    }

    #[test]
    fn every_number_of_every_message_is_listed() {
        let listed = ALL.map(|(message, fields)| {
            let fields = fields.iter().map(|&(tag, name, _)| (tag, name.to_owned()));
            (message.to_owned(), fields.collect())
        });
        assert_eq!(written(), BTreeMap::from(listed));
    }

    fn varint(tag: u32, value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::uint64::encode(tag, &value, &mut bytes);
        bytes
    }

    #[test]
    fn what_does_not_fit_32_bits_is_refused_in_every_field() {
        for (message, fields) in ALL {
            for &(tag, name, holds) in fields {
                if let Holds::Message(_) = holds {
                    continue;
                }
                let fits = |value| check("it", &varint(tag, value), fields);
                assert_eq!(fits(u64::from(u32::MAX)), Ok(()), "{message}.{name}");
                for value in [1 << 32, (1 << 32) + 16, u64::MAX >> 1] {
                    let error = fits(value).unwrap_err();
                    assert_eq!(error.field, name, "{message}: {value}");
                }
                let negative = fits(-1i64 as u64);
                assert_eq!(negative.is_ok(), matches!(holds, Holds::I32), "{message}.{name}");
            }
        }
    }

    #[test]
    fn packed_and_nested_numbers_are_read_too() {
        let mut packed = vec![0x12, 6, 1];
        packed.extend([0x80, 0x80, 0x80, 0x80, 0x10]); // 2^32
        assert_eq!(check("it", &packed, HINT_REQUEST).unwrap_err().field, "shards");
        assert!(check("it", &packed[..7], HINT_REQUEST).is_err(), "cut off");
        let inner = varint(3, 1 << 32);
        let mut nested = vec![0x9a, 1, inner.len() as u8];
        nested.extend(inner);
        let error = check("it", &nested, PIR_PARAMETER_RESPONSE).unwrap_err();
        assert_eq!(error.field, "bundles_per_connection");
    }
}

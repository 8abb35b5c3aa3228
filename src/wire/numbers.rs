//! Numbers of 32 bits, as they are on the wire: varints, which may hold more.
//!
//! prost keeps the lower 32 bits of a larger varint, so that shard 2^32 would be read as shard 0.
//! Whoever decodes a message calls [`check`] with the list of its fields.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::malformed::Malformed;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holds {
    /// One or more uint32.
    U32,
    /// One or more int32, or values of an enum.
    I32,
    /// A message with such fields.
    Message(&'static [Field]),
    /// No number of 32 bits.
    Other,
}

/// A field of a message: its number, its name in docs/wire.md, what it holds.
pub(super) type Field = (u32, &'static str, Holds);

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
        let checked = |(known, _, holds): &&Field| *known == tag && !matches!(holds, Holds::Other);
        let field = fields.iter().find(checked);
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
        Holds::Message(_) | Holds::Other => true,
    };
    if fits { Ok(()) } else { Err(Malformed::new(name, "a number above 2^32", "below 2^32")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{
        Hint, HintRequest, Limits, PirParameterRequest, PirParameterResponse, PirRequest,
        PirResponse, PublicParameters,
    };

    const ALL: [(&str, &[Field]); 8] = [
        ("PirParameterRequest", PirParameterRequest::FIELDS),
        ("Limits", Limits::FIELDS),
        ("PirParameterResponse", PirParameterResponse::FIELDS),
        ("PublicParameters", PublicParameters::FIELDS),
        ("PirRequest", PirRequest::FIELDS),
        ("PirResponse", PirResponse::FIELDS),
        ("HintRequest", HintRequest::FIELDS),
        ("Hint", Hint::FIELDS),
    ];

    fn varint(tag: u32, value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::uint64::encode(tag, &value, &mut bytes);
        bytes
    }

    #[test]
    fn what_does_not_fit_32_bits_is_refused_in_every_field() {
        let mut numbers = 0;
        for (message, fields) in ALL {
            for &(tag, name, holds) in fields {
                if let Holds::Message(_) | Holds::Other = holds {
                    continue;
                }
                numbers += 1;
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
        assert_eq!(numbers, 29);
    }
}

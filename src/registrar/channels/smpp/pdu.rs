//! PDUs that are sent, and receipts that are read.

use std::str;

use axum::body::Bytes;
use rusmpp::pdus::{BindTransceiver, DeliverSm, SubmitSm};
use rusmpp::tlvs::TlvValue;
use rusmpp::types::{COctetString, EmptyOrFullCOctetString, OctetString};
use rusmpp::values::{
    DataCoding, EsmClass, InterfaceVersion, MessageState, MessageType, Npi, RegisteredDelivery, Ton,
};
use zeroize::Zeroizing;

use crate::registrar::channels::config::SmppConfig;
use crate::registrar::channels::files::Credentials;
use crate::registrar::channels::gateway::{Delivery, Refused};
use crate::registrar::channels::gsm;
use crate::registrar::channels::message::Message;

/// How long the centre may try to deliver (SMPP 3.4, 7.1.1): ten minutes, as a code is good for.
const VALIDITY: &[u8] = b"000000001000000R\0";
/// Longest name of a sender that is not a number.
const SOURCE_LETTERS_MAX: usize = 11;
/// Longest short code; longer numbers are written with +.
const SHORT_CODE_DIGITS_MAX: usize = 8;
/// Longest message of SMPP 3.4, in octets.
const SHORT_MESSAGE_OCTETS_MAX: usize = 254;

/// How the centre knows us, and whom messages come from.
pub(super) struct Identity {
    system_id: COctetString<1, 16>,
    password: Zeroizing<String>,
    system_type: COctetString<1, 13>,
    source: (Ton, Npi, COctetString<1, 21>),
}

impl Identity {
    pub(super) fn new(config: &SmppConfig, known: &Credentials) -> Result<Self, &'static str> {
        let system_id = known.user.parse().map_err(
            |_| "the first line of the credentials is no system_id; expected at most 15 characters",
        )?;
        let password = known.password.clone();
        password.parse::<COctetString<1, 9>>().map_err(|_| {
            "the second line of the credentials is no password of SMPP; expected at most 8 \
             characters"
        })?;
        let system_type = config
            .system_type
            .parse()
            .map_err(|_| "system-type is too long; expected at most 12 characters")?;
        Ok(Self { system_id, password, system_type, source: source(&config.source)? })
    }

    pub(super) fn bind(&self) -> BindTransceiver {
        BindTransceiver::builder()
            .system_id(self.system_id.clone())
            .password(self.password.parse().unwrap_or_default())
            .system_type(self.system_type.clone())
            .interface_version(InterfaceVersion::Smpp3_4)
            .build()
    }

    /// The PDU of a message. Its text is wiped when the last copy is dropped; they share it.
    pub(super) fn submit(
        &self,
        message: &Message,
        receipts_wanted: bool,
    ) -> Result<SubmitSm, Refused> {
        let to = message.to.digits().ok_or(Refused::Rejected)?;
        let text = Zeroizing::new(gsm::encode(&message.text).map_err(|_| Refused::Rejected)?);
        if text.len() > SHORT_MESSAGE_OCTETS_MAX {
            return Err(Refused::Rejected);
        }
        let text = OctetString::from_bytes(Bytes::from_owner(Text(text)));
        let validity = EmptyOrFullCOctetString::from_static_slice(VALIDITY);
        let (source_ton, source_npi, source) = self.source.clone();
        Ok(SubmitSm::builder()
            .source_addr_ton(source_ton)
            .source_addr_npi(source_npi)
            .source_addr(source)
            .dest_addr_ton(Ton::International)
            .dest_addr_npi(Npi::Isdn)
            .destination_addr(to.parse().map_err(|_| Refused::Rejected)?)
            // The default of the library has a bit set.
            .esm_class(EsmClass::from(0))
            .validity_period(validity.map_err(|_| Refused::Rejected)?)
            .registered_delivery(RegisteredDelivery::from(u8::from(receipts_wanted)))
            .data_coding(DataCoding::McSpecific)
            .short_message(text.map_err(|_| Refused::Rejected)?)
            .build())
    }
}

struct Text(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The address that messages come from, with its type of number and numbering plan.
fn source(text: &str) -> Result<(Ton, Npi, COctetString<1, 21>), &'static str> {
    let expected = "source is no sender; expected a number with +, a short code of at most 8 \
                    digits, or a name of at most 11 letters, digits and spaces";
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b' ' | b'-' | b'.' | b'_');
    let (ton, npi, address) = match text.strip_prefix('+') {
        Some(number) if is_digits(number) && number.len() <= 15 => {
            (Ton::International, Npi::Isdn, number)
        }
        Some(_) => return Err(expected),
        None if is_digits(text) && text.len() <= SHORT_CODE_DIGITS_MAX => {
            (Ton::NetworkSpecific, Npi::Unknown, text)
        }
        None if is_digits(text) || text.len() > SOURCE_LETTERS_MAX => return Err(expected),
        None if text.trim() == text && !text.is_empty() && text.bytes().all(is_name) => {
            (Ton::Alphanumeric, Npi::Unknown, text)
        }
        None => return Err(expected),
    };
    Ok((ton, npi, address.parse().map_err(|_| expected)?))
}

/// The name and the outcome of a receipt; none where a PDU is none, or says that the message is
/// still on its way.
pub(super) fn receipt(deliver: &DeliverSm) -> Option<(String, Delivery)> {
    // Only these bits (SMPP 3.4, 5.2.12): the library reads the others apart.
    if deliver.esm_class.message_type != MessageType::ShortMessageContainsMCDeliveryReceipt {
        return None;
    }
    let mut id = None;
    let mut state = None;
    for value in deliver.tlvs().iter().filter_map(|tlv| tlv.value()) {
        match value {
            TlvValue::ReceiptedMessageId(found) => id = Some(found.as_str().to_owned()),
            TlvValue::MessageState(found) => state = Some(of_state(*found)),
            _ => {}
        }
    }
    // Centres of SMPP 3.3 say it in the text only (SMPP 3.4, appendix B).
    let text = str::from_utf8(deliver.short_message().as_ref()).unwrap_or_default();
    let field = |name| text.split_once(name)?.1.split([' ', '\n']).next();
    let id = id.or_else(|| field("id:").map(str::to_owned)).filter(|id| !id.is_empty())?;
    let state = state.or_else(|| field("stat:").map(of_word))?;
    Some((id, state?))
}

fn of_state(state: MessageState) -> Option<Delivery> {
    match state {
        MessageState::Delivered => Some(Delivery::Delivered),
        MessageState::Expired
        | MessageState::Deleted
        | MessageState::Undeliverable
        | MessageState::Unknown
        | MessageState::Rejected => Some(Delivery::Failed),
        _ => None,
    }
}

fn of_word(word: &str) -> Option<Delivery> {
    match word {
        "DELIVRD" => Some(Delivery::Delivered),
        "EXPIRED" | "DELETED" | "UNDELIV" | "UNKNOWN" | "REJECTD" => Some(Delivery::Failed),
        _ => None,
    }
}

#[cfg(test)]
#[path = "pdu_tests.rs"]
mod tests;

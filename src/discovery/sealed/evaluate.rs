//! The bodies of an evaluation: 16 blinded elements, and what the blinding key made of them.
//!
//! A request always has 16 elements: a device fills up with random ones, so that the size
//! says nothing. Whether an element is one of ristretto255 is found out by whoever evaluates or
//! verifies.

use prost::Message;
use prost::bytes::Bytes;

use super::errors::SealedError;
use crate::discovery::blind::{ELEMENT_BYTES, PROOF_BYTES};
use crate::limits::EVALUATE_BODY_BYTES_MAX;
use crate::wire::parameters::check_database_name;

/// Elements of a request.
pub const ELEMENTS: usize = 16;

/// Elements to evaluate with the blinding key of a database.
#[derive(Clone, PartialEq, Eq)]
pub struct EvaluateRequest {
    /// Whose blinding key: a valid name, perhaps of no database.
    pub database: String,
    /// Blinded elements.
    pub elements: [[u8; ELEMENT_BYTES]; ELEMENTS],
}

/// Evaluated elements, in the order of the request.
#[derive(Clone, PartialEq, Eq)]
pub struct EvaluateResponse {
    /// Evaluated elements.
    pub elements: [[u8; ELEMENT_BYTES]; ELEMENTS],
    /// Proof that one key evaluated all of them.
    pub proof: [u8; PROOF_BYTES],
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestMessage {
    #[prost(string, tag = "1")]
    database: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    elements: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseMessage {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    elements: Vec<Bytes>,
    #[prost(bytes = "bytes", tag = "2")]
    proof: Bytes,
}

impl EvaluateRequest {
    const NAME: &str = "request for evaluation";

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let elements = copied(&self.elements);
        RequestMessage { database: self.database.clone(), elements }.encode_to_vec()
    }

    /// Reads the message.
    ///
    /// # Errors
    /// Which field is not as it has to be.
    pub fn decode(bytes: &[u8]) -> Result<Self, SealedError> {
        let RequestMessage { database, elements } = read(Self::NAME, bytes)?;
        check_database_name(&database).map_err(|_| SealedError::Field {
            message: Self::NAME,
            field: 1,
            found: format!("{} bytes", database.len()),
            expected: "the name of a database",
        })?;
        Ok(Self { database, elements: sixteen(Self::NAME, 2, &elements)? })
    }
}

impl EvaluateResponse {
    const NAME: &str = "reply with evaluated elements";

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let proof = Bytes::copy_from_slice(&self.proof);
        ResponseMessage { elements: copied(&self.elements), proof }.encode_to_vec()
    }

    /// Reads the message.
    ///
    /// # Errors
    /// Which field is not as it has to be.
    pub fn decode(bytes: &[u8]) -> Result<Self, SealedError> {
        let ResponseMessage { elements, proof } = read(Self::NAME, bytes)?;
        let proof = proof.as_ref().try_into().map_err(|_| SealedError::Field {
            message: Self::NAME,
            field: 2,
            found: format!("{} bytes", proof.len()),
            expected: "64 bytes",
        })?;
        Ok(Self { elements: sixteen(Self::NAME, 1, &elements)?, proof })
    }
}

/// Decodes a message within the bound: its repeated fields grow to twenty times their bytes.
fn read<M: Message + Default>(message: &'static str, bytes: &[u8]) -> Result<M, SealedError> {
    let (found, max) = (bytes.len(), EVALUATE_BODY_BYTES_MAX);
    if found > max {
        return Err(SealedError::TooLong { what: message, found, max });
    }
    M::decode(bytes).map_err(|error| SealedError::Unreadable { message, detail: error.to_string() })
}

fn copied(elements: &[[u8; ELEMENT_BYTES]; ELEMENTS]) -> Vec<Bytes> {
    elements.iter().map(|element| Bytes::copy_from_slice(element)).collect()
}

fn sixteen(
    message: &'static str,
    field: u32,
    elements: &[Bytes],
) -> Result<[[u8; ELEMENT_BYTES]; ELEMENTS], SealedError> {
    let error =
        |found| SealedError::Field { message, field, found, expected: "16 elements of 32 bytes" };
    let elements: &[Bytes; ELEMENTS] =
        elements.try_into().map_err(|_| error(format!("{} elements", elements.len())))?;
    let mut sixteen = [[0; ELEMENT_BYTES]; ELEMENTS];
    for (to, from) in sixteen.iter_mut().zip(elements) {
        *to = from.as_ref().try_into().map_err(|_| error(format!("{} bytes", from.len())))?;
    }
    Ok(sixteen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements() -> [[u8; ELEMENT_BYTES]; ELEMENTS] {
        std::array::from_fn(|at| [at as u8 + 1; ELEMENT_BYTES])
    }

    fn request() -> EvaluateRequest {
        EvaluateRequest { database: "eu1".to_owned(), elements: elements() }
    }

    fn response() -> EvaluateResponse {
        EvaluateResponse { elements: elements(), proof: [9; PROOF_BYTES] }
    }

    #[test]
    fn messages_come_back() {
        assert!(EvaluateRequest::decode(&request().encode()).is_ok_and(|it| it == request()));
        assert!(EvaluateResponse::decode(&response().encode()).is_ok_and(|it| it == response()));
        assert!(request().encode().len() < 1_024);
        assert!(response().encode().len() < 1_024);
    }

    #[test]
    fn messages_cut_off_anywhere_are_refused() {
        let (request, response) = (request().encode(), response().encode());
        for end in 0..request.len() {
            assert!(EvaluateRequest::decode(&request[..end]).is_err(), "{end}");
        }
        for end in 0..response.len() {
            assert!(EvaluateResponse::decode(&response[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_flipped_bit_never_panics_and_never_gives_the_same_message() {
        let (there, back) = (request().encode(), response().encode());
        for bit in 0..there.len() * 8 {
            let mut bytes = there.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!EvaluateRequest::decode(&bytes).is_ok_and(|it| it == request()));
        }
        for bit in 0..back.len() * 8 {
            let mut bytes = back.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!EvaluateResponse::decode(&bytes).is_ok_and(|it| it == response()));
        }
    }

    #[test]
    fn other_counts_and_lengths_are_refused() {
        for count in [0, 1, 15, 17, 100] {
            let elements = vec![Bytes::from_static(&[1; 32]); count];
            let database = "eu1".to_owned();
            let bytes = RequestMessage { database, elements: elements.clone() }.encode_to_vec();
            assert!(EvaluateRequest::decode(&bytes).is_err(), "{count}");
            let proof = Bytes::from_static(&[1; 64]);
            let bytes = ResponseMessage { elements, proof }.encode_to_vec();
            assert!(EvaluateResponse::decode(&bytes).is_err(), "{count}");
        }
        for length in [0, 31, 33] {
            let mut elements = copied(&elements());
            elements[15] = Bytes::from(vec![1; length]);
            let bytes = RequestMessage { database: "eu1".to_owned(), elements }.encode_to_vec();
            assert!(EvaluateRequest::decode(&bytes).is_err(), "{length}");
        }
        for length in [0, 63, 65] {
            let (elements, proof) = (copied(&elements()), Bytes::from(vec![1; length]));
            let bytes = ResponseMessage { elements, proof }.encode_to_vec();
            assert!(EvaluateResponse::decode(&bytes).is_err(), "{length}");
        }
        for database in ["", "a/b", "..", &"a".repeat(65)] {
            let request = EvaluateRequest { database: database.to_owned(), ..request() };
            assert!(EvaluateRequest::decode(&request.encode()).is_err(), "{database}");
        }
        let mut long = request().encode();
        long.resize(EVALUATE_BODY_BYTES_MAX + 1, 0);
        assert!(matches!(EvaluateRequest::decode(&long), Err(SealedError::TooLong { .. })));
    }
}

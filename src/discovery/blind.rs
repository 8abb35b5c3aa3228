//! Blinded keys: the look-up key of an identifier and the key that seals its record, both from one
//! verifiable oblivious pseudorandom function (RFC 9497, ristretto255-SHA512, mode VOPRF).
//!
//! Who has the blinding key derives directly ([`BlindKey::derive`]). A client blinds identifiers
//! ([`blind`]), has the elements evaluated ([`BlindKey::evaluate`], which learns nothing of them),
//! and removes the blinds ([`Blinded::finalize`]) after it has verified that the key of the
//! directory evaluated all of them. How elements travel is not decided here.
//!
//! A sealed value is not authenticated by its seal, only by the signature of the record in it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use rand_core::{CryptoRng, RngCore};
use voprf::{
    BlindedElement, EvaluationElement, Group as _, Proof, Ristretto255, VoprfClient, VoprfServer,
};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use super::identifier::Identifier;
use super::jws::{base64url, from_base64url};
use crate::limits::{BLIND_KEY_FILE_BYTES_MAX, BLINDED_ELEMENTS_MAX};

/// Bytes of an element on its way, blinded or evaluated.
pub const ELEMENT_BYTES: usize = 32;
/// Bytes of the proof of a batch.
pub const PROOF_BYTES: usize = 64;
/// Bytes that a seal adds to a record.
pub const SEAL_BYTES: usize = 4;
/// Bytes that the function gives for an identifier.
pub const DERIVED_BYTES: usize = 64;

/// The first word of a file with a blinding key, so that no other file is taken for one.
const FILE_WORD: &str = "sotto-blind-1";

/// Why blinding did not succeed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum BlindError {
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(String),
    #[error("cannot {doing} the blinding key {path}: {error}")]
    File { doing: &'static str, path: String, error: io::Error },
    #[error(
        "{path} holds no blinding key: expected one line, \"{FILE_WORD} KEY\"; a lost key cannot \
         be recreated, a new one is a new database"
    )]
    NoKey { path: String },
    #[error(
        "{found} elements; expected 1 to {BLINDED_ELEMENTS_MAX}, send the rest in another request"
    )]
    Count { found: usize },
    #[error("{found} evaluated elements for {expected} that were sent; ask again")]
    Answered { found: usize, expected: usize },
    #[error("element {index} is no element of ristretto255, or is its identity")]
    Element { index: usize },
    #[error(
        "the proof does not hold for the blinding key of the directory: the elements were \
         evaluated with another key, or changed on their way"
    )]
    Proof,
    #[error("the blinding key of the directory is no element of ristretto255")]
    PublicKey,
    #[error("the value has {found} bytes; expected at least {SEAL_BYTES}, a sealed record")]
    Short { found: usize },
}

/// The secret key of the function. Whoever has it can guess identifiers offline.
pub struct BlindKey(VoprfServer<Ristretto255>);

/// What a client keeps until its elements are evaluated.
pub struct Blinded {
    identifiers: Vec<Identifier>,
    clients: Vec<VoprfClient<Ristretto255>>,
}

/// Evaluated elements and the proof that one key evaluated them.
#[derive(Clone)]
#[allow(missing_docs)] // Names say it.
pub struct Evaluated {
    pub elements: Vec<[u8; ELEMENT_BYTES]>,
    pub proof: [u8; PROOF_BYTES],
}

/// What the function gives for one identifier: the key to look up and the key to unseal.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Derived([u8; DERIVED_BYTES]);

impl BlindKey {
    /// A new key.
    pub fn generate() -> Result<Self, BlindError> {
        let key = VoprfServer::new_from_seed(&*drawn_seed()?, &[]);
        // One seed in 2^252 gives zero.
        key.map(Self).map_err(|_| BlindError::NoRandomness("it gave an unusable seed".into()))
    }

    /// The key of 32 bytes, a scalar that is not zero.
    fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VoprfServer::new_with_key(bytes).ok().map(Self)
    }

    /// Writes the key into a new file that only its owner reads. Never replaces a file.
    pub fn create(&self, path: &Path) -> Result<(), BlindError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let pair = Zeroizing::new(<[u8; 64]>::from(self.0.serialize()));
        let encoded = Zeroizing::new(base64url(&pair[..32]));
        let text = Zeroizing::new(format!("{FILE_WORD} {}\n", encoded.as_str()));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        opened
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .map_err(|error| file_error("create", path, error))
    }

    /// Reads a key that [`BlindKey::create`] wrote.
    pub fn read(path: &Path) -> Result<Self, BlindError> {
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path)
            .and_then(|file| file.take(BLIND_KEY_FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| file_error("read", path, error))?;
        Self::from_text(&text).ok_or_else(|| BlindError::NoKey { path: path.display().to_string() })
    }

    fn from_text(text: &str) -> Option<Self> {
        let (word, encoded) = text.trim_end().split_once(' ')?;
        let bytes = Zeroizing::new(from_base64url(encoded)?);
        if word != FILE_WORD {
            return None;
        }
        Self::from_bytes(bytes.as_slice().try_into().ok()?)
    }

    /// What the directory tells of this key, and clients verify evaluations with.
    pub fn public_key(&self) -> [u8; ELEMENT_BYTES] {
        Ristretto255::serialize_elem(self.0.get_public_key()).into()
    }

    /// What the function gives for an identifier.
    pub fn derive(&self, sii: &Identifier) -> Derived {
        self.derive_bytes(sii.as_str().as_bytes())
    }

    fn derive_bytes(&self, input: &[u8]) -> Derived {
        let mut output = self
            .0
            .evaluate(input)
            // An identifier is never longer than 65 535 bytes, and none is known that is hashed to
            // the identity: finding one is as hard as the discrete logarithm.
            .expect("this is a bug: an identifier that cannot be hashed");
        let derived = Derived(output.into());
        output.zeroize();
        derived
    }

    /// Evaluates what clients blinded, and proves that it was done with this key.
    pub fn evaluate(&self, elements: &[[u8; ELEMENT_BYTES]]) -> Result<Evaluated, BlindError> {
        self.evaluate_with(elements, &mut Drawn::new()?)
    }

    fn evaluate_with(
        &self,
        elements: &[[u8; ELEMENT_BYTES]],
        random: &mut (impl RngCore + CryptoRng),
    ) -> Result<Evaluated, BlindError> {
        check_count(elements.len())?;
        let blinded = decoded(elements, BlindedElement::deserialize)?;
        let made = self
            .0
            .batch_blind_evaluate(random, &blinded)
            .map_err(|_| BlindError::Count { found: elements.len() })?;
        Ok(Evaluated {
            elements: made.messages.iter().map(|element| element.serialize().into()).collect(),
            proof: made.proof.serialize().into(),
        })
    }
}

/// Blinds identifiers: what to keep, and the elements to have evaluated, in the same order.
pub fn blind(
    identifiers: &[Identifier],
) -> Result<(Blinded, Vec<[u8; ELEMENT_BYTES]>), BlindError> {
    check_count(identifiers.len())?;
    let mut random = Drawn::new()?;
    let mut blind_one = |identifier: &Identifier| {
        let made = VoprfClient::blind(identifier.as_str().as_bytes(), &mut random)
            .expect("this is a bug: an identifier of more than 65 535 bytes");
        (made.state, <[u8; ELEMENT_BYTES]>::from(made.message.serialize()))
    };
    let (clients, elements) = identifiers.iter().map(&mut blind_one).unzip();
    Ok((Blinded { identifiers: identifiers.to_vec(), clients }, elements))
}

impl Blinded {
    /// Removes the blinds: what the function gives for each identifier, in their order. Refused if
    /// not all of it was evaluated with the key whose public key this is.
    pub fn finalize(
        self,
        evaluated: &Evaluated,
        public_key: &[u8; ELEMENT_BYTES],
    ) -> Result<Vec<Derived>, BlindError> {
        let inputs: Vec<&[u8]> =
            self.identifiers.iter().map(|identifier| identifier.as_str().as_bytes()).collect();
        finalize(self.clients, inputs, evaluated, public_key)
    }
}

fn finalize(
    clients: Vec<VoprfClient<Ristretto255>>,
    inputs: Vec<&[u8]>,
    evaluated: &Evaluated,
    public_key: &[u8; ELEMENT_BYTES],
) -> Result<Vec<Derived>, BlindError> {
    let (found, expected) = (evaluated.elements.len(), clients.len());
    if found != expected {
        return Err(BlindError::Answered { found, expected });
    }
    let elements = decoded(&evaluated.elements, EvaluationElement::deserialize)?;
    let proof = Proof::deserialize(&evaluated.proof).map_err(|_| BlindError::Proof)?;
    let public_key =
        Ristretto255::deserialize_elem(public_key).map_err(|_| BlindError::PublicKey)?;
    let outputs = VoprfClient::batch_finalize(&inputs, &clients, &elements, &proof, public_key);
    let outputs = outputs.map_err(|_| BlindError::Proof)?;
    outputs
        .map(|output| {
            let mut output = output.map_err(|_| BlindError::Proof)?;
            let derived = Derived(output.into());
            output.zeroize();
            Ok(derived)
        })
        .collect()
}

impl Derived {
    /// One that was kept, as bytes.
    pub fn from_bytes(bytes: [u8; DERIVED_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep it by, which are secret.
    pub fn as_bytes(&self) -> &[u8; DERIVED_BYTES] {
        &self.0
    }

    /// The key under which the record lies in the database.
    pub fn lookup_key(&self) -> String {
        base64url(&self.0[..32])
    }

    /// Seals a record that was issued at this minute: the minute in four bytes, little-endian, then
    /// the record encrypted with ChaCha20. The same minute must never seal two records.
    pub fn seal(&self, issued: u32, record: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(SEAL_BYTES + record.len());
        value.extend_from_slice(&issued.to_le_bytes());
        value.extend_from_slice(record);
        self.apply_keystream(issued, &mut value[SEAL_BYTES..]);
        value
    }

    /// The minute and the record of a sealed value. Neither is authentic until the record is opened
    /// and names the same minute ([`super::open::open_sealed`]).
    pub fn unseal(&self, value: &[u8]) -> Result<(u32, Vec<u8>), BlindError> {
        let Some((issued, sealed)) = value.split_first_chunk() else {
            return Err(BlindError::Short { found: value.len() });
        };
        let issued = u32::from_le_bytes(*issued);
        let mut record = sealed.to_vec();
        self.apply_keystream(issued, &mut record);
        Ok((issued, record))
    }

    fn apply_keystream(&self, issued: u32, bytes: &mut [u8]) {
        let mut nonce = [0; 12];
        nonce[..SEAL_BYTES].copy_from_slice(&issued.to_le_bytes());
        let key: &[u8; 32] = self.0.last_chunk().expect("64 bytes end with 32");
        ChaCha20::new(key.into(), &nonce.into()).apply_keystream(bytes);
    }
}

fn check_count(found: usize) -> Result<(), BlindError> {
    if (1..=BLINDED_ELEMENTS_MAX).contains(&found) {
        Ok(())
    } else {
        Err(BlindError::Count { found })
    }
}

fn decoded<T>(
    elements: &[[u8; ELEMENT_BYTES]],
    decode: impl Fn(&[u8]) -> voprf::Result<T>,
) -> Result<Vec<T>, BlindError> {
    let decode_one = |(index, element): (usize, &[u8; ELEMENT_BYTES])| {
        decode(element).map_err(|_| BlindError::Element { index })
    };
    elements.iter().enumerate().map(decode_one).collect()
}

fn file_error(doing: &'static str, path: &Path, error: io::Error) -> BlindError {
    BlindError::File { doing, path: path.display().to_string(), error }
}

fn drawn_seed() -> Result<Zeroizing<[u8; 32]>, BlindError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| BlindError::NoRandomness(error.to_string()))?;
    Ok(seed)
}

/// A generator of its own for each operation: ChaCha20 under a key that the operating system drew,
/// so that only the draw can fail.
struct Drawn(ChaCha20);

impl Drawn {
    fn new() -> Result<Self, BlindError> {
        Ok(Self(ChaCha20::new((&*drawn_seed()?).into(), &[0; 12].into())))
    }
}

impl RngCore for Drawn {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
        self.0.apply_keystream(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Drawn {}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9497, appendix A.1.2: the secret key that all three vectors share, and its public key.
    const SECRET: &str = "e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909";
    const PUBLIC: &str = "c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e";

    /// One of them. Batches separate their elements by commas.
    struct Vector {
        inputs: &'static str,
        blinds: &'static str,
        blinded: &'static str,
        evaluated: &'static str,
        proof: &'static str,
        proof_random: &'static str,
        outputs: &'static str,
    }

    const VECTORS: [Vector; 3] = [
        Vector {
            inputs: "00",
            blinds: "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706",
            blinded: "863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945",
            evaluated: "aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e",
            proof: "ddef93772692e535d1a53903db24367355cc2cc78de93b3be5a8ffcc6985dd06\
                    6d4346421d17bf5117a2a1ff0fcb2a759f58a539dfbe857a40bce4cf49ec600d",
            proof_random: "222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e",
            outputs: "b58cfbe118e0cb94d79b5fd6a6dafb98764dff49c14e1770b566e42402da1a7d\
                      a4d8527693914139caee5bd03903af43a491351d23b430948dd50cde10d32b3c",
        },
        Vector {
            inputs: "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
            blinds: "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706",
            blinded: "cc0b2a350101881d8a4cba4c80241d74fb7dcbfde4a61fde2f91443c2bf9ef0c",
            evaluated: "60a59a57208d48aca71e9e850d22674b611f752bed48b36f7a91b372bd7ad468",
            proof: "401a0da6264f8cf45bb2f5264bc31e109155600babb3cd4e5af7d181a2c9dc0a\
                    67154fabf031fd936051dec80b0b6ae29c9503493dde7393b722eafdf5a50b02",
            proof_random: "222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e",
            outputs: "8a9a2f3c7f085b65933594309041fc1898d42d0858e59f90814ae90571a6df60\
                      356f4610bf816f27afdd84f47719e480906d27ecd994985890e5f539e7ea74b6",
        },
        Vector {
            inputs: "00,5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
            blinds: "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706,\
                     222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e",
            blinded: "863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945,\
                      90a0145ea9da29254c3a56be4fe185465ebb3bf2a1801f7124bbbadac751e654",
            evaluated: "aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e,\
                        cc5ac221950a49ceaa73c8db41b82c20372a4c8d63e5dded2db920b7eee36a2a",
            proof: "cc203910175d786927eeb44ea847328047892ddf8590e723c37205cb74600b0a\
                    5ab5337c8eb4ceae0494c2cf89529dcf94572ed267473d567aeed6ab873dee08",
            proof_random: "419c4f4f5052c53c45f3da494d2b67b220d02118e0857cdbcf037f9ea84bbe0c",
            outputs: "b58cfbe118e0cb94d79b5fd6a6dafb98764dff49c14e1770b566e42402da1a7d\
                      a4d8527693914139caee5bd03903af43a491351d23b430948dd50cde10d32b3c,\
                      8a9a2f3c7f085b65933594309041fc1898d42d0858e59f90814ae90571a6df60\
                      356f4610bf816f27afdd84f47719e480906d27ecd994985890e5f539e7ea74b6",
        },
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn array<const N: usize>(hex: &str) -> [u8; N] {
        bytes(hex).try_into().unwrap()
    }

    fn arrays<const N: usize>(list: &str) -> Vec<[u8; N]> {
        list.split(',').map(array).collect()
    }

    /// Gives scalars, each as 64 bytes that are reduced to it.
    struct Scalars(Vec<[u8; 32]>);

    impl RngCore for Scalars {
        fn next_u32(&mut self) -> u32 {
            unreachable!("scalars are drawn as bytes")
        }

        fn next_u64(&mut self) -> u64 {
            unreachable!("scalars are drawn as bytes")
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            bytes.fill(0);
            bytes[..32].copy_from_slice(&self.0.remove(0));
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    impl CryptoRng for Scalars {}

    #[test]
    fn rfc_9497_ristretto255_sha512_voprf() {
        let key = BlindKey::from_bytes(&array(SECRET)).unwrap();
        assert_eq!(key.public_key(), array(PUBLIC));
        for vector in VECTORS {
            let inputs: Vec<Vec<u8>> = vector.inputs.split(',').map(bytes).collect();
            let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            let mut random = Scalars(arrays(vector.blinds));
            let made: Vec<_> = inputs
                .iter()
                .map(|input| VoprfClient::<Ristretto255>::blind(input, &mut random).unwrap())
                .collect();
            let blinded: Vec<[u8; 32]> =
                made.iter().map(|made| made.message.serialize().into()).collect();
            assert_eq!(blinded, arrays(vector.blinded));

            let mut random = Scalars(vec![array(vector.proof_random)]);
            let evaluated = key.evaluate_with(&blinded, &mut random).unwrap();
            assert_eq!(evaluated.elements, arrays(vector.evaluated));
            assert_eq!(evaluated.proof, array(vector.proof));

            let clients = made.into_iter().map(|made| made.state).collect();
            let outputs = finalize(clients, inputs.clone(), &evaluated, &key.public_key()).unwrap();
            for ((output, expected), input) in
                outputs.iter().zip(arrays(vector.outputs)).zip(inputs)
            {
                assert_eq!(output.as_bytes(), &expected);
                assert_eq!(key.derive_bytes(input).as_bytes(), &expected);
            }
        }
    }

    fn identifiers(count: usize) -> Vec<Identifier> {
        (0..count).map(|n| Identifier::parse(&format!("+49309018{n:04}"), None).unwrap()).collect()
    }

    #[test]
    fn a_client_gets_what_the_builder_derives() {
        let key = BlindKey::generate().unwrap();
        for count in [1, 2, 33] {
            let identifiers = identifiers(count);
            let (blinded, elements) = blind(&identifiers).unwrap();
            let evaluated = key.evaluate(&elements).unwrap();
            let derived = blinded.finalize(&evaluated, &key.public_key()).unwrap();
            assert_eq!(derived.len(), count);
            for (derived, identifier) in derived.iter().zip(&identifiers) {
                assert_eq!(derived.as_bytes(), key.derive(identifier).as_bytes());
            }
        }
    }

    #[test]
    fn the_same_identifier_is_blinded_in_another_way_each_time() {
        let twice = [identifiers(1), identifiers(1)].concat();
        let (_, elements) = blind(&twice).unwrap();
        let (_, again) = blind(&twice).unwrap();
        let all: std::collections::HashSet<_> = elements.iter().chain(&again).collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn an_evaluation_is_refused_unless_one_key_made_all_of_it() {
        let (key, other) = (BlindKey::generate().unwrap(), BlindKey::generate().unwrap());
        let identifiers = identifiers(3);
        type Change<'a> = dyn Fn(&mut Evaluated, &mut [u8; 32], &[[u8; 32]]) + 'a;
        let finalize = |change: &Change<'_>| {
            let (blinded, elements) = blind(&identifiers).unwrap();
            let (mut evaluated, mut public) = (key.evaluate(&elements).unwrap(), key.public_key());
            change(&mut evaluated, &mut public, &elements);
            blinded.finalize(&evaluated, &public).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(finalize(&|_, _, _| ()), Ok(()));
        let cases: Vec<(&str, Box<Change<'_>>, &str)> = vec![
            (
                "another public key",
                Box::new(move |_, public, _| *public = [1; 32]),
                "the blinding key",
            ),
            (
                "a key of small order",
                Box::new(|_, public, _| *public = [0; 32]),
                "the blinding key",
            ),
            ("swapped", Box::new(|made, _, _| made.elements.swap(0, 1)), "the proof"),
            ("one twice", Box::new(|made, _, _| made.elements[1] = made.elements[0]), "the proof"),
            ("one fewer", Box::new(|made, _, _| made.elements.truncate(2)), "2 evaluated"),
            ("not evaluated", Box::new(|made, _, sent| made.elements[2] = sent[2]), "the proof"),
            ("identity", Box::new(|made, _, _| made.elements[2] = [0; 32]), "element 2"),
            ("no element", Box::new(|made, _, _| made.elements[0] = [255; 32]), "element 0"),
            ("no proof", Box::new(|made, _, _| made.proof = [0; 64]), "the proof"),
            ("no scalar", Box::new(|made, _, _| made.proof = [255; 64]), "the proof"),
        ];
        for (name, change, expected) in &cases {
            let refused = finalize(change).unwrap_err();
            assert!(refused.starts_with(expected), "{name}: {refused}");
        }
        for byte in 0..PROOF_BYTES {
            assert!(finalize(&|made, _, _| made.proof[byte] ^= 1).is_err(), "byte {byte}");
        }
        let by_other = |made: &mut Evaluated, _: &mut _, sent: &[[u8; 32]]| {
            *made = other.evaluate(sent).unwrap();
        };
        assert!(finalize(&by_other).unwrap_err().starts_with("the proof"));
        let one_by_other = |made: &mut Evaluated, _: &mut _, sent: &[[u8; 32]]| {
            made.elements[1] = other.evaluate(sent).unwrap().elements[1];
        };
        assert!(finalize(&one_by_other).unwrap_err().starts_with("the proof"));
        let public = other.public_key();
        assert!(finalize(&move |_, key, _| *key = public).unwrap_err().starts_with("the proof"));
    }

    #[test]
    fn requests_that_are_not_elements_are_refused() {
        let key = BlindKey::generate().unwrap();
        let refused = |elements: &[[u8; 32]]| key.evaluate(elements).err().map(|e| e.to_string());
        assert!(refused(&[]).unwrap().starts_with("0 elements"));
        let element = key.public_key();
        assert!(
            refused(&vec![element; BLINDED_ELEMENTS_MAX + 1]).unwrap().starts_with("1025 elements")
        );
        assert!(refused(&[element, [0; 32]]).unwrap().starts_with("element 1"));
        assert!(refused(&[[255; 32], element]).unwrap().starts_with("element 0"));
        assert_eq!(refused(&vec![element; BLINDED_ELEMENTS_MAX]), None);
        assert!(blind(&[]).is_err());
        assert!(blind(&identifiers(BLINDED_ELEMENTS_MAX + 1)).is_err());
    }

    #[test]
    fn what_is_derived_depends_on_key_and_identifier() {
        let keys = [BlindKey::generate().unwrap(), BlindKey::generate().unwrap()];
        let mut seen = std::collections::HashSet::new();
        for identifier in identifiers(20) {
            for key in &keys {
                let derived = key.derive(&identifier);
                assert_eq!(derived.lookup_key().len(), 43);
                assert!(seen.insert(derived.lookup_key()));
                assert!(seen.insert(base64url(&derived.as_bytes()[32..])));
                let kept = Derived::from_bytes(*derived.as_bytes());
                assert_eq!(kept.lookup_key(), derived.lookup_key());
            }
        }
    }

    /// RFC 8439, appendix A.1, test vector 1: key and nonce of zeros from block 0 on.
    #[test]
    fn a_seal_is_chacha20() {
        let keystream = bytes(
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
             da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
        );
        let mut derived = [0; 64];
        derived[..32].fill(1);
        let value = Derived::from_bytes(derived).seal(0, &[0; 64]);
        assert_eq!(value, [&[0; 4], &*keystream].concat());
    }

    #[test]
    fn a_seal_is_opened_with_its_key_and_minute_only() {
        let derived = Derived::from_bytes([3; 64]);
        let value = derived.seal(0x0102_0304, b"a record");
        assert_eq!((value.len(), &value[..4]), (SEAL_BYTES + 8, &[4, 3, 2, 1][..]));
        assert_eq!(derived.unseal(&value).unwrap(), (0x0102_0304, b"a record".to_vec()));
        for byte in 0..4 {
            let mut other = value.clone();
            other[byte] ^= 1;
            assert_ne!(derived.unseal(&other).unwrap().1, b"a record");
        }
        let mut other = [3; 64];
        other[63] ^= 1;
        assert_ne!(Derived::from_bytes(other).unseal(&value).unwrap().1, b"a record");
        for length in 0..SEAL_BYTES {
            assert!(derived.unseal(&value[..length]).is_err());
        }
        assert_eq!(derived.unseal(&value[..4]).unwrap().1, b"");
    }

    #[test]
    fn a_key_is_written_once_for_its_owner_and_read_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blind.key");
        let key = BlindKey::generate().unwrap();
        key.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().len(), 58);
        assert_eq!(BlindKey::read(&path).unwrap().public_key(), key.public_key());
        let refused = BlindKey::generate().unwrap().create(&path).unwrap_err().to_string();
        assert!(refused.contains("create"), "{refused}");
        assert_eq!(BlindKey::read(&path).unwrap().public_key(), key.public_key());
    }

    #[test]
    fn a_file_that_is_no_blinding_key_is_refused_without_its_content() {
        let secret = base64url(&array::<32>(SECRET));
        let good = format!("{FILE_WORD} {secret}\n");
        assert!(BlindKey::from_text(&good).is_some());
        assert!(BlindKey::from_text(good.trim_end()).is_some());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blind.key");
        let zero = base64url(&[0; 32]);
        let above_order = base64url(&[255; 32]);
        let cases = [
            String::new(),
            secret.clone(),
            format!("{FILE_WORD} "),
            format!("{FILE_WORD} {}", &secret[1..]),
            format!("{FILE_WORD} {secret}="),
            format!("{FILE_WORD} {secret}AA"),
            format!("{FILE_WORD} {zero}"),
            format!("{FILE_WORD} {above_order}"),
            format!("sotto-blind-2 {secret}"),
            format!("{FILE_WORD}{secret}"),
            format!("{FILE_WORD}  {secret}"),
            good.repeat(2),
        ];
        for text in cases {
            fs::write(&path, &text).unwrap();
            let refused = BlindKey::read(&path).err().unwrap().to_string();
            assert!(refused.contains("holds no blinding key"), "{refused}");
            assert!(!refused.contains(&secret[1..]), "{refused}");
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(BlindKey::read(&path).err().unwrap().to_string().contains("read"));
        assert!(BlindKey::read(&folder.path().join("none")).is_err());
    }
}

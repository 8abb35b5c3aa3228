//! The messages of `POST /resolve`: a device names contacts, which the front-end then knows, and is
//! told what was found. They are JSON, so that a browser can speak them.
//!
//! Lengths tell nothing: a request is padded to whole steps ([`message_bytes`]), and what is said
//! of a contact has one length, whatever it is, by spaces behind it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::errors::SealedError;
use crate::discovery::identifier::Identifier;
use crate::discovery::jws::{base64url, from_base64url};
use crate::discovery::open::{Contact, Preferred};
use crate::limits::{
    EVALUATE_BODY_BYTES_MAX, RELAY_EVALUATE_REPLY_BYTES_MAX, RESOLVE_CONTACTS_MAX,
    RESOLVE_DETAIL_BYTES_MAX, RESOLVE_MESSAGE_BYTES_MAX, RESOLVE_RESULT_BYTES, RESOLVE_STEP_BYTES,
};

/// Where contacts are resolved.
pub const RESOLVE_PATH: &str = "/resolve";
/// The content type of both messages.
pub const RESOLVE_TYPE: &str = "application/json";

const REQUEST: &str = "request to resolve";
const REPLY: &str = "reply to a request to resolve";
/// Bytes of binary HTTP around the body of a request, some to spare.
const MESSAGE_OVERHEAD_BYTES: usize = 80;

/// How a contact is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As the front-end opened it, which whoever asks has to trust.
    #[default]
    Contact,
    /// As the record that was signed, which whoever asks verifies.
    Record,
}

/// A request. It is content and has no Debug.
pub struct ResolveRequest {
    /// 1 to 16 contacts.
    pub identifiers: Vec<Identifier>,
    /// How they are told.
    pub form: Form,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestMessage {
    identifiers: Vec<String>,
    #[serde(default)]
    form: Form,
}

/// What became of a contact; the later one counts where databases differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// No database that covers it has a record, or somebody withholds it.
    Absent,
    /// A database was not asked, or did not answer.
    Failed,
    /// An answer cannot be believed.
    Invalid,
    /// A record was refused.
    Refused,
    /// There is a record that was verified.
    Found,
}

/// What is said of one contact. It is content and has no Debug.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What became of it.
    pub result: Resolution,
    /// The contact, where it was found and this form was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<ToldContact>,
    /// The record in base64url, where it was found and this form was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Why there is none, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A contact as the front-end opened it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // As in [`Contact`].
pub struct ToldContact {
    pub database: String,
    pub issued: u64,
    pub expires: u64,
    /// Whether the person's choice of the first service was verified.
    pub preferred: bool,
    pub services: Vec<ToldService>,
}

/// A service of a contact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // As in [`crate::discovery::open::Reachable`].
pub struct ToldService {
    pub provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssi: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// In base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<String>,
}

#[derive(Deserialize)]
struct ReplyMessage {
    results: Vec<Told>,
}

impl ResolveRequest {
    /// The body of a request.
    pub fn encode(&self) -> Vec<u8> {
        let identifiers = self.identifiers.iter().map(|it| it.as_str().to_owned()).collect();
        let message = RequestMessage { identifiers, form: self.form };
        serde_json::to_vec(&message).expect("this is a bug: texts that are no JSON")
    }

    /// Reads the body of a request. Identifiers need not be in canonical form.
    ///
    /// # Errors
    /// It has another form, or other numbers than 1 to 16 of contacts. No text quotes it.
    pub fn decode(body: &[u8]) -> Result<Self, SealedError> {
        let (found, max) = (body.len(), EVALUATE_BODY_BYTES_MAX);
        if found > max {
            return Err(SealedError::TooLong { what: REQUEST, found, max });
        }
        let unreadable = |detail| SealedError::Unreadable { message: REQUEST, detail };
        let mut message: RequestMessage = serde_json::from_slice(body).map_err(|_| {
            unreadable("it is not a JSON object with identifiers, and a form if any".to_owned())
        })?;
        let count = message.identifiers.len();
        let parse = |(text, number): (&String, usize)| {
            Identifier::parse(text, None).map_err(|_| {
                unreadable(format!("identifier {number} is no number with + and no address"))
            })
        };
        let identifiers: Result<_, _> = message.identifiers.iter().zip(1..).map(parse).collect();
        message.identifiers.iter_mut().for_each(|text| text.zeroize());
        match count {
            1..=RESOLVE_CONTACTS_MAX => Ok(Self { identifiers: identifiers?, form: message.form }),
            _ => Err(unreadable(format!("it has {count} identifiers, expected 1 to 16"))),
        }
    }
}

/// The length that the message with this body is padded to before it is sealed.
pub fn message_bytes(body: &[u8]) -> usize {
    (body.len() + MESSAGE_OVERHEAD_BYTES).next_multiple_of(RESOLVE_STEP_BYTES)
}

/// Cuts contacts into groups that fit into a request each.
pub fn groups(identifiers: &[Identifier]) -> Vec<&[Identifier]> {
    let fits = |group: &[Identifier]| {
        let request = ResolveRequest { identifiers: group.to_vec(), form: Form::Record };
        message_bytes(&request.encode()) <= RESOLVE_MESSAGE_BYTES_MAX
    };
    let (mut groups, mut rest) = (Vec::new(), identifiers);
    while !rest.is_empty() {
        let mut count = rest.len().min(RESOLVE_CONTACTS_MAX);
        // One always fits: an address has at most 254 bytes.
        while count > 1 && !fits(&rest[..count]) {
            count -= 1;
        }
        let (group, after) = rest.split_at(count);
        groups.push(group);
        rest = after;
    }
    groups
}

impl Told {
    /// Without a contact, for this reason if there is one.
    pub fn without(result: Resolution, reason: Option<&str>) -> Self {
        let detail = reason.map(|reason| {
            let end = reason.floor_char_boundary(RESOLVE_DETAIL_BYTES_MAX);
            reason[..end].to_owned()
        });
        Self { result, contact: None, record: None, detail }
    }

    /// A contact that was opened, and the bytes of its record.
    pub fn found(contact: &Contact, record: &[u8], form: Form) -> Self {
        let told = Self::without(Resolution::Found, None);
        match form {
            Form::Contact => Self { contact: Some(ToldContact::of(contact)), ..told },
            Form::Record => Self { record: Some(base64url(record)), ..told },
        }
    }

    /// The bytes of the record, where there is one.
    pub fn record_bytes(&self) -> Option<Vec<u8>> {
        from_base64url(self.record.as_ref()?)
    }
}

impl ToldContact {
    fn of(contact: &Contact) -> Self {
        let services = contact.services.iter().map(|service| ToldService {
            provider: service.provider.clone(),
            ssi: service.ssi.as_ref().map(|ssi| ssi.as_str().to_owned()),
            tags: service.tags.clone(),
            key_hash: service.key_hash.map(|hash| base64url(&hash)),
        });
        Self {
            database: contact.database.clone(),
            issued: contact.issued,
            expires: contact.expires,
            preferred: matches!(contact.preferred, Preferred::Verified { .. }),
            services: services.collect(),
        }
    }
}

/// The body of a reply. Its length depends on the number of contacts alone.
pub fn encode_reply(told: &[Told]) -> Vec<u8> {
    let json = |told: &Told| serde_json::to_vec(told).expect("this is a bug: texts are no JSON");
    let mut body = b"{\"results\":[".to_vec();
    for (index, told) in told.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let mut result = json(told);
        if result.len() > RESOLVE_RESULT_BYTES {
            let reason = "the record is longer than the reply has room for: look it up sealed";
            result = json(&Told::without(Resolution::Failed, Some(reason)));
        }
        result.resize(RESOLVE_RESULT_BYTES, b' ');
        body.append(&mut result);
    }
    body.extend_from_slice(b"]}");
    body
}

/// Reads the body of a reply for so many contacts.
///
/// # Errors
/// It has another form, or another number of results.
pub fn decode_reply(body: &[u8], expected: usize) -> Result<Vec<Told>, SealedError> {
    let (found, max) = (body.len(), RELAY_EVALUATE_REPLY_BYTES_MAX);
    if found > max {
        return Err(SealedError::TooLong { what: REPLY, found, max });
    }
    let unreadable = |detail: String| SealedError::Unreadable { message: REPLY, detail };
    let message: ReplyMessage = serde_json::from_slice(body)
        .map_err(|_| unreadable("it is not the JSON object {\"results\": […]}".to_owned()))?;
    match message.results.len() {
        found if found == expected => Ok(message.results),
        found => Err(unreadable(format!("it has {found} results, expected {expected}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::sealed::capsule::{
        Gateway, InnerRequest, REQUEST_OVERHEAD_BYTES, seal_to,
    };
    use crate::discovery::sealed::keys::GatewayKey;

    fn address(length: usize) -> Identifier {
        let domain = "@example.com";
        let text = "a".repeat(length - domain.len()) + domain;
        Identifier::parse(&text, None).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn number(at: usize) -> Identifier {
        Identifier::parse(&format!("+155501001{at:02}"), None).unwrap()
    }

    fn request(identifiers: Vec<Identifier>) -> ResolveRequest {
        ResolveRequest { identifiers, form: Form::Record }
    }

    /// Bytes of a sealed request.
    fn sealed(request: &ResolveRequest) -> usize {
        let key = GatewayKey::new(1, &[1; 32]).unwrap();
        let config = key.config().to_vec();
        let inner = InnerRequest {
            method: "POST".into(),
            path: RESOLVE_PATH.into(),
            content_type: Some(RESOLVE_TYPE.into()),
            body: request.encode(),
        };
        let (capsule, _) = seal_to(&config, &inner, message_bytes(&inner.body)).unwrap();
        let (opened, _) = Gateway::new(vec![key]).open(&capsule).unwrap();
        assert!(opened == inner);
        capsule.len()
    }

    #[test]
    fn requests_come_back_and_have_whole_steps() {
        let step = RESOLVE_STEP_BYTES;
        for count in 1..=16 {
            let request = request((0..count).map(number).collect());
            let read = ResolveRequest::decode(&request.encode()).unwrap();
            assert!(read.identifiers == request.identifiers && read.form == Form::Record);
            assert_eq!((sealed(&request) - REQUEST_OVERHEAD_BYTES) % step, 0, "{count}");
        }
        let lengths = [20, 40, 60, 76].map(|length| sealed(&request(vec![address(length)])));
        assert!(lengths.iter().all(|&length| length == sealed(&request(vec![number(1)]))));
        assert_eq!(lengths[0], 256 + 55, "what docs/federation.md says of one contact");
        assert_eq!(sealed(&request((0..16).map(number).collect())), 512 + 55);
    }

    #[test]
    fn contacts_are_cut_into_requests_that_a_relay_takes() {
        let numbers: Vec<_> = (0..33).map(number).collect();
        let counts: Vec<usize> = groups(&numbers).into_iter().map(<[_]>::len).collect();
        assert_eq!(counts, [16, 16, 1]);
        let label = "x".repeat(60);
        let text = format!("{}@{label}.{label}.{label}.com", "a".repeat(60));
        let long = vec![Identifier::parse(&text, None).unwrap(); 40];
        let cut = groups(&long);
        assert!(cut.concat() == long);
        assert_eq!(cut.iter().map(|group| group.len()).collect::<Vec<_>>(), [14, 14, 12]);
        for group in cut {
            assert!(sealed(&request(group.to_vec())) <= EVALUATE_BODY_BYTES_MAX);
        }
        assert!(groups(&[]).is_empty());
    }

    #[test]
    fn requests_of_another_form_are_refused_and_nothing_is_quoted() {
        let many = vec!["\"+15550100123\""; 17].join(",");
        let cases = [
            String::new(),
            "[]".into(),
            "{}".into(),
            r#"{"identifiers":[]}"#.into(),
            format!("{{\"identifiers\":[{many}]}}"),
            r#"{"identifiers":["+15550100123"],"+15550100124":1}"#.into(),
            r#"{"identifiers":["+15550100123"],"form":"+15550100124"}"#.into(),
            r#"{"identifiers":["+15550100123","5550100124"]}"#.into(),
            r#"{"identifiers":"+15550100123"}"#.into(),
            r#"{"identifiers":["+15550100123"]} x"#.into(),
        ];
        for case in cases {
            let error = ResolveRequest::decode(case.as_bytes()).err().unwrap().to_string();
            assert!(!error.contains("555"), "{error}");
        }
        let long = vec![b' '; EVALUATE_BODY_BYTES_MAX + 1];
        assert!(matches!(ResolveRequest::decode(&long), Err(SealedError::TooLong { .. })));
        let open = br#"{"identifiers":["tel +1 555 010 0123"]}"#;
        assert!(ResolveRequest::decode(open).is_err());
        let open = br#"{"identifiers":["+1 555 010 0123", "Bob@Example.com"]}"#;
        let read = ResolveRequest::decode(open).unwrap();
        let texts: Vec<_> = read.identifiers.iter().map(Identifier::as_str).collect();
        assert_eq!(
            (&texts[..], read.form),
            (&["+15550100123", "bob@example.com"][..], Form::Contact)
        );
    }

    #[test]
    fn replies_have_one_length_for_a_number_of_contacts() {
        let service = ToldService {
            provider: "a.example".into(),
            ssi: Some("mimi://a.example/u/bob".into()),
            tags: vec!["chat".into()],
            key_hash: Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
        };
        let contact = |count| ToldContact {
            database: "eu1".into(),
            issued: 1_796_000_000,
            expires: 1_798_000_000,
            preferred: true,
            services: vec![service.clone(); count],
        };
        let found = |count| Told {
            contact: Some(contact(count)),
            ..Told::without(Resolution::Found, None)
        };
        let record = |bytes: usize| Told {
            record: Some(base64url(&vec![7; bytes])),
            ..Told::without(Resolution::Found, None)
        };
        let reason = "ä".repeat(200);
        let all = [
            found(1),
            found(3),
            record(244),
            record(350),
            Told::without(Resolution::Absent, None),
            Told::without(Resolution::Failed, Some(&reason)),
        ];
        for told in &all {
            let body = encode_reply(std::slice::from_ref(told));
            assert_eq!(body.len(), encode_reply(&all[..1]).len());
            assert!(decode_reply(&body, 1).unwrap() == [told.clone()]);
        }
        assert!(record(350).record_bytes().unwrap() == vec![7; 350]);
        // What does not fit is an error of its contact, of the same length.
        let both = encode_reply(&[found(9), record(1_024)]);
        assert_eq!(both.len(), encode_reply(&all[..2]).len());
        let read = decode_reply(&both, 2).unwrap();
        assert!(read.iter().all(|told| told.result == Resolution::Failed && told.detail.is_some()));
        assert!(decode_reply(&both, 1).is_err() && decode_reply(b"{}", 0).is_err());
        let sixteen = encode_reply(&vec![record(1_024); 16]);
        assert!(sixteen.len() + 100 < RELAY_EVALUATE_REPLY_BYTES_MAX);
    }
}

//! Key bundles on their way to one answer server.
//!
//! A bundle goes to a server before the first query under it, as the identical bytes each time.
//! Over one connection it goes out once, however many queries wait for it, unless the server says
//! that it does not have it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::client::frames::FailedAttempt;
use crate::limits;
use crate::wire::message::{PirParameterRequest, Request, RequestBody};
use crate::wire::{Bytes, PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, Uid, encode_frame};

/// A device's key bundle: public bytes under the name of their content.
pub(super) struct Bundle {
    pub(super) uid: Uid,
    /// The frame that asks a server to keep it.
    pub(super) frame: Bytes,
}

impl Bundle {
    /// A bundle of these bytes, which have been checked.
    pub(super) fn new(uid: Uid, bytes: Bytes) -> Self {
        let request = PirParameterRequest {
            protocol_version: PROTOCOL_VERSION,
            nonce: "0".into(),
            uid: uid.to_string(),
            pir_scheme: PIR_SCHEME_SOTTO_2,
            public_key: vec![bytes],
            want_hint_digests: false,
        };
        let frame = encode_frame(&Request::from(RequestBody::Parameters(request)));
        Self { uid, frame: frame.into() }
    }
}

/// The bundles that a server has, or is being sent, over one connection.
#[derive(Default)]
pub(super) struct Brought(Mutex<HashMap<Uid, Arc<OnceCell<()>>>>);

impl Brought {
    fn bundles(&self) -> MutexGuard<'_, HashMap<Uid, Arc<OnceCell<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `bring` unless the server has the bundle; waits where it is on its way already.
    ///
    /// # Errors
    /// Those of `bring`; the next one who needs the bundle tries again.
    pub(super) async fn once<Bringing: Future<Output = Result<(), FailedAttempt>>>(
        &self,
        uid: Uid,
        bring: impl FnOnce() -> Bringing,
    ) -> Result<(), FailedAttempt> {
        let entry = {
            let mut bundles = self.bundles();
            // A device's next batch has new ones: old ones are hardly ever asked for again.
            if bundles.len() >= limits::BUNDLES_REMEMBERED_MAX {
                bundles.clear();
            }
            bundles.entry(uid).or_default().clone()
        };
        entry.get_or_try_init(bring).await.copied()
    }

    /// The server has said that it does not have this bundle.
    pub(super) fn forget(&self, uid: Uid) {
        self.bundles().remove(&uid);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::client::frames::Event;

    #[tokio::test]
    async fn a_bundle_goes_out_once_until_it_is_forgotten() {
        let (brought, sent) = (Brought::default(), Cell::new(0));
        let uid = Uid::of(b"a bundle");
        let bring = async |ends: Result<(), Event>| {
            let bring = || async {
                sent.set(sent.get() + 1);
                tokio::task::yield_now().await;
                ends.map_err(|event| FailedAttempt { event, detail: "why".into() })
            };
            brought.once(uid, bring).await
        };
        assert_eq!(bring(Err(Event::TimedOut)).await.unwrap_err().event, Event::TimedOut);
        let both = tokio::join!(bring(Ok(())), bring(Ok(())));
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!(sent.get(), 2);
        brought.forget(uid);
        bring(Ok(())).await.unwrap();
        assert_eq!(sent.get(), 3);
    }

    #[test]
    fn the_frame_holds_the_identical_bytes_under_their_name() {
        use prost::Message;

        let bytes = Bytes::from(vec![7; 300]);
        let uid = Uid::of(&bytes);
        let bundle = Bundle::new(uid, bytes.clone());
        let request = Request::decode_length_delimited(&bundle.frame[..]).unwrap();
        let Some(RequestBody::Parameters(request)) = request.body else { panic!("another kind") };
        assert_eq!((request.uid, request.public_key), (uid.to_string(), vec![bytes]));
    }
}

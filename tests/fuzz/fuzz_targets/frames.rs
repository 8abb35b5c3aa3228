//! Bytes of a peer: a frame's head, then its body as what the head says; replies; parameters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::bytes::Bytes;
use sotto::params::Shape;
use sotto::wire::{self, Asker, PublicParameters, RequestKind, ValidQueries};

fuzz_target!(|data: &[u8]| {
    let shape = Shape::new(24, 128, 1, 192).expect("a small shape");
    if let Ok(Some(head)) = wire::request_head(data, &shape) {
        assert!(head.frame_bytes <= head.kind.bytes_max(&shape));
        if let Some(frame) = data.get(..head.frame_bytes) {
            let body = Bytes::copy_from_slice(&frame[head.body_at..]);
            match head.kind {
                RequestKind::Parameters => drop(wire::decode_parameters(body, &shape)),
                RequestKind::Queries => {
                    for asker in [Asker::FrontEnd, Asker::Device] {
                        let Ok(batch) = ValidQueries::decode(body.clone(), &shape, asker) else {
                            continue;
                        };
                        for query in &batch.requests {
                            assert_eq!(query.vector.len(), shape.query_bytes());
                            assert!(query.pack == 0 || asker == Asker::Device);
                        }
                    }
                }
                RequestKind::Hints => drop(wire::decode_hints(body)),
            }
        }
    }
    for known in [None, Some(&shape)] {
        if let Ok(Some(head)) = wire::reply_head(data, known)
            && let Some(frame) = data.get(..head.frame_bytes)
        {
            let _ = wire::decode_reply(&head, Bytes::copy_from_slice(frame), known);
        }
    }
    if let Ok(parameters) = PublicParameters::decode(data) {
        let again = PublicParameters::decode(&parameters.encode()).expect("what encodes decodes");
        assert_eq!(again.shape(), parameters.shape());
    }
});

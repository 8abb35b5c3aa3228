//! Sealed requests: what arrives at a front-end, what is inside the seal, and what is in that.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sotto::discovery::sealed::capsule::{Gateway, InnerResponse, seal};
use sotto::discovery::sealed::evaluate::{EvaluateRequest, EvaluateResponse};
use sotto::discovery::sealed::keys::GatewayKey;
use sotto::discovery::sealed::lookup::{split_answers, split_request};
use sotto::discovery::sealed::resolve::{ResolveRequest, decode_reply};
use sotto::params::Shape;

/// The configuration of the key, and who opens with it.
static GATEWAY: LazyLock<(Vec<u8>, Gateway)> = LazyLock::new(|| {
    let key = GatewayKey::new(7, &[9; 32]).expect("a key");
    (key.config().to_vec(), Gateway::new(vec![key]))
});
static SHAPE: LazyLock<Shape> = LazyLock::new(|| Shape::new(24, 128, 2, 192).expect("a shape"));

fuzz_target!(|data: &[u8]| {
    let (config, gateway) = &*GATEWAY;
    let _ = gateway.open(data);
    // What is behind a seal that is right.
    let sender = ohttp::ClientRequest::from_encoded_config(config).expect("a configuration");
    let (sealed, _) = sender.encapsulate(data).expect("sealing needs no more");
    if let Ok((request, sealer)) = gateway.open(&sealed) {
        let reply = InnerResponse {
            status: 200,
            content_type: request.content_type.clone(),
            retry_after: None,
            etag: None,
            body: request.body.clone(),
        };
        sealer.seal(&reply).expect("a reply");
        let (again, _) = seal(config, &request).expect("what was read is written");
        let (read, _) = gateway.open(&again).expect("what was written is read");
        assert!(read.path == request.path && read.body == request.body);
    }
    let _ = split_request(data.to_vec().into(), &SHAPE);
    let _ = split_answers(data.to_vec().into(), &SHAPE);
    if let Ok(request) = EvaluateRequest::decode(data) {
        let read = EvaluateRequest::decode(&request.encode()).expect("what was written is read");
        assert!(read.elements == request.elements && read.database == request.database);
    }
    let _ = EvaluateResponse::decode(data);
    let _ = ResolveRequest::decode(data);
    let _ = decode_reply(data, 1);
});

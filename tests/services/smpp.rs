//! A registrar whose messages go over SMPP, to a message centre that stalls, throttles and goes.

use serde_json::json;

use crate::gateway::code_of;
use crate::smsc::Smsc;
use crate::world::{User, World, fresh_key, json_of, number, problem};

/// Has the registrar of this world, when it starts, send text messages through the centre.
pub(crate) fn use_smsc(world: &World, smsc: &Smsc) {
    use std::os::unix::fs::PermissionsExt as _;
    world.write("smsc.credentials", "user\npassword\n");
    let credentials = world.path("smsc.credentials");
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    let config = config.replace("sms = ['test']", "sms = ['smsc']");
    let gateway = format!(
        "[channels.gateways.smsc]\nkind = 'smpp'\naddress = '{}'\ntls = false\n\
         credentials = '{}'\nsource = 'Dp'\n",
        smsc.address(),
        credentials.display()
    );
    world.write("registrar.toml", &(config + &gateway));
}

/// The number and the text of the next message that the centre is given.
pub(crate) async fn arrived(smsc: &Smsc) -> (String, String) {
    let event = smsc.event("submit").await;
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    (format!("+{}", text("to").trim_start_matches('+')), text("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_centre_that_stalls_throttles_or_goes_costs_no_code_and_no_state() {
    let (Some(smsc), Some(world)) = (Smsc::start(), World::with_postgres().await) else { return };
    use_smsc(&world, &smsc);
    let running = world.start().await;
    smsc.event("bind").await;
    let a = world.peer(running.address, &["a.example"]);
    let request = |index: u32| User::new(&number(index * 10_000), "a.example").request(world.now());
    // The bind may not have been answered yet.
    let id = loop {
        let reply = a.post("/v1/registrations", &fresh_key(), &request(1)).await;
        match reply.status {
            202 => break json_of(&reply)["id"].as_str().unwrap().to_owned(),
            status => assert_eq!((status, &*problem(&reply)), (503, "channel_down")),
        }
    };
    let (to, message) = arrived(&smsc).await;
    assert_eq!(to, number(10_000));
    assert_eq!(a.enter(&id, &code_of(&message)).await.status, 200);

    // Throttled: sent once it takes it, and taken once.
    smsc.tell("answer throttle 1").await;
    let id = a.register(&request(2)).await;
    let (refused, taken) = (arrived(&smsc).await, arrived(&smsc).await);
    assert_eq!(refused, taken);
    assert_eq!(a.enter(&id, &code_of(&taken.1)).await.status, 200);

    // Stalled: the person may have the message, and its code is good.
    smsc.tell("answer stall").await;
    let id = a.register(&request(3)).await;
    let (_, message) = arrived(&smsc).await;
    let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
    assert_eq!((&shown["state"], &shown["statement"]), (&json!("requested"), &json!(null)));
    assert_eq!(a.enter(&id, &code_of(&message)).await.status, 200);

    // Gone: put off, and nothing stored.
    drop(smsc);
    let mut index = 4;
    let reply = loop {
        let reply = a.post("/v1/registrations", &fresh_key(), &request(index)).await;
        if reply.status != 202 {
            break reply;
        }
        index += 1;
    };
    assert_eq!((reply.status, &*problem(&reply)), (503, "channel_down"));
    assert!(reply.headers.contains_key("retry-after"));
    running.stop().await;
}

//! The feed as files, by the commands.

use std::process::Output;

use serde_json::json;
use sotto::discovery::directory::{Directory, Pins};
use sotto::discovery::statement::Statement;

use crate::world::{ISSUER, User, World, fresh_key, number};

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn export(world: &World, since: &str) -> Output {
    let (config, out) = (world.config_path(), world.path("feed"));
    let paths = [config.to_str().unwrap(), out.to_str().unwrap()];
    world.run(&["export", "--config", paths[0], "--since", since, "--out", paths[1]])
}

fn statements(world: &World) -> Output {
    let path = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let (directory, pins) = (path("directory.json"), path("pins.json"));
    let (out, feed) = (path("statements.jsonl"), path("feed"));
    let trusted = ["--directory", &directory, "--pins", &pins, "--issuer", ISSUER];
    world.run(&[&["statements"][..], &trusted, &["--out", &out, &feed]].concat())
}

/// The statements in the file, each verified.
fn verified(world: &World) -> Vec<String> {
    let output = statements(world);
    assert!(output.status.success(), "{}", said(&output));
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    let pins = Pins::from_json(&read("pins.json")).unwrap();
    let directory = Directory::open(&read("directory.json"), &pins, world.now()).unwrap();
    let text = String::from_utf8(read("statements.jsonl")).unwrap();
    for line in text.lines() {
        Statement::read(line, &directory, world.now()).unwrap();
    }
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_vouched_for_goes_out_once_and_byte_for_byte_again() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let mut ids = Vec::new();
    for index in [1, 10_001] {
        let id = a.register(&User::new(&number(index), "a.example").request(world.now())).await;
        let code = world.gateway.code(&number(index), 1).await;
        assert_eq!(a.enter(&id, &code).await.status, 200);
        ids.push(id);
    }
    let output = export(&world, "0");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("batches up to 1; 1 written, 0 were there"),
        "{}",
        said(&output)
    );
    assert_eq!(verified(&world).len(), 2);
    let first = std::fs::read(world.path("feed/feed-0000000001.jsonl")).unwrap();
    // Nothing new: no other batch. A lost file is written again, the same.
    let output = export(&world, "0");
    assert!(
        said(&output).contains("batches up to 1; 0 written, 1 were there"),
        "{}",
        said(&output)
    );
    std::fs::remove_file(world.path("feed/feed-0000000001.jsonl")).unwrap();
    assert!(export(&world, "0").status.success());
    assert_eq!(std::fs::read(world.path("feed/feed-0000000001.jsonl")).unwrap(), first);

    let gone = a.post("/v1/withdrawals", &fresh_key(), &json!({ "id": ids[0] })).await;
    assert_eq!(gone.status, 200);
    let output = export(&world, "1");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(verified(&world).len(), 1);
    assert!(!export(&world, "7").status.success());

    // A file that was changed is neither accepted nor replaced.
    let path = world.path("feed/feed-0000000001.jsonl");
    let mut changed = first.clone();
    let last = changed.len() - 10;
    changed[last] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    let output = statements(&world);
    assert!(
        !output.status.success() && said(&output).contains("feed-0000000001"),
        "{}",
        said(&output)
    );
    let output = export(&world, "0");
    assert!(!output.status.success() && said(&output).contains("nothing was replaced"));
    assert_eq!(std::fs::read(&path).unwrap(), changed);
    // One that is missing is missed.
    std::fs::remove_file(&path).unwrap();
    let output = statements(&world);
    assert!(!output.status.success() && said(&output).contains("is missing"), "{}", said(&output));
    let config = world.config_path();
    let output = world.run(&["purge", "--config", config.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    running.stop().await;
}

#[tokio::test]
async fn keys_are_made_once() {
    let world = World::new().await;
    let config = world.config_path();
    let config = config.to_str().unwrap();
    let output = world.run(&["init", "--config", config]);
    assert!(
        !output.status.success() && said(&output).contains("exists already"),
        "{}",
        said(&output)
    );
    std::fs::rename(world.path("keys"), world.path("old")).unwrap();
    let output = world.run(&["serve", "--config", config, "--admin", "off"]);
    assert!(!output.status.success() && said(&output).contains("is missing"), "{}", said(&output));
    let output = world.run(&["init", "--config", config]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).trim().len(), 43);
}

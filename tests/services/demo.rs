//! `sotto demo --registration` over a real database and a real message centre.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::postgres::Postgres;
use crate::smpp::arrived;
use crate::smsc::Smsc;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_does_the_same_over_postgresql_and_smpp() {
    let (Some(centre), Some(postgres)) =
        (Smsc::start(), tokio::task::spawn_blocking(Postgres::start).await.unwrap())
    else {
        return;
    };
    let (database, address) = (postgres.database(), centre.address());
    // Twice in one database: the second begins anew.
    for _ in 0..2 {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_sotto"));
        demo.args([
            "demo",
            "--registration",
            "--records",
            "500",
            "--shards",
            "4",
            "--engine",
            "cpu",
        ])
        .args(["--postgres", &database, "--smpp", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
        let mut demo = demo.spawn().unwrap();
        let (mut typed, mut shown) = (demo.stdin.take().unwrap(), demo.stdout.take().unwrap());
        let typing = async {
            loop {
                let (_, text) = arrived(&centre).await;
                let last = text.lines().last().unwrap();
                typed.write_all(format!("{last}\n").as_bytes()).await.unwrap();
            }
        };
        let mut text = String::new();
        tokio::select! {
            read = shown.read_to_string(&mut text) => drop(read.unwrap()),
            () = typing => unreachable!(),
        }
        let ended = demo.wait().await.unwrap();
        assert!(ended.success(), "{ended}: {text}");
        assert!(text.contains("log and keys are in PostgreSQL."), "{text}");
        assert!(text.contains("for Brook's domain only"), "{text}");
        assert!(text.contains("checks are as the stories say."), "{text}");
        // What the phones show comes from the centre alone.
        assert!(!text.contains("A message to +"), "{text}");
    }
}

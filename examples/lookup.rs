//! Looks keys up with the client library alone.
//!
//!     cargo run --example lookup -- localhost:4433 ca.pem db/operator.pub KEY...
//!
//! Builds with `--no-default-features --features client`. A server to try it on: `sotto demo
//! --keep DIR`, or `sotto cert`, `sotto build` and `sotto serve`.

use sotto::client::{Client, OperatorKey, Options, Outcome, Replica, Trust};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, ca, operator_key, keys @ ..] = &arguments[..] else {
        return Err("usage: lookup HOST:PORT CA.pem OPERATOR.pub KEY...".into());
    };

    // Whom to trust: the authority for the connection, the operator for the database.
    let operator_key = OperatorKey::from_text(&std::fs::read_to_string(operator_key)?)?;
    let replica = Replica::resolve(server).await?;
    let mut options = Options::new(replica, std::fs::read(ca)?, Trust::Pinned(operator_key));
    // Small databases are for trying things out: nothing hides in a shard of a thousand records.
    options.records_per_shard_min = 1_000;

    let mut client = Client::connect(options).await?;
    let shape = client.parameters().shape();
    println!(
        "{} shards of about {} records",
        client.parameters().shard_count(),
        shape.records_expected()
    );

    // One call for all keys: encrypted before anything is sent, decoded when all have come. The
    // connection ends before a record is looked at, so that the server sees nothing that depends
    // on what was found.
    let answers = client.ask(keys).await?;
    let call = client.last_call().clone();
    client.close().await;
    for (key, outcome) in keys.iter().zip(answers.open()) {
        match outcome {
            Ok(Outcome::Found(value)) => println!("{key}: {}", String::from_utf8_lossy(&value)),
            Ok(Outcome::Absent) => println!("{key}: not found"),
            Ok(Outcome::Invalid) => println!("{key}: the answer cannot be believed"),
            Err(error) => println!("{key}: {error}"),
        }
    }
    println!(
        "{} bytes up, {} bytes down, {} key bundles",
        call.bytes_up, call.bytes_down, call.bundles
    );
    Ok(())
}

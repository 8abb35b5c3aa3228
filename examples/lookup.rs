//! Looks keys up with the client library alone.
//!
//!     cargo run --example lookup -- localhost:4433 ca.pem db/operator.pub pins.json KEY...
//!
//! Builds with `--no-default-features --features client`. A server to try it on: `sotto demo
//! --keep DIR`, or `sotto cert`, `sotto build` and `sotto serve`.

use sotto::client::{Client, OperatorKey, Options, Outcome, Pins, Replica};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, ca, operator_key, pins_file, keys @ ..] = &arguments[..] else {
        return Err("usage: lookup HOST:PORT CA.pem OPERATOR.pub PINS.json KEY...".into());
    };

    // Whom to trust: the authority for the connection, the operator for the database.
    let operator_key = OperatorKey::from_text(&std::fs::read_to_string(operator_key)?)?;
    let mut pins = Pins::operator(operator_key);
    // What the session before knew: an older epoch, another seed or number of shards is refused.
    if let Ok(stored) = std::fs::read(pins_file) {
        pins = serde_json::from_slice::<Pins>(&stored)?.join(pins)?;
    }
    let replica = Replica::resolve(server).await?;
    let mut options = Options::new(replica, std::fs::read(ca)?, pins);
    // Small databases are for trying things out: nothing hides in a shard of a thousand records.
    options.records_per_shard_min = 1_000;

    let mut client = Client::connect(options).await?;
    let parameters = client.parameters();
    println!(
        "{} shards of at least {} records",
        parameters.shard_count(),
        parameters.shard_records_min()
    );

    // One call for all keys: encrypted before anything is sent, decoded when all have come. The
    // connection ends before a record is looked at, so that the server sees nothing that depends
    // on what was found.
    let answers = client.ask(keys).await?;
    let call = client.last_call().clone();
    std::fs::write(pins_file, serde_json::to_vec_pretty(&client.close().await)?)?;
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

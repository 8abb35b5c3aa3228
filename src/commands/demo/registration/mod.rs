//! `sotto demo --registration`: from a person who proves a number to somebody who finds them there
//! and has the keys to write to them.
//!
//! A discovery provider runs a registrar. Two application providers register users with it over
//! mutual TLS; one of them is dishonest. What was vouched for goes through feed, log, records and
//! database to a phone of the other provider's user, who looks contacts up, verifies that the epoch
//! is in the log, and fetches keys through a relay. Another discovery provider vouches for what it
//! never proved, which the owner of the number finds and ends. Then a number gets another holder,
//! and its old mapping is gone. A step that ends otherwise than its story says makes the exit code
//! 2.
//!
//! Everything is in SQLite, and a gateway in this process plays the phones. With `--postgres` the
//! services keep what they know in PostgreSQL; with `--smpp` text messages go to a message centre,
//! and standard input gives the codes that arrived. `story.rs` has the names, `world.rs` the
//! parties and the database, `services.rs` what runs, `people.rs` who registers, `phone.rs` who
//! looks up.

mod messages;
mod people;
mod phone;
mod services;
mod story;
mod world;

use std::path::Path;
use std::process::ExitCode;

use self::messages::Messages;
use self::people::{NewHolder, Person};
use self::phone::Phone;
use self::services::{Services, member, text};
use self::story::{AERO, ALICE, BORIS, BROOK, CAROL, Checks, DAN, LATER, PREMIUM};
use self::world::World;
use super::stage::{Args, Error};
use crate::commands::out::say;

/// Wrong codes that end a registration.
const GUESSES: usize = 5;
/// Shows how people are registered, found, and replaced by the next holder of their number.
pub(super) async fn show(args: &Args, folder: &Path) -> Result<ExitCode, Error> {
    say("Registration: who proves a number is found under it, and nobody else")?;
    let mut world = World::new(args, folder).await?;
    let (services, mut messages) = Services::start(&mut world, args).await?;
    let mut checks = Checks::default();
    say("\n2. Alice, Boris and Carol register with Aero\n")?;
    let mut alice = Person::new(AERO, ALICE, "alice")?;
    let mut boris = Person::new(AERO, BORIS, "boris")?;
    let mut carol = Person::new(AERO, CAROL, "carol")?;
    for person in [&mut alice, &mut boris, &mut carol] {
        person.register(&services, &mut messages, NewHolder::No).await?;
    }
    say("\n3. Their phones leave keys with Aero, for whoever finds them\n")?;
    for person in [&alice, &boris] {
        person.leave_keys(&services).await?;
    }
    say("\n4. Brook claims numbers of people who never asked it to\n")?;
    steal(&services, &mut messages, &mut checks).await?;
    say("\n5. Feed, records, database, log\n")?;
    let published = world.publish(&services.log_url(), args, 0).await?;
    say("\n6. Erin, a user of Brook, looks them up\n")?;
    let mut phone = Phone::new(&world, &services)?;
    let expected = [
        (ALICE, &[(AERO, "alice")][..]),
        (BORIS, &[(AERO, "boris")]),
        (CAROL, &[(AERO, "carol")]),
        (DAN, &[]),
    ];
    let found = phone.look_up(&world, args, &published, &expected, &mut checks).await?;
    say("\n7. She fetches keys, through Brook's relay\n")?;
    phone.fetch_keys("Alice", &found[0], true, &mut checks).await?;
    boris.lose_account(&services).await?;
    phone.fetch_keys("Boris", &found[1], false, &mut checks).await?;
    phone.has_no_key_service("Dan", &found[3], &mut checks)?;
    services.say_what_the_relay_saw(&mut checks)?;
    say("\n8. South, another discovery provider, vouches for what it never proved\n")?;
    world.forge(BORIS, BROOK, "mallory")?;
    let published = world.publish(&services.log_url(), args, LATER).await?;
    let both = [(AERO, "boris"), (BROOK, "mallory")];
    let found = phone.look_up(&world, args, &published, &[(BORIS, &both)], &mut checks).await?;
    boris.looks_at(&found[0], &mut checks)?;
    boris.register(&services, &mut messages, NewHolder::Yes).await?;
    say("9. Alice gives her number up, and Dora gets it\n")?;
    let mut dora = Person::new(BROOK, ALICE, "dora")?;
    dora.register(&services, &mut messages, NewHolder::Yes).await?;
    for (person, expected) in [(&alice, "voided"), (&dora, "active")] {
        let state = person.state(&services).await?;
        let said = format!("the registration of {} is {state}", person.handle());
        checks.is(state == expected, &said)?;
    }
    let published = world.publish(&services.log_url(), args, 2 * LATER).await?;
    let expected = [(ALICE, &[(BROOK, "dora")][..]), (BORIS, &[(AERO, "boris")])];
    phone.look_up(&world, args, &published, &expected, &mut checks).await?;
    services.end().await;
    if checks.wrong > 0 {
        say(format_args!("\n{} of {} checks are WRONG.", checks.wrong, checks.total))?;
        return Ok(ExitCode::from(2));
    }
    say(format_args!("\nAll {} checks are as the stories say.", checks.total))?;
    Ok(ExitCode::SUCCESS)
}

/// What a dishonest application provider tries.
async fn steal(
    services: &Services,
    messages: &mut Messages,
    checks: &mut Checks,
) -> Result<(), Error> {
    let mallory = Person::new(BROOK, ALICE, "mallory")?;
    let id = text(&mallory.ask(services, NewHolder::No).await?, 202, "id")?;
    let message = messages.next(ALICE).await?;
    if let Some(shown) = &message.text {
        let first = shown.lines().next().unwrap_or_default();
        say(format_args!("  Alice's phone shows, and she tells nobody:\n\n    | {first}\n"))?;
    }
    if let Some(domain) = &message.domain {
        checks.is(domain == BROOK, "the phone would fill the code in for Brook's domain only")?;
    }
    let right: u32 = message.code.parse()?;
    for guess in 1..=GUESSES as u32 {
        let wrong = format!("{:06}", (right + guess) % 1_000_000);
        let reply = services.enter(BROOK, &id, &wrong).await?;
        let left = member(&reply, "tries_left")?;
        let said = format!("guess {guess}: refused ({}), tries left: {left}", reply.status);
        checks.is(reply.status == 409, &said)?;
    }
    let reply = services.enter(BROOK, &id, &message.code).await?;
    let code = member(&reply, "code")?;
    let said = format!("after that even the right code is refused ({} {code})", reply.status);
    checks.is(reply.status >= 400, &said)?;
    let state = services.state_of(BROOK, &id).await?;
    checks.is(state == "failed", &format!("Brook's registration is {state}"))?;
    let reply = Person::new(BROOK, PREMIUM, "mallory")?.ask(services, NewHolder::No).await?;
    let code = member(&reply, "code")?;
    let said = format!("a code to a line that costs money is refused ({} {code})", reply.status);
    checks.is(reply.status == 403, &said)
}

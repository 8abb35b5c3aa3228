//! Who takes part, and what is compared with the story.

use sotto::builder::DATABASE_NAME_DEFAULT;

use crate::commands::demo::stage::Error;
use crate::commands::out::say;

/// The registrar, an issuer of the directory.
pub(super) const NORTH: &str = "north.example";
/// The application providers. Brook is dishonest, and some of its users are not.
pub(super) const AERO: &str = "aero.example";
pub(super) const BROOK: &str = "brook.example";
/// Another discovery provider, which is dishonest.
pub(super) const SOUTH: &str = "south.example";
/// Who runs the log.
pub(super) const LEDGER: &str = "ledger.example";
/// A database that is built without a name has this one.
pub(super) const DATABASE: &str = DATABASE_NAME_DEFAULT;
/// All numbers are from ranges that are kept free for fiction.
pub(super) const ALICE: &str = "+491713920012";
pub(super) const BORIS: &str = "+12015550147";
pub(super) const CAROL: &str = "carol@example.org";
pub(super) const DAN: &str = "+491713920034";
/// A line at which every call costs money.
pub(super) const PREMIUM: &str = "+499001234567";
/// A minute seals one set of records: each set is of a later one.
pub(super) const LATER: u64 = 120;

/// What was compared with its story.
#[derive(Default)]
pub(super) struct Checks {
    pub(super) total: usize,
    pub(super) wrong: usize,
}

impl Checks {
    pub(super) fn is(&mut self, is_right: bool, what: &str) -> Result<(), Error> {
        self.total += 1;
        self.wrong += usize::from(!is_right);
        Ok(say(format_args!("  {what}{}", if is_right { "" } else { "  WRONG" }))?)
    }
}

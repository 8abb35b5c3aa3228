//! Records: what a measurement wrote down, in the form in which it is read again. All begin with
//! form, command, commit and machine ([`Head`]); a number that was measured several times is a
//! [`Spread`]. bench/README.md says what each field is.

mod head;
mod kernel;
mod operations;

pub use head::*;
pub use kernel::*;
pub use operations::*;

//! Modular arithmetic, the negacyclic NTT in slot order, automorphisms.
//!
//! Everything works on residues that are fully reduced between calls. Nothing here divides or
//! branches on a residue, so the client may use it on secrets. Sums and products say `wrapping`
//! though none wraps: a check for overflow would be a branch too, and keep loops from vectors.
//! Four primes are in use: `Q` and `P` of the scheme ([`crate::params`]), and two below 2^31 for
//! exact products modulo 2^32 ([`exact`]). It does not know what a query or a shard is.
//! Read next: [`ntt`], then [`crate::scheme`].

mod automorphism;
pub mod exact;
mod isa;
pub mod ntt;
mod residue;
mod rings;

pub use automorphism::{Automorphism, Halves};
pub use isa::{Isa, IsaName, Loops};
pub use residue::{
    Poly, SecretPoly, add, centered, from_signed, inverse, mul, pow, reduce, reduce_once,
    secret_poly, sub, zero_poly,
};
pub use rings::{P_INVERSE, Rings};

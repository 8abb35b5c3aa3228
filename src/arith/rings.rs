//! The transforms of all primes in use.

use std::sync::OnceLock;

use super::isa::Isa;
use super::ntt::{Ntt, Tables};
use super::residue::{BIG0, BIG1, Poly, centered, from_signed, inverse, mul, sub};
use crate::params::{P, Q};

/// P^-1 modulo Q.
pub const P_INVERSE: u32 = inverse::<Q>(P % Q);

/// The transforms of all primes in use, on one instruction set. Copies are cheap.
#[derive(Clone, Copy)]
#[allow(missing_docs)] // Names say it.
pub struct Rings {
    pub isa: Isa,
    pub q: Ntt<Q>,
    pub p: Ntt<P>,
    pub big0: Ntt<BIG0>,
    pub big1: Ntt<BIG1>,
}

impl Rings {
    /// The transforms on one instruction set; their tables are made once a process.
    pub fn get(isa: Isa) -> Self {
        static TABLES_Q: OnceLock<Tables<Q>> = OnceLock::new();
        static TABLES_P: OnceLock<Tables<P>> = OnceLock::new();
        static TABLES_BIG0: OnceLock<Tables<BIG0>> = OnceLock::new();
        static TABLES_BIG1: OnceLock<Tables<BIG1>> = OnceLock::new();
        Self {
            isa,
            q: Ntt::new(&TABLES_Q, isa),
            p: Ntt::new(&TABLES_P, isa),
            big0: Ntt::new(&TABLES_BIG0, isa),
            big1: Ntt::new(&TABLES_BIG1, isa),
        }
    }

    /// Divides `q` (slots modulo Q) by P with rounding, given the same number modulo P in slots:
    /// exact, by taking away the centred residue modulo P first. `p` is used up.
    #[inline(always)]
    pub fn divide_by_p(&self, q: &mut Poly, p: &mut Poly) {
        self.p.inverse(p);
        for x in p.iter_mut() {
            *x = from_signed::<Q>(centered::<P>(*x));
        }
        self.q.forward(p);
        for (q, &e) in q.iter_mut().zip(p.iter()) {
            *q = mul::<Q>(sub::<Q>(*q, e), P_INVERSE);
        }
    }

    /// Slots modulo Q to slots modulo P of the centred representative.
    #[inline(always)]
    pub fn lift_to_p(&self, q: &Poly, out: &mut Poly) {
        out.copy_from_slice(q);
        self.q.inverse(out);
        for x in out.iter_mut() {
            *x = from_signed::<P>(centered::<Q>(*x));
        }
        self.p.forward(out);
    }
}

//! Ordinary loops, compiled for the instruction set at hand.

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::isa::IsaName;

/// Loops that the compiler makes vectors of. `run` and all that it calls have to be
/// `inline(always)`: what is not is compiled once, for every processor.
pub trait Loops {
    /// What comes out.
    type Output;
    /// Runs them.
    fn run(self) -> Self::Output;
}

impl Isa {
    /// Runs `loops`, compiled for this instruction set.
    pub fn run<L: Loops>(self, loops: L) -> L::Output {
        match self.name() {
            // SAFETY: this Isa exists only where the processor has these instructions.
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx2 => unsafe { run_avx2(loops) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx512Bw | IsaName::Avx512 | IsaName::Amx => unsafe { run_avx512(loops) },
            // Elsewhere the text as it stands is compiled to all that the processor has.
            _ => loops.run(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<L: Loops>(loops: L) -> L::Output {
    loops.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2<L: Loops>(loops: L) -> L::Output {
    loops.run()
}

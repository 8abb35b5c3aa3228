//! Ordinary loops, compiled for the instruction set at hand.

use super::Isa;
#[cfg(target_arch = "x86_64")]
use super::IsaName;

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
        #[cfg(target_arch = "x86_64")]
        if self.has_avx512bw() {
            // SAFETY: this Isa exists only where the processor has these instructions.
            return unsafe { run_avx512(loops) };
        } else if self.name() == IsaName::Avx2 {
            // SAFETY: as above.
            return unsafe { run_avx2(loops) };
        }
        loops.run()
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

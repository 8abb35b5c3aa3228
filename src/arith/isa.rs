//! Which instruction sets this processor has, and loops that are compiled for each.

/// The instruction sets there is code for, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsaName {
    /// Portable Rust, which every processor runs.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and nothing newer.
    Avx512Bw,
    /// x86-64 with all of those and VNNI, IFMA, VBMI.
    Avx512,
    /// x86-64 with all of those and AMX for bytes.
    Amx,
    /// AArch64 with the dot product of bytes.
    Neon,
}

impl IsaName {
    /// All instruction sets, slowest first.
    pub const ALL: [IsaName; 6] =
        [Self::Portable, Self::Avx2, Self::Avx512Bw, Self::Avx512, Self::Amx, Self::Neon];

    /// As an option's value has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512Bw => "avx512bw",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
            Self::Neon => "neon",
        }
    }

    fn detected(self) -> bool {
        self.lacks().is_some_and(|lacks| lacks.is_empty())
    }

    /// What this processor lacks of it, in a person's words; `None` where it is another kind of
    /// processor's.
    pub fn lacks(self) -> Option<Vec<&'static str>> {
        let lacks = self.parts()?.into_iter().filter(|(_, present)| !present);
        Some(lacks.map(|(name, _)| name).collect())
    }

    /// What it takes, each with whether it is here.
    #[cfg(target_arch = "x86_64")]
    fn parts(self) -> Option<Vec<(&'static str, bool)>> {
        use std::is_x86_feature_detected as has;
        let foundation = [
            ("AVX-512 F", has!("avx512f")),
            ("AVX-512 BW", has!("avx512bw")),
            ("AVX-512 DQ", has!("avx512dq")),
            ("AVX-512 VL", has!("avx512vl")),
        ];
        let newer = [
            ("AVX-512 VNNI", has!("avx512vnni")),
            ("AVX-512 IFMA", has!("avx512ifma")),
            ("AVX-512 VBMI", has!("avx512vbmi")),
        ];
        match self {
            Self::Portable => Some(Vec::new()),
            Self::Avx2 => Some(vec![("AVX2", has!("avx2"))]),
            Self::Avx512Bw => Some(foundation.to_vec()),
            Self::Avx512 => Some([&foundation[..], &newer].concat()),
            Self::Amx => {
                let mut parts = Self::Avx512.parts()?;
                let rest = parts.iter().all(|(_, present)| *present);
                parts.push((
                    "AMX for bytes, or the system's leave to use it",
                    rest && amx_granted(),
                ));
                Some(parts)
            }
            Self::Neon => None,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn parts(self) -> Option<Vec<(&'static str, bool)>> {
        let dot_product = std::arch::is_aarch64_feature_detected!("dotprod");
        match self {
            Self::Portable => Some(Vec::new()),
            Self::Neon => Some(vec![("the dot product of bytes (asimddp)", dot_product)]),
            _ => None,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn parts(self) -> Option<Vec<(&'static str, bool)>> {
        (self == Self::Portable).then(Vec::new)
    }
}

/// Whether the processor has tiles of bytes (AMX) and the system lets this process use them. Linux
/// wants to be asked once, for every thread of the process has more to save then.
#[cfg(all(target_arch = "x86_64", target_os = "linux", feature = "server"))]
fn amx_granted() -> bool {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    const TILE_AND_INT8: u32 = 0b11 << 24;
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        let present = __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8;
        // SAFETY: asks for leave to use registers; touches no memory of ours.
        let ask = || unsafe {
            libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
        };
        present && ask() == 0
    })
}

/// Nobody multiplies with them there.
#[cfg(all(target_arch = "x86_64", not(all(target_os = "linux", feature = "server"))))]
fn amx_granted() -> bool {
    false
}

/// An instruction set that this processor has: a value other than `PORTABLE` exists only there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(IsaName);

impl Isa {
    /// Portable Rust, which every processor runs.
    pub const PORTABLE: Isa = Isa(IsaName::Portable);

    /// The one of this name, where the processor has all of it.
    pub fn new(name: IsaName) -> Option<Isa> {
        name.detected().then_some(Isa(name))
    }

    /// The fastest instruction set that this processor has.
    pub fn detect() -> Isa {
        Self::all().pop().unwrap_or(Self::PORTABLE)
    }

    /// All that this processor has, slowest first: what tests run over.
    pub fn all() -> Vec<Isa> {
        IsaName::ALL.into_iter().filter_map(Self::new).collect()
    }

    /// The name of this instruction set.
    pub const fn name(self) -> IsaName {
        self.0
    }

    /// Whether AVX-512 with VNNI, IFMA and VBMI is part of it.
    pub const fn has_avx512(self) -> bool {
        matches!(self.0, IsaName::Avx512 | IsaName::Amx)
    }

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

/// Loops that the compiler makes vectors of. `run` and all that it calls have to be
/// `inline(always)`: what is not is compiled once, for every processor.
pub trait Loops {
    /// The result of the loops.
    type Output;
    /// Runs the loops.
    fn run(self) -> Self::Output;
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

//! Which instruction sets this processor has.

/// The instruction sets there is code for, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsaName {
    /// Plain Rust, every processor.
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
    /// Every one, slowest first.
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

    #[cfg(target_arch = "x86_64")]
    fn detected(self) -> bool {
        use std::is_x86_feature_detected as has;
        match self {
            Self::Portable => true,
            Self::Avx2 => has!("avx2"),
            Self::Avx512Bw => {
                let foundation = has!("avx512f") && has!("avx512bw");
                foundation && has!("avx512dq") && has!("avx512vl")
            }
            Self::Avx512 => {
                let newer = has!("avx512vnni") && has!("avx512ifma") && has!("avx512vbmi");
                newer && Self::Avx512Bw.detected()
            }
            Self::Amx => Self::Avx512.detected() && amx_granted(),
            Self::Neon => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn detected(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn detected(self) -> bool {
        self == Self::Portable
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
    /// Plain Rust, every processor.
    pub const PORTABLE: Isa = Isa(IsaName::Portable);

    /// The one of this name, where the processor has all of it.
    pub fn new(name: IsaName) -> Option<Isa> {
        name.detected().then_some(Isa(name))
    }

    /// The fastest one here.
    pub fn detect() -> Isa {
        Self::all().pop().unwrap_or(Self::PORTABLE)
    }

    /// All that this processor has, slowest first: what tests run over.
    pub fn all() -> Vec<Isa> {
        IsaName::ALL.into_iter().filter_map(Self::new).collect()
    }

    /// Which one it is.
    pub const fn name(self) -> IsaName {
        self.0
    }

    /// Whether AVX-512 with VNNI, IFMA and VBMI is part of it.
    pub const fn has_avx512(self) -> bool {
        matches!(self.0, IsaName::Avx512 | IsaName::Amx)
    }
}

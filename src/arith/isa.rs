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
    /// AArch64 with the dot product of bytes.
    Neon,
}

impl IsaName {
    /// Every one, slowest first.
    pub const ALL: [IsaName; 5] =
        [Self::Portable, Self::Avx2, Self::Avx512Bw, Self::Avx512, Self::Neon];

    /// As an option's value has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512Bw => "avx512bw",
            Self::Avx512 => "avx512",
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
}

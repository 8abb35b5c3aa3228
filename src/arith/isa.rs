//! Which instruction sets this processor has.

/// The instruction sets a computation may use. A value other than `Portable` exists only where
/// the processor has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(IsaKind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsaKind {
    Portable,
    Avx512,
}

impl Isa {
    /// Plain Rust, every processor.
    pub const PORTABLE: Isa = Isa(IsaKind::Portable);

    /// AVX-512 with VNNI, IFMA and VBMI, where the processor has all of it.
    pub fn avx512() -> Option<Isa> {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512vnni")
            && std::is_x86_feature_detected!("avx512ifma")
            && std::is_x86_feature_detected!("avx512vbmi")
        {
            return Some(Isa(IsaKind::Avx512));
        }
        None
    }

    /// The fastest one here.
    pub fn detect() -> Isa {
        Self::avx512().unwrap_or(Self::PORTABLE)
    }

    /// All that this processor has, the portable one first: what tests run over.
    pub fn all() -> Vec<Isa> {
        std::iter::once(Self::PORTABLE).chain(Self::avx512()).collect()
    }

    /// "portable" or "avx512".
    pub fn name(self) -> &'static str {
        match self.0 {
            IsaKind::Portable => "portable",
            IsaKind::Avx512 => "avx512",
        }
    }

    /// Whether AVX-512 (F, BW, DQ, VL, VNNI, IFMA, VBMI) may be used.
    pub fn is_avx512(self) -> bool {
        self.0 == IsaKind::Avx512
    }
}

//! Peak rates of the multiply-adds: loops of nothing else, in registers, with enough chains of
//! their own that no instruction waits for another. Assembly, so that no compiler folds them.

/// One kind of multiply-add that this processor has.
pub(super) struct Peak {
    pub(super) name: &'static str,
    pub(super) per_loop: u64,
    pub(super) run: fn(u64),
}

pub(super) const DPBUSD: &str = "vpdpbusd";
pub(super) const TDPBSUD: &str = "tdpbsud";
pub(super) const MADD52: &str = "vpmadd52luq";
pub(super) const MADDWD_512: &str = "vpmaddwd_vpaddd_512";
pub(super) const MADDWD_256: &str = "vpmaddwd_vpaddd_256";
pub(super) const MULUDQ_512: &str = "vpmuludq_vpaddq_512";
pub(super) const MULUDQ_256: &str = "vpmuludq_vpaddq_256";

#[cfg(target_arch = "x86_64")]
pub(super) fn present() -> Vec<Peak> {
    use sotto::arith::{Isa, IsaName};
    let mut peaks = Vec::new();
    if Isa::new(IsaName::Avx2).is_some() {
        peaks.push(Peak { name: MADDWD_256, per_loop: 12, run: x86::maddwd_256 });
        peaks.push(Peak { name: MULUDQ_256, per_loop: 12, run: x86::muludq_256 });
    }
    if Isa::new(IsaName::Avx512Bw).is_some() {
        peaks.push(Peak { name: MADDWD_512, per_loop: 24, run: x86::maddwd_512 });
        peaks.push(Peak { name: MULUDQ_512, per_loop: 24, run: x86::muludq_512 });
    }
    if Isa::new(IsaName::Avx512).is_some() {
        peaks.push(Peak { name: DPBUSD, per_loop: 24, run: x86::dpbusd });
        peaks.push(Peak { name: MADD52, per_loop: 24, run: x86::madd52 });
    }
    if Isa::new(IsaName::Amx).is_some() {
        peaks.push(Peak { name: TDPBSUD, per_loop: 6, run: x86::tdpbsud });
    }
    peaks
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn present() -> Vec<Peak> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    /// A function that goes `loops` (at least one) times through the lines.
    macro_rules! peak {
        ($name:ident: $($line:expr),*) => {
            pub(super) fn $name(loops: u64) {
                // SAFETY: `present` lists it only where the processor has the instructions; they
                // touch vector registers, all of which this ABI gives away, and the counter.
                unsafe {
                    asm!(
                        "2:", $($line,)* "dec rcx", "jnz 2b", "vzeroupper",
                        inout("rcx") loops => _, clobber_abi("sysv64"), options(nomem, nostack),
                    );
                }
            }
        };
    }
    /// One fused multiply-add into each of these registers.
    macro_rules! fused {
        ($name:ident $mnemonic:literal: $($sum:literal)*) => {
            peak!($name: $(concat!($mnemonic, " zmm", $sum, ", zmm30, zmm31")),*);
        };
    }
    /// A product into a register of its own, added to each of these sums.
    macro_rules! paired {
        ($name:ident $product:literal $add:literal $reg:literal
         by $a:literal $b:literal: $($sum:literal $to:literal)*) => {
            peak!($name: $(
                concat!($product, " ", $reg, $to, ", ", $reg, $a, ", ", $reg, $b),
                concat!($add, " ", $reg, $sum, ", ", $reg, $sum, ", ", $reg, $to)
            ),*);
        };
    }
    /// Six sums of 16 rows of 64 bytes.
    pub(super) fn tdpbsud(loops: u64) {
        #[repr(C, align(64))]
        struct TileConfig([u8; 64]);
        let mut config = TileConfig([0; 64]);
        config.0[0] = 1;
        for tile in 0..8 {
            config.0[16 + 2 * tile] = 64;
            config.0[48 + tile] = 16;
        }
        // SAFETY: as in `peak`; reads the 64 bytes of `config`.
        unsafe {
            asm!(
                "ldtilecfg [{config}]", "2:",
                "tdpbsud tmm0, tmm6, tmm7", "tdpbsud tmm1, tmm6, tmm7",
                "tdpbsud tmm2, tmm6, tmm7", "tdpbsud tmm3, tmm6, tmm7",
                "tdpbsud tmm4, tmm6, tmm7", "tdpbsud tmm5, tmm6, tmm7",
                "dec rcx", "jnz 2b", "tilerelease",
                config = in(reg) &config, inout("rcx") loops => _,
                clobber_abi("sysv64"), options(nostack, readonly),
            );
        }
    }

    fused!(dpbusd "vpdpbusd": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23);
    fused!(madd52 "vpmadd52luq": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23);
    paired!(maddwd_512 "vpmaddwd" "vpaddd" "zmm" by 30 31:
        0 24 1 25 2 26 3 27 4 28 5 29 6 24 7 25 8 26 9 27 10 28 11 29
        12 24 13 25 14 26 15 27 16 28 17 29 18 24 19 25 20 26 21 27 22 28 23 29);
    paired!(muludq_512 "vpmuludq" "vpaddq" "zmm" by 30 31:
        0 24 1 25 2 26 3 27 4 28 5 29 6 24 7 25 8 26 9 27 10 28 11 29
        12 24 13 25 14 26 15 27 16 28 17 29 18 24 19 25 20 26 21 27 22 28 23 29);
    paired!(maddwd_256 "vpmaddwd" "vpaddd" "ymm" by 14 15:
        0 8 1 9 2 10 3 11 4 12 5 13 6 8 7 9 0 10 1 11 2 12 3 13);
    paired!(muludq_256 "vpmuludq" "vpaddq" "ymm" by 14 15:
        0 8 1 9 2 10 3 11 4 12 5 13 6 8 7 9 0 10 1 11 2 12 3 13);
}

//! The few requests of valgrind's memcheck that the check needs. Outside valgrind they do nothing.
//!
//! Source: `valgrind.h` and `memcheck.h` of valgrind 3.19 (BSD licence): a sequence of rotations
//! that leaves a register as it was, and an exchange of a register with itself.

use std::arch::asm;

/// The numbers of the requests.
const RUNNING_ON_VALGRIND: u64 = 0x1001;
const COUNT_ERRORS: u64 = 0x1201;
const MEMCHECK: u64 = (b'M' as u64) << 24 | (b'C' as u64) << 16;
const MAKE_MEM_UNDEFINED: u64 = MEMCHECK + 1;
const MAKE_MEM_DEFINED: u64 = MEMCHECK + 2;
const GET_VBITS: u64 = MEMCHECK + 8;

fn request(number: u64, arguments: [u64; 3]) -> u64 {
    let [a, b, c] = arguments;
    let block = [number, a, b, c, 0, 0];
    let mut answer = 0u64;
    // SAFETY: outside valgrind the instructions change no register. Inside, valgrind reads the
    // block and changes its own notes about memory, never the memory, except the buffer of
    // GET_VBITS, which `secret_bytes` alone passes, mutably borrowed and of the length that it
    // says.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") block.as_ptr(),
            inout("rdx") answer,
        );
    }
    std::hint::black_box(&mut answer);
    answer
}

/// Whether anybody listens to the requests.
pub(crate) fn is_running() -> bool {
    request(RUNNING_ON_VALGRIND, [0; 3]) != 0
}

/// Branches and addresses that depended on something secret, so far.
pub(crate) fn reports() -> u64 {
    request(COUNT_ERRORS, [0; 3])
}

/// From here on these bytes are secret: memcheck reports a branch or an address that depends on
/// them, or on anything that was computed from them.
pub(crate) fn secret<T: ?Sized>(what: &T) {
    let at = std::ptr::from_ref(what).cast::<u8>() as u64;
    request(MAKE_MEM_UNDEFINED, [at, size_of_val(what) as u64, 0]);
}

/// From here on these bytes are public.
pub(crate) fn public<T: ?Sized>(what: &T) {
    let at = std::ptr::from_ref(what).cast::<u8>() as u64;
    request(MAKE_MEM_DEFINED, [at, size_of_val(what) as u64, 0]);
}

/// How many of the bytes depend on something secret.
pub(crate) fn secret_bytes(bytes: &[u8]) -> usize {
    let mut undefined_bits = vec![0u8; bytes.len()];
    let (at, to) = (bytes.as_ptr() as u64, undefined_bits.as_mut_ptr() as u64);
    let answer = request(GET_VBITS, [at, to, bytes.len() as u64]);
    assert_eq!(answer, 1, "memcheck does not say which bits are undefined");
    undefined_bits.iter().filter(|&&bits| bits != 0).count()
}

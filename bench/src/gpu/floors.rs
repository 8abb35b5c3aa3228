//! What no engine can beat on this device: how fast it reads its memory, how fast it multiplies and
//! adds. Measured by small kernels, `*.wgsl` beside this file; what each computes is compared with
//! the processor, so that a compiler that leaves something out is found.

use std::time::Duration;

use crate::record::GpuFloors;
use wgpu::{Buffer, Features};

use super::probe::Probe;
use crate::Failed;
use crate::common::Effort;
use crate::record::rounded;

/// Threads of a workgroup, in all of the texts.
const THREADS: u64 = 256;
/// The odd number of read.wgsl and multiply_narrow.wgsl.
const FACTOR: u32 = 0x9e37_79b1;
/// Loads of 16 bytes that a thread of read.wgsl has under way.
const LOADS: u64 = 8;
/// Turns of multiply.wgsl, each of 8 rounds of 16 multiply-adds.
const TURNS: u32 = 64;
const ROUNDS: u32 = 8;
/// Largest piece of what is read.
const PIECE_BYTES: u64 = 1 << 30;

pub(super) fn measure(probe: &Probe, effort: Effort) -> Result<GpuFloors, Failed> {
    let (read_gb_per_s, read_bytes, read_how) = read(probe, effort)?;
    let wide_g_per_s = if probe.features.contains(Features::SHADER_INT64) {
        let expected = |thread| chains(thread, u64::from, wide_step, |x| x as u32);
        Some(multiply(probe, effort, include_str!("multiply_wide.wgsl"), expected)?)
    } else {
        None
    };
    let narrow = |thread| chains(thread, |x| x, narrow_step, |x| x);
    let dot = |thread| chains(thread, |x| x, dot_step, |x| x);
    Ok(GpuFloors {
        read_gb_per_s,
        read_bytes,
        read_how,
        narrow_g_per_s: multiply(probe, effort, include_str!("multiply_narrow.wgsl"), narrow)?,
        wide_g_per_s,
        dot_g_per_s: multiply(probe, effort, include_str!("multiply_dot.wgsl"), dot)?,
    })
}

/// Bandwidth in 10^9 bytes a second, bytes, and how: the best of several numbers of workgroups.
fn read(probe: &Probe, effort: Effort) -> Result<(f64, u64, String), Failed> {
    let limits = &probe.limits;
    let binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    // Far more than any cache.
    let wanted = effort.pick(4 << 30, 64 << 20, 64 << 20);
    let (mut bytes, mut found) = (wanted, None);
    let mut piece = 0;
    while found.is_none() && bytes >= wanted / 16 {
        // A power of two, so that every thread of every way has as many words.
        piece = bytes.min(PIECE_BYTES).min(1 << binding.ilog2());
        found = probe.buffers((bytes / piece) as usize, piece);
        bytes /= 2;
    }
    let pieces = found.ok_or("the device has no memory for the reading kernels")?;
    let source = include_str!("read.wgsl");
    let groups = 1 << 10;
    let stride = |groups: u64| [("STRIDE", (groups * THREADS) as f64)];
    let fill = probe.pipeline(source, "fill", &stride(groups));
    for piece in &pieces {
        let bound = probe.bind(&fill, &[piece]);
        probe.run(|encoder| {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&fill);
            pass.set_bind_group(0, &bound, &[]);
            pass.dispatch_workgroups(groups as u32, 1, 1);
        })?;
    }
    let total = one(probe, 4)?;
    let all = piece * pieces.len() as u64;
    let mut best = (Duration::MAX, String::new());
    for groups in [1 << 8, 1 << 10, 1 << 12, 1 << 14] {
        if piece / 16 < groups * THREADS * LOADS {
            continue;
        }
        let pipeline = probe.pipeline(source, "read_all", &stride(groups));
        let bind = |piece| probe.bind(&pipeline, &[piece, &total]);
        let bound: Vec<_> = pieces.iter().map(bind).collect();
        let record = |pass: &mut wgpu::ComputePass<'_>| {
            pass.set_pipeline(&pipeline);
            for bound in &bound {
                pass.set_bind_group(0, bound, &[]);
                pass.dispatch_workgroups(groups as u32, 1, 1);
            }
        };
        probe.run(|encoder| {
            encoder.clear_buffer(&total, 0, None);
            record(&mut encoder.begin_compute_pass(&Default::default()));
        })?;
        let words = piece / 4;
        let of_piece = (words * (words - 1) / 2) as u32;
        let expected = of_piece.wrapping_mul(FACTOR).wrapping_mul(pieces.len() as u32);
        equal("read", probe.words(&total)?[0], expected)?;
        let time = probe.best(effort, record)?;
        best = best.min((time, format!("{LOADS} loads a thread, {groups} workgroups")));
    }
    if best.1.is_empty() {
        return Err("this is a bug: no way to read fits the pieces".into());
    }
    Ok((rounded(all as f64 / best.0.as_nanos().max(1) as f64), all, best.1))
}

/// Multiply-adds of one kind, 10^9 a second.
fn multiply(
    probe: &Probe,
    effort: Effort,
    kind: &str,
    expected: impl Fn(u32) -> u32,
) -> Result<f64, Failed> {
    let source = [kind, include_str!("multiply.wgsl")].concat();
    let pipeline = probe.pipeline(&source, "multiply", &[("TURNS", TURNS.into())]);
    let groups = effort.pick(1 << 13, 1 << 4, 1 << 4);
    let threads = u64::from(groups) * THREADS;
    let left = one(probe, 4 * threads)?;
    let bound = probe.bind(&pipeline, &[&left]);
    let time = probe.best(effort, |pass| {
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bound, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
    })?;
    let words = probe.words(&left)?;
    for thread in [0, 1, threads as u32 / 2, threads as u32 - 1] {
        equal("multiply", words[thread as usize], expected(thread))?;
    }
    let count = threads * u64::from(TURNS * ROUNDS * 16);
    Ok(rounded(count as f64 / time.as_nanos().max(1) as f64))
}

fn one(probe: &Probe, bytes: u64) -> Result<Buffer, Failed> {
    let made = probe.buffers(1, bytes).and_then(|mut made| made.pop());
    Ok(made.ok_or("the device has no memory for the kernels of the floors")?)
}

fn equal(what: &str, found: u32, expected: u32) -> Result<(), Failed> {
    let message = || format!("{what} computed {found:#x}, expected {expected:#x}: no floor");
    (found == expected).then_some(()).ok_or_else(message).map_err(Into::into)
}

/// What multiply.wgsl leaves of a thread.
fn chains<T: Copy>(
    thread: u32,
    number: impl Fn(u32) -> T,
    step: impl Fn(T, T) -> T,
    low: impl Fn(T) -> u32,
) -> u32 {
    let first = thread.wrapping_mul(16);
    let mut x: [T; 16] = std::array::from_fn(|i| number(first.wrapping_add(i as u32 + 1)));
    for _ in 0..TURNS * ROUNDS {
        for pair in [0, 8] {
            for i in pair..pair + 4 {
                x[i] = step(x[i], x[i + 4]);
                x[i + 4] = step(x[i + 4], x[i]);
            }
        }
    }
    x.into_iter().fold(0, |all, x| all ^ low(x))
}

fn narrow_step(x: u32, y: u32) -> u32 {
    x.wrapping_mul(y).wrapping_add(FACTOR)
}

fn wide_step(x: u64, y: u64) -> u64 {
    let low = |x: u64| x & 0xffff_ffff;
    x.wrapping_add(low(x) * low(y))
}

fn dot_step(x: u32, y: u32) -> u32 {
    let bytes = x.to_le_bytes().into_iter().zip(y.to_le_bytes());
    let product = |(x, y)| i32::from(x as i8) * i32::from(y as i8);
    x.wrapping_add(bytes.map(product).sum::<i32>() as u32)
}

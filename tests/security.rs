//! The parameter table of SECURITY.md, recomputed.

#![allow(clippy::unwrap_used)]

use std::f64::consts::{E, PI};

use sotto::limits;
use sotto::params::{
    BITS_CHOICES, D, ERROR_VARIANCE, P, Q, SECRET_VARIANCE, Shape, ShapeFields, ShapeWishes,
};

/// Root Hermite factor of BKZ with this block size.
fn root_hermite(block: f64) -> f64 {
    ((PI * block).powf(1.0 / block) * block / (2.0 * PI * E)).powf(1.0 / (2.0 * (block - 1.0)))
}

/// Block size and bits of the plain primal attack: the smallest block size at which, for the best
/// number of samples, the projected secret is shorter than what reduction finds.
fn primal_attack(log2_modulus: f64) -> (u32, u32) {
    let (n, sigma) = (D as f64, ERROR_VARIANCE.sqrt());
    let rescale = (sigma / SECRET_VARIANCE.sqrt()).log2();
    for block in 60..2000 {
        let block_size = f64::from(block);
        for samples in (200..2 * D + 400).step_by(8) {
            let dimension = samples as f64 + n + 1.0;
            let volume = (samples as f64 * log2_modulus + n * rescale) / dimension;
            let short = sigma.log2() + block_size.log2() / 2.0;
            let found =
                (2.0 * block_size - dimension - 1.0) * root_hermite(block_size).log2() + volume;
            if short <= found {
                let bits = 0.292 * block_size + 16.4 + (8.0 * dimension).log2();
                return (block, bits as u32);
            }
        }
    }
    panic!("no block size up to 2000 breaks {log2_modulus} bits");
}

#[test]
fn the_parameter_table_is_true() {
    let text = include_str!("../SECURITY.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.ends_with('|') && line.contains("| ternary |"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), 4, "the parameter table of SECURITY.md has four rows");
    for row in &rows {
        assert_eq!(row[2], D.to_string(), "{row:?}");
        assert_eq!(row[4], format!("{:.2}", ERROR_VARIANCE.sqrt()), "{row:?}");
        let (block, bits) = primal_attack(row[3].parse().unwrap());
        assert_eq!((row[6], row[7]), (&*block.to_string(), &*bits.to_string()), "{row:?}");
    }
    let bundle_modulus = (f64::from(Q) * f64::from(P)).log2();
    assert_eq!(rows[0][3], format!("{bundle_modulus:.0}"));
    assert_eq!(rows[1][3], "32");
    let weakest: u32 = rows[..2].iter().map(|row| row[7].parse().unwrap()).min().unwrap();
    assert!(weakest >= 128, "the scheme's own samples give {weakest} bits");
}

/// The largest probability of INVALID by chance among all shapes with this value field.
fn worst_invalid(value_len: u32) -> f64 {
    let columns = (limits::COLUMNS_MIN..=limits::COLUMNS_MAX).step_by(64);
    let pack_rows = [128, 256, 512, 1024, 2048];
    let sizes = columns.flat_map(|columns| pack_rows.map(|pack_rows| (columns, pack_rows)));
    let fields = sizes.flat_map(|(columns, pack_rows)| {
        BITS_CHOICES.map(|(response_bits, hint_bits)| ShapeFields {
            value_len,
            pack_rows,
            packs: limits::PACKS_MAX,
            columns,
            response_bits,
            hint_bits,
        })
    });
    let allowed = fields.filter_map(|fields| Shape::from_fields(fields).ok());
    allowed.map(|shape| shape.log2_invalid()).fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn the_table_of_failures_is_true() {
    let text = include_str!("../SECURITY.md");
    let heading = "| shape | value field | pack rows | packs | columns |";
    let (_, table) = text.split_once(heading).expect("SECURITY.md has a table of failures");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split('|').map(str::trim).collect()).collect();
    assert_eq!(rows.len(), 4);
    for row in &rows {
        let number = |at: usize| row[at].parse::<u32>().unwrap();
        let shape = Shape::new(number(2), number(3), number(4), number(5)).unwrap();
        let shown = [shape.log2_failure(), shape.log2_invalid()].map(|log| format!("{log:.1}"));
        assert_eq!([row[6], row[7]], [&*shown[0], &*shown[1]], "{row:?}");
    }
    // The standard shape is the rule's.
    let standard = Shape::for_records(1 << 20, 120, ShapeWishes::default()).unwrap();
    let standard = [standard.packs(), standard.columns()].map(|size| size.to_string());
    assert_eq!(rows[0][4..6], standard);
    // The last two rows are what they say. Longer records are worse off nowhere: their
    // shapes must be less noisy.
    for (row, value_lens) in [(2, [120, 500]), (3, [1, 24])] {
        let worst = value_lens.map(worst_invalid);
        assert_eq!(rows[row][7], format!("{:.1}", worst[0]));
        assert!(worst[1] <= worst[0]);
    }
    // What the documentation of `Outcome::Invalid` says.
    let whole: Vec<f64> = rows.iter().map(|row| row[7].parse::<f64>().unwrap().ceil()).collect();
    assert_eq!(whole, [-25.0, -27.0, -17.0, -14.0]);
}

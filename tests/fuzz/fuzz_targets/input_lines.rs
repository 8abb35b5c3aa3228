//! An operator's input, as CSV and as JSON Lines: records and counted mistakes, never a panic.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use sotto::builder::input::{Entry, InputFormat, ValueBound, read};
use sotto::limits;

fuzz_target!(|data: &[u8]| {
    for format in [InputFormat::Csv, InputFormat::JsonLines] {
        let mut each = |entry: Entry<'_>| -> io::Result<()> {
            assert!((1..=limits::KEY_BYTES_MAX).contains(&entry.key.len()));
            assert!(std::str::from_utf8(entry.key).is_ok());
            assert!(entry.value.len() <= 39);
            assert!(entry.line >= 1);
            Ok(())
        };
        let bound = ValueBound { bytes: 39, why: "as this test wants it" };
        if let Ok(found) = read(data, format, bound, &mut each) {
            for lines in [&found.errors, &found.warnings] {
                assert!(lines.first.len() as u64 <= lines.count);
            }
        }
    }
});

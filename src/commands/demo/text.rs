//! Plain text for a person at 80 columns.

use std::time::Duration;

use crate::commands::out::Lost;
pub(super) use crate::commands::out::say;

const WIDTH: usize = 78;

/// Text in lines of at most 78 characters, indented by two.
pub(super) fn paragraph(text: &str) -> Result<(), Lost> {
    wrapped(text).iter().try_for_each(say)
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines
}

/// So many of something.
pub(super) fn counted(number: u64, name: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {name}{plural}", grouped(number))
}

/// A number in groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in decimal units.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A duration in milliseconds, or in seconds from ten of them on.
pub(super) fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let numbers = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_048_576, "1,048,576")];
        for (number, text) in numbers {
            assert_eq!(grouped(number), text);
        }
        let sizes = [(999, "999 B"), (51_840, "51.8 kB"), (242_000_000, "242.0 MB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        let times = [(1_234, "1.23 ms"), (123_400, "123 ms"), (12_340_000, "12.3 s")];
        for (us, text) in times {
            assert_eq!(ms(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn paragraphs_stay_in_their_columns_and_lose_no_word() {
        let text = "word another-one ".repeat(40);
        let lines = wrapped(&text);
        assert!(lines.iter().all(|line| line.len() <= WIDTH && line.starts_with("  ")));
        let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
    }
}

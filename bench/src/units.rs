//! Numbers as people read them.

use serde::Serialize;

/// What a number counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Unit {
    Count,
    Ms,
    Bytes,
    Share,
    Money(String),
}

impl Unit {
    /// A value in the largest unit that it fills.
    pub(crate) fn show(&self, value: f64) -> String {
        let units: &[(f64, &str)] = match self {
            Self::Count => &[(1.0, ""), (1e6, " million"), (1e9, " billion"), (1e12, " trillion")],
            Self::Ms => &[(1e-3, " us"), (1.0, " ms"), (1e3, " s")],
            Self::Bytes => &[
                (1.0, " bytes"),
                (1e3, " KB"),
                (1e6, " MB"),
                (1e9, " GB"),
                (1e12, " TB"),
                (1e15, " PB"),
            ],
            Self::Share => return format!("{}%", number(value * 1e2)),
            Self::Money(currency) => return format!("{} {currency}", number(value)),
        };
        let filled = units.iter().rfind(|(size, _)| value.abs() >= *size);
        let (size, unit) = filled.unwrap_or(&units[0]);
        if value == 0.0 { "0".into() } else { format!("{}{unit}", number(value / size)) }
    }
}

/// Four digits, or all of a whole number, in groups of three.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if value == value.round() && size < 1e15 => 0,
        1e3.. => 0,
        1e2.. => 1,
        1e1.. => 2,
        1.0.. => 3,
        1e-1.. => 4,
        1e-3.. => 6,
        _ => return format!("{value:.3e}"),
    };
    let text = format!("{size:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let groups: Vec<_> = whole.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    let grouped = groups.join(" ");
    let sign = if value < 0.0 { "-" } else { "" };
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{grouped}"),
        fraction => format!("{sign}{grouped}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_whole_ones_whole() {
        let cases = [
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 157_407.4, "157 407"),
            (Unit::Count, 242.2134, "242.2"),
            (Unit::Count, 0.001_624, "0.001624"),
            (Unit::Count, 0.000_1, "1.000e-4"),
            (Unit::Count, 1e10, "10 billion"),
            (Unit::Ms, 0.25, "250 us"),
            (Unit::Ms, 90_000.0, "90 s"),
            (Unit::Bytes, 51_840.0, "51.84 KB"),
            (Unit::Share, 0.876_54, "87.65%"),
            (Unit::Money("USD".into()), -1.5, "-1.5 USD"),
        ];
        for (unit, value, expected) in cases {
            assert_eq!(unit.show(value), expected);
        }
    }
}

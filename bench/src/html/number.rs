//! Numbers as a page says them: three digits, in the unit that keeps them short.

use serde::Serialize;

/// What a number counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) enum Unit {
    /// Things.
    Count,
    /// Time, in milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Of a whole.
    Share,
    /// In this currency.
    Money(String),
}

/// Between number and unit, and between groups of digits: no line breaks there.
const NARROW: char = '\u{202f}';

impl Unit {
    /// A value in words.
    pub(super) fn show(&self, value: f64) -> String {
        if !value.is_finite() {
            return "?".into();
        }
        let least = |steps: &[(f64, &str)]| {
            let found = steps.iter().rev().find(|(size, _)| value.abs() >= size * 0.9995);
            let (size, unit) = found.copied().unwrap_or(steps[0]);
            format!("{}{NARROW}{unit}", digits(value / size))
        };
        match self {
            Self::Count => count(value),
            Self::Ms if value == 0.0 => "0".into(),
            // Two of the larger unit at least: 90 s says more than 1.5 min.
            Self::Ms if value.abs() >= 2.0 * 3600e3 => least(&[(3600e3, "h")]),
            Self::Ms if value.abs() >= 2.0 * 60e3 => least(&[(60e3, "min")]),
            Self::Ms => least(&[(1e-3, "µs"), (1.0, "ms"), (1e3, "s")]),
            Self::Bytes if value == 0.0 => "0".into(),
            Self::Bytes => least(&[
                (1.0, "B"),
                (1e3, "KB"),
                (1e6, "MB"),
                (1e9, "GB"),
                (1e12, "TB"),
                (1e15, "PB"),
            ]),
            Self::Share => format!("{}{NARROW}%", digits(value * 1e2)),
            Self::Money(_) if value == 0.0 => "0".into(),
            Self::Money(currency) => {
                let amount = least(&[(1.0, ""), (1e6, "M"), (1e9, "G")]);
                format!("{}{NARROW}{currency}", amount.trim_end())
            }
        }
    }
}

fn count(value: f64) -> String {
    let of = |size: f64, word: &str| format!("{} {word}", digits(value / size));
    match value.abs() {
        size if size >= 0.9995e12 => of(1e12, "trillion"),
        size if size >= 0.9995e9 => of(1e9, "billion"),
        size if size >= 0.9995e6 => of(1e6, "million"),
        _ => digits(value),
    }
}

/// Three digits, or four before the point, in groups.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || size < 1e-9 {
        return "0".into();
    }
    let magnitude = size.log10().floor() as i32;
    if size >= 999.5 {
        let unit = 10f64.powi((magnitude - 3).max(0));
        return grouped((value / unit).round() * unit);
    }
    let places = (2 - magnitude).max(0) as usize;
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn grouped(value: f64) -> String {
    let text = format!("{:.0}", value.abs());
    let mut out = String::new();
    if value < 0.0 {
        out.push('-');
    }
    for (place, digit) in text.chars().enumerate() {
        // Numbers of four digits are one group.
        if place > 0 && (text.len() - place).is_multiple_of(3) && text.len() > 4 {
            out.push(NARROW);
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_units_fit() {
        let shown = |unit: Unit, value: f64| unit.show(value).replace(NARROW, "_");
        let cases = [
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 0.012_34, "0.0123"),
            (Unit::Count, 2.0, "2"),
            (Unit::Count, 9.999, "10"),
            (Unit::Count, 412.4, "412"),
            (Unit::Count, 1234.0, "1234"),
            (Unit::Count, 65_736.0, "65_740"),
            (Unit::Count, 999_999.0, "1 million"),
            (Unit::Count, 1_048_576.0, "1.05 million"),
            (Unit::Count, 1e10, "10 billion"),
            (Unit::Count, -12_345.0, "-12_350"),
            (Unit::Count, f64::INFINITY, "?"),
            (Unit::Ms, 0.000_12, "0.12_µs"),
            (Unit::Ms, 0.25, "250_µs"),
            (Unit::Ms, 999.9, "1_s"),
            (Unit::Ms, 500.0, "500_ms"),
            (Unit::Ms, 90_000.0, "90_s"),
            (Unit::Ms, 5_400_000.0, "90_min"),
            (Unit::Ms, 36_000_000.0, "10_h"),
            (Unit::Bytes, 51_840.0, "51.8_KB"),
            (Unit::Bytes, 2.5e12, "2.5_TB"),
            (Unit::Share, 0.8765, "87.6_%"),
            (Unit::Money("USD".into()), 0.5, "0.5_USD"),
            (Unit::Money("USD".into()), 29_630.0, "29_630_USD"),
            (Unit::Money("USD".into()), 5.594e6, "5.59_M_USD"),
        ];
        for (unit, value, expected) in cases {
            assert_eq!(shown(unit, value), expected);
        }
    }
}

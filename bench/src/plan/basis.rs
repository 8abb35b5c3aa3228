//! Where numbers came from, carried along with them until they become figures.

use super::Figure;

/// Sources of a number, and why it may be no more than a guess.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Basis {
    sources: Vec<String>,
    guesses: Vec<String>,
}

impl Basis {
    /// Of sources.
    pub(super) fn of<S: Into<String>>(sources: impl IntoIterator<Item = S>) -> Self {
        Self { sources: sources.into_iter().map(Into::into).collect(), guesses: Vec::new() }
    }

    /// Also guessed, for this reason.
    pub(super) fn guess(mut self, why: impl Into<String>) -> Self {
        let why = why.into();
        if !self.guesses.contains(&why) {
            self.guesses.push(why);
        }
        self
    }

    /// Of both.
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for source in &other.sources {
            if !both.sources.contains(source) {
                both.sources.push(source.clone());
            }
        }
        other.guesses.iter().fold(both, Self::guess)
    }

    /// What comes of it.
    pub(super) fn figure(
        &self,
        name: impl Into<String>,
        value: f64,
        unit: &str,
        formula: impl Into<String>,
    ) -> Figure {
        Figure {
            name: name.into(),
            value,
            unit: unit.into(),
            formula: formula.into(),
            sources: self.sources.clone(),
            extrapolated: (!self.guesses.is_empty()).then(|| self.guesses.join("; ")),
        }
    }
}

/// A formula with its numbers put in, each as [`number`] says it.
macro_rules! formula {
    ($text:literal $(, $value:expr)+ $(,)?) => {
        format!($text $(, $crate::plan::basis::number($value))+)
    };
}
pub(super) use formula;

/// For people: four digits, or all of a whole number, thousands apart.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if value == value.round() && size < 1e15 => 0,
        _ if size >= 1e3 => 0,
        _ if size >= 1e2 => 1,
        _ if size >= 1e1 => 2,
        _ if size >= 1.0 => 3,
        _ if size >= 1e-1 => 4,
        _ if size >= 1e-3 => 6,
        _ => return format!("{value:.3e}"),
    };
    let text = format!("{size:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    let sign = if value < 0.0 { "-" } else { "" };
    if fraction.is_empty() {
        sign.to_owned() + &grouped
    } else {
        format!("{sign}{grouped}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_whole_ones_whole() {
        let cases = [
            (0.0, "0"),
            (1_157_407.4, "1 157 407"),
            (10_000.0, "10 000"),
            (242.2134, "242.2"),
            (-1.5, "-1.5"),
            (0.70, "0.7"),
            (0.001_624, "0.001624"),
            (0.000_1, "1.000e-4"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn what_stands_on_a_guess_is_a_guess() {
        let known = Basis::of(["a"]);
        let guessed = Basis::of(["a", "b"]).guess("because");
        let both = known.and(&guessed).and(&guessed).figure("x", 1.0, "", "1");
        assert_eq!(both.sources, ["a", "b"]);
        assert_eq!(both.extrapolated.as_deref(), Some("because"));
        assert_eq!(known.and(&known).figure("x", 1.0, "", "1").extrapolated, None);
    }
}

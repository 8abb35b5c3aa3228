//! A figure of a plan: a number with its formula, its sources and why it may be a guess.

use serde::{Deserialize, Serialize};

use crate::units::{Unit, number};

/// The unit of a rate, as programs read it.
pub(super) const A_SECOND: &str = "1/s";

/// A number and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "bench/README.md says what each field is; a test compares")]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub formula: String,
    pub sources: Vec<String>,
    pub extrapolated: Option<String>,
}

impl Figure {
    pub(crate) fn in_words(&self) -> String {
        match &*self.unit {
            "" => number(self.value),
            "bytes" => Unit::Bytes.show(self.value),
            "ms" => Unit::Ms.show(self.value),
            A_SECOND => format!("{} a second", number(self.value)),
            unit => format!("{} {unit}", number(self.value)),
        }
    }
}

/// What a number stands on: its sources, and why it may be no more than a guess.
#[derive(Debug, Clone, Default)]
pub(super) struct Basis {
    sources: Vec<String>,
    guesses: Vec<String>,
}

impl Basis {
    pub(super) fn of<S: Into<String>>(sources: impl IntoIterator<Item = S>) -> Self {
        Self { sources: sources.into_iter().map(Into::into).collect(), guesses: Vec::new() }
    }

    /// What a figure stands on.
    pub(super) fn of_figure(figure: &Figure) -> Self {
        let guesses = figure.extrapolated.iter().flat_map(|why| why.split("; "));
        guesses.fold(Self::of(&figure.sources), Self::guess)
    }

    /// The same, but a guess for this reason.
    pub(super) fn guess(mut self, why: impl Into<String>) -> Self {
        let why = why.into();
        if !self.guesses.contains(&why) {
            self.guesses.push(why);
        }
        self
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for source in &other.sources {
            if !both.sources.contains(source) {
                both.sources.push(source.clone());
            }
        }
        other.guesses.iter().fold(both, Self::guess)
    }

    /// What stands also on these sources.
    pub(super) fn with<const N: usize>(&self, sources: [&str; N]) -> Self {
        self.and(&Self::of(sources))
    }

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

/// A formula with its numbers put in, each as [`number`] shows it.
macro_rules! formula {
    ($text:literal $(, $value:expr)+ $(,)?) => {
        format!($text $(, $crate::units::number($value))+)
    };
}
pub(super) use formula;

#[cfg(test)]
mod tests {
    use super::*;

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

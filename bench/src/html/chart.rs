//! Charts as data: what report.js draws, and the same numbers as a table. All that decides how a
//! chart looks is decided here (scales, ticks, words); the script only places it.

use maud::{Markup, html};
use serde::Serialize;

use super::number::Unit;

/// One chart.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Chart {
    /// Lines and points over a number.
    Lines(Lines),
    /// Bars of parts, or dots, one below the other.
    Bars(Bars),
}

/// Colours; report.css has them for light and dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Tone {
    Blue,
    Orange,
    Teal,
    Violet,
    Rose,
    Grey,
    /// Of text: what the others are held against.
    Ink,
}

/// In the order in which series take them.
pub(super) const TONES: [Tone; 6] =
    [Tone::Blue, Tone::Orange, Tone::Teal, Tone::Violet, Tone::Rose, Tone::Grey];

impl Tone {
    /// Of the series with this number.
    pub(super) fn at(place: usize) -> Self {
        TONES[place % TONES.len()]
    }

    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Orange => "orange",
            Self::Teal => "teal",
            Self::Violet => "violet",
            Self::Rose => "rose",
            Self::Grey => "grey",
            Self::Ink => "ink",
        }
    }
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stroke {
    /// What was measured: a line with its points.
    Solid,
    /// What it is held against.
    Dashed,
    /// Points that no line joins.
    Points,
}

/// Lines over a number.
#[derive(Debug, Serialize)]
pub(super) struct Lines {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// Across the whole width.
    pub(super) levels: Vec<Level>,
}

#[derive(Debug, Serialize)]
pub(super) struct Level {
    pub(super) name: String,
    pub(super) y: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) tone: Tone,
    pub(super) stroke: Stroke,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Where an interval is known.
    pub(super) low_high: Option<[f64; 2]>,
    /// What is said when it is pointed at; by [`Chart::in_words`].
    text: String,
}

impl Point {
    pub(super) fn new(x: f64, y: f64) -> Self {
        Self { x, y, low_high: None, text: String::new() }
    }

    /// With an interval of this share of `y` on both sides.
    pub(super) fn within(x: f64, y: f64, share: Option<f64>) -> Self {
        let share = share.map(|share| share.clamp(0.0, 0.95));
        let low_high = share.map(|share| [y * (1.0 - share), y * (1.0 + share)]);
        Self { x, y, low_high, text: String::new() }
    }

    /// Between two values.
    pub(super) fn between(x: f64, y: f64, low_high: [f64; 2]) -> Self {
        Self { x, y, low_high: Some(low_high), text: String::new() }
    }

    fn is_sound(&self) -> bool {
        let all = [self.x, self.y].into_iter().chain(self.low_high.into_iter().flatten());
        all.into_iter().all(f64::is_finite)
    }
}

impl Series {
    /// From left to right.
    pub(super) fn new(name: impl Into<String>, tone: Tone, mut points: Vec<Point>) -> Self {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Self::path(name, tone, points)
    }

    /// From point to point, wherever they are.
    pub(super) fn path(name: impl Into<String>, tone: Tone, mut points: Vec<Point>) -> Self {
        points.retain(Point::is_sound);
        Self { name: name.into(), tone, stroke: Stroke::Solid, points }
    }

    pub(super) fn drawn(mut self, stroke: Stroke) -> Self {
        self.stroke = stroke;
        self
    }
}

/// A scale with its ticks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Axis {
    label: String,
    #[serde(skip)]
    unit: Unit,
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

/// A linear scale from zero hides what is this many times smaller than the largest.
const LINEAR_SPAN_MAX: f64 = 20.0;

impl Axis {
    /// From zero, or by powers where the values' span asks for it.
    pub(super) fn of(label: &str, unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        let high = values.iter().copied().fold(0.0, f64::max);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        if low > 0.0 && high / low > LINEAR_SPAN_MAX {
            return Self::by_powers(label, unit, low, high);
        }
        Self::linear(label, unit, high)
    }

    /// From zero.
    pub(super) fn linear(label: &str, unit: Unit, high: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let rough = high / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(rough);
        // A tick that the largest value almost reaches is there.
        let end = (high / step).ceil();
        let end = if end * step < high * 1.1 { end } else { end - 1.0 };
        let ticks = (0..=end as u32).map(|tick| f64::from(tick) * step).collect::<Vec<_>>();
        Self::with_ticks(label, unit, false, [0.0, high.max(end * step) * 1.02], ticks)
    }

    fn by_powers(label: &str, unit: Unit, low: f64, high: f64) -> Self {
        let (low, high) = (low / 1.2, high * 1.2);
        let decades = (high / low).log10();
        let parts: &[f64] = match decades {
            ..2.0 => &[1.0, 2.0, 5.0],
            ..3.3 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let every = (decades / 6.0).ceil().max(1.0) as i32;
        let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let powers = powers.filter(|power| power.rem_euclid(every) == 0);
        let ticks = powers.flat_map(|power| parts.iter().map(move |part| part * 10f64.powi(power)));
        let ticks = ticks.filter(|tick| (low..=high).contains(tick)).collect();
        Self::with_ticks(label, unit, true, [low, high], ticks)
    }

    /// Counts that double, such as batches and threads: a tick each.
    pub(super) fn doubling(label: &str, counts: impl IntoIterator<Item = f64>) -> Self {
        let mut counts: Vec<f64> = counts.into_iter().filter(|count| *count > 0.0).collect();
        counts.sort_by(f64::total_cmp);
        counts.dedup();
        let low = counts.first().copied().unwrap_or(1.0);
        let high = counts.last().copied().unwrap_or(1.0);
        // Two that lie closer than a doubling would write over each other.
        let mut ticks: Vec<f64> = Vec::new();
        for count in counts {
            if ticks.last().is_none_or(|last| count / last > 1.45) {
                ticks.push(count);
            }
        }
        Self::with_ticks(label, Unit::Count, true, [low / 1.12, high * 1.12], ticks)
    }

    fn with_ticks(
        label: &str,
        unit: Unit,
        log: bool,
        [low, high]: [f64; 2],
        ticks: Vec<f64>,
    ) -> Self {
        let ticks = ticks.into_iter().map(|tick| (tick, unit.show(tick))).collect();
        Self { label: label.into(), unit, log, low, high, ticks }
    }

    fn show(&self, value: f64) -> String {
        self.unit.show(value)
    }

    fn show_point(&self, point: &Point) -> String {
        let value = self.show(point.y);
        match point.low_high {
            None => value,
            Some([low, high]) => format!("{value} ({} to {})", self.show(low), self.show(high)),
        }
    }
}

/// Bars or dots.
#[derive(Debug, Serialize)]
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) x: Axis,
    /// Names and colours of what a bar is made of.
    pub(super) parts: Vec<(String, Tone)>,
    pub(super) rows: Vec<Bar>,
    /// Each part a dot of its own, not a piece of the bar.
    pub(super) dots: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Bar {
    pub(super) name: String,
    /// A value a part.
    pub(super) values: Vec<f64>,
    /// At the bar's end: the whole; at the last dot: its value.
    text: String,
    /// What is said of each value when it is pointed at; by [`Chart::in_words`].
    texts: Vec<String>,
}

/// Names of parts, each with its tone.
pub(super) fn parts(parts: &[(&str, Tone)]) -> Vec<(String, Tone)> {
    parts.iter().map(|(name, tone)| ((*name).to_owned(), *tone)).collect()
}

impl Bars {
    /// Bars of parts that add up.
    pub(super) fn stacked(
        title: &str,
        note: &str,
        (label, unit): (&str, Unit),
        parts: Vec<(String, Tone)>,
        rows: Vec<(String, Vec<f64>)>,
    ) -> Self {
        let whole = |values: &[f64]| values.iter().sum::<f64>();
        let high = rows.iter().map(|(_, values)| whole(values)).fold(0.0, f64::max);
        let x = Axis::linear(label, unit, high);
        let rows = bars(&x, rows, whole);
        Self { title: title.into(), note: note.into(), x, parts, rows, dots: false }
    }

    /// Dots, by powers where their span asks for it.
    pub(super) fn dots(
        title: &str,
        note: &str,
        (label, unit): (&str, Unit),
        parts: Vec<(String, Tone)>,
        rows: Vec<(String, Vec<f64>)>,
    ) -> Self {
        let values = rows.iter().flat_map(|(_, values)| values.iter().copied());
        let x = Axis::of(label, unit, values.filter(|value| *value > 0.0));
        let rows = bars(&x, rows, |values| values.iter().copied().fold(0.0, f64::max));
        Self { title: title.into(), note: note.into(), x, parts, rows, dots: true }
    }
}

/// Those that can be drawn, each with what is said at its end.
fn bars(x: &Axis, rows: Vec<(String, Vec<f64>)>, end: impl Fn(&[f64]) -> f64) -> Vec<Bar> {
    let bar = |(name, values): (String, Vec<f64>)| {
        let text = x.show(end(&values));
        Bar { name, values, text, texts: Vec::new() }
    };
    rows.into_iter().map(bar).filter(Bar::is_sound).collect()
}

impl Bar {
    fn is_sound(&self) -> bool {
        self.values.iter().all(|value| value.is_finite() && *value >= 0.0)
    }
}

impl Chart {
    pub(super) fn title(&self) -> &str {
        match self {
            Self::Lines(lines) => &lines.title,
            Self::Bars(bars) => &bars.title,
        }
    }

    pub(super) fn note(&self) -> &str {
        match self {
            Self::Lines(lines) => &lines.note,
            Self::Bars(bars) => &bars.note,
        }
    }

    /// Nothing would be seen.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.series.iter().all(|series| series.points.len() < 2),
            Self::Bars(bars) => bars.rows.is_empty(),
        }
    }

    /// What the colours mean, where lines are not named at their ends.
    pub(super) fn legend(&self) -> Markup {
        let parts = match self {
            Self::Bars(bars) if bars.parts.len() > 1 => bars.parts.as_slice(),
            _ => &[],
        };
        html! {
            @if !parts.is_empty() {
                ul.legend {
                    @for (name, tone) in parts { li class=(tone.class()) { (name) } }
                }
            }
        }
    }

    /// With every point's numbers in words.
    pub(super) fn in_words(mut self) -> Self {
        match &mut self {
            Self::Lines(Lines { x, y, series, .. }) => {
                for Series { name, points, .. } in series {
                    for point in points {
                        let (at, value) = (x.show(point.x), y.show_point(point));
                        point.text = format!("{name}: {value}\n{}: {at}", x.label);
                    }
                }
            }
            Self::Bars(Bars { x, parts, rows, .. }) => {
                for bar in rows {
                    let values = bar.values.iter().zip(parts.iter());
                    let said =
                        values.map(|(value, (part, _))| format!("{part}: {}", x.show(*value)));
                    bar.texts = said.collect();
                }
            }
        }
        self
    }

    /// The numbers that are drawn.
    pub(super) fn table(&self) -> Markup {
        let (head, rows) = match self {
            Self::Lines(lines) => lines.table(),
            Self::Bars(bars) => bars.table(),
        };
        html! {
            table {
                caption { (self.title()) }
                thead { tr { @for name in &head { th scope="col" { (name) } } } }
                tbody {
                    @for row in &rows {
                        tr {
                            @for (place, cell) in row.iter().enumerate() {
                                @if place == 0 { th scope="row" { (cell) } }
                                @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

type Table = (Vec<String>, Vec<Vec<String>>);

impl Lines {
    fn table(&self) -> Table {
        let mut places: Vec<f64> =
            self.series.iter().flat_map(|series| series.points.iter().map(|p| p.x)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let named = self.series.iter().map(|series| series.name.clone());
        let head = [self.x.label.clone()].into_iter().chain(named).collect();
        let cell = |series: &Series, x: f64| {
            let at = series.points.iter().filter(|point| point.x == x);
            at.map(|point| self.y.show_point(point)).collect::<Vec<_>>().join("; ")
        };
        let row = |x: f64| {
            let cells = self.series.iter().map(|series| cell(series, x));
            [self.x.show(x)].into_iter().chain(cells).collect()
        };
        (head, places.into_iter().map(row).collect())
    }
}

impl Bars {
    fn table(&self) -> Table {
        let named = self.parts.iter().map(|(name, _)| name.clone());
        let whole = (!self.dots && self.parts.len() > 1).then(|| "together".to_owned());
        let head = [self.x.label.clone()].into_iter().chain(named).chain(whole.clone()).collect();
        let row = |bar: &Bar| {
            let cells = bar.values.iter().map(|value| self.x.show(*value));
            let whole = whole.as_ref().map(|_| bar.text.clone());
            [bar.name.clone()].into_iter().chain(cells).chain(whole).collect()
        };
        (head, self.rows.iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn scales_hold_all_values_and_few_ticks() {
        let axis = Axis::of("some", Unit::Count, [5.0, 97.0]);
        assert_eq!(ticks(&axis), ["0", "25", "50", "75", "100"]);
        let axis = Axis::of("some", Unit::Count, [2.0, 97.0]);
        assert!(axis.log && axis.low < 2.0 && axis.high > 97.0);
        assert_eq!(ticks(&axis), ["2", "5", "10", "20", "50", "100"]);
        let axis = Axis::of("some", Unit::Count, [1e-3, 1e12]);
        assert!(axis.log && (2..8).contains(&axis.ticks.len()), "{axis:?}");
        let axis = Axis::of("some", Unit::Count, [0.0, 0.0, f64::NAN]);
        assert!(axis.low == 0.0 && axis.high > 0.9, "nothing is still a scale");
        let axis = Axis::of("some", Unit::Count, [5.0, 81.0]);
        assert_eq!(ticks(&axis), ["0", "25", "50", "75"]);
        assert!(axis.high > 81.0);
        let axis = Axis::doubling("batch", [32.0, 1.0, 2.0, 4.0, 5.0, 16.0, 8.0]);
        assert_eq!(ticks(&axis), ["1", "2", "4", "8", "16", "32"], "5 is too close to 4");
    }

    #[test]
    fn what_is_not_a_number_is_not_drawn() {
        let points = vec![Point::new(2.0, f64::NAN), Point::new(2.0, 1.0), Point::new(1.0, 1.0)];
        let series = Series::new("some", Tone::Blue, points);
        assert_eq!(series.points, [Point::new(1.0, 1.0), Point::new(2.0, 1.0)]);
        let rows = vec![("a".into(), vec![1.0, f64::NAN]), ("b".into(), vec![1.0, 2.0])];
        let parts = parts(&[("one", Tone::Blue), ("two", Tone::Teal)]);
        let bars = Bars::stacked("t", "", ("x", Unit::Ms), parts, rows);
        assert_eq!(bars.rows.len(), 1);
        assert_eq!(bars.table().1, [["b", "1\u{202f}ms", "2\u{202f}ms", "3\u{202f}ms"]]);
    }
}

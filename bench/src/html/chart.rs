//! Charts as data: what report.js draws. Scales, ticks and words are decided here; the script only
//! places them.

mod svg;

use serde::Serialize;

use crate::units::Unit;

pub(super) use svg::picture;

/// Lines over a number, or rows of bars.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) note: String,
    kind: Kind,
    x: Axis,
    y: Axis,
    /// Names of the rows, where there are any: a point's y is the row's number then.
    rows: Vec<String>,
    pub(super) series: Vec<Series>,
    /// A line across the whole width, with its name.
    level: Option<(String, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Lines,
    /// A row's values add up.
    Stack,
    /// Each value is a dot of its own.
    Dots,
}

/// Colours, which report.css has for light and dark. Ink is for what the others are compared with.
pub(super) const TONES: [&str; 6] = ["blue", "orange", "teal", "violet", "rose", "grey"];

#[derive(Debug, Serialize)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) tone: &'static str,
    /// `solid` for what was measured, `dashed` for what that is compared with, or `points` that no
    /// line joins.
    stroke: &'static str,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Where an interval is known.
    pub(super) low_high: Option<[f64; 2]>,
    /// What is shown when it is pointed at.
    pub(super) text: String,
}

impl Point {
    pub(super) fn new(x: f64, y: f64) -> Self {
        Self { x, y, low_high: None, text: String::new() }
    }

    fn is_sound(&self) -> bool {
        let all = [self.x, self.y].into_iter().chain(self.low_high.into_iter().flatten());
        all.into_iter().all(f64::is_finite)
    }
}

impl Series {
    pub(super) fn new(name: &str, tone: &'static str, mut points: Vec<Point>) -> Self {
        points.retain(Point::is_sound);
        Self { name: name.into(), tone, stroke: "solid", points }
    }

    pub(super) fn drawn(self, stroke: &'static str) -> Self {
        Self { stroke, ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Axis {
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
    fn of((label, unit): (&str, Unit), values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        let high = values.iter().copied().fold(0.0, f64::max);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        if low <= 0.0 || high / low <= LINEAR_SPAN_MAX {
            return Self::linear((label, unit), high);
        }
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
        Self::with_ticks((label, unit), true, [low, high], ticks)
    }

    fn linear(label: (&str, Unit), high: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let rough = high / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(rough);
        // A tick that the largest value almost reaches is there.
        let end = (high / step).ceil();
        let end = if end * step < high * 1.1 { end } else { end - 1.0 };
        let ticks = (0..=end as u32).map(|tick| f64::from(tick) * step).collect();
        Self::with_ticks(label, false, [0.0, high.max(end * step) * 1.02], ticks)
    }

    /// Counts that double, such as batches and threads: a tick each.
    fn doubling(label: &str, counts: impl IntoIterator<Item = f64>) -> Self {
        let mut counts: Vec<f64> = counts.into_iter().filter(|count| *count > 0.0).collect();
        counts.sort_by(f64::total_cmp);
        let low = counts.first().copied().unwrap_or(1.0);
        let high = counts.last().copied().unwrap_or(1.0);
        // Two that lie closer than a doubling would write over each other.
        counts.dedup_by(|next, last| *next / *last < 1.45);
        Self::with_ticks((label, Unit::Count), true, [low / 1.12, high * 1.12], counts)
    }

    fn with_ticks(
        (label, unit): (&str, Unit),
        log: bool,
        [low, high]: [f64; 2],
        ticks: Vec<f64>,
    ) -> Self {
        let ticks = ticks.into_iter().map(|tick| (tick, unit.show(tick))).collect();
        Self { label: label.into(), unit, log, low, high, ticks }
    }
}

impl Chart {
    pub(super) fn lines(
        (title, note): (&str, &str),
        x: (&str, Unit),
        y: (&str, Unit),
        series: Vec<Series>,
    ) -> Self {
        let points = || series.iter().flat_map(|series| &series.points);
        let x = Axis::of(x, points().map(|point| point.x));
        let y = Axis::of(y, points().map(|point| point.y).filter(|y| *y > 0.0));
        Self::new(Kind::Lines, (title, note), x, y, series)
    }

    /// The same over counts that double.
    pub(super) fn over_counts(self) -> Self {
        let counts = self.series.iter().flat_map(|series| &series.points).map(|point| point.x);
        Self { x: Axis::doubling(&self.x.label, counts), ..self }
    }

    pub(super) fn with_level(self, name: &str, level: f64) -> Self {
        let points = self.series.iter().flat_map(|series| &series.points);
        let values = points.map(|point| point.y).chain([level]);
        let y = Axis::of((&self.y.label, self.y.unit.clone()), values);
        Self { y, level: Some((name.into(), level)), ..self }
    }

    /// Rows of bars or dots, these by powers where their span asks for it: the values of each row,
    /// with the names of their series.
    pub(super) fn rows(
        kind: Kind,
        title: (&str, &str),
        x: (&str, Unit),
        rows: Vec<(String, Vec<(&str, f64)>)>,
    ) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in rows.iter().flat_map(|(_, values)| values) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let sum = |values: &[(&str, f64)]| values.iter().map(|(_, value)| value).sum::<f64>();
        let all = || rows.iter().flat_map(|(_, values)| values).map(|(_, value)| *value);
        let x = match kind {
            Kind::Dots => Axis::of(x, all().filter(|value| *value > 0.0)),
            _ => Axis::linear(x, rows.iter().map(|(_, values)| sum(values)).fold(0.0, f64::max)),
        };
        let series = names.into_iter().zip(TONES.into_iter().cycle()).map(|(name, tone)| {
            let of_name = |values: &[(&str, f64)]| {
                let named = values.iter().filter(|(other, _)| *other == name);
                named.map(|(_, value)| value).sum::<f64>()
            };
            let points = rows.iter().zip(0..);
            let point = |((_, values), row): (&(_, Vec<_>), i32)| {
                Point::new(of_name(values), f64::from(row))
            };
            Series::new(name, tone, points.map(point).collect())
        });
        let series = series.collect();
        let y = Axis::linear(("", Unit::Count), 0.0);
        let rows = rows.into_iter().map(|(name, values)| match kind {
            Kind::Stack => format!("{name}: {}", x.unit.show(sum(&values))),
            _ => name,
        });
        let rows = rows.collect();
        Self { rows, ..Self::new(kind, title, x, y, series) }
    }

    fn new(kind: Kind, (title, note): (&str, &str), x: Axis, y: Axis, series: Vec<Series>) -> Self {
        let (title, note) = (title.into(), note.into());
        let mut chart = Self { title, note, kind, x, y, rows: Vec::new(), series, level: None };
        for Series { name, points, .. } in &mut chart.series {
            for point in points {
                let (x, show) = (chart.x.unit.show(point.x), |y| chart.y.unit.show(y));
                let between = point.low_high.map_or(String::new(), |[low, high]| {
                    format!(" ({} to {})", show(low), show(high))
                });
                point.text = match kind {
                    Kind::Lines => {
                        format!("{name}: {}{between}\n{}: {x}", show(point.y), chart.x.label)
                    }
                    Kind::Stack | Kind::Dots => format!("{name}: {x}"),
                };
            }
        }
        chart
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.series.iter().all(|series| series.points.len() < 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_all_values_and_few_ticks() {
        let of = |values: &[f64]| Axis::of(("some", Unit::Count), values.iter().copied());
        let ticks =
            |axis: &Axis| axis.ticks.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        assert_eq!(ticks(&of(&[5.0, 97.0])), ["0", "25", "50", "75", "100"]);
        assert_eq!(ticks(&of(&[5.0, 81.0])), ["0", "25", "50", "75"]);
        let axis = of(&[2.0, 97.0]);
        assert!(axis.log && axis.low < 2.0 && axis.high > 97.0);
        assert_eq!(ticks(&axis), ["2", "5", "10", "20", "50", "100"]);
        let axis = of(&[1e-3, 1e12]);
        assert!(axis.log && (2..8).contains(&axis.ticks.len()), "{axis:?}");
        let axis = of(&[0.0, 0.0, f64::NAN]);
        assert!(axis.low == 0.0 && axis.high > 0.9, "nothing is still a scale");
        let axis = Axis::doubling("batch", [32.0, 1.0, 2.0, 4.0, 5.0, 16.0, 8.0]);
        assert_eq!(ticks(&axis), ["1", "2", "4", "8", "16", "32"], "5 is too close to 4");
    }

    #[test]
    fn what_is_not_a_number_is_not_drawn_and_the_rest_tells_its_value() {
        let points = vec![Point::new(1.0, 2.0), Point::new(2.0, f64::NAN)];
        let series = Series::new("some", "blue", points);
        assert_eq!(series.points, [Point::new(1.0, 2.0)]);
        let chart = Chart::lines(("t", ""), ("x", Unit::Count), ("y", Unit::Ms), vec![series]);
        assert_eq!(chart.series[0].points[0].text, "some: 2 ms\nx: 1");
        let row = |name: &str, two| (name.to_owned(), vec![("one", 1.0), ("two", two)]);
        let rows = vec![row("a", f64::NAN), row("b", 2.0)];
        let chart = Chart::rows(Kind::Stack, ("t", ""), ("x", Unit::Ms), rows);
        assert_eq!(chart.rows[1], "b: 3 ms");
        assert_eq!(chart.series[1].points[0].text, "two: 2 ms");
    }
}

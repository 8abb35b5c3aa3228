//! Charts as a picture of their own, without a browser: SVG as report.js would draw them.

use maud::{Markup, PreEscaped, html};

use super::{Axis, Chart, Kind, Series};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = WIDTH - 40.0;
/// Height of a name's line, and of each dot below it.
const LINE: f64 = 18.0;
const DOT: f64 = 9.0;

/// The charts below each other.
pub(crate) fn picture(title: &str, charts: &[Chart]) -> String {
    let mut top = 44.0;
    let drawn: Vec<Markup> = charts
        .iter()
        .map(|chart| {
            let (markup, bottom) = chart.drawn(top);
            top = bottom;
            markup
        })
        .collect();
    let size = format!("0 0 {WIDTH} {top}");
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(size) font-family="sans-serif"
            font-size="12" fill="#1b1f24" {
            rect width=(WIDTH) height=(top) fill="#ffffff" {}
            (text(16.0, 26.0, "start", title, "17"))
            @for chart in &drawn { (chart) }
        }
    };
    svg.into_string() + "\n"
}

impl Chart {
    /// From `top` on, and where it ends.
    fn drawn(&self, top: f64) -> (Markup, f64) {
        let begin = top + 66.0;
        let step = LINE + DOT * self.series.len() as f64;
        let end = match self.kind {
            Kind::Lines => begin + 150.0,
            _ => begin + step * self.rows.len() as f64,
        };
        let across = |x: f64| LEFT + (RIGHT - LEFT) * self.x.share(x);
        let up = |y: f64| match self.kind {
            Kind::Lines => end - (end - begin) * self.y.share(y),
            _ => begin + step * y + LINE,
        };
        let markup = html! {
            (text(16.0, top + 20.0, "start", &self.title, "14"))
            (text(16.0, top + 36.0, "start", &self.note, "12"))
            @for (place, series) in self.series.iter().enumerate() {
                (dot(22.0 + 180.0 * place as f64, top + 50.0, colour(series)))
                (text(30.0 + 180.0 * place as f64, top + 54.0, "start", &series.name, "12"))
            }
            @for (tick, name) in &self.x.ticks {
                (line([(across(*tick), begin), (across(*tick), end)], "#e4e8ec"))
                (text(across(*tick), end + 14.0, "middle", name, "12"))
            }
            (text((LEFT + RIGHT) / 2.0, end + 30.0, "middle", &self.x.label, "12"))
            @if self.kind == Kind::Lines {
                @for (tick, name) in &self.y.ticks {
                    (line([(LEFT, up(*tick)), (RIGHT, up(*tick))], "#e4e8ec"))
                    (text(LEFT - 4.0, up(*tick) + 4.0, "end", name, "12"))
                }
            }
            @for (place, name) in self.rows.iter().enumerate() {
                (text(LEFT, up(place as f64) - 5.0, "start", name, "12"))
            }
            @for (place, series) in self.series.iter().enumerate() {
                @let at = |point: &super::Point| match self.kind {
                    Kind::Lines => (across(point.x), up(point.y)),
                    _ => (across(point.x), up(point.y) + DOT * (place as f64 + 0.5)),
                };
                @if self.kind == Kind::Lines {
                    (line(series.points.iter().map(at), colour(series)))
                }
                @for point in &series.points {
                    (dot(at(point).0, at(point).1, colour(series)))
                }
            }
        };
        (markup, end + 48.0)
    }
}

impl Axis {
    /// Where a value is, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let place = |value: f64| if self.log { value.ln() } else { value };
        let share = (place(value) - place(self.low)) / (place(self.high) - place(self.low));
        share.clamp(0.0, 1.0)
    }
}

/// As report.css has it on a light page.
fn colour(series: &Series) -> &'static str {
    match series.tone {
        "blue" => "#1f62c4",
        "orange" => "#b04a06",
        "teal" => "#0a7a68",
        "violet" => "#7140c9",
        "rose" => "#b8336a",
        _ => "#66707b",
    }
}

fn text(x: f64, y: f64, anchor: &str, words: &str, size: &str) -> Markup {
    html! {
        text x=(short(x)) y=(short(y)) text-anchor=(anchor) font-size=(size) { (words) }
        (PreEscaped("\n"))
    }
}

fn dot(x: f64, y: f64, colour: &str) -> Markup {
    html! { circle cx=(short(x)) cy=(short(y)) r="4" fill=(colour) {} (PreEscaped("\n")) }
}

fn line(points: impl IntoIterator<Item = (f64, f64)>, colour: &str) -> Markup {
    let points = points.into_iter().map(|(x, y)| format!("{},{}", short(x), short(y)));
    let points = points.collect::<Vec<_>>().join(" ");
    html! { polyline points=(points) fill="none" stroke=(colour) {} (PreEscaped("\n")) }
}

fn short(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::super::Point;
    use super::*;
    use crate::units::Unit;

    #[test]
    fn points_stand_where_their_scales_say() {
        let axis = Axis::of(("x", Unit::Count), [1.0, 100.0]);
        let middle = (axis.low * axis.high).sqrt();
        assert!(axis.log && (axis.share(middle) - 0.5).abs() < 1e-9);
        assert_eq!((axis.share(axis.low), axis.share(0.0), axis.share(1e9)), (0.0, 0.0, 1.0));
        let rows = vec![("a < b".to_owned(), vec![("one", 10.0), ("two", 0.0)])];
        let rows = Chart::rows(Kind::Dots, ("rows", ""), ("x", Unit::Count), rows);
        let points = vec![Point::new(0.0, 0.0), Point::new(10.0, 10.0)];
        let series = vec![Series::new("s", "blue", points)];
        let lines = Chart::lines(("lines", ""), ("x", Unit::Count), ("y", Unit::Count), series);
        let drawn = picture("both", &[rows, lines]);
        assert!(drawn.contains("a &lt; b") && drawn.ends_with("</svg>\n"), "{drawn}");
        // Ten of a scale that ends at 10.2: 770 * 10 / 10.2 to the right of 50.
        assert!(drawn.contains(r#"<circle cx="804.9""#), "{drawn}");
    }
}

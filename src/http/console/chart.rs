//! Charts, as pictures within the page.

use std::{fmt::Write as _, time::Instant};

use maud::{Markup, html};

use super::format;
use crate::broker::Point;

/// A small line of numbers that says how they move. A picture without a label only repeats what stands
/// beside it.
pub(super) fn sparkline(values: &[f64], label: Option<&str>) -> Markup {
    const WIDTH: f64 = 120.0;
    const HEIGHT: f64 = 24.0;
    let most = values.iter().copied().fold(0.0, f64::max);
    let step = WIDTH / (values.len().max(2) - 1) as f64;
    let places = values.iter().enumerate().map(|(index, value)| {
        let share = if most > 0.0 { value / most } else { 0.0 };
        (index as f64 * step, HEIGHT - 1.0 - share * (HEIGHT - 2.0))
    });
    let line = points(places);
    html! {
        svg.spark role=[label.map(|_| "img")] aria-label=[label]
            aria-hidden=[label.is_none().then_some("true")]
            viewBox="0 0 120 24" preserveAspectRatio="none" {
            @if values.len() > 1 {
                polygon.spark-area points=(format!("0,24 {line} 120,24")) {}
                polyline.spark-line points=(line) vector-effect="non-scaling-stroke" {}
            }
        }
    }
}

/// A consumer's lag over the last hour.
pub(super) fn lag(lags: &[Point], now: Instant) -> Markup {
    const WIDTH: f64 = 600.0;
    const HEIGHT: f64 = 180.0;
    const HOUR: f64 = 3_600.0;
    let most = lags.iter().map(|point| point.value).max().unwrap_or(0).max(1);
    let seconds_ago = |point: &Point| now.duration_since(point.at).as_secs_f64().min(HOUR);
    let place = |point: &Point| {
        let share = point.value as f64 / most as f64;
        (WIDTH * (1.0 - seconds_ago(point) / HOUR), HEIGHT - 1.0 - share * (HEIGHT - 2.0))
    };
    let line = points(lags.iter().map(place));
    let newest = lags.last().map_or(0, |point| point.value);
    let label = format!(
        "Lag in the last hour: at most {}, now {} messages",
        format::number(most),
        format::number(newest)
    );
    let hits = lags.iter().map(|point| {
        let text = format!(
            "{} ago: {} messages",
            format::duration(now.duration_since(point.at)),
            format::number(point.value)
        );
        (format!("{:.1}", place(point).0 - 2.5), text)
    });
    html! {
        div.chart {
            div.chart-y aria-hidden="true" { span { (format::number(most)) } span { "0" } }
            svg role="img" aria-label=(label) viewBox="0 0 600 180" preserveAspectRatio="none" {
                @for y in ["0.5", "90", "179.5"] {
                    line.chart-grid x1="0" x2="600" y1=(y) y2=(y) vector-effect="non-scaling-stroke" {}
                }
                polyline.spark-line points=(line) vector-effect="non-scaling-stroke" {}
                @for (x, text) in hits {
                    rect.chart-hit x=(x) y="0" width="5" height="180" { title { (text) } }
                }
            }
            div.chart-x aria-hidden="true" { span { "60 min ago" } span { "now" } }
        }
    }
}

fn points(places: impl Iterator<Item = (f64, f64)>) -> String {
    let mut line = String::new();
    for (x, y) in places {
        let separator = if line.is_empty() { "" } else { " " };
        let _ = write!(line, "{separator}{x:.1},{y:.1}");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sparkline_reaches_from_edge_to_edge_and_from_nothing_to_the_most() {
        let drawn = sparkline(&[0.0, 5.0, 10.0], Some("rate")).into_string();
        assert!(drawn.contains("points=\"0.0,23.0 60.0,12.0 120.0,1.0\""), "{drawn}");
        assert!(!sparkline(&[1.0], None).into_string().contains("polyline"));
    }

    #[test]
    fn lag_is_drawn_over_an_hour() {
        let now = Instant::now() + Duration::from_secs(7_200);
        let at = |minutes: u64, value| Point { at: now - Duration::from_secs(60 * minutes), value };
        let drawn = lag(&[at(60, 0), at(30, 50), at(0, 100)], now).into_string();
        assert!(drawn.contains("points=\"0.0,179.0 300.0,90.0 600.0,1.0\""), "{drawn}");
        assert!(drawn.contains("at most 100, now 100 messages"), "{drawn}");
        assert!(drawn.contains("<title>30 min ago: 50 messages</title>"), "{drawn}");
    }
}

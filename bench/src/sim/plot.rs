//! Curves as SVG, which every browser shows.

use std::fmt::Write as _;

/// Width and height of the picture, and the margins around the curves: left, top, right, bottom.
const SIZE: (f64, f64) = (760.0, 420.0);
/// See [`SIZE`].
const MARGIN: (f64, f64, f64, f64) = (70.0, 40.0, 180.0, 50.0);
/// Colours that are told apart by most people (Okabe and Ito).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"];

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten; what is not above 0 is left out.
    Logarithmic,
}

/// A picture of some curves over the same axis.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Name and scale of the horizontal axis.
    pub across: (String, Scale),
    /// Name and scale of the vertical axis.
    pub up: (String, Scale),
    /// Curves: name and points.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        let (low, high) = match scale {
            Scale::Linear => (0.0, if most > 0.0 { most } else { 1.0 }),
            Scale::Logarithmic => {
                let least = values.filter(|value| *value > 0.0).fold(f64::MAX, f64::min);
                let least = if least == f64::MAX { 1.0 } else { least };
                (least.log10().floor(), most.max(least * 1.001).log10().ceil())
            }
        };
        Self { scale, low, high: if high > low { high } else { low + 1.0 }, from, to }
    }

    fn place(&self, value: f64) -> Option<f64> {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic if value > 0.0 => value.log10(),
            Scale::Logarithmic => return None,
        };
        Some(self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from))
    }

    /// Where lines are drawn, and what is written there.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let rough = self.high / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
                let step = step.unwrap_or(power);
                let count = (self.high / step + 1e-9) as u32;
                (0..=count).map(|tick| f64::from(tick) * step).map(|value| (value, written(value))).collect()
            }
            Scale::Logarithmic => (self.low as i32..=self.high as i32)
                .map(|power| 10_f64.powi(power))
                .map(|value| (value, written(value)))
                .collect(),
        }
    }
}

fn written(value: f64) -> String {
    let rounded = (value * 1e3).round() / 1e3;
    format!("{rounded}")
}

impl Plot {
    /// The picture.
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        self.write(&mut svg).expect("writing to a string does not fail");
        svg
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (width, height) = SIZE;
        let (left, top, right, bottom) = MARGIN;
        let points = || self.curves.iter().flat_map(|(_, points)| points);
        let across = Axis::new(self.across.1, points().map(|(x, _)| *x), left, width - right);
        let up = Axis::new(self.up.1, points().map(|(_, y)| *y), height - bottom, top);
        writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">"#
        )?;
        writeln!(out, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##)?;
        writeln!(out, r#"<text x="{left}" y="22" font-size="15">{}</text>"#, escaped(&self.title))?;
        for (value, label) in across.ticks() {
            let Some(x) = across.place(value) else { continue };
            writeln!(out, r##"<path d="M{x:.1} {top}V{:.1}" stroke="#dddddd"/>"##, height - bottom)?;
            writeln!(out, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, height - bottom + 16.0)?;
        }
        for (value, label) in up.ticks() {
            let Some(y) = up.place(value) else { continue };
            writeln!(out, r##"<path d="M{left} {y:.1}H{:.1}" stroke="#dddddd"/>"##, width - right)?;
            writeln!(out, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#, left - 6.0, y + 4.0)?;
        }
        let middle = (left + width - right) / 2.0;
        writeln!(
            out,
            r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
            height - 12.0,
            escaped(&self.across.0)
        )?;
        let middle = (top + height - bottom) / 2.0;
        writeln!(
            out,
            r#"<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{}</text>"#,
            escaped(&self.up.0)
        )?;
        for (number, (name, points)) in self.curves.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let placed: Vec<_> = points.iter().filter_map(|(x, y)| Some((across.place(*x)?, up.place(*y)?))).collect();
            let path: Vec<_> = placed.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            if !path.is_empty() {
                writeln!(out, r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.join("L"))?;
            }
            for (x, y) in placed {
                writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#)?;
            }
            let y = top + 10.0 + 18.0 * number as f64;
            let x = width - right + 14.0;
            writeln!(out, r#"<text x="{x}" y="{y}" fill="{colour}">{}</text>"#, escaped(name))?;
        }
        writeln!(out, "</svg>")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_their_values_are() {
        let plot = Plot {
            title: "a < b".into(),
            across: ("x".into(), Scale::Logarithmic),
            up: ("y".into(), Scale::Linear),
            curves: vec![("c".into(), vec![(0.0, 1.0), (10.0, 0.0), (1_000.0, 4.0)])],
        };
        let svg = plot.svg();
        let (left, top, right, bottom) = MARGIN;
        // What has no place on a logarithmic axis is left out; the others span both axes.
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(&format!(r#"cx="{left:.1}" cy="{:.1}""#, SIZE.1 - bottom)), "{svg}");
        assert!(svg.contains(&format!(r#"cx="{:.1}" cy="{top:.1}""#, SIZE.0 - right)), "{svg}");
        assert!(svg.contains("a &lt; b"));
    }
}

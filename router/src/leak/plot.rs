//! A plot of leaked clusters over packets, one line a cell.

use super::{report::Report, world::Placement};
use plotters::{prelude::*, style::register_font};
use std::path::Path;

/// The plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {path}: {why}")]
pub struct PlotError {
    path: String,
    why: String,
}

/// Draws into an SVG or PNG, by the file's name.
pub fn draw(report: &Report, path: &Path) -> Result<(), PlotError> {
    let fault = |why: String| PlotError { path: path.display().to_string(), why };
    let size = (1000, 600);
    let kind = path.extension().and_then(|e| e.to_str());
    if !matches!(kind, Some("png" | "svg")) {
        return Err(fault("the file's name must end in .svg or .png".into()));
    }
    let font =
        font().ok_or_else(|| fault("no TrueType font named ...Sans.ttf under /usr/share/fonts".into()))?;
    register_font("sans-serif", FontStyle::Normal, font)
        .map_err(|_| fault("the font under /usr/share/fonts cannot be read".into()))?;
    if kind == Some("png") {
        chart(&BitMapBackend::new(path, size).into_drawing_area(), report).map_err(fault)
    } else {
        chart(&SVGBackend::new(path, size).into_drawing_area(), report).map_err(fault)
    }
}

/// Any sans-serif font of the system: a bitmap is written with it, an SVG laid out by its measures.
fn font() -> Option<&'static [u8]> {
    fn find(dir: &Path, depth: u32) -> Option<std::path::PathBuf> {
        let mut entries: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().map(|e| e.path()).collect();
        entries.sort();
        let is_font = |p: &&std::path::PathBuf| p.to_string_lossy().ends_with("Sans.ttf");
        entries
            .iter()
            .find(is_font)
            .cloned()
            .or_else(|| entries.iter().filter(|p| depth > 0 && p.is_dir()).find_map(|p| find(p, depth - 1)))
    }
    // One font, once a process: plotters wants it for ever.
    find(Path::new("/usr/share/fonts"), 3).and_then(|p| std::fs::read(p).ok()).map(|bytes| &*bytes.leak())
}

fn chart<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    report: &Report,
) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    area.fill(&WHITE).map_err(|e| text(&e))?;
    let points = || report.rows.iter().flat_map(|row| &row.series);
    let x = points().map(|p| p.0).max().unwrap_or(1).max(1);
    let y = points().map(|p| p.1).max().unwrap_or(1).max(1);
    let mut chart = ChartBuilder::on(area)
        .caption("clusters leaked, by packets raised", ("sans-serif", 22))
        .margin(12)
        .margin_right(40)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(0..x, (0..y).log_scale())
        .map_err(|e| text(&e))?;
    chart.configure_mesh().x_desc("packets").y_desc("leaked").draw().map_err(|e| text(&e))?;
    let leaking = report.rows.iter().filter(|row| row.leaked > 0);
    for (n, row) in leaking.enumerate() {
        let style = Palette99::pick(n).stroke_width(2);
        let mut label =
            format!("{} {} {} {} x{}", row.profile, row.crypto, row.carried(), row.family, row.vcpus);
        if row.placement != Placement::usual(row.vcpus).name() {
            label.extend([" ", &row.placement]);
        }
        let line = std::iter::once((0, 0)).chain(row.series.iter().copied());
        chart
            .draw_series(LineSeries::new(line, style))
            .map_err(|e| text(&e))?
            .label(label)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .position(SeriesLabelPosition::LowerRight)
        .draw()
        .map_err(|e| text(&e))?;
    area.present().map_err(|e| text(&e))
}

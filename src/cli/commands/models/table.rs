//! The list for people: two tables where the terminal is wide enough, else a paragraph a model.

use std::fmt::Write;

use super::{DEFAULT_MODEL, Row, word};
use crate::{
    base::{device::DeviceKind, memory::Bytes, printable::printable},
    cli::needs::{CARD, Need, SIDES_PX},
    models::{LocalModel, Published},
};

/// Columns of the tables.
const WIDE: usize = 79;
/// Columns where nothing says how many there are.
const USUAL_WIDTH: usize = 80;

/// Columns of the terminal.
pub fn width() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
    let seen =
        || terminal_size::terminal_size_of(std::io::stdout()).map(|(terminal_size::Width(columns), _)| columns.into());
    said.or_else(seen).unwrap_or(USUAL_WIDTH)
}

/// The list in so many columns.
pub fn of(rows: &[Row], local: &[LocalModel], width: usize) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = if width < WIDE { paragraphs(&mut text, rows) } else { tables(&mut text, rows) };
    for LocalModel { path, holds } in local {
        let family = holds.family.unwrap_or_default();
        let kind = holds.types.iter().max_by_key(|(_, count)| count.bytes).map_or("", |(kind, _)| kind);
        let path = printable(&path.to_string_lossy());
        let _ = writeln!(text, "{family} in {path} ({kind}, {})", Bytes(holds.all.bytes));
    }
    text.truncate(text.trim_end().len());
    text
}

fn tables(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    writeln!(text, "{:<38} {:>8} {:>6}  {:<16} here", "model", "to fetch", "steps", "licence")?;
    for row in rows {
        let (fetch, here) = (Bytes(row.published.bytes()).to_string(), word(row.copy));
        writeln!(
            text,
            "{:<38} {fetch:>8} {:>6}  {:<16} {here}",
            row.published.repo,
            steps(row),
            licence(row.published)
        )?;
    }
    writeln!(text, "{}\n", legend(rows))?;
    let sides = || SIDES_PX.iter().chain(&SIDES_PX);
    writeln!(text, "{:<38} {:^20} {:^19}", "least memory in GB, resident / streamed", "CPU f32", "CUDA bf16")?;
    let heads: String = sides().map(|side| format!("{:>10}", format!("{side} px"))).collect();
    writeln!(text, "{:<38}{heads}", "")?;
    for row in rows {
        let cells: String = row.needs.iter().map(|need| format!("{:>10}", gigabytes(need))).collect();
        writeln!(text, "{:<38}{cells}", row.published.repo)?;
    }
    writeln!(text)
}

fn paragraphs(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    for row in rows {
        writeln!(text, "{}", row.published.repo)?;
        writeln!(text, "  {}, {}", Bytes(row.published.bytes()), licence(row.published))?;
        writeln!(text, "  steps {}, here: {}", steps(row), word(row.copy))?;
        for (kind, name) in [(DeviceKind::Cpu, "CPU"), (CARD, "CUDA")] {
            for need in SIDES_PX.iter().filter_map(|side| row.need(*side, kind)) {
                writeln!(text, "  {} px, {name}: {} GB", need.side_px, gigabytes(need))?;
            }
        }
    }
    writeln!(text, "(least memory: resident / streamed)\n{}\n", legend(rows))
}

/// "28", or "2 x 50".
fn steps(row: &Row) -> String {
    match row.passes() {
        1 => row.facts.recipe.steps.to_string(),
        passes => format!("{passes} x {}", row.facts.recipe.steps),
    }
}

fn licence(published: &Published) -> String {
    let name = if published.licence.is_commercial { published.licence.name } else { "non-commercial" };
    format!("{name}{}", if published.licence.is_gated { " *" } else { "" })
}

/// "26.1/3.2"
fn gigabytes(need: &Need) -> String {
    let [resident, stream] = need.peak_bytes.map(|bytes| bytes as f64 / 1e9);
    format!("{resident:.1}/{stream:.1}")
}

/// What the signs mean.
fn legend(rows: &[Row]) -> String {
    let mut lines = vec![format!("{DEFAULT_MODEL}\nis used where none is named")];
    if rows.iter().any(|row| row.published.licence.is_gated) {
        lines.push("* accept the licence on its page first".to_owned());
    }
    if rows.iter().any(|row| row.passes() > 1) {
        lines.push("2 x: two forward passes a step (cfg)".to_owned());
    }
    lines.join("\n")
}

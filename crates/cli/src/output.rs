//! Printing: results to standard output, everything else to standard error. A closed pipe is no error worth a panic.

use crate::failure::Failure;
use app::wire::RecoveryNotice;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// One JSON object on standard output.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::new("internal", error))?;
    bytes(format!("{text}\n").as_bytes())
}

/// A line on standard output.
pub fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{}\n", visible(text)).as_bytes())
}

/// What comes from files, the Hub and models must not steer the terminal.
pub fn visible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// Bytes on standard output, as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    // The terminal of Windows takes characters only, and what is none is an error there.
    let shown = match cfg!(windows) && out.is_terminal() {
        true => Cow::Owned(String::from_utf8_lossy(bytes).into_owned().into_bytes()),
        false => Cow::Borrowed(bytes),
    };
    match out.write_all(&shown).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|error| Failure::new("io", error)),
    }
}

/// A line for the person at the terminal.
pub fn note(text: impl Display) {
    // Where nobody can read it, nothing is lost.
    let _ = writeln!(std::io::stderr(), "{}", visible(&text.to_string()));
}

/// Shows how far something is, on the terminal's current line; nothing takes it away again.
pub fn progress(text: impl Display) {
    let terminal = console::Term::stderr();
    if terminal.is_term() {
        // As in `note`.
        let _ = terminal.clear_line().and_then(|()| terminal.write_str(&text.to_string()));
    }
}

/// Bytes that have arrived or been read. Draws on standard error, and only on a terminal.
pub fn byte_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{bar:30} {decimal_bytes} of {decimal_total_bytes} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// "49 of 49 layers on the GPU (of 12 without their experts)"
pub fn layers(gpu: u32, all: u32, experts_apart: u32) -> String {
    let apart = if experts_apart > 0 { format!(" (of {experts_apart} without their experts)") } else { String::new() };
    format!("{gpu} of {all} layers on the GPU{apart}")
}

/// "3 layers", "the experts of 2 layers", or both
pub fn moved(notice: &RecoveryNotice) -> String {
    let (layers, experts) = (notice.layers_moved, notice.experts_moved);
    match (layers, experts) {
        (layers, 0) => format!("{layers} layers"),
        (0, experts) => format!("the experts of {experts} layers"),
        (layers, experts) => format!("{layers} layers and the experts of {experts} more"),
    }
}

/// "3 layers moved to RAM", "2 layers moved to another GPU", or both; of which GPU, if there are several
pub fn moved_away(notice: &RecoveryNotice) -> String {
    let (to_ram, shifted) = (notice.layers_moved + notice.experts_moved > 0, notice.layers_shifted);
    let gpu = notice.gpu.as_ref().map_or(String::new(), |name| format!("{name}: "));
    let what = moved(notice);
    match shifted {
        0 => format!("{gpu}{what} moved to RAM"),
        _ if to_ram => format!("{gpu}{what} moved to RAM, {shifted} to another GPU"),
        _ => format!("{gpu}{shifted} layers moved to another GPU"),
    }
}

/// "4.9 GB"
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// "2 min 05 s"
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn control_characters_are_not_shown() {
        assert_eq!(visible("a\x1b[31mb\u{9b}c\r\nd\te\x07"), "a[31mbc\nd\te");
    }
}

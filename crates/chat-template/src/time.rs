//! `strftime_now`: the time given by the caller, formatted like Python's `datetime.strftime`.

use std::fmt::Write;

use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};

/// Formats `now`. Directives that mean nothing are kept as they are, as glibc does.
pub(crate) fn strftime(now: NaiveDateTime, format: &str) -> String {
    let mut out = String::with_capacity(format.len() * 2);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let flags = rest[1..].len() - rest[1..].trim_start_matches(['-', '_', '0', '^', '#']).len();
        let Some(letter) = rest[1 + flags..].chars().next() else { break };
        let directive = &rest[..1 + flags + letter.len_utf8()];
        rest = &rest[directive.len()..];
        write_directive(&mut out, now, directive, letter);
    }
    out.push_str(rest);
    out
}

fn write_directive(out: &mut String, now: NaiveDateTime, directive: &str, letter: char) {
    match letter {
        // Python: microseconds with six digits; a time without a zone prints none.
        'f' => {
            let _ = write!(out, "{:06}", now.and_utc().timestamp_subsec_micros());
            return;
        }
        'z' | 'Z' => return,
        _ => {}
    }
    let (known, upper) = match directive.strip_prefix("%^") {
        Some(letter) => (format!("%{letter}"), true),
        None => (directive.to_owned(), false),
    };
    let items: Vec<Item<'_>> = StrftimeItems::new(&known).collect();
    let mut text = String::new();
    if items.contains(&Item::Error) || write!(text, "{}", now.format_with_items(items.iter())).is_err() {
        out.push_str(directive);
    } else if upper {
        out.push_str(&text.to_uppercase());
    } else {
        out.push_str(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_like_python() {
        let now =
            chrono::NaiveDate::from_ymd_opt(2025, 7, 6).and_then(|d| d.and_hms_opt(4, 5, 9)).expect("a valid date");
        // Expectations from Python 3.11 on Linux.
        let cases = [
            ("%Y-%m-%d", "2025-07-06"),
            ("%d %b %Y", "06 Jul 2025"),
            ("%-d %B %y, %A %a", "6 July 25, Sunday Sun"),
            ("%H:%M:%S %I %p %-I", "04:05:09 04 AM 4"),
            ("%j %U %W %w %u %V %G", "187 27 26 0 7 27 2025"),
            ("%c|%x|%X", "Sun Jul  6 04:05:09 2025|07/06/25|04:05:09"),
            ("%f %z%Z 100%%", "000000  100%"),
            ("%e %D %T %R", " 6 07/06/25 04:05:09 04:05"),
            ("%^a 日本 %", "SUN 日本 %"),
            ("%Q", "%Q"),
        ];
        for (format, text) in cases {
            assert_eq!(strftime(now, format), text, "{format}");
        }
    }
}

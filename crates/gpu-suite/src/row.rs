//! A line of the table at the end, also between the two processes.

use std::fmt::Write;

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub what: String,
    pub value: String,
    /// Whether it holds; `None`: a figure that has no bound, or was left out.
    pub good: Option<bool>,
    /// What it should be.
    pub wanted: String,
}

/// What a row printed by the inner process begins with.
const MARK: &str = "row\t";

impl Row {
    pub fn figure(what: impl Into<String>, value: impl Into<String>) -> Row {
        Row { what: what.into(), value: value.into(), good: None, wanted: String::new() }
    }

    pub fn check(what: impl Into<String>, value: impl Into<String>, good: bool, wanted: impl Into<String>) -> Row {
        Row { good: Some(good), wanted: wanted.into(), ..Row::figure(what, value) }
    }

    /// The row as one line for [`Row::parse`].
    pub fn line(&self) -> String {
        let good = match self.good {
            None => "-",
            Some(true) => "yes",
            Some(false) => "no",
        };
        let plain = |text: &str| text.replace(['\t', '\n'], " ");
        format!("{MARK}{good}\t{}\t{}\t{}", plain(&self.what), plain(&self.value), plain(&self.wanted))
    }

    pub fn parse(line: &str) -> Option<Row> {
        let mut fields = line.strip_prefix(MARK)?.split('\t');
        let good = match fields.next()? {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        let mut next = || fields.next().map(str::to_owned);
        // Whoever passes lines on may cut what is empty at their ends.
        Some(Row { good, what: next()?, value: next().unwrap_or_default(), wanted: next().unwrap_or_default() })
    }
}

/// All rows, the failed ones once more at the end.
pub fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (first, second) = (width(|row| &row.what), width(|row| &row.value));
    let mut text = String::new();
    let mut line = |row: &Row| {
        let mark = match row.good {
            None => "    ",
            Some(true) => "ok  ",
            Some(false) => "FAIL",
        };
        let wanted = if row.wanted.is_empty() { String::new() } else { format!("({})", row.wanted) };
        let (what, value) = (&row.what, &row.value);
        let whole = format!("{mark} {what:<first$}  {value:>second$}  {wanted}");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", whole.trim_end());
    };
    rows.iter().for_each(&mut line);
    let failed = rows.iter().filter(|row| row.good == Some(false)).count();
    let held = rows.iter().filter(|row| row.good == Some(true)).count();
    let _ = writeln!(text, "{held} hold, {failed} do not");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_the_way_between_processes() {
        for row in [Row::figure("load", "1.2 s"), Row::check("a", "b", true, "c"), Row::check("a", "", false, "")] {
            assert_eq!(Row::parse(&row.line()).as_ref(), Some(&row));
            assert_eq!(Row::parse(row.line().trim_end()), Some(row));
        }
        let torn = Row::check("two\nlines", "a\ttab", false, "");
        assert_eq!(Row::parse(&torn.line()).unwrap().what, "two lines");
        assert_eq!(Row::parse("loading 30 %"), None);
        assert_eq!(Row::parse("row\tyes"), None);
    }

    #[test]
    fn the_table_counts_what_failed() {
        let text = table(&[
            Row::check("x", "1", true, "1"),
            Row::check("longer", "2", false, "at most 1"),
            Row::figure("y", "3"),
        ]);
        assert_eq!(text, "ok   x       1  (1)\nFAIL longer  2  (at most 1)\n     y       3\n1 hold, 1 do not\n");
    }
}

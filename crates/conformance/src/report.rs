//! What was compared and how it ended.

/// One line per comparison, counted.
#[derive(Default)]
pub struct Report {
    passed: usize,
    failures: Vec<String>,
    skipped: Vec<String>,
}

impl Report {
    /// A number that must not exceed its tolerance; NaN fails.
    pub fn within(&mut self, name: &str, what: &str, error: f64, tolerance: f64) {
        let good = error <= tolerance;
        println!("{} {name}: {what} {error:.3e} (at most {tolerance:.1e})", if good { "ok  " } else { "FAIL" });
        self.count(good, format!("{name}: {what} {error:.3e} > {tolerance:.1e}"));
    }

    /// Something that must hold.
    pub fn holds(&mut self, name: &str, what: &str, good: bool) {
        println!("{} {name}: {what}", if good { "ok  " } else { "FAIL" });
        self.count(good, format!("{name}: {what}"));
    }

    pub fn skip(&mut self, name: &str, why: &str) {
        println!("skip {name}: {why}");
        self.skipped.push(format!("{name}: {why}"));
    }

    fn count(&mut self, good: bool, line: String) {
        if good { self.passed += 1 } else { self.failures.push(line) }
    }

    /// Prints the sum; true if all is well.
    pub fn close(&self, strict: bool) -> bool {
        println!();
        for line in &self.failures {
            println!("FAILED {line}");
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failures.len(), self.skipped.len());
        self.failures.is_empty() && self.passed > 0 && (self.skipped.is_empty() || !strict)
    }
}

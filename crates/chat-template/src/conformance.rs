//! Checks a template against expectations made with Jinja2, in the form of the reference data: for each case an
//! `input` and the `expected` prompt.

use chrono::NaiveDateTime;
use serde::Deserialize;

use crate::{RenderInput, Template, TemplateTokens};

/// `NAME.expected.json`.
#[derive(Debug, Deserialize)]
pub struct Expectations {
    /// The time that `strftime_now` printed.
    pub now: NaiveDateTime,
    /// `bos_token` and `eos_token`.
    pub variables: Variables,
    /// The conversations.
    pub cases: Vec<Case>,
}

/// Variables that every case shares.
#[derive(Debug, Deserialize)]
pub struct Variables {
    /// Text of the token that begins a prompt.
    #[serde(default)]
    pub bos_token: String,
    /// Text of the token that ends an answer.
    #[serde(default)]
    pub eos_token: String,
}

/// One conversation and its prompt.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// The case's name.
    pub case: String,
    /// What is given to the template; absent for a skipped case.
    pub input: Option<RenderInput>,
    /// The prompt; absent where the reference fails.
    pub expected: Option<String>,
    /// The prompt when tools and documents are undefined rather than `None`, where only that works.
    pub expected_if_tools_and_documents_undefined: Option<String>,
}

/// What came of a template's cases.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Cases whose prompt was compared.
    pub compared: usize,
    /// One line for each case that differs.
    pub failures: Vec<String>,
}

/// Renders every case that has an expected prompt and compares.
///
/// # Errors
/// `expectations` that are not of the form described above, and a template that does not parse.
pub fn check(template: &str, expectations: &str) -> Result<Report, String> {
    let expectations: Expectations = serde_json::from_str(expectations).map_err(|e| e.to_string())?;
    let Variables { bos_token: bos, eos_token: eos } = expectations.variables;
    let template = Template::parse(template, TemplateTokens { bos, eos }).map_err(|e| e.to_string())?;
    let mut report = Report::default();
    for case in &expectations.cases {
        let expected = case.expected.as_ref().or(case.expected_if_tools_and_documents_undefined.as_ref());
        let (Some(input), Some(expected)) = (&case.input, expected) else { continue };
        report.compared += 1;
        match template.render(input, expectations.now) {
            Ok(prompt) if prompt == *expected => {}
            Ok(prompt) => report.failures.push(format!("{}: {}", case.case, first_difference(expected, &prompt))),
            Err(e) => report.failures.push(format!("{}: {e}", case.case)),
        }
    }
    Ok(report)
}

fn first_difference(expected: &str, got: &str) -> String {
    let same = expected.chars().zip(got.chars()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.chars().skip(same.saturating_sub(20)).take(60).collect::<String>();
    format!("differs at character {same}: expected {:?}, got {:?}", around(expected), around(got))
}

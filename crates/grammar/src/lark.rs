//! Grammars as the library reads them: Lark's syntax as it is, GBNF translated.
//!
//! Lark tells terminals (regular, read at once) from rules (which may contain themselves). In GBNF all are rules. What is
//! regular becomes a terminal, as large as possible: the fewer there are, the less can be cut at the wrong place, since a
//! terminal takes as much as it can.

use crate::error::GrammarError;
use crate::gbnf::{self, Expression, Rule};
use std::collections::HashMap;
use std::fmt::Write;

/// # Errors
/// [`GrammarError::Invalid`]
pub(crate) fn from_grammar(text: &str) -> Result<String, GrammarError> {
    if text.trim().is_empty() {
        return Err(GrammarError::Invalid("the grammar is empty".into()));
    }
    if gbnf::is_gbnf(text) { translate(&gbnf::parse(text)?) } else { Ok(text.to_owned()) }
}

fn translate(rules: &[Rule]) -> Result<String, GrammarError> {
    let mut by_name = HashMap::new();
    for (index, rule) in rules.iter().enumerate() {
        if by_name.insert(rule.name.as_str(), index).is_some() {
            return Err(GrammarError::Invalid(format!("the rule {} is there twice", rule.name)));
        }
    }
    let mut translation =
        Translation { rules, by_name, kinds: vec![Kind::Unknown; rules.len()], out: String::new(), parts: 0 };
    let root = translation.index("root")?;
    for index in 0..rules.len() {
        translation.is_regular(index)?;
    }
    for (index, rule) in rules.iter().enumerate() {
        let is = match translation.kinds[index] {
            Kind::Regular => translation.regular(&rule.is)?,
            _ => translation.expression(&rule.is)?,
        };
        let name = translation.name(index);
        translation.line(&name, &is);
    }
    let root = translation.name(root);
    translation.line("start", &root);
    Ok(translation.out)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Unknown,
    /// Being found out: to come here again means that it contains itself.
    Asked,
    Regular,
    Recursive,
}

struct Translation<'a> {
    rules: &'a [Rule],
    by_name: HashMap<&'a str, usize>,
    kinds: Vec<Kind>,
    out: String,
    /// Terminals that were made of parts of rules.
    parts: usize,
}

impl Translation<'_> {
    fn index(&self, name: &str) -> Result<usize, GrammarError> {
        let found = self.by_name.get(name).copied();
        found.ok_or_else(|| GrammarError::Invalid(format!("there is no rule {name}")))
    }

    fn name(&self, index: usize) -> String {
        if self.kinds[index] == Kind::Regular { format!("T{index}") } else { format!("r{index}") }
    }

    fn line(&mut self, name: &str, is: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "{name}: {is}");
    }

    fn is_regular(&mut self, index: usize) -> Result<bool, GrammarError> {
        match self.kinds[index] {
            Kind::Regular => return Ok(true),
            Kind::Asked | Kind::Recursive => return Ok(false),
            Kind::Unknown => {}
        }
        self.kinds[index] = Kind::Asked;
        let rules = self.rules;
        let regular = self.all_regular(&rules[index].is)?;
        self.kinds[index] = if regular { Kind::Regular } else { Kind::Recursive };
        Ok(regular)
    }

    fn all_regular(&mut self, expression: &Expression) -> Result<bool, GrammarError> {
        match expression {
            Expression::Literal(_) | Expression::Class(_) => Ok(true),
            Expression::Token(_) => Ok(false),
            Expression::Rule(name) => {
                let index = self.index(name)?;
                self.is_regular(index)
            }
            Expression::Repeat { inner, .. } => self.all_regular(inner),
            Expression::Sequence(all) | Expression::Alternatives(all) => {
                all.iter().try_fold(true, |so_far, one| Ok(self.all_regular(one)? && so_far))
            }
        }
    }

    /// An expression of terminals.
    fn regular(&mut self, expression: &Expression) -> Result<String, GrammarError> {
        self.write(expression, &mut |translation, one| translation.regular(one))
    }

    /// An expression of rules: what in it is regular becomes a terminal of its own.
    fn expression(&mut self, expression: &Expression) -> Result<String, GrammarError> {
        match expression {
            Expression::Rule(_) | Expression::Token(_) => self.regular(expression),
            _ if self.all_regular(expression)? => self.part(expression),
            Expression::Sequence(all) => {
                let mut words = Vec::new();
                let mut rest = &all[..];
                while let Some((first, after)) = rest.split_first() {
                    let mut count = 0;
                    while count < rest.len() && self.all_regular(&rest[count])? {
                        count += 1;
                    }
                    rest = if count < 2 {
                        words.push(self.expression(first)?);
                        after
                    } else {
                        let each = rest[..count].iter().map(|one| self.regular(one)).collect::<Result<Vec<_>, _>>()?;
                        words.push(self.terminal(&each.join(" ")));
                        &rest[count..]
                    };
                }
                Ok(format!("({})", words.join(" ")))
            }
            _ => self.write(expression, &mut |translation, one| translation.expression(one)),
        }
    }

    fn part(&mut self, expression: &Expression) -> Result<String, GrammarError> {
        let is = self.regular(expression)?;
        Ok(self.terminal(&is))
    }

    fn terminal(&mut self, is: &str) -> String {
        self.parts += 1;
        let name = format!("P{}", self.parts);
        self.line(&name, is);
        name
    }

    fn write(
        &mut self,
        expression: &Expression,
        inner: &mut dyn FnMut(&mut Self, &Expression) -> Result<String, GrammarError>,
    ) -> Result<String, GrammarError> {
        let mut each = |translation: &mut Self, all: &[Expression]| {
            all.iter().map(|one| inner(translation, one)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match expression {
            Expression::Literal(text) => serde_json::Value::from(text.as_str()).to_string(),
            Expression::Class(class) => format!("/{class}/"),
            Expression::Token(token) => token.clone(),
            Expression::Rule(name) => self.name(self.index(name)?),
            Expression::Sequence(all) if all.is_empty() => "\"\"".into(),
            Expression::Sequence(all) => format!("({})", each(self, all)?.join(" ")),
            Expression::Alternatives(all) => format!("({})", each(self, all)?.join(" | ")),
            Expression::Repeat { inner, min, max } => {
                let inner = each(self, std::slice::from_ref(inner))?.join(" ");
                match (min, max) {
                    (0, None) => format!("({inner})*"),
                    (1, None) => format!("({inner})+"),
                    (0, Some(1)) => format!("({inner})?"),
                    (min, Some(max)) => format!("({inner}){{{min},{max}}}"),
                    (min, None) => format!("({inner}){{{min},}}"),
                }
            }
        })
    }
}

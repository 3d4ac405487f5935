//! What a schema costs before it is compiled: how deep the compiler will follow it, and what its conditions multiply to.

use crate::error::GrammarError;
use crate::limits;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Keywords whose schemas all hold for the same value.
const SAME_VALUE: &[&str] = &["allOf", "anyOf", "oneOf", "$ref", "const", "enum"];

/// Refuses what the compiler cannot do in bounded time and stack.
///
/// # Errors
/// [`GrammarError::TooDeep`] and [`GrammarError::TooComplex`]
pub(crate) fn check(schema: &Value) -> Result<(), GrammarError> {
    Walk { root: schema, references: HashMap::new() }.schema(schema, 0).map(drop)
}

/// What a schema is to those that hold together with it.
#[derive(Clone, Copy)]
struct Cost {
    /// Alternatives for one value. Those of two schemas multiply, as each is tried with each.
    alternatives: usize,
    /// Properties that the value is told to have.
    properties: usize,
}

const PLAIN: Cost = Cost { alternatives: 1, properties: 0 };

/// Goes the way that the compiler goes: into every schema, and into what is referred to when it is first met.
struct Walk<'a> {
    root: &'a Value,
    /// What is found out of each; nothing while that goes on.
    references: HashMap<&'a str, Cost>,
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &'a Value, depth: usize) -> Result<Cost, GrammarError> {
        if depth > limits::MAX_STEPS {
            return Err(GrammarError::TooDeep { max: limits::MAX_STEPS });
        }
        let Value::Object(schema) = schema else { return Ok(PLAIN) };
        let mut cost = self.parts(schema, depth)?;
        for (keyword, value) in schema.iter().filter(|(keyword, _)| SAME_VALUE.contains(&keyword.as_str())) {
            for other in self.conditions(keyword, value, depth + 1)? {
                cost = together(cost, other)?;
            }
        }
        Ok(cost)
    }

    /// What each of a keyword's conditions costs.
    fn conditions(&mut self, keyword: &str, value: &'a Value, depth: usize) -> Result<Vec<Cost>, GrammarError> {
        let Value::Array(list) = value else {
            return Ok(if keyword == "$ref" { vec![self.reference(value, depth)?] } else { Vec::new() });
        };
        if keyword == "enum" {
            return Ok(vec![Cost { alternatives: list.len(), ..PLAIN }]);
        }
        let each = list.iter().map(|schema| self.schema(schema, depth)).collect::<Result<Vec<_>, _>>()?;
        if keyword == "allOf" {
            return Ok(each);
        }
        let alternatives = each.iter().fold(0usize, |sum, cost| sum.saturating_add(cost.alternatives));
        Ok(vec![Cost { alternatives, properties: each.iter().map(|cost| cost.properties).max().unwrap_or(0) }])
    }

    fn reference(&mut self, reference: &'a Value, depth: usize) -> Result<Cost, GrammarError> {
        let Value::String(reference) = reference else { return Ok(PLAIN) };
        if let Some(known) = self.references.get(reference.as_str()) {
            return Ok(*known);
        }
        self.references.insert(reference, PLAIN);
        let cost = match self.target(reference) {
            Some(target) => self.schema(target, depth)?,
            None => PLAIN,
        };
        self.references.insert(reference, cost);
        Ok(cost)
    }

    /// As the compiler finds it: without escapes.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let path = reference.strip_prefix('#')?.trim_start_matches('/');
        let mut segments = path.split('/').filter(|_| !path.is_empty());
        segments.try_fold(self.root, |value, segment| match value {
            Value::Array(list) => list.get(segment.parse::<usize>().ok()?),
            value => value.get(segment),
        })
    }

    /// Schemas of parts of the value. Where two schemas hold together, so do those of the same part, one with one.
    fn parts(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Result<Cost, GrammarError> {
        let mut cost = PLAIN;
        for (keyword, value) in schema {
            let parts: Vec<&Value> = match (keyword.as_str(), value) {
                ("properties" | "patternProperties", Value::Object(parts)) => {
                    cost.properties += parts.len();
                    parts.values().collect()
                }
                ("items" | "prefixItems" | "additionalItems", Value::Array(parts)) => parts.iter().collect(),
                ("items" | "additionalItems" | "additionalProperties", part) => vec![part],
                _ => continue,
            };
            for part in parts {
                cost.alternatives = cost.alternatives.max(self.schema(part, depth + 1)?.alternatives);
            }
        }
        together(cost, PLAIN)
    }
}

/// The cost of two schemas for the same value.
fn together(a: Cost, b: Cost) -> Result<Cost, GrammarError> {
    let cost = Cost {
        alternatives: a.alternatives.saturating_mul(b.alternatives),
        properties: a.properties.saturating_add(b.properties),
    };
    let refused = |what: &str, max: usize| Err(GrammarError::TooComplex(format!("{what}, more than {max}")));
    if a.alternatives > 1 && b.alternatives > 1 && cost.alternatives > limits::MAX_PRODUCT {
        return refused("combinations of conditions that hold together", limits::MAX_PRODUCT);
    }
    if cost.properties > limits::MAX_PROPERTIES {
        return refused("properties of one object", limits::MAX_PROPERTIES);
    }
    Ok(cost)
}

//! What templates may assign. Values are immutable except for namespaces, so only assignments can build structures
//! of unbounded depth or cycles, on which the engine would overflow its stack. Every `{% set x = value %}` therefore
//! passes its value through [`KEEP`], and every assignment to a namespace through [`KEEP_IN`].

use minijinja::value::{Rest, Tuple, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::python::deeper;
use crate::tokens::tokens;
use crate::value::Dict;
use crate::watch::Watch;

const KEEP: &str = "keep__";
const KEEP_IN: &str = "keep_in__";

/// Adds the functions that assignments call; values nested more than `depth` levels are refused.
pub(crate) fn add(env: &mut Environment<'_>, depth: usize, watch: &Watch) {
    let [shared, refused] = [watch.clone(), watch.clone()];
    env.add_function(KEEP, move |state: &mut State<'_, '_>, value: &Value| {
        shared.check()?;
        own(state, value, Namespaces::Shared, depth)
    });
    env.add_function(KEEP_IN, move |state: &mut State<'_, '_>, value: &Value| {
        refused.check()?;
        own(state, value, Namespaces::Refused, depth)
    });
    env.add_function("namespace", move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args
            .into_values()
            .iter()
            .map(|v| own(state, v, Namespaces::Refused, depth))
            .collect::<Result<Vec<_>, _>>()?;
        let (values,): (Option<ValueOrKwargs>,) = from_args(&args)?;
        minijinja::functions::namespace(values)
    });
}

/// Wraps the value of a `{% set target = value %}` tag.
pub(crate) fn rewrite(tag: &str) -> String {
    let tokens = tokens(tag);
    let mut level = 0usize;
    let assign = tokens.iter().position(|&token| {
        match token {
            "(" | "[" | "{" => level += 1,
            ")" | "]" | "}" => level = level.saturating_sub(1),
            _ => {}
        }
        token == "=" && level == 0
    });
    let end = match tokens.last() {
        Some(end) if end.ends_with("%}") => tokens.len() - 1,
        _ => return tag.to_owned(),
    };
    let Some(assign) = assign.filter(|at| *at < end) else { return tag.to_owned() };
    let target = tokens[..assign].concat();
    let value = tokens[assign + 1..end].concat();
    if value.trim().is_empty() {
        return tag.to_owned();
    }
    let keep = if target.contains('.') { KEEP_IN } else { KEEP };
    // Two pairs of parentheses: the value may be a tuple without its own.
    format!("{target}= {keep}(({})) {}", value.trim(), tokens[end])
}

/// What becomes of namespaces, macros and loops, which are more than data, in an assigned value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Namespaces {
    /// They get another name or a place in a list.
    Shared,
    /// They must not get into a namespace: it could come to contain itself.
    Refused,
}

/// Whether a value is text, a number, a list or a mapping.
fn is_data(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Plain => false,
        ValueKind::Map => !value.as_object().is_some_and(|o| {
            let name = o.type_name();
            name.ends_with("::Namespace") || name.ends_with("::Loop")
        }),
        _ => true,
    }
}

/// A copy that owns its items: no lazy view of another value.
///
/// The conversation itself is immutable and of known depth, and is shared.
fn own(state: &State<'_, '_>, value: &Value, namespaces: Namespaces, depth: usize) -> Result<Value, Error> {
    if !is_data(value) {
        return match namespaces {
            Namespaces::Shared => Ok(value.clone()),
            Namespaces::Refused => Err(Error::new(
                ErrorKind::InvalidOperation,
                "a namespace, loop or function cannot be put into a namespace",
            )),
        };
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let depth = deeper(depth)?;
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                state.consume_fuel(1)?;
                items.push(own(state, &item?, namespaces, depth)?);
            }
            Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
        }
        ValueKind::Map if value.downcast_object_ref::<Dict>().is_none() => {
            let depth = deeper(depth)?;
            let mut pairs = Vec::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                state.consume_fuel(2)?;
                let item = value.get_item(&key)?;
                pairs.push((own(state, &key, namespaces, depth)?, own(state, &item, namespaces, depth)?));
            }
            Ok(Value::from_pairs(pairs))
        }
        _ => Ok(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn wraps_the_value() {
        let cases = [
            ("{% set x = a %}", "{% set x = keep__((a)) %}"),
            ("{%- set ns.x = [a, b] -%}", "{%- set ns.x = keep_in__(([a, b])) -%}"),
            ("{% set a, b = 1, 2 %}", "{% set a, b = keep__((1, 2)) %}"),
            ("{% set x = f(a=1) == 2 %}", "{% set x = keep__((f(a=1) == 2)) %}"),
            ("{%set x=1%}", "{%set x= keep__((1)) %}"),
            ("{% set x %}", "{% set x %}"),
            ("{% set x | f(a=1) %}", "{% set x | f(a=1) %}"),
            ("{% set x = %}", "{% set x = %}"),
            ("{% set x = 1", "{% set x = 1"),
        ];
        for (tag, expected) in cases {
            assert_eq!(rewrite(tag), expected);
        }
    }
}

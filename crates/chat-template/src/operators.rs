//! Operators that the engine does differently from Jinja2. Tags get them rewritten to calls of functions:
//! - `a ~ b` prints both sides like Python ([`CONCAT`]).
//! - `a + b` escapes what is added to text marked as safe: `"<"|safe + "<"` is `<&lt;`, even where nothing else is
//!   escaped ([`ADD`]). Only templates that mark text have it rewritten.
//! - `a % b` formats when `a` is text ([`MODULO`]).
//! - `a * b` is paid for before anything is repeated ([`MULTIPLY`]).
//! - `a in b` is paid for by the bytes that are compared ([`SOUGHT`], [`SEARCHED`]).

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, State};

use crate::compared::{SEARCHED, SOUGHT};
use crate::python;
use crate::tokens::tokens;

const CONCAT: &str = "concat__";
const ADD: &str = "add__";
const MODULO: &str = "modulo__";
const MULTIPLY: &str = "multiply__";

/// Adds the functions; what is printed is nested at most `depth` levels.
pub(crate) fn add_functions(env: &mut Environment<'_>, depth: usize) {
    env.add_function(CONCAT, move |state: &mut State<'_, '_>, operands: Rest<Value>| -> Result<String, Error> {
        let mut text = String::new();
        for operand in operands.iter() {
            match operand.as_str() {
                Some(part) => text.push_str(part),
                None => text.push_str(&python::str(state, operand, depth)?),
            }
        }
        Ok(text)
    });
    env.add_function(ADD, add);
    env.add_function(MODULO, modulo);
    env.add_function(MULTIPLY, multiply);
}

/// The engine's own operator.
fn engine(state: &State<'_, '_>, expression: &'static str, a: &Value, b: &Value) -> Result<Value, Error> {
    let context = Value::from_pairs([("a", a.clone()), ("b", b.clone())]);
    state.env().compile_expression(expression)?.eval(context)
}

/// The remainder of numbers; for text Python's `%` formatting with a value, a tuple of values or a mapping.
fn modulo(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if a.as_str().is_none() {
        return engine(state, "a % b", a, b);
    }
    let mut args = vec![a.clone()];
    if b.is_tuple() {
        args.extend(b.try_iter()?);
    } else if b.kind() == ValueKind::Map && a.as_str().is_some_and(|format| format.contains("%(")) {
        let pairs = b.try_iter()?.filter_map(|key| Some((key.to_str()?.to_string(), b.get_item(&key).ok()?)));
        args.push(Value::from(Kwargs::from_iter(pairs)));
    } else {
        args.push(b.clone());
    }
    state.apply_filter("format", &args)
}

/// The product of numbers, or text or a list repeated.
fn multiply(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    for (repeated, count) in [(a, b), (b, a)] {
        let length = match repeated.as_str() {
            Some(text) => text.len() as u64 / 64,
            None => repeated.len().unwrap_or(0) as u64,
        };
        let count = count.as_i64().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        state.consume_fuel(length.saturating_mul(count))?;
    }
    engine(state, "a * b", a, b)
}

/// Adds from left to right: sums, concatenations, and escaping concatenations with safe text.
fn add(state: &mut State<'_, '_>, operands: Rest<Value>) -> Result<Value, Error> {
    let mut operands = operands.0.into_iter();
    let mut sum = operands.next().unwrap_or_default();
    for operand in operands {
        let text = sum.as_str().zip(operand.as_str());
        sum = match text.filter(|_| sum.is_safe() || operand.is_safe()) {
            Some((a, b)) => {
                state.consume_fuel((a.len() + b.len()) as u64 / 16)?;
                let side = |value: &Value, text: &str| if value.is_safe() { text.to_owned() } else { escape(text) };
                Value::from_safe_string(side(&sum, a) + &side(&operand, b))
            }
            None => engine(state, "a + b", &sum, &operand)?,
        };
    }
    Ok(sum)
}

/// markupsafe's `escape`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// Whether a tag marks text as safe.
pub(crate) fn marks(tag: &str) -> bool {
    let tokens: Vec<&str> = tokens(tag).into_iter().filter(|t| !t.trim().is_empty()).collect();
    tokens.windows(2).any(|pair| pair[0] == "|" && matches!(pair[1], "safe" | "escape" | "e" | "forceescape"))
}

/// Rewrites the operators in a tag (`{{ ... }}` or `{% ... %}`), `+` only with `sums`.
pub(crate) fn rewrite(tag: &str, sums: bool) -> String {
    let mut out = String::with_capacity(tag.len() + 32);
    Rewriter { tokens: tokens(tag), at: 0, sums }.level(&mut out);
    out
}

struct Rewriter<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    sums: bool,
}

impl Rewriter<'_> {
    /// Rewrites up to the bracket that closes this level.
    fn level(&mut self, out: &mut String) {
        let mut terms = Terms::default();
        // What a sign, a `not` and an `in` mean depends on what stands before them.
        let (mut before, mut previous) = ("", "");
        // The `in` of a loop looks for nothing; behind another one, what it looks through follows.
        let (mut in_loop, mut searched) = (false, false);
        while let Some(&token) = self.tokens.get(self.at) {
            self.at += 1;
            let binary = !(previous.is_empty() || is_operator(previous) || ends_terms(previous));
            match token {
                "(" | "[" | "{" => {
                    let term = terms.last();
                    term.push_str(token);
                    self.level(term);
                    if let Some(close) = self.tokens.get(self.at) {
                        terms.last().push_str(close);
                        self.at += 1;
                        (before, previous) = (previous, close);
                    }
                    continue;
                }
                ")" | "]" | "}" => {
                    self.at -= 1;
                    break;
                }
                "~" | "*" | "/" | "//" | "%" => terms.next(token),
                "+" | "-" if binary => terms.next(token),
                // The engine has no such sign, and it does nothing.
                "+" => {}
                "not" if previous == "is" => terms.last().push_str(token),
                "in" if previous == "is" || previous == "not" && before == "is" => terms.last().push_str(token),
                _ if ends_terms(token) => {
                    let sought = matches!(token, "in" | "not") && !in_loop;
                    let side = if searched { Some(SEARCHED) } else { sought.then_some(SOUGHT) };
                    std::mem::take(&mut terms).write_side(side, self.sums, out);
                    out.push_str(token);
                    searched = token == "in" && !in_loop;
                    in_loop = token == "for" && previous.starts_with("{%") || in_loop && token != "in";
                }
                _ => terms.last().push_str(token),
            }
            if !token.trim().is_empty() {
                (before, previous) = (previous, token);
            }
        }
        terms.write_side(searched.then_some(SEARCHED), self.sums, out);
    }
}

/// Operands with the operator before each; the first has none. `*`, `/`, `//` and `%` bind more than `~`, and that more
/// than `+` and `-`; all group from the left.
#[derive(Default)]
struct Terms<'a>(Vec<(&'a str, String)>);

impl<'a> Terms<'a> {
    fn next(&mut self, operator: &'a str) {
        self.last();
        self.0.push((operator, String::new()));
    }

    fn last(&mut self) -> &mut String {
        if self.0.is_empty() {
            self.0.push(("", String::new()));
        }
        let last = self.0.len() - 1;
        &mut self.0[last].1
    }

    /// As one side of an `in`, the argument of a function that pays for it. Text that stands in the template is short.
    fn write_side(self, function: Option<&str>, sums: bool, out: &mut String) {
        let Some(function) = function else { return self.write(sums, out) };
        let mut text = String::new();
        self.write(sums, &mut text);
        let side = text.trim();
        if side.is_empty() || side.starts_with(['\'', '"']) && tokens(side).len() == 1 {
            return out.push_str(&text);
        }
        let (before, after) = (&text[..text.len() - text.trim_start().len()], &text[text.trim_end().len()..]);
        out.extend([before, function, "(", side, ")", after]);
    }

    fn write(self, sums: bool, out: &mut String) {
        // Without an operand between two operators it is an error, which the engine reports.
        if self.0.iter().any(|(_, operand)| operand.trim().is_empty()) {
            self.0.into_iter().for_each(|(operator, operand)| out.extend([operator, operand.as_str()]));
            return;
        }
        let mut concats: Vec<(&str, Vec<String>)> = Vec::new();
        for (operator, product) in products(self.0) {
            match concats.last_mut() {
                Some((_, terms)) if operator == "~" => terms.push(product),
                _ => concats.push((operator, vec![product])),
            }
        }
        // A sum that also subtracts is of numbers and stays as it is.
        let adds = concats.len() > 1 && concats.iter().skip(1).all(|(operator, _)| *operator == "+");
        if sums && adds {
            out.push_str(&call(ADD, concats.into_iter().map(|(_, terms)| call(CONCAT, terms)).collect()));
        } else {
            for (operator, terms) in concats {
                out.push_str(operator);
                out.push_str(&call(CONCAT, terms));
            }
        }
    }
}

/// Joins what `*`, `/`, `//` and `%` bind; what remains is joined by `+`, `-` and `~`.
fn products(operands: Vec<(&str, String)>) -> Vec<(&str, String)> {
    let mut products: Vec<(&str, String)> = Vec::new();
    for (operator, operand) in operands {
        match (products.last_mut(), operator) {
            (Some((_, product)), "*") => *product = call(MULTIPLY, vec![std::mem::take(product), operand]),
            (Some((_, product)), "%") => *product = call(MODULO, vec![std::mem::take(product), operand]),
            (Some((_, product)), "/" | "//") => {
                product.push_str(operator);
                product.push_str(&operand);
            }
            _ => products.push((operator, operand)),
        }
    }
    products
}

/// A call with these arguments; a single one stays alone. Space around them stays outside: it may be all that
/// separates two words.
fn call(function: &str, arguments: Vec<String>) -> String {
    let (Some(first), Some(last)) = (arguments.first(), arguments.last()) else { return String::new() };
    if arguments.len() == 1 {
        return first.clone();
    }
    let before = &first[..first.len() - first.trim_start().len()];
    let after = &last[last.trim_end().len()..];
    let trimmed: Vec<&str> = arguments.iter().map(|a| a.trim()).collect();
    format!("{before}{function}({}){after}", trimmed.join(", "))
}

/// Whether a token binds less than `+`, so that a sum cannot go on beyond it. Tests (`is`) bind more.
fn ends_terms(token: &str) -> bool {
    const SYMBOLS: [&str; 18] =
        [",", ":", "=", "==", "!=", "<", ">", "<=", ">=", "{{", "{{-", "}}", "-}}", "{%", "{%-", "{%+", "%}", "-%}"];
    const WORDS: [&str; 12] =
        ["and", "or", "not", "in", "if", "elif", "else", "set", "for", "recursive", "print", "do"];
    SYMBOLS.contains(&token) || WORDS.contains(&token) || token == "+%}"
}

/// Whether a sign after this token is a prefix.
fn is_operator(token: &str) -> bool {
    matches!(token, "~" | "*" | "/" | "//" | "%" | "**" | "|" | "-" | "+" | "." | "is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_operators() {
        let cases = [
            ("{{ a + b }}", "{{ add__(a, b) }}"),
            ("{{- 'x'|safe + t['a' + b] + 'y' -}}", "{{- add__('x'|safe, t[add__('a', b)], 'y') -}}"),
            ("{% set x = a + b if c + d == e else -1 %}", "{% set x = add__(a, b) if add__(c, d) == e else -1 %}"),
            ("{{ n - 1 + 2 }}", "{{ n - 1 + 2 }}"),
            ("{{ +1 }}", "{{ 1 }}"),
            ("{{ a ~ b is not in c ~ d }}", "{{ concat__(a, b is not in c, d) }}"),
            ("{{ a ~ b + c * d }}", "{{ add__(concat__(a, b), multiply__(c, d)) }}"),
            ("{{ a * b // c % d * -e }}", "{{ multiply__(modulo__(multiply__(a, b) // c, d), -e) }}"),
            ("{{ a ** b * c - d % e }}", "{{ multiply__(a ** b, c) - modulo__(d, e) }}"),
            ("{{ '%s' % a|upper ~ b }}", "{{ concat__(modulo__('%s', a|upper), b) }}"),
            ("{{ f(*args, **kwargs) }}", "{{ f(*args, **kwargs) }}"),
            ("{{ a - b ~ c }}", "{{ a - concat__(b, c) }}"),
            ("{{ a ~ -1 ~ 'x' }}", "{{ concat__(a, -1, 'x') }}"),
            ("{{ f(a + b, c=d ~ e) }}", "{{ f(add__(a, b), c=concat__(d, e)) }}"),
            ("{{ {'k': {'l': a + b}} }}", "{{ {'k': {'l': add__(a, b)}} }}"),
            ("{{ a is not none ~ 'b' }}", "{{ concat__(a is not none, 'b') }}"),
            ("{{ not a ~ b }}", "{{ not concat__(a, b) }}"),
            ("{{ (a) ~ [b][0] }}", "{{ concat__((a), [b][0]) }}"),
            ("{{ (a) - 1 }}", "{{ (a) - 1 }}"),
            ("{%+ if 'a + b' in x ~ y +%}", "{%+ if 'a + b' in searched__(concat__(x, y)) +%}"),
            (
                "{{ not a in b and c not in [d] }}",
                "{{ not sought__(a) in searched__(b) and sought__(c) not in searched__([d]) }}",
            ),
            ("{{ a == b in c or d }}", "{{ a == sought__(b) in searched__(c) or d }}"),
            ("{{ a in b in 'c' }}", "{{ sought__(a) in searched__(b) in 'c' }}"),
            ("{{ (a in b)|int + 1 }}", "{{ add__((sought__(a) in searched__(b))|int, 1) }}"),
            ("{{ x if a - 1 in b else -c }}", "{{ x if sought__(a - 1) in searched__(b) else -c }}"),
            ("{% for a, b in c if d in e %}", "{% for a, b in c if sought__(d) in searched__(e) %}"),
            ("{%- for a in b recursive -%}", "{%- for a in b recursive -%}"),
            ("{% set x = 'a' in b %}", "{% set x = 'a' in searched__(b) %}"),
            ("{{ f(a in b, c=d in e) }}", "{{ f(sought__(a) in searched__(b), c=sought__(d) in searched__(e)) }}"),
            ("{{ a in }}", "{{ sought__(a) in }}"),
            ("{{ 'a' 'b' in c }}", "{{ sought__('a' 'b') in searched__(c) }}"),
            ("{{ a + b", "{{ add__(a, b)"),
            ("{{ a + }}", "{{ a + }}"),
            ("{{ + }}", "{{  }}"),
            ("{{ a ~ ~ b }}", "{{ a ~ ~ b }}"),
        ];
        for (tag, expected) in cases {
            assert_eq!(rewrite(tag, true), expected);
            assert_eq!(tokens(tag).concat(), tag);
        }
        assert_eq!(rewrite("{{ a + b ~ c }}", false), "{{ a + concat__(b, c) }}");
    }

    #[test]
    fn finds_marks() {
        assert!(marks("{{ a | safe }}"));
        assert!(marks("{{ a|e }}"));
        assert!(!marks("{{ safe | upper }}"));
    }
}

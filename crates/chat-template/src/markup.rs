//! Concatenation with text marked as safe. In Jinja2 `"<"|safe + "<"` is `<&lt;`: adding to safe text escapes the
//! other side, even where nothing else is escaped. Templates that mark text get their `+` rewritten to [`add`].

use minijinja::value::{Rest, Value};
use minijinja::{Error, State};

use crate::tokens::tokens;

/// The function that replaces `+`.
pub(crate) const ADD: &str = "markup_add__";

/// Adds from left to right: sums, concatenations, and escaping concatenations with safe text.
pub(crate) fn add(state: &mut State<'_, '_>, operands: Rest<Value>) -> Result<Value, Error> {
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
            None => {
                let context = Value::from_pairs([("a", sum), ("b", operand)]);
                state.env().compile_expression("a + b")?.eval(context)?
            }
        };
    }
    Ok(sum)
}

/// markupsafe's `escape`.
fn escape(text: &str) -> String {
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

/// Rewrites every sum in a tag (`{{ ... }}` or `{% ... %}`) to a call of [`ADD`].
pub(crate) fn rewrite(tag: &str) -> String {
    let tokens = tokens(tag);
    let mut out = String::with_capacity(tag.len() + 32);
    rewrite_level(&tokens, &mut 0, &mut out);
    out
}

/// Rewrites up to the bracket that closes this level.
fn rewrite_level(tokens: &[&str], at: &mut usize, out: &mut String) {
    let mut operands: Vec<String> = vec![String::new()];
    let mut operator = true; // whether a sign here would be a prefix
    let mut subtracts = false;
    while let Some(&token) = tokens.get(*at) {
        *at += 1;
        let binary = !operator;
        operator = false;
        match token {
            "(" | "[" | "{" => {
                let operand = last(&mut operands);
                operand.push_str(token);
                rewrite_level(tokens, at, operand);
                if let Some(close) = tokens.get(*at) {
                    operand.push_str(close);
                    *at += 1;
                }
            }
            ")" | "]" | "}" => {
                *at -= 1;
                break;
            }
            "+" if binary => {
                operands.push(String::new());
                operator = true;
            }
            _ if ends_sum(token) => {
                flush(&mut operands, &mut subtracts, out);
                out.push_str(token);
                operator = true;
            }
            _ => {
                let space = token.chars().all(char::is_whitespace);
                operator = if space { !binary } else { is_operator(token) };
                subtracts |= token == "-" && binary;
                last(&mut operands).push_str(token);
            }
        }
    }
    flush(&mut operands, &mut subtracts, out);
}

fn last(operands: &mut Vec<String>) -> &mut String {
    if operands.is_empty() {
        operands.push(String::new());
    }
    let last = operands.len() - 1;
    &mut operands[last]
}

/// Writes the sum that ends here. One that also subtracts is of numbers and stays as it is.
fn flush(operands: &mut Vec<String>, subtracts: &mut bool, out: &mut String) {
    let sum = std::mem::replace(operands, vec![String::new()]);
    if sum.len() == 1 || std::mem::take(subtracts) {
        out.push_str(&sum.join("+"));
        return;
    }
    // Space around the sum stays outside: it may be all that separates two words.
    let leading = sum[0].len() - sum[0].trim_start().len();
    out.push_str(&sum[0][..leading]);
    out.push_str(ADD);
    out.push('(');
    let parts: Vec<&str> = sum.iter().map(|s| s.trim()).collect();
    out.push_str(&parts.join(", "));
    out.push(')');
    let tail = &sum[sum.len() - 1];
    out.push_str(&tail[tail.trim_end().len()..]);
}

fn ends_sum(token: &str) -> bool {
    matches!(
        token,
        "," | ":"
            | "="
            | "=="
            | "!="
            | "<"
            | ">"
            | "<="
            | ">="
            | "{{"
            | "{{-"
            | "}}"
            | "-}}"
            | "{%"
            | "{%-"
            | "{%+"
            | "%}"
            | "-%}"
            | "+%}"
            | "and"
            | "or"
            | "not"
            | "in"
            | "is"
            | "if"
            | "elif"
            | "else"
            | "set"
            | "for"
            | "recursive"
            | "print"
            | "do"
    )
}

fn is_operator(token: &str) -> bool {
    matches!(token, "~" | "*" | "/" | "//" | "%" | "**" | "|" | "-" | "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_sums() {
        let cases = [
            ("{{ a + b }}", "{{ markup_add__(a, b) }}"),
            ("{{- 'x'|safe + t['a' + b] + 'y' -}}", "{{- markup_add__('x'|safe, t[markup_add__('a', b)], 'y') -}}"),
            (
                "{% set x = a + b if c + d == e else -1 %}",
                "{% set x = markup_add__(a, b) if markup_add__(c, d) == e else -1 %}",
            ),
            ("{{ n - 1 + 2 }}", "{{ n - 1 + 2 }}"),
            ("{{ +1 }}", "{{ +1 }}"),
            ("{{ a ~ b + c * d }}", "{{ markup_add__(a ~ b, c * d) }}"),
            ("{{ f(a + b, c=d + e) }}", "{{ f(markup_add__(a, b), c=markup_add__(d, e)) }}"),
            ("{{ {'k': {'l': a + b}} }}", "{{ {'k': {'l': markup_add__(a, b)}} }}"),
            ("{%+ if 'a + b' in x +%}", "{%+ if 'a + b' in x +%}"),
            ("{{ a + b", "{{ markup_add__(a, b)"),
            ("{{ a +", "{{ markup_add__(a, )"),
        ];
        for (tag, expected) in cases {
            assert_eq!(rewrite(tag), expected);
            assert_eq!(tokens(tag).concat(), tag);
        }
    }

    #[test]
    fn finds_marks() {
        assert!(marks("{{ a | safe }}"));
        assert!(marks("{{ a|e }}"));
        assert!(!marks("{{ safe | upper }}"));
    }
}

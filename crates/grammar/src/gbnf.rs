//! llama.cpp's GBNF (<https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>), read into expressions.

use crate::error::GrammarError;

/// What a rule says.
#[derive(Debug)]
pub(crate) enum Expression {
    Literal(String),
    /// A set of characters, as a regular expression.
    Class(String),
    Rule(String),
    /// A control token, by name or number: `<...>`.
    Token(String),
    Sequence(Vec<Expression>),
    Alternatives(Vec<Expression>),
    Repeat {
        inner: Box<Expression>,
        min: u32,
        max: Option<u32>,
    },
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub name: String,
    pub is: Expression,
}

/// Whether a text looks like GBNF: its rules are defined with `::=`.
pub(crate) fn is_gbnf(text: &str) -> bool {
    text.lines().any(|line| {
        let name = line.split_once("::=").map_or("", |(name, _)| name.trim());
        !name.is_empty() && name.chars().all(is_word)
    })
}

/// # Errors
/// [`GrammarError::Invalid`], with the line.
pub(crate) fn parse(text: &str) -> Result<Vec<Rule>, GrammarError> {
    let mut reader = Reader { rest: text, whole: text };
    let mut rules = Vec::new();
    loop {
        reader.space(true);
        if reader.rest.is_empty() {
            return Ok(rules);
        }
        let name = reader.word().ok_or_else(|| reader.error("the name of a rule is expected"))?;
        reader.space(false);
        reader.expect("::=")?;
        reader.space(true);
        let is = reader.alternatives(false)?;
        reader.space(false);
        if !reader.rest.is_empty() && !reader.rest.starts_with(['\r', '\n']) {
            return Err(reader.error("the end of the line is expected"));
        }
        rules.push(Rule { name, is });
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

struct Reader<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl Reader<'_> {
    fn error(&self, what: &str) -> GrammarError {
        let line = 1 + self.whole[..self.whole.len() - self.rest.len()].matches('\n').count();
        let found: String = self.rest.chars().take(20).take_while(|c| !c.is_control()).collect();
        GrammarError::Invalid(format!("line {line}: {what}, not '{found}'"))
    }

    fn take(&mut self, mark: &str) -> bool {
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, mark: &str) -> Result<(), GrammarError> {
        if self.take(mark) { Ok(()) } else { Err(self.error(&format!("{mark} is expected"))) }
    }

    /// Spaces and comments; the ends of lines too where an expression goes on.
    fn space(&mut self, lines: bool) {
        loop {
            let is_space = |c: char| c == ' ' || c == '\t' || lines && (c == '\r' || c == '\n');
            let rest = self.rest.trim_start_matches(is_space);
            let rest = if rest.starts_with('#') { rest.trim_start_matches(|c| c != '\n') } else { rest };
            if rest.len() == self.rest.len() {
                return;
            }
            self.rest = rest;
        }
    }

    fn word(&mut self) -> Option<String> {
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (end > 0).then(|| word.to_owned())
    }

    fn next(&mut self) -> Result<char, GrammarError> {
        let next = self.rest.chars().next().ok_or_else(|| self.error("more is expected"))?;
        self.rest = &self.rest[next.len_utf8()..];
        Ok(next)
    }

    fn alternatives(&mut self, nested: bool) -> Result<Expression, GrammarError> {
        let mut all = vec![self.sequence(nested)?];
        loop {
            // An alternative may begin on a line of its own.
            let before = self.rest;
            self.space(true);
            if !self.take("|") {
                self.rest = if nested { self.rest } else { before };
                break;
            }
            self.space(true);
            all.push(self.sequence(nested)?);
        }
        Ok(if all.len() == 1 { all.swap_remove(0) } else { Expression::Alternatives(all) })
    }

    fn sequence(&mut self, nested: bool) -> Result<Expression, GrammarError> {
        let mut all = Vec::new();
        loop {
            self.space(nested);
            let item = match self.rest.chars().next() {
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') if self.take(".") => Expression::Class("(?s:.)".into()),
                Some('<') => self.token()?,
                Some('(') if self.take("(") => {
                    self.space(true);
                    let inner = self.alternatives(true)?;
                    self.space(true);
                    self.expect(")")?;
                    inner
                }
                Some(c) if is_word(c) => Expression::Rule(self.word().unwrap_or_default()),
                _ => return Ok(Expression::Sequence(all)),
            };
            all.push(self.repeated(item)?);
        }
    }

    fn repeated(&mut self, mut item: Expression) -> Result<Expression, GrammarError> {
        loop {
            self.space(false);
            let (min, max) = match self.rest.chars().next() {
                Some('*') if self.take("*") => (0, None),
                Some('+') if self.take("+") => (1, None),
                Some('?') if self.take("?") => (0, Some(1)),
                Some('{') if self.take("{") => self.bounds()?,
                _ => return Ok(item),
            };
            item = Expression::Repeat { inner: Box::new(item), min, max };
        }
    }

    /// `3}`, `3,}` or `3,5}`
    fn bounds(&mut self) -> Result<(u32, Option<u32>), GrammarError> {
        let number = |reader: &mut Self| {
            reader.space(false);
            let end = reader.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(reader.rest.len());
            let (digits, rest) = reader.rest.split_at(end);
            reader.rest = rest;
            reader.space(false);
            digits.parse::<u32>().ok()
        };
        let min = number(self).ok_or_else(|| self.error("a number of repetitions is expected"))?;
        let max = if self.take(",") { number(self) } else { Some(min) };
        self.expect("}")?;
        Ok((min, max))
    }

    fn literal(&mut self) -> Result<Expression, GrammarError> {
        self.expect("\"")?;
        let mut text = String::new();
        while !self.take("\"") {
            text.push(self.character()?);
        }
        Ok(Expression::Literal(text))
    }

    fn class(&mut self) -> Result<Expression, GrammarError> {
        self.expect("[")?;
        let mut class = String::from(if self.take("^") { "[^" } else { "[" });
        let empty = class.len();
        while !self.take("]") {
            let first = self.character()?;
            class.push_str(&code(first));
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.expect("-")?;
                let last = self.character()?;
                if last < first {
                    return Err(self.error("a range of characters goes upwards"));
                }
                class.push_str(&format!("-{}", code(last)));
            }
        }
        if class.len() == empty {
            return Err(self.error("characters are expected between brackets"));
        }
        class.push(']');
        Ok(Expression::Class(class))
    }

    fn token(&mut self) -> Result<Expression, GrammarError> {
        let end = self.rest.find('>').filter(|end| !self.rest[..*end].contains(char::is_whitespace));
        let end = end.ok_or_else(|| self.error("> is expected after the name of a token"))?;
        let (token, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        Ok(Expression::Token(token.to_owned()))
    }

    /// A character of a literal or class, escaped or not.
    fn character(&mut self) -> Result<char, GrammarError> {
        let digits = match self.next()? {
            '\\' => match self.next()? {
                't' => return Ok('\t'),
                'r' => return Ok('\r'),
                'n' => return Ok('\n'),
                'x' => 2,
                'u' => 4,
                'U' => 8,
                escaped @ ('\\' | '"' | '[' | ']' | '^' | '-') => return Ok(escaped),
                _ => return Err(self.error("no such character can be escaped")),
            },
            plain => return Ok(plain),
        };
        let hex = self.rest.get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let found = hex.and_then(|hex| char::from_u32(u32::from_str_radix(hex, 16).ok()?));
        let found =
            found.ok_or_else(|| self.error(&format!("{digits} digits of a character's number are expected")))?;
        self.rest = &self.rest[digits..];
        Ok(found)
    }
}

/// A character as regular expressions have it.
fn code(c: char) -> String {
    format!("\\x{{{:X}}}", u32::from(c))
}

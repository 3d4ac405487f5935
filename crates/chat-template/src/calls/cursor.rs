//! Reading a text that is not complete yet.

use serde::de::IgnoredAny;
use serde_json::Value as Json;

/// Why reading stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// What comes next decides.
    More,
    /// Whatever comes, this is not what was expected.
    Bad,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a str,
    /// Nothing comes after `rest`.
    end: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(rest: &'a str, end: bool) -> Self {
        Self { rest, end }
    }

    pub fn rest(&self) -> &'a str {
        self.rest
    }

    pub fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    pub fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// The next character.
    pub fn peek(&self) -> Result<char, Stop> {
        self.rest.chars().next().ok_or(Stop::More)
    }

    /// Takes `mark` if it is next.
    pub fn take(&mut self, mark: &str) -> Result<bool, Stop> {
        if let Some(rest) = self.rest.strip_prefix(mark) {
            self.rest = rest;
            return Ok(true);
        }
        if !self.end && mark.starts_with(self.rest) { Err(Stop::More) } else { Ok(false) }
    }

    /// Takes `mark`, which must be next.
    pub fn expect(&mut self, mark: &str) -> Result<(), Stop> {
        if self.take(mark)? { Ok(()) } else { Err(Stop::Bad) }
    }

    /// Takes everything up to `mark`, and the mark.
    pub fn until(&mut self, mark: &str) -> Result<&'a str, Stop> {
        let (before, after) = self.rest.split_once(mark).ok_or(Stop::More)?;
        self.rest = after;
        Ok(before)
    }

    /// Takes everything up to `mark`, which is left, or up to the end of the answer.
    pub fn up_to(&mut self, mark: &str) -> Result<&'a str, Stop> {
        let at = match self.rest.find(mark) {
            Some(at) => at,
            None if self.end => self.rest.len(),
            None => return Err(Stop::More),
        };
        let (before, after) = self.rest.split_at(at);
        self.rest = after;
        Ok(before)
    }

    /// Takes the name of a tool or an argument: letters of any script, digits, and `_ - . : /`.
    pub fn name(&mut self) -> Result<&'a str, Stop> {
        let len = self.rest.find(|c: char| !c.is_alphanumeric() && !"_-.:/".contains(c)).ok_or(Stop::More)?;
        if len == 0 {
            return Err(Stop::Bad);
        }
        let (name, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(name)
    }

    /// Takes a JSON value, an object or a list.
    pub fn json(&mut self) -> Result<Json, Stop> {
        if !matches!(self.peek()?, '{' | '[') {
            return Err(Stop::Bad);
        }
        // Finding the end costs less than making values that are thrown away.
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<IgnoredAny>();
        let len = match values.next() {
            Some(Ok(_)) => values.byte_offset(),
            Some(Err(error)) if !error.is_eof() => return Err(Stop::Bad),
            _ => return Err(Stop::More),
        };
        let value = serde_json::from_str(&self.rest[..len]).map_err(|_| Stop::Bad)?;
        self.skip(len);
        Ok(value)
    }
}

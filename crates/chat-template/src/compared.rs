//! What compares many values pays for the bytes that it compares: the engine takes a step for each value, however long it is.
//! Tags have both sides of `in` wrapped (`operators.rs`); filters that sort, and the test `in`, come in the place of the engine's.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, State};

/// What is looked for; it is hashed, or compared with itself.
pub(crate) const SOUGHT: &str = "sought__";
/// Where it is looked for.
pub(crate) const SEARCHED: &str = "searched__";

/// Adds functions, filters and the test.
pub(crate) fn add(env: &mut Environment<'_>) {
    env.add_function(SOUGHT, |state: &mut State<'_, '_>, value: &Value| -> Result<Value, Error> {
        state.consume_fuel(size(state, value)?)?;
        Ok(value.clone())
    });
    env.add_function(SEARCHED, |state: &mut State<'_, '_>, value: &Value| searched(state, value));
    env.add_test("in", |state: &mut State<'_, '_>, value: &Value, list: &Value| -> Result<bool, Error> {
        state.consume_fuel(size(state, value)?)?;
        minijinja::tests::is_in(state, value, &searched(state, list)?)
    });
    env.add_filter("sort", |state: &mut State<'_, '_>, value: Value, kwargs: Kwargs| {
        minijinja::filters::sort(state, sorted(state, value)?, kwargs)
    });
    env.add_filter("unique", |state: &mut State<'_, '_>, value: Value, kwargs: Kwargs| {
        minijinja::filters::unique(state, sorted(state, value)?, kwargs)
    });
    env.add_filter("min", |state: &mut State<'_, '_>, value: Value, kwargs: Kwargs| {
        minijinja::filters::min(state, sorted(state, value)?, kwargs)
    });
    env.add_filter("max", |state: &mut State<'_, '_>, value: Value, kwargs: Kwargs| {
        minijinja::filters::max(state, sorted(state, value)?, kwargs)
    });
    env.add_filter("groupby", |state: &mut State<'_, '_>, value: Value, attribute: Option<&str>, kwargs: Kwargs| {
        minijinja::filters::groupby(sorted(state, value)?, attribute, kwargs)
    });
}

/// Each item is compared, as far as it goes. In a mapping it is looked up, and text is the engine's business.
fn searched(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    let value = listed(state, value)?;
    if value.kind() == ValueKind::Seq {
        state.consume_fuel(size(state, &value)?)?;
    }
    Ok(value)
}

/// To put `n` values in order, each is compared log2(n) times and a few more; whatever case its letters have, which is slower.
fn sorted(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let value = listed(state, &value)?;
    let comparisons = value.len().unwrap_or(0).max(2).ilog2() as u64 + 1;
    pay_for_sorting(state, size(state, &value)?, comparisons)?;
    Ok(value)
}

pub(crate) fn pay_for_sorting(state: &State<'_, '_>, size: u64, comparisons: u64) -> Result<(), Error> {
    state.consume_fuel(size.saturating_mul(comparisons).saturating_mul(4))
}

/// What can perhaps be gone through only once is kept as a list.
fn listed(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Iterable {
        return Ok(value.clone());
    }
    let mut items = Vec::new();
    for item in value.try_iter()?.checked() {
        state.consume_fuel(1)?;
        items.push(item?);
    }
    Ok(Value::from(items))
}

/// Steps that comparing with a value pays for: it may be large and be compared with itself.
pub(crate) fn size(state: &State<'_, '_>, value: &Value) -> Result<u64, Error> {
    let mut size = 1 + value.as_str().map_or(0, str::len) as u64 / 64;
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        for item in value.try_iter()?.checked() {
            let item = item?;
            state.consume_fuel(1)?;
            size = size.saturating_add(self::size(state, &item)?);
            if value.kind() == ValueKind::Map {
                size = size.saturating_add(self::size(state, &value.get_item(&item)?)?);
            }
        }
    }
    Ok(size)
}

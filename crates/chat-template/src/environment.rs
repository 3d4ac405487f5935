//! The Jinja environment that chat templates are written for: Jinja2 as transformers configures it.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use crate::error::Refusal;
use crate::limits::Limits;
use crate::watch::Watch;
use crate::{compared, filters, keep, methods, operators, python};

/// Nested macro calls and recursive loops. Each may nest a value as deep as an expression can (150 levels).
const RECURSION_LIMIT: usize = 120;

/// An environment without templates.
///
/// Calls and what is printed are where a rendering that was given up ends.
pub(crate) fn build(limits: &Limits, watch: &Watch) -> Result<Environment<'static>, Error> {
    let depth = limits.depth;
    let [in_methods, in_printing] = [watch.clone(), watch.clone()];
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_debug(false);
    env.set_unknown_method_callback(move |state, value, method, args| {
        in_methods.check()?;
        methods::call(state, value, method, args, depth)
    });
    env.set_formatter(move |out, state, value| {
        in_printing.check()?;
        let printed;
        let text = match value.as_str() {
            Some(text) => text,
            None => {
                printed = python::str(state, value, depth)?;
                &printed
            }
        };
        out.write_str(text).map_err(|_| Error::new(ErrorKind::WriteFailure, "the prompt cannot be written"))
    });

    minijinja_contrib::add_to_environment(&mut env);
    filters::add(&mut env, depth);
    // Prints the engine's state.
    env.remove_global("debug");
    env.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    operators::add_functions(&mut env, depth);
    compared::add(&mut env);
    keep::add(&mut env, depth, watch);
    env.set_recursion_limit(RECURSION_LIMIT);
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = message.to_string();
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
    });
    env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
    });
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    Ok(env)
}

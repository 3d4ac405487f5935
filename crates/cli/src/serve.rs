//! `headroom serve`

use crate::args::Serve;
use crate::failure::Failure;
use crate::given;
use crate::load::{self, Loaded, Wanted};
use crate::output;
use crate::program::Program;
use engine::{Cancel, Drafting};
use serde_json::json;
use server::{Access, Serving};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;

pub fn serve(program: &Program, options: &Serve) -> Result<(), Failure> {
    let defaults = options.defaults()?;
    let key = options.api_key_file.as_ref().map(|path| key(&given::text_of_file(path)?)).transpose()?;
    let access = Access::new(key, options.origins.clone());
    let address = SocketAddr::new(options.host, options.port);
    // A port that is taken is told before the model is loaded.
    let listener = program.block_on(TcpListener::bind(address)).map_err(|error| taken(address, &error))?;
    let url = url(listener.local_addr().map_err(|error| taken(address, &error))?);
    let cancel = Cancel::new();
    program.interrupts_only_cancel(&cancel);
    let speculating = Some((&options.speculating, Drafting::WherePays));
    let wanted = Wanted { context: None, rows: 1, speculating };
    let Loaded { app, session, .. } = load::load(program, &options.model, &options.loading, wanted, &cancel)?;
    if !options.host.is_loopback() && access.key.is_none() {
        output::note("everybody in the network can use this server: --api-key-file keeps them out");
    }
    if !session.has_template() {
        output::note("the model has no chat template: a plain one is used");
    }
    let (name, context) = (session.name.clone(), session.context());
    match program.json {
        true => output::json(&json!({ "url": url, "model": name, "context": context }))?,
        false => output::note(format!("{name} (context {context}) answers at {url}/v1 until Ctrl-C")),
    }
    app.take_in(session);
    let serving = Serving { app, defaults: Some(defaults), access };
    let end = async move {
        while !cancel.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    program.block_on(server::serve(listener, serving, end)).map_err(|error| Failure::new("io", error))
}

fn key(text: &str) -> Result<String, Failure> {
    match text.trim() {
        key if key.is_empty() || key.contains(char::is_whitespace) => {
            Err(Failure::usage("an API key is one word, alone in its file"))
        }
        key => Ok(key.into()),
    }
}

fn taken(address: SocketAddr, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => ": another program has it; --port takes another one, 0 any that is free",
        _ => "",
    };
    Failure::new("port", format!("cannot listen on {address}{hint} ({error})"))
}

/// Where it is reached from this PC.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

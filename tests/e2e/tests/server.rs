//! The switch in Settings: another program asks the model that the window has loaded, and the two take turns.

use anyhow::{Context, Result, ensure};
use e2e::{LOOKS, SIZES, Window, settings};
use serde_json::json;
use std::net::Ipv4Addr;
use test_models::ModelSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the window says while another program is answered.
const WAITING: [&str; 2] = ["answer for another program", "ほかのプログラムへの回答"];
/// Room for an answer that takes longer than anything here.
const CONTEXT: u32 = 1 << 16;

/// Another program that wants an answer without an end, once the first words have come.
async fn ask(port: u16) -> Result<TcpStream> {
    let messages = json!([{ "role": "user", "content": "Hello" }]);
    let body = json!({ "messages": messages, "stream": true, "max_tokens": -1, "temperature": 0 }).to_string();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all((head + &body).as_bytes()).await?;
    let mut read = Vec::new();
    while String::from_utf8_lossy(&read).matches("\"content\":").count() < 3 {
        ensure!(stream.read_buf(&mut read).await? > 0, "hung up: {}", String::from_utf8_lossy(&read));
    }
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_and_the_window_take_turns() -> Result<()> {
    for ((language, theme), waiting) in LOOKS.into_iter().zip(WAITING) {
        let (data, place) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port();
        let some = json!({ "language": language, "theme": theme, "sampling": { "maxTokens": 5 },
            "server": { "on": false, "port": port } });
        settings(data.path(), some)?;
        let model = place.path().join("endless.gguf");
        std::fs::write(&model, ModelSpec { n_ctx: CONTEXT, ..ModelSpec::llama() }.build())?;
        let window = Window::open(data.path(), &[&model.to_string_lossy()]).await?;

        window.go("settings").await?;
        window.click("settings-server").await?;
        window.get_with("server-state", "data-state", "on").await?;
        ensure!(window.text("server-url").await? == format!("http://127.0.0.1:{port}/v1"), "the address");
        for (width, height) in SIZES {
            window.client.set_window_size(width, height).await?;
            window.script("document.querySelector('[data-testid=server-state]').scrollIntoView(false)").await?;
            window.settle().await?;
            window.picture(&format!("server-{language}-{width}"))?;
            window.fits(&format!("the switch in {language}, {theme}, at {width}x{height}")).await?;
        }
        window.client.set_window_size(SIZES[0].0, SIZES[0].1).await?;

        window.go("chat").await?;
        window.fill("context-input", &CONTEXT.to_string()).await?;
        window.click("load-model").await?;
        window.ready().await?;
        let mut other = ask(port).await?;
        // It reads on, as who does not would end its answer.
        let (gone, mut leave) = tokio::sync::oneshot::channel::<()>();
        let reading = tokio::spawn(async move {
            let mut piece = vec![0; 1 << 16];
            loop {
                tokio::select! {
                    read = other.read(&mut piece) => ensure!(read? > 0, "the answer ended by itself"),
                    _ = &mut leave => return Ok(()),
                }
            }
        });
        window.ask("Hi").await?;
        window.until("the window waits", async || Ok(window.text("status-line").await?.contains(waiting))).await?;
        window.look(&format!("server-waiting-{language}")).await?;
        ensure!(window.all("answer-finish").await?.is_empty(), "the other's answer is not complete");
        gone.send(()).ok().context("the other has gone before")?;
        reading.await??;
        window.answered(1).await?;

        // Nobody is there any more after a click.
        window.go("settings").await?;
        window.click("settings-server").await?;
        window.get_with("server-state", "data-state", "off").await?;
        ensure!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err(), "it still listens");
        window.close().await?;
    }
    Ok(())
}

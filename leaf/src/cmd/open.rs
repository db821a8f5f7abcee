//! `open`: the web page of the running daemon, in a browser.
//!
//! The address carries the token. A browser started with it would show it to every user of the machine in the list of
//! processes, so it is started with a private file that leads there.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use overlay::{
    admin::handoff::ApiFile,
    config::Program,
    console::{Exit, Failure},
    folders,
    life::page_address,
};
use serde::Serialize;

use super::Context;

/// The file that leads to the page, in the data folder.
const LEAD: &str = "open.html";

/// The line `page`.
#[derive(Serialize)]
struct Line<'a> {
    url: &'a str,
}

/// Runs it.
///
/// # Errors
/// If no daemon answers.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    client.get::<serde_json::Value>("status").await.map_err(|error| context.failure(error))?;
    let data = context.surroundings().folders()?.data;
    let daemon = ApiFile::read(&data)?.ok_or_else(|| Failure::daemon_not_running(Program::Leaf))?;
    let url = page_address(&format!("{}/", daemon.url), &daemon.token);
    let console = &context.console;
    if console.is_json() {
        console.typed_line("page", &Line { url: &url })?;
        return Ok(Exit::Done);
    }
    console.text(&url)?;
    match browse(context, &data, &url) {
        Ok(true) => console.note("a browser was asked to open it"),
        Ok(false) => console.note("there is no browser here; open the address in one"),
        Err(error) => console.warn(format_args!("no browser could be started: {error}")),
    }
    Ok(Exit::Done)
}

/// Starts a browser; false if there is none.
fn browse(context: &Context, data: &Path, url: &str) -> std::io::Result<bool> {
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| context.environment.variable(name).is_some());
    let starter = match () {
        () if cfg!(target_os = "macos") => "open",
        () if cfg!(windows) => "explorer",
        () if has_display => "xdg-open",
        () => return Ok(false),
    };
    let lead = data.join(LEAD);
    // The address is made of an IP address, a port and hex digits.
    let html = format!("<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={url}\">\n");
    folders::write_atomically(&lead, html.as_bytes(), folders::PRIVATE_FILE)?;
    let started =
        Command::new(starter).arg(&lead).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    match started {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

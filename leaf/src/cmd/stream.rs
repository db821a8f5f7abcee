//! `stream`: an address that a player opens while the content comes.

use clap::Args;
use overlay::{
    admin::client::segment,
    console::{Exit, Failure},
    id::ContentId,
};
use serde::{Deserialize, Serialize};

use super::{Context, content_text};
use crate::{
    api::types::{NewDownload, NewDownloads},
    file_id::text,
};

/// What to play.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// A content id, or 8 or more of its first digits
    #[arg(value_name = "CONTENT")]
    content: String,
}

/// The answer to `POST files/{content}/link`.
#[derive(Deserialize)]
struct Link {
    url: String,
    expires_at: Option<String>,
}

/// The line `stream`.
#[derive(Serialize)]
struct Stream {
    id: String,
    #[serde(with = "text")]
    content: ContentId,
    url: String,
    expires_at: Option<String>,
}

/// Runs it. The download is the daemon's and goes on whether or not anybody plays it.
///
/// # Errors
/// Malformed content ids, and what the daemon refuses.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let content = content_text(&arguments.content)?;
    let client = context.client()?;
    let body = NewDownload { content: Some(content), ..NewDownload::default() };
    let started: NewDownloads = client.post("downloads", &body).await.map_err(|error| context.failure(error))?;
    let NewDownloads::One(job) = started else {
        return Err(Failure::new(overlay::admin::Code::Internal, "the daemon answered with a folder"));
    };
    let path = format!("files/{}/link", segment(&job.content.to_string()));
    let link: Link = client.post(&path, &()).await.map_err(|error| context.failure(error))?;
    let console = &context.console;
    let url = client.url(&link.url);
    if console.is_json() {
        let line = Stream { id: job.id.clone(), content: job.content, url, expires_at: link.expires_at };
        console.typed_line("stream", &line)?;
        return Ok(Exit::Done);
    }
    console.text(&url)?;
    console.note("open it with a player; it comes in the order in which it is played");
    Ok(Exit::Done)
}

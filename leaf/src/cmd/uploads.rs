//! `uploads`: who fetches from here.

use overlay::{
    console::{Column, Exit, Failure, Table},
    units,
};

use super::{Context, short};
use crate::{api::types::Upload, transfer::serve::UploadState};

/// Runs it.
///
/// # Errors
/// If no daemon answers.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let uploads: Vec<Upload> = context.list(&client, "uploads").await?;
    let console = &context.console;
    if console.is_json() {
        uploads.iter().try_for_each(|upload| console.typed_line("upload", upload))?;
        return Ok(Exit::Done);
    }
    console.table(&table(&uploads))?;
    if uploads.is_empty() {
        console.note("nobody downloads from here now");
    }
    Ok(Exit::Done)
}

/// One row for each.
pub(super) fn table(uploads: &[Upload]) -> Table {
    let mut table = Table::new([
        Column::left("peer"),
        Column::left("state"),
        Column::left("via"),
        Column::right("sent"),
        Column::right("rate"),
        Column::flexible("name"),
    ]);
    for upload in uploads {
        let state = match upload.queue_position {
            Some(place) => format!("queued ({place})"),
            None if upload.state == UploadState::Queued => "queued".to_owned(),
            None => "active".to_owned(),
        };
        table.row([
            short(&upload.peer).as_str(),
            &state,
            upload.via.name(),
            &format!("{} of {}", units::size(upload.bytes), units::size(upload.size)),
            &units::rate(upload.rate as f64).to_string(),
            &upload.name,
        ]);
    }
    table
}

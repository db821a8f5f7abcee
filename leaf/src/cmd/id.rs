//! `id`: who this node is. Needs no daemon, and makes the key if there is none.

use overlay::{
    admin::error::Code,
    console::{Exit, Failure},
    folders,
    identity::{Identity, KeyFileError},
};
use serde::Serialize;

use super::Context;

#[derive(Serialize)]
struct Id {
    peer_id: String,
}

/// Runs it.
///
/// # Errors
/// If the key cannot be read or made.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let places = context.folders()?;
    let file = places.identity_file();
    let identity = match Identity::load(&file).map_err(|error| failure(&error))? {
        Some(identity) => identity,
        None => {
            folders::make_private_folder(&places.data)?;
            Identity::load_or_create(&file).map_err(|error| failure(&error))?
        }
    };
    let peer_id = identity.peer_id().to_string();
    let console = &context.console;
    if console.is_json() {
        console.typed_line("id", &Id { peer_id })?;
    } else {
        console.text(peer_id)?;
    }
    Ok(Exit::Done)
}

fn failure(error: &KeyFileError) -> Failure {
    let code = match error {
        KeyFileError::Read { source, .. } | KeyFileError::Write { source, .. } => {
            Failure::from(std::io::Error::from(source.kind())).code
        }
        KeyFileError::Permissions { .. } => Code::PermissionDenied,
        _ => Code::Internal,
    };
    Failure::new(code, error.to_string()).hint(error.hint())
}

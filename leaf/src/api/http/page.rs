//! The web page: `GET /` and its files, which need no token and hold no data.
//!
//! The files of `leaf/page` are part of the program. Their addresses carry a hash of all of them, so browsers keep
//! them for good and never mix those of two versions; the page itself is asked for anew each time. Builds for
//! development read the files from the source folder, if it is there, so that a change needs no build.

use std::{borrow::Cow, path::PathBuf};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use overlay::admin::{
    error::{ApiError, Path},
    index::Api,
};

use super::State;

/// Names and bytes of files below `leaf/page`.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../page/", $name)))),*]
    };
}

/// The files that browsers ask for.
const FILES: &[(&str, &[u8])] = files![
    "api.js",
    "app.js",
    "browse.js",
    "carry.js",
    "chart.js",
    "format.js",
    "icon.svg",
    "index.html",
    "list.js",
    "logs.js",
    "network.js",
    "parts.js",
    "picture.js",
    "query.js",
    "search.js",
    "settings.js",
    "shared.js",
    "store.js",
    "style.css",
    "transfers.js",
    "vendor/htm-preact.js",
    "vendor/uplot.css",
    "vendor/uplot.js",
    "wishes.js",
];

/// The page, in which [`VERSION`] stands for the hash of the files.
const INDEX: &str = "index.html";
const VERSION: &str = "{version}";

pub(super) fn routes(api: Api<State>) -> Api<State> {
    api.page("/", index).page("/page/{version}/{*name}", file)
}

async fn index(headers: HeaderMap) -> Response {
    let html = file_bytes(INDEX).map(|bytes| String::from_utf8_lossy(&bytes).replace(VERSION, &version()));
    answer(INDEX, html.unwrap_or_default().into_bytes(), "no-cache", &headers)
}

async fn file(Path((asked, name)): Path<(String, String)>, headers: HeaderMap) -> Result<Response, ApiError> {
    let bytes = file_bytes(&name).filter(|_| name != INDEX);
    let bytes = bytes.ok_or_else(|| ApiError::not_found("the page has no such file"))?;
    let caching = if asked == version() { "public, max-age=31536000, immutable" } else { "no-cache" };
    Ok(answer(&name, bytes.into_owned(), caching, &headers))
}

/// The bytes, or that the browser has them already.
fn answer(name: &str, bytes: Vec<u8>, caching: &'static str, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type(name))),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
        (header::ETAG, HeaderValue::try_from(tag).expect("hex digits in quotes")),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, bytes).into_response()
}

fn file_bytes(name: &str) -> Option<Cow<'static, [u8]>> {
    let (name, embedded) = FILES.iter().find(|(known, _)| *known == name)?;
    let on_disk = source_folder().and_then(|folder| std::fs::read(folder.join(name)).ok());
    Some(on_disk.map_or(Cow::Borrowed(*embedded), Cow::Owned))
}

/// Where the files lie that can be changed without a build.
fn source_folder() -> Option<PathBuf> {
    cfg!(debug_assertions).then(|| [env!("CARGO_MANIFEST_DIR"), "page"].iter().collect())
}

/// A hash of all files: some digits of BLAKE3.
fn version() -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, _) in FILES {
        let bytes = file_bytes(name).unwrap_or_default();
        hasher.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path as Folder};

    use super::*;

    fn names(folder: &Folder, below: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{below}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                names(&entry.path(), &format!("{name}/"), found);
            } else if media_type(&name) != "application/octet-stream" {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_page_is_part_of_the_program() {
        let mut found = BTreeSet::new();
        names(&source_folder().unwrap(), "", &mut found);
        let embedded: BTreeSet<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(embedded, found);
    }

    fn is_own_script(name: &str) -> bool {
        media_type(name).starts_with("text/javascript") && !name.starts_with("vendor/")
    }

    #[test]
    fn what_modules_import_is_there_and_nothing_is_asked_of_others() {
        for (name, bytes) in FILES.iter().filter(|(name, _)| is_own_script(name)) {
            let text = std::str::from_utf8(bytes).unwrap();
            for line in text.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from ")) {
                if let Some((_, imported)) = line.split_once(" from ") {
                    let file = imported.trim_matches([' ', ';', '"']).trim_start_matches("./");
                    assert!(FILES.iter().any(|(known, _)| *known == file), "{name}: {line}");
                }
            }
            assert!(!text.contains("innerHTML") && !text.contains("dangerouslySet"), "{name} writes markup");
        }
    }
}

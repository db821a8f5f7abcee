//! A slow look at everything that lies here: is it still what was hashed?
//!
//! Disks lose bits without a word, and a file can be changed so that its size and time stay. Whoever fetched it would find
//! out, but only this leaf can find out before. [`limits::CHECK_RATE`] bytes a second are read, a piece at a time, so that
//! nobody notices; what is wrong is hashed again and listed as what it is. It begins at a random content, because a leaf may
//! never run for long enough to see all.

use std::{fs::File, io, sync::Arc, time::Duration};

use overlay::{
    drive::system_rng,
    id::ContentId,
    limits,
    verify::{self, Layout, Value},
};
use rand::Rng;
use tokio::{task::spawn_blocking, time::sleep};

use super::{Shares, StoreError};
use crate::file_io::read_at;

/// Bytes that a look at a file counts as besides its own: opening it and reading its record.
const FILE_BYTES: u64 = 16 << 10;
/// Pause after a round, so that an empty leaf does nothing.
const ROUND_PAUSE: Duration = Duration::from_mins(1);

/// Looks at everything, round after round, until dropped.
pub(crate) async fn check_slowly(shares: Shares) {
    // Without randomness it begins with the first.
    let mut first = system_rng().map_or(0, |mut rng| rng.next_u64() as u8);
    loop {
        if let Err(error) = round(&shares, first, Some(limits::CHECK_RATE)).await {
            tracing::warn!(%error, "what lies here cannot be checked");
        }
        first = first.wrapping_add(1);
        sleep(ROUND_PAUSE / 64).await;
    }
}

/// Looks at the contents whose ids begin with one byte, reading `rate` bytes a second. Returns how many were damaged.
async fn round(shares: &Shares, first: u8, rate: Option<u64>) -> Result<usize, StoreError> {
    let mut damaged = 0;
    for content in shares.contents_from(vec![first], limits::CHECK_CONTENTS).await? {
        if !is_right(shares, content, rate).await? {
            tracing::warn!(content = %content.short(), "a file is damaged and is hashed again");
            shares.damaged(content).await?;
            damaged += 1;
        }
    }
    Ok(damaged)
}

/// False if what lies here of a content is something else, though its size and time are those that it was hashed with.
async fn is_right(shares: &Shares, content: ContentId, rate: Option<u64>) -> Result<bool, StoreError> {
    pause(rate, FILE_BYTES).await;
    let Some(served) = shares.open(content).await? else { return Ok(true) };
    let Some(pieces) = shares.pieces(content, served.size).await? else { return Ok(true) };
    let Ok(layout) = Layout::new(served.size) else { return Ok(true) };
    let file = Arc::new(served.file);
    for (piece, value) in (0..).zip(pieces) {
        pause(rate, layout.piece_bytes().into()).await;
        let file = Arc::clone(&file);
        match spawn_blocking(move || fits(&file, layout, piece, &value)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(false),
            // It cannot be read now, which the next scan tells.
            Ok(Err(_)) => return Ok(true),
            Err(_) => return Err(StoreError::Panicked),
        }
    }
    Ok(true)
}

fn fits(file: &File, layout: Layout, piece: u64, value: &Value) -> io::Result<bool> {
    let Ok(range) = layout.piece_range(piece) else { return Ok(true) };
    let data = read_at(file, (range.end - range.start) as usize, range.start)?;
    Ok(verify::check_piece(layout.size(), piece, value, &data).is_ok())
}

async fn pause(rate: Option<u64>, bytes: u64) {
    if let Some(rate) = rate {
        sleep(Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use overlay::config::Origin;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::store::{Database, Outboards, ShareSpec, SharesConfig};

    fn shares(folder: &Path) -> Shares {
        let share = folder.join("Share");
        let (database, _) = Database::open(&folder.join("state.redb")).unwrap();
        let config = SharesConfig {
            shares: vec![ShareSpec { path: share, origin: Origin::CommandLine }],
            exclude: vec![],
            rescan_interval: Duration::from_hours(1),
            hash_threads: 1,
            downloads: folder.join("downloads"),
            share_downloads: false,
        };
        let outboards = Outboards::new(folder.join("outboards"));
        Shares::start(config, Arc::new(database), outboards, CancellationToken::new()).unwrap().0
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_rots_is_found_and_listed_as_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Share/a.bin");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Larger than what is hashed anew whenever its values are wanted.
        let mut data = vec![7; 70 << 20];
        let content = |data: &[u8]| ContentId(*blake3::hash(data).as_bytes());
        let (before, small) = (content(&data), content(b"small"));
        fs::write(&path, &data).unwrap();
        fs::write(path.with_file_name("b.bin"), "small").unwrap();
        let shares = shares(folder.path());
        shares.settled(None).await;
        for content in [before, small] {
            assert_eq!(round(&shares, content.0[0], None).await.unwrap(), 0);
        }

        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        data[40 << 20] ^= 1;
        let file = File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[data[40 << 20]], 40 << 20).unwrap();
        file.set_modified(modified).unwrap();
        drop(file);
        assert_eq!(round(&shares, before.0[0], None).await.unwrap(), 1);
        let after = content(&data);
        let mut catalog = shares.watch_catalog();
        while shares.open(after).await.unwrap().is_none() {
            catalog.changed().await.unwrap();
        }
        assert!(shares.open(before).await.unwrap().is_none(), "it is not served as what it was");
        assert!(shares.open(small).await.unwrap().is_some());
    }
}

//! A content that lies here, whole or in part: its open file, its values, and which pieces are verified.
//!
//! A download writes into its holding and uploads read from it at the same time. Invariant: a piece counts as
//! had only after it was verified and written, and values are only ever those that fit the content id.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use overlay::{
    drive::system_rng,
    id::{ContentId, PeerId},
    limits,
    time::Time,
    verify::{self, Layout, SEGMENT_PIECES, Value, VerifyError},
};

use rand::Rng;

use super::FoundSource;
use crate::{
    bitmap::Bitmap,
    file_io::read_at,
    swarm::{
        Run,
        spread::{Others, Suggestions, Told},
    },
};

/// Bytes at the begin of a piece that tell whether it was written: one page. Real data that begins with as many
/// zeros is only fetched again.
const BEGUN_BYTES: u64 = 4096;

/// See the module text. Shared by everything that reads or writes the content.
#[derive(Debug)]
pub struct Holding {
    content: ContentId,
    name: String,
    layout: Layout,
    file: File,
    /// Time of the last change when the content was known to be this, for files that are not ours to write.
    modified: Option<SystemTime>,
    tops: Vec<Value>,
    damaged: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    segments: BTreeMap<u64, Arc<[Value]>>,
    have: Bitmap,
    suggestions: Suggestions,
}

impl State {
    fn new(segments: BTreeMap<u64, Arc<[Value]>>, have: Bitmap) -> Self {
        // Without randomness all begin with the first piece, which is only slower.
        let from = system_rng().map_or(0, |mut rng| rng.next_u64());
        let suggestions = Suggestions::new(have.len(), from);
        Self { segments, have, suggestions }
    }
}

impl Holding {
    /// A whole content: a file that was opened as it was hashed, and all its piece values.
    pub fn whole(content: ContentId, name: String, file: File, pieces: &[Value]) -> Result<Self, HoldingError> {
        let metadata = file.metadata()?;
        let layout = Layout::new(metadata.len())?;
        let tops = verify::segment_values(layout.size(), pieces)?;
        verify::check_tops(content, layout.size(), &tops)?;
        let segments = (0u64..).zip(pieces.chunks(SEGMENT_PIECES as usize).map(Arc::from)).collect();
        let state = State::new(segments, Bitmap::full(layout.pieces()));
        Ok(Self {
            content,
            name,
            layout,
            file,
            modified: metadata.modified().ok(),
            tops,
            damaged: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// A content that is being downloaded into `file`. `tops` fit the content id.
    pub fn part(content: ContentId, name: String, file: File, layout: Layout, tops: Vec<Value>) -> Self {
        let state = State::new(BTreeMap::new(), Bitmap::new(layout.pieces()));
        Self {
            content,
            name,
            layout,
            file,
            modified: None,
            tops,
            damaged: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// Which content.
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// Its file name, for the user.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is cut.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Its segment values.
    pub fn tops(&self) -> &[Value] {
        &self.tops
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The piece values of a segment, if they are known.
    pub fn segment(&self, segment: u64) -> Option<Arc<[Value]>> {
        self.state().segments.get(&segment).cloned()
    }

    /// Takes the piece values of a segment, if they fit.
    pub fn add_segment(&self, segment: u64, pieces: Vec<Value>) -> Result<(), VerifyError> {
        let count = self.layout.segments();
        let top = usize::try_from(segment).ok().and_then(|at| self.tops.get(at));
        let top = top.ok_or(VerifyError::Index { index: segment, count })?;
        verify::check_segment(self.layout.size(), segment, top, &pieces)?;
        self.state().segments.insert(segment, pieces.into());
        Ok(())
    }

    /// The segments whose values are known.
    pub fn known_segments(&self) -> Vec<u64> {
        self.state().segments.keys().copied().collect()
    }

    /// All piece values, if they are known.
    pub fn all_values(&self) -> Option<Vec<Value>> {
        let state = self.state();
        let values: Vec<Value> = state.segments.values().flat_map(|segment| segment.iter().copied()).collect();
        (values.len() as u64 == self.layout.pieces()).then_some(values)
    }

    /// The value of a piece, if it is known.
    pub fn value(&self, piece: u64) -> Option<Value> {
        let state = self.state();
        let segment = state.segments.get(&(piece / u64::from(SEGMENT_PIECES)))?;
        segment.get((piece % u64::from(SEGMENT_PIECES)) as usize).copied()
    }

    /// True if all pieces are here.
    pub fn is_whole(&self) -> bool {
        self.state().have.is_full()
    }

    /// The verified pieces.
    pub fn have(&self) -> Bitmap {
        self.state().have.clone()
    }

    /// True if `piece` is verified.
    pub fn has(&self, piece: u64) -> bool {
        self.state().have.contains(piece)
    }

    /// `piece` was verified and written. False if it was before.
    pub fn add_piece(&self, piece: u64) -> bool {
        self.state().have.insert(piece)
    }

    /// Pieces to suggest to a downloader, at most `most`; `None` while not all are here.
    pub fn suggest(&self, most: u32) -> Option<Run> {
        let mut state = self.state();
        state.have.is_full().then(|| state.suggestions.next(most))
    }

    /// A downloader asked for these pieces and is given them: others are suggested to the next.
    pub fn sent(&self, run: Run) {
        self.state().suggestions.sent(run);
    }

    /// These were not sent after all: they are suggested again.
    pub fn unsent(&self, run: Run) {
        self.state().suggestions.unsent(run);
    }

    /// Reads bytes. Blocks on the disk.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        read_at(&self.file, length, offset)
    }

    /// True if the piece may have been written: a partial file holds zeros where nothing was. Reads only its first
    /// bytes, so that a large file that has just been begun is looked through at once. Blocks on the disk.
    pub fn is_begun(&self, piece: u64) -> io::Result<bool> {
        let (Some(_), Ok(range)) = (self.value(piece), self.layout.piece_range(piece)) else { return Ok(false) };
        let first = self.read(range.start, (range.end - range.start).min(BEGUN_BYTES) as usize)?;
        Ok(first.iter().any(|byte| *byte != 0))
    }

    /// Reads a piece and checks it against its value. False if it does not fit or its value is not known.
    /// Blocks on the disk.
    pub fn verify(&self, piece: u64) -> io::Result<bool> {
        let (Some(value), Ok(range)) = (self.value(piece), self.layout.piece_range(piece)) else { return Ok(false) };
        let data = match self.read(range.start, (range.end - range.start) as usize) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            data => data?,
        };
        Ok(verify::check_piece(self.layout.size(), piece, &value, &data).is_ok())
    }

    /// Checks a piece, and writes it if it fits. `Ok(false)` if it does not: nothing was written. Blocks on the
    /// disk.
    pub fn write_verified(&self, piece: u64, data: &[u8]) -> io::Result<bool> {
        let (Some(value), Ok(range)) = (self.value(piece), self.layout.piece_range(piece)) else { return Ok(false) };
        if verify::check_piece(self.layout.size(), piece, &value, data).is_err() {
            return Ok(false);
        }
        write_all_at(&self.file, data, range.start)?;
        crate::steps::written();
        Ok(true)
    }

    /// A piece was found not to be what was hashed, though nothing shows that the file was changed.
    pub fn set_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// True if the file is still the one that was hashed, as far as its size and time tell and nobody found otherwise.
    pub fn is_unchanged(&self) -> bool {
        if self.damaged.load(Ordering::Relaxed) {
            return false;
        }
        let Some(modified) = self.modified else { return true };
        let metadata = self.file.metadata();
        metadata.is_ok_and(|now| now.len() == self.layout.size() && now.modified().is_ok_and(|at| at == modified))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is open now, so that all sessions of a content share one holding, and downloads serve what they have; and who else
/// has something of what was open lately.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    open: Arc<Mutex<BTreeMap<ContentId, Weak<Holding>>>>,
    others: Arc<Mutex<BTreeMap<ContentId, Others>>>,
}

impl Holdings {
    /// The holding of a content, while somebody holds it.
    pub fn find(&self, content: &ContentId) -> Option<Arc<Holding>> {
        self.lock().get(content).and_then(Weak::upgrade)
    }

    /// Makes a holding known as long as it lives; it takes the place of another of its content.
    pub fn add(&self, holding: &Arc<Holding>) {
        let mut open = self.lock();
        if open.len() >= limits::HOLDINGS {
            open.retain(|_, holding| holding.strong_count() > 0);
        }
        open.insert(holding.content(), Arc::downgrade(holding));
    }

    /// Forgets a holding.
    pub fn remove(&self, content: &ContentId) {
        self.lock().remove(content);
    }

    /// Somebody else has something of a content. Of too many contents, the one of which nothing was heard for longest is
    /// forgotten.
    pub fn heard(&self, now: Time, content: ContentId, peer: PeerId, homes: &[PeerId]) {
        let mut others = self.others();
        if others.len() >= limits::HOLDINGS && !others.contains_key(&content) {
            let oldest = others.iter().min_by_key(|(_, others)| others.heard_at()).map(|(content, _)| *content);
            oldest.and_then(|oldest| others.remove(&oldest));
        }
        others.entry(content).or_default().heard(now, peer, homes);
    }

    /// Somebody else has nothing of a content, or something wrong.
    pub fn lost(&self, content: &ContentId, peer: &PeerId) {
        if let Some(others) = self.others().get_mut(content) {
            others.lost(peer);
        }
    }

    /// How many others are known to have something of a content.
    pub fn copies(&self, content: &ContentId) -> u32 {
        self.others().get(content).map_or(0, Others::len) as u32
    }

    /// Others to tell `listener` of that it was not `told` of; see [`Others::sample`].
    pub fn others_for(
        &self,
        now: Time,
        content: &ContentId,
        listener: &PeerId,
        told: &mut Told,
        rng: &mut dyn Rng,
    ) -> Vec<FoundSource> {
        let mut others = self.others();
        let others = others.get_mut(content).map(|others| others.sample(now, listener, told, rng)).unwrap_or_default();
        others.into_iter().map(|(peer, homes)| FoundSource { peer, homes }).collect()
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<ContentId, Others>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContentId, Weak<Holding>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a file is not the content that it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldingError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its size or values do not fit.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

#[cfg(unix)]
fn write_all_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, data, offset)?;
        data = &data[written..];
        offset += written as u64;
    }
    Ok(())
}

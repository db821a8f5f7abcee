//! Many files made durable together, which costs less than one after the other.

use std::{fs::File, io, thread};

/// Threads that force files to the disk: a journal takes what several ask for at the same time in one go. Measured on ext4 on
/// a busy machine, 512 files of 4 KiB: 4 and 16 threads take 2 to 4 times less than one.
const THREADS: usize = 8;
/// Files for which it is worth a thread.
const FILES_PER_THREAD: usize = 16;

/// Forces the bytes and the lengths of files to the disk. After an error any of them may not be there. Blocks.
pub(super) fn force_all(files: &[&File]) -> io::Result<()> {
    let threads = files.len().div_ceil(FILES_PER_THREAD).clamp(1, THREADS);
    let part = files.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = files
            .chunks(part)
            .map(|part| scope.spawn(move || part.iter().try_for_each(|file| file.sync_all())))
            .collect();
        // A thread that panicked has forced nothing for certain.
        parts.into_iter().try_for_each(|part| part.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
    })
}

//! The shares as the library that is served, and where finished downloads are entered.

use futures_util::future::BoxFuture;
use overlay::{
    id::ContentId,
    limits,
    verify::Value,
    wire::{
        bounded::{List, Text},
        transfer::{Browse, Cursor, FolderEntry, Page},
    },
};

use super::{Finished, Library, LibraryError, LocalFile, SmallFile};
use crate::{
    catalog::{self, Item},
    store::Shares,
};

impl Library for Shares {
    fn open(&self, content: ContentId) -> BoxFuture<'_, Result<Option<LocalFile>, LibraryError>> {
        Box::pin(async move {
            let served = Self::open(self, content).await.map_err(|error| LibraryError(error.to_string()))?;
            Ok(served.map(|served| LocalFile { file: served.file, path: served.path }))
        })
    }

    fn pieces(&self, content: ContentId, size: u64) -> BoxFuture<'_, Result<Option<Vec<Value>>, LibraryError>> {
        Box::pin(
            async move { Self::pieces(self, content, size).await.map_err(|error| LibraryError(error.to_string())) },
        )
    }

    fn damaged(&self, content: ContentId) -> BoxFuture<'_, Result<(), LibraryError>> {
        Box::pin(async move { Self::damaged(self, content).await.map_err(|error| LibraryError(error.to_string())) })
    }

    fn small_files(&self, contents: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<Option<SmallFile>>, LibraryError>> {
        Box::pin(
            async move { Self::small_files(self, contents).await.map_err(|error| LibraryError(error.to_string())) },
        )
    }

    fn knows(&self, contents: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<bool>, LibraryError>> {
        Box::pin(async move { Self::knows(self, contents).await.map_err(|error| LibraryError(error.to_string())) })
    }

    fn add_downloads(&self, files: Vec<Finished>) -> BoxFuture<'_, Result<(), LibraryError>> {
        Box::pin(async move { Self::add_downloads(self, files).await.map_err(|error| LibraryError(error.to_string())) })
    }

    fn browse(&self, request: Browse) -> BoxFuture<'_, Option<Page>> {
        let catalog = self.catalog();
        Box::pin(async move {
            // Folders of a large share are counted row by row: not on a thread that moves bytes.
            let list = move || {
                let after = match &request.after {
                    Cursor::Start => None,
                    Cursor::Folder(path) => Some(catalog::Cursor::Folder(path.to_string())),
                    Cursor::File(path) => Some(catalog::Cursor::Entry(path.to_string())),
                };
                let limit = usize::from(request.limit).clamp(1, limits::PAGE_ENTRIES);
                catalog.browse(&request.path, request.recursive, after.as_ref(), limit).map(to_wire)
            };
            tokio::task::spawn_blocking(list).await.ok().flatten()
        })
    }
}

fn to_wire(page: catalog::Page) -> Page {
    let (mut folders, mut entries) = (Vec::new(), Vec::new());
    for item in page.items {
        match item {
            Item::Folder(folder) => {
                folders.push(FolderEntry { path: Text::new(&folder.path), files: folder.files, bytes: folder.bytes });
            }
            Item::Entry(entry) => entries.push(entry),
        }
    }
    let next = page.next.map(|next| match next {
        catalog::Cursor::Folder(path) => Cursor::Folder(Text::new(&path)),
        catalog::Cursor::Entry(path) => Cursor::File(Text::new(&path)),
    });
    Page { folders: List::new(folders), entries: List::new(entries), next }
}

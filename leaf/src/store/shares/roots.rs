//! Which folders are looked after, and by which names. Blocks on the database.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use overlay::config::Origin;

use super::{
    SharesConfig,
    state::{Shared, State},
};
use crate::{
    catalog::Change,
    store::{StoreError, path, record::Root, watch::Coverage},
};

impl Shared {
    /// Makes the list of folders what the configuration says.
    pub(super) fn reconcile(&self, config: &SharesConfig) -> Result<(), StoreError> {
        let mut wanted: Vec<(PathBuf, Option<Origin>)> = Vec::new();
        let downloads = config.share_downloads.then_some(Origin::Default);
        let specs = config.shares.iter().map(|spec| (spec.path.clone(), Some(spec.origin)));
        for (folder, origin) in specs.chain([(config.downloads.clone(), downloads)]) {
            let folder = absolute(&folder);
            if !wanted.iter().any(|(other, _)| *other == folder) {
                wanted.push((folder, origin));
            }
        }
        let unwanted = |state: &State| {
            let same = wanted.iter().find(|(folder, _)| *folder == state.path);
            same.is_none_or(|(_, origin)| origin.is_some() != state.origin.is_some())
        };
        let gone: Vec<u32> = self.states().iter().filter(|(_, state)| unwanted(state)).map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id);
        }
        for (folder, origin) in wanted {
            self.open_root(&folder, origin)?;
        }
        self.drop_unknown_names();
        Ok(())
    }

    /// Takes a folder into the list, if it is not there. Returns its id.
    pub(super) fn open_root(&self, folder: &Path, origin: Option<Origin>) -> Result<u32, StoreError> {
        if let Some((id, state)) = self.states().iter_mut().find(|(_, state)| state.path == folder) {
            state.origin = origin;
            return Ok(*id);
        }
        let key = path::to_bytes(folder);
        let roots = self.database.roots()?;
        let known = roots.iter().find(|(path, _)| *path == key).map(|(_, root)| root.clone());
        let id = known.as_ref().map_or_else(|| roots.iter().map(|(_, root)| root.id + 1).max().unwrap_or(0), |r| r.id);
        let device = known.as_ref().and_then(|root| root.device);
        let wish = known.map_or_else(|| share_name(folder), |root| root.name);
        let name = self.free_name(&wish, folder, origin);
        self.database.put_root(&key, &Root { id, name: name.clone(), device })?;
        let state = State {
            name,
            path: folder.to_owned(),
            real: None,
            device,
            origin,
            missing: None,
            stuck: false,
            dirty: BTreeSet::from([PathBuf::new()]),
            running: false,
            progress: Arc::default(),
            rate: 0,
            measured: 0,
            skipped: BTreeMap::new(),
            more_skipped: 0,
            coverage: Coverage::default(),
        };
        self.states().insert(id, state);
        self.tell();
        Ok(id)
    }

    /// The wished name, or the folder's, made unique among the shares.
    fn free_name(&self, wish: &str, folder: &Path, origin: Option<Origin>) -> String {
        let states = self.states();
        let is_free = |name: &str| origin.is_none() || !states.values().any(|state| state.is_share_named(name));
        if is_free(wish) {
            return wish.to_owned();
        }
        let base = share_name(folder);
        let numbered = (2u32..).map(|number| format!("{base} ({number})"));
        std::iter::once(base.clone()).chain(numbered).find(|name| is_free(name)).unwrap_or(base)
    }

    /// Takes a folder out of the list and its files out of the catalog. Its records stay.
    pub(super) fn forget(&self, id: u32) {
        let Some(state) = self.states().remove(&id) else { return };
        if let Some(real) = &state.real {
            let others: Vec<_> = self.states().values().filter_map(|other| other.real.clone()).collect();
            self.watch.leave(real, &others);
        }
        if state.origin.is_some() {
            self.apply(vec![Change::RemoveFolder(state.name)]);
        }
        self.tell();
    }

    /// Removes from a restored catalog what belongs to no share any more.
    fn drop_unknown_names(&self) {
        let listed = self.working().share_names();
        let unknown = {
            let states = self.states();
            let known = |name: &String| states.values().any(|state| state.is_share_named(name));
            listed.into_iter().filter(|name| !known(name)).map(Change::RemoveFolder).collect()
        };
        self.apply(unknown);
    }
}

/// A path that does not depend on the working folder. Links stay: the user knows it by this name.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Without a final separator.
    path.components().collect()
}

/// The last component of a folder's path.
fn share_name(folder: &Path) -> String {
    folder.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned())
}

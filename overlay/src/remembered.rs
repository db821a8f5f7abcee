//! Other nodes on disk: the file `ultrapeers` of the data folder, one descriptor a line in base64, in the order of their use;
//! and the file `volunteers`, one key and address a line, of leaves that would be ultrapeers.
//!
//! They are hints: each is checked when it is read, and a line that is none is skipped. The files are written
//! whole or not at all, and only when they change.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    folders::{PRIVATE_FILE, write_atomically},
    id::PeerId,
    limits,
    wire::{descriptor::SignedDescriptor, hello::Contact},
};
use data_encoding::BASE64;

/// The file and what it holds.
#[derive(Clone, Debug)]
pub struct Remembered {
    path: PathBuf,
    own: PeerId,
    text: String,
}

impl Remembered {
    /// Reads the file of a data folder; absent is empty, and what cannot be read is said and forgotten.
    pub fn load(data_dir: &Path, own: PeerId) -> (Self, Vec<SignedDescriptor>) {
        let path = data_dir.join("ultrapeers");
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                tracing::warn!(%error, "the remembered ultrapeers cannot be read");
                String::new()
            }
        };
        let descriptors = text.lines().filter_map(decode).take(limits::REMEMBERED_ULTRAPEERS).collect();
        (Self { path, own, text }, descriptors)
    }

    /// Keeps the descriptors, if they are others than before; none are no reason to forget. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub fn store(&mut self, descriptors: &[SignedDescriptor]) -> io::Result<()> {
        let others = descriptors.iter().filter(|signed| signed.open().is_ok_and(|other| other.peer != self.own));
        let text: String = others.filter_map(encode).collect();
        if text.is_empty() || text == self.text {
            return Ok(());
        }
        write_atomically(&self.path, text.as_bytes(), PRIVATE_FILE)?;
        self.text = text;
        Ok(())
    }
}

/// The file of leaves that would be ultrapeers.
#[derive(Clone, Debug)]
pub struct Volunteers {
    path: PathBuf,
    text: String,
}

impl Volunteers {
    /// Reads the file of a data folder; absent is empty, and what cannot be read is said and forgotten.
    pub fn load(data_dir: &Path) -> (Self, Vec<Contact>) {
        let path = data_dir.join("volunteers");
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                tracing::warn!(%error, "the remembered volunteers cannot be read");
                String::new()
            }
        };
        let contact = |line: &str| {
            let (peer, address) = line.split_once(' ')?;
            Some(Contact { peer: peer.parse().ok()?, address: address.parse().ok()? })
        };
        let contacts = text.lines().filter_map(contact).take(limits::VOLUNTEERS_KEPT).collect();
        (Self { path, text }, contacts)
    }

    /// Keeps them, if they are others than before; none are no reason to forget. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub fn store(&mut self, contacts: &[Contact]) -> io::Result<()> {
        let line = |contact: &Contact| format!("{} {}\n", contact.peer, contact.address);
        let text: String = contacts.iter().map(line).collect();
        if text.is_empty() || text == self.text {
            return Ok(());
        }
        write_atomically(&self.path, text.as_bytes(), PRIVATE_FILE)?;
        self.text = text;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(limits::CONFIG_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn encode(descriptor: &SignedDescriptor) -> Option<String> {
    Some(BASE64.encode(&postcard::to_stdvec(descriptor).ok()?) + "\n")
}

fn decode(line: &str) -> Option<SignedDescriptor> {
    let descriptor: SignedDescriptor = postcard::from_bytes(&BASE64.decode(line.trim().as_bytes()).ok()?).ok()?;
    descriptor.open().is_ok().then_some(descriptor)
}

#[cfg(test)]
mod tests {
    use crate::{
        identity::Identity,
        wire::descriptor::{Descriptor, ShardPrefix, network_tag},
    };

    use super::*;

    fn signed(seed: u8) -> SignedDescriptor {
        let identity = Identity::from_seed([seed; 32]);
        let descriptor = Descriptor {
            peer: identity.peer_id(),
            network: network_tag("public"),
            address: "192.0.2.1:7780".parse().unwrap(),
            shard: ShardPrefix::ALL,
            capacity: 1,
            sequence: 7,
            lifetime_s: 7200,
            admission: 7,
            volunteer: false,
        };
        descriptor.sign(&identity)
    }

    #[test]
    fn volunteers_that_were_stored_are_read_again_without_rubbish() {
        let folder = tempfile::tempdir().unwrap();
        let contact = |seed: u8, address: &str| Contact {
            peer: Identity::from_seed([seed; 32]).peer_id(),
            address: address.parse().unwrap(),
        };
        let want = [contact(1, "192.0.2.1:7780"), contact(2, "[2001:db8::2]:1")];
        let (mut volunteers, none) = Volunteers::load(folder.path());
        assert!(none.is_empty());
        volunteers.store(&want).unwrap();
        let path = folder.path().join("volunteers");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("rubbish\nkey 192.0.2.1:1\n{text}")).unwrap();
        let (mut again, read) = Volunteers::load(folder.path());
        assert_eq!(read, want);
        again.store(&[]).unwrap();
        assert!(path.metadata().unwrap().len() > 0, "nobody told is no reason to forget");
    }

    #[test]
    fn what_was_stored_is_read_again_without_oneself_and_without_rubbish() {
        let folder = tempfile::tempdir().unwrap();
        let own = Identity::from_seed([1; 32]).peer_id();
        let (mut remembered, none) = Remembered::load(folder.path(), own);
        assert!(none.is_empty());
        let want = [signed(3), signed(2), signed(4)];
        remembered.store(&[&want[..], &[signed(1)]].concat()).unwrap();
        let path = folder.path().join("ultrapeers");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("rubbish\n{text}AAAA\n")).unwrap();
        let (mut again, read) = Remembered::load(folder.path(), own);
        assert_eq!(read, want, "in the order in which they are of use");
        again.store(&[]).unwrap();
        assert!(path.metadata().unwrap().len() > 0, "an empty view is no reason to forget");
    }
}

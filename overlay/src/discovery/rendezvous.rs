//! Under which names the nodes of a network find each other where others can listen.

/// The names of one network. Who does not know the network's name, and its secret if it has one, cannot tell whose they
/// are; but whoever listens can try names and secrets, so a secret must be one that nobody guesses.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendezvous {
    key: [u8; 32],
    is_private: bool,
}

impl std::fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendezvous").field("is_private", &self.is_private).finish_non_exhaustive()
    }
}

impl Rendezvous {
    /// Of the network of that name, and with that secret.
    pub fn new(network: &str, secret: Option<&[u8]>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("quictrack 1 rendezvous");
        hasher.update(&(network.len() as u64).to_le_bytes()).update(network.as_bytes());
        if let Some(secret) = secret {
            hasher.update(b"secret").update(secret);
        }
        Self { key: *hasher.finalize().as_bytes(), is_private: secret.is_some() }
    }

    /// True of a network with a secret: its nodes do not say who they are.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// What nodes of the network show in a local network: 32 hex digits.
    pub fn local_tag(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.name(b"local", 0)[..16])
    }

    /// Where ultrapeers of the network are listed in the public hash table on a day, counted from 1970 in UTC. It is
    /// another place every day, so that nobody can settle beside it for long.
    pub fn info_hash(&self, day: u64) -> [u8; 20] {
        *self.name(b"ultrapeers", day).first_chunk().expect("a hash has 32 bytes")
    }

    fn name(&self, what: &[u8], day: u64) -> [u8; 32] {
        *blake3::Hasher::new_keyed(&self.key).update(&day.to_le_bytes()).update(what).finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_network_secret_and_day() {
        let all = [
            Rendezvous::new("public", None),
            Rendezvous::new("other", None),
            Rendezvous::new("public", Some(b"x")),
            Rendezvous::new("public", Some(b"y")),
            Rendezvous::new("publicsecret", None),
        ];
        let names = |of: &Rendezvous| (of.local_tag(), of.info_hash(1), of.info_hash(2));
        for (place, one) in all.iter().enumerate() {
            assert_ne!(one.info_hash(1), one.info_hash(2));
            for other in &all[place + 1..] {
                let (one, other) = (names(one), names(other));
                assert!(one.0 != other.0 && one.1 != other.1 && one.2 != other.2);
            }
        }
        assert_eq!(names(&all[2]), names(&Rendezvous::new("public", Some(b"x"))));
        assert!(!format!("{:?}", all[2]).contains(&all[2].local_tag()));
    }
}

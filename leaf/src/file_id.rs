//! How identifiers are written in JSON and in names of jobs.

/// Characters of short ids, in the order of their value.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A number as text of `[a-z0-9]{1,13}`.
pub(crate) fn short_id(mut number: u64) -> String {
    let mut digits = Vec::with_capacity(13);
    loop {
        digits.push(ALPHABET[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.reverse();
    digits.into_iter().map(char::from).collect()
}

/// Identifiers in their text form, for serde's `with`.
pub(crate) mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the text form.
    pub(crate) fn serialize<S: Serializer>(id: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    /// Reads the text form.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_short_and_distinct() {
        assert_eq!(short_id(0), "0");
        assert_eq!(short_id(35), "z");
        assert_eq!(short_id(36), "10");
        assert_eq!(short_id(u64::MAX).len(), 13);
    }
}

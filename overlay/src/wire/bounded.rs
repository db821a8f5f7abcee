//! Containers that cannot be decoded beyond their cap.
//!
//! A length on the wire is a claim. Plain `Vec` and `String` would believe it up to the frame's cap;
//! these say in the type what a field may hold, refuse more while decoding, and cut off while encoding
//! (a program error that must not become a refused frame at the other end).

use std::{fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

/// At most `N` elements. Elements must not be zero-sized: a claim of 2^32 of them would cost nothing to
/// send and much to read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List<T, const N: usize>(Vec<T>);

impl<T, const N: usize> List<T, N> {
    /// The first `N` of `items`.
    pub fn new(items: impl IntoIterator<Item = T>) -> Self {
        const { assert!(size_of::<T>() > 0, "elements on the wire have a size") };
        Self(items.into_iter().take(N).collect())
    }

    /// Adds an element if it fits.
    pub fn push(&mut self, item: T) {
        if self.0.len() < N {
            self.0.push(item);
        }
    }

    /// The elements.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> IntoIterator for List<T, N> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Serialize, const N: usize> Serialize for List<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = List<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(N).min(64));
                while let Some(item) = seq.next_element()? {
                    if items.len() == N {
                        return Err(A::Error::custom("too many elements"));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }

        deserializer.deserialize_seq(Elements(std::marker::PhantomData))
    }
}

/// Text of at most `N` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const N: usize>(Box<str>);

impl<const N: usize> Text<N> {
    /// As much of `text` as fits, cut between characters.
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].into())
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const N: usize> Serialize for Text<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Characters<const N: usize>;

        impl<const N: usize> Visitor<'_> for Characters<N> {
            type Value = Text<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} bytes of text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                if text.len() > N { Err(E::custom("text too long")) } else { Ok(Text(text.into())) }
            }
        }

        deserializer.deserialize_str(Characters)
    }
}

/// At most `N` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob<const N: usize>(Vec<u8>);

impl<const N: usize> Blob<N> {
    /// `bytes`, or `None` if they are too many: cutting bytes off would change their meaning.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() <= N).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const N: usize> Deref for Blob<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Blob<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const N: usize> Serialize for Blob<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Blob<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<const N: usize>;

        impl<const N: usize> Visitor<'_> for Bytes<N> {
            type Value = Blob<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                if bytes.len() > N { Err(E::custom("too many bytes")) } else { Ok(Blob(bytes.to_vec())) }
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode<T: Serialize>(value: &T) -> Vec<u8> {
        postcard::to_allocvec(value).expect("encodes")
    }

    #[test]
    fn what_fits_round_trips() {
        let list = List::<u32, 3>::new([1, 2, 3]);
        assert_eq!(postcard::from_bytes::<List<u32, 3>>(&encode(&list)), Ok(list));
        let text = Text::<4>::new("añb");
        assert_eq!(postcard::from_bytes::<Text<4>>(&encode(&text)), Ok(text));
        let blob = Blob::<2>::new(vec![1, 2]).expect("fits");
        assert_eq!(postcard::from_bytes::<Blob<2>>(&encode(&blob)), Ok(blob));
    }

    #[test]
    fn what_is_too_long_is_refused_by_the_reader_and_cut_by_the_writer() {
        assert!(postcard::from_bytes::<List<u32, 2>>(&encode(&vec![1_u32, 2, 3])).is_err());
        assert!(postcard::from_bytes::<Text<2>>(&encode(&"abc")).is_err());
        assert!(postcard::from_bytes::<Blob<2>>(&encode(&vec![1_u8, 2, 3])).is_err());
        assert_eq!(&*List::<u32, 2>::new([1, 2, 3]), &[1, 2]);
        assert_eq!(&*Text::<2>::new("añ"), "a");
        assert_eq!(Blob::<2>::new(vec![1, 2, 3]), None);
    }

    #[test]
    fn a_claim_of_four_billion_elements_allocates_nothing() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(postcard::from_bytes::<List<u64, 100>>(&claim).is_err());
        assert!(postcard::from_bytes::<Text<100>>(&claim).is_err());
        assert!(postcard::from_bytes::<Blob<100>>(&claim).is_err());
    }
}

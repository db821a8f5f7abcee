//! Whom a leaf's homes take for an ultrapeer, and whether they agree.
//!
//! A search is complete only if its coordinator knows everybody. Nobody can tell that alone, but the leaf has several
//! homes: if more than 2 % of all that they know are known to one of them only, something is wrong. Their views come as
//! numbers; a sketch of 512 bytes comes along when the number is another than that of the sketch that the leaf has.

use overlay::{
    membership::{Sketch, differing_share},
    wire::leaf::View,
};

/// The share of all members by which two views may differ: news takes its time.
const TOLERANCE: f64 = 0.02;

/// What a home says of its view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Ultrapeers in it.
    total: u32,
    /// The view in one number.
    number: u64,
    /// `None` if the home gave none: to a leaf that searches more often than it may.
    sketch: Option<Sketch>,
}

/// The newest sketch, so that it is not sent with each answer.
#[derive(Clone, Debug, Default)]
pub struct Views {
    last: Option<(u64, Sketch)>,
}

impl Views {
    /// The number of the view whose sketch is here.
    pub fn known(&self) -> Option<u64> {
        self.last.as_ref().map(|(number, _)| *number)
    }

    /// Takes what a home says.
    pub fn take(&mut self, view: &View) -> Seen {
        let sent = view.sketch.as_ref().and_then(|bytes| (&**bytes).try_into().ok()).map(Sketch::from_bytes);
        if let Some(sketch) = &sent {
            self.last = Some((view.view, sketch.clone()));
        }
        let kept = || self.last.as_ref().filter(|(number, _)| *number == view.view).map(|(_, sketch)| sketch.clone());
        Seen { total: view.total, number: view.view, sketch: sent.or_else(kept) }
    }
}

/// True if some two of them differ by more than 2 % of all members of both.
pub fn differ<'a>(views: impl IntoIterator<Item = &'a Seen>) -> bool {
    let views: Vec<_> = views.into_iter().collect();
    views.iter().enumerate().any(|(index, one)| views[index + 1..].iter().any(|other| are_apart(one, other)))
}

fn are_apart(one: &Seen, other: &Seen) -> bool {
    if one.number == other.number {
        return false;
    }
    match (&one.sketch, &other.sketch) {
        (Some(a), Some(b)) => differing_share((a, one.total), (b, other.total)) > TOLERANCE,
        // That they are the same cannot be said.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use overlay::{id::PeerId, wire::bounded::Blob};

    use super::*;

    /// What a home says whose view holds these members.
    fn view(members: std::ops::Range<u32>, with_sketch: bool) -> View {
        let (mut sketch, mut number, total) = (Sketch::default(), 0, members.len() as u32);
        for member in members {
            let key = PeerId(*blake3::hash(&member.to_le_bytes()).as_bytes());
            sketch.toggle(&key);
            number ^= u64::from_le_bytes(*key.0.first_chunk().expect("a key has 32 bytes"));
        }
        let sketch = with_sketch.then(|| sketch.to_bytes().to_vec()).and_then(Blob::new);
        View { token: 1, total, view: number, sketch }
    }

    #[test]
    fn views_are_apart_where_more_than_a_fiftieth_of_the_members_differ() {
        let apart = |one, other| {
            let mut views = Views::default();
            differ(&[views.take(&view(one, true)), views.take(&view(other, true))])
        };
        assert!(!apart(0..500, 0..500));
        assert!(!apart(0..500, 0..497), "news is on its way");
        assert!(apart(0..500, 0..450));
        assert!(apart(0..500, 250..750), "as many, but others");
        assert!(apart(0..9, 0..8), "of few, one is much");
    }

    #[test]
    fn a_sketch_is_needed_once_for_each_view() {
        let mut views = Views::default();
        assert_eq!(views.known(), None);
        let first = views.take(&view(0..100, true));
        assert_eq!(views.known(), Some(first.number));
        let other = views.take(&view(1..100, true));
        assert_eq!(views.take(&view(1..100, false)), other);
        assert!(!differ(&[other, views.take(&view(1..100, false))]));
        // Without a sketch nobody can say that it is the same.
        assert!(differ(&[first, views.take(&view(0..99, false))]));
    }
}

//! Whom a leaf's homes take for an ultrapeer, and whether they agree.
//!
//! A search is complete only if its coordinator knows everybody. Nobody can tell that alone, but the leaf has several
//! homes: if more than 2 % of all that they know are known to one of them only, something is wrong. Their views come as
//! numbers; a sketch of 512 bytes comes along when the number is another than the leaf has seen.

use overlay::wire::leaf::View;

/// What a home says of its view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Ultrapeers in it.
    total: u32,
    /// The view in one number.
    number: u64,
}

/// The view that was seen last with its sketch.
#[derive(Clone, Debug, Default)]
pub struct Views {
    last: Option<Seen>,
}

impl Views {
    /// The number of the view whose sketch is here.
    pub fn known(&self) -> Option<u64> {
        self.last.as_ref().map(|seen| seen.number)
    }

    /// Takes what a home says.
    pub fn take(&mut self, view: &View) -> Seen {
        let seen = Seen { total: view.total, number: view.view };
        self.last = Some(seen.clone());
        seen
    }
}

/// True if some two of them differ by more than 2 % of all members of both.
pub fn differ<'a>(views: impl IntoIterator<Item = &'a Seen>) -> bool {
    let views: Vec<_> = views.into_iter().collect();
    views.iter().enumerate().any(|(index, one)| views[index + 1..].iter().any(|other| are_apart(one, other)))
}

fn are_apart(one: &Seen, other: &Seen) -> bool {
    one.number != other.number
        && (one.total.abs_diff(other.total) * 50 > one.total.max(other.total) || one.total == other.total)
}

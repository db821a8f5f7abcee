//! Lists in pages: `?limit=&cursor=` -> `{"items":[...],"next":null}`.
//!
//! A cursor is the sort key of the last item given out, so it stays right while items come and go: what
//! was there all the time is seen exactly once. It is opaque to clients (base64 of the key as JSON), and a
//! wrong one is refused, never guessed.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{admin::error::ApiError, limits};

/// The query string of a list without parameters of its own. Other lists have these two fields as well.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ListQuery {
    /// Items wanted, 1 to [`limits::LIST_LIMIT_MAX`]; [`limits::LIST_LIMIT`] if absent.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

impl ListQuery {
    /// The page of `entries` that is asked for, in ascending order of the keys, which must be distinct.
    /// `render` is called for the items of the page only. For a descending list wrap the keys in
    /// [`std::cmp::Reverse`].
    ///
    /// Fails with `bad_request` if limit or cursor are malformed.
    pub fn page<K, V, T>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        render: impl FnMut(V) -> T,
    ) -> Result<Page<T>, ApiError>
    where
        K: Ord + Serialize + DeserializeOwned,
    {
        let limit = self.checked_limit()?;
        let after: Option<K> = self.cursor.as_deref().map(decode_cursor).transpose()?;
        let mut rest: Vec<(K, V)> =
            entries.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).collect();
        rest.sort_by(|a, b| a.0.cmp(&b.0));
        let next = if rest.len() > limit {
            rest.truncate(limit);
            rest.last().map(|(key, _)| encode_cursor(key)).transpose()?
        } else {
            None
        };
        Ok(Page { items: rest.into_iter().map(|(_, value)| value).map(render).collect(), next })
    }

    /// The page of a list that has no key but its order, such as the lines of a log: the key is the index.
    pub fn page_by_index<V, T>(
        &self,
        entries: impl IntoIterator<Item = V>,
        render: impl FnMut(V) -> T,
    ) -> Result<Page<T>, ApiError> {
        self.page((0_u64..).zip(entries), render)
    }

    fn checked_limit(&self) -> Result<usize, ApiError> {
        let limit = self.limit.unwrap_or(limits::LIST_LIMIT);
        if (1..=limits::LIST_LIMIT_MAX).contains(&limit) {
            return Ok(limit);
        }
        Err(ApiError::bad_request(format!("limit must be 1 to {}, not {limit}", limits::LIST_LIMIT_MAX))
            .hint("follow `next` to read more"))
    }
}

fn encode_cursor<K: Serialize>(key: &K) -> Result<String, ApiError> {
    let json = serde_json::to_vec(key).map_err(ApiError::internal)?;
    Ok(BASE64URL_NOPAD.encode(&json))
}

fn decode_cursor<K: DeserializeOwned>(cursor: &str) -> Result<K, ApiError> {
    let json = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| ApiError::bad_request("unknown cursor").hint("start again without a cursor"))
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BTreeMap};

    use proptest::prelude::*;

    use super::*;
    use crate::admin::error::Code;

    fn query(limit: usize, cursor: Option<String>) -> ListQuery {
        ListQuery { limit: Some(limit), cursor }
    }

    proptest! {
        #[test]
        fn pages_join_to_the_list(map in prop::collection::btree_map(".{0,4}", any::<u32>(), 0..50), limit in 1_usize..9) {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let page = query(limit, cursor).page(map.clone(), |value| value).unwrap_or_else(|_| unreachable!());
                prop_assert!(page.items.len() <= limit);
                seen.extend(page.items);
                cursor = page.next;
                if cursor.is_none() { break }
            }
            prop_assert_eq!(seen, map.into_values().collect::<Vec<_>>());
        }

        #[test]
        fn a_made_up_cursor_is_read_or_refused(cursor in ".{0,40}") {
            if let Err(error) = query(1, Some(cursor)).page([(1_u64, ())], |()| ()) {
                prop_assert_eq!(error.code, Code::BadRequest);
            }
        }
    }

    #[test]
    fn cursors_survive_changes_between_pages() {
        let mut map: BTreeMap<u32, u32> = (0..10).map(|n| (n, n)).collect();
        let first = query(4, None).page(map.clone(), |n| n).unwrap();
        map.remove(&3);
        map.insert(100, 100);
        let second = query(100, first.next).page(map, |n| n).unwrap();
        assert_eq!(second, Page { items: vec![4, 5, 6, 7, 8, 9, 100], next: None });
    }

    #[test]
    fn reversed_keys_list_the_newest_first() {
        let entries = || (0..5_u64).map(|n| (Reverse(n), n));
        let first = query(2, None).page(entries(), |n| n).unwrap();
        assert_eq!(first.items, [4, 3]);
        assert_eq!(query(2, first.next).page(entries(), |n| n).unwrap().items, [2, 1]);
    }

    #[test]
    fn limits_and_cursors_are_checked() {
        for bad in [query(0, None), query(1001, None), query(5, Some("!".into())), query(5, Some("e30".into()))] {
            assert_eq!(bad.page([(1_u64, ())], |()| ()).unwrap_err().code, Code::BadRequest, "{bad:?}");
        }
        let all = ListQuery::default().page_by_index(0..101, |n| n).unwrap();
        assert_eq!(all.items.len(), limits::LIST_LIMIT);
        assert!(all.next.is_some());
    }
}

//! Compiled modules by digest, so that many policies of one module compile it once and staging an
//! unchanged module again costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A module's SHA-256.
pub(crate) type Digest = [u8; 32];

/// Keeps at most `capacity` values, dropping the least recently used. What a policy set still uses
/// lives on in the set.
pub(crate) struct Cache<T> {
    capacity: usize,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    uses: u64,
    entries: BTreeMap<Digest, (u64, Arc<T>)>,
}

impl<T> Cache<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, inner: Mutex::new(Inner { uses: 0, entries: BTreeMap::new() }) }
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<T>> {
        let mut inner = self.lock();
        inner.uses = inner.uses.saturating_add(1);
        let now = inner.uses;
        let (used, value) = inner.entries.get_mut(digest)?;
        *used = now;
        Some(Arc::clone(value))
    }

    pub(crate) fn insert(&self, digest: Digest, value: Arc<T>) {
        let mut inner = self.lock();
        inner.uses = inner.uses.saturating_add(1);
        let now = inner.uses;
        inner.entries.insert(digest, (now, value));
        if inner.entries.len() > self.capacity {
            let oldest = inner.entries.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(digest) = oldest.map(|(digest, _)| *digest) {
                inner.entries.remove(&digest);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_what_was_used_longest_ago() {
        let cache = Cache::new(2);
        cache.insert([1; 32], Arc::new(1));
        cache.insert([2; 32], Arc::new(2));
        assert_eq!(cache.get(&[1; 32]).as_deref(), Some(&1));
        cache.insert([3; 32], Arc::new(3));
        assert_eq!(cache.get(&[2; 32]), None);
        assert_eq!(cache.get(&[1; 32]).as_deref(), Some(&1));
        assert_eq!(cache.get(&[3; 32]).as_deref(), Some(&3));
    }
}

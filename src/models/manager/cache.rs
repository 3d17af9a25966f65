//! The answers of late, for when there are no new ones.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write},
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::models::{Completion, FinishReason, ModelRequest, Usage};

/// Texts longer than this, in bytes, are not kept: far above what most answers have, and so small
/// that even a cache of a thousand takes no more than some 64 MiB.
const LONGEST: usize = 64 * 1024;

/// The answers to the requests of late, as many as it was given room for. The one that was used
/// least lately makes way.
pub(super) struct Cache {
    room: usize,
    hashers: [RandomState; 2],
    entries: Mutex<Entries>,
}

/// A request by its content. At 128 bits, with hashers that nobody outside knows, two requests don't
/// meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u64; 2]);

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, (u64, Arc<Cached>)>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
}

/// An answer, and who gave it.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) completion: Completion,
    pub(super) model: Arc<str>,
    pub(super) provider: Arc<str>,
}

impl Cache {
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            hashers: Default::default(),
            entries: Mutex::default(),
        }
    }

    /// The key of a request to `model`.
    pub(super) fn key(&self, model: &str, request: &ModelRequest) -> Key {
        let mut text = Text(self.hashers.each_ref().map(BuildHasher::build_hasher));
        // `Debug` shows every field, those that are yet to come included.
        write!(text, "{model:?} {request:?}").expect("hashing doesn't fail");
        Key(text.0.map(|hasher| hasher.finish()))
    }

    pub(super) fn get(&self, key: Key) -> Option<Arc<Cached>> {
        let mut entries = self.lock();
        let cached = entries.by_key.get(&key)?.1.clone();
        entries.put(key, cached.clone());
        Some(cached)
    }

    /// Keeps an answer that is worth it: a whole one, of text alone. Given again, it costs nothing.
    pub(super) fn put(&self, key: Key, mut answer: Cached) {
        answer.completion.usage = Usage::default();
        let completion = &answer.completion;
        let length = completion.text.len() + completion.reasoning.as_ref().map_or(0, String::len);
        let whole = completion.finish_reason == FinishReason::Stop
            && completion.tool_calls.is_empty()
            && !completion.text.is_empty();
        if !whole || length > LONGEST {
            return;
        }
        let mut entries = self.lock();
        entries.put(key, Arc::new(answer));
        while entries.by_key.len() > self.room {
            let Some((_, oldest)) = entries.by_use.pop_first() else {
                break;
            };
            entries.by_key.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // What a panic could interrupt leaves at worst an entry that is never found.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn put(&mut self, key: Key, answer: Arc<Cached>) {
        self.uses += 1;
        if let Some((before, _)) = self.by_key.insert(key, (self.uses, answer)) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.uses, key);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

/// Hashes what is written.
struct Text<H>([H; 2]);

impl<H: Hasher> Write for Text<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for hasher in &mut self.0 {
            hasher.write(text.as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: impl Into<String>) -> Cached {
        Cached {
            completion: Completion::new(text),
            model: "m".into(),
            provider: "p".into(),
        }
    }

    #[test]
    fn f6_the_answer_that_was_used_least_lately_makes_way() {
        let cache = Cache::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|text| cache.key("m", &ModelRequest::prompt(text)));
        cache.put(a, answer("a"));
        cache.put(b, answer("b"));
        assert_eq!(cache.get(a).unwrap().completion.text, "a");
        cache.put(c, answer("c"));
        assert!(cache.get(b).is_none());
        assert_eq!(cache.get(a).unwrap().completion.text, "a");
        assert_eq!(cache.get(c).unwrap().completion.text, "c");
        cache.put(a, answer("newer"));
        assert_eq!(cache.get(a).unwrap().completion.text, "newer");
        assert_eq!(cache.lock().by_use.len(), 2);
    }

    #[test]
    fn f6_requests_are_the_same_if_all_of_their_content_is() {
        let cache = Cache::new(2);
        let request = ModelRequest::prompt("a");
        let key = cache.key("m", &request);
        assert_eq!(cache.key("m", &request.clone()), key);
        assert_ne!(cache.key("n", &request), key);
        assert_ne!(cache.key("m", &request.clone().temperature(0.5)), key);
        assert_ne!(cache.key("m", &request.system("b")), key);
    }

    #[test]
    fn f6_half_an_answer_and_a_huge_one_are_not_kept() {
        let cache = Cache::new(2);
        let key = cache.key("m", &ModelRequest::prompt("a"));
        let mut half = answer("half");
        half.completion.finish_reason = FinishReason::Length;
        cache.put(key, half);
        cache.put(key, answer("x".repeat(LONGEST + 1)));
        cache.put(key, answer(""));
        assert!(cache.get(key).is_none());
    }
}

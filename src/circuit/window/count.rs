//! The window of the last so many settled calls.
//!
//! It slides with every call: a ring holds one bit per call, and what enters it pushes out what
//! entered it N calls before. It never takes the
//! circuit's lock, and what it costs does not depend on N. A window looks at
//! one rate: a call that settled was *bad* (failed, or was slow) or it was good.
//!
//! # How it works
//!
//! Everything that decides is in one word, the *head*:
//!
//! | tag | position | bad | last | full |
//! |---|---|---|---|---|
//! | the other bits | where the next call goes, below N | bad calls in the window | the call before the position was bad | the ring has gone round |
//!
//! A call is counted by the one compare-and-swap that moves the head from a state to its successor.
//! That is its linearization point, so the head's history *is* the order of the calls, and each
//! call learns what the window held right after itself.
//!
//! The ring can't be written in that same instant, so it lags behind by the one bit that the head
//! remembers as `last`. The rule: **nobody moves the head before that bit is in the ring.** Whoever
//! finds it missing, because its owner was interrupted, writes it for the owner. So the window never
//! waits for anybody, and the bit at the position, which is about to be pushed out, is always the
//! one from the round before.
//!
//! A good call in a full window without a bad one changes nothing at all, so it stores nothing: it
//! is counted where it reads the head. (All bits of that window are alike; it makes no difference
//! where in the ring it stands.)
//!
//! [`clear`](CountWindow::clear) is one such move as well, to an empty window with a new tag. The
//! ring keeps its old bits, which are not read again before they have been written over.
//!
//! # Why a late writer does no harm
//!
//! Let a thread have read a head *h*, and be held up for as long as you like.
//!
//! - *Its move of the head* succeeds only while the head is *h*. What it computed from the ring was
//!   right for *h*, because the bit at the position of *h* is written only after the head has left *h*.
//! - *Its write to the ring*, for itself or for another, changes one word of the ring from a value
//!   *w* that it had read while the head was *h*, and in which the bit was still missing. The head
//!   can't leave *h* before the bit is there, that is, before the word has changed from *w*. So
//!   either the write succeeds while the head is still *h*, or the word has changed and the write
//!   fails; and when it fails, the bit has been written, because nothing else writes to the ring
//!   while the head is *h*.
//!
//! That *w* had been read while the head was *h* takes a proof: [`CountWindow::write_for_owner`] reads
//! the head once more, and an owner's own write uses the word that it had read before its move of
//! the head succeeded.
//!
//! Both points rest on a word never coming back to an earlier value meanwhile (ABA), which is what
//! the tags are for:
//!
//! - The head's tag grows by one each time the ring has gone round, and each time the window is
//!   cleared. It has all the bits that N leaves over: 48 of them with N = 100, 42 with 1,000, 21
//!   with 2^20. A head comes back after 2^tag of these at the earliest. Those are 2^41 calls or more
//!   with any N: at 5 ns each, 3 hours (4 years with N = 100); or as many clearings, two million
//!   with the largest N.
//! - A word of the ring carries 48 bits that grow by one with every change, so it comes back after
//!   2^48 changes: 16 days at 5 ns each.
//!
//! So the window is exact unless a thread stops for so long between two neighbouring instructions of
//! `record`, and then goes on when the count is an exact multiple of those periods and the rest of
//! the word is the same too.
//!
//! # Generations
//!
//! [`record`](CountWindow::record) asks whether its call is still current *after* it has read the head
//! that it will move. A circuit that changes its generation first and clears the window then can rely
//! on this: who has read a head from after the clearing (acquire) sees the new generation and leaves
//! the window alone; who has read an earlier one comes too late with its move, or moved it before the
//! clearing, which then swept its call away. Calls of the *new* generation that settle before
//! `clear` are swept away too, and see what the window held before: the circuit must not let any of
//! them settle until `clear` is done.

use crate::circuit::sync::{AtomicU64, Ordering};

/// The largest window: beyond it too few bits would be left for the head's tag.
pub(crate) const MAX_SIZE: u32 = 1 << 20;

/// Outcomes in a word of the ring; its other 48 bits count its changes. With 32 outcomes the ring
/// would be half as large, but a word could come back after 2^32 changes: 20 seconds. (Two under
/// loom, so that the smallest rings have a second word.)
const OUTCOMES: u32 = if cfg!(tower_breaker_loom) { 2 } else { 16 };

const FULL: u64 = 1;
const LAST: u64 = 1 << LAST_SHIFT;
const LAST_SHIFT: u32 = 1;
const BAD_SHIFT: u32 = 2;

/// What a window holds. `bad <= settled <= size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bad: u64,
    pub(crate) settled: u64,
}

/// What became of a settled call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It was counted, and the window held this right after it.
    Kept(Held),
    /// It was of an earlier generation; nothing was counted.
    Late,
}

#[derive(Debug)]
pub(crate) struct CountWindow {
    head: AtomicU64,
    /// The call at `position` is bit `position % OUTCOMES` of word `position / OUTCOMES`.
    ring: Box<[AtomicU64]>,
    size: u32,
    /// Where the position begins in the head; the tag follows it.
    shift: u32,
    position_mask: u64,
    /// `FULL` and the bits of `bad`: together they tell a clean window.
    clean_mask: u64,
    /// What takes a head at the last position to position 0 of the next tag.
    wrap: u64,
}

impl CountWindow {
    /// # Panics
    ///
    /// If `size` is 0 or above [`MAX_SIZE`].
    pub(crate) fn new(size: u32) -> Self {
        assert!(
            (1..=MAX_SIZE).contains(&size),
            "a count window holds 1 to {MAX_SIZE} calls"
        );
        // `bad` goes up to `size`, the position up to `size - 1`.
        let bad_bits = u32::BITS - size.leading_zeros();
        let position_bits = u32::BITS - (size - 1).leading_zeros();
        let shift = BAD_SHIFT + bad_bits;
        Self {
            head: AtomicU64::new(0),
            ring: (0..size.div_ceil(OUTCOMES))
                .map(|_| AtomicU64::new(0))
                .collect(),
            size,
            shift,
            position_mask: (1 << position_bits) - 1,
            clean_mask: ((1 << bad_bits) - 1) << BAD_SHIFT | FULL,
            wrap: ((1 << position_bits) - u64::from(size) + 1) << shift,
        }
    }

    /// Counts a settled call, unless `current` says that it has become too late for it.
    ///
    /// What it returns is what the window held at the very point where the call entered it. When
    /// the generation changes just then, that may be a window that is about to be cleared: whoever
    /// acts on the figures must make sure of the generation once more.
    ///
    /// Lock-free: it starts again only where another call was counted meanwhile. `current` is
    /// asked once per start.
    #[inline]
    pub(crate) fn record(&self, bad: bool, current: impl Fn() -> bool) -> Recorded {
        match self.enter(bad, current) {
            Some(head) => Recorded::Kept(self.held(head)),
            None => Recorded::Late,
        }
    }

    /// What the window holds now.
    pub(crate) fn counts(&self) -> Held {
        // Acquire: who has been told of a call by its thread sees it here; the head says it all.
        self.held(self.head.load(Ordering::Acquire))
    }

    /// Empties the window, of all calls that entered it before, of whichever generation.
    ///
    /// The generation must have changed before, and calls of the new one must not settle until this
    /// returns. Calls of earlier ones may: each was counted before, or finds that it is too late.
    pub(crate) fn clear(&self) {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            // Else a helper that had stopped could write its bit into the next round.
            self.finish(head);
            // Carries into the tag: a new one even if the window is empty, because a call may be
            // about to enter it. All else is 0.
            let cleared = ((head >> self.shift) | self.position_mask).wrapping_add(1) << self.shift;
            match self.move_head(head, cleared) {
                Ok(_) => return,
                Err(moved) => head = moved,
            }
        }
    }

    /// Counts a call and returns the head right after it.
    #[inline]
    fn enter(&self, bad: bool, current: impl Fn() -> bool) -> Option<u64> {
        // Acquire, here and where a move of the head fails: what was done before the head became
        // this (the change of the generation, the writes to the ring) is seen after it.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if !current() {
                return None;
            }
            if !bad && head & self.clean_mask == FULL {
                return Some(head);
            }
            self.finish(head);

            let position = self.position(head);
            let (slot, mask) = self.slot(position);
            // Relaxed: if it is of a later head, moving this one fails; it can't be of an earlier
            // round, because that round's write happened before this head.
            let word = slot.load(Ordering::Relaxed);
            let stored = word & mask != 0;
            let pushed_out = stored && head & FULL != 0;

            let step = if position + 1 == self.size {
                self.wrap
            } else {
                1 << self.shift
            };
            let full = u64::from(position + 1 == self.size);
            let next = (head & !LAST)
                .wrapping_add(step)
                .wrapping_add(u64::from(bad) << BAD_SHIFT)
                .wrapping_sub(u64::from(pushed_out) << BAD_SHIFT)
                | u64::from(bad) << LAST_SHIFT
                | full;
            match self.move_head(head, next) {
                Ok(_) => {
                    if stored != bad {
                        write(slot, word, mask);
                    }
                    return Some(next);
                }
                Err(moved) => head = moved,
            }
        }
    }

    /// Makes sure that the last call before `head` is in the ring, as everybody must before moving
    /// the head. (If the head is no longer `head`, that move fails, and nothing is promised.)
    #[inline]
    fn finish(&self, head: u64) {
        let position = self.position(head);
        let last = match position.checked_sub(1) {
            Some(last) => last,
            None if head & FULL != 0 => self.size - 1,
            // Nothing has entered it since it was made or cleared.
            None => return,
        };
        let (slot, mask) = self.slot(last);
        // Acquire: if a later head's owner or helper wrote this word, that head is seen too.
        let word = slot.load(Ordering::Acquire);
        if (word & mask != 0) != (head & LAST != 0) {
            self.write_for_owner(head, slot, word, mask);
        }
    }

    /// The owner of the last call has been interrupted, or is about to write it this moment.
    #[cold]
    fn write_for_owner(&self, head: u64, slot: &AtomicU64, word: u64, mask: u64) {
        // Relaxed: `word` was read with acquire, so this can't be older than a head that `word` had
        // been written under. Still the same head: then `word` is no later than that head either.
        if self.head.load(Ordering::Relaxed) == head {
            write(slot, word, mask);
        }
    }

    #[inline]
    fn move_head(&self, head: u64, next: u64) -> Result<u64, u64> {
        // Release: who reads this head also sees the ring as it was found complete. Weak: a failure
        // without cause only costs another try.
        self.head
            .compare_exchange_weak(head, next, Ordering::Release, Ordering::Acquire)
    }

    #[inline]
    fn held(&self, head: u64) -> Held {
        let settled = if head & FULL != 0 {
            self.size
        } else {
            self.position(head)
        };
        Held {
            bad: (head & self.clean_mask) >> BAD_SHIFT,
            settled: settled.into(),
        }
    }

    #[inline]
    fn position(&self, head: u64) -> u32 {
        ((head >> self.shift) & self.position_mask) as u32
    }

    /// The word of the ring for a position, and its bit there.
    #[inline]
    fn slot(&self, position: u32) -> (&AtomicU64, u64) {
        let word = &self.ring[(position / OUTCOMES) as usize];
        (word, 1 << (position % OUTCOMES))
    }
}

/// Turns a bit of `word` over, unless the word has changed: then somebody else has done it. For that
/// reason not the weak exchange, which may fail without cause.
#[inline]
fn write(slot: &AtomicU64, word: u64, mask: u64) {
    let changed = (word ^ mask).wrapping_add(1 << OUTCOMES);
    // Release: see `finish`. The failure tells nothing but that the word has changed; that whoever
    // reads the next head sees that change as well follows from having read it here (coherence).
    let _ = slot.compare_exchange(word, changed, Ordering::Release, Ordering::Relaxed);
}

#[cfg(all(test, tower_breaker_loom))]
mod loom_tests;
#[cfg(all(test, not(tower_breaker_loom)))]
mod tests;

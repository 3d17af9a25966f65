//! The window of the last so many settled calls.
//!
//! It slides with every call: a ring holds one bit per call, and what enters it pushes out what
//! entered it N calls before. It never takes the circuit's lock, and what it costs does not grow
//! with the calls. A window looks at one rate: a call that settled was *bad* (failed, or was slow)
//! or it was good.
//!
//! # How it works
//!
//! Everything that decides is in one word, the *head*:
//!
//! | tag | position | recent | bad | full |
//! |---|---|---|---|---|
//! | the other bits | where the next call goes, below N | a bit for each of the last calls | bad calls in the window | the ring has gone round |
//!
//! A call is counted by the one compare-and-swap that moves the head from a state to its successor.
//! That is its linearization point, so the head's history *is* the order of the calls, and each
//! call learns what the window held right after itself.
//!
//! The ring can't be written in that same instant. It is written in *chunks* of up to eight calls,
//! which the head collects in `recent` (each call writes over the one of the chunk before). A head
//! at the beginning of a chunk holds the whole chunk before it, and that chunk may be missing in
//! the ring. The rule: **nobody moves such a head before the chunk is in the ring.** The call that
//! completed the chunk writes it at once; whoever finds it missing, because that call was
//! interrupted, writes it in its place. So the window never waits for anybody, and the ring's bit
//! at the position, which is about to be pushed out, is always the one from the round before.
//!
//! A good call in a full window without a bad one changes nothing at all, so it stores nothing: it
//! is counted where it reads the head. (All calls of that window are alike; it makes no difference
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
//!   right for *h*, because the chunk at the position of *h* is written only after the head has
//!   left *h*.
//! - *Its write to the ring* belongs to a head *h* at the beginning of a chunk, be it the head that
//!   the thread made or one that it is about to move. It changes one word of the ring from a value
//!   *w* that is no later than *h*, and in which the chunk before *h* is still missing. The head
//!   can't leave *h* before that chunk is there, that is, before the word has changed from *w*. So
//!   either the write succeeds while the head is still *h*, or the word has changed and the write
//!   fails; and when it fails, the chunk has been written, because nothing else writes to the ring
//!   while the head is *h*.
//!
//! That *w* is no later than *h* takes a proof: a helper reads the head once more after it has read
//! *w* (`CountWindow::write_for_other`), and an owner uses the word that it had read before its
//! move of the head succeeded.
//!
//! Both points rest on a word never coming back to an earlier value meanwhile (ABA), which is what
//! the tags are for:
//!
//! - The head's tag grows by one each time the ring has gone round, and each time the window is
//!   cleared. It has all the bits that are left over: 41 of them with N = 100, 35 with 1,000, 21
//!   with 2^20. A head comes back after 2^tag of these at the earliest. Those are 2^41 calls or
//!   more with any N ([`chunk_of`] sees to it): at 5 ns each, 3 hours (12 days with N = 100); or as
//!   many clearings, two million with the largest N.
//! - A word of the ring carries 48 bits that grow by one with every change, so it comes back after
//!   2^48 changes: 16 days at 5 ns each.
//!
//! So the window is exact unless a thread stops for so long between two neighbouring steps of
//! `record`, and then goes on when the count is an exact multiple of those periods and the rest of
//! the word is the same too.
//!
//! # Generations
//!
//! [`record`](CountWindow::record) asks whether its call is still current *after* it has read the
//! head that it will move. A circuit that changes its generation first and clears the window then
//! can rely on this: who has read a head from after the clearing (acquire) sees the new generation
//! and leaves the window alone; who has read an earlier one comes too late with its move, or moved
//! it before the clearing, which then swept its call away. Calls of the *new* generation that
//! settle before `clear` are swept away too, and see what the window held before: the circuit must
//! not let any of them settle until `clear` is done.

use crate::circuit::sync::{AtomicU64, Ordering};

/// The largest window: beyond it too few bits would be left for the head's tag.
pub(crate) const MAX_SIZE: u32 = 1 << 20;

/// Outcomes in a word of the ring; its other 48 bits count its changes. With 32 outcomes the ring
/// would be half as large, but a word could come back after 2^32 changes: 20 seconds. (Two under
/// loom, so that the smallest rings have a second word.)
const OUTCOMES: u32 = if cfg!(tower_breaker_loom) { 2 } else { 16 };

/// Outcomes in the largest chunk. Chunks spare most calls the write to the ring, which costs as
/// much as the move of the head; with eight there is little left to spare. (Divides `OUTCOMES`.)
const MAX_CHUNK: u32 = if cfg!(tower_breaker_loom) { 2 } else { 8 };

const FULL: u64 = 1;
const BAD_SHIFT: u32 = 1;

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
    /// Calls in a chunk, a power of two, less one.
    chunk_mask: u32,
    /// Where the parts of the head begin: `recent`, the position (the tag follows it).
    recent_shift: u32,
    shift: u32,
    position_mask: u64,
    /// `FULL` and the bits of `bad`: together they tell a clean window.
    clean_mask: u64,
    /// What takes a head to the next position.
    step: u64,
    /// What takes a head at the last position to position 0 of the next tag.
    wrap: u64,
}

/// How many outcomes the head collects for a window whose size has `bad_bits` bits: a power of two,
/// as large as the head can afford. Beside the chunk it holds `full` (1 bit), `bad` (`bad_bits`),
/// the position (at most as many) and the tag, and a round has at least 2^(bad_bits - 1) calls. So
/// with a chunk of 21 - bad_bits or less, 2^tag rounds are 2^41 calls or more. (The largest window,
/// whose position has one bit less than `bad`, gets there with a chunk of one.)
const fn chunk_of(bad_bits: u32) -> u32 {
    match 21 - bad_bits {
        0 => 1,
        MAX_CHUNK.. => MAX_CHUNK,
        affordable => 1 << affordable.ilog2(),
    }
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
        Self::with_chunk(size, chunk_of(bits(size)))
    }

    fn with_chunk(size: u32, chunk: u32) -> Self {
        // `bad` goes up to `size`, the position up to `size - 1`.
        let bad_bits = bits(size);
        let position_bits = bits(size - 1);
        let recent_shift = BAD_SHIFT + bad_bits;
        let shift = recent_shift + chunk;
        Self {
            head: AtomicU64::new(0),
            ring: (0..size.div_ceil(OUTCOMES))
                .map(|_| AtomicU64::new(0))
                .collect(),
            size,
            chunk_mask: chunk - 1,
            recent_shift,
            shift,
            position_mask: (1 << position_bits) - 1,
            clean_mask: ((1 << bad_bits) - 1) << BAD_SHIFT | FULL,
            step: 1 << shift,
            wrap: ((1 << position_bits) - u64::from(size) + 1) << shift,
        }
    }

    /// Counts a settled call, unless `current` says that it has become too late for it.
    ///
    /// What it returns is what the window held at the very point where the call entered it. When
    /// the generation changes just then, that may be a window that is about to be cleared: whoever
    /// acts on the figures must make sure of the generation once more.
    ///
    /// Lock-free: it starts again only where another call was counted meanwhile. `current` is asked
    /// once per start.
    #[inline(always)]
    pub(crate) fn record(&self, bad: bool, current: impl Fn() -> bool) -> Recorded {
        match self.enter(bad, current) {
            Some(head) => Recorded::Kept(self.held(head)),
            None => Recorded::Late,
        }
    }

    /// Whether it is full, and all its calls are good. Then one more good call changes nothing; it
    /// counts at this look, if it is [current](Self::record) after it.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        self.is_clean_at(self.head.load(Ordering::Acquire))
    }

    #[inline]
    fn is_clean_at(&self, head: u64) -> bool {
        head & self.clean_mask == FULL
    }

    /// How many calls it holds when it is full.
    pub(crate) fn size(&self) -> u32 {
        self.size
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
            // Else one who had stopped could write its chunk into a later round.
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
    #[inline(always)]
    fn enter(&self, bad: bool, current: impl Fn() -> bool) -> Option<u64> {
        // Acquire, here and where a move of the head fails: what was done before the head became
        // this (the change of the generation, the writes to the ring) is seen after it.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if !current() {
                return None;
            }
            if !bad && self.is_clean_at(head) {
                return Some(head);
            }
            let position = self.position(head);
            let offset = position & self.chunk_mask;
            if offset == 0 {
                self.finish(head);
            }

            let slot = self.slot(position);
            // Relaxed: if it is of a later head, moving this one fails; it can't be of an earlier
            // round, because that round's write happened before this head.
            let word = slot.load(Ordering::Relaxed);
            let pushed_out = word >> (position % OUTCOMES) & head & FULL;

            let last = position + 1 == self.size;
            let (step, full) = if last {
                (self.wrap, FULL)
            } else {
                (self.step, 0)
            };
            let bad = u64::from(bad);
            let recent = self.recent_shift + offset;
            let next = (head & !(1 << recent))
                .wrapping_add(step)
                .wrapping_add(bad << BAD_SHIFT)
                .wrapping_sub(pushed_out << BAD_SHIFT)
                | bad << recent
                | full;
            match self.move_head(head, next) {
                Ok(_) => {
                    if last || offset == self.chunk_mask {
                        self.write(next, slot, word, position);
                    }
                    return Some(next);
                }
                Err(moved) => head = moved,
            }
        }
    }

    /// Makes sure that a chunk which ends before `head` is in the ring, as everybody must before
    /// moving the head. (If the head is no longer `head`, that move fails, and nothing is
    /// promised.)
    ///
    /// Like all that happens once in a chunk, out of line, to spare the calls between registers.
    #[inline(never)]
    fn finish(&self, head: u64) {
        let position = self.position(head);
        let last = match position.checked_sub(1) {
            Some(last) if position & self.chunk_mask == 0 => last,
            // In the middle of a chunk.
            Some(_) => return,
            None if head & FULL != 0 => self.size - 1,
            // Nothing has entered it since it was made or cleared.
            None => return,
        };
        let slot = self.slot(last);
        // Acquire: if a later head's owner or helper wrote this word, that head is seen too.
        let word = slot.load(Ordering::Acquire);
        if self.with_recent(head, word, last) != word {
            self.write_for_other(head, slot, word, last);
        }
    }

    /// The call that completed the chunk has been interrupted, or is about to write it this moment.
    #[cold]
    fn write_for_other(&self, head: u64, slot: &AtomicU64, word: u64, last: u32) {
        // Relaxed: `word` was read with acquire, so this can't be older than a head that `word` had
        // been written under. Still the same head: then `word` is no later than that head either.
        if self.head.load(Ordering::Relaxed) == head {
            self.write(head, slot, word, last);
        }
    }

    /// Writes the chunk that `head` has collected and that ends at `last`, unless `word` has it, or
    /// the word has changed: then somebody else has done it. For that reason not the weak exchange,
    /// which may fail without cause.
    #[inline(never)]
    fn write(&self, head: u64, slot: &AtomicU64, word: u64, last: u32) {
        let written = self.with_recent(head, word, last);
        if written != word {
            let changed = written.wrapping_add(1 << OUTCOMES);
            // Release: see `finish`. The failure tells nothing but that the word has changed; that
            // whoever reads the next head sees that change as well follows from having read it here
            // (coherence).
            let _ = slot.compare_exchange(word, changed, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// `word` with the chunk that ends at `last` as `head` has collected it. A last chunk that the
    /// end of the ring cuts short is filled up with bits that nobody reads.
    #[inline]
    fn with_recent(&self, head: u64, word: u64, last: u32) -> u64 {
        let mask = self.recent_mask();
        let recent = head >> self.recent_shift & mask;
        let first = (last & !self.chunk_mask) % OUTCOMES;
        word & !(mask << first) | recent << first
    }

    /// As many bits as a chunk has outcomes.
    #[inline]
    fn recent_mask(&self) -> u64 {
        // 2^chunk - 1; a chunk is at most half a word.
        (2 << self.chunk_mask) - 1
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

    /// The word of the ring that holds a position.
    #[inline]
    fn slot(&self, position: u32) -> &AtomicU64 {
        &self.ring[(position / OUTCOMES) as usize]
    }
}

/// The bits that numbers up to `largest` take.
const fn bits(largest: u32) -> u32 {
    u32::BITS - largest.leading_zeros()
}

#[cfg(all(test, tower_breaker_loom))]
mod loom_tests;
#[cfg(all(test, not(tower_breaker_loom)))]
mod tests;

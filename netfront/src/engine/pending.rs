//! Kinds of deferred work that wait for a core: a mask of 32 bits, the lowest of which is served first.
//!
//! Whoever has something for a core puts it where that will look, raises its *kind* in the core's [`Pending`], and wakes the
//! core. The core takes the whole mask at the head of a *pass* and serves each kind of it once, by the function that was
//! registered for it in a [`Vector`]. So a core with nothing to do looks at one word, however many there are who may have
//! something for it.
//!
//! The order says what is served first, not what is served at all: a kind that is raised while a pass runs is served in the next
//! one, so none waits for longer than a pass, however often those before it are raised. A pass is as long as its functions
//! are; what bounds the long one among them, receiving, are the limit of rounds and the time of an activation
//! ([`super::bottom_half`]).
//!
//! That no raised kind is lost is model-checked in `netfront/loom/tests/loom.rs`.

#[cfg(loom)]
use loom::sync::atomic::AtomicU32;
#[cfg(not(loom))]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// How many kinds there may be.
pub const KINDS: usize = 32;

/// A kind of deferred work, by its number: the lowest is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    /// Kind number `NUMBER`; one from 32 on does not compile.
    pub const fn of<const NUMBER: u8>() -> Self {
        const { assert!((NUMBER as usize) < KINDS) };
        Self(NUMBER)
    }
}

/// Some kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);

    /// These and that one.
    #[must_use]
    pub const fn and(self, kind: Kind) -> Self {
        Self(self.0 | (1 << kind.0))
    }

    /// These and those.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if it is one of them.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind.0) != 0
    }

    /// True if there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Takes out the lowest.
    pub fn take_lowest(&mut self) -> Option<Kind> {
        let lowest = u8::try_from(self.0.trailing_zeros()).ok();
        // Of no bit there are 32 zeros.
        let lowest = lowest.filter(|&number| usize::from(number) < KINDS)?;
        self.0 &= self.0 - 1;
        Some(Kind(lowest))
    }

    /// Those behind this one, and the rest.
    const fn split_behind(self, kind: Kind) -> (Self, Self) {
        let rest = u32::MAX >> (KINDS as u32 - 1 - kind.0 as u32);
        (Self(self.0 & !rest), Self(self.0 & rest))
    }
}

impl From<Kind> for Kinds {
    fn from(kind: Kind) -> Self {
        Self::NONE.and(kind)
    }
}

/// The kinds that were raised for a core, by itself or by others, and that it has not taken yet.
#[derive(Debug)]
pub struct Pending(AtomicU32);

impl Default for Pending {
    fn default() -> Self {
        Self::new()
    }
}

impl Pending {
    /// Nothing is raised.
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Something of these kinds is there. What the caller wrote before is seen by the core when it has taken them. It does not
    /// wake the core: that comes after.
    pub fn raise(&self, kinds: impl Into<Kinds>) {
        // Also where the bits are set already: the core may be about to take them, and only a write of this word carries over
        // what was written before.
        self.0.fetch_or(kinds.into().0, AcqRel);
    }

    /// Takes all. Only the core calls this.
    pub fn take(&self) -> Kinds {
        match self.is_empty() {
            // A core under load, for which nobody has anything, pays no more than this look.
            true => Kinds::NONE,
            // In one step: what is raised between a look and a store would be lost.
            false => Kinds(self.0.swap(0, AcqRel)),
        }
    }

    /// Takes one. True if it was raised.
    pub fn take_kind(&self, kind: Kind) -> bool {
        let bit = Kinds::from(kind).0;
        self.0.load(Relaxed) & bit != 0 && self.0.fetch_and(!bit, AcqRel) & bit != 0
    }

    /// True if nothing is raised. A core that wants to sleep has to say so first, by its [`Bell`](super::steering::Bell), and
    /// then look.
    pub fn is_empty(&self) -> bool {
        self.0.load(Acquire) == 0
    }
}

/// What serves a kind: returns the kinds for which the core has more to do, such as the queues that it has put on its list.
pub type Action<C, E> = fn(&mut C) -> Result<Kinds, E>;

/// Which function serves which kind.
#[derive(Debug)]
pub struct Vector<C, E> {
    actions: [Option<Action<C, E>>; KINDS],
}

impl<C, E> Default for Vector<C, E> {
    fn default() -> Self {
        Self {
            actions: [None; KINDS],
        }
    }
}

impl<C, E> Vector<C, E> {
    /// Registers what serves a kind, in place of what did so before.
    #[must_use]
    pub fn register(mut self, kind: Kind, action: Action<C, E>) -> Self {
        if let Some(place) = self.actions.get_mut(usize::from(kind.0)) {
            *place = Some(action);
        }
        self
    }

    /// One pass: serves each of these kinds, the lowest first. What an action returns is served in this pass too if it
    /// comes later in it, and else returned: for the next pass. So no kind is served twice in a pass, and a pass ends. A
    /// kind for which nothing is registered is dropped.
    ///
    /// # Errors
    /// That of an action, which ends the pass.
    pub fn serve(&self, context: &mut C, mut kinds: Kinds) -> Result<Kinds, E> {
        let mut next = Kinds::NONE;
        while let Some(kind) = kinds.take_lowest() {
            let action = self.actions.get(usize::from(kind.0)).copied().flatten();
            if let Some(action) = action {
                let (behind, rest) = action(context)?.split_behind(kind);
                kinds = kinds.union(behind);
                next = next.union(rest);
            }
        }
        Ok(next)
    }
}

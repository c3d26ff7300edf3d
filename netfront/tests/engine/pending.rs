//! Kinds of deferred work: raised by anyone, served by one, the lowest first.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use netfront::engine::pending::{Kind, Kinds, Pending, Vector, KINDS};

const FIRST: Kind = Kind::of::<0>();
const SECOND: Kind = Kind::of::<1>();
const THIRD: Kind = Kind::of::<2>();
const LAST: Kind = Kind::of::<31>();

/// What was served, in order, and what the second kind has more of.
#[derive(Default)]
struct Served {
    order: Vec<u8>,
    more: Kinds,
}

type Actions = Vector<Served, &'static str>;

fn served(number: u8, context: &mut Served) -> Result<Kinds, &'static str> {
    context.order.push(number);
    Ok(Kinds::NONE)
}

fn actions() -> Actions {
    Actions::default()
        .register(LAST, |context| served(31, context))
        .register(SECOND, |context| {
            context.order.push(1);
            Ok(std::mem::take(&mut context.more))
        })
        .register(FIRST, |context| served(0, context))
}

/// L-4: whatever the order in which kinds are raised, and registered, the one with the lowest number is served first.
#[test]
fn of_several_kinds_the_lowest_is_served_first() {
    let (pending, mut context) = (Pending::new(), Served::default());
    for kind in [LAST, FIRST, SECOND, LAST] {
        pending.raise(kind);
    }
    let left = actions().serve(&mut context, pending.take());
    assert_eq!(left, Ok(Kinds::NONE));
    assert_eq!(context.order, [0, 1, 31]);
    assert!(
        pending.is_empty(),
        "each was raised once, or twice, and taken"
    );
}

/// L-4: what an action raises comes in this pass only where the pass has not been yet: each kind is served once in a pass, so
/// the first cannot keep the last waiting.
#[test]
fn what_is_raised_behind_comes_in_this_pass_and_what_is_raised_before_in_the_next() {
    let mut context = Served {
        more: Kinds::from(FIRST).and(SECOND).and(LAST),
        ..Served::default()
    };
    let left = actions().serve(&mut context, SECOND.into());
    assert_eq!(context.order, [1, 31]);
    assert_eq!(left, Ok(Kinds::from(FIRST).and(SECOND)));
    let left = actions().serve(&mut context, left.expect("no error"));
    assert_eq!(left, Ok(Kinds::NONE));
    assert_eq!(context.order, [1, 31, 0, 1]);
}

/// S-6: there are 32 kinds, each with the action that was registered for it last; one without an action is nothing to do, and an
/// error ends the pass.
#[test]
fn each_of_thirty_two_kinds_has_the_action_that_was_registered_for_it() {
    assert_eq!(KINDS, 32);
    let mut context = Served::default();
    let left = actions().serve(&mut context, Kinds::from(THIRD).and(LAST));
    assert_eq!((left, &context.order[..]), (Ok(Kinds::NONE), &[31][..]));
    let fails = actions().register(SECOND, |_| Err("broken"));
    let left = fails.serve(&mut context, Kinds::from(LAST).and(SECOND));
    assert_eq!(left, Err("broken"));
    assert_eq!(context.order, [31], "the pass ended");
}

#[test]
fn one_kind_is_taken_and_the_others_stay() {
    let pending = Pending::new();
    assert!(!pending.take_kind(FIRST));
    pending.raise(Kinds::from(FIRST).and(LAST));
    assert!(pending.take_kind(FIRST));
    assert!(!pending.take_kind(FIRST), "it was taken");
    let left = pending.take();
    assert!(left.contains(LAST) && !left.contains(FIRST));
    assert!(pending.take().is_empty());
}

/// Counts that other threads make and this one has seen.
struct Counts<'c> {
    made: &'c [AtomicU64; 2],
    seen: [u64; 2],
    served: u64,
}

impl Counts<'_> {
    fn look(&mut self, at: usize) -> Result<Kinds, ()> {
        self.seen[at] = self.made[at].load(Relaxed);
        self.served += 1;
        Ok(Kinds::NONE)
    }
}

/// S-6: what any thread raises is served by the loop, however many raise at once. What was raised twice before a pass is served
/// once; the model checker has every interleaving.
#[test]
fn nothing_that_threads_raise_at_once_is_lost() {
    const EACH: u64 = 20_000;
    let (pending, made) = (Pending::new(), [AtomicU64::new(0), AtomicU64::new(0)]);
    let vector = Vector::<Counts<'_>, ()>::default()
        .register(FIRST, |counts| counts.look(0))
        .register(LAST, |counts| counts.look(1));
    let mut counts = Counts {
        made: &made,
        seen: [0; 2],
        served: 0,
    };
    std::thread::scope(|scope| {
        for (at, kind) in [FIRST, LAST, FIRST, LAST].into_iter().enumerate() {
            let (pending, made) = (&pending, &made[at % 2]);
            scope.spawn(move || {
                for _ in 0..EACH {
                    made.fetch_add(1, Relaxed);
                    pending.raise(kind);
                }
            });
        }
        crate::common::until("all that was raised", || {
            let left = vector.serve(&mut counts, pending.take());
            assert_eq!(left, Ok(Kinds::NONE));
            counts.seen == [2 * EACH; 2]
        });
    });
    assert!(counts.served <= 4 * EACH);
    // What was raised last may have been seen before it was taken.
    let _ = pending.take();
    assert!(pending.is_empty());
}

//! The queues that one core has to poll, in the order in which their turn comes.
//!
//! A queue is an index, and the list links indices: nothing is allocated after it was made, and whole lists are
//! appended in one step, as the kernel splices its own. A queue is in one place at most: to be polled, held
//! (its packets wait in the ring until their consumer has room), or in nobody's list.

/// Where the next queue of a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// The queue is in no list.
    Out,
    /// The queue is the last of its list.
    Last,
    /// Another one follows.
    To(usize),
}

/// A list of queues, linked through [`Links`].
#[derive(Debug, Default)]
pub(super) struct Chain {
    ends: Option<(usize, usize)>,
}

/// The links of all queues of a core.
#[derive(Debug)]
pub(super) struct Links(Box<[Link]>);

impl Links {
    pub(super) fn new(queues: usize) -> Self {
        Self(vec![Link::Out; queues].into())
    }

    /// True if the queue exists and is in no list.
    fn is_out(&self, queue: usize) -> bool {
        self.0.get(queue) == Some(&Link::Out)
    }

    fn set(&mut self, queue: usize, link: Link) {
        if let Some(own) = self.0.get_mut(queue) {
            *own = link;
        }
    }

    /// Puts a queue at the tail. False if it is in a list already, or there is no such queue.
    pub(super) fn push(&mut self, chain: &mut Chain, queue: usize) -> bool {
        if !self.is_out(queue) {
            return false;
        }
        self.set(queue, Link::Last);
        chain.ends = match chain.ends {
            None => Some((queue, queue)),
            Some((first, last)) => {
                self.set(last, Link::To(queue));
                Some((first, queue))
            }
        };
        true
    }

    /// Takes the queue at the head.
    pub(super) fn pop(&mut self, chain: &mut Chain) -> Option<usize> {
        let (first, last) = chain.ends?;
        chain.ends = match self.0.get(first) {
            Some(&Link::To(next)) => Some((next, last)),
            _ => None,
        };
        self.set(first, Link::Out);
        Some(first)
    }

    /// Appends the whole of `tail`, which is empty then.
    pub(super) fn append(&mut self, chain: &mut Chain, tail: &mut Chain) {
        chain.ends = match (chain.ends, tail.ends.take()) {
            (Some((first, last)), Some((next, end))) => {
                self.set(last, Link::To(next));
                Some((first, end))
            }
            (ends, None) => ends,
            (None, ends) => ends,
        };
    }
}

impl Chain {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::{Chain, Links};

    const QUEUES: usize = 6;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize, usize),
        Pop(usize),
        Append(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3usize, 0..QUEUES + 1).prop_map(|(list, queue)| Step::Push(list, queue)),
            2 => (0..3usize).prop_map(Step::Pop),
            1 => (0..3usize, 0..3usize).prop_map(|(list, tail)| Step::Append(list, tail)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// N-5: linked indices do what queues of indices do, and none is in two lists.
        #[test]
        fn linked_lists_behave_as_queues_of_indices(steps in prop::collection::vec(step(), 1..60)) {
            let mut links = Links::new(QUEUES);
            let mut chains: [Chain; 3] = Default::default();
            let mut model: [VecDeque<usize>; 3] = Default::default();
            for step in steps {
                match step {
                    Step::Push(list, queue) => {
                        let free = queue < QUEUES && !model.iter().any(|l| l.contains(&queue));
                        prop_assert_eq!(links.push(&mut chains[list], queue), free);
                        if free {
                            model[list].push_back(queue);
                        }
                    }
                    Step::Pop(list) => {
                        prop_assert_eq!(links.pop(&mut chains[list]), model[list].pop_front());
                    }
                    Step::Append(list, tail) if list != tail => {
                        let mut taken = std::mem::take(&mut chains[tail]);
                        links.append(&mut chains[list], &mut taken);
                        let moved = std::mem::take(&mut model[tail]);
                        model[list].extend(moved);
                    }
                    Step::Append(..) => {}
                }
                for (chain, model) in chains.iter().zip(&model) {
                    prop_assert_eq!(chain.is_empty(), model.is_empty());
                }
            }
        }
    }
}

//! What a worker has received and nobody has read yet, by connection.
//!
//! Packets that event cores steer to a worker come out of its lanes in the order of the lanes. Who reads wants those of
//! one connection. The store keeps a list for each connection, linked through slots that are made once: it
//! allocates nothing later, and holds no more than its slots.

use std::collections::HashMap;

use super::connection::Connection;

#[derive(Debug)]
struct Slot<T> {
    packet: Option<T>,
    next: Option<usize>,
}

/// The packets of one connection: first and last slot.
#[derive(Debug, Clone, Copy)]
struct Queue {
    first: usize,
    last: usize,
}

/// Packets by connection, in order. What is no IP is a connection of its own, `None`.
#[derive(Debug)]
pub struct Store<T> {
    slots: Box<[Slot<T>]>,
    free: Option<usize>,
    queues: HashMap<Option<Connection>, Queue>,
    len: usize,
}

impl<T> Store<T> {
    /// For up to `capacity` packets.
    pub fn new(capacity: usize) -> Self {
        let slot = |index: usize| Slot {
            packet: None,
            next: (index + 1 < capacity).then_some(index + 1),
        };
        Self {
            slots: (0..capacity).map(slot).collect(),
            free: (capacity > 0).then_some(0),
            // Twice as many as there can be: then the map puts itself in order where it is.
            queues: HashMap::with_capacity(2 * capacity),
            len: 0,
        }
    }

    /// Packets that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Connections that have packets.
    pub fn connections(&self) -> usize {
        self.queues.len()
    }

    /// Puts a packet behind those of its connection. True: it is the first, so whoever reads this connection may have
    /// to be told.
    ///
    /// # Errors
    /// The packet, if no slot is free.
    pub fn put(&mut self, connection: Option<Connection>, packet: T) -> Result<bool, T> {
        let Some(index) = self.free else {
            return Err(packet);
        };
        let Some(slot) = self.slots.get_mut(index) else {
            return Err(packet);
        };
        self.free = slot.next.take();
        slot.packet = Some(packet);
        self.len += 1;
        let mut first = true;
        let queue = self.queues.entry(connection).and_modify(|_| first = false);
        let queue = queue.or_insert(Queue {
            first: index,
            last: index,
        });
        let last = std::mem::replace(&mut queue.last, index);
        if !first {
            if let Some(last) = self.slots.get_mut(last) {
                last.next = Some(index);
            }
        }
        Ok(first)
    }

    /// Takes the oldest packet of a connection.
    pub fn take(&mut self, connection: &Option<Connection>) -> Option<T> {
        let queue = self.queues.get_mut(connection)?;
        let index = queue.first;
        let slot = self.slots.get_mut(index)?;
        match slot.next {
            Some(next) => queue.first = next,
            None => {
                self.queues.remove(connection);
            }
        }
        slot.next = self.free.replace(index);
        self.len -= 1;
        slot.packet.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::super::connection::{Endpoint, Kind};
    use super::*;

    fn connection(port: u16) -> Option<Connection> {
        let end = |port| Endpoint {
            address: [7; 16],
            port,
        };
        (port > 0).then(|| Connection {
            kind: Kind::UdpV6,
            source: end(port),
            destination: end(53),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// K-7, K-8: reading by a connection gives the packets of that connection only, in their order.
        #[test]
        fn a_connection_has_its_packets_in_order_and_no_others(
            steps in prop::collection::vec((any::<bool>(), 0..5u16), 1..200),
        ) {
            const SLOTS: usize = 8;
            let mut store = Store::new(SLOTS);
            let mut model: BTreeMap<u16, VecDeque<usize>> = BTreeMap::new();
            for (number, (put, port)) in steps.into_iter().enumerate() {
                let held: usize = model.values().map(VecDeque::len).sum();
                let own = model.entry(port).or_default();
                if put {
                    let expected = if held < SLOTS { Ok(own.is_empty()) } else { Err(number) };
                    prop_assert_eq!(store.put(connection(port), number), expected);
                    if held < SLOTS {
                        own.push_back(number);
                    }
                } else {
                    prop_assert_eq!(store.take(&connection(port)), own.pop_front());
                }
                prop_assert_eq!(store.len(), model.values().map(VecDeque::len).sum::<usize>());
                let busy = model.values().filter(|own| !own.is_empty()).count();
                prop_assert_eq!(store.connections(), busy);
            }
        }
    }
}

//! A consumer that drops everything: for measuring what comes before it.

use super::Consumer;
use crate::packet::Packet;

/// Drops every packet. The queue's counters say how many there were.
#[derive(Debug, Default)]
pub struct Null;

impl Consumer for Null {
    fn deliver(&mut self, _packet: &mut Packet<'_>) {}
}

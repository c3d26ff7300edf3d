//! What the frontend says of itself in the store: its rings, channels and wishes; and how all of it goes again.

use std::time::Duration;

use super::{keys, Connection, Features, Wants, XenbusState};
use crate::control::ControlKeys;
use crate::queue::{Ports, QueueKeys};
use crate::Error;

impl Connection {
    /// Publishes a control ring with the next [`Self::publish`], or none.
    pub fn control_ring(&mut self, keys: Option<ControlKeys>) {
        self.control = keys;
    }

    /// Writes what the backend needs, then state Connected.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn publish(
        &mut self,
        queue: &QueueKeys,
        offer: &Features,
        wants: &Wants,
    ) -> Result<(), Error> {
        self.publish_queues(std::slice::from_ref(queue), offer, wants)
    }

    /// The same for several queues, never more than the backend offers: it would give up the vif.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_queues(
        &mut self,
        queues: &[QueueKeys],
        offer: &Features,
        wants: &Wants,
    ) -> Result<(), Error> {
        self.remove_keys()?;
        self.put_queues(queues)?;
        if let Some(ControlKeys { ring, port }) = self.control {
            self.put(keys::CTRL_RING_REF, ring.0)?;
            self.put(keys::EVENT_CHANNEL_CTRL, port.0)?;
        }
        self.put(keys::REQUEST_RX_COPY, 1)?;
        // Without it netback turns its stall detection off and drains after 30 ms.
        self.put(keys::FEATURE_RX_NOTIFY, 1)?;
        self.put(keys::FEATURE_SG, u32::from(wants.sg))?;
        let gso = u32::from(wants.gso && wants.sg && wants.csum_offload);
        self.put(keys::FEATURE_GSO_TCPV4, gso)?;
        self.put(keys::FEATURE_GSO_TCPV6, gso)?;
        // What means the same if it is not there is not written, here and in `put_queues`: xenstored lets a domain own 1000 nodes
        // by default, and 50 vifs have 20 for each.
        if !wants.csum_offload {
            self.put(keys::FEATURE_NO_CSUM_OFFLOAD, 1)?;
        }
        self.put(
            keys::FEATURE_IPV6_CSUM_OFFLOAD,
            u32::from(wants.csum_offload),
        )?;
        if wants.multicast_filter && offer.multicast_control {
            // Without `feature-dynamic-multicast-control` it is read now and at no other time.
            self.put(keys::REQUEST_MULTICAST_CONTROL, 1)?;
        }
        self.told = true;
        self.published = true;
        // Written to one directory and not, in part, to that of before a restore.
        self.same_life()?;
        self.set_state(XenbusState::Connected)
    }

    /// Has the backend filter multicast packets, or not, while it is connected, if it is dynamic.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn filter_multicast(&mut self, on: bool) -> Result<(), Error> {
        self.put(keys::REQUEST_MULTICAST_CONTROL, u32::from(on))
    }

    /// The rings and channels: of one queue in the frontend's directory itself, of several each in one of its own.
    fn put_queues(&mut self, queues: &[QueueKeys]) -> Result<(), Error> {
        if queues.len() > 1 {
            self.put(keys::MULTI_QUEUE_NUM_QUEUES, queues.len() as u32)?;
        }
        for (number, queue) in queues.iter().enumerate() {
            let key = |name: &str| match queues.len() {
                1 => name.to_owned(),
                _ => keys::join(&keys::queue(number), name),
            };
            self.put(&key(keys::TX_RING_REF), queue.tx_ring.0)?;
            self.put(&key(keys::RX_RING_REF), queue.rx_ring.0)?;
            match queue.ports {
                Ports::Shared(port) => self.put(&key(keys::EVENT_CHANNEL), port.0)?,
                Ports::Split { rx, tx } => {
                    self.put(&key(keys::EVENT_CHANNEL_TX), tx.0)?;
                    self.put(&key(keys::EVENT_CHANNEL_RX), rx.0)?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value: u32) -> Result<(), Error> {
        Ok(self
            .store
            .write(&keys::join(&self.frontend, key), &value.to_string())?)
    }

    /// Leaves the vif as a driver that was never here would: nothing of ours in the store, both sides at the
    /// start. What stays would be read as the next driver's word: a `ctrl-ring-ref` of ours makes netback
    /// map a page that is gone, and refuse the kernel's netfront for it.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn hand_over(&mut self, deadline: Duration) -> Result<(), Error> {
        self.prepare(deadline)?;
        self.remove_keys()
    }

    /// What the next driver may not write, and so would leave as it is. The kernel's netfront has no control ring and
    /// removes no keys of one: netback would try to map ours, which is gone, and give up the next connection. A
    /// driver that knows of one queue only writes no number of them. One that never asks for multicast packets would get none.
    pub(super) fn remove_lasting_keys(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.published) {
            for key in [
                keys::CTRL_RING_REF,
                keys::EVENT_CHANNEL_CTRL,
                keys::MULTI_QUEUE_NUM_QUEUES,
                keys::REQUEST_MULTICAST_CONTROL,
            ] {
                self.store.remove(&keys::join(&self.frontend, key))?;
            }
        }
        Ok(())
    }

    fn remove_keys(&mut self) -> Result<(), Error> {
        for key in keys::STALE {
            self.store.remove(&keys::join(&self.frontend, key))?;
        }
        // As many as an earlier driver had.
        for key in self.store.list(&self.frontend)? {
            if keys::is_queue(&key) {
                self.store.remove(&keys::join(&self.frontend, &key))?;
            }
        }
        Ok(())
    }
}

//! The control ring. This backend steers by its own hash and keeps no page mapped, so it answers
//! every question that it is not supported, as netif.h provides for; a frontend then does without.

use xen_ring::{Control, ControlResponse, ControlStatus, Layout};

use super::{Fault, Vif};

impl Vif {
    /// Answers what is in the control ring. True when there was something.
    pub(super) fn serve_control(&mut self) -> Result<bool, Fault> {
        let Some((ring, port)) = &mut self.control else {
            return Ok(false);
        };
        let mut answered = 0;
        // One ring full a round: a guest that asks without end must not keep the data waiting.
        for _ in 0..Control::SLOTS {
            let Some(raw) = ring.pop()? else { break };
            let status = ControlStatus::NotSupported;
            ring.push(&ControlResponse::to(&raw.request(), status, 0))?;
            answered += 1;
        }
        if answered == 0 {
            return Ok(false);
        }
        let (port, notify) = (*port, ring.publish());
        self.counters.control_messages.add(answered);
        self.ring(port, notify);
        Ok(true)
    }
}
